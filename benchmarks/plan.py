"""Compare what `plan` says with the disk that an index of 200,000 documents takes.

    python benchmarks/plan.py [--count N] [--dims D] [--encoder NAME] [--profile PROFILE]...
        [--json FILE]

Documents have clustered unit vectors and the fields of a photograph as `sync` stores them with
this encoder (clip, or starter, which adds tags), with values of their own.  `formula` plans without
an index; `measured` by the index itself, through the disk usage API.  Weighed is one segment a
shard, without the copies that are kept for replicas: the index is loaded without graphs, flushed,
and merged once, as soon as Elasticsearch says that nobody needs the copies.

Needs an Elasticsearch (`make es-up`, or ES_URL); the indices it makes are removed, one after the
other.  All five profiles take about 8 minutes on two cores.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from es_imgsearch.describe.registry import describer_mappings
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.mapping import VECTOR_FIELD, index_body, new_meta, profile_names
from es_imgsearch.elastic.meta import Meta, Seal
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.reduction import Reduction, fit
from es_imgsearch.manage.production.plan import Measured, make_plan, measure_index
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import remove_index

sys.path.insert(0, str(Path(__file__).parent))
from report import arguments, report

CHUNK = 1000
CLUSTERS = 1000
COLOURS = ("black", "grey", "white", "red", "orange", "brown", "yellow", "green", "blue", "purple")
THINGS = [f"thing {number}" for number in range(200)]
# Elasticsearch looks every 30 s what replicas may still need.
PRUNE_SECONDS = 120
MERGES = 3


def clustered(count: int, dims: int, seed: int) -> npt.NDArray[np.float32]:
    """Unit vectors around 1,000 centres, as pictures of like things have them."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(CLUSTERS, dims)).astype(np.float32)
    vectors = centres[rng.integers(0, CLUSTERS, count)]
    vectors += rng.normal(size=(count, dims), scale=0.7).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def fields(number: int, rng: np.random.Generator, *, has_tags: bool = False) -> dict[str, Any]:
    """Fields of one photograph; two in three have EXIF.  `starter` adds tags with scores."""
    day, colours = f"{rng.integers(1, 28):02}", rng.choice(COLOURS, 3, replace=False).tolist()
    found: dict[str, Any] = {
        "image_id": rng.bytes(16).hex(),
        "image_name": f"IMG_{number}.jpg",
        "root": "photos",
        "relative_path": f"20{10 + number % 16}/{day}/IMG_{number}.jpg",
        "folder": f"20{10 + number % 16}/{day}",
        "content_id": rng.bytes(16).hex(),
        "size_bytes": int(rng.integers(500_000, 9_000_000)),
        "mtime_ns": int(rng.integers(1_300_000_000, 1_790_000_000)) * 10**9 + number,
        "ctime_ns": int(rng.integers(1_300_000_000, 1_790_000_000)) * 10**9 + number,
        "modified_at": f"2024-05-{day}T12:{number % 60:02}:15.{number % 1000:03}+00:00",
        "indexed_at": f"2026-05-{day}T12:{number % 60:02}:15.{number % 1000:03}+00:00",
        "ingest_lag_ms": int(rng.integers(300, 90_000)),
        "embed_ms": round(float(rng.uniform(30, 50)), 3),
        "format": "jpeg",
        "width": 4000,
        "height": 3000,
        "orientation": "landscape",
        "colours": colours,
        "colour_shares": {each: round(float(rng.uniform(0, 0.6)), 3) for each in colours},
        "palette": [f"#{rng.bytes(3).hex()}" for _ in range(4)],
        "monochrome": False,
        "transparent": False,
        "perceptual_hash": rng.bytes(8).hex(),
    }
    if has_tags:
        scores = rng.choice(THINGS, 12, replace=False).tolist()
        found["tags"] = scores[:2]
        found["tag_scores"] = {each: round(float(rng.uniform(0.1, 0.9)), 4) for each in scores}
    if number % 3:
        found |= {
            "taken_at": f"2024-05-{day}T{number % 24:02}:{number % 60:02}:{number % 59:02}",
            "taken_local": f"2024-05-{day}T{number % 24:02}:{number % 60:02}:{number % 59:02}",
            "taken_from": "exif",
            "camera": f"Canon EOS {number % 7}D",
        }
    return found


def write(store: Store, documents: Sequence[bytes], vectors: npt.NDArray[Any]) -> None:
    """Write documents, which are JSON with an id, with these vectors."""

    def chunk(start: int) -> None:
        lines = []
        for document, vector in zip(
            documents[start : start + CHUNK], vectors[start : start + CHUNK], strict=True
        ):
            _, _, image_id, _ = document.split(b'"', 4)[1:5]
            lines += [
                b'{"index":{"_index":"%s","_id":"%s"}}\n' % (store.index.encode(), image_id),
                b'%s,"%s":' % (document[:-1], VECTOR_FIELD.encode()),
                orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY),
                b"}\n",
            ]
        results = store.documents.bulk(b"".join(lines), "application/x-ndjson")
        errors = [each for each in results if each]
        assert not errors, errors[0]

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(chunk, range(0, len(documents), CHUNK)))


@contextmanager
def filled(meta: Meta, documents: Sequence[bytes], vectors: npt.NDArray[Any]) -> Iterator[Store]:
    """Open a store on a new index of these vectors, one segment, without kept copies."""
    name = f"bench-plan-{uuid.uuid4().hex[:8]}"
    store = Store(connect(load_settings({"index": name, "request_timeout_seconds": 1200})), name)
    try:
        store.generations.create(meta, describer_mappings(), for_loading=True)
        write(store, documents, vectors)
        store.connection.request("POST", f"/{name}/_flush")
        wait_until_prunable(store)
        field = index_body(meta)["mappings"]["properties"][VECTOR_FIELD]
        changed = {} if field["index_options"]["type"] == "flat" else {VECTOR_FIELD: field}
        store.generations.end_loading(changed, {"refresh_interval": "-1"})
        for _ in range(MERGES):
            # A segment that stands alone is never rewritten.
            write(store, documents[:10], vectors[:10])
            store.refresh()
            assert store.generations.merge(wait_seconds=1200)
            store.connection.request("POST", f"/{name}/_flush")
            store.refresh()
            if kept_share(store) < 0.01:
                break
            wait_until_prunable(store)
        yield store
    finally:
        remove_index(store)
        store.connection.client.close()


def kept_share(store: Store) -> float:
    """Return the share of copies that are kept for replicas."""
    answer = store.connection.request(
        "POST", f"/{store.index}/_disk_usage", params={"run_expensive_tasks": "true"}
    )
    (usage,) = (each for name, each in answer.items() if name != "_shards")
    kept = usage["fields"].get("_recovery_source", {}).get("total_in_bytes", 0)
    return float(kept / usage["all_fields"]["total_in_bytes"])


def wait_until_prunable(store: Store) -> None:
    """Wait until nobody needs the copies of the documents, or a while."""
    deadline = time.monotonic() + PRUNE_SECONDS
    while time.monotonic() < deadline:
        answer = store.connection.request(
            "GET", f"/{store.index}/_stats", params={"level": "shards"}
        )
        shards = [
            each
            for index in answer["indices"].values()
            for copies in index["shards"].values()
            for each in copies
        ]
        retained = min(
            lease["retaining_seq_no"]
            for shard in shards
            for lease in shard["retention_leases"]["leases"]
        )
        if retained > max(shard["seq_no"]["max_seq_no"] for shard in shards):
            return
        time.sleep(2)


def metas(
    encoder: str, profiles: Sequence[str], vectors: npt.NDArray[np.float32]
) -> Iterator[tuple[Meta, Any]]:
    """Yield `_meta` and the vectors to store of each profile."""
    seal = Seal(encoder, "1", vectors.shape[1], "1")
    for profile in profiles:
        reduction: Reduction | None = None
        if profile == "reduced":
            reduction = fit(vectors[:5000])
        entry = None if reduction is None else reduction.entry()
        stored = vectors if reduction is None else reduction.reduce(vectors)
        yield new_meta(seal, profile, "cosine", entry), stored


def planned(meta: Meta, count: int, measured: Measured | None) -> int:
    made = make_plan(
        count,
        index="bench",
        encoder=meta.seal.name,
        dims=meta.seal.dims,
        profile=meta.profile,
        measured=measured,
    )
    return made.profiles[0].sizes.disk_bytes


def row(meta: Meta, documents: Sequence[bytes], vectors: npt.NDArray[Any]) -> dict[str, object]:
    began = time.monotonic()
    count = len(vectors)
    with filled(meta, documents, vectors) as store:
        stats = store.connection.request("GET", f"/{store.index}/_stats/store")
        disk = stats["_all"]["primaries"]["store"]["size_in_bytes"]
        measured = measure_index(store)
    formula = planned(meta, count, None)
    by_index = planned(meta, count, measured)
    return {
        "profile": meta.profile,
        "disk, MB": disk / 1e6,
        "formula, MB": formula / 1e6,
        "off by, %": 100 * (formula / disk - 1),
        "measured, MB": by_index / 1e6,
        "so off by, %": 100 * (by_index / disk - 1),
        "a document, bytes": measured.document_bytes,
        "a vector, bytes": measured.vector_bytes,
        "seconds": round(time.monotonic() - began),
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--dims", type=int, default=256)
    parser.add_argument("--encoder", choices=["clip", "starter"], default="clip")
    parser.add_argument("--profile", action="append", help="all, if none is given")
    given = parser.parse_args()
    vectors = clustered(given.count, given.dims, seed=1)
    rng = np.random.default_rng(1)
    has_tags = given.encoder == "starter"
    documents = [
        orjson.dumps(fields(number, rng, has_tags=has_tags)) for number in range(given.count)
    ]
    rows = []
    for meta, stored in metas(given.encoder, given.profile or profile_names(), vectors):
        rows.append(row(meta, documents, stored))
        print(rows[-1], file=sys.stderr, flush=True)
    report(f"{given.count:,} documents of {given.dims} dims ({given.encoder})", rows, given.json)


if __name__ == "__main__":
    main()
