"""The FAISS file that is written, searched, against NumPy over the stored vectors."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from gistcache.precompute.search import faiss_index
from gistcache.shared.guide_index.guide_index import GuideIndex

from tests.conftest import build_test_index, random_pairs


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_the_file_of_an_exact_search_finds_what_numpy_finds_in_the_stored_vectors(tmp_path, guide_folder, dtype):
    rows = random_pairs(80, seed=31, negatives=1)
    folder = build_test_index(tmp_path / "index", rows, guide_folder, vector_dtype=dtype, document_shard_rows=50)
    index = GuideIndex.open(folder)
    queries, texts = index.manifest.request.corpus["queries"], index.manifest.rows["texts"]
    vectors = index.vectors(np.arange(texts)).astype(np.float32)
    shards = index.manifest.shards["faiss"]
    assert index.manifest.measured["search"] == {"exact": True, "kind": "SQfp16", "document_shards": len(shards)}
    assert len(shards) > 1
    start = queries
    for record in shards:
        documents = np.arange(start, start + record.rows)
        similarity = vectors[:queries] @ vectors[documents].T
        result = faiss_index.search(faiss_index.read(folder, record), vectors[:queries], 10)
        assert np.allclose(result.scores, -np.sort(-similarity, axis=1)[:, :10], atol=1e-3)
        assert np.allclose(np.take_along_axis(similarity, result.ids - start, 1), result.scores, atol=1e-3)
        start += record.rows
    assert start == texts


def test_codes_are_float16(small_index):
    (record,) = GuideIndex.open(small_index).manifest.shards["faiss"]
    file = faiss_index.read(small_index, record)
    codes = faiss.downcast_index(file.index)
    assert isinstance(codes, faiss.IndexScalarQuantizer)
    assert codes.metric_type == faiss.METRIC_INNER_PRODUCT
    assert codes.sa_code_size() == 2 * file.d
