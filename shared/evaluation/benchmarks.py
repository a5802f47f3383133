"""Public benchmarks: semantic textual similarity (STS), and MTEB (Muennighoff et al. 2022, arXiv 2210.07316)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..data.inputs import find_sources
from ..data.readers import read_rows
from ..errors import InputError, SettingsError, first_line
from ..models.onednn import OneDNNLinear
from ..progress import shows_bars

if TYPE_CHECKING:
    from mteb import AbsTask
    from sentence_transformers import SentenceTransformer

STS_COLUMNS = ("sentence1", "sentence2", "score")


def evaluate_sts(model: SentenceTransformer, path: str) -> dict[str, float]:
    """Spearman correlation of cosine similarity with the scores of a file, by sentence-transformers' evaluator.

    The file has columns ``sentence1``, ``sentence2``, ``score``; a CSV of these three may come without a header.
    Raises InputError where it has no such rows.
    """
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    scored = []
    for source in find_sources([path]):
        for line, row in read_rows(source, STS_COLUMNS.__contains__, header=STS_COLUMNS):
            one, other, score = (None if isinstance(row, str) else row.get(name) for name in STS_COLUMNS)
            if one and other:
                scored.append((_printable(one), _printable(other), _number(score, f"{source.name}, line {line}")))
    if not scored:
        fix = "give columns sentence1, sentence2, score, or a CSV of these three without a header"
        raise InputError("No row has two sentences and a score", where=path, fix=fix)
    one, other, scores = map(list, zip(*scored, strict=True))
    evaluator = EmbeddingSimilarityEvaluator(one, other, scores, similarity_fn_names=["cosine"], write_csv=False)
    with OneDNNLinear():
        return {"spearman": float(evaluator(model)["spearman_cosine"])}


def _printable(text: object) -> str:
    """The text without bytes that are no UTF-8, which a tokenizer would refuse."""
    return str(text).encode("utf-8", "replace").decode()


def _number(score: object, where: str) -> float:
    try:
        if math.isfinite(number := float(score)):  # type: ignore[arg-type]
            return number
    except (TypeError, ValueError):
        pass
    raise InputError("A score is no number", where=where, fix="mend the row")


def find_tasks(names: Sequence[str]) -> list[AbsTask]:
    """Return the tasks of these names; raises SettingsError where mteb is not installed, or has no such task."""
    try:
        import mteb

        return [mteb.get_task(name) for name in names]
    except ImportError as error:
        raise SettingsError("mteb is not installed", where="--mteb", fix="pip install 'gistcache[mteb]'") from error
    except KeyError as error:
        fix = "`mteb available-tasks` lists them"
        raise SettingsError("mteb has no such task", where=f"--mteb: {error.args[0]}", fix=fix) from error


def evaluate_tasks(model: SentenceTransformer, tasks: Sequence[AbsTask]) -> dict[str, float]:
    """Return each task's main score, the mean over its subsets and splits, by the task's name.

    The model's own prompts for ``query`` and ``document`` are used, and mteb's cache of results is not. Raises
    InputError where a task's data cannot be fetched.
    """
    import mteb

    try:
        with OneDNNLinear():
            results = mteb.evaluate(model, tasks, cache=None, show_progress_bar=shows_bars())
    except OSError as error:  # what the hub and the data sets library raise
        fix = "check the network, and for gated data `hf auth login`; what was fetched once is cached"
        raise InputError("The data of an MTEB task cannot be fetched", where=first_line(error), fix=fix) from error
    return {result.task_name: float(result.get_score()) for result in results.task_results}
