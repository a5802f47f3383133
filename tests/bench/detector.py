"""The measurement behind docs/DETECTOR.md: how well the paper's judge tells false negatives, with two guides.

    python tests/bench/detector.py                 the whole of it; ten minutes on two cores
    python tests/bench/detector.py --pairs 500     a trial, which leaves docs/ alone

The intents make the pairs and say afterwards what was right; no guide sees them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from banking77_scores import make_pairs, read_questions
from bench_data import GUIDE, MAX_LENGTH, PUBLIC, STUDENT, gistcache
from detector_counts import changed_by_rounding, detector_figures
from detector_page import page
from gistcache.shared.guide_index.guide_index import GuideIndex
from gistcache.shared.models.device import pick_device
from gistcache.shared.models.load import load_model
from gistcache.shared.models.locate import find_model
from gistcache.shared.storage.files import sha256_of
from interleaved import REPOSITORY, say
from results_file import Results

GUIDES = {"all-MiniLM-L6-v2": STUDENT, "all-mpnet-base-v2": GUIDE}
QUESTIONS = "banking77_train.csv"
BATCH_SIZE, SEED = 64, 0


def measured(name: str, pairs: Path, intents: dict[str, str], work: Path) -> dict[str, Any]:
    """Precision and recall of a guide's removals, and decisions that float16 changes; written to ``work``."""
    out, results = work / f"index-{name}-{pairs.stem}", Results(work / "detector.jsonl")
    gistcache("index", pairs, "--guide", GUIDES[name], "--out", out, "--max-length", MAX_LENGTH)
    index, made_by = GuideIndex.open(out), {"guide": name, "pairs": sha256_of(pairs)}

    def rounding() -> Any:
        model = load_model(find_model(GUIDES[name]), device=pick_device("auto"), max_length=MAX_LENGTH)
        return changed_by_rounding(index, model, BATCH_SIZE, SEED)

    return {
        "candidates": results.get_or_measure(
            made_by | {"step": "candidates"}, lambda: detector_figures(index, intents, BATCH_SIZE, SEED)
        ),
        "rounding": results.get_or_measure(made_by | {"step": "rounding"}, rounding),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=PUBLIC, help="the public data")
    parser.add_argument(
        "--work", type=Path, default=REPOSITORY / "runs" / "results", help="folder of all files that it writes"
    )
    parser.add_argument("--pairs", type=int, help="a trial with so many pairs")
    args = parser.parse_args()
    if missing := [str(path) for path in (args.data / QUESTIONS, Path(GUIDE)) if not path.exists()]:
        sys.exit(f"not there: {', '.join(missing)}\n  to do: see docs/DETECTOR.md")
    questions = read_questions(args.data / QUESTIONS)
    pairs = args.work / f"all-questions-{args.pairs or 'all'}.jsonl"
    args.work.mkdir(parents=True, exist_ok=True)
    rows = make_pairs(questions, SEED)[: args.pairs]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    intents = {question.text: question.intent for question in questions}
    text = page({name: measured(name, pairs, intents, args.work) for name in GUIDES}, len(rows))
    out = (args.work if args.pairs else REPOSITORY / "docs") / "DETECTOR.md"
    out.write_text(text, encoding="utf-8")
    print(text)
    say(f"written to {out}")


if __name__ == "__main__":
    main()
