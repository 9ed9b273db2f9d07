"""Make documents of vectors and failures; drop described fields that Elasticsearch refuses.

The stage works in the threads that call `put`: the look-up's and every encoder's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from es_imgsearch.describe.fields import VectorDescribers, merged, without_refused
from es_imgsearch.describe.registry import VectorDescriber, VectorSpace
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.requests import Request
from es_imgsearch.elastic.retry import Outage, persist
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.protocol import Encoder, Vectors
from es_imgsearch.errors import ReadError, StoreError
from es_imgsearch.pipeline.jobs import Job, Ready, Result, Unembedded
from es_imgsearch.records import Picture
from es_imgsearch.write.documents import failure_document, picture_document

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
            found = self._by_vector.told(vectors)
        for each, fields in zip(results, found, strict=True):
            _set_fields(each.picture, {**each.picture.told, **fields})

    def _send(self, request: Request) -> Any:
        """Requests of describers wait out an outage, as everything else does."""
        return persist(lambda: self._store.send(request), self._stopping, self._outage)


def _set_fields(picture: Picture, told: dict[str, Any]) -> None:
    picture.told, picture.fields = told, merged(told)


def _picture(result: Result, fields: Mapping[str, Any]) -> Ready:
    job, picture, embedded, embed_ms = result
    document = {**picture_document(job.change, picture, embedded, embed_ms), **fields}
    write = Write(job.change.image_id, document=document)
    return Ready(job, write, picture.state, result, partial(_less_refused, result, fields))


def _less_refused(result: Result, fields: Mapping[str, Any], error: StoreError) -> Ready:
    """The document without the describers' fields that were refused; a failure if none were."""
    left = without_refused(result.picture.told, error)
    if left is None:
        return _failure(result.job, ReadError("rejected", str(error)))
    _set_fields(result.picture, left)
    return _picture(result, fields)


def _failure(job: Job, error: ReadError) -> Ready:
    failure = failure_document(job.change, error, job.signature.state)
    return Ready(job, Write(job.change.image_id, failure=failure), job.signature.state)
