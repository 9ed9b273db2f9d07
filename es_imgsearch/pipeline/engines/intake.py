"""Accept changes, wait for their acknowledgement: what every engine has in common."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Final

from es_imgsearch.elastic.retry import Outage
from es_imgsearch.pipeline.acknowledge_stage import AcknowledgeStage
from es_imgsearch.pipeline.in_flight import InFlight
from es_imgsearch.pipeline.jobs import (
    NO_EVENT,
    UNKNOWN_SIGNATURE,
    Counts,
    Kept,
    PendingWrite,
    RunState,
    Unembedded,
    read_signature,
)
from es_imgsearch.read.file import Skipped
from es_imgsearch.records import Change, FileState, Root
from es_imgsearch.watch.root_disk import RootDisks
from es_imgsearch.write.activity import Activity
from es_imgsearch.write.pending_deletions import Progress
from es_imgsearch.write.unstored import UnstoredFiles

_SLOT_WAIT_SECONDS = 0.2

# The part of `within_seconds` of `close` for ending threads and processes.
_END_SECONDS: Final = 3.0

Acknowledged = PendingWrite | Unembedded | Kept


class Intake(ABC):
    """Take changes, one job for each path, until `close`.

    What happens in between is the engine's: it takes jobs from `_in_flight` and ends them with
    `_acknowledging`.
    """

    def __init__(
        self,
        slots: int,
        *,
        emit: Callable[[Change, Skipped | Kept], None],
        progress: Progress | None = None,
        outage: Outage | None = None,
        disks: RootDisks | None = None,
        unstored: UnstoredFiles | None = None,
        note: Callable[[Acknowledged], None] = lambda _item: None,
    ) -> None:
        """`slots` is the number of files in flight.

        `note` gets each item at its acknowledgement.  The other arguments are those of `Pipeline`.
        """
        self._emit = emit
        self._disks = disks or RootDisks()
        self.outage = outage or Outage()
        self.counts, self.activity = Counts(), Activity()
        self._in_flight = InFlight(slots, (progress or Progress()).files, unstored)
        self._run = RunState(self._in_flight.wake)
        self.closing, self.stopping = self._run.closing, self._run.stopping
        self._drained: bool | None = None
        self._threads: list[threading.Thread] = []
        self._acknowledging = AcknowledgeStage(
            self._in_flight,
            self.counts,
            self._run,
            activity=self.activity,
            disk=self._disks.of,
            emit=emit,
            note=note,
        )

    def _start(self, loops: Mapping[str, Callable[[], None]]) -> None:
        """Start a thread for each loop; an error in one ends the run."""
        self._threads = [
            threading.Thread(target=self._run.guard, args=(loop,), name=name, daemon=True)
            for name, loop in loops.items()
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, change: Change, *, listed_at: float | None = None) -> None:
        """Begin a job for a path, according to its file's state; waits for a free slot.

        A file that was acknowledged in its present state is skipped, unless an event showed the
        change, and that after the file's last read began.  `listed_at` (`time.monotonic()`) is for
        changes that a comparison found: it is when the index was listed.  A file that was
        acknowledged before that is not skipped: another process removed its document.  A file of
        another partition than the root's is skipped.

        Raises Stopped if the pipeline is closing, or the error that ended it.
        """
        self._run.check()
        if not change.root.holds(change.relative_path):
            return
        while not self._in_flight.acquire_slot(_SLOT_WAIT_SECONDS):
            self._run.check()
        with self._disks.of(change.root).calling():
            signature = read_signature(change)
        event_at = NO_EVENT
        if listed_at is None:
            event_at = time.monotonic() if change.event_at is None else change.event_at
        begun = self._in_flight.begin(change, signature, event_at=event_at, listed_at=listed_at)
        if begun.job is None:
            self._run.check()
            if begun.has_job:
                return
            if signature is None:
                self._emit(change, Skipped.GONE)
            elif signature is UNKNOWN_SIGNATURE and change.event_at is not None:
                self._emit(change, Skipped.UNSEEN)

    def has(self, image_id: str, state: FileState) -> bool:
        """Return True if a file is in flight, or was stored in this state."""
        return self._in_flight.has(image_id, state)

    def is_non_picture(self, image_id: str, state: FileState) -> bool:
        """Return True if the file was read in this state and is no picture."""
        return self._in_flight.is_non_picture(image_id, state)

    def end_round(self) -> None:
        """Every root was compared: forget non-pictures not met since the last call."""
        self._in_flight.end_round()

    def holds_no_picture(self, image_id: str, state: FileState) -> bool:
        """Return True if the file was read in this state and is no picture (any more)."""
        return self._in_flight.holds_no_picture(image_id, state)

    def unreadable(self, root_name: str) -> int:
        """Count the stored files of a root that could not be read at their last try."""
        return self._in_flight.unreadable(root_name)

    @property
    def fatal(self) -> BaseException | None:
        """The error that ended the pipeline, if one did."""
        return self._run.fatal

    @property
    def in_flight(self) -> int:
        """The number of files in flight."""
        return len(self._in_flight)

    def wait_idle(self, timeout_seconds: float | None = None) -> bool:
        """Wait until no file is in flight; False on timeout.

        Raises the error that ended the pipeline, if one did.
        """
        is_idle = self._in_flight.wait_idle(timeout_seconds, lambda: self.fatal is not None)
        if self.fatal is not None:
            raise self.fatal
        return is_idle

    def forget(self, change: Change) -> None:
        """Forget a path whose document was deleted, so that the same file counts as new."""
        self._in_flight.forget(change)

    def forget_done(self) -> None:
        """Forget what became of files, so that each that is submitted is read."""
        self._in_flight.forget_done()

    def end_tickets(self, root: Root) -> None:
        """End the tickets of files in flight of a root whose disk hangs."""
        self._in_flight.end_tickets(root)

    def close(self, *, within_seconds: float = 0.0) -> bool:
        """End within this time; return False if some files were given up.

        Most of the time is for files in flight.  A second call changes nothing and returns the
        same.
        """
        # Accept no more changes.
        self.closing.set()
        if self._drained is not None:
            return self._drained
        # Let files in flight reach Elasticsearch: the next start need not read them again.
        try:
            self._drained = self.wait_idle(max(within_seconds / 2, within_seconds - _END_SECONDS))
        except BaseException:  # noqa: BLE001 - `fatal`, which `submit` and `wait_idle` raise
            self._drained = False
        # Give up every wait for Elasticsearch.
        self.stopping.set()
        self._end(time.monotonic() + _END_SECONDS)
        return self._drained

    @abstractmethod
    def _end(self, deadline: float) -> None:
        """End everything until a time (monotonic); give up files in flight."""

    def _join(self, deadline: float) -> None:
        # A thread that still waits for an answer is left behind: it is a daemon thread.
        for thread in self._threads:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))
