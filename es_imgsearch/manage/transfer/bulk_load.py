"""A new index for an import: filled without graphs, which are built once at the end.

The index itself shows that a load has not ended: as long as its refresh interval is -1, one is
under way or was interrupted, and the next import ends it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import orjson

from es_imgsearch.describe.registry import load_describers
from es_imgsearch.elastic.bulk import BulkWriter
from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.elastic.mapping import DEFAULT_PROFILE, DEFAULT_SIMILARITY, index_body, new_meta
from es_imgsearch.elastic.meta import Meta, Seal
from es_imgsearch.elastic.requests import NDJSON
from es_imgsearch.elastic.retry import Outage
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.embed.registry import load_encoder
from es_imgsearch.errors import EncoderMismatch, ImgSearchError, StoreError, UsageError
from es_imgsearch.files.columns import EMBEDDING, Origin
from es_imgsearch.manage.transfer.rows import BadRow, Row
from es_imgsearch.records import REGIONS_FIELD
from es_imgsearch.settings import Settings
from es_imgsearch.write import smile
from es_imgsearch.write.documents import region_fields

_RESTORED = ("refresh_interval", "auto_expand_replicas")

# A merge of 100,000 vectors takes a minute on two cores; one of millions goes on by itself.
_MERGE_WAIT_SECONDS = 1800.0


def make_index(
    store: Store,
    settings: Settings,
    origin: Origin | None,
    profile: str | None,
    dims: int | None,
) -> IndexInfo:
    """An empty index to load, sealed as the file says, or to the encoder of the settings.

    Raises UsageError where neither says who made the vectors, EncoderMismatch where they
    contradict each other, or the `dims` of the file's vectors.
    """
    meta = _meta(settings, origin, profile)
    _check_dims(meta.seal, dims, store.index)
    store.generations.create(meta, [each.mapping for each in load_describers()], for_loading=True)
    return store.info()


def _meta(settings: Settings, origin: Origin | None, profile: str | None) -> Meta:
    if origin is not None:
        if settings.encoder is not None:
            _check_encoder(settings, origin.seal, settings.index)
        return new_meta(origin.seal, profile or origin.profile, origin.similarity, grid=origin.grid)
    if settings.encoder is None:
        raise UsageError(
            f"There is no index {settings.index!r}, and the file does not say which encoder made"
            " its vectors: add --encoder NAME, or make the index with `es-imgsearch init`."
        )
    encoder = load_encoder(settings.encoder, models_dir=settings.models_dir, device=settings.device)
    return new_meta(seal_of(encoder), profile or DEFAULT_PROFILE, DEFAULT_SIMILARITY)


def check_seal(
    info: IndexInfo, settings: Settings, origin: Origin | None, dims: int | None
) -> None:
    """Raise EncoderMismatch unless the file's vectors may live in this index.

    The encoder of the settings has to be the index's, too; without it, and where the file is
    silent, the caller's word is taken.
    """
    if origin is not None:
        info.meta.seal.check(origin.seal, settings.index)
    _check_encoder(settings, info.meta.seal, settings.index)
    _check_dims(info.meta.seal, dims, settings.index)


def _check_dims(seal: Seal, dims: int | None, index: str) -> None:
    if dims not in {None, seal.dims}:
        raise EncoderMismatch(
            f"The vectors of the file have {dims} dims, those of encoder {seal.name!r} of index"
            f" {index!r} have {seal.dims}: use another --index."
        )


def _check_encoder(settings: Settings, seal: Seal, index: str) -> None:
    if settings.encoder is None or settings.encoder == seal.name:
        return
    try:
        encoder = load_encoder(
            settings.encoder, models_dir=settings.models_dir, device=settings.device
        )
        seal.check(seal_of(encoder), index)
    except EncoderMismatch:
        raise
    except ImgSearchError as error:
        raise EncoderMismatch(
            f"Index {index!r} is sealed to encoder {seal.name!r}, not {settings.encoder!r}"
            f" ({error}): leave the encoder out, or use another --index."
        ) from error


def finish(
    store: Store, info: IndexInfo, resend: Callable[[], None], note: Callable[[str], None]
) -> None:
    """Give the vectors their graphs, restore what `make_index` left out, and merge.

    `resend` writes some of the rows once more: one segment alone is never rewritten, and would
    keep its vectors without a graph.
    """
    body = index_body(info.meta, [each.mapping for each in load_describers()])
    wanted = body["mappings"]["properties"]
    mapped = store.info().properties
    changed: dict[str, Mapping[str, Any]] = {
        name: each for name, each in wanted.items() if _lacks_graph(mapped.get(name, {}), each)
    }
    store.generations.end_loading(changed, {name: body["settings"][name] for name in _RESTORED})
    resend()
    note("Building the graphs: the pictures can be searched already.")
    store.refresh()
    if not store.generations.merge(wait_seconds=_MERGE_WAIT_SECONDS):
        note("Elasticsearch is still merging, and goes on by itself.")
    store.refresh()


def _lacks_graph(mapped: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a field, or one in it, was loaded flat and is not to stay so."""
    within = mapped.get("properties", {})
    return _index_type(mapped) == "flat" != _index_type(wanted) or any(
        _lacks_graph(within.get(name, {}), each)
        for name, each in wanted.get("properties", {}).items()
    )


def _index_type(mapping: Mapping[str, Any]) -> str:
    return str(mapping.get("index_options", {}).get("type", ""))


# Rows to the server as SMILE or NDJSON, from two threads, by `BulkWriter`.
#
# Two threads keep the server at work while a third encodes: 15,800 vectors of 512 dims a second
# into an index without a graph, where one thread reaches 11,200.

_THREADS = 2

# How long to wait for a server that is away; a later import continues where this one ended.
_PATIENCE_SECONDS = 300.0


class Item(NamedTuple):
    """One row as it is sent; the index's action comes first of its `actions`."""

    number: int
    line: bytes
    actions: int


def smile_items(
    rows: Sequence[Row], index: str, failures: str, failed: Collection[str] = ()
) -> list[Item]:
    """Index actions in SMILE; ids in `failed` are removed from the failures with the same bulk.

    Raises ValueError for a document that cannot be written.
    """
    encoded: list[dict[str, Any]] = [dict(row.fields) for row in rows]
    for name in {name: None for row in rows for name in row.vectors}:
        having = [n for n, row in enumerate(rows) if name in row.vectors]
        matrix = np.stack([rows[n].vectors[name] for n in having])
        for n, each in zip(having, smile.vectors(matrix), strict=True):
            encoded[n][name] = each
    _encode_regions(rows, encoded)
    items = []
    for row, document in zip(rows, encoded, strict=True):
        parts = [smile.document(_target("index", index, row)), smile.document(document)]
        if row.image_id in failed:
            parts.append(smile.document(_target("delete", failures, row)))
        line = smile.SEPARATOR.join([*parts, b""])
        items.append(Item(row.number, line, len(parts) - 1))
    return items


def ndjson_items(
    rows: Sequence[Row], index: str, failures: str, failed: Collection[str] = ()
) -> list[Item]:
    """The same as NDJSON.  Raises ValueError for a document that cannot be written."""
    items = []
    for row in rows:
        document = {**row.fields, **row.vectors}
        if row.regions:
            document[REGIONS_FIELD] = region_fields(row.regions)
        parts = [
            orjson.dumps(_target("index", index, row)),
            orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY),
        ]
        if row.image_id in failed:
            parts.append(orjson.dumps(_target("delete", failures, row)))
        items.append(Item(row.number, b"\n".join([*parts, b""]), len(parts) - 1))
    return items


def _encode_regions(rows: Sequence[Row], documents: Sequence[dict[str, Any]]) -> None:
    """Put the regions of the rows into their documents; the vectors of all in one go."""
    flat = [region.vector for row in rows for region in row.regions]
    if not flat:
        return
    vectors = iter(smile.vectors(np.stack(flat)))
    for row, document in zip(rows, documents, strict=True):
        if row.regions:
            document[REGIONS_FIELD] = [
                {**each, EMBEDDING: next(vectors)} for each in region_fields(row.regions)
            ]


def _target(action: str, index: str, row: Row) -> Mapping[str, Any]:
    return {action: {"_index": index, "_id": row.image_id}}


class Sender:
    """Sends bulks from threads of its own.

    `on_done` is called in the caller's thread, in the order of the bulks, with the number of rows
    stored and the rows that the server refused.
    """

    def __init__(
        self, store: Store, on_done: Callable[[int, list[BadRow]], None], *, as_ndjson: bool = False
    ) -> None:
        self._store = store
        self._on_done = on_done
        self._content_type = NDJSON["content-type"] if as_ndjson else smile.CONTENT_TYPE
        self._stop = threading.Event()
        self._writer = BulkWriter(
            self._bulk, outage=Outage(), stopping=self._stop, patience_seconds=_PATIENCE_SECONDS
        )
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="import")
        self._waiting: deque[tuple[int, Future[list[BadRow]]]] = deque()

    def send(self, items: Sequence[Item]) -> None:
        """Waits while all threads are busy.  Raises what ended an earlier bulk."""
        self._settle(_THREADS)
        self._waiting.append((len(items), self._threads.submit(self._write, items)))

    def finish(self) -> None:
        """Wait for what was sent.  Raises what ended a bulk."""
        self._settle(0)

    def close(self) -> None:
        """Let go of what was not sent yet; what the server has is kept."""
        self._stop.set()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _settle(self, leave: int) -> None:
        while len(self._waiting) > leave:
            count, future = self._waiting.popleft()
            refused = future.result()
            self._on_done(count - len(refused), refused)

    def _write(self, items: Sequence[Item]) -> list[BadRow]:
        results = self._writer.write(items)
        return [BadRow(item.number, str(error)) for item, error in results if error is not None]

    def _bulk(self, items: Sequence[Item]) -> list[StoreError | None]:
        """Send one bulk; the first error among the actions of each item, or None."""
        body = b"".join(item.line for item in items)
        results = iter(self._store.documents.bulk(body, self._content_type))
        of_each = [list(islice(results, item.actions)) for item in items]
        return [next((each for each in found if each is not None), None) for found in of_each]
