"""Log deletions that wait for permission, and share them with other processes.

    DeletionGuard ──Pause──▶ DeletionPauses ──▶ document pause:NAME
    sync --allow-deletes ──▶ pause:NAME with ended_at ──▶ DeletionPauses.take_ended

A pause that ended keeps its document as the permission to delete.  A missing document, for
example after the state was restored from a snapshot, permits nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Any

from es_imgsearch.elastic.leases import now_iso
from es_imgsearch.elastic.leases.division import division_of
from es_imgsearch.elastic.retry import Outage, persist
from es_imgsearch.elastic.state import Document, pause_id
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import counted
from es_imgsearch.records import Root
from es_imgsearch.records.partition import partitions
from es_imgsearch.watch.commands import permitting_command

logger = logging.getLogger(__name__)

_ENDED = "Deletions in %r are no longer paused."


class PauseKind(StrEnum):
    """Reason for a pause of deletions."""

    UNLISTABLE = "unlistable"
    OTHER_DEVICE = "other_device"
    EMPTY = "empty"
    SHARE = "share"


@dataclass(frozen=True, slots=True)
class Pause:
    """Reason why a root's deletions wait for permission."""

    kind: PauseKind
    reason: str
    pictures: int
    # Pictures deleted before the pause, in the same call or, for a share, within two days.
    deleted: int = 0
    # There is no such folder; a mount that answers with another error is not missing.
    is_missing: bool = False

    def message(self, root: Root, index: str, options: Sequence[str] = ()) -> str:
        """Return the event and the remedy, with the options of `walk_options`."""
        done = "Nothing was removed from the index"
        if self.deleted:
            were = counted(self.deleted, "picture was", "pictures were")
            done = f"{were} removed from the index before, nothing more was"
        start = f"Deletions in {root.name!r} are paused: {self.reason}. {done};"
        if self.kind is PauseKind.UNLISTABLE and not self.is_missing:
            return f"{start} the pause ends when the folder can be listed."
        return f"{start} if they are meant, run `{permitting_command(root, index, options)}`."


class DeletionPauses:
    """The pauses of one process; `active` maps a root's name to its pause."""

    def __init__(
        self,
        store: Store,
        closing: threading.Event,
        outage: Outage,
        options: Sequence[str] = (),
    ) -> None:
        """Retry writes until `closing` is set; `options` are of `walk_options`."""
        self._options = options
        self.active: dict[str, Pause] = {}
        self._index = store.index
        self._state = store.state
        self._closing = closing
        self._outage = outage
        # Roots on another device than this process remembers.
        self._on_other_device: set[str] = set()

    def begin(self, root: Root, pause: Pause) -> None:
        """Log and store the current pause of a root.  Raises Stopped."""
        if pause.kind is PauseKind.OTHER_DEVICE:
            self._on_other_device.add(root.name)
        self._begin(root, pause)

    def hold(self, root: Root) -> bool:
        """Begin another process's pause for another device; False without one.

        This one may have begun after that device was mounted: it cannot judge.  Raises Stopped.
        """
        if root.name in self._on_other_device:
            return False
        document = persist(lambda: self.read(root), self._closing, self._outage)
        stored = active_pause(document)
        if stored is None or stored.get("kind") != PauseKind.OTHER_DEVICE:
            return False
        self._begin(root, Pause(PauseKind.OTHER_DEVICE, stored["reason"], stored["pictures"]))
        return True

    def _begin(self, root: Root, pause: Pause) -> None:
        before = self.active.get(root.name)
        if pause == before:
            return
        self.active[root.name] = pause
        if _is_news(pause) and (before is None or before.kind != pause.kind):
            logger.warning("%s", pause.message(root, self._index, self._options))
        self._save(
            root, lambda document: _with_pause(document, root.name, pause, is_known=bool(before))
        )

    def end(self, root: Root, seen: Document | None, *, is_permitted: bool) -> bool:
        """End a root's pause, all missing files being checked; False for another pause.

        `seen` is its document when the comparison began: a pause that began later, in another
        process perhaps, is of what this one has not seen, and ends only if `is_permitted`.
        Raises Stopped.
        """
        if not is_permitted and root.name not in self.active and active_pause(seen) is None:
            return True

        def ended(document: Document | None) -> Document | None:
            is_other = document != seen and not is_permitted
            if document is None or "ended_at" in document or is_other:
                return None
            return {**document, "ended_at": now_iso()}

        if active_pause(self._save(root, ended)) is not None:
            return False
        self._on_other_device.discard(root.name)
        pause = self.active.pop(root.name, None)
        if pause is not None and _is_news(pause):
            logger.info(_ENDED, root.name)
        return True

    def end_parts(self, root: Root) -> None:
        """End the pauses of a root's partitions: all that is missing was permitted to go."""
        count = persist(lambda: division_of(self._state, root.name), self._closing, self._outage)
        for partition in partitions(count) if count > 1 else ():
            self._save(replace(root, partition=partition), _ended)

    def read(self, root: Root) -> Document | None:
        """Read the document of a root's pause.  Raises the store's errors."""
        read = self._state.read(pause_id(root.key))
        return None if read is None else read.document

    def take_ended(self, roots: Sequence[Root]) -> list[Root]:
        """Remove and return the roots whose pause `sync --allow-deletes` ended elsewhere.

        Raises Stopped, and the store's errors.
        """
        paused = [root for root in roots if root.name in self.active]
        if not paused:
            return []
        documents = self._state.read_many([pause_id(root.key) for root in paused])
        ended = []
        for root in paused:
            document = documents.get(pause_id(root.key))
            if document is None:
                pause = self.active[root.name]
                self._save(root, partial(_with_pause, name=root.name, pause=pause))
            elif "ended_at" in document:
                ended.append(root)
        for root in ended:
            del self.active[root.name]
            self._on_other_device.discard(root.name)
            logger.info(_ENDED, root.name)
        return ended

    def _save(
        self, root: Root, change: Callable[[Document | None], Document | None]
    ) -> Document | None:
        return persist(
            lambda: self._state.update(pause_id(root.key), change), self._closing, self._outage
        )


def _ended(document: Document | None) -> Document | None:
    is_active = document is not None and "ended_at" not in document
    return {**document, "ended_at": now_iso()} if document is not None and is_active else None


def _is_news(pause: Pause) -> bool:
    """Return False for a folder that never came: there is nothing to delete of it."""
    return bool(pause.pictures) or pause.kind is not PauseKind.UNLISTABLE


def _with_pause(
    document: Document | None, name: str, pause: Pause, *, is_known: bool = False
) -> Document | None:
    """Return the new document, None to leave it.

    `is_known`: this process stored the pause.
    """
    has_ended = document is None or "ended_at" in document
    if document is not None and has_ended and is_known:
        # Another process has just permitted deletions, which `take_ended` finds.
        return None
    return {
        "kind": "pause",
        "root": name,
        "since": now_iso() if document is None or has_ended else document["since"],
        "body": {"reason": pause.reason, "pictures": pause.pictures, "kind": pause.kind},
    }


def active_pause(document: Document | None) -> dict[str, Any] | None:
    """Return reason, pictures and since of a pause that has not ended, else None."""
    if document is None or "ended_at" in document:
        return None
    return {**document["body"], "since": document["since"]}
