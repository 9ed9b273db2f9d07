"""Create a temporary index of vectors for a benchmark, loaded in bulk."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import orjson
from vectors import Vectors

from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.mapping import VECTOR_FIELD, index_body, new_meta
from es_imgsearch.elastic.meta import Seal
from es_imgsearch.elastic.store import Store
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import remove_index

_CHUNK = 500
_MERGE_SECONDS = 3600


@contextmanager
def filled_index(profile: str, vectors: Vectors) -> Iterator[Store]:
    """Open a store on a new index of vectors, one segment; ids are positions.

    Vectors are loaded without graphs, which are built once, by the merge.  Everything is removed
    at the end.
    """
    name = f"bench-{profile}-{uuid.uuid4().hex[:8]}"
    store = Store(connect(load_settings({"index": name})), name)
    meta = new_meta(Seal("bench", "1", vectors.shape[1], "1"), profile, "cosine")
    try:
        store.generations.create(meta, for_loading=True)
        add(store, vectors, 0)
        field = index_body(meta)["mappings"]["properties"][VECTOR_FIELD]
        changed = {} if field["index_options"]["type"] == "flat" else {VECTOR_FIELD: field}
        store.generations.end_loading(changed, {"refresh_interval": "1s"})
        # A segment that stands alone is never rewritten, and would keep its vectors without graph.
        add(store, vectors[:10], 0)
        finish(store)
        yield store
    finally:
        remove_index(store)
        store.connection.client.close()


def add(store: Store, vectors: Vectors, first: int) -> None:
    """Index vectors under the ids from `first` on."""
    for start in range(0, len(vectors), _CHUNK):
        lines = []
        for n in range(start, min(start + _CHUNK, len(vectors))):
            each = f"{first + n}"
            lines.append(orjson.dumps({"index": {"_index": store.index, "_id": each}}))
            fields = {
                "image_id": each,
                "root": "b",
                "relative_path": each,
                "content_id": each,
                VECTOR_FIELD: vectors[n],
            }
            lines.append(orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY))
        body = b"\n".join([*lines, b""])
        failed = [
            each for each in store.documents.bulk(body, "application/x-ndjson") if each is not None
        ]
        if failed:
            raise failed[0]


def finish(store: Store) -> None:
    """Merge into one segment and make it searchable."""
    store.refresh()
    store.generations.merge(wait_seconds=_MERGE_SECONDS)
    store.refresh()
