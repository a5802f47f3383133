"""Several guides of one corpus: texts found by hash, and judges that agree on what leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from ...shared.candidates import Blocks
from ...shared.errors import SettingsError
from ...shared.guide_index.guide_index import GuideIndex
from ...shared.guide_index.tables import read_table

Vote = Literal["any", "all", "mean"]

SAMPLED_SCORES = 16_384


def matched_ids(first: GuideIndex, other: GuideIndex) -> np.ndarray:
    """For each text id of one index, the id of the same text in the same role in another: (texts,) int64.

    Raises:
        SettingsError: The other index lacks texts.
    """
    found = np.full(first.manifest.rows["texts"], -1, dtype=np.int64)
    (ours, our_roles), (theirs, their_roles) = _hashes(first), _hashes(other)
    for role in np.unique(our_roles):
        here, there = np.flatnonzero(our_roles == role), np.flatnonzero(their_roles == role)
        options = pc.SetLookupOptions(theirs.take(pa.array(there)))
        places = pc.call_function("index_in", [ours.take(pa.array(here))], options)
        held = np.asarray(places.is_valid())
        found[here[held]] = there[places.drop_null().to_numpy()]
    if missing := int((found < 0).sum()):
        raise SettingsError(
            f"{missing:,} of {len(found):,} texts are not in the other index",
            where=f"{first.layout.root} and {other.layout.root}",
            fix="build both with `gistcache index` from the same pairs",
        )
    return found


def _hashes(index: GuideIndex) -> tuple[pa.Array, np.ndarray]:
    """Each text's hash and role, in the order of text ids."""
    records = index.manifest.shards["texts"]
    table = pa.concat_tables([read_table(index.layout.root, each, "texts", ["role", "text_hash"]) for each in records])
    return table["text_hash"].combine_chunks(), table["role"].to_numpy()


def score_spread(index: GuideIndex) -> float:
    """Standard deviation of the guide score of two random texts: what scores of different guides are divided by."""
    texts = index.manifest.rows["texts"]
    one, other = np.random.default_rng(0).integers(texts, size=(2, min(SAMPLED_SCORES, texts * texts)))
    vectors = [index.vectors(ids).astype(np.float32) for ids in (one, other)]
    return float(np.einsum("nd,nd->n", *vectors)[one != other].std()) or 1.0


def agreed(excesses: Sequence[Blocks], spreads: Sequence[float], vote: Vote) -> Blocks:
    """What several judges say of the same cells together, on the scale of the first guide's scores.

    Args:
        excesses: How far each judge finds each cell above its threshold.
        spreads: ``score_spread`` of each guide; scores of different guides live on different density.
        vote: ``any`` takes a cell out where one judge does, ``all`` where all do, ``mean`` where the mean of the
            standardised distances is above 0.
    """
    if len(excesses) == 1:
        return excesses[0]

    def together(*blocks: torch.Tensor) -> torch.Tensor:
        scaled = torch.stack([block / spread for block, spread in zip(blocks, spreads, strict=True)])
        return spreads[0] * {"any": scaled.amax, "all": scaled.amin, "mean": scaled.mean}[vote](0)

    first, *others = excesses
    by_block = zip(first, *others, strict=True)
    return Blocks(*(None if blocks[0] is None else together(*blocks) for blocks in by_block))  # type: ignore[arg-type]
