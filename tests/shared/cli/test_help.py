"""--help of every command answers at once: it imports no library that takes long."""

from __future__ import annotations

import subprocess
import sys

import pytest
from gistcache.shared.cli.app import COMMANDS

HEAVY = ("torch", "transformers", "sentence_transformers", "polars", "pyarrow", "faiss", "datasets", "numpy")
CODE = """
import sys
from gistcache.shared.cli.main import main
sys.argv = ["gistcache", *{words}]
try:
    main()
except SystemExit as end:
    assert not end.code
print("imported:", *sys.modules)
"""


@pytest.mark.parametrize(
    "words", [[], *([name] for name in COMMANDS)], ids=lambda words: " ".join(words) or "gistcache"
)
def test_help_imports_nothing_heavy(words):
    code = CODE.format(words=[*words, "--help"])
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    text, _, modules = process.stdout.partition("imported:")
    assert f"Usage: {' '.join(['gistcache', *words])}" in text
    assert [name for name in HEAVY if name in modules.split()] == []
