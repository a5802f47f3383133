"""Forward passes: within the budget, whatever the memory, and the vectors of the library itself."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from gistcache.precompute.guides.batching import Passes
from gistcache.precompute.guides.local_model import ModelGuide
from gistcache.precompute.settings import IndexSettings
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import AutoConfig, AutoModel, DataCollatorWithFlattening

from tests.conftest import random_texts


def padded_guide(folder, tokenizer_of) -> str:
    """MPNet: an encoder that is not packed."""
    tokenizer = SentenceTransformer(str(tokenizer_of)).tokenizer
    tokenizer.save_pretrained(folder / "base")
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    torch.manual_seed(5)
    config = AutoConfig.for_model("mpnet", vocab_size=len(tokenizer), max_position_embeddings=64, **sizes)
    AutoModel.from_config(config).save_pretrained(folder / "base")
    modules = [Transformer(str(folder / "base"), max_seq_length=32), Pooling(64, "mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder / "model"))
    return str(folder / "model")


@pytest.mark.parametrize("packed", [True, False])
def test_vectors_are_the_librarys_own_in_the_order_of_the_texts(tmp_path, guide_folder, packed):
    folder = str(guide_folder) if packed else padded_guide(tmp_path, guide_folder)
    guide = ModelGuide(IndexSettings(guide=folder, device="cpu", batch_tokens=200))
    texts = [text[: 5 + 3 * number] for number, text in enumerate(random_texts(60, seed=9))]
    assert np.abs(guide.passes.embed(guide.model.preprocess(texts)) - guide.model.encode(texts)).max() < 1e-5


def test_running_out_of_memory_halves_the_budget_and_goes_on(guide_folder, monkeypatch):
    texts = random_texts(60, seed=42)
    guide = ModelGuide(IndexSettings(guide=str(guide_folder), device="cpu", batch_tokens=1_000))
    expected = guide.encode(texts, "query")
    passes, original = [], Passes._pass

    def small_memory(self, features):
        tokens = features["input_ids"].numel()
        passes.append(tokens)
        if tokens > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.device = "cpu"
        vectors = original(self, features)
        self.device = "cuda"
        return vectors

    monkeypatch.setattr(Passes, "_pass", small_memory)
    guide.passes.device = "cuda"
    vectors = guide.encode(texts, "query")
    assert np.abs(vectors.astype(np.float32) - expected).max() < 1e-3
    assert max(passes) > 100 >= passes[-1]
    assert guide.passes.batch_tokens <= 100


def test_flat_features_of_flash_attention_are_cut_to_the_budget(guide_folder, monkeypatch):
    guide = ModelGuide(IndexSettings(guide=str(guide_folder), device="cpu", batch_tokens=64))
    texts = random_texts(60, seed=8)
    expected = guide.encode(texts, "query")
    flatten = DataCollatorWithFlattening(return_seq_idx=True, return_flash_attn_kwargs=True, return_position_ids=True)
    padded, original, passes = guide.model.preprocess, Passes._pass, []

    def flat(texts, **_):
        made = padded(texts)
        kept = zip(made["input_ids"], made["attention_mask"].bool(), strict=True)
        return flatten([{"input_ids": ids[mask].tolist()} for ids, mask in kept])

    def unflattened(self, piece):
        starts = piece["cu_seq_lens_q"].tolist()
        rows = [piece["input_ids"][0, a:b].tolist() for a, b in pairwise(starts)]
        remade = flatten([{"input_ids": row} for row in rows])
        assert all(torch.equal(torch.as_tensor(remade[n]), torch.as_tensor(piece[n])) for n in remade if n != "labels")
        passes.append(starts[-1])
        if starts[-1] > 40 and len(rows) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, guide.model.tokenizer.pad({"input_ids": rows}, return_tensors="pt"))

    monkeypatch.setattr(guide.model, "preprocess", flat)
    monkeypatch.setattr(Passes, "_pass", unflattened)
    assert np.abs(guide.encode(texts, "query").astype(np.float32) - expected).max() < 1e-3
    assert 64 >= max(passes) > 40 >= passes[-1]
