"""A filtered search never returns fewer than there are, and finds what NumPy finds.

Over selectivities, shards, deletions and profiles, with the profile's own tuning and with the
least that `tune` can choose.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import VECTOR_FIELD, index_body, new_meta
from es_imgsearch.elastic.meta import Seal
from es_imgsearch.elastic.meta_entries import TunedK, Tuning
from es_imgsearch.elastic.queries import knn_body
from es_imgsearch.elastic.store import Store
from es_imgsearch.search.filters import filter_clauses
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import remove_index

DIMS = 64
COUNT = 3000
QUERIES = 15
# Of 1,000 pictures: 50 %, 10 %, 1 %, 0.1 %.
SELECTED = {"500": 500, "100": 100, "10": 10, "1": 1}
KS = (1, 10, 100)

# Narrower than anything `tune` chooses.
NARROW = Tuning(10, 1.0, tuple(TunedK(k, max(k, 10), 1.0, 0.9) for k in KS))


class Filled(NamedTuple):
    store: Store
    profile: str
    vectors: np.ndarray
    is_there: np.ndarray


def unit(count: int, seed: int) -> np.ndarray:
    centres = np.random.default_rng(1).normal(size=(30, DIMS))
    random = np.random.default_rng(seed)
    vectors = centres[random.integers(30, size=count)] + random.normal(size=(count, DIMS))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def in_filter(number: int) -> list[str]:
    """The tags of a picture: those of the selections it is in, spread over all of them."""
    place = number * 7919 % 1000
    return [name for name, size in SELECTED.items() if place < size]


@pytest.fixture(scope="module", params=[(profile, shards) for profile in
                ("balanced", "compact", "binary") for shards in (1, 3)],
                ids=lambda given: f"{given[0]}-{given[1]}")  # fmt: skip
def filled(request: pytest.FixtureRequest, es_url: str) -> Iterator[Filled]:
    """Every fifth picture was deleted again, and the segments are as they came."""
    profile, shards = request.param
    name = f"t-filtered-{profile}-{shards}"
    store = Store(connect(load_settings({"es_url": es_url, "index": name}, environment={})), name)
    body: dict[str, Any] = index_body(new_meta(Seal("f", "1", DIMS, "1"), profile, "cosine"))
    body["settings"]["number_of_shards"] = shards
    remove_index(store)
    store.connection.request(
        "PUT", f"/{name}-000001", {**body, "aliases": {name: {"is_write_index": True}}}
    )
    store.generations.create(new_meta(Seal("f", "1", DIMS, "1"), profile, "cosine"))
    vectors = unit(COUNT, seed=2)
    for start in range(0, COUNT, 500):
        writes = []
        for n in range(start, start + 500):
            fields = {"image_id": str(n), "root": "r", "relative_path": f"{n:05}"}
            fields |= {"tags": in_filter(n), VECTOR_FIELD: vectors[n]}
            writes.append(Write(str(n), document=fields))
        assert set(store.documents.write(writes).values()) == {None}
        store.refresh()
    store.documents.delete(str(n) for n in range(2, COUNT, 5))
    store.refresh()
    is_there = np.arange(COUNT) % 5 != 2
    yield Filled(store, profile, vectors, is_there)
    remove_index(store)
    store.connection.client.close()


@pytest.mark.parametrize("tuning", ["profile", "narrow"])
@pytest.mark.parametrize("selection", SELECTED)
def test_a_filtered_search_finds_as_many_as_there_are(filled: Filled, selection: str, tuning: str):
    meta = filled.store.info().meta
    properties = filled.store.info().properties
    chosen = meta.tuning if tuning == "profile" else NARROW
    clauses = filter_clauses({"tags": selection}, properties)
    matching = np.array([selection in in_filter(n) for n in range(COUNT)]) & filled.is_there
    candidates = np.flatnonzero(matching)
    for k in KS:
        hits = right_ones = 0
        for query in unit(QUERIES, seed=3):
            answer = filled.store.searches.search(
                knn_body(query, k, chosen, filters=clauses, source=False)
            )
            found = {int(hit["_id"]) for hit in answer["hits"]["hits"]}
            assert len(found) == min(k, len(candidates))
            assert found <= set(candidates.tolist())
            nearest = candidates[np.argsort(-(filled.vectors[candidates] @ query))[:k]]
            hits += len(found & set(nearest.tolist()))
            right_ones += len(nearest)
        # With the profile's tuning nearly all are the right ones.
        if tuning == "profile":
            assert hits / right_ones >= 0.9, f"k {k}: recall {hits / right_ones:.3f}"
