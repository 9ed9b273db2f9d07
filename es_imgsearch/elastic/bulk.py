"""Write in bulk: lines of a request, its results, and the loop that retries.

`BulkWriter` is the only loop that repeats bulks; indexing, import and `reindex` share it.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from es_imgsearch.elastic.client import Connection
from es_imgsearch.elastic.error_mapping import item_error
from es_imgsearch.elastic.queries import to_json
from es_imgsearch.elastic.requests import JSON, NDJSON
from es_imgsearch.elastic.retry import Outage, Stopped, waits
from es_imgsearch.errors import StoreDenied, StoreError, StoreRejected

T = TypeVar("T")

# How long the server waits for a shard.  A bulk that outlasts our own request would be executed
# later, over newer writes.
_SERVER_WAIT = "10s"

# Elasticsearch refuses a request of more than 100 MB (http.max_content_length), and while all that
# it is indexing takes more than a tenth of its heap (indexing_pressure.memory.limit), 51 MB of the
# smallest one in use.  From 1 MB on a larger bulk writes no more documents a second.
_LARGEST_BULK_BYTES = 10_000_000

# More than any caller sends at once.
_MOST_ITEMS = 10_000
# One refusal may be chance; the second halves bulks.
_REFUSALS = 2


def action_line(action: str, index: str, image_id: str, **conditions: int) -> bytes:
    """First line of a bulk action on one document.

    It has conditions such as `if_seq_no`.
    """
    return json_line({action: {"_index": index, "_id": image_id, **conditions}})


def json_line(value: Mapping[str, Any]) -> bytes:
    """Encode one line of a bulk."""
    return to_json(dict(value)) + b"\n"


def bulk_results(
    connection: Connection, body: bytes, content_type: str = NDJSON["content-type"]
) -> list[tuple[Mapping[str, Any], StoreError | None]]:
    """Send one bulk; return the results of its actions in order.

    A result has `_id`, `status`, and the error or None.  The body is encoded already, as NDJSON or
    SMILE.
    """
    answer = connection.request(
        "POST",
        "/_bulk",
        body,
        params={
            "require_alias": "true",
            "timeout": _SERVER_WAIT,
            "filter_path": "items.*._id,items.*.status,items.*.error",
        },
        headers={**JSON, "content-type": content_type},
    )
    return [
        (result, None if _is_done(action, result) else item_error(result))
        for item in answer["items"]
        for action, result in item.items()
    ]


def _is_done(action: str, result: Mapping[str, Any]) -> bool:
    # Deleting a missing document succeeds, in a missing index it fails.
    was_absent = action == "delete" and result["status"] == 404 and "error" not in result
    return was_absent or result["status"] < 300


def bulk_slices(sizes_bytes: Sequence[int]) -> Iterator[slice]:
    """Yield slices of items that are sent together: at most 10 MB, or one item."""
    start = total = 0
    for position, size in enumerate(sizes_bytes):
        if position > start and total + size > _LARGEST_BULK_BYTES:
            yield slice(start, position)
            start, total = position, 0
        total += size
    if start < len(sizes_bytes):
        yield slice(start, len(sizes_bytes))


class BulkWriter(Generic[T]):
    """Sends items in bulks until each is stored or refused for good.

    Retries transient errors with exponential backoff, and halves a request that is refused as a
    whole until the item at fault is alone.

    A server without memory for a bulk answers 429 to the same bulk for ever, and a slow one lets
    it time out: after two such answers in a row bulks are halved, and grow again with each that
    succeeds.  An item that is refused even alone is set apart and tried after all others, so that
    it holds up none of them.
    """

    def __init__(
        self,
        send: Callable[[Sequence[T]], Sequence[StoreError | None]],
        *,
        outage: Outage,
        stopping: threading.Event,
        patience_seconds: float = math.inf,
    ) -> None:
        """`send` sends one bulk and returns an error or None for each item, in order.

        An outage that lasts longer than `patience_seconds` raises its error.  `stopping` ends a
        wait with Stopped.
        """
        self._send = send
        self._outage = outage
        self._stopping = stopping
        self._patience_seconds = patience_seconds
        # Of items in a bulk.  Threads that share a writer may lose a change of it to each other,
        # which costs one more request.
        self._limit = _MOST_ITEMS
        self._refusals_in_a_row = 0

    def write(
        self, items: Sequence[T], more: Callable[[], Sequence[T]] = tuple
    ) -> Iterator[tuple[T, StoreError | None]]:
        """Yield each item as soon as its outcome is known: None if stored, else the error.

        `more` returns items that have come meanwhile; it is called while some are set apart.

        Raises StoreDenied for the first item that is not permitted, since no other item would be,
        and Stopped.
        """
        thread = threading.current_thread().name
        pauses = waits()
        waiting, apart = deque(items), deque[T]()
        others_succeed = False
        while waiting or apart:
            is_apart = not waiting
            source = apart if is_apart else waiting
            bulk = [
                source.popleft() for _ in range(1 if is_apart else min(self._limit, len(source)))
            ]
            retry: list[T] = []
            transient: StoreError | None = None
            for item, error in zip(bulk, _halved(self._send, bulk), strict=True):
                if isinstance(error, StoreDenied):
                    raise error
                if error is not None and error.transient:
                    retry.append(item)
                    transient = transient or error
                else:
                    yield item, error
            is_refused = len(retry) == len(bulk)
            (apart if is_refused and len(bulk) == 1 else waiting).extend(retry)
            if not is_refused:
                # Some items were stored: the server is busy, not unreachable.
                pauses = waits()
                others_succeed = True
                if is_apart:
                    # What was refused alone was refused by an outage, now over.
                    waiting.extend(apart)
                    apart.clear()
            if not is_apart:
                self._adapt(len(bulk), is_refused=is_refused)
            if transient is None:
                self._outage.end(thread)
                continue
            if is_refused and not (is_apart and others_succeed):
                self._outage.begin(transient, thread)
                if self._outage.seconds > self._patience_seconds:
                    raise transient
            if self._stopping.wait(next(pauses)):
                raise Stopped
            if is_apart:
                others_succeed = False
                waiting.extend(more())

    def _adapt(self, size: int, *, is_refused: bool) -> None:
        """Halve the limit after two refused bulks in a row; double it after a success."""
        if not is_refused:
            self._refusals_in_a_row = 0
            if size >= self._limit:
                self._limit = min(2 * self._limit, _MOST_ITEMS)
            return
        self._refusals_in_a_row += 1
        if self._refusals_in_a_row >= _REFUSALS:
            self._refusals_in_a_row = 0
            self._limit = max(1, size // 2)


def _halved(
    send: Callable[[Sequence[T]], Sequence[StoreError | None]], items: Sequence[T]
) -> Sequence[StoreError | None]:
    """Send items as one bulk; halve it, recursively, if it is refused as a whole.

    A transient error of the whole request becomes the error of each item.
    """
    try:
        return send(items)
    except StoreRejected as error:
        if len(items) == 1:
            return [error]
        middle = len(items) // 2
        return [*_halved(send, items[:middle]), *_halved(send, items[middle:])]
    except StoreError as error:
        if not error.transient:
            raise
        return [error] * len(items)
