"""Hand files to the reading workers and take back their outcomes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from es_imgsearch.elastic.retry import Stopped
from es_imgsearch.errors import ReadersFailed
from es_imgsearch.pipeline.in_flight import InFlight
from es_imgsearch.pipeline.jobs import Job, RunState
from es_imgsearch.read.workers import Outcome, ReadWorkers
from es_imgsearch.records import Picture
from es_imgsearch.write.activity import Activity


class ReadStage:
    """Read each job's file in a worker process.

    `run` is the loop of the stage's thread.  `emit` gets each job with its outcome, in a thread of
    the workers' pool.
    """

    def __init__(
        self,
        workers: ReadWorkers,
        in_flight: InFlight,
        run: RunState,
        *,
        activity: Activity,
        emit: Callable[[Job, Outcome], None],
    ) -> None:
        self._workers = workers
        self._in_flight = in_flight
        self._run = run
        self._activity = activity
        self._emit = emit

    def run(self) -> None:
        """Read every job of `in_flight` until `close`; raises Stopped after it."""
        for job in self._in_flight.jobs_to_read():
            self.read(job)

    def read(self, job: Job) -> None:
        """Queue a job's file for a worker."""
        path = job.change.root.absolute(job.change.relative_path)
        try:
            self._workers.read(path, partial(self._finish_guarded, job))
        except RuntimeError as error:
            # The workers were closed since the job was taken from the queue.
            if self._run.stopping.is_set():
                raise Stopped from error
            raise

    def _finish_guarded(self, job: Job, outcome: Outcome) -> None:
        self._run.guard(lambda: self.finish_read(job, outcome))

    def finish_read(self, job: Job, outcome: Outcome) -> None:
        """Pass on a file's outcome.

        Raises ReadersFailed if the workers fail with any file.
        """
        # First, or the next stage would wait for a file that is here already.
        self._in_flight.mark_read()
        if isinstance(outcome, ReadersFailed):
            raise outcome
        if isinstance(outcome, Picture):
            self._activity.note_seconds(
                job.change.root, outcome.describer_seconds, reading=outcome.read_ms / 1000
            )
        self._emit(job, outcome)

    def close(self) -> None:
        """End the workers and the loop; abandon files that are being read."""
        self._in_flight.stop_reading()
        self._workers.close()
