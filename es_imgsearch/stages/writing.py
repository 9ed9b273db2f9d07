"""The last stage: what is to be written goes out in bulks until each item is acknowledged.

It has a thread and a queue of its own, so that encoders go on while Elasticsearch works.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence

from es_imgsearch.backoff import Outage, Stopped, waits
from es_imgsearch.errors import StoreDenied, StoreError, StoreRejected, StoreTooLarge
from es_imgsearch.recent import batches
from es_imgsearch.stages.jobs import Job, Ready
from es_imgsearch.store import Write

logger = logging.getLogger(__name__)

# 200 documents of 512 dims are 1 MB of JSON; a larger bulk writes no more documents a second.
_WRITE_BATCH = 200

# Who waits, to the outage.
_WRITING = "write"

# Items of one bulk, each with its own result.
Bulk = Callable[[Sequence[Write]], Mapping[str, StoreError | None]]


class WriteStage:
    """Bulks, tried again item by item; `run` is the loop of its thread.

    `acknowledged` is told of what is stored, `refused` of a document that never will be as it is,
    and why, and `unstored` of a failure that cannot even be noted.
    """

    def __init__(
        self,
        bulk: Bulk,
        *,
        acknowledged: Callable[[Ready], None],
        refused: Callable[[Ready, StoreError], None],
        unstored: Callable[[Job], None],
        outage: Outage,
        stopping: threading.Event,
    ) -> None:
        self._bulk = bulk
        self._acknowledged = acknowledged
        self._refused = refused
        self._unstored = unstored
        self._outage = outage
        self._stopping = stopping
        self._queue: queue.SimpleQueue[Ready | None] = queue.SimpleQueue()

    def put(self, ready: Ready) -> None:
        self._queue.put(ready)

    def end(self) -> None:
        """What is in the queue is the last; `run` returns after it."""
        self._queue.put(None)

    def run(self) -> None:
        """Write until `end`.  Raises Stopped in an outage that outlasts the pipeline."""
        for batch in batches(self._queue, _WRITE_BATCH, 0.0):
            self._write(batch)

    def _write(self, batch: Sequence[Ready]) -> None:
        pauses = waits()
        while batch:
            results = self._results(batch)
            retry: list[Ready] = []
            for ready in batch:
                error = results[ready.write.image_id]
                if error is None:
                    self._acknowledged(ready)
                elif error.transient:
                    retry.append(ready)
                elif isinstance(error, StoreDenied):
                    # No other document fares better.
                    raise error
                elif ready.write.failure is None:
                    self._refused(ready, error)
                else:
                    logger.error("A failure could not be stored: %s", error)
                    self._unstored(ready.job)
            if retry:
                if len(retry) < len(batch):
                    # It gets on, only not with all at once.
                    pauses = waits()
                else:
                    transient = next(r for r in results.values() if r is not None and r.transient)
                    self._outage.begins(transient, _WRITING)
                if self._stopping.wait(next(pauses)):
                    raise Stopped
            else:
                self._outage.ends(_WRITING)
            batch = retry

    def _results(self, batch: Sequence[Ready]) -> dict[str, StoreError | None]:
        """One result an id; a request refused as a whole is halved until the culprit is alone."""
        writes = [ready.write for ready in batch]
        try:
            return dict(self._bulk(writes))
        except (StoreTooLarge, StoreRejected) as error:
            if len(batch) == 1:
                return {writes[0].image_id: error}
            middle = len(batch) // 2
            return self._results(batch[:middle]) | self._results(batch[middle:])
        except StoreError as error:
            if not error.transient:
                raise
            return {write.image_id: error for write in writes}
