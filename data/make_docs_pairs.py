"""Search pairs out of the libraries installed in the environment: a docstring's first paragraph and the rest of it.

The sources are parsed, never imported. The same installed versions give the same files, byte for byte.

    python data/make_docs_pairs.py --out data/docs
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib.metadata
import inspect
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

# Large, well documented, and installed with the product itself.
LIBRARIES = (
    "accelerate",
    "datasets",
    "huggingface_hub",
    "networkx",
    "numpy",
    "pandas",
    "polars",
    "pyarrow",
    "scikit-learn",
    "scipy",
    "sentence-transformers",
    "torch",
    "transformers",
)
# Tests, and the model zoo of transformers, whose docstrings are made from templates.
SKIPPED = {"tests", "test", "testing", "models"}
ANCHOR_CHARACTERS = (20, 200)
POSITIVE_CHARACTERS = (80, 1_000)
TRAIN_PAIRS = 3_000
HELD_OUT_PAIRS = 500
RULE = re.compile(r"[-=~^*#.`\"']{4,}")
DIRECTIVE = re.compile(r"^\s*\.\. .*$|^\s*>>> ?|^\s*\.\.\. ?", re.MULTILINE)


def docstrings(source: str) -> Iterator[str]:
    """Every docstring of a module's classes and functions."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            text = ast.get_docstring(node, clean=False)
            if text:
                yield inspect.cleandoc(text)


def to_pair(docstring: str) -> tuple[str, str] | None:
    """First paragraph and the rest, on one line each; None where either is too short or too long to be of use."""
    first, _, rest = docstring.partition("\n\n")
    anchor, positive = plain(first), plain(rest)[: POSITIVE_CHARACTERS[1]]
    if not ANCHOR_CHARACTERS[0] <= len(anchor) <= ANCHOR_CHARACTERS[1] or len(positive) < POSITIVE_CHARACTERS[0]:
        return None
    return anchor, positive


def plain(text: str) -> str:
    """Text without rules, directives and prompts, white space folded."""
    return " ".join(RULE.sub(" ", DIRECTIVE.sub(" ", text)).split())


def pairs_of(library: str) -> Iterator[tuple[str, str]]:
    """Pairs of an installed library's Python files in the order of their paths; tests and private folders left out."""
    for file in sorted(importlib.metadata.files(library) or [], key=str):
        folders = file.parts[:-1]
        if file.suffix == ".py" and not SKIPPED & set(folders) and not any(part.startswith("_") for part in folders):
            path = Path(str(file.locate()))
            if path.is_file():
                for docstring in docstrings(path.read_text(encoding="utf-8", errors="replace")):
                    pair = to_pair(docstring)
                    if pair:
                        yield pair


def collect() -> list[tuple[str, str, str]]:
    """(anchor, positive, library) of every library; exact duplicates once."""
    found: dict[tuple[str, str], str] = {}
    for library in LIBRARIES:
        for pair in pairs_of(library):
            found.setdefault(pair, library)
    return [(anchor, positive, library) for (anchor, positive), library in found.items()]


def split(rows: list[tuple[str, str, str]]) -> tuple[list[tuple[str, str, str]], list[tuple[str, str, str]]]:
    """Train and held-out rows, drawn by the hash of the anchor: no anchor is in both."""
    ordered = sorted(rows, key=lambda row: hashlib.sha256(row[0].encode()).hexdigest())
    held_out = ordered[:HELD_OUT_PAIRS]
    anchors = {row[0] for row in held_out}
    return [row for row in ordered[HELD_OUT_PAIRS:] if row[0] not in anchors][:TRAIN_PAIRS], held_out


def write(rows: list[tuple[str, str, str]], path: Path) -> None:
    """Write rows as Parquet, whole or not at all."""
    names = ("anchor", "positive", "library")
    table = pa.table({name: [row[k] for row in rows] for k, name in enumerate(names)})
    partial = path.with_suffix(".partial")
    pq.write_table(table, partial)
    partial.replace(path)


def main() -> None:
    """Make ``train.parquet`` and ``heldout.parquet``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    rows = collect()
    train, held_out = split(rows)
    write(held_out, out / "heldout.parquet")
    write(train, out / "train.parquet")
    sys.stderr.write(f"{len(rows):,} docs pairs found: {len(train):,} to train on, {len(held_out):,} held out\n")


if __name__ == "__main__":
    main()
