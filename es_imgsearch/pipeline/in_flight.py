"""Track the files that are in the pipeline, one job a path, and the files done recently."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from es_imgsearch.pipeline.jobs import UNKNOWN, Job, Signature, look
from es_imgsearch.pipeline.queues import Recent
from es_imgsearch.records import Change, FileState
from es_imgsearch.write.pending_deletions import Tickets

_RECENT_FILES = 50_000


class Begun(NamedTuple):
    """The job of a change; None where the file is done, is not there, or `joins` one under way."""

    job: Job | None
    joins: bool


class InFlight:
    """Jobs by their path, in so many places, and the files that were done lately; thread-safe.

    A change that comes while its path is on its way is looked at when the first is done.
    """

    def __init__(self, places: int, tickets: Tickets) -> None:
        # Files that the reading workers have not answered for.
        self.reading = 0
        self._tickets = tickets
        self._to_read: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._places = threading.BoundedSemaphore(places)
        self._jobs: dict[str, Job] = {}
        # With the time of the acknowledgement.
        self._files: Recent[tuple[Signature, float]] = Recent(_RECENT_FILES)
        self._no_pictures: Recent[FileState] = Recent(_RECENT_FILES)

    def __len__(self) -> int:
        with self._lock:
            return len(self._jobs)

    def no_pictures(self) -> dict[str, FileState]:
        """Ids of files that were looked at and are no pictures, in the state they had."""
        with self._lock:
            return self._no_pictures.snapshot()

    def is_no_picture(self, image_id: str, state: FileState) -> bool:
        """Whether the file was looked at in this state, and is no picture."""
        with self._lock:
            return self._no_pictures.get(image_id) == state

    def take_place(self, timeout_seconds: float) -> bool:
        """Wait for a place; False where none came free in time."""
        return self._places.acquire(timeout=timeout_seconds)

    def begin(
        self, change: Change, signature: Signature | None, listed_at: float | None = None
    ) -> Begun:
        """A job in the place that was taken, to be read; without one the place is given back.

        `signature` is None where there is no such file; for `listed_at` see `Pipeline.submit`.
        """
        with self._lock:
            waiting = self._jobs.get(change.image_id)
            if waiting is not None:
                waiting.again = change
            elif signature is not None and not self._is_done(change, signature, listed_at):
                job = self._jobs[change.image_id] = Job(change, signature, self._tickets.begin())
                self._have_read(job)
                return Begun(job, joins=False)
        self._places.release()
        return Begun(None, joins=waiting is not None)

    def to_read(self) -> Iterator[Job]:
        """Jobs as they are begun, or repeated; ends after `end_reading`."""
        return iter(self._to_read.get, None)

    def _have_read(self, job: Job) -> None:
        """With the lock held."""
        self.reading += 1
        self._to_read.put(job)

    def note_read(self) -> None:
        """A file was read; call it before its picture is passed on."""
        with self._lock:
            self.reading -= 1

    def is_all_read(self) -> bool:
        """Whether no file is being read, or waits for it."""
        return not self.reading

    def end_reading(self) -> None:
        self._to_read.put(None)

    def note_no_picture(self, job: Job) -> None:
        """The file of this job is no picture, as long as it stays as it is.

        If it is another one than was looked at, it is not known which of the two was read.
        """
        if look(job.change) != job.signature:
            return
        with self._lock:
            self._no_pictures.keep(job.change.image_id, job.signature.state)

    def note_stored(self, job: Job, state: FileState) -> None:
        """What was written of a file in this state was acknowledged."""
        now = look(job.change)
        with self._lock:
            if now is not None and now.state == state and not job.in_doubt:
                self._files.keep(job.change.image_id, (now, time.monotonic()))
                self._no_pictures.forget(job.change.image_id)
            elif job.again is None:
                # It changed while it was on its way: once more, in the place it already has.
                job.again = Change(job.change.root, job.change.relative_path, time.time())
            job.in_doubt = False

    def forget(self, change: Change) -> None:
        """The document of this path was deleted; the same file back again is new."""
        with self._lock:
            self._files.forget(change.image_id)
            if (job := self._jobs.get(change.image_id)) is not None:
                job.in_doubt = True

    def end(self, job: Job, *, may_repeat: Callable[[], bool]) -> Change | None:
        """Give the place back, or keep it for the change that came meanwhile: it is read again.

        Returns that change if it finds no file any more.
        """
        while True:
            again = job.again
            now = None if again is None else look(again)
            with self._idle:
                if job.again is not again:
                    continue
                job.again = None
                if (
                    again is not None
                    and now is not None
                    and may_repeat()
                    and not self._is_done(again, now)
                ):
                    job.change, job.signature = again, now
                    self._have_read(job)
                    return None
                self._jobs.pop(job.change.image_id, None)
                self._tickets.end(job.ticket)
                self._idle.notify_all()
            self._places.release()
            return again if now is None else None

    def wait_idle(self, timeout_seconds: float | None, is_over: Callable[[], bool]) -> bool:
        """Wait until nothing is on its way, or it `is_over`; False when the time ran out."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        with self._idle:
            while self._jobs and not is_over():
                left = 0.5 if deadline is None else min(0.5, deadline - time.monotonic())
                if left <= 0:
                    return False
                self._idle.wait(left)
        return True

    def wake(self) -> None:
        """Have whoever waits look whether it is over."""
        with self._idle:
            self._idle.notify_all()

    def _is_done(
        self, change: Change, signature: Signature, listed_at: float | None = None
    ) -> bool:
        if signature is UNKNOWN or self._no_pictures.get(change.image_id) == signature.state:
            return True
        done = self._files.get(change.image_id)
        if done is None or done[0] != signature:
            return False
        return listed_at is None or done[1] >= listed_at
