"""Run the local engine on blocks of files; what an actor does, without Ray."""

from __future__ import annotations

import logging
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version

from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.retry import Outage
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.context import IndexContext, open_context
from es_imgsearch.errors import (
    EncodersFailed,
    GenerationSwitched,
    ImgSearchError,
    RootError,
    SettingsError,
)
from es_imgsearch.pipeline.engines.intake import Acknowledged
from es_imgsearch.pipeline.engines.local import Pipeline
from es_imgsearch.pipeline.engines.messages import FileOutcome, FileRow, News, SpreadPlan
from es_imgsearch.pipeline.jobs import Kept
from es_imgsearch.read.file import Skipped
from es_imgsearch.records import Change, Root
from es_imgsearch.watch.sources.registry import source_of
from es_imgsearch.write.field_memory import Copy, FieldMemory

# How often news are sent, and how often an actor says at least that it lives.
_NEWS_SECONDS = 0.25
_SIGN_SECONDS = 1.0


class BlockWorker:
    """A pipeline that is fed blocks; one block at a time."""

    def __init__(self) -> None:
        self._pipeline: Pipeline | None = None
        self._logged = _Records()

    def open(self, plan: SpreadPlan) -> News:
        """Open the index and the model; the news have the error if that cannot be."""
        logging.getLogger().addHandler(self._logged)
        _hide_main_module()
        for name, value in plan.environment.items():
            os.environ.setdefault(name, value)
        try:
            self._open(plan)
        except ImgSearchError as error:
            return News(error=sendable(error))
        return News(process=f"{os.getpid()} on {socket.gethostname()}")

    def _open(self, plan: SpreadPlan) -> None:
        installed = version("es-imgsearch")
        if plan.version != installed:
            raise SettingsError(
                f"{socket.gethostname()} has es-imgsearch {installed}, and this"
                f" machine {plan.version}: install the same version on all."
            )
        _check_roots(plan.roots)
        settings = plan.settings
        store = Store(connect(settings), settings.index).pinned()
        context = open_context(store, settings, plan.encoder)
        if context.info.name != plan.index:
            raise GenerationSwitched(f"The index {settings.index!r} was switched meanwhile.")
        self._memory = _Copies(store)
        # By the id of the file: whose outcome is known, of the block in progress.
        self._known: set[str] = set()
        self._outcomes: queue.SimpleQueue[FileOutcome] = queue.SimpleQueue()
        self._pipeline = self._new_pipeline(plan, context)

    def _new_pipeline(self, plan: SpreadPlan, context: IndexContext) -> Pipeline:
        return Pipeline(
            context,
            plan.settings,
            emit=self._take_leftover,
            vector_fields=context.post_embed().fields,
            outage=Outage(context.store.check_busy),
            memory=self._memory,
            warm_up=True,
            folders=[root.absolute("") for root in plan.roots],
            note=self._take,
        )

    def run(self, rows: Sequence[FileRow]) -> Iterator[News]:
        """Index a block; yield what becomes of its files, and a sign of life every second."""
        if (pipeline := self._pipeline) is None:
            raise RuntimeError("the worker was not opened")
        self._known = set()
        pipeline.forget_done()
        submitting = threading.Thread(
            target=self._submit, args=(pipeline, rows), name="submit", daemon=True
        )
        submitting.start()
        said_at = time.monotonic()
        is_done = False
        while not is_done:
            try:
                submitting.join(_NEWS_SECONDS)
                is_done = not submitting.is_alive() and pipeline.wait_idle(_NEWS_SECONDS)
            except Exception as error:  # noqa: BLE001 - raised by the driver, with all its stages
                yield self._news(pipeline, error)
                return
            has_news = not (self._outcomes.empty() and self._logged.records.empty())
            if has_news or is_done or time.monotonic() - said_at >= _SIGN_SECONDS:
                said_at = time.monotonic()
                yield self._news(pipeline)

    def _submit(self, pipeline: Pipeline, rows: Iterable[FileRow]) -> None:
        with suppress(Exception):  # `wait_idle` raises it
            for row in rows:
                pipeline.submit(row.change(), listed_at=time.monotonic())

    def _take(self, item: Acknowledged) -> None:
        self._known.add(item.job.change.image_id)
        self._outcomes.put(FileOutcome.of(item))

    def _take_leftover(self, change: Change, reason: Skipped | Kept) -> None:
        # The driver looks itself whether a file changed since it was acknowledged.
        if isinstance(reason, Skipped) and change.image_id not in self._known:
            self._known.add(change.image_id)
            self._outcomes.put(FileOutcome(change.image_id, None, reason))

    def _news(self, pipeline: Pipeline, error: Exception | None = None) -> News:
        return News(
            outcomes=_taken(self._outcomes),
            costs=pipeline.activity.take_costs(),
            copies=_taken(self._memory.copies),
            logged=_taken(self._logged.records),
            is_waiting=pipeline.outage.seconds > 0,
            error=None if error is None else sendable(error),
        )


class _Copies(FieldMemory):
    """A memory that also notes copies for the driver, which deletes the originals."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.state)
        self.copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()

    def put_copied(self, copies: Iterable[Copy]) -> None:
        copies = list(copies)
        super().put_copied(copies)
        for each in copies:
            self.copies.put(each)


class _Records(logging.Handler):
    """Keep warnings for the driver, which logs them where the user sees them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: queue.SimpleQueue[tuple[str, int, str]] = queue.SimpleQueue()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.put((record.name, record.levelno, self.format(record)))


def _check_roots(roots: Iterable[Root]) -> None:
    for root in roots:
        try:
            if root.is_url:
                source_of(str(root.path)).check()
            else:
                os.scandir(root.path).close()
        except OSError as error:
            raise RootError(
                f"An actor on {socket.gethostname()} cannot list {root.path}"
                f" ({error.strerror or error}): make the folder or URL of {root.name!r} readable at"
                " the same path on every machine of the cluster."
            ) from None


def _taken(source: queue.SimpleQueue) -> list:  # type: ignore[type-arg]
    """Take all that is there now."""
    found = []
    while not source.empty():
        found.append(source.get())
    return found


def _hide_main_module() -> None:
    """Keep reading processes from importing the main module, which here is Ray's.

    multiprocessing imports it in each process that it starts: 1 s, and 60 MB.
    """
    main = sys.modules["__main__"]
    if getattr(main, "__file__", "").endswith("default_worker.py"):
        main.__file__ = None


def sendable(error: Exception) -> ImgSearchError:
    """Return an error of ours without its causes, which may not be picklable."""
    if not isinstance(error, ImgSearchError):
        return EncodersFailed(f"An actor failed ({type(error).__name__}: {error}).")
    error.__cause__ = error.__context__ = None
    error.__traceback__ = None
    return error
