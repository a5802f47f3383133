"""Which room may use which, and what a trainer loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {"shared": {"precompute", "train"}, "precompute": {"train"}, "train": {"precompute"}}


def imported_rooms(path):
    """Rooms of the product that a file imports, wherever in the file the import stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            parts = (node.module or "").split(".")
            if node.level >= 2:
                yield from parts[:1] if node.module else [alias.name for alias in node.names]
            elif node.level == 0 and parts[0] == "gistcache":
                yield from parts[1:2] or [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("gistcache."):
                    yield alias.name.split(".")[1]


@pytest.mark.parametrize("room", FORBIDDEN)
def test_stages_do_not_import_each_other(room):
    files = list((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        assert not FORBIDDEN[room] & set(imported_rooms(path)), path


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


def test_the_command_line_loads_no_stage_before_it_is_called():
    loaded = run_python("import gistcache.shared.cli.app, sys\nprint(*sys.modules)").split()
    assert not {"torch", "faiss", "polars", "transformers"} & set(loaded)


def test_help_does_not_wait_for_the_libraries_of_a_stage():
    commands = ["index", "train", "sweep", "mine", "rescore", "verify", "plan", "report", "eval", "doctor"]
    code = (
        "import sys\nfrom gistcache.shared.cli.app import app\n"
        f"for command in {commands}:\n    app.meta([command, '--help'])\nprint('loaded:', *sys.modules)"
    )
    told, loaded = run_python(code).split("loaded:")
    assert all(f"gistcache {command}" in told for command in commands)
    assert not {"transformers", "sentence_transformers", "faiss", "polars", "datasets"} & set(loaded.split())


def test_the_files_of_the_reports_page_are_installed():
    """CI runs this file against the wheel, where an editable install hides nothing."""
    files = {file.name for file in resources.files("gistcache.precompute.report").iterdir()}
    assert files >= {"page.html", "page.css", "page.js"}
