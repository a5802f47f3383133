"""JSON files that carry their own checksum, so that one flipped bit is seen before anything in them is believed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ..errors import IndexFaultError
from .files import write_json

SEAL = "sha256_of_the_rest"
DAMAGED_FIX = "delete the folder and make it again, or copy it again from where it came"


def write_checksummed(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object and its checksum, whole or not at all."""
    sealed = content | {SEAL: checksum(content)}
    write_json(path, sealed)


def read_checksummed(path: Path, name: str) -> dict[str, Any]:
    """Read a JSON object back.

    Args:
        path: The file.
        name: What it is, for messages: ``manifest``.

    Raises:
        IndexFaultError: It cannot be read, is no JSON object, or its checksum differs.
        OSError: It cannot be opened.
    """
    content = parse_object(path, name)
    if content.pop(SEAL, None) != checksum(content):
        raise IndexFaultError(
            f"The {name} is damaged: its checksum differs from the one it carries", where=str(path), fix=DAMAGED_FIX
        )
    return content


def parse_object(path: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file, its checksum not compared."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise IndexFaultError(
            f"The {name} is not readable as JSON", where=f"{path}: {error}", fix=DAMAGED_FIX
        ) from error
    if not isinstance(content, dict):
        raise IndexFaultError(f"The {name} is not a JSON object", where=str(path), fix=DAMAGED_FIX)
    return content


def checksum(content: dict[str, Any]) -> str:
    """SHA-256 of a JSON object with sorted keys, in hex."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
