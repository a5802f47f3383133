"""Models and indexes of strangers: nothing of theirs runs, and nothing is read outside their folder."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from gistcache.precompute.search import faiss_index
from gistcache.shared.errors import IndexFaultError, ModelError
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.models.load import load_model, load_reranker
from gistcache.shared.models.locate import find_model
from gistcache.shared.storage.files import sha256_of
from gistcache.shared.storage.integrity import CHECKSUM_KEY, FileRecord, read_checksummed, write_checksummed
from gistcache.train.loss.guide_lookup import look_up
from gistcache.train.run.model_card import section

from tests.conftest import build_test_index, random_pairs

PRODUCT = [path for name in ("precompute", "train", "shared") for path in Path(name).rglob("*.py")]
FORBIDDEN_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "subprocess", "yaml"}
FORBIDDEN_NAMES = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_CALLS = {"os.system", "os.popen", "torch.hub.load", "torch.jit.load", "np.fromfile"}


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def keyword(call: ast.Call, name: str) -> object:
    return next((ast.literal_eval(each.value) for each in call.keywords if each.arg == name), None)


# A process hands its own work to those it has started, through a pipe; nothing of it comes from a file.
BETWEEN_PROCESSES = Path("precompute/run")
# A run of a sweep is the product's own command, started without a shell.
STARTS_COMMANDS = Path("train/sweep")


@pytest.mark.parametrize("path", PRODUCT, ids=str)
def test_the_product_makes_no_forbidden_call(path):
    tree = ast.parse(path.read_text())
    imported = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {str(node.module).split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    own = {BETWEEN_PROCESSES: {"pickle"}, STARTS_COMMANDS: {"subprocess"}}.get(path.parent, set())
    assert not imported & FORBIDDEN_MODULES - own
    for name, call in calls(tree):
        assert name not in FORBIDDEN_NAMES | FORBIDDEN_CALLS or name.split(".")[0] in own, name
        if name.endswith(("np.load", "numpy.load")):
            assert keyword(call, "allow_pickle") is False
        if name == "torch.load":
            assert keyword(call, "weights_only") is True
        if name.endswith("read_index"):
            assert path.name == "faiss_index.py"
        assert keyword_is_never_true(call, "trust_remote_code")
        assert keyword_is_never_true(call, "shell")


def keyword_is_never_true(call: ast.Call, name: str) -> bool:
    return all(each.arg != name or ast.unparse(each.value) == "False" for each in call.keywords)


def test_the_walk_sees_what_it_should():
    assert PRODUCT
    parsed = calls(ast.parse("np.load(p)\nSentenceTransformer(p, trust_remote_code=True)"))
    assert keyword(parsed[0][1], "allow_pickle") is None
    assert not keyword_is_never_true(parsed[1][1], "trust_remote_code")


EVIL = """
from pathlib import Path
Path({mark!r}).write_text("it ran")
class Evil: pass
"""


@pytest.mark.parametrize("way", ["module", "auto map", "activation", "tokenizer", "router"])
def test_a_models_own_code_never_runs(tmp_path, guide_folder, way):
    folder, mark = tmp_path / "model", tmp_path / "mark"
    shutil.copytree(guide_folder, folder)
    (folder / "evil.py").write_text(EVIL.format(mark=str(mark)))
    modules = json.loads((folder / "modules.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    if way == "module":
        modules.append({"idx": 3, "name": "3", "path": "", "type": "evil.Evil"})
    elif way == "auto map":
        config |= {"auto_map": {"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"}, "model_type": "evil"}
    elif way == "activation":
        add_module(folder, modules, "Dense", {"in_features": 32, "out_features": 8, "activation_function": "evil.Evil"})
    elif way == "tokenizer":
        add_module(folder, modules, "WordEmbeddings", {"tokenizer_class": "evil.Evil", "max_seq_length": 8})
    else:
        add_module(folder, modules, "Router", {"types": {"a": "evil.Evil"}, "structure": {"a": ["a"]}})
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError):
        load_model(find_model(str(folder)))
    assert not mark.exists()


@pytest.mark.parametrize("way", ["module", "auto map", "activation"])
def test_a_rerankers_own_code_never_runs(tmp_path, reranker_folder, way):
    folder, mark = tmp_path / "model", tmp_path / "mark"
    shutil.copytree(reranker_folder, folder)
    (folder / "evil.py").write_text(EVIL.format(mark=str(mark)))
    config = json.loads((folder / "config.json").read_text())
    if way == "module":
        modules = json.loads((folder / "modules.json").read_text())
        (folder / "modules.json").write_text(
            json.dumps([*modules, {"idx": 1, "name": "1", "path": "", "type": "evil.Evil"}])
        )
    elif way == "auto map":
        config |= {"auto_map": {"AutoModelForSequenceClassification": "evil.Evil", "AutoConfig": "evil.Evil"}}
        config["model_type"] = "evil"
    else:
        config |= {"sentence_transformers": {"activation_fn": "evil.Evil"}}
    (folder / "config.json").write_text(json.dumps(config))
    if way == "activation":  # the library warns and takes its own
        load_reranker(find_model(str(folder)))
    else:
        with pytest.raises(ModelError):
            load_reranker(find_model(str(folder)))
    assert not mark.exists()


def add_module(folder: Path, modules: list, kind: str, config: dict) -> None:
    place = folder / f"9_{kind}"
    place.mkdir()
    (place / "config.json").write_text(json.dumps(config))
    (place / "router_config.json").write_text(json.dumps(config))
    (place / "wordembedding_config.json").write_text(json.dumps(config))
    torch.save({"linear.weight": torch.zeros(8, 32), "linear.bias": torch.zeros(8)}, place / "pytorch_model.bin")
    kind = f"sentence_transformers.models.{kind}"
    modules.append({"idx": len(modules), "name": str(len(modules)), "path": place.name, "type": kind})


def test_pickled_weights_of_any_module_are_refused(tmp_path, guide_folder):
    folder = tmp_path / "model"
    shutil.copytree(guide_folder, folder)
    modules = json.loads((folder / "modules.json").read_text())
    add_module(folder, modules, "Dense", {"in_features": 32, "out_features": 8})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match="pickled") as caught:
        find_model(str(folder))
    assert "save_pretrained" in caught.value.fix


def test_pickled_weights_do_not_hide(tmp_path, guide_folder):
    for name in ("decoy", "onnx", "linked"):
        folder = tmp_path / name
        shutil.copytree(guide_folder, folder)
        modules = json.loads((folder / "modules.json").read_text())
        add_module(folder, modules, "Dense", {"in_features": 32, "out_features": 8})
        place = folder / "9_Dense"
        if name == "decoy":
            (place / "other.safetensors").write_bytes(b"")
        elif name == "onnx":
            place.rename(folder / "onnx")
            modules[-1]["path"] = "onnx"
        else:
            place.rename(tmp_path / "elsewhere")
            place.symlink_to(tmp_path / "elsewhere")
        (folder / "modules.json").write_text(json.dumps(modules))
        with pytest.raises(ModelError):
            find_model(str(folder))


@pytest.mark.parametrize(
    "path", ["../outside.npy", "/etc/passwd", "vectors/../../outside.npy", "a\\b", "", ".", "a\0b"]
)
def test_a_manifest_cannot_name_a_path_outside(tmp_path, small_index, path):
    copy = tmp_path / "index"
    shutil.copytree(small_index, copy)
    shutil.copy(copy / "vectors" / "shard-00000.npy", tmp_path / "outside.npy")
    content = read_checksummed(copy / "manifest.json", "manifest")
    content["shards"]["vectors"][0]["path"] = path
    write_checksummed(copy / "manifest.json", content)
    with pytest.raises(IndexFaultError):
        GuideIndex.open(copy)


def put_file(copy: Path, name: str, data: bytes) -> None:
    """Put another file into an index and record it, as a stranger could."""
    (copy / name).write_bytes(data)
    content = read_checksummed(copy / "manifest.json", "manifest")
    for record in [*(each for shards in content["shards"].values() for each in shards), *content["files"]]:
        if record["path"] == name:
            record |= {"bytes": len(data), "sha256": sha256_of(copy / name)}
    write_checksummed(copy / "manifest.json", content)


def test_a_strangers_vectors_are_not_unpickled_or_taken_in_another_shape(tmp_path, small_index):
    mark = tmp_path / "mark"

    class Evil:
        def __reduce__(self):
            return Path.write_text, (mark, "it ran")

    index = GuideIndex.open(small_index)
    rows = index.manifest.shards["vectors"][0].rows
    np.save(tmp_path / "evil.npy", np.array([Evil()] * rows, dtype=object), allow_pickle=True)
    np.save(tmp_path / "wide.npy", np.zeros((rows, index.dim + 1), dtype=np.float16))
    np.save(tmp_path / "long.npy", np.zeros((rows, index.dim), dtype=np.float64))
    for name in ("evil", "wide", "long"):
        copy = tmp_path / name
        shutil.copytree(small_index, copy)
        put_file(copy, "vectors/shard-00000.npy", (tmp_path / f"{name}.npy").read_bytes())
        with pytest.raises(IndexFaultError):
            GuideIndex.open(copy).vectors(np.array([0]))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [("positive", 10**9), ("group", -1), ("group_size", 2**62), ("negatives", 2**62), ("negative_count", -5)],
)
def test_a_strangers_ids_outside_the_corpus_are_refused(tmp_path, small_index, field, value):
    copy = tmp_path / "index"
    shutil.copytree(small_index, copy)
    name = "lookup/shard-00000.npy"
    rows = np.load(copy / name)
    rows[field] = value
    np.save(tmp_path / "wrong.npy", rows)
    put_file(copy, name, (tmp_path / "wrong.npy").read_bytes())
    index = GuideIndex.open(copy)
    with pytest.raises(IndexFaultError, match="outside"):
        look_up(index, np.array([0, 1]), np.empty((2, 0), dtype=np.int64), 3, torch.device("cpu"))


def test_the_faiss_file_is_read_only_when_it_is_the_one_recorded(tmp_path, guide_folder):
    folder = build_test_index(tmp_path / "index", random_pairs(30, seed=5), guide_folder)
    record = next(each for each in GuideIndex.open(folder).manifest.records if each.path.endswith(".faiss"))
    assert faiss_index.read(folder, record).ntotal == record.rows
    path = folder / record.path
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    with pytest.raises(IndexFaultError, match="FAISS"):
        faiss_index.read(folder, record)
    # A file that claims more than it holds is stopped by the limits, also where its checksum is right.
    data[:] = path.read_bytes()[:-8] + b"\xff" * 8
    path.write_bytes(data)
    lying = FileRecord(record.path, record.rows, len(data), sha256_of(path))
    with pytest.raises(IndexFaultError, match="cannot be read"):
        faiss_index.read(folder, lying)


def test_a_model_card_shows_names_as_text(small_index):
    index = GuideIndex.open(small_index)
    index.manifest.request.guide["name"] = "`</code><script>alert(1)</script>\n# not a heading"
    encoded = {"texts": 1, "batch_size": 1, "device": "cpu"}
    student = {"parameters": 1, "trained_parameters": 1, "model_bytes": 1, "texts_per_second": 1.0, "encoded": encoded}
    metrics = {"removed_share": 0.1, "retrieval": {}, "run": {"settings": {"matryoshka": []}}, **student}
    text = section(index, metrics)
    assert "<script>" not in text
    assert "\n# not" not in text


def test_the_checksum_is_no_secret_but_shows_every_change(tmp_path):
    write_checksummed(tmp_path / "a.json", {"a": [1, {"b": "ü"}]})
    assert read_checksummed(tmp_path / "a.json", "thing") == {"a": [1, {"b": "ü"}]}
    written = json.loads((tmp_path / "a.json").read_text())
    only_checksum = {CHECKSUM_KEY: written[CHECKSUM_KEY]}
    for changed in (written | {"a": 2}, written | {"c": 0}, only_checksum, written | {CHECKSUM_KEY: "0"}):
        (tmp_path / "a.json").write_text(json.dumps(changed))
        with pytest.raises(IndexFaultError, match="checksum"):
            read_checksummed(tmp_path / "a.json", "thing")
