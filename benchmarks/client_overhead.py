"""Measure client overhead: (client's round trip - bare round trip) / bare.

    python benchmarks/client_overhead.py [--vectors N] [--dims N] [--pairs N] [--json FILE]

Bare is a keep-alive HTTP request by http.client of the very body that the client sends, to the same
server, its answer read and not parsed.  Every search is run by each way in turn, in one process;
the queries are vectors, so no model is timed.  `elasticsearch-py` is its `search` with default
settings and lists of floats.  A share is the median over the pairs, each with its bare request.
Needs an Elasticsearch (`make es-up`, or ES_URL); the index it makes is removed.
"""

from __future__ import annotations

import gc
import http.client
import statistics
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import elasticsearch
import numpy as np

from es_imgsearch import ImageSearch
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.meta import Seal
from es_imgsearch.elastic.queries import knn_body, to_json
from es_imgsearch.elastic.requests import search_request
from es_imgsearch.elastic.store import Store
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import remove_index

sys.path.insert(0, str(Path(__file__).parent))
from report import arguments, report

K = 10
CHUNK = 500


def unit_vectors(count: int, dims: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dims)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def fill(store: Store, vectors: np.ndarray) -> None:
    store.generations.create(
        new_meta(Seal("bench", "1", vectors.shape[1], "1"), "balanced", "cosine")
    )
    fill_documents(store, vectors)


def fill_documents(store: Store, vectors: np.ndarray) -> None:
    for start in range(0, len(vectors), CHUNK):
        writes = []
        for n in range(start, min(start + CHUNK, len(vectors))):
            document = {
                "image_id": f"{n:032x}",
                "image_name": f"IMG_{n}.jpg",
                "root": "photos",
                "relative_path": f"2024/05/IMG_{n}.jpg",
                "folder": "2024/05",
                "content_id": f"{n:064x}",
                "size_bytes": 2_000_000 + n,
                "mtime_ns": 1_763_800_000_123_456_700 + n,
                "format": "jpeg",
                "width": 4000,
                "height": 3000,
                "modified_at": "2024-05-31T12:30:15.000+00:00",
                "taken_at": "2024-05-31T12:30:15",
                "camera": "Canon EOS 5D",
                "image_embedding": vectors[n],
            }
            writes.append(Write(f"{n:032x}", document=document))
        assert not any(store.documents.write(writes).values())
    store.connection.client.options(request_timeout=600).indices.forcemerge(
        index=store.index, max_num_segments=1
    )
    store.refresh()


def measure(ways: dict[str, Callable[[np.ndarray], None]], queries: np.ndarray) -> dict:
    """Measure ms of every way and query; the ways take turns in going first."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number, query in enumerate(queries):
        turn = number % len(names)
        for name in (*names[turn:], *names[:turn]):
            started = time.perf_counter()
            ways[name](query)
            times[name].append((time.perf_counter() - started) * 1000)
    return times


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--vectors", type=int, default=10_000)
    parser.add_argument("--dims", type=int, default=512)
    parser.add_argument("--pairs", type=int, default=600)
    given = parser.parse_args()
    settings = load_settings({"index": f"bench-{uuid.uuid4().hex[:8]}"})
    store = Store(connect(settings), settings.index)
    address = urlsplit(settings.es_url)
    bare_connection = http.client.HTTPConnection(address.hostname, address.port or 80)
    plain = elasticsearch.Elasticsearch(settings.es_url)
    try:
        fill(store, unit_vectors(given.vectors, given.dims, seed=1))
        client = ImageSearch(settings=settings)
        tuning = client.info.meta.tuning

        def bare(query: np.ndarray) -> None:
            request = search_request(settings.index, ready[query.tobytes()])
            bare_connection.request(
                request.method, request.path, request.body, dict(request.headers)
            )
            bare_connection.getresponse().read()

        def ours(query: np.ndarray) -> None:
            hits = client.search(query, k=K)
            assert len(hits) == K

        def ours_looked_at(query: np.ndarray) -> None:
            assert [hit.score for hit in client.search(query, k=K)]

        def elasticsearch_py(query: np.ndarray) -> None:
            body = knn_body(query.tolist(), K, tuning)
            answer = plain.search(index=settings.index, knn=body["knn"], size=K)
            assert len(answer["hits"]["hits"]) == K

        queries = unit_vectors(given.pairs + 100, given.dims, seed=2)
        ready = {query.tobytes(): to_json(knn_body(query, K, tuning)) for query in queries}
        ways = {
            "bare HTTP": bare,
            "ImageSearch": ours,
            "ImageSearch, every hit looked at": ours_looked_at,
            "elasticsearch-py": elasticsearch_py,
        }
        measure(ways, queries[:100])
        gc.collect()
        times = measure(ways, queries[100:])
    finally:
        remove_index(store)
    rows = [
        {
            "way": name,
            "median ms": round(statistics.median(each), 3),
            "own share %": round(
                100
                * statistics.median(
                    (mine - bare_ms) / bare_ms
                    for mine, bare_ms in zip(each, times["bare HTTP"], strict=True)
                ),
                1,
            ),
            "of medians %": round(
                100 * (statistics.median(each) / statistics.median(times["bare HTTP"]) - 1), 1
            ),
        }
        for name, each in times.items()
    ]
    report(
        f"{given.vectors} vectors of {given.dims} dims, k = {K}, {given.pairs} pairs",
        rows,
        given.json,
    )


if __name__ == "__main__":
    main()
