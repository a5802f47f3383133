"""What a step of stage 1 hands out: parts that can be computed anywhere, each alone, and committed alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar

from ...shared.progress import Advance
from ...shared.storage.integrity import FileRecord

Value = TypeVar("Value")


@dataclass(frozen=True)
class ShardResult:
    """A part that lies in its place.

    Attributes:
        number: Which part of its step.
        record: Its record; None where there was nothing to write.
        stats: What the job measured.
    """

    number: int
    record: FileRecord | None
    stats: Mapping[str, Any] = field(default_factory=dict)


class Job(Protocol[Value]):
    """The work on the parts of one step. Can be pickled: other processes and machines get a copy of it.

    Attributes:
        with_guide: Whether a copy loads a guide, and is then worth keeping for as long as the step lasts.
    """

    with_guide: ClassVar[bool]

    def compute(self, number: int, advance: Advance) -> Value:
        """Compute part ``number``, calling ``advance`` with rows as they are done."""
        ...

    def commit(self, number: int, value: Value) -> ShardResult:
        """Write the part whole."""
        ...
