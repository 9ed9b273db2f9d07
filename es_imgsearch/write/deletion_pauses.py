"""Log deletions that wait for permission, and share them with other processes.

    DeletionGuard ──Pause──▶ DeletionPauses ──▶ document pause:NAME
    sync --allow-deletes ──▶ pause:NAME with ended_at ──▶ DeletionPauses.take_ended

A pause that ended keeps its document as the permission to delete.  A missing document, for
example after the state was restored from a snapshot, permits nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from es_imgsearch.elastic.leases import now_iso
from es_imgsearch.elastic.retry import Outage, persist
from es_imgsearch.elastic.state import Document, pause_id
from es_imgsearch.elastic.store import Store
from es_imgsearch.records import Root

logger = logging.getLogger(__name__)


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
