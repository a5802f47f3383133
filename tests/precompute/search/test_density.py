"""Local density against a sample of the texts, and its K in a large corpus."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from gistcache.precompute.search.density import DensityReference, density
from gistcache.precompute.search.neighbors import GuideVectors
from gistcache.precompute.settings import default_density_k
from gistcache.shared.guide_index.guide_index import GuideIndex


def test_density_against_a_sample_is_the_score_with_its_nearest_other_texts(small_index):
    index = GuideIndex.open(small_index)
    ids = np.arange(index.manifest.rows["texts"])
    content_ids = index.content_ids(ids)
    reference = DensityReference.of(content_ids, k=100, seed=3, sample=40)
    unique = len(np.unique(content_ids))
    assert reference.rank == round(100 * 40 / unique) > 1
    assert len(reference.ids) == 40
    contents = SimpleNamespace(take=lambda some: np.stack([content_ids[some]] * 2, axis=1))
    values = density(GuideVectors(SimpleNamespace(take=index.vectors), contents), reference, ids, "cpu")
    vectors = index.vectors(ids).astype(np.float32)
    for number in ids[::5]:
        others = sorted(
            (vectors[number] @ vectors[other] for other in reference.ids if other != content_ids[number]), reverse=True
        )
        assert values[number] == pytest.approx(others[reference.rank - 1], abs=1e-6)


@pytest.mark.parametrize("texts", [10_000, 1_000_000, 5_000_000])
def test_the_k_th_text_of_a_large_corpus_stays_one_that_the_sample_resolves(texts):
    k = default_density_k(texts)
    reference = DensityReference.of(np.arange(texts), k, seed=0)
    assert (k == 100) == (texts <= 1_000_000)
    assert reference.rank >= 6
