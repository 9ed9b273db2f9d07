"""End jobs: count them, remember their files, have changed files read again."""

from __future__ import annotations

import threading
from collections.abc import Callable

from es_imgsearch.errors import ReadError
from es_imgsearch.pipeline.in_flight import InFlight
from es_imgsearch.pipeline.jobs import (
    MOST_NO_PICTURES,
    Counts,
    Kept,
    PendingWrite,
    RunState,
    Unembedded,
)
from es_imgsearch.read.file import Skipped
from es_imgsearch.records import Change, Root
from es_imgsearch.watch.root_disk import RootDisk
from es_imgsearch.write.activity import Activity


class AcknowledgeStage:
    """End jobs, each in the thread of its root, whose disk may hang.

    `emit` gets each path that leaves no document of its present state: it is absent or no picture,
    it changed while it was in flight, or it could not be read although its picture is stored.
    """

    def __init__(
        self,
        in_flight: InFlight,
        counts: Counts,
        run: RunState,
        *,
        activity: Activity,
        disk: Callable[[Root], RootDisk],
        emit: Callable[[Change, Skipped | Kept], None],
        note: Callable[[PendingWrite | Unembedded | Kept], None] = lambda _item: None,
    ) -> None:
        """`note` gets each item before its job ends."""
        self._in_flight = in_flight
        self._counts = counts
        self._run = run
        self._activity = activity
        self._disk = disk
        self._emit = emit
        self._note_item = note
        self._counts_lock = threading.Lock()
        self._no_pictures: set[int] = set()

    def put(self, item: PendingWrite | Unembedded | Kept) -> None:
        """End a job whose document was acknowledged, or that has no document."""
        self._count(item)
        self._note(item)
        self._note_item(item)
        self._disk(item.job.change.root).post(lambda: self._run.guard(lambda: self._end(item)))

    def _end(self, item: PendingWrite | Unembedded | Kept) -> None:
        job = item.job
        leftover: Skipped | Kept | None = None
        if isinstance(item, PendingWrite):
            if not self._in_flight.mark_stored(job, item.signature, item.read_began_at):
                leftover = Skipped.CHANGING
        elif isinstance(item, Kept):
            self._in_flight.mark_unreadable(job, is_unknown=item.is_unknown)
            leftover = item
        elif isinstance(item.reason, Skipped):
            leftover = item.reason
            if leftover is Skipped.NOT_A_PICTURE:
                self._in_flight.mark_non_picture(job)
        else:
            self._in_flight.mark_unstored(job, item.reason.message)
        # Before the job ends: after `wait_idle`, all leftovers are in their queues.
        if leftover is not None:
            self._put_leftover(job.change, leftover)
        self._in_flight.end(
            job,
            may_repeat=lambda: not self._run.closing.is_set(),
            on_absent=lambda change: self._put_leftover(change, Skipped.GONE),
            on_unseen=lambda change: self._put_leftover(change, Skipped.UNSEEN),
        )

    def _put_leftover(self, change: Change, reason: Skipped | Kept) -> None:
        if not self._run.stopping.is_set():
            self._emit(change, reason)

    def _note(self, item: PendingWrite | Unembedded | Kept) -> None:
        change = item.job.change
        if isinstance(item, PendingWrite):
            if item.result is None:
                message = (item.write.failure or {}).get("message", "")
                self._activity.note_failed(change, message)
            else:
                self._activity.note_stored(change, item.moved_from)
        elif not isinstance(item, Kept) and isinstance(item.reason, ReadError):
            self._activity.note_failed(change, item.reason.message)
        else:
            self._activity.note_other(change)

    def _count(self, item: PendingWrite | Unembedded | Kept) -> None:
        counts = self._counts
        with self._counts_lock:
            if isinstance(item, Kept):
                counts.unreadable += item.is_unknown
            elif isinstance(item, Unembedded):
                if item.reason is Skipped.NOT_A_PICTURE:
                    self._count_no_picture(item.job.change)
                counts.failed += isinstance(item.reason, ReadError)
            elif item.result is None:
                counts.failed += 1
            elif item.result.embed_ms is None:
                counts.reused += 1
            else:
                counts.embedded += 1

    def _count_no_picture(self, change: Change) -> None:
        """Count a file once, however often it is read; of very many, each reading counts."""
        key = hash((change.root.name, change.relative_path))
        self._counts.not_pictures += key not in self._no_pictures
        if len(self._no_pictures) < MOST_NO_PICTURES:
            self._no_pictures.add(key)
