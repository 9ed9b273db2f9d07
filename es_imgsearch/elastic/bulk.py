"""Bulks: their lines, one request with a result an action, and the loop that retries.

`BulkWriter` is the only loop that sends bulks again; indexing, import and `reindex` share it.
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

# How long the server itself waits for a shard.  A bulk that outlasts our own request would be
# carried out later, over what was written since.
_SERVER_WAIT = "10s"


def action_line(action: str, index: str, image_id: str, **conditions: int) -> bytes:
    """The first line of an action: what to do with one document, under which conditions."""
    return json_line({action: {"_index": index, "_id": image_id, **conditions}})


def json_line(value: Mapping[str, Any]) -> bytes:
    """One line of a bulk."""
    return to_json(dict(value)) + b"\n"


def bulk_results(
    connection: Connection, body: bytes, content_type: str = NDJSON["content-type"]
) -> list[tuple[Mapping[str, Any], StoreError | None]]:
    """Send one bulk: `_id` and `status` of every action in order, and its error or None.

    The body is ready bytes, NDJSON or SMILE.
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
    # Deleting a document that is not there is done; an index that is not there is not.
    was_absent = action == "delete" and result["status"] == 404 and "error" not in result
    return was_absent or result["status"] < 300


class BulkWriter(Generic[T]):
    """Sends items in bulks until each is stored or refused for good.

    Retries what met a transient error with exponential backoff, and halves a request that is
    refused as a whole until the culprit is alone.
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
        """Yield each item as soon as its fate is known: None if stored, else why not.

        Raises StoreDenied for the first item that is not permitted, since no other item fares
        better, and Stopped.
        """
        who = threading.current_thread().name
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
                self._outage.ends(who)
                return
            if len(retry) < len(items):
                # Some items got through: the server is busy, not away.
                pauses = waits()
            else:
                self._outage.begins(transient, who)
                if self._outage.seconds > self._patience_seconds:
                    raise transient
            if self._stopping.wait(next(pauses)):
                raise Stopped
            items = retry


def _halved(
    send: Callable[[Sequence[T]], Sequence[StoreError | None]], items: Sequence[T]
) -> Sequence[StoreError | None]:
    """Send items as one bulk, or as two halves each where it is refused as a whole.

    A transient error of the whole request is the result of each of its items.
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
