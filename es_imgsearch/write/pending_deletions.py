"""Collect missing files until no other file can reuse their vectors any more.

A moved file is missing at one path and new at another, in either order, in one comparison or in
two.  So missing paths are collected until no more are added; then every comparison requested
before must have ended, settling files must have settled, and files submitted until then must be
acknowledged.  The deletion guard checks the paths of a batch together.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

# In some folders files are deleted all the time; a batch collects no longer than this.
_COLLECT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class WholeRoot:
    """What a comparison of a whole root found, and what was stored when it began.

    Other processes go on meanwhile: it says nothing of pictures that they store, nor of a pause
    that they begin.  `pictures` is the number of documents then and of new files, `began_at` is
    `time.time()`, `pause` the document of the root's pause.
    """

    pictures: int
    began_at: float
    pause: Mapping[str, Any] | None = None

    def plus(self, new_files: int) -> WholeRoot:
        """Add files that the comparison found new."""
        return replace(self, pictures=self.pictures + new_files)


@dataclass(slots=True)
class _Batch:
    """Paths checked together; all missing files of a root that was compared whole."""

    paths: dict[str, None] = field(default_factory=dict)
    whole: WholeRoot | None = None
    first_at: float = 0.0
    # Comparisons requested when the last path was added.
    comparisons: int = 0
    quiet_since: float | None = None
    # Files submitted when the batch became quiet.
    ticket: int | None = None

    def __bool__(self) -> bool:
        return bool(self.paths) or self.whole is not None


class Tickets:
    """Number tasks that begin in order and end in any order.  Thread-safe.

    When `ended_until` reaches an earlier value of `begun`, all tasks that had begun by then have
    ended.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = 0
        self._open: set[int] = set()

    @property
    def begun(self) -> int:
        """The number of tasks that have begun."""
        with self._lock:
            return self._begun

    @property
    def ended_until(self) -> int:
        """The number below which all tasks have ended."""
        with self._lock:
            return min(self._open, default=self._begun)

    def begin(self) -> int:
        """Begin a task and return its number."""
        with self._lock:
            number = self._begun
            self._begun += 1
            self._open.add(number)
            return number

    def end(self, *numbers: int) -> None:
        """End the tasks of these numbers; ended ones stay so."""
        with self._lock:
            self._open.difference_update(numbers)


@dataclass(frozen=True, slots=True)
class Progress:
    """Tickets of requested comparisons and of submitted files."""

    comparisons: Tickets = field(default_factory=Tickets)
    files: Tickets = field(default_factory=Tickets)


class PendingDeletions:
    """The missing files of one root.  Thread-safe."""

    def __init__(
        self,
        quiet_seconds: float,
        progress: Progress,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._quiet_seconds = quiet_seconds
        self._progress = progress
        self._clock = clock
        self._lock = threading.Lock()
        self._collecting = _Batch()
        self._waiting: _Batch | None = None

    def add(self, relative_path: str) -> None:
        """Add the path of a missing file."""
        requested = self._progress.comparisons.begun
        with self._lock:
            if relative_path not in self._collecting.paths:
                self._restart(requested)
                self._collecting.paths[relative_path] = None

    def add_compared(self, relative_paths: Iterable[str], whole: WholeRoot | None) -> None:
        """Add what a comparison found missing; `whole` is None for a part of the root.

        All missing files of a root are checked together: paths that were added before and still
        wait join them.

        A batch may be taken between two calls.  Paths added one by one and marked as whole
        afterwards could then leave a whole batch without paths, which would end a pause.
        """
        requested = self._progress.comparisons.begun
        with self._lock:
            if whole is not None and self._waiting is not None:
                self._collecting.paths = self._waiting.paths | self._collecting.paths
                self._waiting = None
            missing = [each for each in relative_paths if each not in self._collecting.paths]
            if missing or whole is not None:
                self._restart(requested)
            self._collecting.paths.update(dict.fromkeys(missing))
            self._collecting.whole = whole or self._collecting.whole

    def _restart(self, requested: int) -> None:
        if not self._collecting:
            self._collecting.first_at = self._clock()
        self._collecting.comparisons = requested
        self._collecting.quiet_since = None

    def take_due(self, compared: int) -> tuple[list[str], WholeRoot | None] | None:
        """Take paths that may be deleted; with the comparison if these are all missing.

        To be called after settled files were submitted; `compared` is the number of comparisons
        that had ended before that.  None if no batch is due.
        """
        now = self._clock()
        ticket = self._progress.files.begun
        acknowledged = self._progress.files.ended_until
        with self._lock:
            if self._waiting is None and self._collecting:
                batch = self._collecting
                self._update(batch, compared, now)
                if self._is_quiet(batch, now) or now - batch.first_at >= _COLLECT_SECONDS:
                    self._waiting, self._collecting = batch, _Batch()
            waiting = self._waiting
            if waiting is None:
                return None
            self._update(waiting, compared, now)
            if not self._is_quiet(waiting, now):
                return None
            if waiting.ticket is None:
                waiting.ticket = ticket
            if acknowledged < waiting.ticket:
                return None
            self._waiting = None
            return list(waiting.paths), waiting.whole

    def take_all(self) -> tuple[list[str], WholeRoot | None]:
        """Take all paths at once: no comparison or file is in progress."""
        with self._lock:
            first, second = self._waiting or _Batch(), self._collecting
            self._waiting, self._collecting = None, _Batch()
            return list(first.paths | second.paths), second.whole or first.whole

    def __bool__(self) -> bool:
        return self._waiting is not None or bool(self._collecting)

    def _update(self, batch: _Batch, compared: int, now: float) -> None:
        if batch.quiet_since is None and compared >= batch.comparisons:
            batch.quiet_since = now

    def _is_quiet(self, batch: _Batch, now: float) -> bool:
        since = batch.quiet_since
        return since is not None and now - since >= self._quiet_seconds
