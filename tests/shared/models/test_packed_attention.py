"""Packed rows against padded ones, for every family of encoder that is packed."""

from __future__ import annotations

import pytest
import torch
from gistcache.shared.models.packed_attention import PACKABLE, can_pack, embed_packed, packed_attention
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from transformers import AutoConfig, AutoModel, BertTokenizerFast

from tests.conftest import WORDS, random_texts

SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "pad_token_id": 0,
}
DISTILBERT_SIZES = {"dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 32}


def encoder(folder, family: str, pooling: str, side: str = "right") -> SentenceTransformer:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, ":"]
    tokenizer = BertTokenizerFast(vocab={word: number for number, word in enumerate(vocabulary)}, padding_side=side)
    tokenizer.save_pretrained(folder)
    sizes = DISTILBERT_SIZES if family == "distilbert" else SIZES
    torch.manual_seed(1)
    config = AutoConfig.for_model(family, vocab_size=len(vocabulary), max_position_embeddings=64, **sizes)
    model = AutoModel.from_config(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    modules = [Transformer(str(folder), max_seq_length=32), Pooling(16, pooling), Dense(16, 8), Normalize()]
    return SentenceTransformer(modules=modules, device="cpu").eval()


@pytest.mark.parametrize("family", sorted(PACKABLE))
@pytest.mark.parametrize(
    ("pooling", "side", "prompt"), [("mean", "right", None), ("cls", "right", None), ("max", "right", "red :")]
)
def test_packed_equals_padded_in_value_and_gradient(tmp_path, family, pooling, side, prompt):
    model = encoder(tmp_path, family, pooling, side)
    features = model.preprocess(random_texts(30, seed=4), prompt=prompt)
    assert can_pack(model, features)
    weights = torch.randn(30, 8)
    found = []
    for embed in (lambda: embed_packed(model, features), lambda: model(dict(features))["sentence_embedding"]):
        model.zero_grad()
        vectors = embed()
        (vectors * weights).sum().backward()
        found.append(
            (vectors.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        )
    (vectors, gradients), (expected, theirs) = found
    assert torch.allclose(vectors, expected, atol=1e-5)
    assert gradients.keys() == theirs.keys()
    assert all(torch.allclose(gradients[name], theirs[name], atol=1e-5, rtol=1e-4) for name in theirs)


def test_what_cannot_be_packed_is_told(tmp_path):
    model = encoder(tmp_path, "bert", "mean")
    features = model.preprocess(random_texts(4, seed=4))
    assert can_pack(model, features)
    model[0].model.gradient_checkpointing_enable()
    assert not can_pack(model, features)
    model[0].model.gradient_checkpointing_disable()
    model[0].model.set_attn_implementation("eager")
    assert not can_pack(model, features)
    assert not can_pack(torch.nn.Sequential(torch.nn.Linear(2, 2)), features)


def test_dropout_drops_its_share_of_weights_scales_the_rest_and_follows_the_seed():
    """With equal scores and unit vectors as values, the output is the dropped and scaled weights themselves."""
    texts, length, rate = 200, 16, 0.1
    query = torch.zeros(1, 2, texts * length, length)
    value = torch.eye(length).repeat(texts, 1).expand(1, 2, -1, -1)

    def weights():
        torch.manual_seed(3)
        return packed_attention(torch.nn.Module(), query, query, value, None, [(texts, length)], dropout=rate)[0]

    first = weights()
    assert torch.equal(first, weights())
    assert ((first == 0).float().mean() - rate).abs() < 0.005
    assert torch.allclose(first[first > 0], torch.tensor(1 / length / (1 - rate)), rtol=1e-4)
