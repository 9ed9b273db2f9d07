"""A daemon's claim on its roots, and what `status` shows of it: queue and last comparisons.

Elasticsearch is the only state, so `status` reads it there and finds a daemon on any host.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from es_imgsearch.elastic.leases import Lease, is_alive
from es_imgsearch.elastic.retry import Outage, persist
from es_imgsearch.elastic.state import Document, State, comparison_id, daemon_id
from es_imgsearch.elastic.store import Store
from es_imgsearch.pipeline.jobs import RootComparison
from es_imgsearch.records import Root

logger = logging.getLogger(__name__)


def note_passes(
    store: Store, passes: Mapping[str, RootComparison], encoder_plan: Mapping[str, Any] | None
) -> None:
    """Enter what the last comparison of these roots found, and how the encoder ran."""
    state = store.state
    for name, each in passes.items():
        body = {**each.to_dict(), "encoder_plan": encoder_plan}
        _note(state, name, {"kind": "comparison", "root": name, "body": body})


def _note(state: State, name: str, document: Document) -> None:
    state.update(comparison_id(name), lambda _: document)


def watched_roots(store: Store, names: Sequence[str]) -> set[str]:
    """Those of these roots that a living daemon watches."""
    found = store.state.read_many([daemon_id(name) for name in names])
    return {lease["root"] for lease in found.values() if is_alive(lease)}


class Heartbeat:
    """Holds the roots of one daemon, from a thread of its own, until it is closed.

    `queue` gives the number of files on their way, `passes` the last whole comparison of each
    root.  What cannot be written is left out: a running daemon never waits for this.
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
        lease_seconds: float,
        closing: threading.Event,
        outage: Outage,
    ) -> None:
        self._store = store
        self._passes = passes
        self._encoder_plan = encoder_plan
        self._noted: Mapping[str, RootComparison] = {}
        self._closing = closing
        self._outage = outage
        names = ", ".join(repr(root.name) for root in roots)
        self._lease = Lease(
            store.state,
            {daemon_id(root.name): {"kind": "daemon", "root": root.name} for root in roots},
            host,
            f"watching {names} into index {store.index!r}",
            lease_seconds=lease_seconds,
            body=lambda: {"queue": queue()},
            renewed=self._note_passes,
        )

    def start(self) -> None:
        """Claim the roots; waits up to `lease_seconds` where a daemon was killed.

        Raises AlreadyRunning where another daemon watches one of them, Stopped when `closing` is
        set meanwhile.
        """
        persist(lambda: self._lease.acquire(self._closing), self._closing, self._outage)

    def tell(self) -> None:
        """Have something new written soon, such as a comparison that ended."""
        self._lease.renew_soon()

    def check(self) -> None:
        """Raise AlreadyRunning once another daemon has taken a root over."""
        self._lease.check()

    def leave(self) -> None:
        """Begin to give the roots up."""
        self._lease.release()

    def join(self, seconds: float) -> None:
        """Wait until they are given up, or cannot be in time."""
        self._lease.join(seconds)

    def _note_passes(self) -> None:
        # A copy: comparisons end in another thread.
        passes = dict(self._passes)
        news = {name: each for name, each in passes.items() if self._noted.get(name) != each}
        note_passes(self._store, news, self._encoder_plan())
        self._noted = {**self._noted, **news}
