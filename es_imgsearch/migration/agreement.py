"""How far two generations find the same: pictures of both searched with, in each by its own vector.

Encoders differ, so this is nothing to pass or fail by; two profiles of one encoder should agree in
almost everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from es_imgsearch.answers import vectors_of
from es_imgsearch.mapping import VECTOR_FIELD
from es_imgsearch.queries import knn_body, stored_vectors_body
from es_imgsearch.store import Store

AGREEMENT_K = 10
AGREEMENT_QUERIES = 100

# Searches in one round trip.
_AT_ONCE = 20
_SEED = 0


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of `queries` pictures, the mean share of their `k` nearest that both generations name.

    `overlap` is None where no picture has neighbours in both; `by_chance` is what two random
    choices of k would share.
    """

    queries: int
    k: int
    overlap: float | None
    by_chance: float


def agreement(
    one: Store, other: Store, *, k: int = AGREEMENT_K, queries: int = AGREEMENT_QUERIES
) -> Agreement:
    """Search both generations with pictures of both, chosen at random."""
    # Whole hits, in a dictionary: their order is that of the sample.
    of_one = {hit["_id"]: hit["fields"][VECTOR_FIELD][0] for hit in one.sample(queries, seed=_SEED)}
    ids = list(of_one)
    answer = other.search(stored_vectors_body(ids, [VECTOR_FIELD])) if ids else {}
    of_other = {
        each: fields[VECTOR_FIELD]
        for each, fields in vectors_of(answer).items()
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
    pictures = max(1, other.count() - 1)
    return Agreement(
        queries=len(shares),
        k=k,
        overlap=float(np.mean(shares)) if shares else None,
        by_chance=min(1.0, k / pictures),
    )


def _neighbours(store: Store, vectors: dict[str, Any], k: int) -> list[set[str]]:
    """The k nearest of each of these pictures, itself left out."""
    tuning = store.info().meta.tuning
    found: list[set[str]] = []
    items = list(vectors.items())
    for start in range(0, len(items), _AT_ONCE):
        part = items[start : start + _AT_ONCE]
        bodies = [knn_body(vector, k + 1, tuning, source=False) for _, vector in part]
        for (image_id, _), hits in zip(part, store.msearch(bodies), strict=True):
            others = [hit["_id"] for hit in hits if hit["_id"] != image_id]
            found.append(set(others[:k]))
    return found
