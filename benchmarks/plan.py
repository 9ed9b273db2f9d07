"""Compare what `plan` says with the disk that an index of 200,000 documents takes.

    python benchmarks/plan.py [--count N] [--dims D] [--profile PROFILE]... [--json FILE]

Documents have random unit vectors and the fields of a photograph (client_overhead.fill_documents).
`formula` plans without an index, `measured` by one of a tenth of the documents.  Weighed is one
segment, after the copies that are kept for replicas are merged away.

Needs an Elasticsearch (`make es-up`, or ES_URL); the indices it makes are removed.  On two cores a
profile takes about 10 minutes.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.meta import Seal
from es_imgsearch.elastic.store import Store
from es_imgsearch.manage.production.plan import Measured, make_plan, measure_index
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import remove_index

sys.path.insert(0, str(Path(__file__).parent))
from client_overhead import fill_documents, unit_vectors
from report import arguments, report

# The lease that keeps copies is renewed every 30 s.
PRUNE_SECONDS = 90


@contextmanager
def filled(profile: str, count: int, dims: int) -> Iterator[Store]:
    """Open a store on a new index of random vectors, merged, without kept copies."""
    name = f"bench-plan-{uuid.uuid4().hex[:8]}"
    store = Store(connect(load_settings({"index": name, "request_timeout_seconds": 1200})), name)
    try:
        store.generations.create(new_meta(Seal("bench", "1", dims, "1"), profile, "cosine"))
        store.connection.request("PUT", f"/{name}/_settings", {"index.refresh_interval": "-1"})
        fill_documents(store, unit_vectors(count, dims, seed=1))
        deadline = time.monotonic() + PRUNE_SECONDS
        while kept_bytes(store) and time.monotonic() < deadline:
            time.sleep(10)
            # A segment that stands alone is merged again only with something new.
            fill_documents(store, unit_vectors(1, dims, seed=1))
        yield store
    finally:
        remove_index(store)
        store.connection.client.close()


def kept_bytes(store: Store) -> int:
    answer = store.connection.request(
        "POST", f"/{store.index}/_disk_usage", params={"run_expensive_tasks": "true"}
    )
    (usage,) = (each for name, each in answer.items() if name != "_shards")
    return int(usage["fields"].get("_recovery_source", {}).get("total_in_bytes", 0))


def planned(store: Store, count: int, dims: int, profile: str, measured: Measured | None) -> int:
    made = make_plan(count, index=store.index, dims=dims, profile=profile, measured=measured)
    return made.profiles[0].sizes.disk_bytes


def row(profile: str, count: int, dims: int) -> dict[str, object]:
    with filled(profile, count // 10, dims) as store:
        measured = measure_index(store)
    with filled(profile, count, dims) as store:
        stats = store.connection.request("GET", f"/{store.index}/_stats/store")
        disk = stats["_all"]["primaries"]["store"]["size_in_bytes"]
        formula = planned(store, count, dims, profile, None)
        by_tenth = planned(store, count, dims, profile, measured)
    return {
        "profile": profile,
        "disk, MB": disk / 1e6,
        "formula, MB": formula / 1e6,
        "off by, %": 100 * (formula / disk - 1),
        "measured, MB": by_tenth / 1e6,
        "so off by, %": 100 * (by_tenth / disk - 1),
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--dims", type=int, default=512)
    parser.add_argument("--profile", action="append", help="balanced, if none is given")
    given = parser.parse_args()
    rows = [row(each, given.count, given.dims) for each in given.profile or ["balanced"]]
    report(f"{given.count:,} documents of {given.dims} dims", rows, given.json)


if __name__ == "__main__":
    main()
