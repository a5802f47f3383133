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

HELD_OUT = "held-out-pairs"
SAMPLE = 1_000
INTRODUCTION = """## Training against a guide index

Trained with [GISTEmbed](https://arxiv.org/abs/2402.16829)'s guided loss, the guide read from an index that
gistcache made; no guide was in memory.
"""


def describe_student(student: SentenceTransformer, settings: TrainSettings) -> None:
    """Enter base model, name and training data into the student's card; nothing is looked up on the hub."""
    data = student.model_card_data
    data.local_files_only = True
    data.base_model = hub_id(settings.student)
    data.model_id = settings.push_to_hub
    data.model_name = (settings.push_to_hub or settings.out.resolve().name).rpartition("/")[2]
    data.train_datasets = [{"name": public_name(str(settings.index))}]
    data.add_tags("gistembed")


def describe_data(student: SentenceTransformer, rows: Dataset, pairs: int, loss: nn.Module) -> None:
    """Enter the texts into the card again without the pair ids, which it would show as classes.

    Args:
        student: The model whose card it is.
        rows: The pairs with their texts, or the first ``SAMPLE`` of them.
        pairs: How many pairs there are.
        loss: The trainer's loss.
    """
    data, sample = student.model_card_data, rows[:SAMPLE]
    # Pairs with fewer negatives have their positive in such a column.
    padded = [
        name
        for name in rows.column_names
        if name.startswith("negative_") and any(map(str.__eq__, sample[name], sample["positive"]))
    ]
    data.compute_dataset_metrics(rows.remove_columns(["label", *padded]), data.train_datasets[0], loss)
    data.train_datasets[0]["size"] = pairs  # type: ignore[assignment]


def write_card(card: Path, student: SentenceTransformer, index: GuideIndex, metrics: dict[str, Any]) -> None:
    """Write sentence-transformers' own card with the results of the trained student, and ``section`` after it."""
    data = student.model_card_data
    for evaluator, figures in list((data.eval_results_dict or {}).items())[:1]:  # those of all dimensions
        evaluator.name = HELD_OUT  # type: ignore[attr-defined]
        data.eval_results_dict = {evaluator: figures}
    with atomic_write(card) as partial:
        partial.write_text(f"{generate_model_card(student).rstrip()}\n\n{section(index, metrics)}", encoding="utf-8")


def section(index: GuideIndex, metrics: dict[str, Any]) -> str:
    """The section on guide, data, results and settings, as Markdown."""
    corpus, share = index.manifest.request.corpus, metrics["removed_share"]
    settings = json.dumps(_public(metrics["settings"]), indent=2, sort_keys=True)
    lines = [
        INTRODUCTION,
        *_guide(index.manifest.request.guide),
        f"- data: {corpus['pairs']:,} pairs, {corpus['queries']:,} anchors, {corpus['documents']:,} documents, "
        f"corpus `{corpus['sha256']}`",
        "- trained without the guide's judgement"
        if share is None
        else f"- candidates masked as false negatives: {share:.2%}",
        f"- student: {summarize(metrics)}",
    ]
    if dims := sorted(metrics["settings"]["matryoshka"], reverse=True):
        lines += [
            f"- Matryoshka: the leading {', '.join(map(str, dims))} dimensions are embeddings too: "
            f"`SentenceTransformer(..., truncate_dim={dims[-1]})`"
        ]
    return "\n".join([*lines, "", *_results(metrics["retrieval"]), "```json", settings, "```", ""])


def _public(setting: Any) -> Any:  # noqa: ANN401 (any JSON value)
    """Settings without the folders of this machine."""
    if isinstance(setting, dict):
        return {name: _public(value) for name, value in setting.items()}
    if isinstance(setting, list | tuple):
        return [_public(value) for value in setting]
    return public_name(setting) if isinstance(setting, str) else setting


def _guide(guide: dict[str, Any]) -> list[str]:
    """The guide's fingerprint; an endpoint has no files, and stored vectors have no number type or length limit."""
    parts = [f"- guide: `{_plain(public_name(guide['name']))}`", f"{guide['dim']} dimensions"]
    parts += [guide["dtype"]] if "dtype" in guide else []
    parts += [f"at most {guide['max_length']} tokens"] if guide.get("max_length") else []
    files = {name: digest for name, digest in guide.get("files", {}).items() if not name.endswith((".json", ".txt"))}
    digests = ", ".join(f"`{_plain(name)}` `{digest[:16]}`" for name, digest in files.items())
    return [", ".join(parts), *([f"- guide's files (SHA-256): {digests}"] if digests else [])]


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
