"""Measure recall and median latency of sequential queries on one thread."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits
from vectors import Vectors, recall

from es_imgsearch.elastic.meta_entries import Tuning
from es_imgsearch.elastic.queries import exact_body, knn_body
from es_imgsearch.elastic.store import Store

Search = Callable[[npt.NDArray[np.float32]], Sequence[int]]

_WARM_UP = 20


class Timed(NamedTuple):
    recall: float
    p50_ms: float
    p95_ms: float


def timed(search: Search, queries: Vectors, truth: npt.NDArray[np.int64]) -> Timed:
    found, times = [], []
    with threadpool_limits(1):
        for query in queries[:_WARM_UP]:
            search(query)
        for query in queries:
            started = perf_counter()
            positions = search(query)
            times.append((perf_counter() - started) * 1000)
            found.append([int(each) for each in positions])
    return Timed(recall(found, truth), statistics.median(times), float(np.percentile(times, 95)))


def climbed(
    search_with: Callable[[int], Search],
    efforts: Sequence[int],
    queries: Vectors,
    truth: npt.NDArray[np.int64],
    target: float,
) -> tuple[int, Timed]:
    """Find the least effort that reaches the target recall, else the largest."""
    for effort in efforts:
        figures = timed(search_with(effort), queries, truth)
        if figures.recall >= target:
            break
    return effort, figures


def server_search(
    store: Store, k: int, tuning: Tuning, num_candidates: int | None = None
) -> Search:
    """Search through the client, as `ImageSearch` does."""

    def search(query: npt.NDArray[np.float32]) -> list[int]:
        body = knn_body(query, k, tuning, num_candidates=num_candidates, source=False)
        return _positions(store, body)

    return search


def server_exact(store: Store, k: int) -> Search:
    def search(query: npt.NDArray[np.float32]) -> list[int]:
        return _positions(store, exact_body(query, k, "cosine", source=False))

    return search


def _positions(store: Store, body: dict) -> list[int]:
    return [int(hit["_id"]) for hit in store.searches.search(body)["hits"]["hits"]]
