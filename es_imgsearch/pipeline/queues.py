"""Collect a queue's items in batches; cache a limited number of entries."""

from __future__ import annotations

import queue
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class BoundedCache(Generic[T]):
    """A mapping of at most `size` entries that drops the one put first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[str, T] = OrderedDict()

    def get(self, key: str) -> T | None:
        return self._entries.get(key)

    def put(self, key: str, value: T) -> None:
        self._entries[key] = value
        self._entries.move_to_end(key)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def forget(self, key: str) -> None:
        self._entries.pop(key, None)


def batches(
    source: queue.SimpleQueue[T | None],
    size: int,
    wait_seconds: float,
    is_complete: Callable[[], bool] = lambda: False,
) -> Iterator[list[T]]:
    """Yield batches of at most `size` items, until the item None.

    A smaller batch is yielded `wait_seconds` after its first item, or at once if `is_complete`
    returns True: no other item can come.
    """
    ended = False
    while not ended:
        batch, ended = _collect_batch(source, size, wait_seconds, is_complete)
        if batch:
            yield batch
        # Free its pictures while waiting for the next batch.
        del batch


def _collect_batch(
    source: queue.SimpleQueue[T | None],
    size: int,
    wait_seconds: float,
    is_complete: Callable[[], bool],
) -> tuple[list[T], bool]:
    """Collect a batch; True with it if it is the last."""
    first = source.get()
    if first is None:
        return [], True
    batch = [first]
    deadline = time.monotonic() + wait_seconds
    while len(batch) < size and not is_complete():
        try:
            item = source.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        if item is None:
            return batch, True
        batch.append(item)
    return batch, False
