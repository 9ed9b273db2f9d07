"""One partition of a root: its lease, and the daemon that works on it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from es_imgsearch.elastic.leases import Lease, holder
from es_imgsearch.elastic.leases.claim import running_seconds
from es_imgsearch.elastic.leases.division import check_division, divide
from es_imgsearch.elastic.state import Version, daemon_id, worker_id
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import AlreadyRunning
from es_imgsearch.pipeline.daemon import Daemon
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.pipeline.jobs import Counts
from es_imgsearch.records import Partition, Root
from es_imgsearch.settings import Settings

logger = logging.getLogger(__name__)

# How long a missing answer may delay the end of the process.
RELEASE_SECONDS = 5.0


class _Seen:
    """When a state document changed last, by our own clock; None if it is missing."""

    def __init__(self) -> None:
        self._versions: list[Version | None] = []
        self._since = running_seconds()

    def look(self, version: Version | None) -> None:
        """Note the present version."""
        if not self._versions or version != self._versions[-1]:
            self._versions = [*self._versions[-1:], version]
            self._since = running_seconds()

    def is_quiet(self, seconds: float) -> bool:
        """Return True if it has neither been renewed nor come or gone for so long."""
        return bool(self._versions) and running_seconds() - self._since >= seconds

    def is_renewed(self, seconds: float) -> bool:
        """Return True if it was written since the first look, and lately."""
        has_changed = len(self._versions) > 1 and self._versions[-1] is not None
        return has_changed and not self.is_quiet(seconds)


def partition_lease(store: Store, root: Root, settings: Settings) -> Lease:
    """Return a new lease on the partition of a root."""
    exclude, follow_links = list(settings.exclude), settings.follow_links
    return Lease(
        store.state,
        {daemon_id(root.key): {"kind": "daemon", "root": root.name}},
        settings.host,
        f"working on partition {root.key!r} of index {store.index!r}",
        lease_seconds=settings.lease_seconds,
        body=lambda: {"queue": 0, "exclude": exclude, "follow_links": follow_links},
        trusts_clocks=False,
    )


@contextmanager
def held_partition(store: Store, root: Root, settings: Settings) -> Iterator[None]:
    """Hold the lease of a root's partition for one pass; what `store` writes asks it.

    Raises AlreadyRunning if another process works on it, or on a partition of another division.
    """
    never = threading.Event()
    seconds, count = settings.lease_seconds, root.partition.count if root.partition else 1
    divide(store.state, root.name, count, settings.host, lease_seconds=seconds, stopping=never)
    lease = partition_lease(store, root, settings)
    lease.acquire(never)
    try:
        check_division(store.state, root.name, count)
        store.documents.before_write = lease.check_valid
        yield
    finally:
        lease.release()
        lease.join(RELEASE_SECONDS)


class WorkedPartition:
    """One partition of the root: its lease, and the daemon that works on it."""

    def __init__(self, root: Root, partition: Partition, store: Store, settings: Settings) -> None:
        self.root = replace(root, partition=partition)
        self.partition = partition
        self.is_ready = False
        self.drained = True
        self._store = store
        self._settings = settings
        self._lease = self._new_lease()
        self._daemon: Daemon | None = None
        self._indexer: Indexer | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._is_waiting = False
        # Of daemons that have ended.
        self._counted = Counts()
        self._seen, self._worker_seen = _Seen(), _Seen()

    @property
    def indexer(self) -> Indexer | None:
        """The indexer of the daemon, while there is one."""
        return self._indexer

    @property
    def counts(self) -> Counts:
        """Numbers of files since the start, by outcome."""
        indexer = self._indexer
        return self._counted if indexer is None else self._counted.plus(indexer.counts)

    @property
    def is_worked(self) -> bool:
        """True while this process has a daemon on it."""
        return self._thread is not None

    def look(self) -> None:
        """Look at the leases of the partition and of its worker."""
        state, key = self._store.state, self.root.key
        self._worker_seen.look(state.version(worker_id(key)))
        if not self.is_worked:
            self._seen.look(state.version(daemon_id(key)))
            self._lease.watch()

    def is_left(self) -> bool:
        """Return True if neither its worker nor whoever held it have shown up for so long."""
        seconds = self._settings.lease_seconds
        return self._worker_seen.is_quiet(seconds) and self._seen.is_quiet(seconds)

    def is_worker_there(self) -> bool:
        """Return True if its own worker lives."""
        return self._worker_seen.is_renewed(self._settings.lease_seconds)

    def try_start(self, open_indexer: Callable[[Root], Indexer]) -> bool:
        """Start a daemon if the lease is free.

        Raises AlreadyRunning if the root was divided anew.
        """
        if not self._lease.try_acquire():
            self._note_waiting()
            return False
        self._is_waiting = False
        try:
            check_division(self._store.state, self.root.name, self.partition.count)
            self._indexer = open_indexer(self.root)
        except BaseException:
            self._release()
            raise
        self._error = None
        self._daemon = Daemon(
            self._indexer, self._settings, on_ready=self._note_ready, lease=self._lease
        )
        self._thread = threading.Thread(
            target=self._run,
            args=(self._daemon, self._indexer),
            name=f"partition {self.partition}",
        )
        self._thread.start()
        return True

    def stop(self) -> None:
        """Begin to end the daemon; what is in flight is finished first."""
        if self._daemon is not None:
            self._daemon.stop()

    def join(self) -> None:
        """Wait for the end of the daemon; give the lease up."""
        if self._thread is not None:
            self._thread.join()
        self._end()

    def end_if_lost(self) -> bool:
        """Return True if the daemon lost its lease and has ended; raise its other error."""
        if self._thread is None or self._thread.is_alive():
            return False
        self._end()
        if isinstance(self._error, AlreadyRunning):
            logger.warning("Partition %s of %r: %s", self.partition, self.root.name, self._error)
            return True
        if self._error is not None:
            raise self._error
        return False

    def _run(self, daemon: Daemon, indexer: Indexer) -> None:
        try:
            self.drained = daemon.run() and self.drained
        except BaseException as error:  # noqa: BLE001 - raised by `end_if_lost`
            self._error = error
        finally:
            indexer.pipeline.close()

    def _end(self) -> None:
        self._release()
        self._counted = self.counts
        self._daemon = self._thread = self._indexer = None
        self.is_ready = False
        self._seen, self._worker_seen = _Seen(), _Seen()

    def _release(self) -> None:
        self._lease.release()
        self._lease.join(RELEASE_SECONDS)
        self._lease = self._new_lease()

    def _new_lease(self) -> Lease:
        return partition_lease(self._store, self.root, self._settings)

    def _note_ready(self) -> None:
        self.is_ready = True
        logger.info("Watching partition %s of %r.", self.partition, self.root.name)

    def _note_waiting(self) -> None:
        if self._is_waiting:
            return
        self._is_waiting = True
        if (read := self._store.state.read(daemon_id(self.root.key))) is not None:
            logger.info(
                "%s holds partition %s of %r: this goes on once it is free.",
                holder(read.document), self.partition, self.root.name,
            )  # fmt: skip
