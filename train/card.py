"""The part of a student's model card that says which guide index it was trained against."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..shared.evaluation import METRICS
from ..shared.index import GuideIndex
from ..shared.parts import whole_file
from .footprint import told

FENCE = "```"


def add_section(card: Path, index: GuideIndex, metrics: dict[str, Any]) -> None:
    """Append guide, data, settings and results to the card that sentence-transformers has written."""
    written = card.read_text(encoding="utf-8") if card.exists() else ""
    with whole_file(card) as partial:
        partial.write_text(f"{written.rstrip()}\n\n{section(index, metrics)}", encoding="utf-8")


def section(index: GuideIndex, metrics: dict[str, Any]) -> str:
    """Markdown of the section."""
    request = index.manifest.request
    guide, corpus = request.guide, request.corpus
    share = metrics["removed_share"]
    lines = [
        "## Training against a guide index",
        "",
        "Trained with [GISTEmbed](https://arxiv.org/abs/2402.16829)'s guided loss, the guide read from an index that",
        "gistcache made; no guide was in memory.",
        "",
        f"- guide: `{_plain(guide['name'])}`, {guide['dim']} dimensions, {guide['dtype']}, at most "
        f"{guide['max_length']} tokens",
        f"- guide's files (SHA-256): {_files(guide['files'])}",
        f"- data: {corpus['pairs']:,} pairs, {corpus['queries']:,} anchors, {corpus['documents']:,} documents, "
        f"corpus `{corpus['sha256']}`",
        f"- candidates removed as false negatives: {share:.2%}" if share is not None else "- no guide's judgement used",
        f"- student: {told(metrics)}",
        *_shorter(metrics["settings"]["matryoshka"]),
        "",
        *_results(metrics["retrieval"]),
        f"{FENCE}json",
        json.dumps(metrics["settings"], indent=2, sort_keys=True),
        FENCE,
        "",
    ]
    return "\n".join(lines)


def _shorter(dims: Sequence[int]) -> list[str]:
    """How to get the shorter embeddings of a Matryoshka student."""
    numbers = ", ".join(map(str, sorted(dims, reverse=True)))
    how = f"`SentenceTransformer(..., truncate_dim={min(dims)})`" if dims else ""
    return [f"- Matryoshka: the leading {numbers} dimensions are embeddings too: {how}"] if dims else []


def _files(files: dict[str, str]) -> str:
    return ", ".join(f"`{_plain(name)}` `{digest[:16]}`" for name, digest in files.items() if "safetensors" in name)


def _results(retrieval: dict[str, dict[str, float] | None]) -> list[str]:
    rows = {name: figures for name, figures in retrieval.items() if figures}
    if not rows:
        return []
    return [
        f"| held-out pairs | {' | '.join(METRICS)} |",
        f"|---|{'---|' * len(METRICS)}",
        *(f"| {name} | " + " | ".join(f"{figures[m]:.4f}" for m in METRICS) + " |" for name, figures in rows.items()),
        "",
    ]


def _plain(text: str) -> str:
    """Text that cannot end a code span or a line of the card."""
    return "".join(" " if char in "`\r\n<>|" else char for char in text)
