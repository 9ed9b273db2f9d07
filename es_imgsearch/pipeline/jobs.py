"""A file on its way through the pipeline, and what became of those before it."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from es_imgsearch.elastic.documents import Write
from es_imgsearch.embed.protocol import Encoder
from es_imgsearch.pipeline.queues import Recent
from es_imgsearch.records import Change, Embedded, FileState, Grid, Picture
from es_imgsearch.settings import Settings


@dataclass(slots=True)
class Counts:
    """What became of the files so far."""

    embedded: int = 0
    reused: int = 0
    failed: int = 0
    deleted: int = 0
    not_pictures: int = 0

    @property
    def stored(self) -> int:
        return self.embedded + self.reused


@dataclass(slots=True)
class Pass:
    """What one comparison of a root with the index found; `unknown` could not be looked at."""

    new: int = 0
    changed: int = 0
    lost: int = 0
    unknown: int = 0
    seconds: float = 0.0
    ended_at: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "seconds": round(self.seconds, 3)}


@dataclass(frozen=True, slots=True)
class Signature:
    """A file's identity and state; tells a replaced file of the same size and time too."""

    state: FileState
    inode: int
    ctime_ns: int


# A path whose state cannot be told (its folder may not be entered): left as it is.
UNKNOWN = Signature(FileState(-1, -1), -1, -1)


@dataclass(slots=True)
class Job:
    """One path that is being worked on, and the change that came meanwhile, if one did."""

    change: Change
    signature: Signature
    ticket: int
    again: Change | None = None
    # Its document was deleted while it was on its way: what is acknowledged may be gone.
    in_doubt: bool = False


class Result(NamedTuple):
    """A picture that has its vector; `embed_ms` is None where the vector was there already."""

    job: Job
    picture: Picture
    embedded: Embedded
    embed_ms: float | None = None


@dataclass(slots=True)
class Ready:
    """A job whose write is known, of the file in that state; `result` where it is a picture's."""

    job: Job
    write: Write
    counts_as: str
    state: FileState
    result: Result | None = None


def places(settings: Settings, encoder: Encoder, grid: Grid | None) -> int:
    """How many files may be on their way, so that their arrays fit into `queue_memory_mb`.

    A place is taken before its file is read, and pictures of one index are prepared alike, so
    the bound holds whatever comes.
    """
    arrays = 1 if grid is None else 1 + grid.count
    picture_bytes = arrays * encoder.preparation.size_bytes
    return max(1, min(settings.queue_size, settings.queue_memory_mb * 2**20 // picture_bytes))


def look(change: Change) -> Signature | None:
    """The file's signature; None where there is none, `UNKNOWN` where that cannot be told."""
    try:
        status = os.stat(change.root.absolute(change.relative_path))
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            return None
        return UNKNOWN
    if not stat.S_ISREG(status.st_mode):
        return None
    return Signature(FileState.of(status), status.st_ino, status.st_ctime_ns)


# The files on their way, one change a path, and what became of those before them.

_RECENT_FILES = 50_000


class Begun(NamedTuple):
    """The job of a change; None where the file is done, is not there, or `joins` one under way."""

    job: Job | None
    joins: bool


class Ended(NamedTuple):
    """What a job left: whether it is to be done again, or the change that found no file."""

    repeats: bool
    gone: Change | None = None


class InFlight:
    """Jobs by their path, in so many places, and the files that were done lately; thread-safe.

    A change that comes while its path is on its way is looked at when the first is done.
    """

    def __init__(self, places: int) -> None:
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._places = threading.BoundedSemaphore(places)
        self._jobs: dict[str, Job] = {}
        self._next_ticket = 0
        # With the time of the acknowledgement.
        self._files: Recent[tuple[Signature, float]] = Recent(_RECENT_FILES)
        self._no_pictures: Recent[FileState] = Recent(_RECENT_FILES)

    def __len__(self) -> int:
        with self._lock:
            return len(self._jobs)

    @property
    def ticket(self) -> int:
        """A mark in time: `settled_until` reaches it when all before it is acknowledged."""
        with self._lock:
            return self._next_ticket

    @property
    def settled_until(self) -> int:
        with self._lock:
            return min((job.ticket for job in self._jobs.values()), default=self._next_ticket)

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
        """A job in the place that was taken; without one the place is given back.

        `signature` is None where there is no such file; for `listed_at` see `Pipeline.submit`.
        """
        with self._lock:
            waiting = self._jobs.get(change.image_id)
            if waiting is not None:
                waiting.again = change
            elif signature is not None and not self._is_done(change, signature, listed_at):
                job = self._jobs[change.image_id] = Job(change, signature, self._next_ticket)
                self._next_ticket += 1
                return Begun(job, joins=False)
        self._places.release()
        return Begun(None, joins=waiting is not None)

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

    def end(self, job: Job, *, may_repeat: Callable[[], bool]) -> Ended:
        """Give the place back, or keep it for the change that came meanwhile."""
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
                    return Ended(repeats=True)
                self._jobs.pop(job.change.image_id, None)
                self._idle.notify_all()
            self._places.release()
            return Ended(repeats=False, gone=again if now is None else None)

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
