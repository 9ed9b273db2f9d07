"""Wait until a file has settled before it is read.

A file closed after writing is due at once.  One that was created or modified may still be
written to (a slow copy, a program that keeps it open), so it is due when its size and
modification time have stayed the same for `settle_seconds`.  Both are compared with what they
were, never with the clock: a modification time in the future delays nothing.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from es_imgsearch.records import FileState, Root
from es_imgsearch.watch.watcher import Hint, HintKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


_Key = tuple[Root, str]


@dataclass(slots=True)
class _Waiting:
    state: FileState | None  # None: there is no such file
    check_at: float
    event_at: float


class Settler:
    """Turn hints about files into paths that are due; thread-safe.

    `now` is `time.monotonic()`, as it becomes `Change.event_at`, so a step of the clock neither
    delays a file nor dates its event before an earlier read.  `stat`
    takes an absolute path and raises OSError for a file that is not there; it is called by
    `due` only, so `offer` is quick enough for the thread that reads the events.

    At most `max_waiting` paths are held (about 350 bytes each); for a root whose hint was
    dropped, `take_overflowed` asks for a comparison.
    """

    def __init__(
        self,
        settle_seconds: float,
        max_waiting: int = 100_000,
        stat: Callable[[str], os.stat_result] = os.stat,
    ) -> None:
        self._settle_seconds = settle_seconds
        self._max_waiting = max_waiting
        self._stat = stat
        self._lock = threading.Lock()
        # A path is in one of the three. All values are times; dictionaries keep the order in
        # which paths came in, and every wait is equally long, so the first is due first.
        self._ready: dict[_Key, float] = {}
        self._unseen: dict[_Key, float] = {}
        self._waiting: dict[_Key, _Waiting] = {}
        self._overflowed: set[Root] = set()

    def __len__(self) -> int:
        return len(self._ready) + len(self._unseen) + len(self._waiting)

    def offer(self, hint: Hint, now: float) -> None:
        """Take a hint; those about folders (SUBTREE, OVERFLOW) change nothing here.

        ROOT_GONE forgets the paths of that root.
        """
        key = (hint.root, hint.relative_path)
        with self._lock:
            if hint.kind is HintKind.ROOT_GONE:
                self._forget(hint.root)
            elif hint.kind in (HintKind.WRITTEN, HintKind.GONE):
                self._unseen.pop(key, None)
                self._waiting.pop(key, None)
                if key in self._ready or self._has_room(hint.root):
                    self._ready[key] = now
            elif hint.kind is HintKind.TOUCHED and key not in self._ready:
                if (waiting := self._waiting.get(key)) is not None:
                    # Only a difference found by stat starts the wait anew: a program that
                    # keeps changing attributes must not keep the picture out.
                    waiting.event_at = now
                elif key in self._unseen or self._has_room(hint.root):
                    self._unseen[key] = now

    def due(self, now: float) -> list[tuple[Root, str, float]]:
        """Return the paths to read, with the time of the last hint; each only once.

        A path that has vanished is returned as well: reading it shows that.
        """
        with self._lock:
            given = list(self._ready.items())
            self._ready.clear()
            unseen = list(self._unseen)
            checked = list(takewhile(lambda item: item[1].check_at <= now, self._waiting.items()))
        # Without the lock: a network folder may take its time to answer, and the thread that
        # offers must not wait for it. Until then the paths stay where they are.
        unseen_states = [self._state(key) for key in unseen]
        checked_states = [self._state(key) for key, _ in checked]
        check_at = now + self._settle_seconds
        with self._lock:
            for key, state in zip(unseen, unseen_states, strict=True):
                event_at = self._unseen.pop(key, None)
                if event_at is not None:
                    self._waiting[key] = _Waiting(state, check_at, event_at)
            for (key, waiting), state in zip(checked, checked_states, strict=True):
                if self._waiting.get(key) is not waiting:
                    continue  # written or gone meanwhile
                del self._waiting[key]
                if state == waiting.state:
                    given.append((key, waiting.event_at))
                else:
                    self._waiting[key] = _Waiting(state, check_at, event_at=now)
        return [(root, path, event_at) for (root, path), event_at in given]

    def next_due_at(self) -> float | None:
        """Return when to call `due` again: past if now, None if nothing waits."""
        with self._lock:
            for times in (self._ready, self._unseen):
                if times:
                    return next(iter(times.values()))
            return next((waiting.check_at for waiting in self._waiting.values()), None)

    def take_overflowed(self) -> frozenset[Root]:
        """Return the roots that lost hints since the last call: compare them whole."""
        with self._lock:
            taken = frozenset(self._overflowed)
            self._overflowed.clear()
            return taken

    # -- under the lock, but for _state -------------------------------------------------------

    def _has_room(self, root: Root) -> bool:
        if len(self) < self._max_waiting:
            return True
        self._overflowed.add(root)
        return False

    def _forget(self, root: Root) -> None:
        self._ready = {key: at for key, at in self._ready.items() if key[0] != root}
        self._unseen = {key: at for key, at in self._unseen.items() if key[0] != root}
        self._waiting = {key: wait for key, wait in self._waiting.items() if key[0] != root}

    def _state(self, key: _Key) -> FileState | None:
        root, relative_path = key
        try:
            return FileState.of(self._stat(root.absolute(relative_path)))
        except OSError:
            return None


class Settlers:
    """A settler for each root: none waits for the disk of another.  Thread-safe.

    `arrived` may miss one of two events of the same moment, but changes with each.
    """

    def __init__(self, settlers: Mapping[Root, Settler]) -> None:
        self._settlers = settlers
        # Events of files and folders that came, of all roots.
        self.arrived = 0

    def __len__(self) -> int:
        return sum(map(len, self._settlers.values()))

    def of(self, root: Root) -> Settler:
        """Return the settler of a root."""
        return self._settlers[root]

    def offer(self, hint: Hint, now: float) -> None:
        """Take a hint, see `Settler.offer`."""
        self._settlers[hint.root].offer(hint, now)

    def next_due_at(self) -> float | None:
        """Return when a path of any root is due next, None if nothing waits."""
        times = [each.next_due_at() for each in self._settlers.values()]
        return min((each for each in times if each is not None), default=None)


class Arrivals:
    """Decide when to compare a root again whose deletions are paused.

    Due when files came, whichever root they are in, and no more did for `quiet_seconds`: the
    missing ones may be back, or elsewhere.  After that ever more rarely, until the pause ends.
    """

    _FIRST_WAIT_SECONDS = 10.0

    def __init__(self, quiet_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet_seconds = quiet_seconds
        self._clock = clock
        self._seen = 0
        self._last_at: float | None = None
        self._wait_seconds, self._not_before = self._FIRST_WAIT_SECONDS, 0.0

    def is_due(self, arrived: int, *, is_paused: bool) -> bool:
        """Return True if the root is to be compared; `arrived` counts files that came."""
        now = self._clock()
        if not is_paused:
            self._seen, self._last_at = arrived, None
            self._wait_seconds, self._not_before = self._FIRST_WAIT_SECONDS, 0.0
            return False
        if arrived != self._seen:
            self._seen, self._last_at = arrived, now
        is_quiet = self._last_at is not None and now - self._last_at >= self._quiet_seconds
        if not is_quiet or now < self._not_before:
            return False
        self._last_at = None
        self._not_before = now + self._wait_seconds
        self._wait_seconds *= 2
        return True
