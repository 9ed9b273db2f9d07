"""Recall and latency of each profile with its own tuning, beside the server's default and exact.

    python benchmarks/knn_settings.py [--vectors N] [--dims N] [--json FILE]

Vectors are synthetic: clustered, unit length, seeded.  Needs an Elasticsearch (`make es-up`, or
ES_URL); the indices it makes are removed.  Latency is the median of the whole round trip through
the client; ratios are to the exact search of the same index in the same run.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np

from es_imgsearch.connection import connect
from es_imgsearch.mapping import Meta, Seal, Tuning, new_meta, profile_names
from es_imgsearch.queries import exact_body, knn_body
from es_imgsearch.settings import load_settings
from es_imgsearch.store import Store, Write

sys.path.insert(0, str(Path(__file__).parent))
from report import arguments, report

K = 10
QUERIES = 200
CHUNK = 500


def clustered(count: int, dims: int, seed: int) -> np.ndarray:
    """Unit vectors around 200 centres, spread as wide as the centres are apart from each other."""
    centres = np.random.default_rng(1).normal(size=(200, dims))
    random = np.random.default_rng(seed)
    vectors = centres[random.integers(200, size=count)] + random.normal(size=(count, dims))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def fill(store: Store, meta: Meta, vectors: np.ndarray) -> None:
    store.create(meta)
    for start in range(0, len(vectors), CHUNK):
        writes = []
        for n in range(start, min(start + CHUNK, len(vectors))):
            fields = {"image_id": str(n), "root": "b", "relative_path": str(n)}
            writes.append(Write(str(n), document={**fields, "image_embedding": vectors[n]}))
        assert not any(store.write(writes).values())
    store.client.options(request_timeout=600).indices.forcemerge(
        index=store.index, max_num_segments=1
    )
    store.refresh()


def measure(store: Store, bodies: list[dict], truth: list[set[str]]) -> tuple[float, float]:
    """Recall@k and the median round trip in ms."""
    found, times = 0, []
    for body, right in zip(bodies, truth, strict=True):
        started = time.perf_counter()
        answer = store.search(body)
        times.append((time.perf_counter() - started) * 1000)
        found += len(right & {hit["_id"] for hit in answer["hits"]["hits"]})
    return found / (K * len(truth)), statistics.median(times)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--vectors", type=int, default=20_000)
    parser.add_argument("--dims", type=int, default=512)
    given = parser.parse_args()
    vectors = clustered(given.vectors, given.dims, seed=2)
    queries = clustered(QUERIES, given.dims, seed=3)
    nearest = np.argsort(-(queries @ vectors.T), axis=1)[:, :K]
    truth = [{str(n) for n in row} for row in nearest]
    rows = []
    for profile in profile_names():
        store = Store(connect(load_settings({"index": f"bench-{profile}"})), f"bench-{profile}")
        meta = new_meta(Seal("bench", "1", given.dims, "1"), profile, "cosine")
        try:
            fill(store, meta, vectors)
            default = Tuning(num_candidates=int(1.5 * K), oversample=None)
            settings = {
                "exact script": [exact_body(q, K, "cosine", source=False) for q in queries],
                "server default": [
                    knn_body(q, K, default, num_candidates=15, source=False) for q in queries
                ],
                "profile": [knn_body(q, K, meta.tuning, source=False) for q in queries],
            }
            exact_ms = 0.0
            for name, bodies in settings.items():
                measure(store, bodies[:20], truth[:20])
                recall, ms = measure(store, bodies, truth)
                exact_ms = exact_ms or ms
                rows.append(
                    {
                        "profile": profile,
                        "search": name,
                        "recall@10": round(recall, 3),
                        "median ms": round(ms, 2),
                        "of exact": round(ms / exact_ms, 2),
                    }
                )
        finally:
            for index in (store.index, store.failures):
                store.client.options(ignore_status=404).indices.delete(index=f"{index}-000001")
                store.client.options(ignore_status=404).indices.delete_index_template(name=index)
    report(f"{given.vectors} vectors of {given.dims} dims, k = {K}", rows, given.json)


if __name__ == "__main__":
    main()
