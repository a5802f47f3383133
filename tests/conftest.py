"""Tiny real models, made here from random weights, and small corpora of words they know."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

# fmt: off
WORDS = [
    "red", "green", "blue", "dog", "cat", "bird", "card", "bank", "money", "train", "plane", "city", "river",
    "house", "garden", "music", "paper", "stone", "water", "fire", "wind", "light", "night", "day", "king", "queen",
    "book", "door", "window", "table", "chair", "road", "bridge", "ship", "sea", "sand", "snow", "rain", "storm",
    "cloud",
]
# fmt: on


SLOWEST = ("test_engines.py", "test_chaos.py", "test_ranks.py", "test_end_to_end.py", "test_storage.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slowest files first: of two processes that take file after file, none is left with a long one at the end."""
    items.sort(key=lambda item: item.path.name not in SLOWEST)


def make_model(
    folder: Path,
    *,
    dim: int = 32,
    layers: int = 2,
    seed: int = 0,
    prompts: dict[str, str] | None = None,
    dropout: float = 0.1,
) -> Path:
    """Save a BERT of a few thousand weights with a word-piece vocabulary as a sentence-transformers folder."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertModel

    config = _tokenizer_and_config(folder / "base", dim, layers, seed, dropout)
    BertModel(config).save_pretrained(folder / "base")
    transformer = Transformer(str(folder / "base"), max_seq_length=32)
    model = SentenceTransformer(modules=[transformer, Pooling(dim, "mean"), Normalize()], device="cpu", prompts=prompts)
    model.save_pretrained(str(folder / "model"))
    return folder / "model"


def _tokenizer_and_config(folder: Path, dim: int, layers: int, seed: int, dropout: float, **more):
    """Save a word-piece tokenizer, seed torch, and return the configuration of a BERT that goes with it."""
    from transformers import BertConfig, BertTokenizerFast

    folder.mkdir(parents=True)
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters, *(f"##{c}" for c in letters), ":"]
    BertTokenizerFast(vocab={word: number for number, word in enumerate(vocabulary)}).save_pretrained(folder)
    torch.manual_seed(seed)
    return BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=dim,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * dim,
        max_position_embeddings=64,
        initializer_range=0.3,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        **more,
    )


def make_reranker(folder: Path, *, seed: int = 0, labels: int = 1) -> Path:
    """Save a cross-encoder of a few thousand random weights."""
    from sentence_transformers import CrossEncoder
    from transformers import BertForSequenceClassification

    config = _tokenizer_and_config(folder / "base", 16, 2, seed, 0.1, num_labels=labels)
    BertForSequenceClassification(config).save_pretrained(folder / "base")
    CrossEncoder(str(folder / "base"), device="cpu").save_pretrained(str(folder / "model"))
    return folder / "model"


@pytest.fixture(scope="session")
def reranker_folder(tmp_path_factory) -> Path:
    """A tiny cross-encoder."""
    return make_reranker(tmp_path_factory.mktemp("reranker") / "r", seed=4)


@pytest.fixture(scope="session")
def guide_folder(tmp_path_factory) -> Path:
    """A guide of 32 dimensions."""
    return make_model(tmp_path_factory.mktemp("guide") / "g", dim=32, seed=1)


@pytest.fixture(scope="session")
def prompted_guide_folder(tmp_path_factory) -> Path:
    """A guide that puts a prompt before queries and another before documents."""
    prompts = {"query": "find: ", "document": "text: "}
    return make_model(tmp_path_factory.mktemp("guide") / "p", dim=32, seed=1, prompts=prompts)


@pytest.fixture(scope="session")
def student_folder(tmp_path_factory) -> Path:
    """A student of 16 dimensions and four layers."""
    return make_model(tmp_path_factory.mktemp("student") / "s", dim=16, layers=4, seed=2)


def random_texts(count: int, seed: int = 0) -> list[str]:
    """Different texts of 3 to 12 known words."""
    random = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(random.choice(WORDS, size=random.integers(3, 13)))] = None
    return list(found)


def random_pairs(count: int, seed: int = 0, negatives: int = 0) -> list[dict[str, str]]:
    """Rows with anchor, positive and negatives; some positives stand in several rows, as in real data."""
    random = np.random.default_rng(seed)
    texts = random_texts(count * 2, seed)
    anchors, documents = texts[:count], texts[count:]
    rows = []
    for i, anchor in enumerate(anchors):
        row = {"anchor": anchor, "positive": documents[i if i % 5 else int(random.integers(count))]}
        for k in range(negatives):
            row[f"negative_{k + 1}"] = documents[int(random.integers(count))]
        rows.append(row)
    return rows


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Keep the data sets cache of a test inside its temporary folder."""
    from datasets import config

    monkeypatch.setattr(config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))


def build_test_index(out: Path, rows: list[dict], guide: Path, **settings) -> Path:
    """Write rows to a file beside ``out`` and index them with a guide; returns ``out``."""
    from gistcache.precompute import build_index

    source = write_jsonl(out.parent / f"{out.name}.jsonl", rows)
    build_index([str(source)], guide=str(guide), out=out, **settings)
    return out


@pytest.fixture(scope="session")
def forked(tmp_path_factory) -> None:
    """Processes are forked from one that has imported the libraries: the product's workers, and whole commands."""
    from tests.chaos.commands import start_server

    start_server(tmp_path_factory.mktemp("forked"))


@pytest.fixture(scope="session")
def small_index(tmp_path_factory, guide_folder) -> Path:
    """120 pairs with three negatives each, in parts of 50 rows."""
    rows = random_pairs(120, seed=3, negatives=3)
    return build_test_index(tmp_path_factory.mktemp("index") / "small", rows, guide_folder, shard_rows=50, neighbors=10)
