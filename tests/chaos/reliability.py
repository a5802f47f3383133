"""`make chaos`: every fault in numbers, and docs/RELIABILITY.md.

python -m tests.chaos.reliability            half an hour and more on two cores; resumes where it was stopped
python -m tests.chaos.reliability --again    measures everything again
python -m tests.chaos.reliability --share 0.05   a twentieth of each count, as a trial; writes no page
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from string import Template

from gistcache.shared.storage.files import write_json

from tests.chaos import commands, disk, flips, kills, load
from tests.chaos.arena import Arena

HERE = Path(__file__).parent
PAGE, TEMPLATE = HERE.parents[1] / "docs" / "RELIABILITY.md", HERE / "reliability_page.md"
COUNTS_FILE = HERE.parents[1] / "runs" / "chaos.json"
LOAD_SECONDS, TRAINERS = 600, 8

Counts = Counter[str]


def measure(folder: Path, share: float) -> dict[str, str]:
    """Every fault; a line of counts each."""
    commands.start_server(folder / "cache")
    arena = Arena.create(folder)

    def times(count: int) -> int:
        return max(2, round(share * count))

    faults: dict[str, Callable[[], Counts | str]] = {
        "index_kill": lambda: kills.kill_index(arena, times(200), signal.SIGKILL, 1),
        "index_stop": lambda: (
            kills.kill_index(arena, times(50), signal.SIGINT, 2) + kills.kill_index(arena, times(50), signal.SIGTERM, 3)
        ),
        "train_kill": lambda: kills.kill_train(arena, times(50), signal.SIGKILL, 4),
        "train_term": lambda: kills.kill_train(arena, times(25), signal.SIGTERM, 5),
        "train_int": lambda: kills.kill_train(arena, times(25), signal.SIGINT, 6),
        "disk_index": lambda: disk.fill_index(arena, times(40), 7) if disk.can_mount() else "not run: no mount",
        "disk_train": lambda: disk.fill_train(arena, times(20), 8) if disk.can_mount() else "not run: no mount",
        "flips": lambda: flips.flip_bits(arena, times(200), 9, each=share >= 1),
        "fuzz": lambda: _fuzz(arena.index, times(10_000)),
        "load": lambda: load.share_index(arena, TRAINERS, share * LOAD_SECONDS),
    }
    counts = json.loads(COUNTS_FILE.read_text()) if share >= 1 and COUNTS_FILE.is_file() else {}
    for name, act in faults.items():
        if name in counts:
            continue
        start = time.monotonic()
        outcome = act()
        counts[name] = outcome if isinstance(outcome, str) else line(outcome)
        if share >= 1:
            write_json(COUNTS_FILE, counts)
        print(f"{name}: {counts[name]} ({time.monotonic() - start:.0f} s)", file=sys.stderr, flush=True)
    return counts


def line(counts: Counts) -> str:
    """All, and how many of each."""
    return f"{counts.total():,}: " + ", ".join(f"{count:,} {name}" for name, count in counts.most_common())


def _fuzz(index: Path, cases: int) -> str:
    """In a process of its own, whose peak memory is that of the cases."""
    command = [sys.executable, "-m", "tests.chaos.fuzz", "--cases", str(cases), "--index", str(index)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(done.stderr)
    counts = json.loads(done.stdout)
    return f"{line(Counter(counts['outcomes']))}; peak memory {counts['peak_memory_bytes'] / 1e6:,.0f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--share", type=float, default=1.0, help="part of each count to run")
    parser.add_argument("--again", action="store_true", help="ignore earlier counts")
    args = parser.parse_args()
    share = args.share
    if args.again:
        COUNTS_FILE.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        counts = measure(Path(folder), share)
    if share >= 1:
        machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
        PAGE.write_text(
            Template(TEMPLATE.read_text(encoding="utf-8")).substitute(counts, machine=machine, trainers=TRAINERS),
            encoding="utf-8",
        )
        print(f"written to {PAGE}", file=sys.stderr)


if __name__ == "__main__":
    main()
