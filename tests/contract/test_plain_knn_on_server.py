"""The kNN request of the tutorials, in every profile that stores whole vectors."""

from __future__ import annotations

import numpy as np
import pytest

from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import VECTOR_FIELD, new_meta, profile_names
from es_imgsearch.elastic.meta import Seal
from es_imgsearch.elastic.store import Store

DIMS, COUNT = 128, 60


def test_every_profile_but_reduced_is_tested():
    """`reduced` is in tests/e2e/test_reduced.py."""
    assert set(profile_names()) == {"balanced", "compact", "binary", "exact", "reduced"}


@pytest.mark.parametrize("profile", ["balanced", "compact", "binary", "exact"])
@pytest.mark.parametrize("similarity", ["cosine", "dot_product"])
def test_a_whole_vector_finds_its_picture(real_store: Store, profile: str, similarity: str):
    seal = Seal("plain", "1", DIMS, "f")
    real_store.generations.create(new_meta(seal, profile, similarity))
    vectors = np.random.default_rng(0).normal(size=(COUNT, DIMS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    writes = [
        Write(f"{n}", {"image_id": f"{n}", "root": "r", "relative_path": f"{n}", VECTOR_FIELD: one})
        for n, one in enumerate(vectors)
    ]
    assert not any(real_store.documents.write(writes).values())
    real_store.refresh()
    knn = {
        "field": VECTOR_FIELD,
        "query_vector": [float(each) for each in vectors[7]],
        "k": 10,
        "num_candidates": 100,
    }
    answer = real_store.connection.request("POST", f"/{real_store.index}/_search", {"knn": knn})
    hits = answer["hits"]["hits"]
    assert len(hits) == 10
    assert hits[0]["_id"] == "7"
