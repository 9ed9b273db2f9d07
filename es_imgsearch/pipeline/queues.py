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
    ended = False
    while not ended:
        batch, ended = _collected(source, size, wait_seconds, is_all)
        if batch:
            yield batch
        # Nothing of it is kept alive while the next one is waited for.
        del batch


def _collected(
    source: queue.SimpleQueue[T | None],
    size: int,
    wait_seconds: float,
    is_all: Callable[[], bool],
) -> tuple[list[T], bool]:
    """A batch, and whether it is the last."""
    first = source.get()
    if first is None:
        return [], True
    batch = [first]
    deadline = time.monotonic() + wait_seconds
    while len(batch) < size and not is_all():
        try:
            item = source.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        if item is None:
            return batch, True
        batch.append(item)
    return batch, False
