"""`gistcache verify`: compare every file of an index with its manifest; name all faults, mend none."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from ..errors import IndexFaultError
from .output import CommandResult


def verify(index: str) -> CommandResult:
    """Check every file of an index: present, rows, bytes, checksum, finite unit vectors, ids in range.

    Rebuilds nothing. Exits with 5 and names each fault if there is one; else prints how many mask decisions change by
    rounding the guide's vectors, as measured on a sample of the pairs while the index was built.

    Parameters
    ----------
    index
        The guide index: a folder or a URL.
    """
    from ..guide_index.faults import find_faults
    from ..guide_index.manifest import Manifest
    from ..guide_index.remote_copy import LocalCopy

    copy = LocalCopy.of(index)
    manifest = Manifest.load(copy.layout)
    copy.fetch(manifest.records)
    faults, files = list(find_faults(copy.layout, manifest)), len(manifest.records)
    rounding = manifest.measured.get("rounding")
    return CommandResult(
        {"index": index, "files": files, "faults": faults, "rounding": rounding},
        (
            *(Text(f"fault: {fault}") for fault in faults),
            Text(f"{index}: {files} files checked, {len(faults) or 'no'} fault{'s' * (len(faults) > 1)}"),
            *([Text(_rounding_line(manifest.request.settings["vector_dtype"], rounding))] if rounding else []),
        ),
        IndexFaultError.exit_code if faults else 0,
    )


def _rounding_line(dtype: str, rounding: dict[str, Any]) -> str:
    share = rounding["changed"] / max(1, rounding["candidates"])
    return (
        f"mask decisions that change by rounding vectors to {dtype}: {100 * share:.4f} % "
        f"({rounding['candidates']:,} candidates of {rounding['pairs']:,} pairs)"
    )
