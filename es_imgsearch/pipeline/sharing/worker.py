"""Work on the given partition of a root, and on those whose workers are gone.

    lease `worker:KEY`   of the worker that partition KEY is given to: it lives
    lease `daemon:KEY`   of whoever works on partition KEY now, see `WorkedPartition`

Each partition has a daemon of its own with its own pipeline; they share the model.  A worker takes
its own partition as soon as it is free, and another's once that worker and whoever held the
partition have not renewed their leases for `lease_seconds`.  It gives it back when that worker is
there again: it finishes what is in flight and releases the lease, which the other then takes.

A daemon asks its lease before each bulk, see `elastic.leases`.  One that has lost it ends, and
the partition is watched from outside again.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from functools import partial

from es_imgsearch.elastic.leases import Lease
from es_imgsearch.elastic.leases.division import check_division, divide
from es_imgsearch.elastic.retry import Outage, Stopped, persist
from es_imgsearch.elastic.state import worker_id
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import ImgSearchError
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.pipeline.sharing.part import RELEASE_SECONDS, WorkedPartition
from es_imgsearch.records import Partition, Root
from es_imgsearch.records.partition import partitions
from es_imgsearch.settings import Settings

logger = logging.getLogger(__name__)

# How often leases are looked at within `lease_seconds`.
_LOOKS = 10


class Worker:
    """Watch one partition of a root, and others while their workers are gone."""

    def __init__(
        self,
        root: Root,
        partition: Partition,
        store: Store,
        settings: Settings,
        open_indexer: Callable[[Root], Indexer],
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        """`open_indexer` opens the pipeline on the partition of a root."""
        self.root, self._store, self._settings = root, store, settings
        self._open_indexer = open_indexer
        self._on_ready = on_ready
        self.outage = Outage(store.check_busy)
        self._stop = threading.Event()
        # See `Daemon`.
        self._stop_requests: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.parts = [
            WorkedPartition(root, each, store, settings) for each in partitions(partition.count)
        ]
        self._own = self.parts[partition.number - 1]
        self._home = Lease(
            store.state,
            {worker_id(self._own.root.key): {"kind": "worker", "root": root.name}},
            settings.host,
            f"the worker of partition {self._own.root.key!r} of index {store.index!r}",
            lease_seconds=settings.lease_seconds,
            trusts_clocks=False,
        )

    def stop(self) -> None:
        """Begin to stop; safe in a signal handler, as `Daemon.stop`."""
        self._stop_requests.put(None)

    def _await_stop(self) -> None:
        self._stop_requests.get()
        self._stop.set()

    def run(self) -> bool:
        """Work until stopped; False if files in flight were given up.

        Raises AlreadyRunning if this partition has a worker, or workers of another division are at
        work, and what a daemon raises.
        """
        partition, settings = self._own.partition, self._settings
        threading.Thread(target=self._await_stop, name="stop", daemon=True).start()
        try:
            home = partial(self._home.acquire, self._stop, self._own.look)
            persist(home, self._stop, self.outage)
            persist(
                lambda: divide(
                    self._store.state, self.root.name, partition.count, settings.host,
                    lease_seconds=settings.lease_seconds, stopping=self._stop,
                ), self._stop, self.outage,
            )  # fmt: skip
            self._loop()
        except Stopped:
            pass
        finally:
            for each in self.parts:
                each.stop()
            for each in self.parts:
                each.join()
            self._home.release()
            self._home.join(RELEASE_SECONDS)
        return all(each.drained for each in self.parts)

    def _loop(self) -> None:
        was_ready = False
        while not self._stop.is_set():
            try:
                self._home.check()
                self._look()
            except ImgSearchError as error:
                if not error.transient:
                    raise
                self.outage.begin(error, "worker")
            else:
                self.outage.end("worker")
            if self._own.is_ready and not was_ready:
                was_ready = True
                self._on_ready()
            self._stop.wait(self._settings.lease_seconds / _LOOKS)

    def _look(self) -> None:
        check_division(self._store.state, self.root.name, self._own.partition.count)
        for each in self.parts:
            each.end_if_lost()
            each.look()
            if each is self._own:
                if not each.is_worked:
                    each.try_start(self._open_indexer)
            elif each.is_worked:
                self._give_back(each)
            else:
                self._take_over(each)

    def _take_over(self, other: WorkedPartition) -> None:
        """Take a partition whose worker has been gone for `lease_seconds`."""
        if other.is_left() and other.try_start(self._open_indexer):
            logger.warning(
                "Nobody has worked on partition %s of %r for %.0f s: this worker, that of %s, takes"
                " it over until its worker is there.",
                other.partition, self.root.name, self._settings.lease_seconds,
                self._own.partition,
            )  # fmt: skip

    def _give_back(self, other: WorkedPartition) -> None:
        """Release a partition whose worker is there again."""
        if not other.is_worker_there():
            return
        logger.info(
            "The worker of partition %s of %r is there: it goes on there.",
            other.partition, self.root.name,
        )  # fmt: skip
        other.stop()
        other.join()
