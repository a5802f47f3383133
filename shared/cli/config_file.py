"""TOML files of settings: read, refused where a key has another name now, and written so that --config reads them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import SettingsError

# Flags and TOML keys of earlier versions, and what to do instead.
RENAMED = {
    "part-rows": "give --shard-rows",
    "slice-rows": "give --document-shard-rows",
    "scale-k": "give --density-k",
    "clusters": "leave it out: anchors are not clustered any more",
    "vote": "leave it out, and give one --index: several guides gained nothing",
    "judge-softness": "leave it out: a false negative is always masked",
    "push-to-hub": "leave it out; afterwards: SentenceTransformer(OUT).push_to_hub('ORGANISATION/NAME')",
    "hub-private": "leave it out; afterwards: SentenceTransformer(OUT).push_to_hub('ORGANISATION/NAME', private=True)",
}


def read_toml(path: Path, tables: Collection[str]) -> dict[str, Any]:
    """Read a TOML file that may have these tables; raises SettingsError for any other, and for a renamed key."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise SettingsError("The file cannot be read as TOML", where=f"{path}: {error}") from error
    for name, table in content.items():
        if name not in tables:
            nearest = get_close_matches(name, tables, 1)
            fix = f"did you mean [{nearest[0]}]?" if nearest else f"give {', '.join(sorted(tables))}"
            raise SettingsError(f"There is no table [{name}]", where=str(path), fix=fix)
        for each in table if isinstance(table, list) else [table]:
            refuse_renamed(each if isinstance(each, dict) else (), f"{path} [{name}]")
    return content


def refuse_renamed(names: Iterable[str], where: str) -> None:
    """Raise SettingsError where a flag (``--part-rows``, ``--part-rows=3``) or key (``part_rows``) is an old one."""
    for name in names:
        flag = name.partition("=")[0].lstrip("-").replace("_", "-")
        if flag in RENAMED:
            raise SettingsError(f"{flag} is no setting any more", where=where, fix=RENAMED[flag])


def flatten(settings: object) -> Iterator[tuple[str, Any]]:
    """Yield each flag of a settings object and its value; flags of nested objects stand beside its own."""
    for field in fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, field.name)
        if is_dataclass(value):
            yield from flatten(value)
        else:
            yield field.name.replace("_", "-"), value


def as_toml(command: str, arguments: Mapping[str, Any]) -> str:
    """A command's arguments, settings objects among them, as a TOML table; what is None is left out."""
    table = f"[{command}]\n"
    for name, argument in arguments.items():
        for flag, value in flatten(argument) if is_dataclass(argument) else [(name.replace("_", "-"), argument)]:
            if value is not None:  # JSON's values are TOML's, but for DEL
                table += f"{flag} = {json.dumps(value, ensure_ascii=False, default=str)}\n"
    return table.replace("\x7f", "\\u007f")
