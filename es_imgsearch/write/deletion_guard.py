"""Delete documents of missing files, unless the folder looks like a dropped mount.

A root's deletions pause if its folder is missing, cannot be listed, or is empty although the
index has documents of it; if its device changed while the process runs; or if too large a share of
its documents would be deleted whose content no other document has.  The share, with all that was
deleted within two days, may exceed `max_delete_share` neither of what the root held when it was
last whole, so that new files do not dilute it, nor of what it holds now.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any

from es_imgsearch.elastic.store import Store
from es_imgsearch.records import FileState, Root, image_id
from es_imgsearch.watch.mounts import KnownMounts
from es_imgsearch.watch.places import Prunes
from es_imgsearch.watch.presence import Presence, RootFiles
from es_imgsearch.watch.root_disk import RootDisk
from es_imgsearch.watch.sources import listing
from es_imgsearch.watch.sources.registry import source_of
from es_imgsearch.write.deletion_history import DeletionHistory, RootHistory, share_counts_from
from es_imgsearch.write.deletion_pauses import Pause, PauseKind
from es_imgsearch.write.field_memory import REMEMBERED_DOCUMENTS, FieldMemory
from es_imgsearch.write.pending_deletions import WholeRoot

IsNonPicture = Callable[[str, FileState], bool]

_CHUNK = 500


@dataclass(frozen=True, slots=True)
class DeletionResult:
    """The number of deleted pictures and their paths, and the pause if there is one."""

    pictures: int = 0
    paths: Sequence[str] = ()
    pause: Pause | None = None


@dataclass(frozen=True, slots=True)
class _Loss:
    """Ids of documents to lose, and which of them the last whole root held."""

    ids: frozenset[str]
    held: frozenset[str]


class DeletionGuard:
    """Check and carry out the deletions of one root at a time."""

    def __init__(
        self,
        store: Store,
        prunes: Callable[[Root], Prunes],
        *,
        mounts: KnownMounts | None = None,
        disk: Callable[[Root], RootDisk] = lambda _root: RootDisk(),
        memory: FieldMemory | None = None,
        max_delete_share: float,
        allow: bool = False,
        clock: Callable[[], float] = lambda: time.time(),
    ) -> None:
        self._store = store
        self._prunes = prunes
        self._disk = disk
        self._mounts = mounts or KnownMounts(store.state)
        self._memory = memory or FieldMemory()
        self._max_delete_share = max_delete_share
        self.is_permitted = allow
        self._clock = clock
        self._history = DeletionHistory(store.state, clock)
        self._devices: dict[str, int] = {}
        # What was deleted and is not in the history yet, by root: pictures, held ones.
        self._unnoted: dict[str, tuple[int, int]] = {}
        # What a call deleted before it failed, by root: the next call returns it as well.
        self._unreported: dict[str, DeletionResult] = {}

    def remember_device(self, root: Root) -> None:
        """Store the device of the root's file system, to detect another one mounted later."""
        self._devices.setdefault(root.name, _device(root))

    def resume(self, root: Root) -> None:
        """Forget the root's device and recent deletions.

        Called after its deletions were permitted.
        """
        self._devices.pop(root.name, None)
        self._history.permit(root)

    def begin_comparison(self, root: Root) -> WholeRoot:
        """Enter what a root holds that was not whole yet, before new files dilute it.

        Also remember its device.  Returns the root as it is stored now.
        """
        with suppress(OSError), self._disk(root).calling():
            self.remember_device(root)
        history = self._read_history(root)
        if history.pictures < share_counts_from(root):
            self._store.refresh()
            self._history.begin(root, self._document_count(root))
        return WholeRoot(self._document_count(root), self._clock())

    def note_whole(self, root: Root, whole: WholeRoot) -> None:
        """Note what the root holds, after all missing files of a comparison were deleted.

        What other processes have stored since it began may be of another disk.
        """
        self._note_deleted(root)
        self._store.refresh()
        count = min(self._document_count(root), whole.pictures)
        self._history.note_whole(
            root, count, compared_at=whole.began_at, is_permitted=self.is_permitted
        )

    def delete(
        self, root: Root, relative_paths: Sequence[str], is_non_picture: IsNonPicture
    ) -> DeletionResult:
        """Delete the documents of these paths whose files are missing, or pause.

        `is_non_picture` returns True for the id and state of a file that is no picture (any more).
        Every path is checked once more; additions must have been acknowledged before.
        """
        files = RootFiles(root, self._prunes(root), self._mounts.of(root), self._disk(root))
        looks = files.presences(
            [path for path in relative_paths if root.holds(path)],
            lambda path: partial(is_non_picture, image_id(root.name, path)),
        )
        missing = {
            image_id(root.name, path): path for path, found in looks if found is Presence.GONE
        }
        # After the paths, to detect a folder that vanished while they were checked.
        pause = self._check_folder(root, missing)
        if pause is None and missing:
            pause = self._delete(root, missing, files)
        deleted = self._unreported.pop(root.name, DeletionResult())
        if pause is not None:
            pause = replace(pause, deleted=max(pause.deleted, deleted.pictures))
        return replace(deleted, pause=pause)

    def _delete(self, root: Root, missing: Mapping[str, str], files: RootFiles) -> Pause | None:
        """Delete the documents of these ids, or return a pause."""
        contents: dict[str, Mapping[str, Any]] = {}
        stored: list[str] = []
        for chunk in _chunks(missing):
            chunk_contents = self._contents(chunk)
            contents |= chunk_contents
            # Only stored ids: deleting an absent one would leave a tombstone in the index.
            attempts = self._store.documents.attempts(chunk)
            stored += [each for each in chunk if each in chunk_contents or each in attempts]
        if not stored:
            return None
        self._note_deleted(root)
        history = self._read_history(root)
        loss = self._loss(contents, history)
        if not self.is_permitted and (pause := self._check_share(root, loss, history)) is not None:
            paths = [missing[each] for each in loss.ids]
            return replace(pause, reason=pause.reason.format(are_gone=_are_gone(files, paths)))

        def count_deleted(ids: Sequence[str]) -> None:
            # After each bulk, so that it counts even if a later one fails.
            before = self._unreported.get(root.name, DeletionResult())
            self._unreported[root.name] = DeletionResult(
                before.pictures + sum(each in contents for each in ids),
                [*before.paths, *(missing[each] for each in ids)],
            )
            self._note_deleted(root, _Loss(loss.ids & set(ids), loss.held & set(ids)))

        self._keep_fields(stored)
        self._store.documents.delete(stored, count_deleted)
        return None

    def _keep_fields(self, ids: Sequence[str]) -> None:
        """Remember the fields of documents that go; bring copies of them up to date."""
        for chunk in _chunks(ids[:REMEMBERED_DOCUMENTS]):
            documents = [each.source for each in self._store.documents.sources(chunk).values()]
            self._memory.put_gone(documents)
            for each in documents:
                if (later := self._memory.take_later(each)) is not None:
                    self._store.rewrites.rewrite([later.copy_id], later.apply)

    def _contents(self, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        return self._store.documents.stored_fields(ids, ["content_id", "indexed_at"])

    def _note_deleted(self, root: Root, loss: _Loss = _Loss(frozenset(), frozenset())) -> None:
        """Note a loss in the history, and those that could not be noted before."""
        pictures, held = self._unnoted.get(root.name, (0, 0))
        self._unnoted[root.name] = (pictures + len(loss.ids), held + len(loss.held))
        if self.is_permitted or not (pictures + len(loss.ids)):
            return
        self._history.note_deleted(root, *self._unnoted[root.name])
        del self._unnoted[root.name]

    def _check_folder(self, root: Root, missing: Mapping[str, str]) -> Pause | None:
        # An unreadable folder pauses deletions even if they are allowed.
        try:
            with self._disk(root).calling():
                if root.is_url:
                    source_of(os.fspath(root.path)).check()
                else:
                    os.scandir(root.path).close()
            if not missing:
                return None
            # Counts and look-ups must include all acknowledged documents.
            self._store.refresh()
            return None if self.is_permitted else self._check_replaced(root)
        except OSError as error:
            reason = f"its folder cannot be listed ({error.strerror})"
            is_missing = error.errno in {errno.ENOENT, errno.ENOTDIR}
            count = self._document_count(root)
            return Pause(PauseKind.UNLISTABLE, reason, count, is_missing=is_missing)

    def _check_replaced(self, root: Root) -> Pause | None:
        device = _device(root)
        if self._devices.setdefault(root.name, device) != device:
            return Pause(
                PauseKind.OTHER_DEVICE,
                "another file system is mounted there now",
                self._document_count(root),
            )
        if _is_empty(root, self._prunes(root)) and (count := self._document_count(root)):
            return Pause(
                PauseKind.EMPTY, f"its folder is empty while the index holds {count} of it", count
            )
        return None

    def _check_share(self, root: Root, loss: _Loss, history: RootHistory) -> Pause | None:
        if not loss.ids:
            return None
        total = self._document_count(root)
        recent = history.recent
        shares = [(len(loss.ids), recent, total + recent, "")]
        if loss.held:
            new = ", new ones not counted," if total > history.held else ""
            shares.insert(0, (len(loss.held), history.recent_held, history.held, new))
        for lost, before, held, new in shares:
            share = (lost + before) / max(1, held)
            if held >= share_counts_from(root) and share > self._max_delete_share:
                self._history.note_paused(root)
                together = f"with {before} removed within two days {lost + before} of {held}, "
                return Pause(
                    PauseKind.SHARE,
                    f"{lost} of its {held} pictures{new} {{are_gone}} ({together * bool(before)}"
                    f"{share:.0%}, more than max_delete_share, {self._max_delete_share:.0%})",
                    len(loss.ids),
                    deleted=recent,
                )
        return None

    def _loss(self, contents: Mapping[str, Mapping[str, Any]], history: RootHistory) -> _Loss:
        """Find the ids, of these, whose content no other document has."""
        with_copies: set[str] = set()
        content_ids = sorted(
            {each["content_id"] for each in contents.values() if "content_id" in each}
        )
        for start in range(0, len(content_ids), _CHUNK):
            for content_id, holder in self._store.listings.ids_by_content(
                content_ids[start : start + _CHUNK]
            ):
                if holder not in contents:
                    with_copies.add(content_id)
        lost = {
            each: fields.get("indexed_at")
            for each, fields in contents.items()
            if fields.get("content_id") not in with_copies
        }
        # Imported documents may have no time, and another machine's clock may be ahead: they count
        # as held.
        now = time.time()
        held = {
            each
            for each, at in lost.items()
            if at is None or not history.whole_at < _timestamp(at) <= now
        }
        return _Loss(frozenset(lost), frozenset(held))

    def _read_history(self, root: Root) -> RootHistory:
        return self._history.read(root, lambda: self._document_count(root))

    def _document_count(self, root: Root) -> int:
        return self._store.listings.count(root.name, root.partition)


def _device(root: Root) -> int:
    return source_of(os.fspath(root.path)).check() if root.is_url else os.stat(root.path).st_dev


def _is_empty(root: Root, prunes: Prunes) -> bool:
    if root.is_url:
        return listing.is_empty(root, prunes)
    with os.scandir(root.path) as entries:
        return all(prunes(entry.name, "", entry.is_dir(follow_symlinks=False)) for entry in entries)


def _are_gone(files: RootFiles, paths: Sequence[str]) -> str:
    """Say what became of these files, which are gone or hold no pictures any more."""
    present = sum(files.presence(each) is Presence.PRESENT for each in paths)
    if not present:
        return "are gone"
    return (
        "are no pictures any more" if present == len(paths) else "are gone or no pictures any more"
    )


def _timestamp(date: str) -> float:
    return datetime.fromisoformat(date).timestamp()


def _chunks(ids: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(ids)
    while chunk := list(islice(remaining, _CHUNK)):
        yield chunk
