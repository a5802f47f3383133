"""A student's model card: sentence-transformers' own, told of base, data and results, and which guide index it was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.model_card import generate_model_card

from ...shared.guide_index.guide_index import GuideIndex
from ...shared.models.locate import hub_id, public_name
from ...shared.storage.files import atomic_write
from ...shared.types import METRICS
from ..settings import TrainSettings
from ..student.footprint import told

FENCE = "```"
HELD_OUT = "held-out-pairs"
SAMPLE = 1_000


def describe_student(student: SentenceTransformer, settings: TrainSettings) -> None:
    """Tell the student's card what it is made from and called; nothing is looked up on the hub."""
    data = student.model_card_data
    data.local_files_only = True
    data.base_model = hub_id(settings.student)
    data.model_id = settings.push_to_hub
    data.model_name = (settings.push_to_hub or settings.out.resolve().name).rpartition("/")[2]
    data.train_datasets = [{"name": public_name(str(settings.index[0]))}]
    data.add_tags("gistembed")


def describe_data(
    student: SentenceTransformer,
    rows: Dataset,
    pairs: int,
    loss: Any,  # noqa: ANN401 (the trainer's)
) -> None:
    """Tell the card of the texts again without the pair ids, which it would take for classes.

    Args:
        student: Whose card it is.
        rows: The pairs with their texts, or the first ``SAMPLE`` of them.
        pairs: How many pairs there are.
        loss: The trainer's.
    """
    data = student.model_card_data
    sample = rows[:SAMPLE]
    padded = [name for name in rows.column_names if name.startswith("negative_") and _holds_positives(sample, name)]
    data.compute_dataset_metrics(rows.remove_columns(["label", *padded]), data.train_datasets[0], loss)
    data.train_datasets[0]["size"] = pairs  # type: ignore[assignment]


def _holds_positives(sample: dict[str, list[str]], column: str) -> bool:
    """Whether positives fill a column of negatives up, for pairs that have fewer; the loss leaves them out."""
    return any(map(str.__eq__, sample[column], sample["positive"]))


def write_card(card: Path, student: SentenceTransformer, index: GuideIndex, metrics: dict[str, Any]) -> None:
    """Write sentence-transformers' own card with the results of the trained student, and after it ``section``."""
    data = student.model_card_data
    for evaluator, figures in list((data.eval_results_dict or {}).items())[:1]:  # of all its dimensions
        evaluator.name = HELD_OUT  # type: ignore[attr-defined]
        data.eval_results_dict = {evaluator: figures}
    with atomic_write(card) as partial:
        partial.write_text(f"{generate_model_card(student).rstrip()}\n\n{section(index, metrics)}", encoding="utf-8")


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
        *_guide(guide),
        f"- data: {corpus['pairs']:,} pairs, {corpus['queries']:,} anchors, {corpus['documents']:,} documents, "
        f"corpus `{corpus['sha256']}`",
        f"- candidates removed as false negatives: {share:.2%}" if share is not None else "- no guide's judgement used",
        f"- student: {told(metrics)}",
        *_shorter(metrics["settings"]["matryoshka"]),
        "",
        *_results(metrics["retrieval"]),
        f"{FENCE}json",
        json.dumps(_public(metrics["settings"]), indent=2, sort_keys=True),
        FENCE,
        "",
    ]
    return "\n".join(lines)


def _shorter(dims: Sequence[int]) -> list[str]:
    """How to get the shorter embeddings of a Matryoshka student."""
    numbers = ", ".join(map(str, sorted(dims, reverse=True)))
    how = f"`SentenceTransformer(..., truncate_dim={min(dims)})`" if dims else ""
    return [f"- Matryoshka: the leading {numbers} dimensions are embeddings too: {how}"] if dims else []


def _public(setting: Any) -> Any:  # noqa: ANN401 (any JSON value)
    """Settings without the folders of this machine."""
    if isinstance(setting, dict):
        return {name: _public(value) for name, value in setting.items()}
    if isinstance(setting, list | tuple):
        return [_public(value) for value in setting]
    return public_name(setting) if isinstance(setting, str) else setting


def _guide(guide: dict[str, Any]) -> list[str]:
    """The guide by its fingerprint: an endpoint has no files, and given vectors know no number type or limit."""
    told = [f"- guide: `{_plain(public_name(guide['name']))}`", f"{guide['dim']} dimensions"]
    told += [guide["dtype"]] if "dtype" in guide else []
    told += [f"at most {guide['max_length']} tokens"] if guide.get("max_length") else []
    files = {name: digest for name, digest in guide.get("files", {}).items() if not name.endswith((".json", ".txt"))}
    digests = ", ".join(f"`{_plain(name)}` `{digest[:16]}`" for name, digest in files.items())
    return [", ".join(told), *([f"- guide's files (SHA-256): {digests}"] if digests else [])]


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
