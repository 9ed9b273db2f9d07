"""Queues in batches, and memories that forget the oldest."""

from __future__ import annotations

import queue
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """The latest entries, oldest dropped first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[str, T] = OrderedDict()

    def get(self, key: str) -> T | None:
        return self._entries.get(key)

    def keep(self, key: str, value: T) -> None:
        self._entries[key] = value
        self._entries.move_to_end(key)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def forget(self, key: str) -> None:
        self._entries.pop(key, None)

    def snapshot(self) -> dict[str, T]:
        return dict(self._entries)


def batches(
    source: queue.SimpleQueue[T | None],
    size: int,
    wait_seconds: float,
    is_all: Callable[[], bool] = lambda: False,
) -> Iterator[list[T]]:
    """Batches of at most `size`; an incomplete one goes out `wait_seconds` after its first.

    It goes out at once when `is_all` says that nothing else can come.  Ends at None.
    """
    while (first := source.get()) is not None:
        batch = [first]
        deadline = time.monotonic() + wait_seconds
        ended = False
        while len(batch) < size and not is_all():
            try:
                item = source.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if item is None:
                ended = True
                break
            batch.append(item)
        yield batch
        if ended:
            return
