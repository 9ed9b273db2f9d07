"""From a change to an acknowledged document: read, embed, write, each with its own queue.

    submit ──▶ reading workers ──▶ look-up ──▶ encoders ──▶ write ──▶ acknowledged
                (processes)         thread     thread each   thread
                                               (processes)

Workers decode ahead, an encoder always finds its next batch waiting, and writing overlaps with
both.  As many files are on their way at most as `queue_size` and `queue_memory_mb` allow; `submit`
waits for a place.  One change a path is in flight; a change that comes meanwhile is looked at
when the first is done.  Order of shutdown: no more submissions, what is in flight is finished as
long as `shutdown_seconds` allow, then workers, then threads, each encoder's process by its own.
What was not finished is found by the next reconcile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import cast

from es_imgsearch.codes.coder import Coder
from es_imgsearch.describe.registry import vector_describers
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.retry import Outage, Stopped, persist
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.encoder_process import encoders_for
from es_imgsearch.embed.in_process import OneAtATime
from es_imgsearch.embed.protocol import Encoder
from es_imgsearch.embed.runtime.network import batch_size
from es_imgsearch.errors import ReadError, ReadersFailed, StoreError
from es_imgsearch.pipeline.jobs import Counts, InFlight, Job, Ready, Result, look, places
from es_imgsearch.pipeline.stages import DescribeStage, EmbedStage, WriteStage
from es_imgsearch.pipeline.vector_source import VectorSource
from es_imgsearch.read.file import Skipped
from es_imgsearch.read.workers import Outcome, ReadPlan, ReadWorkers
from es_imgsearch.records import Change, Embedded, FileState, Grid, Picture
from es_imgsearch.settings import Settings
from es_imgsearch.write.documents import failure_document, picture_document

_PLACE_WAIT_SECONDS = 0.2

# What the end itself may take of the seconds that `close` is given.
_END_SECONDS = 3.0


class Pipeline:
    """Runs the stages; `submit` feeds them, `wait_idle` and `close` end them."""

    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        settings: Settings,
        *,
        on_gone: Callable[[Change], None],
        on_unsettled: Callable[[Change], None],
        outage: Outage | None = None,
        warm_up: bool = False,
        describers: Sequence[str] | None = None,
        grid: Grid | None = None,
        coder: Coder | None = None,
    ) -> None:
        """`grid` says of which tiles vectors are kept too; see `regions`.

        `coder` makes codes of the vectors, where the index keeps them; it may be replaced.
        """
        self.coder = coder
        self._store = store
        self._grid = grid
        self._on_gone = on_gone
        self._on_unsettled = on_unsettled
        self.outage = outage or Outage()
        self.counts = Counts()
        self.fatal: BaseException | None = None
        # Nothing more is taken in; then (when `stopping`) nothing more is done.
        self.closing = threading.Event()
        self.stopping = threading.Event()
        # Of the counts and of `_reading`.
        self._lock = threading.Lock()
        self._in_flight = InFlight(places(settings, encoder, grid))
        self._drained: bool | None = None
        # Jobs whose files the workers have not answered for.
        self._reading = 0
        self._encoder = OneAtATime(encoder)
        self._describing = DescribeStage(
            store,
            cast("Encoder", self._encoder),
            vector_describers(describers),
            outage=self.outage,
            stopping=self.stopping,
        )
        at_once = batch_size(encoder, settings.batch_size)
        self._embedding = EmbedStage(
            VectorSource(encoder, self._stored_vectors, at_once),
            encoders_for(self._encoder, settings),
            batch_size=at_once,
            wait_seconds=settings.batch_wait_ms / 1000,
            all_read=lambda: not self._reading,
            begin=self._describing.begin,
            on_embedded=self._embedded,
            on_error=self._fail,
            stopping=self.stopping,
            warm_up=warm_up,
        )
        self._writing = WriteStage(
            lambda writes: self._store.documents.write(writes),
            acknowledged=self._acknowledged,
            refused=self._refused,
            unstored=self._unstored,
            outage=self.outage,
            stopping=self.stopping,
        )
        self._workers = ReadWorkers(
            ReadPlan.of(settings, encoder.preparation, describers=describers, grid=grid),
            settings.read_workers,
        )
        loops = {**self._embedding.loops(), "write": self._writing.run}
        self._threads = [
            threading.Thread(target=self._guarded, args=(loop,), name=name, daemon=True)
            for name, loop in loops.items()
        ]
        for thread in self._threads:
            thread.start()

    # -- from outside ----------------------------------------------------------------------

    def submit(self, change: Change, *, listed_at: float | None = None) -> None:
        """Look at a path and do what its state asks for; waits while there is no place.

        A file that was acknowledged in its present state is left alone, unless the index was
        listed without it at `listed_at` (`time.monotonic()`) or later: then somebody else
        removed its document.

        Raises Stopped when the pipeline is closing, or what ended it.
        """
        self._check()
        while not self._in_flight.take_place(_PLACE_WAIT_SECONDS):
            self._check()
        signature = look(change)
        job, joins = self._in_flight.begin(change, signature, listed_at)
        if job is not None:
            self._read(job)
            return
        self._check()
        if signature is None and not joins:
            self._on_gone(change)

    def no_pictures(self) -> dict[str, FileState]:
        """Ids of files that were looked at and are no pictures, in the state they had."""
        return self._in_flight.no_pictures()

    def is_no_picture(self, change: Change, state: FileState) -> bool:
        """Whether that file was looked at in this state, and is no picture."""
        return self._in_flight.is_no_picture(change.image_id, state)

    @property
    def ticket(self) -> int:
        """A mark in time: `settled_until` reaches it when all before it is acknowledged."""
        return self._in_flight.ticket

    @property
    def settled_until(self) -> int:
        return self._in_flight.settled_until

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    def wait_idle(self, timeout_seconds: float | None = None) -> bool:
        """Wait until nothing is in flight; False when the time ran out.

        Raises what ended the pipeline, if something did.
        """
        is_idle = self._in_flight.wait_idle(timeout_seconds, lambda: self.fatal is not None)
        if self.fatal is not None:
            raise self.fatal
        return is_idle

    def forget(self, change: Change) -> None:
        """The document of this path was deleted; the same file back again is new."""
        self._in_flight.forget(change)

    def close(self, *, within_seconds: float = 0.0) -> bool:
        """End within so many seconds, most of them for what is in flight; False if some was left.

        May be called again, which changes nothing.
        """
        self.closing.set()
        if self._drained is None:
            try:
                drain_seconds = max(within_seconds / 2, within_seconds - _END_SECONDS)
                self._drained = self.wait_idle(drain_seconds)
            except BaseException:  # noqa: BLE001 - `fatal`, which whoever waits is told
                self._drained = False
            self.stopping.set()
            deadline = time.monotonic() + _END_SECONDS
            self._embedding.end()
            self._writing.end()
            self._workers.close()
            for thread in self._threads:
                # One that waits for an answer that does not come is not waited for.
                thread.join(timeout=max(0.0, deadline - time.monotonic()))
            self._embedding.abandon()
            self._encoder.abandon()
        return self._drained

    # -- stages ----------------------------------------------------------------------------

    def _read(self, job: Job) -> None:
        path = job.change.root.absolute(job.change.relative_path)
        with self._lock:
            self._reading += 1
        try:
            self._workers.read(
                path, lambda outcome: self._guarded(lambda: self._was_read(job, outcome))
            )
        except RuntimeError as error:
            # The workers were ended between the question and the answer.
            if self.stopping.is_set():
                raise Stopped from error
            raise

    def _was_read(self, job: Job, outcome: Outcome) -> None:
        with self._lock:
            # Before it is passed on: whoever takes it shall not wait for a file that does not come.
            self._reading -= 1
        if isinstance(outcome, ReadersFailed):
            # Not this file's fault: nobody shall find it among the failures.
            raise outcome
        if isinstance(outcome, Picture):
            self._embedding.put(job, outcome)
        elif isinstance(outcome, ReadError):
            self._fail(job, outcome)
        else:
            if outcome is Skipped.NOT_A_PICTURE:
                self._in_flight.note_no_picture(job)
                with self._lock:
                    self.counts.not_pictures += 1
            self._finish(job)
            if self.stopping.is_set():
                return
            if outcome is Skipped.CHANGING:
                self._on_unsettled(job.change)
            else:
                self._on_gone(job.change)

    def _fail(self, job: Job, error: ReadError) -> None:
        failure = failure_document(job.change, error, job.signature.state)
        write = Write(job.change.image_id, failure=failure)
        self._writing.put(Ready(job, write, "failed", job.signature.state))

    def _refused(self, ready: Ready, error: StoreError) -> None:
        """Once more without what a describer gave, if it was that; else the picture failed."""
        if ready.result is not None and self._describing.mend(ready.result, error):
            self._write(ready.result)
        else:
            self._fail(ready.job, ReadError("rejected", str(error)))

    def _unstored(self, job: Job) -> None:
        self.counts.failed += 1
        self._finish(job)

    def _embedded(self, results: Sequence[Result]) -> None:
        self._describing.describe(results)
        for result in results:
            self._write(result._replace(picture=result.picture.without_pixels()))

    def _write(self, result: Result) -> None:
        job, picture, embedded, embed_ms = result
        coder = self.coder
        code = None if coder is None else coder.code(embedded.vector)
        document = picture_document(job.change, picture, embedded, embed_ms, code)
        write = Write(job.change.image_id, document=document)
        counts_as = "reused" if embed_ms is None else "embedded"
        self._writing.put(Ready(job, write, counts_as, picture.state, result))

    def _stored_vectors(
        self, content_ids: Sequence[str], fields: Sequence[str]
    ) -> dict[str, Embedded]:
        return persist(
            lambda: self._store.documents.embedded_by_content(
                content_ids, fields, with_regions=self._grid is not None
            ),
            self.stopping,
            self.outage,
        )

    def _acknowledged(self, ready: Ready) -> None:
        with self._lock:
            setattr(self.counts, ready.counts_as, getattr(self.counts, ready.counts_as) + 1)
        self._in_flight.note_stored(ready.job, ready.state)
        self._finish(ready.job)

    def _finish(self, job: Job) -> None:
        """Give the place back, or go on with the change that came meanwhile."""
        repeats, gone = self._in_flight.end(job, may_repeat=lambda: not self.closing.is_set())
        if repeats:
            self._read(job)
        elif gone is not None and not self.stopping.is_set():
            self._on_gone(gone)

    # -- running ---------------------------------------------------------------------------

    def _check(self) -> None:
        if self.fatal is not None:
            raise self.fatal
        if self.closing.is_set():
            raise Stopped

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do it in a thread that nobody waits for."""
        try:
            work()
        except Stopped:
            return
        except BaseException as error:  # noqa: BLE001 - told to whoever waits, and ends the process
            self.fatal = error
            self._in_flight.wake()
