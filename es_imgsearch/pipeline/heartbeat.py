"""What a daemon tells of itself in `_meta`, for `status`: its queue and its last comparisons.

Elasticsearch is the only state, so `status` asks there and finds a daemon on any host.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import ImgSearchError
from es_imgsearch.pipeline.jobs import RootComparison
from es_imgsearch.records import Root

logger = logging.getLogger(__name__)

# Writing `_meta` changes the cluster's state: at most so often, and only what is new.
_TELL_SECONDS = 30.0
# Told again when nothing is new, so that `status` can see that the daemon lives.
ALIVE_SECONDS = 300.0


def note_passes(
    store: Store, passes: Mapping[str, RootComparison], encoder_plan: Mapping[str, Any] | None
) -> None:
    """Enter what the last comparison of these roots found, and how the encoder ran."""
    store.generations.update_meta(lambda meta: _with_entries(meta, _passes(passes, encoder_plan)))


def is_alive(watched_by: Mapping[str, Any]) -> bool:
    """Whether this daemon has told of itself in the last ten minutes; it was killed if not."""
    silent_for = _now() - datetime.fromisoformat(watched_by["seen_at"])
    return silent_for <= timedelta(seconds=2 * ALIVE_SECONDS)


def is_watched(entry: Mapping[str, Any]) -> bool:
    """Whether a daemon keeps the root that `_meta` has this entry of."""
    watched_by = entry.get("watched_by")
    return watched_by is not None and is_alive(watched_by)


class Presence:
    """Tells of one daemon, from a thread of its own, until it is closed.

    `queue` gives the number of files on their way, `passes` the last whole comparison of each
    root.  What cannot be told is left out: a daemon never waits for this.
    """

    def __init__(
        self,
        store: Store,
        roots: Sequence[Root],
        host: str,
        *,
        queue: Callable[[], int],
        passes: Mapping[str, RootComparison],
        encoder_plan: Callable[[], Mapping[str, Any] | None] = lambda: None,
    ) -> None:
        self._store = store
        self._roots = roots
        self._queue = queue
        self._passes = passes
        self._encoder_plan = encoder_plan
        self._me = {"host": host, "process_id": os.getpid(), "since": _iso(_now())}
        self._told: Mapping[str, Any] | None = None
        self._told_at = _now()
        self._news = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="presence", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def tell(self) -> None:
        """Something is new that should not wait, such as a comparison that ended."""
        self._news.set()

    def leave(self) -> None:
        """Begin to say that the daemon is gone."""
        self._closing.set()
        self._news.set()

    def join(self, seconds: float) -> None:
        """Wait until that is said, or cannot be said in time."""
        self._thread.join(seconds)

    def _loop(self) -> None:
        while not self._closing.is_set():
            self._try(self._write)
            self._news.wait(_TELL_SECONDS)
            self._news.clear()
        self._try(self._leave)

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        except ImgSearchError as error:
            logger.debug("The daemon's state was not told: %s", error)

    def _write(self) -> None:
        now = _now()
        entries = _passes(dict(self._passes), self._encoder_plan())
        news = {"queue": self._queue(), **entries}
        if news == self._told and now - self._told_at < timedelta(seconds=ALIVE_SECONDS):
            return
        mine = {**self._me, "queue": news["queue"], "seen_at": _iso(now)}
        for root in self._roots:
            entries[root.name] = {**entries.get(root.name, {}), "watched_by": mine}
        self._store.generations.update_meta(lambda meta: _with_entries(meta, entries))
        self._told, self._told_at = news, now

    def _leave(self) -> None:
        def left(meta: Meta) -> Meta:
            roots = dict(meta.roots)
            for root in self._roots:
                entry = roots.get(root.name, {})
                by = entry.get("watched_by", {})
                # Another daemon may have taken over.
                if all(by.get(name) == value for name, value in self._me.items()):
                    roots[root.name] = {k: v for k, v in entry.items() if k != "watched_by"}
            return replace(meta, roots=roots)

        self._store.generations.update_meta(left)


def _passes(
    passes: Mapping[str, RootComparison], encoder_plan: Mapping[str, Any] | None
) -> dict[str, dict[str, Any]]:
    return {
        name: {"last_reconcile": each.to_dict(), "encoder_plan": encoder_plan}
        for name, each in passes.items()
    }


def _with_entries(meta: Meta, entries: Mapping[str, Mapping[str, Any]]) -> Meta:
    """Roots that were released meanwhile stay released."""
    roots = dict(meta.roots)
    for name, entry in entries.items():
        if name in roots:
            roots[name] = {**roots[name], **entry}
    return replace(meta, roots=roots)


def _now() -> datetime:
    return datetime.now(tz=UTC)


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
