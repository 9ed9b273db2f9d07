"""End jobs: count them, remember their files, have changed files read again."""

from __future__ import annotations

import threading
from collections.abc import Callable

from es_imgsearch.errors import ReadError
from es_imgsearch.pipeline.in_flight import InFlight
from es_imgsearch.pipeline.jobs import Counts, Kept, PendingWrite, RunState, Unembedded
from es_imgsearch.read.file import Skipped
from es_imgsearch.records import Change


class AcknowledgeStage:
    """End jobs, in the threads that call `put`.

    `emit` gets each path that leaves no document: it is absent or no picture, or it changed while
    it was read; and each file that could not be read although its picture is stored.
    """

    def __init__(
        self,
        in_flight: InFlight,
        counts: Counts,
        run: RunState,
        *,
        emit: Callable[[Change, Skipped | Kept], None],
    ) -> None:
        self._in_flight = in_flight
        self._counts = counts
        self._run = run
        self._emit = emit
        self._counts_lock = threading.Lock()

    def put(self, item: PendingWrite | Unembedded | Kept) -> None:
        """End a job whose document was acknowledged, or that has no document."""
        self._count(item)
        job = item.job
        if isinstance(item, PendingWrite):
            self._in_flight.mark_stored(job, item.signature, item.read_began_at)
        elif isinstance(item, Kept):
            self._in_flight.mark_unreadable(job, is_unknown=item.is_unknown)
        elif item.reason is Skipped.NOT_A_PICTURE:
            self._in_flight.mark_non_picture(job)
        absent = self._in_flight.end(job, may_repeat=lambda: not self._run.closing.is_set())
        if self._run.stopping.is_set():
            return
        if absent is not None:
            self._emit(absent, Skipped.GONE)
        if isinstance(item, Kept):
            self._emit(job.change, item)
        elif isinstance(item, Unembedded) and isinstance(item.reason, Skipped):
            self._emit(job.change, item.reason)

    def _count(self, item: PendingWrite | Unembedded | Kept) -> None:
        counts = self._counts
        with self._counts_lock:
            if isinstance(item, Kept):
                counts.unreadable += item.is_unknown
            elif isinstance(item, Unembedded):
                counts.not_pictures += item.reason is Skipped.NOT_A_PICTURE
                counts.failed += isinstance(item.reason, ReadError)
            elif item.result is None:
                counts.failed += 1
            elif item.result.embed_ms is None:
                counts.reused += 1
            else:
                counts.embedded += 1
