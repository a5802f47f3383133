"""Writes docs/SCALING.md from tests/bench/scaling_page.md and the calculator's own figures.

python tests/bench/scaling_page.py
"""

from __future__ import annotations

from gistcache.shared.cli.plan_command import PlanSettings, planned
from gistcache.shared.guide_index.quantize import VECTOR_DTYPES
from interleaved import REPOSITORY
from rich.filesize import decimal

SIZES = (1e7, 1e8, 1e9)
SHAPES = tuple((dim, dtype) for dim in (768, 1024) for dtype in VECTOR_DTYPES)
DISK = ("texts", "contents", "pairs", "lookup", "unrounded", "vectors", "density", "scores", "faiss", "manifest", "all")
WORK = (
    "stage 1: guide, device hours",
    "stage 1: exact search, device hours",
    "stage 1: inverted lists, device hours",
    "index: slices of documents",
    "stage 1: memory a slice",
    "stage 1: passed from slice to slice",
    "stage 1: memory of the first process",
    "index: part files",
    "index: rows a part",
    "stage 2: memory of the plan",
    "stage 2: read a step, nothing cached",
)


def table(names: tuple[str, ...]) -> str:
    """Figures by size and shape, one column each."""
    columns = [(texts, *shape) for texts in SIZES for shape in SHAPES]
    figures = [planned(PlanSettings(texts=texts, dim=dim, vector_dtype=dtype)) for texts, dim, dtype in columns]
    heads = [f"{texts / 1e6:,.0f} M, {dim} {dtype}" for texts, dim, dtype in columns]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for name in names:
        cells = [_told(name, each[name]) for each in figures]
        lines.append(f"| {name.split(': ')[1]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _told(name: str, value: float) -> str:
    if name.endswith("hours"):
        return f"{value:,.1f}"
    return f"{value:,.0f}" if name.endswith(("files", "part", "documents")) else decimal(round(value))


def main() -> None:
    page = (REPOSITORY / "tests" / "bench" / "scaling_page.md").read_text(encoding="utf-8")
    disk = table(tuple(f"index: {name}" for name in DISK))
    page = page.replace("{disk}", disk).replace("{work}", table(WORK))
    (REPOSITORY / "docs" / "SCALING.md").write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
