"""Compare the nearest neighbours that two generations find.

Random pictures are searched with in both generations, in each by the vector stored there.  Encoders
differ, so this is information, not a criterion; two profiles of one encoder should agree almost
entirely.  `run.ReindexRun` decides whether to switch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.queries import knn_body, stored_vectors_body
from es_imgsearch.elastic.requests import vectors_by_id
from es_imgsearch.elastic.store import Store

AGREEMENT_K = 10
AGREEMENT_QUERIES = 100

# Searches in one round trip.
_BATCH = 20
_SEED = 0


@dataclass(frozen=True, slots=True)
class Agreement:
    """Mean share of the `k` nearest of `queries` pictures that both generations find.

    `overlap` is None if no picture has neighbours in both; `by_chance` is the expected share of two
    random choices of k.
    """

    queries: int
    k: int
    overlap: float | None
    by_chance: float

    def summary(self) -> str:
        """Describe the agreement in a sentence."""
        if self.overlap is None:
            return "There are too few pictures to compare the results of both."
        return (
            f"Of the {self.k} nearest of {self.queries} pictures, both generations find"
            f" {self.overlap:.0%} (by chance {self.by_chance:.1%})."
        )


def agreement(
    one: Store, other: Store, *, k: int = AGREEMENT_K, queries: int = AGREEMENT_QUERIES
) -> Agreement:
    """Search both generations with a random sample of the pictures of both."""
    of_one = {
        hit["_id"]: hit["fields"][VECTOR_FIELD][0]
        for hit in one.searches.sample(queries, seed=_SEED)
    }
    ids = list(of_one)
    answer = other.searches.search(stored_vectors_body(ids, [VECTOR_FIELD])) if ids else {}
    of_other = {
        each: fields[VECTOR_FIELD]
        for each, fields in vectors_by_id(answer).items()
        if VECTOR_FIELD in fields
    }
    both = [each for each in ids if each in of_other]
    neighbours = [
        _neighbours(store, {each: vectors[each] for each in both}, k)
        for store, vectors in ((one, of_one), (other, of_other))
    ]
    shares = [
        len(first & second) / min(k, max(len(first), len(second)))
        for first, second in zip(*neighbours, strict=True)
        if first or second
    ]
    pictures = max(1, other.listings.count() - 1)
    return Agreement(
        queries=len(shares),
        k=k,
        overlap=float(np.mean(shares)) if shares else None,
        by_chance=min(1.0, k / pictures),
    )


def _neighbours(store: Store, vectors: dict[str, Any], k: int) -> list[set[str]]:
    """Find the k nearest of each of these pictures, without itself."""
    tuning = store.info().meta.tuning
    neighbours: list[set[str]] = []
    items = list(vectors.items())
    for start in range(0, len(items), _BATCH):
        part = items[start : start + _BATCH]
        bodies = [knn_body(vector, k + 1, tuning, source=False) for _, vector in part]
        for (image_id, _), hits in zip(part, store.searches.msearch(bodies), strict=True):
            others = [hit["_id"] for hit in hits if hit["_id"] != image_id]
            neighbours.append(set(others[:k]))
    return neighbours
