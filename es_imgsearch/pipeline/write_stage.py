"""Write documents in bulks until each item is acknowledged or refused.

`Documents.write` (elastic/documents.py) sends a bulk; `BulkWriter` (elastic/bulk.py) decides what
is sent again.  A document that is refused for good is replaced by its failure, class `rejected`.
The stage has a thread and a queue of its own, so that encoders go on while Elasticsearch works.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence

from es_imgsearch.elastic.bulk import BulkWriter
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.retry import Outage
from es_imgsearch.errors import ReadError, StoreError
from es_imgsearch.pipeline.jobs import PendingWrite, Unembedded
from es_imgsearch.pipeline.queues import batches

logger = logging.getLogger(__name__)

# 200 documents of 512 dims are 1 MB of JSON; a larger bulk writes no more documents a second.
_WRITE_BATCH = 200

# Items of one bulk, each with its own result.
Bulk = Callable[[Sequence[Write]], Mapping[str, StoreError | None]]


class WriteStage:
    """Write with a `BulkWriter`; `run` is the loop of the stage's thread.

    A document that is refused for good is replaced by its fallback, which is written next.
    `emit` gets each item that is stored, and each file whose failure cannot be stored either.
    """

    def __init__(
        self,
        bulk: Bulk,
        *,
        emit: Callable[[PendingWrite | Unembedded], None],
        outage: Outage,
        stopping: threading.Event,
    ) -> None:
        self._bulk = bulk
        self._emit = emit
        self._writer = BulkWriter(self._send, outage=outage, stopping=stopping)
        self._queue: queue.SimpleQueue[PendingWrite | None] = queue.SimpleQueue()

    def put(self, item: PendingWrite | Unembedded) -> None:
        """Queue a document; pass on a file without one."""
        if isinstance(item, PendingWrite):
            self._queue.put(item)
        else:
            self._emit(item)

    def close(self) -> None:
        """Let `run` return after the documents that are queued now."""
        self._queue.put(None)

    def run(self) -> None:
        """Write until `close`.  Raises Stopped in an outage that outlasts the pipeline."""
        for batch in batches(self._queue, _WRITE_BATCH, 0.0):
            self.write(batch)

    def write(self, batch: Sequence[PendingWrite]) -> None:
        """Write a batch until each item is acknowledged or refused; raises as `run`."""
        for ready, error in self._writer.write(batch, self._queued):
            if error is None:
                self._emit(ready)
            elif ready.fallback is not None:
                self._queue.put(ready.fallback(error))
            else:
                logger.error("A failure could not be stored: %s", error)
                self._emit(Unembedded(ready.job, ReadError("unstored", str(error))))

    def _queued(self) -> list[PendingWrite]:
        """Take what is queued now, without waiting."""
        queued: list[PendingWrite] = []
        while len(queued) < _WRITE_BATCH:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is None:
                # `run` ends with it; nothing is queued behind it.
                self._queue.put(None)
                break
            queued.append(item)
        return queued

    def _send(self, batch: Sequence[PendingWrite]) -> list[StoreError | None]:
        results = self._bulk([ready.write for ready in batch])
        return [results[ready.write.image_id] for ready in batch]
