"""Compare neighbour search on the same vectors: exact, K-D tree, LSH, HNSW, bits.

    python benchmarks/methods.py [--count N] [--vectors FILE.npy] [--json FILE]

Each approximate method is run at the least effort that reaches --target-recall, or the most that
was tried; k 5 with num_candidates 10, as tutorials have it, is compared with the tuned setting.
scikit-learn and faiss run inside this process on one thread, Elasticsearch answers over HTTP (`make
es-up`, or ES_URL).  Needs the dependency group `bench`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import libraries
from filled_index import filled_index
from report import arguments, report
from timing import Timed, climbed, server_exact, server_search, timed
from vectors import add_vector_options, load_dataset, nearest

from es_imgsearch.elastic.meta_entries import Tuning
from es_imgsearch.quality.tune import tune

K = 10
FEW, TUTORIAL_CANDIDATES = 5, 10
LSH_BITS = 1024
# How many the bits nominate for exact comparison.
NOMINATED = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


def main() -> None:
    parser = arguments(__doc__)
    add_vector_options(parser, count=10_000)
    parser.add_argument("--target-recall", type=float, default=0.95)
    given = parser.parse_args()
    data = load_dataset(given)
    truth = nearest(data.stored, data.queries, K)
    rows: list[dict] = []

    def add(method: str, by: str, setting: str, figures: Timed, k: int = K) -> None:
        rows.append(
            {
                "method": method,
                "by": by,
                "setting": setting,
                "k": k,
                "recall@k": round(figures.recall, 4),
                "p50 ms": round(figures.p50_ms, 3),
                "p95 ms": round(figures.p95_ms, 3),
            }
        )
        print(rows[-1], file=sys.stderr)

    for by, build in (
        ("NumPy", libraries.numpy_exact),
        ("scikit-learn", libraries.sklearn_brute),
        ("faiss", libraries.faiss_flat),
    ):
        add("exact", by, "", timed(build(data.stored, K), data.queries, truth))
    # It looks at nearly every vector: some queries tell.
    few = min(50, len(data.queries))
    tree = libraries.sklearn_kd_tree(data.stored, K)
    add("K-D tree", "scikit-learn", "leaf_size 40", timed(tree, data.queries[:few], truth[:few]))
    lsh = libraries.faiss_lsh(data.stored, K, LSH_BITS)
    for method, by, search_with, efforts, word in (
        ("LSH, then exact", "faiss", lsh, NOMINATED, f"{LSH_BITS} bits, nominated"),
        ("HNSW", "faiss", libraries.faiss_graph(data.stored, K), libraries.EFFORTS, "ef"),
        ("HNSW", "hnswlib", libraries.hnswlib_graph(data.stored, K), libraries.EFFORTS, "ef"),
        ("bits, then exact", "faiss", libraries.faiss_bits(data.stored, K), NOMINATED, "nominated"),
    ):
        effort, figures = climbed(search_with, efforts, data.queries, truth, given.target_recall)
        add(method, by, f"{word} {effort}", figures)
    for method, profile in (("HNSW, int8", "balanced"), ("bits, then exact", "binary")):
        with filled_index(profile, data.stored) as store:
            if profile == "balanced":
                figures = timed(server_exact(store, K), data.queries, truth)
                add("exact", "Elasticsearch", "script_score", figures)
                small = server_search(store, FEW, Tuning(), TUTORIAL_CANDIDATES)
                figures = timed(small, data.queries, truth[:, :FEW])
                untuned = f"num_candidates {TUTORIAL_CANDIDATES}, untuned"
                add(method, "Elasticsearch", untuned, figures, FEW)
            tuning = tune(store, target_recall=given.target_recall).tuning
            for k in (FEW, K) if profile == "balanced" else (K,):
                figures = timed(server_search(store, k, tuning), data.queries, truth[:, :k])
                candidates, oversample = tuning.for_k(k)
                setting = f"num_candidates {candidates}, oversample {oversample}, tuned"
                add(method, "Elasticsearch", setting, figures, k)
    title = (
        f"{len(data.stored)} {data.name} vectors of {data.stored.shape[1]} dims, target"
        f" {given.target_recall}"
    )
    report(title, rows, given.json)


if __name__ == "__main__":
    main()
