"""A student's model card: sentence-transformers' own, and a section on the guide index that it was trained against."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.model_card import generate_model_card
from torch import nn

from ...shared.guide_index.guide_index import GuideIndex
from ...shared.models.locate import hub_id, public_name
from ...shared.storage.files import atomic_write
from ...shared.types import METRICS
from ..settings import TrainSettings
from ..student.footprint import summarize

INTRODUCTION = """## Training against a guide index

Trained with [GISTEmbed](https://arxiv.org/abs/2402.16829)'s guided loss, the guide read from an index that
gistcache made; no guide was in memory.
"""


def describe_student(student: SentenceTransformer, settings: TrainSettings) -> None:
    """Enter base model and training data into the student's card; nothing is looked up on the hub."""
    data = student.model_card_data
    data.local_files_only = True
    data.base_model = hub_id(settings.student)
    data.train_datasets = [{"name": public_name(str(settings.index))}]
    data.add_tags("gistembed")


def describe_data(student: SentenceTransformer, rows: Dataset, pairs: int, loss: nn.Module) -> None:
    """Enter (a sample of) the texts into the card again without the pair ids, which it would show as classes."""
    data = student.model_card_data
    data.compute_dataset_metrics(rows.remove_columns("label"), data.train_datasets[0], loss)
    data.train_datasets[0]["size"] = pairs  # type: ignore[assignment]


def write_card(card: Path, student: SentenceTransformer, index: GuideIndex, metrics: dict[str, Any]) -> None:
    """Write sentence-transformers' own card with the results of the trained student, and ``section`` after it."""
    data = student.model_card_data
    for evaluator, figures in list((data.eval_results_dict or {}).items())[:1]:  # those of all dimensions
        evaluator.name = "held-out-pairs"  # type: ignore[attr-defined]
        data.eval_results_dict = {evaluator: figures}
    with atomic_write(card) as partial:
        partial.write_text(f"{generate_model_card(student).rstrip()}\n\n{section(index, metrics)}", encoding="utf-8")


def section(index: GuideIndex, metrics: dict[str, Any]) -> str:
    """The section on guide, data, results and the settings that determine the weights, as Markdown."""
    guide, corpus = index.manifest.request.guide, index.manifest.request.corpus
    share, settings = metrics["removed_share"], metrics["run"]["settings"]
    digests = [
        f"`{_plain(name)}` (SHA-256 `{digest[:16]}`)"
        for name, digest in guide.get("files", {}).items()  # an endpoint has none
        if not name.endswith((".json", ".txt"))
    ]
    lines = [
        INTRODUCTION,
        ", ".join([f"- guide: `{_plain(public_name(guide['name']))}`, {guide['dim']} dimensions", *digests]),
        f"- data: {corpus['pairs']:,} pairs, {corpus['queries']:,} anchors, {corpus['documents']:,} documents, "
        f"corpus `{corpus['sha256']}`",
        "- trained without the guide's judgement"
        if share is None
        else f"- candidates masked as false negatives: {share:.2%}",
        f"- student: {summarize(metrics)}",
    ]
    lines += [
        f"- its leading {dim} dimensions are embeddings too: `SentenceTransformer(..., truncate_dim={dim})`"
        for dim in settings["matryoshka"]
    ]
    if rows := {name: figures for name, figures in metrics["retrieval"].items() if figures}:
        lines += ["", f"| held-out pairs | {' | '.join(METRICS)} |", f"|---|{'---|' * len(METRICS)}"]
        lines += [f"| {name} | " + " | ".join(f"{row[m]:.4f}" for m in METRICS) + " |" for name, row in rows.items()]
    return "\n".join([*lines, "", "```json", json.dumps(settings, indent=2, sort_keys=True), "```", ""])


def _plain(text: str) -> str:
    """Text that cannot end a code span or a line of the card."""
    return "".join(" " if char in "`\r\n<>|" else char for char in text)
