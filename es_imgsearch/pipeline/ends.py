"""The two ends of the pipeline: files go to the reading workers; jobs are ended."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from es_imgsearch.elastic.retry import Stopped
from es_imgsearch.errors import ReadError, ReadersFailed
from es_imgsearch.pipeline.jobs import Counts, InFlight, Job, Ready, Run, Unembedded
from es_imgsearch.read.file import Skipped
from es_imgsearch.read.workers import Outcome, ReadWorkers
from es_imgsearch.records import Change


class ReadStage:
    """Has each job's file read; `run` is the loop of its thread.

    `emit` gets what became of each file, in a thread of the workers' pool.
    """

    def __init__(
        self,
        workers: ReadWorkers,
        in_flight: InFlight,
        run: Run,
        *,
        emit: Callable[[Job, Outcome], None],
    ) -> None:
        self._workers = workers
        self._in_flight = in_flight
        self._run = run
        self._emit = emit

    def run(self) -> None:
        """Read every job of `in_flight` until it ends.  Raises Stopped after `end`."""
        for job in self._in_flight.to_read():
            self.read(job)

    def read(self, job: Job) -> None:
        """Give a job's file to a worker."""
        path = job.change.root.absolute(job.change.relative_path)
        try:
            self._workers.read(path, partial(self._guarded_end, job))
        except RuntimeError as error:
            # The workers were ended between the question and the answer.
            if self._run.stopping.is_set():
                raise Stopped from error
            raise

    def _guarded_end(self, job: Job, outcome: Outcome) -> None:
        self._run.guarded(lambda: self.end_read(job, outcome))

    def end_read(self, job: Job, outcome: Outcome) -> None:
        """Pass on what became of a file.  Raises ReadersFailed where it is not the file's fault."""
        # First, or the stage that takes it would wait for a file that does not come.
        self._in_flight.note_read()
        if isinstance(outcome, ReadersFailed):
            raise outcome
        self._emit(job, outcome)

    def end(self) -> None:
        """End the workers and the loop; files that are being read are given up."""
        self._in_flight.end_reading()
        self._workers.close()


class AcknowledgeStage:
    """Ends jobs: counts them, remembers the files, has a file that changed meanwhile read again.

    It works in the threads that call `put`.  `emit` gets a path that is left to the caller of the
    pipeline: it is there no more or no picture, or it changed while it was read.
    """

    def __init__(
        self,
        in_flight: InFlight,
        counts: Counts,
        run: Run,
        *,
        emit: Callable[[Change, Skipped], None],
    ) -> None:
        self._in_flight = in_flight
        self._counts = counts
        self._run = run
        self._emit = emit
        # Of the counts.
        self._lock = threading.Lock()

    def put(self, item: Ready | Unembedded) -> None:
        """End a job whose document was acknowledged, or that leaves no document."""
        self._count(item)
        job = item.job
        if isinstance(item, Ready):
            self._in_flight.note_stored(job, item.state)
        elif item.reason is Skipped.NOT_A_PICTURE:
            self._in_flight.note_no_picture(job)
        gone = self._in_flight.end(job, may_repeat=lambda: not self._run.closing.is_set())
        if self._run.stopping.is_set():
            return
        if gone is not None:
            self._emit(gone, Skipped.GONE)
        if isinstance(item, Unembedded) and isinstance(item.reason, Skipped):
            self._emit(job.change, item.reason)

    def _count(self, item: Ready | Unembedded) -> None:
        counts = self._counts
        with self._lock:
            if isinstance(item, Unembedded):
                counts.not_pictures += item.reason is Skipped.NOT_A_PICTURE
                counts.failed += isinstance(item.reason, ReadError)
            elif item.result is None:
                counts.failed += 1
            elif item.result.embed_ms is None:
                counts.reused += 1
            else:
                counts.embedded += 1
