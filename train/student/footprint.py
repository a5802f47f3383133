"""What a student costs whoever uses it: weights, bytes on disk, and how many texts it embeds a second."""

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
TEXTS_A_CALL, ENOUGH_SECONDS = 128, 2.0


def encoding_speed(student: SentenceTransformer, index: GuideIndex) -> dict[str, Any]:
    """Measure how many texts a second the student's own ``encode`` embeds, on texts evenly spread over the index.

    Up to 512 texts in random order, or as many as two seconds suffice for, on the device where it was trained.

    Returns:
        ``texts_per_second``, and ``encoded``: of how many texts, in batches of which size, on which device.
    """
    rows = evenly_spread(index.manifest.rows["texts"], SAMPLE)
    sample = Texts(index).take(np.random.default_rng(0).permutation(rows)).to_pylist()
    student.encode(sample[:BATCH_SIZE], batch_size=BATCH_SIZE)  # the first call is slower, and not measured
    start, seconds, count = time.perf_counter(), 0.0, 0
    while count < len(sample) and seconds < ENOUGH_SECONDS:
        count += len(student.encode(sample[count : count + TEXTS_A_CALL], batch_size=BATCH_SIZE))
        seconds = time.perf_counter() - start
    encoded = {"texts": count, "batch_size": BATCH_SIZE, "device": student.device.type}
    return {"texts_per_second": round(count / seconds, 1), "encoded": encoded}


def summarize(metrics: dict[str, Any]) -> str:
    """A trained student's size and speed in one line, from its run's metrics."""
    encoded = metrics["encoded"]
    return (
        f"{metrics['parameters']:,} parameters ({metrics['trained_parameters']:,} trained), "
        f"{metrics['model_bytes'] / 1e6:,.1f} MB, {metrics['texts_per_second']:,.0f} texts/s "
        f"({encoded['device']}, batches of {encoded['batch_size']})"
    )
