"""Write in bulk: lines of a request, its results, and the loop that retries.

`BulkWriter` is the only loop that repeats bulks; indexing, import and `reindex` share it.
"""

from __future__ import annotations

import math
import threading
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


class BulkWriter(Generic[T]):
    """Sends items in bulks until each is stored or refused for good.

    Retries transient errors with exponential backoff, and halves a request that is refused as a
    whole until the item at fault is alone.
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

    def write(self, items: Sequence[T]) -> Iterator[tuple[T, StoreError | None]]:
        """Yield each item as soon as its outcome is known: None if stored, else the error.

        Raises StoreDenied for the first item that is not permitted, since no other item would be,
        and Stopped.
        """
        thread = threading.current_thread().name
        pauses = waits()
        while items:
            retry: list[T] = []
            transient: StoreError | None = None
            for item, error in zip(items, _halved(self._send, items), strict=True):
                if isinstance(error, StoreDenied):
                    raise error
                if error is not None and error.transient:
                    retry.append(item)
                    transient = transient or error
                else:
                    yield item, error
            if transient is None:
                self._outage.end(thread)
                return
            if len(retry) < len(items):
                # Some items were stored: the server is busy, not unreachable.
                pauses = waits()
            else:
                self._outage.begin(transient, thread)
                if self._outage.seconds > self._patience_seconds:
                    raise transient
            if self._stopping.wait(next(pauses)):
                raise Stopped
            items = retry


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
