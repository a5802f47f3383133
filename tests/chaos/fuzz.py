"""Damaged and awkward inputs: each ends in success with counted rejects, or in an error of the project's own.

    python -m tests.chaos.fuzz --cases 10000 --seed 0

Files of every format, damaged in many ways or awkward, go through the readers. Manifests, damaged or changed with a
valid checksum, go through opening an index and using it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from gistcache.precompute.corpus import read_corpus
from gistcache.shared.data.columns import Columns
from gistcache.shared.data.pairs import read_pairs
from gistcache.shared.errors import GistcacheError
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.progress import console
from gistcache.shared.storage.integrity import CHECKSUM_KEY, write_checksummed
from gistcache.shared.timing import peak_memory_bytes

from tests.chaos.fuzz_files import FORMATS, Chance, awkward_files, content, damaged, value

SECONDS_A_CASE = 180
LIMIT_BYTES = 2 * 10**9


def read(path: Path) -> str:
    """Read a file of pairs."""
    corpus = read_corpus(read_pairs([str(path)], Columns()))
    return "read, with rejects" if corpus.rejected.height else "read"


def manifests(index: Path, folder: Path, chance: Chance, count: int) -> Iterator[Path]:
    """Copies of an index whose manifest is damaged, or has other values and a valid checksum."""
    copy = folder / "index"
    shutil.copytree(index, copy)
    manifest = json.loads((index / "manifest.json").read_text())
    manifest.pop(CHECKSUM_KEY)
    for number in range(count):
        if number % 3 == 0:
            (copy / "manifest.json").write_bytes(damaged((index / "manifest.json").read_bytes(), chance))
        else:
            changed = json.loads(json.dumps(manifest))
            for _ in range(chance.randrange(1, 4)):
                _put_something_else(changed, chance)
            write_checksummed(copy / "manifest.json", changed)
        yield copy


def _put_something_else(tree: dict[str, Any], chance: Chance) -> None:
    """Replace, delete or add one value somewhere in a tree of JSON values."""
    node: Any = tree
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = chance.choice(keys)
        if isinstance(node[key], dict | list) and node[key] and chance.random() < 0.85:
            node = node[key]
            continue
        if chance.random() < 0.2:
            del node[key]
        else:
            odd = ["../../etc/passwd", "/etc/passwd", -1, 0, 2**70, 1e308, [], {}, None, True, "x", "vectors"]
            node[key] = chance.choice([*odd, value(chance, 2)])
        return


def use(folder: Path) -> str:
    """Open an index and take a batch from it."""
    index = GuideIndex.open(folder)
    ids = index.pairs(np.arange(min(4, len(index))))
    index.vectors(ids.anchors)
    index.known_positives(ids.anchors)
    index.density(ids.positives)
    return "opened"


def run_case(act: Callable[[Path], str], path: Path) -> str:
    """Run a case: its result in words, or the class of the project's own error. Anything else is raised."""

    def too_long(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise TimeoutError(f"no end after {SECONDS_A_CASE} s")

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS_A_CASE)
    try:
        return act(path)
    except GistcacheError as error:
        return type(error).__name__
    finally:
        signal.alarm(0)


def fuzz(folder: Path, index: Path, count: int, seed: int) -> Counter[str]:
    """Run ``count`` cases; counts by outcome.

    Raises:
        AssertionError: A case ended in anything but success or an error of the project's own; names the case's seed.
    """
    counts, console.quiet = Counter[str](), True
    for number in range(count * 4 // 5):
        chance = Chance(f"{seed} {number}")
        kind = chance.choice(FORMATS)
        path = folder / f"case.{kind}"
        path.write_bytes(damaged(content(kind, chance), chance))
        counts[_run_named(read, path, f"file {seed} {number}")] += 1
    for number, copy in enumerate(manifests(index, folder, Chance(seed), count - count * 4 // 5)):
        counts[_run_named(use, copy, f"manifest {seed} {number}")] += 1
    for path in awkward_files(folder):
        counts[_run_named(read, path, path.name)] += 1
    console.quiet = False
    return counts


def _run_named(act: Callable[[Path], str], path: Path, name: str) -> str:
    try:
        return run_case(act, path)
    except Exception as error:
        copy = Path(tempfile.gettempdir()) / f"fuzz-failure-{path.name[-40:]}"
        if path.is_file():
            shutil.copy(path, copy)
        raise AssertionError(f"case {name!r} ended in {type(error).__name__}: {error} (copied to {copy})") from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--index", type=Path, required=True, help="a finished index, whose manifest is damaged")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = fuzz(Path(folder), args.index, args.cases, args.seed)
    peak = peak_memory_bytes()
    json.dump({"outcomes": counts, "peak_memory_bytes": peak}, sys.stdout)
    assert peak < LIMIT_BYTES, f"{peak:,} bytes"


if __name__ == "__main__":
    main()
