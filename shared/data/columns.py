"""Which columns of the input hold the texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter


@Parameter(name="*", group="Columns of the pairs")
@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns hold the texts, where they do not have the usual names."""

    anchor_column: str | None = None
    """Column with the anchor; default: `anchor`, else `query`."""
    positive_column: str | None = None
    """Column with the positive, or a list of positives; default: `positive`, else `pos`."""
    negative_column: Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=False)] = ()
    """Column with a negative, or a list of them; may be repeated; default: `negative`, `negative_1` ..., `neg`."""
    task_column: str | None = None
    """Column with the name of the task; default: `task`, else `task_name`, where there is one."""
