"""Hand files to the reading workers and take back what they read."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from es_imgsearch.elastic.retry import Stopped
from es_imgsearch.errors import ReadersFailed
from es_imgsearch.pipeline.in_flight import InFlight
from es_imgsearch.pipeline.jobs import Job, Run
from es_imgsearch.read.workers import Outcome, ReadWorkers


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
