"""The guard before deletions: what looks like a dropped mount deletes nothing.

A root's deletions pause when the root is missing, cannot be listed, or is empty while the
index holds documents of it; when its device changed while the process runs; or when the share
of its documents whose content is found nowhere else exceeds `max_delete_share`.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from typing import Any

from es_imgsearch.elastic.leases import now_iso
from es_imgsearch.elastic.retry import Outage, persist
from es_imgsearch.elastic.state import Document, pause_id
from es_imgsearch.elastic.store import Store
from es_imgsearch.records import FileState, Root, image_id
from es_imgsearch.watch.reconcile import Prunes, is_looked_at

logger = logging.getLogger(__name__)

# A share says nothing of a folder of five pictures.
SHARE_COUNTS_FROM = 20

# A slow `rm -r` arrives as many small deletions; they are judged together for this long.
_WINDOW_SECONDS = 600.0

_CHUNK = 500


class PauseKind(StrEnum):
    UNLISTABLE = "unlistable"
    OTHER_DEVICE = "other_device"
    EMPTY = "empty"
    SHARE = "share"


@dataclass(frozen=True, slots=True)
class Pause:
    """Why a root's deletions wait for somebody to say that they are meant."""

    kind: PauseKind
    reason: str
    pictures: int
    # The folder is surely not there; a mount that answers with an error is not missing.
    is_missing: bool = False

    def words(self, root: Root, index: str) -> str:
        told = f"Deletions in {root.name!r} are paused: {self.reason}. Nothing was deleted;"
        if self.kind is PauseKind.UNLISTABLE and not self.is_missing:
            return f"{told} they go on when the folder can be listed."
        return (
            f"{told} if it is meant, run `es-imgsearch sync {root.name}={root.path} --index {index}"
            " --allow-deletes`, with the same --exclude."
        )


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


# Deletions that wait for somebody, in the log and in a state document for other processes.
#
#     deletions.Pause ────────▶ DeletionPauses ──▶ pause:NAME
#     sync --allow-deletes ──────────────▶ pause:NAME with ended_at ──▶ DeletionPauses.ended
#
# A pause that ended keeps its document, as the permission to delete: a document that is missing,
# such as after the state was restored from a snapshot, permits nothing.


class DeletionPauses:
    """The pauses of one process; `standing` has them by the root's name."""

    def __init__(self, store: Store, closing: threading.Event, outage: Outage) -> None:
        """Writing the state is tried until `closing` is set."""
        self.standing: dict[str, Pause] = {}
        self._index = store.index
        self._state = store.state
        self._closing = closing
        self._outage = outage
        # A pause of a root that is not among these may stand from a process before.
        self._told: set[str] = set()

    def tell(self, root: Root, pause: Pause | None, *, is_complete: bool) -> None:
        """Log and enter the pause of a root as it was judged now, None for none.

        `is_complete` where all that the root lacks was judged.  Raises Stopped.
        """
        before = self.standing.get(root.name)
        is_known = root.name in self._told or not (pause or is_complete)
        if pause == before and is_known:
            return
        if pause is not None:
            self.standing[root.name] = pause
            if before is None or before.kind != pause.kind:
                logger.warning("%s", pause.words(root, self._index))
        elif before is not None:
            del self.standing[root.name]
            logger.warning("Deletions in %r go on.", root.name)
        self._enter(root, pause, is_known=before is not None)
        self._told.add(root.name)

    def ended(self, roots: Sequence[Root]) -> list[Root]:
        """Those of these roots whose pause another process ended: `sync --allow-deletes` ran.

        They are not `standing` any more.  Raises Stopped, and what the store does.
        """
        paused = [root for root in roots if root.name in self.standing]
        if not paused:
            return []
        found = self._state.read_many([pause_id(root.name) for root in paused])
        ended = []
        for root in paused:
            document = found.get(pause_id(root.name))
            if document is None:
                self._enter(root, self.standing[root.name])
            elif "ended_at" in document:
                ended.append(root)
        for root in ended:
            del self.standing[root.name]
            logger.warning("Deletions in %r go on.", root.name)
        return ended

    def _enter(self, root: Root, pause: Pause | None, *, is_known: bool = False) -> None:
        persist(
            lambda: self._state.update(
                pause_id(root.name),
                lambda document: _with_pause(document, root.name, pause, is_known=is_known),
            ),
            self._closing,
            self._outage,
        )


def _with_pause(
    document: Document | None, name: str, pause: Pause | None, *, is_known: bool
) -> Document | None:
    """The document of a pause; `is_known` where this process entered one that it has not ended."""
    has_ended = document is None or "ended_at" in document
    if pause is None:
        return None if document is None or has_ended else {**document, "ended_at": now_iso()}
    if document is not None and has_ended and is_known:
        # Another process permitted deletions a moment ago; `ended` finds that.
        return None
    return {
        "kind": "pause",
        "root": name,
        "since": now_iso() if document is None or has_ended else document["since"],
        "body": {"reason": pause.reason, "pictures": pause.pictures},
    }


def standing_pause(document: Document | None) -> dict[str, Any] | None:
    """Reason, pictures and since of a pause that has not ended, as `status` shows it."""
    if document is None or "ended_at" in document:
        return None
    return {**document["body"], "since": document["since"]}
