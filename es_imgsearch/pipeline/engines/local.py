"""Run the stages: accept changes, wait for their acknowledgement, close in order.

The package's docstring lists the way of one picture, function by function.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial

from es_imgsearch.describe.registry import vector_describers
from es_imgsearch.elastic.retry import Outage, persist
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.context import IndexContext
from es_imgsearch.embed.encoder_process import encoders_for
from es_imgsearch.embed.in_process import InProcessEncoder
from es_imgsearch.embed.runtime.network import batch_size
from es_imgsearch.pipeline.describe_stage import DescribeStage, VectorFields
from es_imgsearch.pipeline.embed_stage import EmbedStage
from es_imgsearch.pipeline.engines.intake import Acknowledged, Intake
from es_imgsearch.pipeline.jobs import (
    Kept,
    max_files_in_flight,
)
from es_imgsearch.pipeline.read_stage import ReadStage
from es_imgsearch.pipeline.vector_source import VectorSource
from es_imgsearch.pipeline.write_stage import PromptRefresh, WriteStage
from es_imgsearch.read.file import Skipped
from es_imgsearch.read.workers import ReadPlan, ReadWorkers
from es_imgsearch.records import Change, Embedded, Root
from es_imgsearch.settings import Settings
from es_imgsearch.watch.presence import RootFiles
from es_imgsearch.watch.root_disk import RootDisks
from es_imgsearch.write.carried_fields import CarriedFields
from es_imgsearch.write.field_memory import FieldMemory
from es_imgsearch.write.pending_deletions import Progress
from es_imgsearch.write.unstored import UnstoredFiles


class Pipeline(Intake):
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
        note: Callable[[Acknowledged], None] = lambda _item: None,
    ) -> None:
        """Start the stages' threads.

        `emit` gets each path that leaves no document of its present state: it is absent or no
        picture, it changed while it was in flight, or it could not be read although it is stored.
        `vector_fields` is the optional step after embedding.  `progress.files` numbers the
        submitted files.  `disks` are closed with the pipeline.  `files` tells which files of a root
        are gone, `memory` the fields of documents that went.  `unstored` files are not read
        again until they change.  `warm_up` loads the model at once,
        so that the first picture does not wait for it.  `folders` are the watched ones.
        `note` gets each item at its acknowledgement.
        """
        store, encoder, grid = context.store, context.encoder, context.grid
        super().__init__(
            max_files_in_flight(settings, encoder, grid),
            emit=emit,
            progress=progress,
            outage=outage,
            disks=disks,
            unstored=unstored,
            note=note,
        )
        self._encoder = InProcessEncoder(encoder)
        encoder_batch_size = batch_size(encoder, settings.batch_size)
        look_up = partial(
            _look_up_vectors, store, grid is not None, stopping=self.stopping, outage=self.outage
        )
        # From the last stage to the first: each is given the one that follows it.
        prompt = PromptRefresh(self._in_flight.__len__)
        self._writing = WriteStage(
            lambda writes: store.documents.write(writes, refresh=prompt.is_due(len(writes))),
            lambda ids: store.documents.states(ids),
            is_writable=lambda image_id: store.documents.is_writable(image_id),
            emit=self._acknowledging.put,
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
        self._start(
            {
                "read": self._reading.run,
                **self._embedding.loops(),
                "describe": describing.prepare,
                "write": self._writing.run,
            }
        )

    def _all_files(self, root: Root) -> RootFiles:
        return RootFiles(root, lambda *_: False, {}, self._disks.of(root))

    def _end(self, deadline: float) -> None:
        # Close the queues, which ends the threads; encoders end after their current batch.
        self._embedding.close()
        self._writing.close()
        # End the reading processes at once: the next comparison finds their files again.
        self._reading.close()
        self._disks.close()
        self._join(deadline)
        # Kill encoder processes that still embed; wait until no thread is inside a model, which
        # would abort the process when the interpreter ends.
        self._embedding.abandon()
        self._encoder.abandon()


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
