"""Run the stages: take changes in, wait until they are acknowledged, close in order.

The way of one picture, function by function, is on the page of this package.
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
from es_imgsearch.pipeline.ends import AcknowledgeStage, ReadStage
from es_imgsearch.pipeline.jobs import Counts, InFlight, Run, look, places
from es_imgsearch.pipeline.stages import DescribeStage, EmbedStage, VectorFields, WriteStage
from es_imgsearch.pipeline.vector_source import VectorSource
from es_imgsearch.read.file import Skipped
from es_imgsearch.read.workers import ReadPlan, ReadWorkers
from es_imgsearch.records import Change, Embedded, FileState
from es_imgsearch.settings import Settings
from es_imgsearch.write.pending_deletions import Progress

_PLACE_WAIT_SECONDS = 0.2

# Of the seconds that `close` is given: what ending threads and processes may take.
_END_SECONDS = 3.0


class Pipeline:
    """Runs the stages; `submit` feeds them, `wait_idle` and `close` end them."""

    def __init__(
        self,
        context: IndexContext,
        settings: Settings,
        *,
        emit: Callable[[Change, Skipped], None],
        vector_fields: VectorFields = lambda _vector: {},
        progress: Progress | None = None,
        outage: Outage | None = None,
        warm_up: bool = False,
    ) -> None:
        """`emit` gets each path that leaves no document: it is there no more or no picture, or it
        changed while it was read.  `vector_fields` is the optional step after embedding.
        `progress.files` numbers the submitted files.

        `warm_up` loads the model at once, so that the first picture does not wait for it.
        """
        store, encoder, grid = context.store, context.encoder, context.grid
        self._emit = emit
        self.outage = outage or Outage()
        self.counts = Counts()
        self._in_flight = InFlight(places(settings, encoder, grid), (progress or Progress()).files)
        self._run = Run(self._in_flight.wake)
        self.closing, self.stopping = self._run.closing, self._run.stopping
        self._drained: bool | None = None
        self._encoder = InProcessEncoder(encoder)
        at_once = batch_size(encoder, settings.batch_size)
        stored = partial(
            _stored_vectors, store, grid is not None, stopping=self.stopping, outage=self.outage
        )
        # From the last stage to the first: each is given the one that follows it.
        acknowledging = AcknowledgeStage(self._in_flight, self.counts, self._run, emit=emit)
        self._writing = WriteStage(
            lambda writes: store.documents.write(writes),
            emit=acknowledging.put,
            outage=self.outage,
            stopping=self.stopping,
        )
        describing = DescribeStage(
            store,
            self._encoder,
            vector_describers(context.describers),
            vector_fields,
            emit=self._writing.put,
            outage=self.outage,
            stopping=self.stopping,
        )
        self._embedding = EmbedStage(
            VectorSource(encoder, stored, at_once),
            encoders_for(self._encoder, settings),
            batch_size=at_once,
            wait_seconds=settings.batch_wait_ms / 1000,
            all_read=self._in_flight.is_all_read,
            emit=describing.put,
            stopping=self.stopping,
            warm_up=warm_up,
        )
        plan = ReadPlan.of(settings, encoder.preparation, describers=context.describers, grid=grid)
        self._reading = ReadStage(
            ReadWorkers(plan, settings.read_workers),
            self._in_flight,
            self._run,
            emit=self._embedding.put,
        )
        loops = {
            "read": self._reading.run,
            **self._embedding.loops(),
            "describe": describing.begin,
            "write": self._writing.run,
        }
        self._threads = [
            threading.Thread(target=self._run.guarded, args=(loop,), name=name, daemon=True)
            for name, loop in loops.items()
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, change: Change, *, listed_at: float | None = None) -> None:
        """Look at a path and do what its state asks for; waits while there is no place.

        A file that was acknowledged in its present state is left alone, unless the index was
        listed without it at `listed_at` (`time.monotonic()`) or later: then another process
        removed its document.

        Raises Stopped when the pipeline is closing, or what ended it.
        """
        self._run.check()
        while not self._in_flight.take_place(_PLACE_WAIT_SECONDS):
            self._run.check()
        signature = look(change)
        begun = self._in_flight.begin(change, signature, listed_at)
        if begun.job is None:
            self._run.check()
            if signature is None and not begun.joins:
                self._emit(change, Skipped.GONE)

    def no_pictures(self) -> dict[str, FileState]:
        """Ids of files that were looked at and are no pictures, in the state they had."""
        return self._in_flight.no_pictures()

    def is_no_picture(self, change: Change, state: FileState) -> bool:
        """Whether that file was looked at in this state, and is no picture."""
        return self._in_flight.is_no_picture(change.image_id, state)

    @property
    def fatal(self) -> BaseException | None:
        """The error that ended the pipeline, if one did."""
        return self._run.fatal

    @property
    def in_flight(self) -> int:
        """How many files are on their way."""
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
        # Take nothing more in, so that what is in flight becomes less.
        self.closing.set()
        if self._drained is not None:
            return self._drained
        # Let what is in flight reach Elasticsearch: the next start need not do it again.
        try:
            self._drained = self.wait_idle(max(within_seconds / 2, within_seconds - _END_SECONDS))
        except BaseException:  # noqa: BLE001 - `fatal`, which `submit` and `wait_idle` raise
            self._drained = False
        # Whatever waits for Elasticsearch to come back gives up.
        self.stopping.set()
        deadline = time.monotonic() + _END_SECONDS
        # Close the queues, in which threads wait for more; encoders end after their batch.
        self._embedding.end()
        self._writing.end()
        # End the reading processes at once: what they read is found again.
        self._reading.end()
        # A thread that waits for an answer that does not come is left behind: it is a daemon.
        for thread in self._threads:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))
        # Kill encoder processes that are still at a batch; wait until no thread is inside a model,
        # which would abort the process when the interpreter ends.
        self._embedding.abandon()
        self._encoder.abandon()
        return self._drained


def _stored_vectors(
    store: Store,
    with_regions: bool,
    content_ids: Sequence[str],
    fields: Sequence[str],
    *,
    stopping: threading.Event,
    outage: Outage,
) -> dict[str, Embedded]:
    """Vectors in the index by content, looked up again after an outage."""
    return persist(
        lambda: store.documents.embedded_by_content(content_ids, fields, with_regions=with_regions),
        stopping,
        outage,
    )
