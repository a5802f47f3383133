"""MTEB (Muennighoff et al. 2022, arXiv 2210.07316): tasks are fetched from the hub and scored by its own code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import InputError, SettingsError, first_line
from ..models.onednn import OneDNNLinear
from ..progress import shows_bars

if TYPE_CHECKING:
    from mteb import AbsTask
    from sentence_transformers import SentenceTransformer


def find_tasks(names: Sequence[str]) -> list[AbsTask]:
    """Return the tasks of these names.

    Raises:
        SettingsError: mteb is not installed, or has no such task.
    """
    try:
        import mteb
    except ImportError as error:
        raise SettingsError(
            "mteb is not installed",
            where=f"--mteb {' '.join(names)}",
            fix="pip install 'gistcache[mteb]'",
        ) from error
    try:
        return [mteb.get_task(name) for name in names]
    except KeyError as error:
        raise SettingsError(
            "mteb has no such task", where=f"--mteb: {error.args[0]}", fix="`mteb available-tasks` lists them"
        ) from error


def evaluate_tasks(model: SentenceTransformer, tasks: Sequence[AbsTask]) -> dict[str, float]:
    """Return each task's main score, the mean over its subsets and splits, by the task's name.

    The model's own prompts for ``query`` and ``document`` are used, and mteb's cache of results is not.

    Raises:
        InputError: A task's data cannot be fetched.
    """
    import mteb

    try:
        with OneDNNLinear():
            results = mteb.evaluate(model, tasks, cache=None, show_progress_bar=shows_bars())
    except OSError as error:  # what the hub and the data sets library raise
        raise InputError(
            "The data of an MTEB task cannot be fetched",
            where=first_line(error),
            fix="check the network, and for gated data `hf auth login`; what was fetched once is cached",
        ) from error
    return {result.task_name: float(result.get_score()) for result in results.task_results}
