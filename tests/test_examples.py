"""Runs the code of docs/EXAMPLES.md, docs/API.md and README.md, each block in a folder of its own with tiny models."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from gistcache.shared.cli.app import run
from mteb.mocks.mock_tasks import MockClassificationTask, MockSTSTask
from sentence_transformers import SentenceTransformer

from tests.conftest import build_test_index, random_pairs, write_jsonl

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "EXAMPLES.md").read_text(encoding="utf-8")
BLOCKS = [
    pytest.param(language, code, id=f"{section.splitlines()[0]}")
    for section in PAGE.split("\n## ")[1:]
    for language, code in re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
]
PYTHON = [
    pytest.param(block, id=f"{name} {number}")
    for name in ("docs/API.md", "README.md")
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```$", (ROOT / name).read_text(), re.M | re.S), 1)
]
# The hub is out of reach: tiny models stand in for its own ...
MODELS = {"BAAI/bge-large-en-v1.5": "guide", "sentence-transformers/all-MiniLM-L6-v2": "student"}
# ... and tasks of the same kind stand in, whose data mteb makes in memory.
STAND_INS = {"Banking77Classification": MockClassificationTask, "STSBenchmark": MockSTSTask}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, guide_folder, student_folder) -> Path:
    """The files and folders that the page takes for granted."""
    folder = tmp_path_factory.mktemp("examples")
    build_test_index(folder / "guide-index", random_pairs(130, seed=41), guide_folder, neighbors=20)
    build_test_index(folder / "faq-index", random_pairs(120, seed=42), guide_folder)
    write_jsonl(folder / "held-out.jsonl", random_pairs(10, seed=43))
    shutil.copytree(student_folder, folder / "student")
    shutil.copytree(guide_folder, folder / "guide")
    write_jsonl(folder / "pairs.jsonl", random_pairs(130, seed=44))
    return folder


@pytest.fixture
def folder(tmp_path, inputs, monkeypatch) -> Path:
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    registry = importlib.import_module("mteb.get_tasks")._TASKS_REGISTRY
    for name, task in STAND_INS.items():
        monkeypatch.setitem(registry, name, task)
    return tmp_path


def test_the_page_has_a_block_for_each_section_and_none_is_long():
    assert len(BLOCKS) == len(re.findall(r"^## ", PAGE, re.MULTILINE)) == 8
    assert max(block.values[1].count("\n") for block in BLOCKS) < 30
    assert len(PYTHON) == 4


@pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens", "ignore:'pin_memory'")
@pytest.mark.parametrize(("language", "code"), BLOCKS)
def test_a_block_runs(folder, language, code, monkeypatch, capsys):
    if language == "python":
        exec(compile(code, "docs/EXAMPLES.md", "exec"), {"__name__": "__main__"})
    else:
        for line in code.splitlines():
            monkeypatch.setattr("sys.argv", shlex.split(line))
            assert run() == 0, capsys.readouterr().err
    for path in folder.glob("runs/*/model"):
        trained, before = (SentenceTransformer(str(each), device="cpu") for each in (path, folder / "student"))
        assert abs(trained.encode("red dog") - before.encode("red dog")).max() > 1e-4
    if "mine" in code.split():
        mined = folder / "mined.jsonl"
        rows = [json.loads(line) for line in mined.read_text().splitlines()]
        assert rows
        assert all(set(row) == {"query", "pos", "neg", "pos_scores", "neg_scores"} for row in rows)
        assert all(len(row["neg"]) == len(row["neg_scores"]) > 0 for row in rows)
    if "--mteb" in code:
        assert {task.__name__ for task in STAND_INS.values()} == json.loads((folder / "scores.json").read_text()).keys()


@pytest.mark.filterwarnings("ignore:'pin_memory'")
@pytest.mark.parametrize("code", PYTHON)
def test_python_of_readme_and_api_runs(folder, code):
    for name, local in MODELS.items():
        code = code.replace(f'"{name}"', f'"{local}"')
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__", "rows": random_pairs(130, seed=45)})
    assert [*folder.glob("runs/*/model.safetensors"), *folder.glob("runs/own"), *folder.glob("from-*/manifest.json")]
