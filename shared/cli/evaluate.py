"""`gistcache eval`: scores of any model in retrieval on held-out pairs, STS on a scored file, and MTEB."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from ..data.columns import Columns
from ..errors import SettingsError
from .output import CommandResult


def evaluate(
    model: str,
    *,
    pairs: Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=False)] = (),
    sts: str | None = None,
    mteb: Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=True)] = (),
    columns: Columns = Columns(),  # noqa: B008 (frozen)
    max_length: int | None = None,
    device: str = "auto",
    out: Path | None = None,
) -> CommandResult:
    """Evaluate a model: retrieval on held-out pairs, Spearman correlation on scored sentence pairs, tasks of MTEB.

    Parameters
    ----------
    model
        A folder, a hub id, or `package:DISTRIBUTION`.
    pairs
        Held-out pairs, as `gistcache index` reads them; may be repeated. A duplicate of the right document is right.
    sts
        A file with sentence1, sentence2, score.
    mteb
        Names of MTEB tasks, such as Banking77Classification STSBenchmark, whose data comes from the hub.
    columns
        Which columns hold the texts.
    max_length
        Tokens after which a text is cut; default: the model's own limit.
    device
        Device that the model runs on: auto, cpu, cuda.
    out
        Write the scores to this JSON file too.
    """
    if not pairs and sts is None and not mteb:
        raise SettingsError("There is nothing to evaluate on", fix="give --pairs FILE, --sts FILE or --mteb TASK")
    from ..evaluation.benchmarks import evaluate_sts, evaluate_tasks, find_tasks
    from ..evaluation.retrieval import RetrievalSet
    from ..models.device import pick_device, within_memory
    from ..models.load import load_model, set_prompts
    from ..models.locate import find_model
    from ..storage.files import write_json

    tasks = find_tasks(mteb) if mteb else []
    held_out = RetrievalSet.read(pairs, columns) if pairs else None
    loaded = load_model(find_model(model), device=pick_device(device), max_length=max_length)
    set_prompts(loaded, None, None)
    scores: dict[str, float] = {}
    with within_memory("give a smaller --max-length, or --device cpu"):
        if held_out:
            scores |= held_out.evaluate(loaded)
        if sts is not None:
            scores |= evaluate_sts(loaded, sts)
        if tasks:
            scores |= evaluate_tasks(loaded, tasks)
    table = Table(title=model, show_header=False)
    for name, value in scores.items():
        table.add_row(name, f"{value:.4f}")
    if out is not None:
        write_json(out, scores)
    return CommandResult({"model": model, **scores}, (table,))
