"""Measure latency and recall while one index grows (see --counts).

    python benchmarks/growth.py [--counts 10000,30000] [--vectors FILE.npy] [--plot FILE.png]

At each size: the setting tuned at the first size, the setting tuned anew, and exact search.  Needs
an Elasticsearch (`make es-up`, or ES_URL) and, for the plot, the dependency group `bench`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from filled_index import add, filled_index, finish
from report import arguments, report
from timing import server_exact, server_search, timed
from vectors import add_vector_options, load_dataset, nearest

from es_imgsearch.quality.tune import tune

K = 10


def main() -> None:
    parser = arguments(__doc__)
    add_vector_options(parser)
    parser.add_argument("--counts", default="10000,30000,100000", metavar="N,N,...")
    parser.add_argument("--profile", default="balanced")
    parser.add_argument("--target-recall", type=float, default=0.95)
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    given = parser.parse_args()
    counts = sorted(int(each) for each in given.counts.split(","))
    given.count = counts[-1]
    data = load_dataset(given)
    rows: list[dict] = []
    with filled_index(given.profile, data.stored[: counts[0]]) as store:
        first = tune(store, target_recall=given.target_recall).tuning
        for n, count in enumerate(counts):
            if n:
                add(store, data.stored[counts[n - 1] : count], counts[n - 1])
                finish(store)
            anew = tune(store, target_recall=given.target_recall).tuning if n else first
            truth = nearest(data.stored[:count], data.queries, K)
            for name, search, setting in (
                ("tuned at the first size", server_search(store, K, first), first.for_k(K)),
                ("tuned at this size", server_search(store, K, anew), anew.for_k(K)),
                ("exact", server_exact(store, K), ("", "")),
            ):
                figures = timed(search, data.queries, truth)
                rows.append(
                    {
                        "vectors": count,
                        "search": name,
                        "candidates": setting[0],
                        "oversample": setting[1],
                        f"recall@{K}": round(figures.recall, 4),
                        "p50 ms": round(figures.p50_ms, 3),
                        "p95 ms": round(figures.p95_ms, 3),
                    }
                )
                print(rows[-1], file=sys.stderr)
    title = f"{data.name} vectors of {data.stored.shape[1]} dims, profile {given.profile}, k = {K}"
    report(title, rows, given.json)
    plot = given.plot or (given.json.with_suffix(".png") if given.json else None)
    if plot is not None:
        draw(rows, title, plot)


def draw(rows: list[dict], title: str, file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    for name in dict.fromkeys(row["search"] for row in rows):
        line = [row for row in rows if row["search"] == name]
        counts = [row["vectors"] for row in line]
        above.plot(counts, [row["p50 ms"] for row in line], "o-", label=name)
        below.plot(counts, [row[f"recall@{K}"] for row in line], "o-", label=name)
    above.set(xscale="log", yscale="log", ylabel="p50 of the round trip [ms]", title=title)
    below.set(xlabel="vectors", ylabel=f"recall@{K}", ylim=(None, 1.005))
    above.legend()
    for axes in (above, below):
        axes.grid(alpha=0.3)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120, format="png")


if __name__ == "__main__":
    main()
