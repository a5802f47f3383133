"""What a student costs whoever uses it: weights, bytes on disk, and how many texts a second it embeds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.texts import Texts
from ...shared.sampling import evenly_spread

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SAMPLE, BATCH_SIZE = 512, 32
AT_ONCE, ENOUGH_SECONDS = 128, 2.0


def encoding_speed(student: SentenceTransformer, index: GuideIndex) -> dict[str, Any]:
    """Texts a second through the student's own ``encode``, on texts that stand evenly apart in the index.

    Up to 512 texts, in random order, or as many as two seconds suffice for.

    Args:
        student: The trained student, where it was trained.
        index: Whose texts are embedded.

    Returns:
        ``texts_per_second``, and ``encoded``: of how many texts, in batches of which size, on which device.
    """
    texts = sum(part.rows for part in index.manifest.shards["texts"])
    rows = evenly_spread(texts, SAMPLE)
    sample = Texts(index).take(np.random.default_rng(0).permutation(rows)).to_pylist()
    student.encode(sample[:BATCH_SIZE], batch_size=BATCH_SIZE)  # what the first call alone pays for is not counted
    begun, seconds, done = time.perf_counter(), 0.0, 0
    while done < len(sample) and seconds < ENOUGH_SECONDS:
        done += len(student.encode(sample[done : done + AT_ONCE], batch_size=BATCH_SIZE))
        seconds = time.perf_counter() - begun
    encoded = {"texts": done, "batch_size": BATCH_SIZE, "device": student.device.type}
    return {"texts_per_second": round(done / seconds, 1), "encoded": encoded}


def told(metrics: dict[str, Any]) -> str:
    """A run's student in one line."""
    encoded = metrics["encoded"]
    return (
        f"{metrics['parameters']:,} parameters ({metrics['trained_parameters']:,} trained), "
        f"{metrics['model_bytes'] / 1e6:,.1f} MB, {metrics['texts_per_second']:,.0f} texts/s "
        f"({encoded['device']}, batches of {encoded['batch_size']})"
    )
