"""Write documents in bulks until each item is acknowledged or refused.

`Documents.write` (elastic/documents.py) sends a bulk; `BulkWriter` (elastic/bulk.py) decides what
is sent again.  A document that is refused for good is replaced by its `fallback`, which
`DescribeStage` (describe_stage.py) makes: the document without the refused fields, or else a
failure of class `rejected`.  A failure that is refused is replaced by one of few fields.  Documents
that others wrote meanwhile are made again together: two processes may race for a whole folder.
The stage has a thread and a queue of its own, so that encoders go on while Elasticsearch works.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from es_imgsearch.elastic.bulk import BulkWriter
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.error_mapping import is_conflict
from es_imgsearch.elastic.retry import Outage, persist
from es_imgsearch.errors import ReadError, StoreError
from es_imgsearch.pipeline.jobs import Kept, PendingWrite, Unembedded
from es_imgsearch.pipeline.queues import batches
from es_imgsearch.records import FileState, utf8
from es_imgsearch.write.unreadable import keeps_document

logger = logging.getLogger(__name__)

# 200 documents of 512 dims are 1 MB of JSON; a larger bulk writes no more documents a second.
_WRITE_BATCH = 200

# A refresh costs Elasticsearch a segment: with 4 a second a bulk load took no longer, and a picture
# that comes alone is searchable 0.1 s after it was written (benchmarks/ingest_lag.py).
_REFRESH_EVERY_SECONDS = 0.25

# Items of one bulk, each with its own result.
Bulk = Callable[[Sequence[Write]], Mapping[str, StoreError | None]]


class PromptRefresh:
    """Decide which bulks are refreshed at once, not by the index's interval of 1 s.

    Those that carry all that is in flight, so under load none; at most 4 a second.
    """

    def __init__(
        self, in_flight: Callable[[], int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._in_flight, self._clock = in_flight, clock
        self._not_before = 0.0

    def is_due(self, writes: int) -> bool:
        """Return True if a bulk of so many documents is refreshed."""
        now = self._clock()
        if writes < self._in_flight() or now < self._not_before:
            return False
        self._not_before = now + _REFRESH_EVERY_SECONDS
        return True


class WriteStage:
    """Write with a `BulkWriter`; `run` is the loop of the stage's thread.

    A document that is refused for good is replaced by its fallback, which is written next.  A
    failure replaces no document of a picture: see `unreadable`.
    `emit` gets each item that is stored, each file whose failure cannot be stored either, and each
    that failed although its picture is stored.
    """

    def __init__(
        self,
        bulk: Bulk,
        states: Callable[[Sequence[str]], Mapping[str, FileState]],
        *,
        is_writable: Callable[[str], bool],
        emit: Callable[[PendingWrite | Unembedded | Kept], None],
        outage: Outage,
        stopping: threading.Event,
    ) -> None:
        """`states` looks up the stored states of the pictures, of these ids, in the index.

        `is_writable` returns True if something small can be written where an id goes.
        """
        self._bulk = bulk
        self._states = states
        self._emit = emit
        self._outage = outage
        self._stopping = stopping
        self._writer = BulkWriter(
            self._send,
            is_writable=lambda ready: is_writable(ready.write.image_id),
            outage=outage,
            stopping=stopping,
        )
        self._queue: queue.SimpleQueue[PendingWrite | None] = queue.SimpleQueue()
        self._outdated: list[PendingWrite] = []

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
        for ready, error in self._writer.write(self._without_stored(batch), self._queued):
            if error is None:
                self._emit(ready)
            elif ready.renewed is not None and is_conflict(error):
                self._outdated.append(ready)
            elif ready.fallback is not None:
                self._queue.put(ready.fallback(error))
            else:
                change = ready.job.change
                logger.error(
                    "%s in %r can be stored neither as a picture nor as a failure, and is left out"
                    " until it changes: %s",
                    utf8(change.relative_path), change.root.name, error,
                )  # fmt: skip
                self._emit(Unembedded(ready.job, ReadError("unstored", str(error))))

        self._renew()

    def _renew(self) -> None:
        """Queue what others wrote meanwhile once more."""
        outdated, self._outdated = self._outdated, []
        if outdated and (renewed := outdated[0].renewed) is not None:
            for ready in renewed(outdated):
                self._queue.put(ready)

    def _without_stored(self, batch: Sequence[PendingWrite]) -> list[PendingWrite]:
        """Leave out failures of files whose pictures are stored, and pass them on."""
        failed = [ready.write.image_id for ready in batch if ready.write.failure is not None]
        if not failed:
            return list(batch)
        stored = persist(lambda: self._states(failed), self._stopping, self._outage)
        left = []
        for ready in batch:
            failure, state = ready.write.failure, stored.get(ready.write.image_id)
            if failure is None or state is None:
                left.append(ready)
                continue
            error = ReadError(failure["error_class"], failure["message"])
            is_unknown = keeps_document(error.error_class, ready.signature.state, state)
            self._emit(Kept(ready.job, error, is_unknown))
        return left

    def _queued(self) -> list[PendingWrite]:
        """Take what is queued now, without waiting."""
        self._renew()
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
        return self._without_stored(queued)

    def _send(self, batch: Sequence[PendingWrite]) -> list[StoreError | None]:
        results = self._bulk([ready.write for ready in batch])
        return [results[ready.write.image_id] for ready in batch]
