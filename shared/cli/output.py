"""The result of a command, on stdout: a table for people, or one JSON object for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

stdout = Console(soft_wrap=not sys.stdout.isatty(), highlight=False)


@dataclass(frozen=True)
class CommandResult:
    """What a command returns: JSON-ready data for --json, or the text that a person reads."""

    data: Mapping[str, Any]
    text: tuple[RenderableType, ...]
    exit_code: int = 0


def print_result(result: CommandResult, *, as_json: bool, quiet: bool) -> None:
    """Print a result; with ``quiet`` only one that reports faults."""
    if as_json:
        sys.stdout.write(json.dumps(result.data, ensure_ascii=False, default=str) + "\n")
    elif not quiet or result.exit_code:
        for block in result.text:
            stdout.print(block, soft_wrap=isinstance(block, Text))  # a command to copy stays on one line
