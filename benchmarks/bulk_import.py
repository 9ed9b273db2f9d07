"""Compare `import` (SMILE, NDJSON, two threads) with `helpers.bulk` of lists.

    python benchmarks/bulk_import.py [--documents N] [--dims D] [--json FILE]

Documents of nothing but a vector, and full ones with the fields of a photograph, each into an
empty index with a flat vector field and no refreshes; then a Parquet file of the full ones by
`import`, graphs included.  Client CPU is that of this process, for all of its threads.  The aims:
10 times the documents a second of `helpers.bulk` on vectors alone, 3 times on full documents.
About two minutes on two idle cores.  Needs an Elasticsearch (`make es-up`, or ES_URL) and the
extra `parquet`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import elasticsearch
import numpy as np
from elasticsearch import helpers

sys.path.insert(0, str(Path(__file__).parent))
from report import arguments, report

from es_imgsearch.elastic.client import new_client
from es_imgsearch.elastic.mapping import VECTOR_FIELD, index_body, new_meta
from es_imgsearch.elastic.meta import Seal
from es_imgsearch.elastic.store import Store
from es_imgsearch.files.columns import Origin, column_values, mapped_columns
from es_imgsearch.files.formats import open_writer
from es_imgsearch.manage.transfer.bulk_sender import BulkSender, encode_ndjson, encode_smile
from es_imgsearch.manage.transfer.importing import ImportOptions, import_pictures
from es_imgsearch.manage.transfer.rows import Row
from es_imgsearch.records import image_id
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import remove_index

CHUNK = 1000
SHORT = {"number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": "-1"}


def full_fields(n: int) -> dict[str, Any]:
    """Make the fields that the daemon stores of a photograph."""
    name = f"IMG_{n:06d}.jpg"
    path = f"2024/{n % 50:02d} summer/{name}"
    return {
        "image_id": image_id("photos", path),
        "image_name": name,
        "root": "photos",
        "relative_path": path,
        "folder": f"2024/{n % 50:02d} summer",
        "format": "JPEG",
        "width": 4032,
        "height": 3024,
        "orientation": "landscape",
        "taken_at": "2024-05-31T18:00:00",
        "camera": "FUJIFILM X-T30",
        "location": {"lat": 48.1 + n * 1e-6, "lon": 11.5},
        "content_id": f"{n:032x}",
        "size_bytes": 3_000_000 + n,
        "mtime_ns": 1_763_800_000_123_456_789 + n,
        "modified_at": "2024-05-31T18:00:00.000+00:00",
        "indexed_at": "2026-11-22T10:00:00.000+00:00",
        "ingest_lag_ms": 420,
        "embed_ms": 12.345,
    }


class Contest:
    """Fresh indices of one mapping, and the ways to fill them."""

    def __init__(self, url: str, matrix: np.ndarray) -> None:
        self.url, self.matrix = url, matrix
        self.client = new_client(url, request_timeout=120)
        self.seal = Seal("bench", "1", matrix.shape[1], "1")
        self.rows: list[dict[str, Any]] = []

    def contestants(
        self, documents: str, fields: list[dict[str, Any]], body: Mapping[str, Any]
    ) -> None:
        ways: dict[str, Callable[[str], None]] = {
            "helpers.bulk of lists": lambda index: self.helpers_bulk(index, fields),
            "NDJSON, 2 threads": lambda index: self.send(index, fields, as_ndjson=True),
            "SMILE, 2 threads": lambda index: self.send(index, fields, as_ndjson=False),
        }
        for name, way in ways.items():
            self.measure(documents, name, body, way)

    def measure(
        self, documents: str, name: str, body: Mapping[str, Any], way: Callable[[str], None]
    ) -> None:
        alias = f"bench-import-{uuid.uuid4().hex[:8]}"
        self.client.indices.create(
            index=f"{alias}-1", body={**body, "aliases": {alias: {"is_write_index": True}}}
        )
        try:
            wall, cpu = time.perf_counter(), time.process_time()
            way(alias)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            self.client.indices.refresh(index=alias)
            count = self.client.count(index=alias)["count"]
            assert count == len(self.matrix), count
        finally:
            self.client.indices.delete(index=f"{alias}-1")
        self.note(documents, name, wall, cpu)

    def note(self, documents: str, name: str, wall: float, cpu: float) -> None:
        rate = len(self.matrix) / wall
        first = next((r for r in self.rows if r["documents"] == documents), None)
        self.rows.append(
            {
                "documents": documents,
                "way": name,
                "docs/s": round(rate),
                "times": round(rate / first["docs/s"], 1) if first else 1.0,
                "seconds": round(wall, 2),
                "client CPU s": round(cpu, 2),
            }
        )

    def helpers_bulk(self, index: str, fields: list[dict[str, Any]]) -> None:
        """Index in the usual way: client defaults, vectors as lists."""

        def actions() -> Iterator[dict[str, Any]]:
            for n, (each, vector) in enumerate(zip(fields, self.matrix, strict=True)):
                source = {**each, VECTOR_FIELD: vector.tolist()}
                yield {"_index": index, "_id": each.get("image_id", str(n)), "_source": source}

        client = elasticsearch.Elasticsearch(self.url, request_timeout=120)
        helpers.bulk(client, actions())
        client.close()

    def send(self, index: str, fields: list[dict[str, Any]], *, as_ndjson: bool) -> None:
        store = Store(self.client, index)
        sender = BulkSender(store, lambda _stored, refused: check(refused), as_ndjson=as_ndjson)
        encode = encode_ndjson if as_ndjson else encode_smile
        for start in range(0, len(fields), CHUNK):
            rows = [
                Row(n, fields[n].get("image_id", str(n)), "", fields[n], {VECTOR_FIELD: vector})
                for n, vector in enumerate(self.matrix[start : start + CHUNK], start)
            ]
            sender.send(encode(rows, index, ""))
        sender.finish()
        sender.close()

    def import_file(self, fields: list[dict[str, Any]]) -> None:
        alias = f"bench-import-{uuid.uuid4().hex[:8]}"
        settings = load_settings({"es_url": self.url, "index": alias})
        store = Store(self.client, alias)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "bench.parquet"
            self.write_file(path, fields)
            loaded: list[tuple[float, float]] = []
            wall, cpu = time.perf_counter(), time.process_time()

            def note(text: str) -> None:
                if text.startswith("Building"):
                    loaded.append((time.perf_counter() - wall, time.process_time() - cpu))

            try:
                done = import_pictures(store, settings, path, ImportOptions(), note=note)
                assert done.stored == len(fields), done
                self.note("full", "import FILE.parquet, loaded", *loaded[0])
                self.note(
                    "full",
                    "import FILE.parquet, int8_hnsw merged",
                    time.perf_counter() - wall,
                    time.process_time() - cpu,
                )
            finally:
                remove_index(store)

    def write_file(self, path: Path, fields: list[dict[str, Any]]) -> None:
        properties = index_body(new_meta(self.seal, "balanced", "cosine"))["mappings"]["properties"]
        columns = mapped_columns(properties)
        roots = {"photos": {"path": "/bench/photos", "host": "bench"}}
        writer = open_writer(path, columns, Origin(self.seal, "cosine", "balanced", roots), at=path)
        for start in range(0, len(fields), CHUNK):
            hits = [
                {"_source": each, "fields": {VECTOR_FIELD: [vector]}}
                for each, vector in zip(
                    fields[start : start + CHUNK],
                    self.matrix[start : start + CHUNK].tolist(),
                    strict=True,
                )
            ]
            writer.write(column_values(columns, hits, ["perceptual_hash"]))
        writer.close()


def check(refused: list[Any]) -> None:
    if refused:
        raise SystemExit(f"refused: {refused[0]}")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--dims", type=int, default=512)
    given = parser.parse_args()
    matrix = np.random.default_rng(0).normal(size=(given.documents, given.dims))
    matrix = (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)
    contest = Contest(os.environ.get("ES_URL", "http://127.0.0.1:9200"), matrix)

    vector = {
        "type": "dense_vector",
        "dims": given.dims,
        "similarity": "cosine",
        "index_options": {"type": "flat"},
    }
    bare = {
        "settings": SHORT,
        "mappings": {
            "dynamic": "strict",
            "_source": {"excludes": [VECTOR_FIELD]},
            "properties": {VECTOR_FIELD: vector},
        },
    }
    contest.contestants("vector only", [{} for _ in matrix], bare)
    full = index_body(new_meta(contest.seal, "exact", "cosine"))
    full["settings"] = {
        **{k: v for k, v in full["settings"].items() if k != "auto_expand_replicas"},
        **SHORT,
    }
    fields = [full_fields(n) for n in range(given.documents)]
    contest.contestants("full", fields, full)
    contest.import_file(fields)
    title = f"{given.documents} documents of {given.dims} dims into a flat field"
    report(title, contest.rows, given.json)


if __name__ == "__main__":
    main()
