"""Measure size, recall and latency of every profile (200,000 vectors).

    python benchmarks/profiles.py [--count N] [--vectors FILE.npy] [--only PROFILE]... [--claim]
                                  [--json FILE]

Documents hold a vector and nothing else; `_source` leaves it out, and the copy that Elasticsearch
keeps for replicas is merged away before anything is weighed.  Recall is against exact search over
the whole vectors, in NumPy, for queries that are not in the index.  Latency is the median of
the whole round trip; that of `reduced + originals` includes comparing its candidates again.

`cache` is what a search reads again and again, and what memory has to hold for it to be fast: the
graphs and the vectors they are walked by, from the sizes of the files.

`--claim` answers a published one, an index of 439 MB brought to 32 MB with basically the same
quality: `balanced` and `reduced` compared with Faiss Flat, HNSW and IVF-PQ on the same vectors.

Needs an Elasticsearch (`make es-up`, or ES_URL); the indices it makes are removed.  On two cores
10,000 take about 3 minutes, 100,000 about 12, 200,000 with `--claim` about 15.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.mapping import VECTOR_FIELD, index_body, new_meta, profile_names
from es_imgsearch.elastic.meta import Meta, Seal
from es_imgsearch.elastic.queries import exact_body, knn_body
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.reduction import SAMPLE_SIZE, Reduction, fit
from es_imgsearch.search.reduced import Originals, ReducedVectors
from es_imgsearch.settings import load_settings

sys.path.insert(0, str(Path(__file__).parent))
from report import arguments, report
from vectors import Dataset, add_vector_options, load_dataset, nearest, recall

K = 10
CHUNK = 1_000
NDJSON = {"accept": "application/json", "content-type": "application/x-ndjson"}
ANSWER = {"filter_path": "took,hits.hits._id,hits.hits._score"}
# Of a reduced index the bytes themselves are walked, of a quantised one its codes.
CODES, WHOLE, GRAPHS = ("veq", "veb"), ("vec",), ("vex",)
# A lease that keeps deleted and superseded copies is renewed every 30 s.
PRUNE_WAIT_SECONDS = 90

Search = Callable[[np.ndarray], list[int]]


class Built:
    """Filled index of the benchmark; call `merge` before search and `sizes`."""

    def __init__(self, store: Store, profile: str, base: np.ndarray, reduction: Reduction) -> None:
        self.profile = profile
        self.reduction = reduction if profile == "reduced" else None
        seal = Seal("benchmark", "1", base.shape[1], "1")
        self.meta: Meta = new_meta(
            seal, profile, "cosine", self.reduction.entry() if self.reduction else None
        )
        self._store = store
        self._name = f"bench-profiles-{profile}"
        self.remove()
        self.fill(base)

    def fill(self, base: np.ndarray) -> None:
        """Load without a graph, which `merge` builds."""
        vector = index_body(self.meta)["mappings"]["properties"][VECTOR_FIELD]
        mappings = {
            "dynamic": "strict",
            "_source": {"excludes": [VECTOR_FIELD]},
            "properties": {VECTOR_FIELD: {**vector, "index_options": {"type": "flat"}}},
        }
        settings = {
            "number_of_shards": 1,
            "number_of_replicas": 0,
            "refresh_interval": "-1",
            # Files by their kind, to be weighed one by one.
            "compound_format": False,
        }
        self._store.connection.request(
            "PUT", f"/{self._name}", {"settings": settings, "mappings": mappings}
        )
        for start in range(0, len(base), CHUNK):
            rows = base[start : start + CHUNK]
            if self.reduction is not None:
                rows = self.reduction.reduce(rows)
            lines = [
                b'{"index":{"_id":"%d"}}\n' % n
                + orjson.dumps({VECTOR_FIELD: row}, option=orjson.OPT_SERIALIZE_NUMPY)
                + b"\n"
                for n, row in enumerate(rows, start)
            ]
            self._send(b"".join(lines))
            if start == 0:
                self._again = lines[0]
        self._store.connection.request(
            "PUT", f"/{self._name}/_mapping", {"properties": {VECTOR_FIELD: vector}}
        )
        self._store.connection.request("POST", f"/{self._name}/_flush")
        self._count = len(base)

    def _send(self, body: bytes) -> None:
        answer = self._store.connection.request(
            "POST",
            f"/{self._name}/_bulk",
            body,
            params={"filter_path": "errors"},
            headers=NDJSON,
        )
        assert not answer["errors"]

    def merge(self) -> float:
        """Wait until the copies for replicas may go, then merge; seconds of the merge."""
        deadline = time.monotonic() + PRUNE_WAIT_SECONDS
        while self._retained_from() < self._count and time.monotonic() < deadline:
            time.sleep(1.0)
        # A segment that is alone is not rewritten, and flushing may have merged them already; and a
        # commit is only relied on once it says what all copies have.
        self._send(self._again)
        self._store.connection.request("POST", f"/{self._name}/_flush", params={"force": "true"})
        patient = Store(
            self._store.connection.client.options(request_timeout=1800), self._store.index
        )
        started = time.perf_counter()
        merge = {"max_num_segments": "1"}
        patient.request("POST", f"/{self._name}/_forcemerge", params=merge)
        seconds = time.perf_counter() - started
        for each in ("_flush", "_refresh"):
            self._store.connection.request("POST", f"/{self._name}/{each}")
        return seconds

    def _retained_from(self) -> int:
        answer = self._store.connection.request(
            "GET", f"/{self._name}/_stats", params={"level": "shards"}
        )
        (shard,) = answer["indices"][self._name]["shards"]["0"]
        leases = shard["retention_leases"]["leases"]
        return min((each["retaining_seq_no"] for each in leases), default=0)

    def sizes(self) -> tuple[int, int]:
        """Measure bytes on disk, and bytes that a search reads."""
        params = {"include_segment_file_sizes": "true"}
        stats = self._store.connection.request(
            "GET", f"/{self._name}/_stats/segments", params=params
        )
        primaries = stats["indices"][self._name]["primaries"]
        files = {
            kind: each["size_in_bytes"]
            for kind, each in primaries["segments"]["file_sizes"].items()
        }
        codes = sum(files.get(kind, 0) for kind in CODES)
        walked = codes or sum(files.get(kind, 0) for kind in WHOLE)
        graphs = sum(files.get(kind, 0) for kind in GRAPHS)
        # Not the store's own size, which is up to 10 s old and may count what was merged away.
        return sum(files.values()), walked + graphs

    def search(self, originals: Originals | None = None) -> Search:
        """The search as the client runs it, at the profile's own tuning."""
        if self.reduction is None:
            return lambda query: self._ids(knn_body(query, K, self.meta.tuning, source=False))
        entry = self.meta.reduction
        assert entry is not None
        vectors = ReducedVectors(self.reduction, entry.oversample, originals)

        def reduced(query: np.ndarray) -> list[int]:
            reranking = vectors.reranking(query, is_whole=True)
            asked, depth = vectors.reduce_query(query), reranking.depth(K)
            hits = self._hits(knn_body(asked, depth, self.meta.tuning, source=False))
            return [int(hit["_id"]) for hit in reranking.rerank(hits)[:K]]

        return reduced

    def exact_of_bytes(self, query: np.ndarray) -> list[int]:
        assert self.reduction is not None
        asked = self.reduction.reduce(query[None])[0]
        return self._ids(exact_body(asked, K, "cosine", source=False))

    def _ids(self, body: Mapping[str, Any]) -> list[int]:
        return [int(hit["_id"]) for hit in self._hits(body)]

    def _hits(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        raw = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        answer = self._store.connection.request(
            "POST", f"/{self._name}/_search", raw, params=ANSWER
        )
        return answer.get("hits", {}).get("hits", [])

    def remove(self) -> None:
        params = {"ignore_unavailable": "true"}
        self._store.connection.request("DELETE", f"/{self._name}", params=params)


def measure(search: Search, queries: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Measure recall@10 and the median latency in ms."""
    for query in queries[:20]:
        search(query)
    times, found = [], []
    for query in queries:
        started = time.perf_counter()
        found.append(search(query))
        times.append((time.perf_counter() - started) * 1000)
    return recall(found, truth), statistics.median(times)


@contextmanager
def originals_of(base: np.ndarray, seal: Seal) -> Iterator[tuple[Originals, int]]:
    """Write the vectors as float16, as an export file has them; return its bytes too."""
    import h5py

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "originals.h5"
        with h5py.File(path, "w") as file:
            file["image_id"] = [str(n) for n in range(len(base))]
            file[VECTOR_FIELD] = base.astype(np.float16)
        yield Originals(path, seal, "benchmark"), path.stat().st_size


def row(name: str, disk: int, cache: int, recall: float, ms: float) -> dict[str, Any]:
    return {
        "index": name,
        "disk MB": round(disk / 1e6, 1),
        "cache MB": round(cache / 1e6, 1),
        "recall@10": round(recall, 3),
        "p50 ms": round(ms, 2),
    }


def profile_rows(data: Dataset, truth: np.ndarray, profiles: list[str]) -> list[dict[str, Any]]:
    store = Store(connect(load_settings({"index": "bench-profiles"})), "bench-profiles")
    base, queries = data.stored, data.queries
    step = max(1, len(base) // SAMPLE_SIZE)
    reduction = fit(base[::step][:SAMPLE_SIZE])
    rows = []
    built: list[Built] = []
    try:
        for profile in profiles:
            # Not all at once: what was made is removed even if the next one fails.
            built += [Built(store, profile, base, reduction)]
        for each in built:
            seconds = each.merge()
            print(f"{each.profile}: merged in {seconds:.0f} s", file=sys.stderr)
            disk, cache = each.sizes()
            recall, ms = measure(each.search(), queries, truth)
            rows.append(row(each.profile, disk, cache, recall, ms))
            if each.reduction is None:
                continue
            recall, ms = measure(each.exact_of_bytes, queries, truth)
            rows.append(row("reduced, its bytes compared exactly", disk, cache, recall, ms))
            with originals_of(base, each.meta.seal) as (originals, size):
                recall, ms = measure(each.search(originals), queries, truth)
                rows.append(row("reduced + originals", disk, cache, recall, ms))
                print(f"the originals' file: {size / 1e6:.0f} MB", file=sys.stderr)
    finally:
        for each in built:
            each.remove()
    return rows


def faiss_rows(data: Dataset, truth: np.ndarray) -> list[dict[str, Any]]:
    """Measure Faiss Flat, HNSW and IVF-PQ (64, 128 bytes), one thread a query."""
    import faiss

    base, queries = data.stored, data.queries
    dims, lists = base.shape[1], int(4 * len(base) ** 0.5)

    def hnsw() -> Any:
        index = faiss.IndexHNSWFlat(dims, 16, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = 100, 100
        return index

    def ivf_pq(code_bytes: int) -> Any:
        coarse = faiss.IndexFlatIP(dims)
        index = faiss.IndexIVFPQ(coarse, dims, lists, code_bytes, 8, faiss.METRIC_INNER_PRODUCT)
        index.own_fields, index.nprobe = True, 32
        index.cp.niter = index.pq.cp.niter = 10
        coarse.this.disown()
        return index

    made = {
        "Faiss Flat": lambda: faiss.IndexFlatIP(dims),
        "Faiss HNSW (M 16, ef 100)": hnsw,
        "Faiss IVF-PQ, 64 bytes": lambda: ivf_pq(64),
        "Faiss IVF-PQ, 128 bytes": lambda: ivf_pq(128),
    }
    rows = []
    for name, make in made.items():
        started = time.perf_counter()
        index = make()
        if not index.is_trained:
            index.train(base[:: max(1, len(base) // 100_000)])
        index.add(base)
        print(f"{name}: built in {time.perf_counter() - started:.0f} s", file=sys.stderr)
        size = faiss.serialize_index(index).nbytes

        def search(query: np.ndarray, index: Any = index) -> list[int]:
            return [int(n) for n in index.search(query[None], K)[1][0]]

        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        recall, ms = measure(search, queries, truth)
        faiss.omp_set_num_threads(threads)
        rows.append(row(name, size, size, recall, ms))
    return rows


def main() -> None:
    parser = arguments(__doc__)
    add_vector_options(parser, count=10_000, queries=200)
    parser.add_argument("--only", action="append", choices=profile_names(), metavar="PROFILE")
    parser.add_argument(
        "--claim", action="store_true", help="compare with Faiss; leave out the other profiles"
    )
    given = parser.parse_args()
    data = load_dataset(given)
    truth = nearest(data.stored, data.queries, K)
    profiles = given.only or (["balanced", "reduced"] if given.claim else list(profile_names()))
    rows = profile_rows(data, truth, profiles)
    if given.claim:
        rows += faiss_rows(data, truth)
    count, dims = data.stored.shape
    report(f"{count} {data.name} vectors of {dims} dims, k = {K}", rows, given.json)


if __name__ == "__main__":
    main()
