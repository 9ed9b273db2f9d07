"""Turn the operating system's file events into hints for the daemon.

A hint may be late, doubled or missing; reconcile makes it right.  One inotify instance and
one thread serve all roots of a watcher; the daemon has a watcher for each root, since a disk that
hangs keeps the thread waiting.  Only folders are watched, excluded ones never.  A symbolic link is
reported as a file and not entered, unless the root follows links to folders: then what it points
to is watched like a folder.  A root may be a link.

How nothing is lost between a folder's appearance and its watch: watch it, list it, do the
same with what it holds, and only then emit SUBTREE.  What was there before is in that
comparison, what comes after has events of its own.  All changes to the table of watches are
made under one lock, in the order of the events, so a folder known twice is noticed by its
watch descriptor, which belongs to the inode.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from es_imgsearch.records import Root, stored_path
from es_imgsearch.watch import inotify
from es_imgsearch.watch.inotify import Event, InotifyReader, limit_message
from es_imgsearch.watch.root_disk import RootDisk
from es_imgsearch.watch.watch_table import Folder, WatchTable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from es_imgsearch.watch.excludes import Excludes


logger = logging.getLogger(__name__)


class HintKind(StrEnum):
    """The action that a path needs."""

    WRITTEN = "written"  # closed after writing, or moved in: look at it now
    TOUCHED = "touched"  # created, modified, attributes changed: look when it has settled
    GONE = "gone"  # deleted or moved away
    SUBTREE = "subtree"  # a folder appeared, vanished or was renamed: compare it
    OVERFLOW = "overflow"  # events were lost: compare the whole root
    ROOT_GONE = "root_gone"  # deleted, moved or unmounted: poll, then `Watcher.rearm`


@dataclass(frozen=True, slots=True)
class Hint:
    """Possible change at `relative_path` of `root`; ``""`` is the root itself."""

    root: Root
    relative_path: str
    kind: HintKind


class Watcher:
    """Watch roots and everything below them.

    `on_hint` is called on the reading thread, without any lock held.  It must be quick and
    must not block: the kernel keeps `fs.inotify.max_queued_events` (16,384) events and then
    drops them, which becomes OVERFLOW.  What it raises is logged and swallowed.

    A folder that gets no watch (no permission, a limit used up, no inotify at all) is no
    error: it is in `refused` and has to be polled.
    """

    def __init__(
        self,
        roots: Sequence[Root],
        excludes: Excludes,
        on_hint: Callable[[Hint], None],
        disk: RootDisk | None = None,
    ) -> None:
        """`disk` notices calls that hang, which keep all of these roots waiting."""
        self._roots = tuple(roots)
        self._excludes = excludes
        self._on_hint = on_hint
        self._disk = disk or RootDisk()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._reader: InotifyReader | None = None
        self._table: WatchTable | None = None
        self._outbox: list[Hint] = []
        self._logged: set[tuple[str, int]] = set()  # root name and errno already in the log

    def start(self) -> None:
        """Arm every watch and return when that is done; a folder costs about 25 µs.

        A root that does not exist is unwatched until `rearm`. No hints come from arming
        itself: compare the roots after it.
        """
        with self._lock:
            for root in self._roots:
                self._arm(root)

    def rearm(self, root: Root) -> bool:
        """Arm a root afresh: when it came back, or when a limit was raised.

        True when the root itself is watched now (parts of it may be in `refused`). Compare the
        root afterwards.
        """
        with self._lock:
            return self._arm(root)

    def stop(self) -> None:
        """Stop watching; no hint follows its return. May be called more than once.

        It waits for an `on_hint` in progress, except when called from it.
        """
        self._stopping.set()
        with self._lock:
            # Under the lock: the descriptor is closed by this or by the reading thread, and
            # must not be used, perhaps as somebody else's file, after that.
            reader = self._reader
            if reader is not None:
                reader.stop()
            self._table = None
        if reader is not None:
            reader.join()

    def refused(self, root: Root) -> frozenset[str]:
        """Relative folders without a watch; each stands for itself and all below it.

        ``""`` is the whole root: it is gone, or nothing can be watched.
        """
        with self._lock:
            if self._table is None or root not in self._table.tops:
                return frozenset({""})
            return self._table.refused_below(root)

    @property
    def watch_count(self) -> int:
        """Number of watched folders."""
        table = self._table
        return 0 if table is None else len(table)

    # -- arming, under the lock ---------------------------------------------------------------

    def _arm(self, root: Root) -> bool:
        if self._stopping.is_set():
            return False
        if self._table is None and not self._open(root):
            return False
        assert self._table is not None  # noqa: S101 - for the type checker
        armed = self._table.arm(root)
        self._log_refusals()
        self._table.release()
        return armed

    def _open(self, root: Root) -> bool:
        try:
            self._reader = InotifyReader(self._handle, self._died)
        except OSError as error:
            number = error.errno or errno.EIO
            if (root.name, number) not in self._logged:
                self._logged.add((root.name, number))
                logger.warning(
                    "%s is polled, not watched: %s", root.name, limit_message(number, used=0)
                )
            return False
        self._table = WatchTable(
            self._reader, self._excludes, self._stopping, self._top_gone, self._disk
        )
        return True

    def _log_refusals(self) -> None:
        """Log each root and reason once, with the number of folders so far."""
        if self._table is None:
            return
        found: dict[tuple[str, int], list[Folder]] = {}
        for folder, number in self._table.take_refusals():
            key = (folder.top_root().name, number)
            if key not in self._logged:
                found.setdefault(key, []).append(folder)
        for (name, number), folders in found.items():
            self._logged.add((name, number))
            logger.warning(
                "%d folders of %s are polled, not watched (the first is %r): %s",
                len(folders),
                name,
                stored_path(folders[0].path()) or ".",
                limit_message(number, used=len(self._table)),
            )

    # -- the reading thread -------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        try:
            with self._lock:
                if self._table is None or self._stopping.is_set():
                    return
                self._dispatch(self._table, event)
                self._log_refusals()
                hints, self._outbox = self._outbox, []
        except Exception:
            logger.exception("a file event could not be handled")
            hints = self._everywhere(HintKind.OVERFLOW)
        self._deliver(hints)

    def _died(self) -> None:
        with self._lock:
            self._table = None  # every root is unwatched from here on
        self._deliver(self._everywhere(HintKind.OVERFLOW))

    def _everywhere(self, kind: HintKind) -> list[Hint]:
        return [Hint(root, "", kind) for root in self._roots]

    def _deliver(self, hints: Sequence[Hint]) -> None:
        for hint in hints:
            if self._stopping.is_set():
                return
            try:
                self._on_hint(hint)
            except Exception:
                logger.exception("a hint could not be delivered: %r", hint)

    def _dispatch(self, table: WatchTable, event: Event) -> None:
        mask = event.mask
        if mask & inotify.IN_Q_OVERFLOW:
            self._overflow(table)
            return
        if mask & inotify.IN_IGNORED:
            table.released(event.wd)
        folder = table.folder(event.wd)
        if folder is not None:
            if not event.name:
                self._on_own_event(table, folder, mask)
            elif mask & inotify.IN_ISDIR:
                self._on_folder_event(table, folder, mask, os.fsdecode(event.name))
            else:
                name = os.fsdecode(event.name)
                if self._is_followed(folder, name):
                    self._on_folder_event(table, folder, mask, name)
                self._on_file_event(folder, mask, name)
        # The kernel queues the two halves of a rename one after the other, then the folder's own
        # event. If the next event is not the second half, the moved folder's watches are removed.
        if not mask & inotify.IN_MOVED_FROM:
            table.release()

    def _hint(self, root: Root, relative_path: str, kind: HintKind) -> None:
        self._outbox.append(Hint(root, relative_path, kind))

    def _top_gone(self, root: Root) -> None:
        self._hint(root, "", HintKind.ROOT_GONE)

    def _overflow(self, table: WatchTable) -> None:
        # Folders may have come, gone and changed names unseen: the table is built anew. The
        # kernel answers with the same descriptors, so no watch is interrupted.
        logger.warning("the queue of file events overflowed: every root will be compared")
        for root in list(table.tops):
            if not table.arm(root):
                self._top_gone(root)
        table.release()
        self._outbox.extend(self._everywhere(HintKind.OVERFLOW))

    def _on_own_event(self, table: WatchTable, folder: Folder, mask: int) -> None:
        if folder.parent is None:
            ends = (
                inotify.IN_DELETE_SELF
                | inotify.IN_MOVE_SELF
                | inotify.IN_UNMOUNT
                | inotify.IN_IGNORED
            )
            if mask & ends:
                root = folder.top_root()
                table.forget(folder)
                self._top_gone(root)
        elif mask & (inotify.IN_UNMOUNT | inotify.IN_IGNORED) or (
            folder.real and mask & inotify.IN_MOVE_SELF
        ):
            # The target of a link went, or:
            # Deletion and renaming are events of the parent. This one: a file system
            # mounted here was unmounted, and the folder beneath it is visible again.
            parent, name = folder.parent, folder.name
            table.forget(folder)
            table.appear(parent, name)
            self._hint(parent.top_root(), parent.path(name), HintKind.SUBTREE)

    def _is_followed(self, parent: Folder, name: str) -> bool:
        """Return True for a link that is, or was, taken for a folder."""
        root = parent.top_root()
        if not root.follows_links:
            return False
        if (known := parent.child(name)) is not None and known.real:
            return True
        path = root.absolute(parent.path(name))
        return os.path.islink(path) and os.path.isdir(path)

    def _on_folder_event(self, table: WatchTable, parent: Folder, mask: int, name: str) -> None:
        root, relative_folder = parent.top_root(), parent.path()
        if self._excludes.prunes(name, relative_folder, True):
            return
        known = parent.child(name)
        if mask & (inotify.IN_CREATE | inotify.IN_MOVED_TO):
            # Known already means: found by a walk whose own hint covers it.
            if not table.appear(parent, name):
                return
        elif mask & (inotify.IN_DELETE | inotify.IN_MOVED_FROM):
            if known is not None:
                table.forget(known)
        elif mask & inotify.IN_ATTRIB and (known is None or table.is_refused(known)):
            # Permission may have been granted.
            if not table.appear(parent, name):
                return
        else:
            return
        self._hint(root, parent.path(name), HintKind.SUBTREE)

    def _on_file_event(self, folder: Folder, mask: int, name: str) -> None:
        if self._excludes.prunes(name, folder.path(), False):
            return
        if mask & (inotify.IN_CLOSE_WRITE | inotify.IN_MOVED_TO):
            kind = HintKind.WRITTEN
        elif mask & (inotify.IN_DELETE | inotify.IN_MOVED_FROM):
            kind = HintKind.GONE
        else:
            kind = HintKind.TOUCHED
        self._hint(folder.top_root(), folder.path(name), kind)
