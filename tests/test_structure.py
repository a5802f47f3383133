"""How large a folder is, that tests mirror the product, and what a trainer loads; import-linter checks the arrows."""

from __future__ import annotations

import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STAGES = ("shared", "precompute", "train")
MOST_ENTRIES = 13


def entries(folder):
    """What a reader of a folder sees."""
    return [path for path in folder.iterdir() if not path.name.startswith(("__", ".", "py.typed"))]


def folders(root):
    return [root, *(path for path in sorted(root.rglob("*")) if path.is_dir() and entries(path))]


@pytest.mark.parametrize("stage", STAGES)
def test_a_folder_can_be_read_at_a_glance(stage):
    for folder in folders(ROOT / stage):
        assert 2 <= len(entries(folder)) <= MOST_ENTRIES, folder


def test_tests_lie_where_the_product_does():
    missing = [
        folder.relative_to(ROOT)
        for stage in STAGES
        for folder in folders(ROOT / stage)
        if not any((ROOT / "tests" / folder.relative_to(ROOT)).glob("test_*.py"))
    ]
    assert not missing


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_the_trainer_loads_neither_faiss_nor_polars_nor_stage_one():
    loaded = run_python(
        "import gistcache.train.run.run, gistcache.train.student.load, sys\nprint(*sorted(sys.modules))"
    ).split()
    assert "torch" in loaded
    assert "gistcache.train.run.trainer" in loaded
    assert not {name for name in loaded if name.split(".")[0] in ("faiss", "polars")}
    assert not [name for name in loaded if name.startswith("gistcache.precompute")]


@pytest.mark.parametrize("package", STAGES)
def test_importing_a_package_loads_no_library(package):
    loaded = run_python(f"import gistcache.{package}, sys\nprint(*sys.modules)").split()
    assert not {"torch", "numpy", "pyarrow", "faiss", "polars", "transformers"} & set(loaded)


def test_the_files_of_the_reports_page_are_installed():
    """CI runs this file against the wheel, where an editable install hides nothing."""
    files = {file.name for file in resources.files("gistcache.precompute.report").iterdir()}
    assert files >= {"page.html", "page.css", "page.js"}
