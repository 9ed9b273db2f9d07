"""Notice disk calls that do not return, as of a dead network share."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Self

from es_imgsearch.records import Root
from es_imgsearch.watch.sources.opened import status_at

# A spun-down disk or a busy share answers within seconds; a dead one takes minutes, or for ever.
HANGS_AFTER_SECONDS = 30.0


class RootDisk:
    """Disk calls of one root, made by threads of its own only.

    Notices one that hangs.  Thread-safe.
    """

    def __init__(self) -> None:
        self._began: dict[DiskCall, float] = {}
        self._lock = threading.Lock()
        self._posted: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def calling(self) -> DiskCall:
        """Return a context for a call, or for a few short ones."""
        return DiskCall(self._began)

    def stat(self, path: str) -> os.stat_result:
        """Call `os.stat`, or ask the source of a URL."""
        with self.calling():
            return status_at(path)

    @property
    def hung_seconds(self) -> float:
        """Duration of the longest present call if that hangs, else 0."""
        began = min(list(self._began.values()), default=None)
        seconds = 0.0 if began is None else time.monotonic() - began
        return seconds if seconds >= HANGS_AFTER_SECONDS else 0.0

    def post(self, call: Callable[[], None]) -> None:
        """Have the root's own thread make a call, after all that were posted before.

        For threads that serve all roots.  `call` must not raise.
        """
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="disk", daemon=True)
                self._thread.start()
        self._posted.put(call)

    def close(self) -> None:
        """End the thread after its last call; what is posted later is not called."""
        self._posted.put(None)

    def _run(self) -> None:
        while (call := self._posted.get()) is not None:
            with self.calling():
                call()


class RootDisks:
    """The disks of roots, made as they are asked for; thread-safe."""

    def __init__(self) -> None:
        self._disks: dict[str, RootDisk] = {}

    def of(self, root: Root) -> RootDisk:
        """Return the disk of a root."""
        return self._disks.setdefault(root.name, RootDisk())

    def hung(self) -> dict[str, float]:
        """Return the names of roots whose disks hang, with the seconds since then."""
        seconds = {name: disk.hung_seconds for name, disk in list(self._disks.items())}
        return {name: each for name, each in seconds.items() if each}

    def close(self) -> None:
        """End all threads after their last calls."""
        for disk in list(self._disks.values()):
            disk.close()


class DiskCall:
    """A call that is counted as running while the context lasts."""

    __slots__ = ("_began",)

    def __init__(self, began: dict[DiskCall, float]) -> None:
        self._began = began

    def __enter__(self) -> Self:
        self._began[self] = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._began.pop(self, None)
