"""Write in bulk: lines of a request, its results, and the loop that retries.

`BulkWriter` is the only loop that repeats bulks; indexing, import and `reindex` share it.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
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
# Of one item, while something small is written; with the pauses in between they take 20 s.
_REFUSALS_ALONE = 8
# How often it is looked for other items during these pauses.
_LOOK_SECONDS = 0.5


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
    connection: Connection,
    body: bytes,
    content_type: str = NDJSON["content-type"],
    *,
    refresh: bool = False,
) -> list[tuple[Mapping[str, Any], StoreError | None]]:
    """Send one bulk; return the results of its actions in order.

    A result has `_id`, `status`, and the error or None.  The body is encoded already, as NDJSON or
    SMILE.  With `refresh` what it stores is searchable when the answer comes.
    """
    answer = connection.request(
        "POST",
        "/_bulk",
        body,
        params={
            "require_alias": "true",
            "timeout": _SERVER_WAIT,
            "filter_path": "items.*._id,items.*.status,items.*.error",
            **({"refresh": "true"} if refresh else {}),
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
    """Items that wait for a bulk, and those set apart because they were refused alone.

    Those set apart are tried in rounds, with longer and longer pauses in between.
    """

    def __init__(self, items: Sequence[T]) -> None:
        self._waiting = deque(items)
        # Set apart, each with the number of its refusals: to try in this round, and tried in it.
        self._untried: deque[tuple[T, int]] = deque()
        self._tried: list[tuple[T, int]] = []
        # Of the item that is being tried.
        self._refusals = 0
        self._pauses = waits()
        self._next_round_at = 0.0
        # The last bulk is of an item set apart.
        self.takes_apart = False

    @property
    def has_apart(self) -> bool:
        """Some items are set apart."""
        return bool(self._untried or self._tried)

    def add(self, items: Sequence[T]) -> None:
        """Add items that have come meanwhile, or are sent again."""
        self._waiting.extend(items)

    @property
    def seconds_to_next(self) -> float:
        """How long to wait for the next round if only items set apart are left; else 0."""
        if self._waiting or self._untried:
            return 0.0
        return max(0.0, self._next_round_at - time.monotonic())

    def take(self, limit: int) -> list[T]:
        """Take the next bulk: of an item set apart when no other waits; empty at the end."""
        self._refusals = 0
        self.takes_apart = not self._waiting
        if self._waiting:
            return [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]
        if not self._untried:
            self._untried, self._tried = deque(self._tried), []
            self._next_round_at = time.monotonic() + next(self._pauses)
        if not self._untried:
            return []
        item, self._refusals = self._untried.popleft()
        return [item]

    def set_apart(self, item: T) -> bool:
        """Set apart the item that was taken alone and refused; False if that is too often."""
        if self._refusals + 1 >= _REFUSALS_ALONE:
            return False
        if not self.has_apart:
            self._pauses = waits()
            self._next_round_at = time.monotonic() + next(self._pauses)
        self._tried.append((item, self._refusals + 1))
        return True


class BulkWriter(Generic[T]):
    """Sends items in bulks until each is stored or refused for good.

    Retries transient errors with exponential backoff, and halves a request that is refused as a
    whole until the item at fault is alone.

    A server without memory for a bulk answers 429 to the same bulk for ever, and a slow one lets
    it time out: after two such answers in a row bulks are halved, and grow again with each that
    succeeds.  If an item is refused even alone, while something small is written, that is no
    outage: it is set apart, so that it holds up no other, and tried again; the eighth time it is
    refused for good.
    """

    def __init__(
        self,
        send: Callable[[Sequence[T]], Sequence[StoreError | None]],
        *,
        is_writable: Callable[[T], bool],
        outage: Outage,
        stopping: threading.Event,
        patience_seconds: float = math.inf,
    ) -> None:
        """`send` sends one bulk and returns an error or None for each item, in order.

        `is_writable` returns True if something small can be written where an item goes.  An outage
        that lasts longer than `patience_seconds` raises its error.  `stopping` ends a wait with
        Stopped.
        """
        self._send = send
        self._is_writable = is_writable
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
        while bulk := self._next(pending, more):
            transient = yield from self._send_bulk(bulk)
            is_refused = len(transient) == len(bulk)
            if not pending.takes_apart:
                self._adapt(len(bulk), is_refused=is_refused)
            if not transient:
                self._outage.end(thread)
                continue
            item, error = transient[0]
            if is_refused and len(bulk) == 1 and self._is_writable(item):
                self._outage.end(thread)
                if not pending.set_apart(item):
                    yield item, _refused_alone(error)
                continue
            pending.add([each for each, _ in transient])
            if is_refused:
                self._begin_outage(error, thread)
            else:
                # Some items were stored: the server is busy, not unreachable.
                pauses = waits()
            self._wait(next(pauses))

    def _next(self, pending: _Pending[T], more: Callable[[], Sequence[T]]) -> list[T]:
        """Take the next bulk; wait while only items set apart are left, and none comes."""
        while pending.has_apart:
            pending.add(more())
            if not (seconds := pending.seconds_to_next):
                break
            self._wait(min(seconds, _LOOK_SECONDS))
        return pending.take(self._limit)

    def _wait(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise Stopped

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
        f"Elasticsearch did not take this document, sent alone, {_REFUSALS_ALONE} times, while it"
        f" took small ones: {error}"
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
