"""What a command has found out: on stdout, as a table for people or as one JSON object for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

results = Console(soft_wrap=not sys.stdout.isatty(), highlight=False)


@dataclass(frozen=True)
class CommandResult:
    """What a command hands back to the command line.

    Attributes:
        figures: JSON-ready; what --json prints.
        shown: What a person reads instead, in order.
        exit_code: 0 where all is well.
    """

    figures: Mapping[str, Any]
    shown: tuple[RenderableType, ...]
    exit_code: int = 0


def show(outcome: CommandResult, *, as_json: bool, quiet: bool) -> int:
    """Print an outcome; with ``quiet`` nothing but faults. Returns the exit code."""
    if as_json:
        sys.stdout.write(json.dumps(outcome.figures, ensure_ascii=False, default=str) + "\n")
    elif not quiet or outcome.exit_code:
        for part in outcome.shown:
            results.print(part, soft_wrap=isinstance(part, Text))  # a command to copy stays in one piece
    return outcome.exit_code
