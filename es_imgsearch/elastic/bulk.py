"""Write in bulk: lines of a request, its results, and the loop that retries.

`BulkWriter` is the only loop that repeats bulks; indexing, import and `reindex` share it.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from es_imgsearch.elastic.client import Connection
from es_imgsearch.elastic.error_mapping import item_error
from es_imgsearch.elastic.queries import to_json
from es_imgsearch.elastic.requests import JSON, NDJSON
from es_imgsearch.elastic.retry import Outage, Stopped, waits
from es_imgsearch.errors import StoreBusy, StoreDenied, StoreError, StoreRejected

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
# Of one item, while others are stored; with the waits in between they take half a minute.
_REFUSALS_ALONE = 8


def action_line(action: str, index: str, image_id: str, **conditions: int) -> bytes:
    """First line of a bulk action on one document.

    It has conditions such as `if_seq_no`.
    """
    return json_line({action: {"_index": index, "_id": image_id, **conditions}})


def json_line(value: Mapping[str, Any]) -> bytes:
    """Encode one line of a bulk.  Raises StoreRejected for what JSON cannot hold."""
    try:
        return to_json(dict(value)) + b"\n"
    except TypeError as error:
        raise StoreRejected(f"The document cannot be encoded as JSON: {error}.") from error


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


class _Pending(Generic[T]):
    """Items that wait for a bulk, and those set apart because they were refused alone."""

    def __init__(self, items: Sequence[T]) -> None:
        self._waiting = deque(items)
        # Each with the number of its refusals while others succeeded.
        self._apart: deque[tuple[T, int]] = deque()
        self._takes_apart = False
        self._refusals = 0
        # The last bulk of others was not refused.
        self.others_succeed = False

    def add(self, items: Sequence[T]) -> None:
        """Add items that have come meanwhile."""
        if items:
            self.others_succeed = False
            self._waiting.extend(items)

    def take(self, limit: int) -> list[T]:
        """Take the next bulk: of an item set apart when no other waits; empty at the end."""
        self._refusals = 0
        self._takes_apart = not self._waiting
        if self._waiting:
            return [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]
        if not self._apart:
            return []
        item, self._refusals = self._apart.popleft()
        return [item]

    def put_back(self, retry: Sequence[tuple[T, StoreError]], *, is_refused: bool) -> bool:
        """Put what is sent again to the end; return True if it had been set apart."""
        if is_refused and len(retry) == 1:
            ((item, error),) = retry
            # Without an answer nothing is known of the item, nor of the server by now.
            self.others_succeed &= isinstance(error, StoreBusy)
            self._apart.append((item, self._refusals + self.others_succeed))
        else:
            self.others_succeed = not is_refused
            self._waiting.extend(item for item, _ in retry)
        if not is_refused and self._takes_apart:
            # It was refused alone by an outage, now over, and so were the others.
            self._waiting.extend(item for item, _ in self._apart)
            self._apart.clear()
        return self._takes_apart

    def given_up(self) -> T | None:
        """Take the item set apart last if it was refused too often while others succeeded."""
        if not self._apart or self._apart[-1][1] < _REFUSALS_ALONE:
            return None
        return self._apart.pop()[0]


class BulkWriter(Generic[T]):
    """Sends items in bulks until each is stored or refused for good.

    Retries transient errors with exponential backoff, and halves a request that is refused as a
    whole until the item at fault is alone.

    A server without memory for a bulk answers 429 to the same bulk for ever, and a slow one lets
    it time out: after two such answers in a row bulks are halved, and grow again with each that
    succeeds.  An item that is refused even alone is set apart and tried after all others, so that
    it holds up none of them; the eighth time, while others are stored, it is refused for good.
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
        pending = _Pending(items)
        while bulk := pending.take(self._limit):
            transient = yield from self._send_bulk(bulk)
            is_refused = len(transient) == len(bulk)
            is_apart = pending.put_back(transient, is_refused=is_refused)
            if not is_apart:
                self._adapt(len(bulk), is_refused=is_refused)
            if not transient:
                self._outage.end(thread)
                continue
            if (item := pending.given_up()) is not None:
                self._outage.end(thread)
                yield item, _refused_alone(transient[0][1])
                continue
            if not is_refused:
                # Some items were stored: the server is busy, not unreachable.
                pauses = waits()
            elif not (is_apart and pending.others_succeed):
                self._begin_outage(transient[0][1], thread)
            if self._stopping.wait(next(pauses)):
                raise Stopped
            if is_apart:
                pending.add(more())

    def _send_bulk(
        self, bulk: Sequence[T]
    ) -> Generator[tuple[T, StoreError | None], None, list[tuple[T, StoreError]]]:
        """Send one bulk and yield what is decided; return what met a transient error."""
        transient: list[tuple[T, StoreError]] = []
        for item, error in zip(bulk, _halved(self._send, bulk), strict=True):
            if isinstance(error, StoreDenied):
                raise error
            if error is not None and error.transient:
                transient.append((item, error))
            else:
                yield item, error
        return transient

    def _begin_outage(self, error: StoreError, thread: str) -> None:
        self._outage.begin(error, thread)
        if self._outage.seconds > self._patience_seconds:
            raise error

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


def _refused_alone(error: StoreError) -> StoreRejected:
    return StoreRejected(
        f"Elasticsearch had no room for this document alone, {_REFUSALS_ALONE} times, while it"
        f" stored others: {error}"
    )


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
