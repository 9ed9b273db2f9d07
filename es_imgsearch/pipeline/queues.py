"""Queue items in batches, touched, unseen and leftover files; count rounds; cache."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from es_imgsearch.errors import ReadError
from es_imgsearch.pipeline.jobs import Kept, RootComparison
from es_imgsearch.read.file import Skipped
from es_imgsearch.records import Change, Root
from es_imgsearch.watch.settle import Settlers
from es_imgsearch.watch.watcher import Hint, HintKind
from es_imgsearch.write.pending_deletions import PendingDeletions

logger = logging.getLogger(__name__)

T = TypeVar("T")

# 300 bytes each.
_TOUCHED_FILES = 100_000
_UNSEEN_FILES = 10_000


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

    def values(self) -> list[T]:
        return list(self._entries.values())

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


class TouchedFiles:
    """Files whose ctime alone changed, to be read at low priority.  Thread-safe.

    Most were touched by chmod, chown or a backup of hard links, a whole library at once; a few were
    changed behind an equal size and time.  New and changed files must not wait for them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[str, tuple[Change, float]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._files)

    def put(self, change: Change, listed_at: float) -> bool:
        """Queue a file; `listed_at` is when its comparison listed the index.

        Returns False if there is no room: it has to be read now.
        """
        with self._lock:
            if len(self._files) >= _TOUCHED_FILES and change.image_id not in self._files:
                return False
            self._files[change.image_id] = change, listed_at
            return True

    def pop(self) -> tuple[Change, float] | None:
        """Take the first file; None if there is none."""
        with self._lock:
            return self._files.popitem(last=False)[1] if self._files else None


class UnseenFiles:
    """Changes of events whose files could not be examined, for the next comparison.

    A file that was written through a memory map looks unchanged to it.  Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changes: BoundedCache[Change] = BoundedCache(_UNSEEN_FILES)

    def put(self, change: Change) -> None:
        """Remember a change; the oldest is dropped if there are too many."""
        with self._lock:
            self._changes.put(change.image_id, change)

    def take(self, root: Root, folder: str) -> list[Change]:
        """Take the changes of files of a root, or of one of its folders."""
        with self._lock:
            found = [
                each
                for each in self._changes.values()
                if each.root.name == root.name
                and (not folder or each.relative_path.startswith(f"{folder}/"))
            ]
            for each in found:
                self._changes.forget(each.image_id)
            return found


class Round:
    """Names that come again and again; a round ends when each has come.  Thread-safe."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._left = set(self._names)
        self._lock = threading.Lock()

    def ends_with(self, name: str) -> bool:
        """Count a name; return True if it ends a round, and begin the next one."""
        with self._lock:
            self._left.discard(name)
            if self._left:
                return False
            self._left.update(self._names)
            return True


# Of a root whose files cannot be read, so many are logged.
_LOGGED_FILES = 10


class LeftoverQueue:
    """Sort the paths that the pipeline emits; log files that cannot be read for now."""

    def __init__(
        self,
        settler: Settlers,
        pending: Mapping[str, PendingDeletions],
        comparing: Mapping[str, RootComparison],
    ) -> None:
        """`comparing` has the last comparison of each root, to count what is no picture."""
        self._settler = settler
        self._comparing = comparing
        self._pending = pending
        # Files that events showed and that could not be examined.
        self.unseen = UnseenFiles()
        self._logged: Counter[str] = Counter()

    def put(self, change: Change, reason: Skipped | Kept) -> None:
        """Take a file from the pipeline."""
        if isinstance(reason, Kept) and reason.is_unknown:
            self._log(change, reason.error)
        elif reason is Skipped.CHANGING:
            hint = Hint(change.root, change.relative_path, HintKind.TOUCHED)
            self._settler.offer(hint, time.monotonic())
        elif reason is Skipped.UNSEEN:
            self.unseen.put(change)
        else:
            counts = self._comparing.get(change.root.name)
            if reason is Skipped.NOT_A_PICTURE and counts is not None:
                counts.count_no_picture(change.relative_path)
            self._pending[change.root.name].add(change.relative_path)

    def _log(self, change: Change, error: ReadError) -> None:
        self._logged[change.root.name] += 1
        if (number := self._logged[change.root.name]) > _LOGGED_FILES:
            return
        logger.warning(
            "%s cannot be read (%s): its picture stays in the index, and it is tried again.%s",
            change.root.absolute(change.relative_path),
            error.message.rstrip("."),
            " Further files of this kind are only counted." if number == _LOGGED_FILES else "",
        )
