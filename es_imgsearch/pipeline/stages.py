"""The last stage: write in bulks until each item is acknowledged or refused.

It has a thread and a queue of its own, so that encoders go on while Elasticsearch works.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from es_imgsearch.describe.fields import VectorDescribers, merged, without_refused
from es_imgsearch.describe.registry import VectorDescriber, VectorSpace
from es_imgsearch.elastic.bulk import BulkWriter
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.requests import Request
from es_imgsearch.elastic.retry import Outage, persist
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.in_process import PictureEncoder
from es_imgsearch.embed.protocol import Encoder, Vectors
from es_imgsearch.errors import ReadError, StoreError
from es_imgsearch.pipeline.jobs import Job, Ready, Result, Unembedded
from es_imgsearch.pipeline.queues import batches
from es_imgsearch.pipeline.vector_source import VectorSource
from es_imgsearch.read.file import Skipped
from es_imgsearch.records import Picture
from es_imgsearch.write.documents import failure_document, picture_document

logger = logging.getLogger(__name__)

# 200 documents of 512 dims are 1 MB of JSON; a larger bulk writes no more documents a second.
_WRITE_BATCH = 200

# Items of one bulk, each with its own result.
Bulk = Callable[[Sequence[Write]], Mapping[str, StoreError | None]]


class WriteStage:
    """Writes in bulks, see `BulkWriter`; `run` is the loop of its thread.

    A document that is refused for good is replaced by its fallback, which is written next.
    `emit` gets what is stored, and a file of which not even the failure can be stored.
    """

    def __init__(
        self,
        bulk: Bulk,
        *,
        emit: Callable[[Ready | Unembedded], None],
        outage: Outage,
        stopping: threading.Event,
    ) -> None:
        self._bulk = bulk
        self._emit = emit
        self._writer = BulkWriter(self._send, outage=outage, stopping=stopping)
        self._queue: queue.SimpleQueue[Ready | None] = queue.SimpleQueue()

    def put(self, item: Ready | Unembedded) -> None:
        """Take a document to write; a file of which nothing is to be written is passed on."""
        if isinstance(item, Ready):
            self._queue.put(item)
        else:
            self._emit(item)

    def end(self) -> None:
        """What is in the queue is the last; `run` returns after it."""
        self._queue.put(None)

    def run(self) -> None:
        """Write until `end`.  Raises Stopped in an outage that outlasts the pipeline."""
        for batch in batches(self._queue, _WRITE_BATCH, 0.0):
            self.write(batch)

    def write(self, batch: Sequence[Ready]) -> None:
        """Write these until each is acknowledged or refused for good; raises as `run`."""
        for ready, error in self._writer.write(batch):
            if error is None:
                self._emit(ready)
            elif ready.fallback is not None:
                self._queue.put(ready.fallback(error))
            else:
                logger.error("A failure could not be stored: %s", error)
                self._emit(Unembedded(ready.job, ReadError("unstored", str(error))))

    def _send(self, batch: Sequence[Ready]) -> list[StoreError | None]:
        results = self._bulk([ready.write for ready in batch])
        return [results[ready.write.image_id] for ready in batch]


# The middle stage: pictures find their vectors, stored ones or new ones.
#
#     put ──▶ look-up thread ──────────────▶ emit
#                │ one look-up a batch          ▲
#                └──▶ encoder threads ──────────┘
#                       a batch each
#
# The look-up of one batch runs while the encoders are at the one before, and each encoder finds
# its next batch waiting.  A content that is being embedded is not embedded a second time: its
# copies wait for it.


class EmbedStage:
    """Threads that look up and embed; `loops` are what they run.

    `encoders` are called from one thread each.  `all_read` says that no file is being read, so
    that an incomplete batch need not wait for more.  `emit` gets every file that was put, with its
    vector or without one, from any of the threads or from the one that calls `put`.
    """

    def __init__(
        self,
        source: VectorSource,
        encoders: Sequence[PictureEncoder],
        *,
        batch_size: int,
        wait_seconds: float,
        all_read: Callable[[], bool],
        emit: Callable[[Sequence[Result | Unembedded]], None],
        stopping: threading.Event,
        warm_up: bool = False,
    ) -> None:
        self._source = source
        self._encoders = encoders
        self._emit = emit
        self._stopping = stopping
        self._warm_up = warm_up
        self._arrived: queue.SimpleQueue[tuple[Job, Picture] | None] = queue.SimpleQueue()
        self._fresh: queue.SimpleQueue[Picture | None] = queue.SimpleQueue()
        self._looked_up = batches(
            self._arrived, batch_size, wait_seconds, lambda: self._arrived.empty() and all_read()
        )
        # What waits here has waited for its batch already.
        self._batches = batches(self._fresh, batch_size, 0.0)
        # One encoder at a time collects its batch, or idle ones would tear it to pieces.
        self._collecting = threading.Lock()
        self._lock = threading.Lock()
        # Those that want the vector of a content that is being embedded, by content.
        self._waiting: dict[str, list[tuple[Job, Picture]]] = {}

    def loops(self) -> dict[str, Callable[[], None]]:
        """What each thread runs, by its name."""
        embed = {
            f"embed-{number}": partial(self._embed_loop, encoder)
            for number, encoder in enumerate(self._encoders, 1)
        }
        return {"look-up": self._look_up_loop, **embed}

    def put(self, job: Job, outcome: Picture | Skipped | ReadError) -> None:
        """Take what became of a file that was read."""
        if isinstance(outcome, Picture):
            self._arrived.put((job, outcome))
        else:
            self._emit([Unembedded(job, outcome)])

    def end(self) -> None:
        """Nothing more comes; every thread ends, the encoders' after the batch they are at."""
        self._arrived.put(None)
        for _ in self._encoders:
            self._fresh.put(None)

    def abandon(self) -> None:
        """Give up what the encoders are at; returns when no thread is inside a model."""
        for encoder in self._encoders:
            encoder.abandon()

    def _look_up_loop(self) -> None:
        while self._look_up_next():
            pass

    def _look_up_next(self) -> bool:
        batch = next(self._looked_up, None)
        if batch is None or self._stopping.is_set():
            return False
        self.look_up(batch)
        return True

    def look_up(self, batch: Sequence[tuple[Job, Picture]]) -> None:
        """Pass on the pictures whose vectors are known; give the others to the encoders."""
        with self._lock:
            wanted = {each.content_id for _, each in batch} - self._waiting.keys()
        known = self._source.known(wanted)
        found: list[Result] = []
        for job, picture in batch:
            content_id = picture.content_id
            with self._lock:
                waiting = self._waiting.get(content_id)
                # What was being embedded before the look-up may be done by now.
                embedded = known.get(content_id) or self._source.recent(content_id)
                if embedded is not None:
                    found.append(Result(job, picture, embedded))
                elif waiting is not None:
                    waiting.append((job, picture))
                else:
                    self._waiting[content_id] = [(job, picture)]
                    self._fresh.put(picture)
        if found:
            self._emit(found)

    def _embed_loop(self, encoder: PictureEncoder) -> None:
        try:
            if self._warm_up and not self._stopping.is_set():
                encoder.warm_up()
            while self._embed_next(encoder):
                pass
        finally:
            encoder.end()

    def _embed_next(self, encoder: PictureEncoder) -> bool:
        with self._collecting:
            batch = next(self._batches, None)
        if batch is None or self._stopping.is_set():
            return False
        self.embed(batch, encoder)
        return True

    def embed(self, pictures: Sequence[Picture], encoder: PictureEncoder) -> None:
        """Embed a batch, and pass on every file that waits for one of its contents."""
        started = time.perf_counter()
        found, errors = self._source.embedded(pictures, encoder)
        embed_ms = (time.perf_counter() - started) * 1000 / len(pictures)
        results: list[Result | Unembedded] = []
        for picture in pictures:
            content_id = picture.content_id
            with self._lock:
                (first, *copies) = self._waiting.pop(content_id)
            if content_id in errors:
                results += [Unembedded(job, errors[content_id]) for job, _ in (first, *copies)]
            else:
                results.append(Result(*first, found[content_id], embed_ms))
                results += [Result(*copy, found[content_id]) for copy in copies]
        self._emit(results)


# Between embed and write: documents, with fields made of vectors, less fields that are refused.
#
# It works in the threads that call `put`: vectors come from the look-up and from every encoder.

# Fields of the document that are made of the vector that is stored.
VectorFields = Callable[[Vectors], Mapping[str, Any]]


class DescribeStage:
    """Makes documents of vectors and of failures."""

    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        describers: Sequence[VectorDescriber],
        vector_fields: VectorFields,
        *,
        emit: Callable[[Ready | Unembedded], None],
        outage: Outage,
        stopping: threading.Event,
    ) -> None:
        self._store = store
        self._encoder = encoder
        self._by_vector = VectorDescribers(describers)
        self._vector_fields = vector_fields
        self._emit = emit
        self._outage = outage
        self._stopping = stopping
        self._lock = threading.Lock()
        self._has_begun = not self._by_vector

    def begin(self) -> None:
        """Let describers get ready, so that the first picture does not wait for it.

        Raises Stopped in an outage that outlasts the pipeline.
        """
        with self._lock:
            if self._has_begun:
                return
            info = persist(self._store.info, self._stopping, self._outage)
            self._by_vector.begin(
                VectorSpace(self._store.index, info.meta, self._encoder, self._send)
            )
            self._has_begun = True

    def put(self, items: Sequence[Result | Unembedded]) -> None:
        """Make the documents of these; a file that leaves none is passed on.  Raises as `begin`."""
        self._describe([each for each in items if isinstance(each, Result)])
        for item in items:
            if isinstance(item, Result):
                fields = self._vector_fields(item.embedded.vector)
                picture = item.picture.without_pixels()
                self._emit(_picture(item._replace(picture=picture), fields))
            elif isinstance(item.reason, ReadError):
                self._emit(_failure(item.job, item.reason))
            else:
                self._emit(item)

    def _describe(self, results: Sequence[Result]) -> None:
        if not self._by_vector or not results:
            return
        self.begin()
        vectors = np.stack([each.embedded.vector for each in results])
        with self._lock:
            found = self._by_vector.describe(vectors)
        for each, fields in zip(results, found, strict=True):
            _set_fields(each.picture, {**each.picture.described, **fields})

    def _send(self, request: Request) -> Any:
        """Requests of describers wait out an outage, as everything else does."""
        return persist(lambda: self._store.send(request), self._stopping, self._outage)


def _set_fields(picture: Picture, described: dict[str, Any]) -> None:
    picture.described, picture.fields = described, merged(described)


def _picture(result: Result, fields: Mapping[str, Any]) -> Ready:
    job, picture, embedded, embed_ms = result
    document = {**picture_document(job.change, picture, embedded, embed_ms), **fields}
    write = Write(job.change.image_id, document=document)
    return Ready(job, write, picture.state, result, partial(_less_refused, result, fields))


def _less_refused(result: Result, fields: Mapping[str, Any], error: StoreError) -> Ready:
    """The document without the describers' fields that were refused; a failure if none were."""
    left = without_refused(result.picture.described, error)
    if left is None:
        return _failure(result.job, ReadError("rejected", str(error)))
    _set_fields(result.picture, left)
    return _picture(result, fields)


def _failure(job: Job, error: ReadError) -> Ready:
    failure = failure_document(job.change, error, job.signature.state)
    return Ready(job, Write(job.change.image_id, failure=failure), job.signature.state)
