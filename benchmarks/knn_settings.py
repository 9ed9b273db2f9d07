"""Compare each tuned profile with server defaults and exact search.

    python benchmarks/knn_settings.py [--count N] [--vectors FILE.npy] [--json FILE]

Vectors are synthetic (benchmarks/vectors.py) or those of a file; the profile `reduced`, which is
fitted on vectors, is left out.  Needs an Elasticsearch (`make es-up`, or ES_URL); the indices it
makes are removed.  Latency is the median of the whole round trip through the client; ratios are to
the exact search of the same index in the same run.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from filled_index import filled_index
from report import arguments, report
from vectors import add_vector_options, load_dataset, nearest

from es_imgsearch.elastic.mapping import profile_names
from es_imgsearch.elastic.meta_entries import Tuning
from es_imgsearch.elastic.queries import exact_body, knn_body
from es_imgsearch.elastic.store import Store

K = 10


def measure(store: Store, bodies: list[dict], truth: list[set[str]]) -> tuple[float, float]:
    """Measure recall@k and the median round trip in ms."""
    found, times = 0, []
    for body, right in zip(bodies, truth, strict=True):
        started = time.perf_counter()
        answer = store.searches.search(body)
        times.append((time.perf_counter() - started) * 1000)
        found += len(right & {hit["_id"] for hit in answer["hits"]["hits"]})
    return found / (K * len(truth)), statistics.median(times)


def main() -> None:
    parser = arguments(__doc__)
    add_vector_options(parser)
    given = parser.parse_args()
    data = load_dataset(given)
    queries = data.queries
    truth = [{str(n) for n in row} for row in nearest(data.stored, queries, K)]
    rows = []
    for profile in [name for name in profile_names() if name != "reduced"]:
        with filled_index(profile, data.stored) as store:
            tuning = store.info().meta.tuning
            default = Tuning(num_candidates=int(1.5 * K), oversample=None)
            settings = {
                "exact script": [exact_body(q, K, "cosine", source=False) for q in queries],
                "server default": [
                    knn_body(q, K, default, num_candidates=15, source=False) for q in queries
                ],
                "profile": [knn_body(q, K, tuning, source=False) for q in queries],
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
    title = f"{len(data.stored)} {data.name} vectors of {data.stored.shape[1]} dims, k = {K}"
    report(title, rows, given.json)


if __name__ == "__main__":
    main()
