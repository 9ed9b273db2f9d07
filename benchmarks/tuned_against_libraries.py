"""Check `tune` on unseen queries; compare its speed with libraries.

    python benchmarks/tuned_against_libraries.py [--count N] [--vectors FILE.npy] [--json FILE]

One run, the same vectors: Elasticsearch as tuned (profile --profile), hnswlib and faiss HNSW at the
least effort with the same recall, exact search by Elasticsearch, NumPy and faiss.  Queries are not
stored and had no part in tuning.  Libraries run inside this process on one thread; Elasticsearch
answers over HTTP.  Needs an Elasticsearch (`make es-up`, or ES_URL) and the dependency group
`bench`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parent))
import libraries
from filled_index import filled_index
from report import arguments, report
from timing import climbed, server_exact, server_search, timed
from vectors import add_vector_options, load_dataset, nearest

from es_imgsearch.quality.tune import TUNED_KS, tune

K = 10


def main() -> None:
    parser = arguments(__doc__)
    add_vector_options(parser)
    parser.add_argument("--profile", default="balanced")
    parser.add_argument("--target-recall", type=float, default=0.95)
    given = parser.parse_args()
    data = load_dataset(given)
    truths = {k: nearest(data.stored, data.queries, k) for k in TUNED_KS}
    rows = []

    def add(what: str, setting: str, k: int, figures, built_s: float) -> None:
        rows.append(
            {
                "search": what,
                "setting": setting,
                "k": k,
                "recall@k": round(figures.recall, 4),
                "p50 ms": round(figures.p50_ms, 3),
                "p95 ms": round(figures.p95_ms, 3),
                "built s": round(built_s, 1),
            }
        )
        print(rows[-1], file=sys.stderr)

    started = perf_counter()
    with filled_index(given.profile, data.stored) as store:
        built = perf_counter() - started
        started = perf_counter()
        outcome = tune(store, target_recall=given.target_recall)
        tuning_s = perf_counter() - started
        for k in TUNED_KS:
            candidates, oversample = outcome.tuning.for_k(k)
            name = f"num_candidates {candidates}, oversample {oversample}"
            search = server_search(store, k, outcome.tuning)
            add("Elasticsearch, tuned", name, k, timed(search, data.queries, truths[k]), built)
        figures = timed(server_exact(store, K), data.queries, truths[K])
        add("Elasticsearch, exact", "script_score", K, figures, built)
    held_back = {each.k: each.recall for each in outcome.tuning.per_k}
    for row in rows[: len(TUNED_KS)]:
        row["held back"] = held_back[row["k"]]
    for name, build in (
        ("hnswlib", libraries.hnswlib_graph),
        ("faiss HNSW", libraries.faiss_graph),
    ):
        started = perf_counter()
        search_with = build(data.stored, K)
        built = perf_counter() - started
        effort, figures = climbed(
            search_with, libraries.EFFORTS, data.queries, truths[K], given.target_recall
        )
        add(name, f"ef {effort}", K, figures, built)
    for name, build_exact in (
        ("NumPy, exact", libraries.numpy_exact),
        ("faiss flat, exact", libraries.faiss_flat),
    ):
        figures = timed(build_exact(data.stored, K), data.queries, truths[K])
        add(name, "", K, figures, 0.0)
    for row in rows:
        row.setdefault("held back", "")
    title = (
        f"{len(data.stored)} {data.name} vectors of {data.stored.shape[1]} dims, profile"
        f" {given.profile}, target {given.target_recall}, tuned in {tuning_s:.0f} s"
    )
    report(title, rows, given.json)
    missed = [row for row in rows[: len(TUNED_KS)] if row["recall@k"] < given.target_recall]
    if missed or outcome.missed:
        raise SystemExit("The target was not reached.")


if __name__ == "__main__":
    main()
