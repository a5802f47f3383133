"""Stale is an error: every change under an index is named, and nothing is reused."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from gistcache.precompute import build as build_module
from gistcache.precompute.guides.local_model import ModelGuide
from gistcache.shared.errors import IndexFaultError, StaleIndexError
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.models.load import load_model
from gistcache.shared.storage.integrity import read_checksummed, write_checksummed
from gistcache.train.batches.token_cache import TokenCache
from safetensors.torch import load_file, save_file

from tests.conftest import build_test_index, make_model, random_pairs
from tests.precompute.test_build import contents

ROWS = random_pairs(40, seed=8)


def edited(folder: Path, file: str, change) -> None:
    """Change one file of a guide, whose folder keeps its name."""
    path = folder / file
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def other_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.LayerNorm.bias"] += 1e-3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def other_tokenizer(folder: Path) -> None:
    edited(folder, "tokenizer.json", lambda content: content["model"]["vocab"].update({"snow": 900}))


def other_pooling(folder: Path) -> None:
    edited(folder, "1_Pooling/config.json", lambda content: content.update({"pooling_mode": "cls"}))


def nothing(folder: Path) -> None:
    del folder


def parts(folder: Path) -> dict:
    """All content but the name of who last held the lock."""
    return {path: content for path, content in contents(folder).items() if Path(str(path)).name != "holder.json"}


EDITED = [ROWS[0] | {"positive": ROWS[0]["positive"] + " dog"}, *ROWS[1:]]
CHANGES = {
    "other guide weights under the same name": (ROWS, other_weights, {}, ["guide.files.model.safetensors: index has"]),
    "other guide tokenizer": (ROWS, other_tokenizer, {}, ["guide.files.tokenizer.json"]),
    "other prompt": (
        ROWS,
        nothing,
        {"query_prompt": "red "},
        ["guide.prompts.query: index has '', command asks for 'red '"],
    ),
    "other max length": (
        ROWS,
        nothing,
        {"max_length": 8},
        ["guide.max_length: index has 32, command asks for 8"],
    ),
    "other dtype": (
        ROWS,
        nothing,
        {"dtype": "bfloat16"},
        ["guide.dtype: index has 'float32', command asks for 'bfloat16'"],
    ),
    "other stored type": (
        ROWS,
        nothing,
        {"vector_dtype": "int8"},
        ["settings.vector_dtype: index has 'float16', command asks for 'int8'"],
    ),
    "other pooling": (ROWS, other_pooling, {}, ["guide.files.1_Pooling/config.json", "guide.pooling"]),
    "other dimensions": (ROWS, nothing, {"dim": 16}, ["guide.dim: index has 32, command asks for 16"]),
    "other input file": (random_pairs(40, seed=9), nothing, {}, ["corpus.sha256"]),
    "edited row": (EDITED, nothing, {}, ["corpus.sha256"]),
    "reordered rows": (ROWS[::-1], nothing, {}, ["corpus.sha256"]),
    "added rows": (
        [*ROWS, *random_pairs(3, seed=10)],
        nothing,
        {},
        ["corpus.pairs: index has 40, command asks for 43", "--reuse"],
    ),
    "other settings": (
        ROWS,
        nothing,
        {"neighbors": 7},
        ["settings.neighbors: index has 50, command asks for 7"],
    ),
}


@pytest.fixture(scope="module")
def guide_copy(tmp_path_factory, guide_folder):
    """A guide whose files may be changed in a copy of the same path."""
    place = tmp_path_factory.mktemp("stale") / "guide"
    shutil.copytree(guide_folder, place)
    return place


@pytest.fixture(scope="module")
def built(tmp_path_factory, guide_copy):
    """A finished index and an unfinished one."""
    folder = tmp_path_factory.mktemp("built")
    finished = build_test_index(folder / "finished", ROWS, guide_copy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_module.Manifest, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build_test_index(folder / "unfinished", ROWS, guide_copy)
    return folder, finished


@pytest.mark.parametrize("state", ["finished", "unfinished"])
@pytest.mark.parametrize("what", CHANGES)
def test_each_change_is_named_and_nothing_is_reused(tmp_path, built, guide_copy, guide_folder, what, state):
    rows, change, settings, messages = CHANGES[what]
    shutil.copytree(built[0] / state, tmp_path / "index")
    before = parts(tmp_path / "index")
    change(guide_copy)
    try:
        with pytest.raises(StaleIndexError) as caught:
            build_test_index(tmp_path / "index", rows, guide_copy, **settings)
    finally:
        shutil.rmtree(guide_copy)
        shutil.copytree(guide_folder, guide_copy)
    for message in messages:
        assert message in str(caught.value)
    assert parts(tmp_path / "index") == before


def test_the_same_request_leaves_the_index_alone_whatever_its_file_is_called(tmp_path, built, guide_copy, monkeypatch):
    monkeypatch.setattr(ModelGuide, "encode", lambda *_: pytest.fail("nothing is to be computed"))
    shutil.copytree(built[1], tmp_path / "index")
    before = contents(tmp_path / "index")
    build_test_index(tmp_path / "index", ROWS, guide_copy)
    assert contents(tmp_path / "index") == before


def test_another_format_version_is_refused(tmp_path, built, guide_copy):
    for state, file in (("finished", "manifest.json"), ("unfinished", "building/request.json")):
        folder = tmp_path / state
        shutil.copytree(built[0] / state, folder)
        write_checksummed(folder / file, read_checksummed(folder / file, "file") | {"format": 7})
        with pytest.raises(IndexFaultError, match="format version 7; this program reads 2"):
            build_test_index(folder, ROWS, guide_copy)
    with pytest.raises(IndexFaultError, match="format version 7"):
        GuideIndex.open(tmp_path / "finished")


def test_a_changed_student_tokenizer_is_not_given_old_tokens(tmp_path, built, caplog):
    index = GuideIndex.open(built[1])
    student_folder = make_model(tmp_path / "student", dim=16, seed=3)
    prompts = {"query": "", "document": ""}
    first = TokenCache.of(index, load_model(student_folder), prompts)
    other_tokenizer(student_folder)
    second = TokenCache.of(index, load_model(student_folder), prompts)
    assert first is not None
    assert second is not None
    assert first.folder != second.folder
    # The key shows a cache that was put in the other's place, the checksum one with a flipped bit: both are made again.
    shutil.rmtree(second.folder)
    shutil.copytree(first.folder, second.folder)
    expected = load_model(student_folder).preprocess(_texts(index)[:6])["input_ids"]
    for warnings in (1, 2):
        with caplog.at_level(logging.WARNING):
            again = TokenCache.of(index, load_model(student_folder), prompts)
        assert caplog.text.count("is made again") == warnings
        assert again is not None
        assert torch.equal(again.features(torch.arange(6).numpy(), "query")["input_ids"], expected)
        tokens = second.folder / "ids.int32"
        data = bytearray(tokens.read_bytes())
        data[0] ^= 4
        tokens.write_bytes(data)


def _texts(index: GuideIndex) -> list[str]:
    rows = index.to_dataset()
    return list(dict.fromkeys(rows["anchor"][:]))
