"""Spread what is missing over actors of Ray; list, compare and delete here.

submit ──▶ waiting files ──▶ blocks ──▶ actors: the local engine on a block
                                          │ what became of each file
acknowledge ◀─────────────────────────────┘
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from typing import Any, Final

import numpy as np

from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.retry import Outage
from es_imgsearch.embed.context import IndexContext
from es_imgsearch.embed.protocol import Encoder
from es_imgsearch.errors import ReadError
from es_imgsearch.pipeline.describe_stage import failure_write
from es_imgsearch.pipeline.engines.actors import Actors
from es_imgsearch.pipeline.engines.blocks import MOST_FILES, WaitingFiles
from es_imgsearch.pipeline.engines.cluster import connected
from es_imgsearch.pipeline.engines.intake import Acknowledged, Intake
from es_imgsearch.pipeline.engines.messages import FileOutcome, News, SpreadPlan
from es_imgsearch.pipeline.jobs import (
    EmbedResult,
    Job,
    Kept,
    PendingWrite,
    Unembedded,
    read_signature,
)
from es_imgsearch.pipeline.write_stage import WriteStage
from es_imgsearch.read.file import Skipped
from es_imgsearch.records import Change, Embedded, FileSignature, Picture, Root
from es_imgsearch.settings import Settings
from es_imgsearch.watch.root_disk import RootDisks
from es_imgsearch.write.field_memory import FieldMemory
from es_imgsearch.write.pending_deletions import Progress
from es_imgsearch.write.unstored import UnstoredFiles

# About 1 kB each.
_FILES_IN_FLIGHT: Final = 20 * MOST_FILES

# Variables with which libraries open buckets; an actor takes those that its machine has not set.
_OF_BUCKETS: Final = ("AWS_", "S3_", "GOOGLE_", "AZURE_", "FSSPEC_")

# An actor has the vector, and its document is stored.
_NO_VECTOR: Final = Embedded(np.empty(0, np.float32))


class SpreadPipeline(Intake):
    """An engine whose stages run in actors; Ray starts with the first file."""

    def __init__(
        self,
        context: IndexContext,
        settings: Settings,
        *,
        roots: Sequence[Root],
        encoder: Encoder | None = None,
        emit: Callable[[Change, Skipped | Kept], None],
        progress: Progress | None = None,
        outage: Outage | None = None,
        disks: RootDisks | None = None,
        memory: FieldMemory | None = None,
        unstored: UnstoredFiles | None = None,
        **_of_the_stages: Any,
    ) -> None:
        """Take what `Pipeline` takes, and the roots; `encoder` is one that has no name."""
        super().__init__(
            _FILES_IN_FLIGHT,
            emit=emit,
            progress=progress,
            outage=outage,
            disks=disks,
            unstored=unstored,
        )
        self._settings = settings
        self._memory = memory or FieldMemory()
        self._plan = SpreadPlan(
            settings=_of_an_actor(settings),
            roots=roots,
            index=context.info.name,
            version=version("es-imgsearch"),
            encoder=encoder,
            environment={
                name: value for name, value in os.environ.items() if name.startswith(_OF_BUCKETS)
            },
        )
        self._waiting = WaitingFiles()
        store = context.store
        self._writing = WriteStage(
            lambda writes: store.documents.write(writes),
            lambda ids: store.documents.states(ids),
            is_writable=lambda image_id: store.documents.is_writable(image_id),
            emit=self._acknowledging.put,
            outage=self.outage,
            stopping=self.stopping,
        )
        self._cluster = ExitStack()
        self.actors: Actors | None = None

    def submit(self, change: Change, *, listed_at: float | None = None) -> None:
        """Begin a job, see `Intake.submit`; the first call starts Ray.

        Raises SettingsError if that cannot be.
        """
        if self.actors is None:
            self._begin()
        super().submit(change, listed_at=listed_at)

    def _begin(self) -> None:
        self._run.check()
        ray = self._cluster.enter_context(connected(self._settings.ray_address))
        self.actors = Actors(
            ray,
            self._plan,
            self._settings,
            self._waiting,
            take=self._take,
            take_news=self._take_news,
            fail=lambda job, error: self._writing.put(failure_write(job, error)),
            stopping=self.stopping,
        )
        self._start(
            {
                "queue": self._queue,
                "actors": self.actors.run,
                "watchdog": self.actors.watch,
                "write": self._writing.run,
            }
        )

    def _queue(self) -> None:
        for job in self._in_flight.jobs_to_read():
            self._in_flight.mark_read()
            self._waiting.put(job)

    def _take(self, job: Job, outcome: FileOutcome) -> None:
        self._acknowledging.put(_acknowledged(job, outcome))

    def _take_news(self, news: News) -> None:
        if news.costs:
            self.activity.add_costs(news.costs)
        if news.copies:
            self._memory.put_copied(news.copies)

    def _end(self, deadline: float) -> None:
        self._in_flight.stop_reading()
        self._writing.close()
        self._disks.close()
        self._join(deadline)
        if self.actors is not None:
            self.actors.close()
        self._cluster.close()


def _of_an_actor(settings: Settings) -> Settings:
    """Return the settings of an actor: readers and model have `ray_cpus` cores."""
    cores = max(1, int(settings.ray_cpus))
    update: dict[str, Any] = {"workers": 1}
    for name in ("threads", "read_workers"):
        if name not in settings.model_fields_set:
            update[name] = cores
    return settings.model_copy(update=update)


def _acknowledged(job: Job, outcome: FileOutcome) -> Acknowledged:
    """Return what an engine in this process would acknowledge."""
    reason = outcome.reason
    if outcome.state is None and reason is not Skipped.NOT_A_PICTURE:
        # An actor did not find it.  What is there for this machine settles, and is tried again:
        # a network share may show it to another one later.
        is_here = read_signature(job.change) is not None
        return Unembedded(job, Skipped.CHANGING if is_here else Skipped.GONE)
    if isinstance(reason, ReadError) and outcome.is_kept:
        return Kept(job, reason, outcome.is_unknown)
    if isinstance(reason, ReadError) and outcome.is_failure:
        failure = {"error_class": reason.error_class, "message": reason.message}
        return PendingWrite(job, Write(job.change.image_id, failure=failure))
    if reason is not None:
        return Unembedded(job, reason)
    # Inode and times of status changes may differ between machines that see one share.
    signature = job.signature
    if outcome.state is not None and outcome.state != signature.state:
        signature = FileSignature(outcome.state, -1, -1)
    picture = Picture("", signature, np.empty((0, 0, 3), np.uint8), read_began_at=job.queued_at)
    embed_ms = None if outcome.is_reused else 0.0
    result = EmbedResult(job, picture, _NO_VECTOR, embed_ms)
    write = Write(job.change.image_id, document={})
    return PendingWrite(job, write, result, moved_from=outcome.moved_from)
