"""Pending deletions: files that are gone wait until nothing can take over their vectors any more.

A file moved is seen as gone in one place and as new in another, in either order, at once or
by two comparisons.  So what is gone is gathered until it is quiet; then every comparison asked
for before must have ended, a file that is settling must have settled, and what was submitted
until then must be acknowledged.  What disappears together is judged together.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

# Something disappears all the time in some folders; what has waited this long waits no longer.
_GATHER_SECONDS = 10.0


@dataclass(slots=True)
class _Batch:
    """Paths that are judged together; `complete` if they are all that the root lacks."""

    paths: dict[str, None] = field(default_factory=dict)
    complete: bool = False
    first_at: float = 0.0
    mark: int = 0
    quiet_since: float | None = None
    ticket: int | None = None

    def __bool__(self) -> bool:
        return bool(self.paths) or self.complete


class Tickets:
    """Numbers of pieces of work that begin in order and end in any order.  Thread-safe.

    Work that begins later has a number of at least `begun`, so when `ended_until` reaches a
    `begun` of before, all that had begun by then has ended.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = 0
        self._open: set[int] = set()

    @property
    def begun(self) -> int:
        """How many have begun."""
        with self._lock:
            return self._begun

    @property
    def ended_until(self) -> int:
        """All with a smaller number have ended."""
        with self._lock:
            return min(self._open, default=self._begun)

    def begin(self) -> int:
        """The number of a piece of work that begins now."""
        with self._lock:
            number = self._begun
            self._begun += 1
            self._open.add(number)
            return number

    def end(self, *numbers: int) -> None:
        """The work of these numbers has ended, or another does it."""
        with self._lock:
            self._open.difference_update(numbers)


@dataclass(frozen=True, slots=True)
class Progress:
    """What was requested and what has ended, of comparisons and of submitted files."""

    comparisons: Tickets = field(default_factory=Tickets)
    files: Tickets = field(default_factory=Tickets)


class PendingDeletions:
    """The files that one root has lost.  Thread-safe."""

    def __init__(
        self,
        patience_seconds: float,
        progress: Progress,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience_seconds = patience_seconds
        self._progress = progress
        self._clock = clock
        self._lock = threading.Lock()
        self._gathering = _Batch()
        self._waiting: _Batch | None = None

    def note(self, relative_path: str) -> None:
        """A path was looked for and is not there."""
        asked = self._progress.comparisons.begun
        with self._lock:
            if relative_path not in self._gathering.paths:
                self._touch(asked)
                self._gathering.paths[relative_path] = None

    def note_complete(self) -> None:
        """The whole root was compared: what was noted until now is all it lacks."""
        asked = self._progress.comparisons.begun
        with self._lock:
            self._touch(asked)
            self._gathering.complete = True

    def _touch(self, asked: int) -> None:
        if not self._gathering:
            self._gathering.first_at = self._clock()
        self._gathering.mark = asked
        self._gathering.quiet_since = None

    def take(self, compared: int) -> tuple[list[str], bool] | None:
        """Paths ripe for deletion, and whether they are all the root lacks.

        Call it after settled files were submitted; `compared` is the number of comparisons that
        had ended before that.
        """
        now = self._clock()
        ticket = self._progress.files.begun
        settled = self._progress.files.ended_until
        with self._lock:
            if self._waiting is None and self._gathering:
                batch = self._gathering
                if batch.quiet_since is None and compared >= batch.mark:
                    batch.quiet_since = now
                if self._is_quiet(batch, now) or now - batch.first_at >= _GATHER_SECONDS:
                    self._waiting, self._gathering = batch, _Batch()
            batch_waiting = self._waiting
            if batch_waiting is None:
                return None
            if batch_waiting.quiet_since is None and compared >= batch_waiting.mark:
                batch_waiting.quiet_since = now
            if not self._is_quiet(batch_waiting, now):
                return None
            if batch_waiting.ticket is None:
                batch_waiting.ticket = ticket
            if settled < batch_waiting.ticket:
                return None
            self._waiting = None
            return list(batch_waiting.paths), batch_waiting.complete

    def take_all(self) -> tuple[list[str], bool]:
        """Everything at once: the caller knows that all else is done."""
        with self._lock:
            first, second = self._waiting or _Batch(), self._gathering
            self._waiting, self._gathering = None, _Batch()
            return list(first.paths | second.paths), first.complete or second.complete

    def __bool__(self) -> bool:
        return self._waiting is not None or bool(self._gathering)

    def _is_quiet(self, batch: _Batch, now: float) -> bool:
        since = batch.quiet_since
        return since is not None and now - since >= self._patience_seconds
