"""TOML files of settings: read, and written so that `--config` reads them back."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import SettingsError


def read_toml(path: Path, tables: Iterable[str], elsewhere: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The content of a TOML file that may have these tables; ``elsewhere`` says what to do where it has others.

    Raises:
        SettingsError: There is none, it is no TOML (says where it goes wrong), or it has another table.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError("There is no such file", where=str(path)) from None
    except (ValueError, OSError) as error:
        raise SettingsError("The file is no TOML that can be read", where=f"{path}: {error}") from error
    for name in content:
        if name not in (known := sorted(tables)):
            close = get_close_matches(name, known, 1)
            fix = f"did you mean [{close[0]}]?" if close else f"tables are {', '.join(known)}"
            fix = (elsewhere or {}).get(name, fix)
            raise SettingsError(f"There is no table [{name}]", where=str(path), fix=fix)
    return content


def flat(settings: object) -> Iterator[tuple[str, Any]]:
    """Each flag and its value of a settings object; the flags of nested ones stand beside their own."""
    for field in fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, field.name)
        if is_dataclass(value):
            yield from flat(value)
        else:
            yield field.name.replace("_", "-"), value


def as_toml(command: str, arguments: Mapping[str, Any]) -> str:
    """A command's arguments, settings objects among them, as a TOML table; what has no value is left out."""
    lines = [f"[{command}]"]
    for name, value in arguments.items():
        for flag, one in flat(value) if is_dataclass(value) else [(name.replace("_", "-"), value)]:
            if one is not None:
                lines.append(f"{flag} = {_value(one)}")
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    """A value in TOML, whose strings are JSON's but for DEL."""
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, Path):
        value = str(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
