"""Lock for building, dropping or cancelling a generation.

It is the lease `lock:reindex`.  A second process is refused once it has seen the first one renew
its lease, within `lease_seconds` / 4.  After a crash the next process waits until the lease has
expired.
"""

from __future__ import annotations

import socket
from typing import Any

from es_imgsearch.elastic.leases import LEASE_SECONDS, Lease, is_running
from es_imgsearch.elastic.state import REINDEX_LOCK
from es_imgsearch.elastic.store import Store


class ReindexLock(Lease):
    """Lease on the generations of an index.

    Its body names the one that is being built.  Entering it raises AlreadyRunning if another
    process holds it.
    """

    def __init__(
        self, store: Store, host: str | None = None, *, lease_seconds: float = LEASE_SECONDS
    ) -> None:
        self._generation: str | None = None
        super().__init__(
            store.state,
            {REINDEX_LOCK: {"kind": "lock"}},
            host or socket.gethostname(),
            f"working on the generations of index {store.index!r}",
            lease_seconds=lease_seconds,
            body=lambda: {"generation": self._generation},
        )

    def note_generation(self, generation: str) -> None:
        """Have `status` show which generation is being built.

        Raises AlreadyRunning if the lock is lost.
        """
        self._generation = generation
        self.confirm()


def builders(store: Store) -> dict[str, dict[str, Any]]:
    """Process that builds a generation, or did until it was killed, by generation."""
    lease = store.state.read_many([REINDEX_LOCK]).get(REINDEX_LOCK)
    if lease is None or lease["body"]["generation"] is None:
        return {}
    shown = {name: lease[name] for name in ("host", "process_id", "since", "seen_at")}
    return {lease["body"]["generation"]: {**shown, "is_alive": is_running(lease)}}
