"""Vectors that exist already: the index that the model itself would make, from each form of file."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gistcache.precompute.guides.local_model import ModelGuide
from gistcache.precompute.guides.stored_vectors import VectorsGuide
from gistcache.precompute.settings import IndexSettings
from gistcache.shared.errors import InputError, ModelError, SettingsError, StaleIndexError
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.train.run.run import train_student
from gistcache.train.settings import TrainSettings

from tests.conftest import build_test_index, random_pairs, random_texts, write_jsonl
from tests.precompute.test_build import contents

ROWS = random_pairs(60, seed=95, negatives=1)
ROWS.append({"anchor": ROWS[1]["positive"], "positive": ROWS[2]["anchor"], "negative_1": ROWS[3]["anchor"]})
ROLES = {
    "query": sorted({row["anchor"] for row in ROWS}),
    "document": sorted({row[name] for row in ROWS for name in ("positive", "negative_1")}),
}
FORMS = ["npy and parquet", "npy and jsonl", "array by name", "parquet", "fixed size", "parts", "float16 parquet"]


@pytest.fixture(scope="module")
def given(guide_folder) -> tuple[list[str], list[str], np.ndarray]:
    """Texts, roles and vectors that are not of unit length, in another order than the corpus's."""
    from gistcache.shared.models.load import load_model

    texts, roles = ROLES["query"] + ROLES["document"], ["query"] * len(ROLES["query"])
    roles += ["document"] * len(ROLES["document"])
    scale = np.random.default_rng(0).uniform(0.5, 2, (len(texts), 1))
    vectors = (load_model(guide_folder).encode(texts, batch_size=1) * scale).astype(np.float32)
    return texts, roles, vectors


def written(folder: Path, form: str, texts, vectors, roles=None) -> str:
    """Write them in a form; returns the path to name."""
    folder.mkdir()
    columns = {"text": texts} | ({"role": roles} if roles else {})
    if "parquet" not in form and form not in ("fixed size", "parts"):
        np.save(folder / "vectors.npy", vectors)
        rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
        write_jsonl(folder / "texts.jsonl", rows)
        return str(folder / "vectors.npy") if form == "array by name" else str(folder)
    if form == "npy and parquet":
        np.save(folder / "vectors.npy", vectors)
        pq.write_table(pa.table(columns), folder / "texts.parquet")
        return str(folder)
    kind = pa.float16() if form.startswith("float16") else pa.float32()
    lists = pa.list_(kind, vectors.shape[1]) if form == "fixed size" else pa.list_(kind)
    cells = pa.array([list(row) for row in vectors.astype(kind.to_pandas_dtype())], lists)
    table = pa.table(columns | {"embedding": cells, "other": list(range(len(texts)))})
    if form == "parts":
        for start in (0, 50):
            pq.write_table(table[start : start + 50] if not start else table[50:], folder / f"{start:03}.parquet")
        return str(folder)
    pq.write_table(table, folder / "some.parquet", row_group_size=33)
    return str(folder / "some.parquet")


def built(out: Path, locator: str, rows=ROWS, **settings) -> GuideIndex:
    return GuideIndex.open(build_test_index(out, rows, f"vectors:{locator}", shard_rows=32, neighbors=5, **settings))


@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_what_the_model_gives(tmp_path, given, guide_folder, form):
    texts, _, vectors = given
    locator = written(tmp_path / "given", form, texts, vectors)
    guide = VectorsGuide(locator, None, tmp_path / "scratch")
    asked = [texts[number] for number in np.random.default_rng(1).permutation(len(texts))[:70]]
    local = ModelGuide(IndexSettings(guide=str(guide_folder), device="cpu")).encode(asked, "query")
    near = 1e-3 if form.startswith("float16") else 1e-5
    assert np.abs(guide.encode(asked, "document") - local).max() < near
    assert guide.same_for_both_roles
    copy = pickle.loads(pickle.dumps(guide))
    assert np.array_equal(copy.encode(asked, "query"), guide.encode(asked, "query"))


def test_the_whole_index_is_the_models_and_is_finished_and_reused(tmp_path, given, guide_folder):
    texts, _, vectors = given
    locator = written(tmp_path / "given", "parquet", texts, vectors)
    held_out = {"eval_pairs": (str(write_jsonl(tmp_path / "held.jsonl", ROWS[:9])),)}
    index = built(tmp_path / "index", locator, **held_out)
    local = GuideIndex.open(build_test_index(tmp_path / "local", ROWS, guide_folder, neighbors=5, **held_out))
    ids = np.arange(sum(index.manifest.request.corpus[role] for role in ("queries", "documents")))
    assert np.abs(index.vectors(ids).astype(np.float32) - local.vectors(ids)).max() < 6e-4
    assert index.manifest.measured["guide"] == pytest.approx(local.manifest.measured["guide"], abs=1e-3)
    assert not (tmp_path / "index" / "building").exists()
    before = contents(tmp_path / "index")
    built(tmp_path / "index", locator, **held_out)
    reused = built(tmp_path / "reused", locator, reuse=tmp_path / "index", **held_out)
    assert contents(tmp_path / "index") == contents(reused.layout.root) == before


def test_roles_have_vectors_of_their_own_where_the_files_name_roles(tmp_path, given):
    texts, roles, vectors = given
    locator = written(tmp_path / "given", "parquet", texts, vectors, roles)
    guide = VectorsGuide(locator, 8, tmp_path / "scratch")
    assert not guide.same_for_both_roles
    both = ROWS[1]["positive"]  # an anchor too
    for role in ("query", "document"):
        row = next(row for row in range(len(texts)) if (texts[row], roles[row]) == (both, role))
        expected = vectors[row, :8] / np.linalg.norm(vectors[row, :8])
        assert np.allclose(guide.encode([both], role)[0], expected, atol=1e-6)
    with pytest.raises(InputError, match="1 of 1 texts"):
        guide.expect([("query", [ROWS[5]["negative_1"]])])


def test_missing_texts_are_counted_before_anything_is_written(tmp_path, given):
    texts, _, vectors = given
    locator = written(tmp_path / "given", "npy and parquet", texts, vectors)
    strange = [f"{text} today" for text in random_texts(5, seed=96)]
    rows = ROWS + [{"anchor": text, "positive": ROWS[0]["positive"]} for text in strange]
    with pytest.raises(InputError, match="5 of 1") as caught:
        built(tmp_path / "index", locator, rows)
    assert strange[0] in str(caught.value)
    assert strange[3] not in str(caught.value)
    assert not (tmp_path / "index").exists()
    held_out = write_jsonl(tmp_path / "held.jsonl", rows[-1:])
    with pytest.raises(InputError, match="1 of 1") as caught:
        built(tmp_path / "index", locator, eval_pairs=(str(held_out),))
    assert "--eval-pairs" in caught.value.fix


def test_other_files_are_another_guide(tmp_path, given):
    texts, _, vectors = given
    locator = written(tmp_path / "given", "npy and parquet", texts, vectors)
    guide = pickle.dumps(VectorsGuide(locator, None, tmp_path / "scratch"))
    built(tmp_path / "index", locator)
    np.save(Path(locator) / "vectors.npy", vectors + 1)
    with pytest.raises(StaleIndexError, match=r"guide\.files\.vectors\.npy"):
        built(tmp_path / "index", locator)
    with pytest.raises(ModelError, match="another one"):
        pickle.loads(guide)


def spoilt(folder: Path, how: str) -> None:
    """Damage a folder of vectors.npy and texts.jsonl."""
    lines = (folder / "texts.jsonl").read_text().splitlines()
    vectors = np.load(folder / "vectors.npy")
    if how == "fewer texts":
        lines.pop()
    elif how == "no text":
        lines[3] = json.dumps({"words": "red"})
    elif how == "null text":
        lines[3] = json.dumps({"text": None})
    elif how == "not UTF-8":
        lines[3] = json.dumps({"text": "red \ud800"})
    elif how == "odd role":
        lines[3] = json.dumps({"text": "red", "role": "title"})
    elif how == "roles of some":
        lines[3] = json.dumps({"text": "red", "role": "query"})
    elif how == "integers":
        vectors = vectors.astype(np.int32)
    elif how == "one number a text":
        vectors = vectors[:, 0]
    elif how == "pickle":
        vectors = np.array([{}] * len(lines), dtype=object)
    elif how == "two files of texts":
        (folder / "texts.parquet").write_bytes(b"")
    (folder / "texts.jsonl").write_text("\n".join(lines))
    np.save(folder / "vectors.npy", vectors, allow_pickle=True)
    if how == "cut short":
        data = (folder / "vectors.npy").read_bytes()
        (folder / "vectors.npy").write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("how", "what", "where"),
    [
        ("fewer texts", "vectors and", "vectors.npy"),
        ("no text", "no usable text", "line 4"),
        ("null text", "text None", "line 4"),
        ("not UTF-8", "no usable text", "line 4"),
        ("odd role", "role 'title'", "line 4"),
        ("roles of some", "have no role", "texts.jsonl"),
        ("integers", "int32", "vectors.npy"),
        ("one number a text", "shape", "vectors.npy"),
        ("pickle", "cannot be read", "vectors.npy"),
        ("two files of texts", "2 files of texts", "vectors.npy"),
        ("cut short", "cannot be read", "vectors.npy"),
    ],
)
def test_files_that_do_not_fit_are_told(tmp_path, given, how, what, where):
    texts, _, vectors = given
    locator = written(tmp_path / "given", "npy and jsonl", texts, vectors)
    spoilt(Path(locator), how)
    with pytest.raises(InputError, match=what) as caught:
        VectorsGuide(locator, None, tmp_path / "scratch")
    assert where in caught.value.where


@pytest.mark.parametrize(
    ("column", "what"),
    [
        ([[1.0, 2.0], [1.0]], "rows of lengths"),
        ([[1.0, 2.0], None], "rows of lengths"),
        ([[1.0, None], [1.0, 2.0]], "is list"),
        ([[1, 2], [3, 4]], "is list<.*int64>"),
        ([1.0, 2.0], "cannot be read"),
        (None, "no column embedding"),
    ],
)
def test_embeddings_that_are_no_vectors_are_told(tmp_path, column, what):
    path = tmp_path / "some.parquet"
    pq.write_table(pa.table({"text": ["red", "blue"]} | ({} if column is None else {"embedding": column})), path)
    with pytest.raises(InputError, match=what):
        VectorsGuide(str(path), None, tmp_path / "scratch")


def test_a_zero_vector_and_too_many_dimensions_are_told(tmp_path):
    locator = written(tmp_path / "given", "npy and jsonl", ["red", "blue"], np.array([[1.0, 2.0], [0.0, 0.0]]))
    with pytest.raises(ModelError, match="2 dimensions, 3 were requested"):
        VectorsGuide(locator, 3, tmp_path / "scratch")
    with pytest.raises(ModelError, match="zero vector") as caught:
        VectorsGuide(locator, None, tmp_path / "scratch").encode(["red", "blue"], "query")
    assert "blue" in caught.value.where
    for wrong in (tmp_path / "nowhere", tmp_path / "empty.parquet", tmp_path):
        with pytest.raises(InputError, match="no vectors here"):
            VectorsGuide(str(wrong), None, tmp_path / "scratch")


@pytest.mark.parametrize("name", ["query_prompt", "document_prompt", "max_length", "dtype", "batch_tokens"])
def test_settings_without_meaning_are_refused(name):
    value = {"dtype": "float16", "max_length": 8, "batch_tokens": 8}.get(name, "find: ")
    with pytest.raises(SettingsError) as caught:
        IndexSettings(guide="vectors:some", **{name: value})
    assert caught.value.where == f"--{name.replace('_', '-')}"


def test_a_student_trains_on_such_an_index_and_its_card_names_the_guide(tmp_path, given, student_folder):
    index = built(tmp_path / "index", written(tmp_path / "given", "npy", given[0], given[2]))
    settings = TrainSettings(
        index=(index.layout.root,), student=str(student_folder), out=tmp_path / "out", batch_size=8, max_steps=1
    )
    assert train_student(settings)["steps"] == 1
    card = (tmp_path / "out" / "README.md").read_text()
    assert "guide: `vectors:" in card
    assert "`vectors.npy`" in card
