"""docs/RESULTS.md from what has been measured."""

from __future__ import annotations


def page(measurement) -> str:
    return "\n".join(str(each) for each in measurement.results.found.values())
