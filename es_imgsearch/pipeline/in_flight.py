"""Track the files in the pipeline, one job per path, and the files done recently."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from es_imgsearch.pipeline.file_memory import (
    REMEMBERED_FILES,
    FileMemory,
    UnreadableFiles,
    state_hash,
)
from es_imgsearch.pipeline.jobs import NO_EVENT, UNKNOWN_SIGNATURE, Job, read_signature
from es_imgsearch.pipeline.queues import BoundedCache
from es_imgsearch.records import Change, FileSignature, FileState, Root
from es_imgsearch.write.pending_deletions import Tickets
from es_imgsearch.write.unstored import UnstoredFiles

_RECENT_FILES = 50_000


class BeginResult(NamedTuple):
    """Result of `begin`: the new job, if there is one.

    The job is None if the file is done or absent, or if its path `has_job` already.
    """

    job: Job | None
    has_job: bool


class _Done(NamedTuple):
    """A file whose document was acknowledged; times are of `time.monotonic()`."""

    signature: FileSignature
    read_began_at: float
    acknowledged_at: float


class InFlight:
    """Jobs by path, limited to a number of slots, and the files done recently.

    Thread-safe.  A change of a path that has a job already is handled when that job ends.
    """

    def __init__(self, slots: int, tickets: Tickets, unstored: UnstoredFiles | None = None) -> None:
        """`unstored` are files that are not read again until they change."""
        # Files that the reading workers have not finished.
        self.reading = 0
        self._tickets = tickets
        self._to_read: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._slots = threading.BoundedSemaphore(slots)
        self._jobs: dict[str, Job] = {}
        self._files: BoundedCache[_Done] = BoundedCache(_RECENT_FILES)
        # Each with the hash of the state in which it was read.
        self._non_pictures = FileMemory(REMEMBERED_FILES)
        self._unreadable = UnreadableFiles()
        self._unstored = unstored or UnstoredFiles()

    def __len__(self) -> int:
        with self._lock:
            return len(self._jobs)

    def has(self, image_id: str, state: FileState) -> bool:
        """Return True if a file has a job, or was acknowledged in this state."""
        with self._lock:
            done = self._files.get(image_id)
            return image_id in self._jobs or (done is not None and done.signature.state == state)

    def is_non_picture(self, image_id: str, state: FileState) -> bool:
        """Return True if the file was read in this state and is no picture."""
        with self._lock:
            return self._non_pictures.get(image_id) == state_hash(state)

    def end_round(self) -> None:
        """Every root was compared: forget non-pictures not met since the last call."""
        with self._lock:
            self._non_pictures.end_round()

    def holds_no_picture(self, image_id: str, state: FileState) -> bool:
        """Return True if the file was read in this state and is no picture (any more)."""
        with self._lock:
            is_non_picture = self._non_pictures.get(image_id) == state_hash(state)
            return is_non_picture or self._unreadable.is_broken(image_id, state)

    def unreadable(self, root_name: str) -> int:
        """Count the stored files of a root that could not be read at their last try."""
        with self._lock:
            return self._unreadable.count(root_name)

    def acquire_slot(self, timeout_seconds: float) -> bool:
        """Wait for a free slot; False if none came free in time."""
        return self._slots.acquire(timeout=timeout_seconds)

    def begin(
        self,
        change: Change,
        signature: FileSignature | None,
        *,
        event_at: float = NO_EVENT,
        listed_at: float | None = None,
    ) -> BeginResult:
        """Begin a job in the acquired slot, or release the slot.

        The file of a job that begins is queued for reading.  `signature` is None if there is no
        such file.  `event_at` is the time (monotonic) of the event that showed the change; for
        `listed_at` see `Intake.submit`.
        """
        with self._lock:
            current = self._jobs.get(change.image_id)
            if current is not None:
                self._join(current, change)
                current.next_event_at = max(current.next_event_at, event_at)
            elif signature is not None and not self._is_done(
                change, signature, event_at, listed_at
            ):
                job = self._jobs[change.image_id] = Job(change, signature, self._tickets.begin())
                self._queue_read(job)
                return BeginResult(job, has_job=False)
        self._slots.release()
        return BeginResult(None, has_job=current is not None)

    def _join(self, job: Job, change: Change) -> None:
        # The caller holds the lock.  Without a ticket of their own, the changes of a file that is
        # rewritten all the time would keep one ticket open for ever, and with it every deletion.
        job.next_change = change
        if job.next_ticket is None:
            job.next_ticket = self._tickets.begin()

    def jobs_to_read(self) -> Iterator[Job]:
        """Yield jobs as they begin or repeat; ends after `stop_reading`."""
        return iter(self._to_read.get, None)

    def _queue_read(self, job: Job) -> None:
        # The caller holds the lock.
        job.queued_at = time.monotonic()
        self.reading += 1
        self._to_read.put(job)

    def mark_read(self) -> None:
        """Count a file as read; to be called before its picture is passed on."""
        with self._lock:
            self.reading -= 1

    def is_all_read(self) -> bool:
        """Return True if no file is being read or is queued for it."""
        return not self.reading

    def stop_reading(self) -> None:
        self._to_read.put(None)

    def mark_non_picture(self, job: Job) -> None:
        """Remember that the job's file is no picture, as long as its state stays the same.

        A file that was replaced since the job began is not remembered: either may have been read.
        """
        if read_signature(job.change) != job.signature:
            return
        self._unstored.forget(job.change)
        with self._lock:
            self._non_pictures.put(job.change.image_id, state_hash(job.signature.state))

    def mark_unstored(self, job: Job, reason: str) -> None:
        """Remember a file of which Elasticsearch took nothing, as long as its state stays."""
        self._unstored.put(job.change, job.signature.state, reason)

    def mark_unreadable(self, job: Job, *, is_unknown: bool) -> None:
        """Remember a stored file that could not be read.

        If it is no picture and has changed since, the job is repeated.
        """
        current = read_signature(job.change)
        image_id = job.change.image_id
        with self._lock:
            self._files.forget(image_id)
            if is_unknown:
                self._unreadable.put(image_id, job.change.root.name, job.signature)
            elif current is not None and current.state == job.signature.state:
                self._unreadable.put_broken(image_id, current.state)
            elif job.next_change is None:
                change = Change(job.change.root, job.change.relative_path, time.time())
                self._join(job, change)

    def mark_stored(self, job: Job, signature: FileSignature, read_began_at: float) -> bool:
        """Remember a file, read with this signature, whose document was acknowledged.

        Returns False if its size or time has changed since and no change has joined: it has to
        settle.  If it was exchanged otherwise, is absent, or its document was deleted meanwhile,
        the job is repeated.
        """
        # What a listing showed is not looked at again: the next one shows another version.
        current = signature if job.change.listed else read_signature(job.change)
        is_same_state = current is not None and current.state == signature.state
        with self._lock:
            # Some network shares give another inode each time: one more read has to do for those.
            is_same = current == signature or (is_same_state and job.is_repeated)
            job.is_repeated = is_same_state and not is_same
            if is_same and not job.may_be_deleted:
                done = _Done(signature, read_began_at, time.monotonic())
                self._files.put(job.change.image_id, done)
                self._non_pictures.forget(job.change.image_id)
                self._unreadable.forget(job.change.image_id)
                self._unstored.forget(job.change)
            else:
                self._files.forget(job.change.image_id)
                may_repeat = current is None or is_same_state or job.may_be_deleted
                if job.next_change is None and may_repeat:
                    change = Change(job.change.root, job.change.relative_path, time.time())
                    self._join(job, change)
            job.may_be_deleted = False
            return is_same_state or current is UNKNOWN_SIGNATURE or job.next_change is not None

    def forget(self, change: Change) -> None:
        """Forget a path whose document was deleted, so that the same file counts as new."""
        with self._lock:
            self._files.forget(change.image_id)
            self._unreadable.forget(change.image_id)
            if (job := self._jobs.get(change.image_id)) is not None:
                job.may_be_deleted = True

    def forget_done(self) -> None:
        """Forget what became of files, so that each that begins is read."""
        with self._lock:
            self._files = BoundedCache(_RECENT_FILES)
            self._non_pictures = FileMemory(REMEMBERED_FILES)
            self._unreadable = UnreadableFiles()
            self._unstored = UnstoredFiles()

    def end_tickets(self, root: Root) -> None:
        """End the tickets of a root's jobs, whose disk may never let them end."""
        with self._lock:
            for job in self._jobs.values():
                if job.change.root == root:
                    own = (job.ticket, job.next_ticket)
                    self._tickets.end(*(each for each in own if each is not None))

    def end(
        self,
        job: Job,
        *,
        may_repeat: Callable[[], bool],
        on_absent: Callable[[Change], None],
        on_unseen: Callable[[Change], None] = lambda _change: None,
    ) -> None:
        """End a job and release its slot, or read the file again if it changed meanwhile.

        `on_absent` gets that change if its file is absent, before `wait_idle` can return, and
        `on_unseen` that of an event if its file cannot be examined.
        """
        while True:
            change = job.next_change
            signature = None if change is None else read_signature(change)
            if change is not None and signature is None:
                on_absent(change)
            elif (
                change is not None
                and signature is UNKNOWN_SIGNATURE
                and change.event_at is not None
            ):
                on_unseen(change)
            with self._idle:
                if job.next_change is not change:
                    continue
                tickets = [each for each in (job.ticket, job.next_ticket) if each is not None]
                event_at, job.next_event_at = job.next_event_at, NO_EVENT
                job.next_change, job.next_ticket = None, None
                if (
                    change is not None
                    and signature is not None
                    and may_repeat()
                    and not self._is_done(change, signature, event_at)
                ):
                    job.change, job.signature = change, signature
                    self._tickets.end(job.ticket)
                    job.ticket = tickets[-1]
                    self._queue_read(job)
                    return
                self._jobs.pop(job.change.image_id, None)
                self._tickets.end(*tickets)
                self._idle.notify_all()
            self._slots.release()
            return

    def wait_idle(self, timeout_seconds: float | None, is_cancelled: Callable[[], bool]) -> bool:
        """Wait until no file is in flight or `is_cancelled`; False on timeout."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        with self._idle:
            while self._jobs and not is_cancelled():
                left = 0.5 if deadline is None else min(0.5, deadline - time.monotonic())
                if left <= 0:
                    return False
                self._idle.wait(left)
        return True

    def wake(self) -> None:
        """Make `wait_idle` check `is_cancelled` now."""
        with self._idle:
            self._idle.notify_all()

    def _is_done(
        self,
        change: Change,
        signature: FileSignature,
        event_at: float,
        listed_at: float | None = None,
    ) -> bool:
        """Return True if the file need not be read for this change.

        After an event it is read unless an earlier read began later: a program that has mapped the
        file into its memory changes neither its size nor its times.
        """
        if signature is UNKNOWN_SIGNATURE:
            return True
        non_picture = self._non_pictures.get(change.image_id)
        if event_at == NO_EVENT and (
            non_picture == state_hash(signature.state)
            or self._unreadable.waits(change.image_id, signature)
            or self._unstored.is_known(change, signature.state)
        ):
            return True
        done = self._files.get(change.image_id)
        if done is None or done.signature != signature or done.read_began_at <= event_at:
            return False
        return listed_at is None or done.acknowledged_at >= listed_at
