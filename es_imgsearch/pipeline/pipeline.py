"""Run the stages: accept changes, wait for their acknowledgement, close in order.

The package's docstring lists the way of one picture, function by function.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from es_imgsearch.describe.registry import vector_describers
from es_imgsearch.elastic.retry import Outage, persist
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.context import IndexContext
from es_imgsearch.embed.encoder_process import encoders_for
from es_imgsearch.embed.in_process import InProcessEncoder
from es_imgsearch.embed.runtime.network import batch_size
from es_imgsearch.pipeline.acknowledge_stage import AcknowledgeStage
from es_imgsearch.pipeline.describe_stage import DescribeStage, VectorFields
from es_imgsearch.pipeline.embed_stage import EmbedStage
from es_imgsearch.pipeline.in_flight import InFlight
from es_imgsearch.pipeline.jobs import (
    NO_EVENT,
    UNKNOWN_SIGNATURE,
    Counts,
    Kept,
    RunState,
    max_files_in_flight,
    read_signature,
)
from es_imgsearch.pipeline.read_stage import ReadStage
from es_imgsearch.pipeline.vector_source import VectorSource
from es_imgsearch.pipeline.write_stage import WriteStage
from es_imgsearch.read.file import Skipped
from es_imgsearch.read.workers import ReadPlan, ReadWorkers
from es_imgsearch.records import Change, Embedded, FileState, Root
from es_imgsearch.settings import Settings
from es_imgsearch.watch.presence import RootFiles
from es_imgsearch.watch.root_disk import RootDisks
from es_imgsearch.write.activity import Activity
from es_imgsearch.write.carried_fields import CarriedFields
from es_imgsearch.write.field_memory import FieldMemory
from es_imgsearch.write.pending_deletions import Progress
from es_imgsearch.write.unstored import UnstoredFiles

_SLOT_WAIT_SECONDS = 0.2

# The part of `within_seconds` of `close` for ending threads and processes.
_END_SECONDS = 3.0


class Pipeline:
    """Run the stages; `submit` feeds them, `wait_idle` and `close` end them."""

    def __init__(
        self,
        context: IndexContext,
        settings: Settings,
        *,
        emit: Callable[[Change, Skipped | Kept], None],
        vector_fields: VectorFields = lambda _vector: {},
        progress: Progress | None = None,
        outage: Outage | None = None,
        disks: RootDisks | None = None,
        files: Callable[[Root], RootFiles] | None = None,
        memory: FieldMemory | None = None,
        unstored: UnstoredFiles | None = None,
        warm_up: bool = False,
        folders: Sequence[str] = (),
    ) -> None:
        """Start the stages' threads.

        `emit` gets each path that leaves no document of its present state: it is absent or no
        picture, it changed while it was in flight, or it could not be read although it is stored.
        `vector_fields` is the optional step after embedding.  `progress.files` numbers the
        submitted files.  `disks` are closed with the pipeline.  `files` tells which files of a root
        are gone, `memory` the fields of documents that went.  `unstored` files are not read
        again until they change.  `warm_up` loads the model at once,
        so that the first picture does not wait for it.  `folders` are the watched ones.
        """
        store, encoder, grid = context.store, context.encoder, context.grid
        self._emit = emit
        self._disks = disks or RootDisks()
        self.outage = outage or Outage()
        self.counts, self.activity = Counts(), Activity()
        self._in_flight = InFlight(
            max_files_in_flight(settings, encoder, grid), (progress or Progress()).files, unstored
        )
        self._run = RunState(self._in_flight.wake)
        self.closing, self.stopping = self._run.closing, self._run.stopping
        self._drained: bool | None = None
        self._encoder = InProcessEncoder(encoder)
        encoder_batch_size = batch_size(encoder, settings.batch_size)
        look_up = partial(
            _look_up_vectors, store, grid is not None, stopping=self.stopping, outage=self.outage
        )
        # From the last stage to the first: each is given the one that follows it.
        acknowledging = AcknowledgeStage(
            self._in_flight,
            self.counts,
            self._run,
            activity=self.activity,
            disk=self._disks.of,
            emit=emit,
        )
        self._writing = WriteStage(
            lambda writes: store.documents.write(writes),
            lambda ids: store.documents.states(ids),
            is_writable=lambda image_id: store.documents.is_writable(image_id),
            emit=acknowledging.put,
            outage=self.outage,
            stopping=self.stopping,
        )
        describing = DescribeStage(
            store,
            self._encoder,
            vector_describers(context.describers),
            vector_fields,
            CarriedFields(
                store,
                context.describers,
                files=files or self._all_files,
                memory=memory or FieldMemory(),
                outage=self.outage,
                stopping=self.stopping,
            ),
            emit=self._writing.put,
            outage=self.outage,
            stopping=self.stopping,
            properties=context.info.properties,
        )
        self._embedding = EmbedStage(
            VectorSource(encoder, look_up, encoder_batch_size),
            encoders_for(self._encoder, settings),
            batch_size=encoder_batch_size,
            wait_seconds=settings.batch_wait_ms / 1000,
            all_read=self._in_flight.is_all_read,
            emit=describing.put,
            stopping=self.stopping,
            warm_up=warm_up,
        )
        plan = ReadPlan.of(
            settings,
            encoder.preparation,
            describers=context.describers,
            grid=grid,
            folders=folders,
        )
        self._reading = ReadStage(
            ReadWorkers(plan, settings.read_workers),
            self._in_flight,
            self._run,
            activity=self.activity,
            emit=self._embedding.put,
        )
        loops = {
            "read": self._reading.run,
            **self._embedding.loops(),
            "describe": describing.prepare,
            "write": self._writing.run,
        }
        self._threads = [
            threading.Thread(target=self._run.guard, args=(loop,), name=name, daemon=True)
            for name, loop in loops.items()
        ]
        for thread in self._threads:
            thread.start()

    def _all_files(self, root: Root) -> RootFiles:
        return RootFiles(root, lambda *_: False, {}, self._disks.of(root))

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
        deadline = time.monotonic() + _END_SECONDS
        # Close the queues, which ends the threads; encoders end after their current batch.
        self._embedding.close()
        self._writing.close()
        # End the reading processes at once: the next comparison finds their files again.
        self._reading.close()
        self._disks.close()
        # A thread that still waits for an answer is left behind: it is a daemon thread.
        for thread in self._threads:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))
        # Kill encoder processes that still embed; wait until no thread is inside a model, which
        # would abort the process when the interpreter ends.
        self._embedding.abandon()
        self._encoder.abandon()
        return self._drained


def _look_up_vectors(
    store: Store,
    with_regions: bool,
    content_ids: Sequence[str],
    fields: Sequence[str],
    *,
    stopping: threading.Event,
    outage: Outage,
) -> dict[str, Embedded]:
    """Look up stored vectors by content id, waiting out an outage."""
    return persist(
        lambda: store.documents.embedded_by_content(content_ids, fields, with_regions=with_regions),
        stopping,
        outage,
    )
