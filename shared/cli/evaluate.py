"""`gistcache eval`: retrieval on held-out pairs, STS on a scored file, and MTEB, of any model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from ..data.columns import Columns
from ..errors import SettingsError
from ..evaluation.mteb import evaluate_tasks, find_tasks
from ..evaluation.retrieval import RetrievalSet, evaluate_sts
from ..models.device import pick_device, within_memory
from ..models.load import find_model, load_model, set_prompts
from ..storage.files import write_json
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
        Held-out pairs, in any format that `gistcache index` reads; may be repeated. A duplicate of the right document
        counts as right.
    sts
        A file with sentence1, sentence2, score.
    mteb
        Names of MTEB tasks, such as Banking77Classification STSBenchmark; the data comes from the hub. Needs the extra
        `mteb`.
    columns
        Which columns hold the texts.
    max_length
        Tokens after which a text is cut; default: the model's own limit.
    device
        Where the model runs: auto, cpu, cuda.
    out
        Write the figures to this JSON file too.
    """
    if not pairs and sts is None and not mteb:
        raise SettingsError("There is nothing to evaluate on", fix="give --pairs FILE, --sts FILE or --mteb TASK")
    tasks = find_tasks(mteb) if mteb else []
    held_out = RetrievalSet.read(pairs, columns) if pairs else None
    loaded = load_model(find_model(model), device=pick_device(device), max_length=max_length)
    set_prompts(loaded, None, None)
    figures: dict[str, Any] = {}
    with within_memory("give a smaller --max-length, or --device cpu"):
        if held_out:
            figures |= held_out.evaluate(loaded)
        if sts is not None:
            figures |= evaluate_sts(loaded, sts)
        if tasks:
            figures |= evaluate_tasks(loaded, tasks)
    table = Table(title=model, show_header=False)
    for name, value in figures.items():
        table.add_row(name, f"{value:.4f}")
    if out is not None:
        write_json(out, figures)
    return CommandResult({"model": model, **figures}, (table,))
