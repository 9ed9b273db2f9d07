"""The guard before deletions: what looks like a dropped mount deletes nothing.

A root's deletions pause when the root is missing, cannot be listed, or is empty while the
index holds documents of it; when its device changed while the process runs; or when the share
of its documents whose content is found nowhere else exceeds `max_delete_share`.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from es_imgsearch.elastic.store import Store
from es_imgsearch.records import FileState, Root, image_id
from es_imgsearch.watch.reconcile import Prunes, is_looked_at
from es_imgsearch.write.deletion_pauses import Pause, PauseKind

# A share says nothing of a folder of five pictures.
SHARE_COUNTS_FROM = 20

# A slow `rm -r` arrives as many small deletions; they are judged together for this long.
_WINDOW_SECONDS = 600.0

_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Deleted:
    """How many documents went and from which paths, or why none did."""

    pictures: int = 0
    paths: Sequence[str] = ()
    pause: Pause | None = None


class Deletions:
    """Judges and carries out the deletions of one root at a time."""

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
        # What a try deleted before it failed, by root: the next one tells it as well.
        self._untold: dict[str, Deleted] = {}

    def remember_device(self, root: Root) -> None:
        """Note which file system the root is on; another one later is not the same folder."""
        self._devices.setdefault(root.name, os.stat(root.path).st_dev)

    def resume(self, root: Root) -> None:
        """Somebody said that what is missing is meant: what comes next is judged afresh."""
        self._devices.pop(root.name, None)
        self._recent.pop(root.name, None)
        self._paused_by_share.discard(root.name)

    def run(
        self, root: Root, relative_paths: Sequence[str], no_pictures: Mapping[str, FileState]
    ) -> Deleted:
        """Delete what is really gone, unless the guard says otherwise.

        `no_pictures` are ids whose file is there but is no picture (any more), in which state.
        Every path is looked at once more; additions must have been acknowledged before.
        """
        gone = {
            image_id(root.name, path): path
            for path in relative_paths
            if self._is_gone(root, path, no_pictures.get(image_id(root.name, path)))
        }
        # After the paths: a folder that vanished while they were looked at is seen here.
        pause = self._folder_pause(root, gone)
        if pause is None and gone:
            pause = self._delete(root, gone)
        done = self._untold.pop(root.name, Deleted())
        return replace(done, pause=pause)

    def _delete(self, root: Root, gone: Mapping[str, str]) -> Pause | None:
        """Delete the documents of these ids, or say why not."""
        contents: dict[str, str] = {}
        stored: list[str] = []
        for chunk in _chunks(gone):
            found = self._store.documents.content_ids(chunk)
            contents |= found
            # Deleting what is not there would cost the index a tombstone each.
            stored += found.keys() | self._store.documents.attempts(chunk).keys()
        if not stored:
            return None
        lost = self._lost(contents)
        if not self._allow and (pause := self._share_pause(root, len(lost))) is not None:
            return pause

        def note(ids: Sequence[str]) -> None:
            # At once and not when all are through: what went counts, whatever comes after.
            if number := sum(each in lost for each in ids):
                self._recent.setdefault(root.name, deque()).append((self._clock(), number))
            before = self._untold.get(root.name, Deleted())
            self._untold[root.name] = Deleted(
                before.pictures + sum(each in contents for each in ids),
                [*before.paths, *(gone[each] for each in ids)],
            )

        self._store.documents.delete(stored, note)
        return None

    def _is_gone(self, root: Root, path: str, no_picture: FileState | None) -> bool:
        return not is_looked_at(root, self._prunes, path) or _is_gone(
            root.absolute(path), no_picture
        )

    def _folder_pause(self, root: Root, gone: Mapping[str, str]) -> Pause | None:
        # A folder that cannot be looked at says nothing, whatever is allowed.
        try:
            os.scandir(root.path).close()
            if not gone:
                return None
            # Counts and look-ups see what was acknowledged until now.
            self._store.refresh()
            return None if self._allow else self._another_folder(root)
        except OSError as error:
            reason = f"its folder cannot be listed ({error.strerror})"
            is_missing = error.errno in {errno.ENOENT, errno.ENOTDIR}
            return Pause(PauseKind.UNLISTABLE, reason, self._held(root), is_missing)

    def _another_folder(self, root: Root) -> Pause | None:
        device = os.stat(root.path).st_dev
        if self._devices.setdefault(root.name, device) != device:
            return Pause(
                PauseKind.OTHER_DEVICE,
                "another file system is mounted there now",
                self._held(root),
            )
        with os.scandir(root.path) as entries:
            is_empty = all(
                self._prunes(entry.name, "", entry.is_dir(follow_symlinks=False))
                for entry in entries
            )
        if is_empty and (held := self._held(root)):
            return Pause(
                PauseKind.EMPTY, f"its folder is empty while the index holds {held} of it", held
            )
        return None

    def _share_pause(self, root: Root, lost: int) -> Pause | None:
        total = self._held(root)
        recent = self._recent.setdefault(root.name, deque())
        now = self._clock()
        # Waiting must not turn a deletion that was paused into one that is not.
        if root.name not in self._paused_by_share:
            while recent and now - recent[0][0] > _WINDOW_SECONDS:
                recent.popleft()
        lately = sum(number for _, number in recent)
        share = (lost + lately) / max(1, total + lately)
        if total + lately >= SHARE_COUNTS_FROM and lost and share > self._max_delete_share:
            self._paused_by_share.add(root.name)
            return Pause(
                PauseKind.SHARE,
                f"{lost} of its {total} pictures are gone ({share:.0%}, more than"
                f" max_delete_share, {self._max_delete_share:.0%})",
                lost,
            )
        self._paused_by_share.discard(root.name)
        return None

    def _lost(self, contents: Mapping[str, str]) -> set[str]:
        """Ids of those of these documents that have a content which no other document has."""
        kept: set[str] = set()
        wanted = sorted(set(contents.values()))
        for start in range(0, len(wanted), _CHUNK):
            for content_id, holder in self._store.listings.ids_by_content(
                wanted[start : start + _CHUNK]
            ):
                if holder not in contents:
                    kept.add(content_id)
        return {each for each, content_id in contents.items() if content_id not in kept}

    def _held(self, root: Root) -> int:
        return self._store.listings.count(root.name)


def _is_gone(path: str, no_picture: FileState | None) -> bool:
    """Only a clear "no such file" counts; an error is not an absence."""
    try:
        status = os.stat(path)
    except OSError as error:
        return error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
    if not stat.S_ISREG(status.st_mode):
        return True
    return no_picture is not None and FileState.of(status) == no_picture


def _chunks(ids: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(ids)
    while chunk := list(islice(remaining, _CHUNK)):
        yield chunk
