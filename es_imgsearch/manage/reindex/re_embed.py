"""Vectors for copied documents.

They come from the target by content, or are embedded from originals.

    embed ──▶ reading workers ──▶ embedding stage ──▶ events ──▶ embed, finish
               (processes)      (threads, processes)

The stage is that of the pipeline, with as many encoder processes as the setting `workers`, so
pictures are read, embedded and written at the same time.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from es_imgsearch.elastic.meta import Meta, is_open_on
from es_imgsearch.elastic.retry import Outage, Stopped, persist
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.encoder_process import encoders_for
from es_imgsearch.embed.in_process import InProcessEncoder
from es_imgsearch.embed.protocol import Encoder
from es_imgsearch.embed.runtime.network import batch_size
from es_imgsearch.errors import ReadError, ReadersFailed
from es_imgsearch.pipeline.embed_stage import EmbedStage
from es_imgsearch.pipeline.jobs import (
    UNKNOWN_SIGNATURE,
    EmbedResult,
    Job,
    Unembedded,
    max_files_in_flight,
)
from es_imgsearch.pipeline.vector_source import VectorSource
from es_imgsearch.read.file import Skipped
from es_imgsearch.read.workers import Outcome, ReadPlan, ReadWorkers
from es_imgsearch.records import Change, Embedded, Picture, Root, disk_path
from es_imgsearch.settings import Settings
from es_imgsearch.watch.roots import registered_root

# Reasons why a picture of the source is not in the target.
GONE = "original is not there"
CHANGED = "original has changed"
ELSEWHERE = "original is not on this machine"

# How long to wait for the threads at the end.
_END_SECONDS = 3.0

Document: TypeAlias = dict[str, Any]
# The vector of a document, the error of a failure, or the reason why there is nothing to read.
EmbedOutcome: TypeAlias = Embedded | ReadError | str


class _Event(NamedTuple):
    """Outcome of a file; `was_read`: it applies to every file of the same content."""

    document: Document
    outcome: EmbedOutcome
    was_read: bool
    is_new: bool = False


class ReEmbedder:
    """Gets vectors of documents from the target by content, or embeds their originals.

    At most as many files are in progress as `queue_size` and `queue_memory_mb` allow.
    """

    def __init__(self, target: Store, meta: Meta, encoder: Encoder, settings: Settings) -> None:
        """Raise SettingsError if the encoder cannot be sent to several `workers`."""
        grid = meta.grid
        self._settings = settings
        self._most = max_files_in_flight(settings, encoder, grid)
        self._stored = partial(target.documents.embedded_by_content, with_regions=grid is not None)
        self._stopping = threading.Event()
        self._outage = Outage()
        at_once = batch_size(encoder, settings.batch_size)
        self._vectors = VectorSource(encoder, self._look_up, at_once)
        self._stage = EmbedStage(
            self._vectors,
            encoders_for(InProcessEncoder(encoder), settings),
            batch_size=at_once,
            wait_seconds=settings.batch_wait_ms / 1000,
            all_read=lambda: not self._reading,
            emit=self._were_embedded,
            stopping=self._stopping,
        )
        self._plan = ReadPlan.of(
            settings,
            encoder.preparation,
            # Every other field is carried over.
            describers=(),
            grid=grid,
        )
        # Started with the first file: `reindex --back` often reads none.
        self._workers: ReadWorkers | None = None
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._events: queue.SimpleQueue[_Event | BaseException] = queue.SimpleQueue()
        # By the ticket of their job.
        self._documents: dict[int, Document] = {}
        self._tickets = itertools.count()
        # Files being read, and files without an outcome.
        self._reading = 0
        self._in_flight = 0
        # Documents of the same content wait for the first of them, by `_key`.
        self._waiting: dict[str, list[Document]] = {}
        # Embedded since the target was last searched for known contents.
        self._recent: dict[str, Embedded] = {}
        self._meta = meta
        self.pictures = 0

    def begin(self, meta: Meta) -> None:
        """Begin a pass with these roots; discard results of an interrupted pass."""
        for _ in self.finish():
            # Its vectors are still known by their content.
            pass
        self._meta = meta
        self._recent = {}
        self._waiting = {}

    def close(self) -> None:
        """End processes and threads; drop files in progress."""
        self._stopping.set()
        self._stage.close()
        if self._workers is not None:
            self._workers.close()
        deadline = time.monotonic() + _END_SECONDS
        for thread in self._threads:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))
        self._stage.abandon()

    def embed(self, documents: Iterator[Document]) -> Iterator[tuple[Document, EmbedOutcome]]:
        """Submit documents; yield these or earlier ones with their outcome."""
        page = list(documents)
        contents = {each["content_id"] for each in page if "content_id" in each}
        self._recent = self._vectors.look_up(contents - self._waiting.keys())
        for document in page:
            key = _key(document)
            if (known := self._recent.get(key)) is not None:
                yield document, known
            elif key in self._waiting:
                self._waiting[key].append(document)
            elif self._root(document) is None:
                yield document, ELSEWHERE
            else:
                while self._in_flight >= self._most:
                    yield from self._next()
                self._waiting[key] = [document]
                self._submit(document)

    def finish(self) -> Iterator[tuple[Document, EmbedOutcome]]:
        """Wait for all submitted documents; yield them with their outcome."""
        while self._in_flight:
            yield from self._next()

    def _next(self) -> Iterator[tuple[Document, EmbedOutcome]]:
        """Wait for the outcome of a file."""
        event = self._events.get()
        if isinstance(event, BaseException):
            raise event
        document, outcome, was_read, is_new = event
        self._in_flight -= 1
        self.pictures += is_new
        key = _key(document)
        if isinstance(outcome, Embedded):
            self._recent[key] = outcome
        if was_read:
            for each in self._waiting.pop(key):
                yield each, outcome
            return
        # A copy of it may be unchanged.  Submitted first: the consumer of this one may raise.
        others = self._waiting.pop(key)[1:]
        if others:
            self._waiting[key] = others
            self._submit(others[0])
        yield document, outcome

    # -- in progress -----------------------------------------------------------------------

    def _root(self, document: Document) -> Root | None:
        """Root of a document if its originals are on this machine, else None."""
        root = registered_root(document["root"], self._meta)
        if root is None or not is_open_on(self._meta.roots[root.name], self._settings.host):
            return None
        return root

    def _submit(self, document: Document) -> None:
        self._start()
        root = self._root(document)
        if self._workers is None or root is None:
            raise RuntimeError("only files on this machine are submitted")
        change = Change(root, disk_path(document["relative_path"]), time.time())
        self._in_flight += 1
        job = Job(change, UNKNOWN_SIGNATURE, next(self._tickets))
        with self._lock:
            self._reading += 1
            self._documents[job.ticket] = document
        self._workers.read(
            root.absolute(change.relative_path), lambda outcome: self._was_read(job, outcome)
        )

    def _was_read(self, job: Job, outcome: Outcome) -> None:
        with self._lock:
            # Before it is passed on, or the stage would wait for a file that never comes.
            self._reading -= 1
            document = self._documents[job.ticket]
        if isinstance(outcome, ReadersFailed):
            self._events.put(outcome)
        elif isinstance(outcome, Picture) and outcome.content_id == document.get(
            "content_id", outcome.content_id
        ):
            self._stage.put(job, outcome)
        else:
            self._post(job, _reason(outcome), was_read=False)

    def _were_embedded(self, items: Sequence[EmbedResult | Unembedded]) -> None:
        for item in items:
            if isinstance(item, EmbedResult):
                is_new = item.embed_ms is not None
                self._post(item.job, item.embedded, was_read=True, is_new=is_new)
            else:
                self._post(item.job, _reason(item.reason), was_read=True)

    def _post(
        self, job: Job, outcome: EmbedOutcome, *, was_read: bool, is_new: bool = False
    ) -> None:
        with self._lock:
            document = self._documents.pop(job.ticket)
        self._events.put(_Event(document, outcome, was_read, is_new))

    def _look_up(self, content_ids: Sequence[str], fields: Sequence[str]) -> dict[str, Embedded]:
        return persist(lambda: self._stored(content_ids, fields), self._stopping, self._outage)

    # -- running ---------------------------------------------------------------------------

    def _start(self) -> None:
        if self._workers is not None:
            return
        self._workers = ReadWorkers(self._plan, self._settings.read_workers)
        self._threads = [
            threading.Thread(target=self._guarded, args=(loop,), name=name, daemon=True)
            for name, loop in self._stage.loops().items()
        ]
        for thread in self._threads:
            thread.start()

    def _guarded(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except Stopped:
            return
        except BaseException as error:  # noqa: BLE001 - raised where the vectors are asked for
            self._events.put(error)


def _key(document: Document) -> str:
    """Key of files to read once: their content_id, or else their image_id."""
    return str(document.get("content_id") or document["image_id"])


def _reason(outcome: Outcome) -> ReadError | str:
    if isinstance(outcome, ReadError):
        return outcome
    return GONE if outcome is Skipped.GONE else CHANGED
