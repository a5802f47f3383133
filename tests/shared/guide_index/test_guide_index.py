"""Reading an index that was written by hand: what a later release may add, no pairs at all, vectors of one byte."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pytest
from gistcache.shared.errors import IndexFaultError
from gistcache.shared.guide_index.faults import find_faults
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.guide_index.layout import Layout
from gistcache.shared.guide_index.manifest import Manifest
from gistcache.shared.guide_index.texts import Texts

from tests.shared.guide_index.index_folder import IndexFolder, small


def faults(root) -> list[str]:
    return list(find_faults(Layout(root), Manifest.load(Layout(root))))


def test_an_index_written_by_the_documents_is_read(tmp_path):
    folder = small()
    index = GuideIndex.open(folder.write(tmp_path / "index"))
    for opened in (index, pickle.loads(pickle.dumps(index))):
        assert len(opened) == 3
        assert np.array_equal(opened.vectors(np.array([5, 0, 5])), folder.vectors[[5, 0, 5]])
        assert opened.pairs(np.array([2, 0])).positives.tolist() == [4, 3]
        assert opened.content_ids(np.array([[4, 0], [-1, 6]])).tolist() == [[0, 0], [-1, 6]]
        positives, owner = opened.known_positives(np.array([1, 2]))
        assert (positives.tolist(), owner.tolist()) == ([3, 5, 0], [0, 0, 1])
        assert opened.tasks(np.array([0])).tolist() == [-1]
        assert opened.density(np.arange(7)).tolist() == [1.0] * 7
        assert [table["positive_rank"].to_pylist() for table in opened.scores()] == [[0, 0, 0]]
        rows = opened.to_dataset()
        assert (rows["anchor"][:], rows["positive"][:]) == (
            ["red dog", "red dog", "blue cat"],
            ["the sea", "sand", "red dog"],
        )
    assert Texts(index).take(np.array([6, 0, 3, 0])).to_pylist() == ["snow", "red dog", "the sea", "red dog"]
    assert [path.name for path in index.faiss_files()] == ["shard-00000.faiss"]
    assert index.summary() is None
    assert faults(tmp_path / "index") == []


def test_kinds_columns_and_fields_of_a_later_release_are_ignored_but_checksummed(tmp_path):
    folder = small()
    folder.shards["prompts"] = [np.arange(9)]
    folder.shards["texts"] = [
        table.append_column("prompt", pa.array(["a"] * len(table))).select(["prompt", *table.column_names])
        for table in folder.shards["texts"]
    ]
    folder.shards["scores"][0] = folder.shards["scores"][0].append_column("human_score", pa.array([0.1, 0.2, 0.3]))
    root = folder.write(tmp_path / "index", change=lambda content: content.update({"language": "de"}))
    index = GuideIndex.open(root)
    assert next(index.scores()).column_names[-1] == "positive_rank"
    assert Texts(index).take(np.array([3])).to_pylist() == ["the sea"]
    assert faults(root) == []
    (root / "prompts" / "shard-00000.npy").write_bytes(b"x" * (root / "prompts" / "shard-00000.npy").stat().st_size)
    assert faults(root) == ["prompts/shard-00000.npy: checksum differs from the one recorded"]
    with pytest.raises(IndexFaultError, match=r"prompts/shard-00000\.npy: checksum"):
        GuideIndex.open(root)


@pytest.mark.parametrize("change", ["missing", "other type", "twice"])
def test_a_column_of_the_schema_must_be_there_with_its_type(tmp_path, change):
    folder = small()
    scores = folder.shards["scores"][0]
    if change == "missing":
        scores = scores.drop_columns(["positive_rank"])
    elif change == "other type":
        scores = scores.set_column(1, "positive_score", scores["positive_score"].cast(pa.float64()))
    else:
        scores = scores.append_column(scores.schema.field("pair_id"), scores["pair_id"])
    folder.shards["scores"] = [scores]
    root = folder.write(tmp_path / "index")
    with pytest.raises(IndexFaultError, match="columns differ"):
        list(GuideIndex.open(root).scores(["pair_id"]))
    (fault,) = faults(root)
    assert fault.startswith("scores/shard-00000.parquet: ")


def test_an_index_may_have_no_pair(tmp_path):
    root = IndexFolder(["red dog"], ["the sea", "sand"], []).write(tmp_path / "index")
    index, no_ids = GuideIndex.open(root), np.empty(0, dtype=np.int64)
    assert len(index) == 0
    assert index.pairs(no_ids).negatives.shape == (0, 0)
    assert [len(each) for each in index.known_positives(no_ids)] == [0, 0]
    assert list(index.scores()) == []
    assert index.vectors(np.arange(3)).shape == (3, 4)
    assert Texts(index).take(np.array([2])).to_pylist() == ["sand"]
    dataset = index.to_dataset()
    assert (len(dataset), dataset.column_names) == (0, ["anchor", "positive", "label"])
    assert faults(root) == []
    with pytest.raises(IndexFaultError, match="outside the index"):
        index.pairs(np.array([0]))


def test_every_impossible_value_is_a_fault(tmp_path):
    folder = small()
    folder.shards["vectors"][1] = folder.shards["vectors"][1] * np.float16(0.5)
    folder.shards["density"][0] = np.array([1, np.nan, 1], dtype=np.float32)
    folder.shards["contents"][0] = folder.shards["contents"][0] + np.int64(5)
    folder.shards["lookup"][0]["positive"][1] = 7
    folder.shards["scores"][0] = folder.shards["scores"][0].set_column(
        3, folder.shards["scores"][0].schema.field(3), pa.array([[3], [-1], [7]])
    )
    assert sorted(faults(folder.write(tmp_path / "index"))) == [
        "contents/shard-00000.npy: 2 values are no text id (0 to 6)",
        "density/shard-00000.npy: values that are not finite",
        "lookup/shard-00000.npy: 1 values are no text id (0 to 6)",
        "scores/shard-00000.parquet: 2 values of neighbor_ids are no text id (0 to 6)",
        "vectors/shard-00001.npy: 4 vectors of another length than one, first row 0",
    ]


def test_int8_rows_are_read_as_unit_vectors(tmp_path):
    folder = small()
    rows = np.rint(folder.vectors.astype(np.float32) * 100).astype(np.int8)
    folder.shards["vectors"], folder.settings["vector_dtype"] = [rows[:3], rows[3:]], "int8"
    vectors = GuideIndex.open(folder.write(tmp_path / "index")).vectors(np.arange(7))
    assert vectors.dtype == np.float32
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    assert np.abs(vectors - rows / lengths).max() < 1e-6


@pytest.mark.parametrize(
    ("name", "value"), [("pairs", 4), ("documents", 3), ("negatives", -1), ("max_negatives", 1), ("queries", True)]
)
def test_a_manifest_that_contradicts_itself_is_refused(tmp_path, name, value):
    root = small().write(tmp_path / "index", change=lambda content: content["corpus"].update({name: value}))
    with pytest.raises(IndexFaultError, match="cannot be used"):
        GuideIndex.open(root)
