"""Files that are gone and not yet deleted: until nothing can still take over their vectors.

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


class Gone:
    """What one root has lost.  Thread-safe.

    `asked` counts the comparisons asked for, `compared` those of them that have ended (all up
    to that number); `ticket` and `settled` say the same of files submitted and acknowledged.
    """

    def __init__(
        self,
        patience_seconds: float,
        asked: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience_seconds = patience_seconds
        self._asked = asked
        self._clock = clock
        self._lock = threading.Lock()
        self._gathering = _Batch()
        self._waiting: _Batch | None = None

    def note(self, relative_path: str) -> None:
        """A path was looked for and is not there."""
        asked = self._asked()
        with self._lock:
            if relative_path not in self._gathering.paths:
                self._touch(asked)
                self._gathering.paths[relative_path] = None

    def note_complete(self) -> None:
        """The whole root was compared: what was noted until now is all it lacks."""
        asked = self._asked()
        with self._lock:
            self._touch(asked)
            self._gathering.complete = True

    def _touch(self, asked: int) -> None:
        if not self._gathering:
            self._gathering.first_at = self._clock()
        self._gathering.mark = asked
        self._gathering.quiet_since = None

    def take(self, compared: int, ticket: int, settled: int) -> tuple[list[str], bool] | None:
        """Paths ripe for deletion, and whether they are all the root lacks.

        Called after settled files were submitted; `compared` was read before that.
        """
        now = self._clock()
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
