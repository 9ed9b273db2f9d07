"""Deletions that wait for somebody: the log tells of them, and `_meta` tells other processes.

deletions.Pause ──▶ Pauses ──▶ _meta: roots.NAME.deletions_paused
`sync --allow-deletes` ──────▶ _meta: roots.NAME.deletions_allowed + 1 ──▶ Pauses.ended
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from es_imgsearch.backoff import Outage, persist
from es_imgsearch.deletions import Pause
from es_imgsearch.mapping import Meta
from es_imgsearch.records import Root
from es_imgsearch.store import Store

logger = logging.getLogger(__name__)


class Pauses:
    """The pauses of one process; `standing` has them by the root's name."""

    def __init__(self, store: Store, closing: threading.Event, outage: Outage) -> None:
        """What is entered in `_meta` is tried until `closing` is set."""
        self.standing: dict[str, Pause] = {}
        self._store = store
        self._closing = closing
        self._outage = outage
        # Pauses that this process has not told of may stand in `_meta` from one before.
        self._told: set[str] = set()
        # How often deletions had been allowed when the pause was told.
        self._allowed: dict[str, int] = {}

    def tell(self, root: Root, pause: Pause | None, *, is_complete: bool) -> None:
        """The pause of a root as it was judged now, None for none.

        `is_complete` where all that the root lacks was judged.  Raises Stopped.
        """
        before = self.standing.get(root.name)
        is_known = root.name in self._told or not (pause or is_complete)
        if pause == before and is_known:
            return
        if pause is not None:
            self.standing[root.name] = pause
            if before is None or before.kind != pause.kind:
                logger.warning("%s", pause.words(root, self._store.index))
        elif before is not None:
            del self.standing[root.name]
            logger.warning("Deletions in %r go on.", root.name)
        self._enter(root, pause)
        self._told.add(root.name)

    def ended(self, roots: Sequence[Root]) -> list[Root]:
        """Those of these roots of which `_meta` says no more that they are paused.

        `sync --allow-deletes` ran; they are not `standing` any more.  Raises Stopped, and what the
        store does.
        """
        paused = [root for root in roots if root.name in self.standing]
        if not paused:
            return []
        entries = self._store.info().meta.roots
        ended = []
        for root in paused:
            entry = entries.get(root.name, {})
            if "deletions_paused" in entry:
                continue
            if entry.get("deletions_allowed", 0) > self._allowed.get(root.name, 0):
                ended.append(root)
            else:
                # Nobody allowed anything: another writer of `_meta` came between.
                self._enter(root, self.standing[root.name])
        for root in ended:
            del self.standing[root.name]
            logger.warning("Deletions in %r go on.", root.name)
        return ended

    def _enter(self, root: Root, pause: Pause | None) -> None:
        meta = persist(
            lambda: self._store.update_meta(lambda meta: _with_pause(meta, root.name, pause)),
            self._closing,
            self._outage,
        )
        self._allowed[root.name] = meta.roots.get(root.name, {}).get("deletions_allowed", 0)


def _with_pause(meta: Meta, name: str, pause: Pause | None) -> Meta:
    """The end of a pause leaves a mark, since its absence alone may be a lost update."""
    if name not in meta.roots:
        return meta  # released meanwhile
    entry = {key: value for key, value in meta.roots[name].items() if key != "deletions_paused"}
    if pause is None and "deletions_paused" in meta.roots[name]:
        entry["deletions_allowed"] = entry.get("deletions_allowed", 0) + 1
    if pause is not None:
        before = meta.roots[name].get("deletions_paused", {})
        since = before.get("since") or datetime.now(tz=UTC).isoformat(timespec="seconds")
        entry["deletions_paused"] = {
            "reason": pause.reason,
            "pictures": pause.pictures,
            "since": since,
        }
    return replace(meta, roots={**meta.roots, name: entry})
