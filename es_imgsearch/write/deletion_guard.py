"""Delete documents of missing files, unless the folder looks like a dropped mount.

A root's deletions pause if its folder is missing, cannot be listed, or is empty although the
index has documents of it; if its device changed while the process runs; or if the share of its
documents that would be deleted, and whose content no other document has, exceeds
`max_delete_share`.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

from es_imgsearch.elastic.store import Store
from es_imgsearch.records import FileState, Root, image_id
from es_imgsearch.watch.reconcile import Prunes, is_looked_at
from es_imgsearch.write.deletion_pauses import Pause, PauseKind

IsNonPicture = Callable[[str, FileState], bool]

# A share of a folder of five pictures means nothing.
SHARE_COUNTS_FROM = 20

# A slow `rm -r` arrives as many small deletions; the share is of all within this time.
_WINDOW_SECONDS = 600.0

_CHUNK = 500


@dataclass(frozen=True, slots=True)
class DeletionResult:
    """The number of deleted pictures and their paths, and the pause if there is one."""

    pictures: int = 0
    paths: Sequence[str] = ()
    pause: Pause | None = None


class DeletionGuard:
    """Check and carry out the deletions of one root at a time."""

    def __init__(
        self,
        store: Store,
        prunes: Prunes,
        *,
        max_delete_share: float,
        allow: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._prunes = prunes
        self._max_delete_share = max_delete_share
        self._allow = allow
        self._clock = clock
        self._devices: dict[str, int] = {}
        self._recent: dict[str, deque[tuple[float, int]]] = {}
        self._paused_by_share: set[str] = set()
        # What a call deleted before it failed, by root: the next call returns it as well.
        self._unreported: dict[str, DeletionResult] = {}

    def remember_device(self, root: Root) -> None:
        """Store the device of the root's file system, to detect another one mounted later."""
        self._devices.setdefault(root.name, os.stat(root.path).st_dev)

    def resume(self, root: Root) -> None:
        """Forget the root's device and recent deletions.

        Called after its deletions were permitted.
        """
        self._devices.pop(root.name, None)
        self._recent.pop(root.name, None)
        self._paused_by_share.discard(root.name)

    def delete(
        self, root: Root, relative_paths: Sequence[str], is_non_picture: IsNonPicture
    ) -> DeletionResult:
        """Delete the documents of these paths whose files are missing, or pause.

        `is_non_picture` returns True for the id and state of a file that is no picture (any more).
        Every path is checked once more; additions must have been acknowledged before.
        """
        missing = {
            image_id(root.name, path): path
            for path in relative_paths
            if self._is_missing(root, path, is_non_picture)
        }
        # After the paths, to detect a folder that vanished while they were checked.
        pause = self._check_folder(root, missing)
        if pause is None and missing:
            pause = self._delete(root, missing)
        deleted = self._unreported.pop(root.name, DeletionResult())
        return replace(deleted, pause=pause)

    def _delete(self, root: Root, missing: Mapping[str, str]) -> Pause | None:
        """Delete the documents of these ids, or return a pause."""
        contents: dict[str, str] = {}
        stored: list[str] = []
        for chunk in _chunks(missing):
            chunk_contents = self._store.documents.content_ids(chunk)
            contents |= chunk_contents
            # Only stored ids: deleting an absent one would leave a tombstone in the index.
            stored += chunk_contents.keys() | self._store.documents.attempts(chunk).keys()
        if not stored:
            return None
        lost = self._without_copies(contents)
        if not self._allow and (pause := self._check_share(root, len(lost))) is not None:
            return pause

        def count_deleted(ids: Sequence[str]) -> None:
            # After each bulk, so that it counts even if a later one fails.
            if number := sum(each in lost for each in ids):
                self._recent.setdefault(root.name, deque()).append((self._clock(), number))
            before = self._unreported.get(root.name, DeletionResult())
            self._unreported[root.name] = DeletionResult(
                before.pictures + sum(each in contents for each in ids),
                [*before.paths, *(missing[each] for each in ids)],
            )

        self._store.documents.delete(stored, count_deleted)
        return None

    def _is_missing(self, root: Root, path: str, is_non_picture: IsNonPicture) -> bool:
        return not is_looked_at(root, self._prunes, path) or _is_missing(
            root.absolute(path), partial(is_non_picture, image_id(root.name, path))
        )

    def _check_folder(self, root: Root, missing: Mapping[str, str]) -> Pause | None:
        # An unreadable folder pauses deletions even if they are allowed.
        try:
            os.scandir(root.path).close()
            if not missing:
                return None
            # Counts and look-ups must include all acknowledged documents.
            self._store.refresh()
            return None if self._allow else self._check_replaced(root)
        except OSError as error:
            reason = f"its folder cannot be listed ({error.strerror})"
            is_missing = error.errno in {errno.ENOENT, errno.ENOTDIR}
            return Pause(PauseKind.UNLISTABLE, reason, self._document_count(root), is_missing)

    def _check_replaced(self, root: Root) -> Pause | None:
        device = os.stat(root.path).st_dev
        if self._devices.setdefault(root.name, device) != device:
            return Pause(
                PauseKind.OTHER_DEVICE,
                "another file system is mounted there now",
                self._document_count(root),
            )
        with os.scandir(root.path) as entries:
            is_empty = all(
                self._prunes(entry.name, "", entry.is_dir(follow_symlinks=False))
                for entry in entries
            )
        if is_empty and (count := self._document_count(root)):
            return Pause(
                PauseKind.EMPTY, f"its folder is empty while the index holds {count} of it", count
            )
        return None

    def _check_share(self, root: Root, lost: int) -> Pause | None:
        total = self._document_count(root)
        recent = self._recent.setdefault(root.name, deque())
        now = self._clock()
        # Time alone must not end a pause.
        if root.name not in self._paused_by_share:
            while recent and now - recent[0][0] > _WINDOW_SECONDS:
                recent.popleft()
        recently_lost = sum(number for _, number in recent)
        share = (lost + recently_lost) / max(1, total + recently_lost)
        if total + recently_lost >= SHARE_COUNTS_FROM and lost and share > self._max_delete_share:
            self._paused_by_share.add(root.name)
            return Pause(
                PauseKind.SHARE,
                f"{lost} of its {total} pictures are gone ({share:.0%}, more than"
                f" max_delete_share, {self._max_delete_share:.0%})",
                lost,
            )
        self._paused_by_share.discard(root.name)
        return None

    def _without_copies(self, contents: Mapping[str, str]) -> set[str]:
        """Return the ids, of these, whose content no other document has."""
        with_copies: set[str] = set()
        content_ids = sorted(set(contents.values()))
        for start in range(0, len(content_ids), _CHUNK):
            for content_id, holder in self._store.listings.ids_by_content(
                content_ids[start : start + _CHUNK]
            ):
                if holder not in contents:
                    with_copies.add(content_id)
        return {each for each, content_id in contents.items() if content_id not in with_copies}

    def _document_count(self, root: Root) -> int:
        return self._store.listings.count(root.name)


def _is_missing(path: str, is_non_picture: Callable[[FileState], bool]) -> bool:
    """Return True if there is no such file, or no picture; other errors do not count."""
    try:
        status = os.stat(path)
    except OSError as error:
        return error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
    if not stat.S_ISREG(status.st_mode):
        return True
    return is_non_picture(FileState.of(status))


def _chunks(ids: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(ids)
    while chunk := list(islice(remaining, _CHUNK)):
        yield chunk
