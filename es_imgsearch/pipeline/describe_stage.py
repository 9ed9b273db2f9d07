"""Make documents of vectors and failures.

Described fields that Elasticsearch refuses are dropped.  The stage works in the threads that call
`put`: the look-up's and every encoder's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from es_imgsearch.describe.fields import VectorDescribers, merged, without_refused
from es_imgsearch.describe.registry import TextEncoder, VectorDescriber, VectorSpace
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.requests import Request
from es_imgsearch.elastic.retry import Outage, persist
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.protocol import Vectors
from es_imgsearch.errors import ReadError, StoreError
from es_imgsearch.pipeline.jobs import EmbedResult, Job, PendingWrite, Unembedded
from es_imgsearch.records import Picture
from es_imgsearch.write.carried_fields import Carried, CarriedFields, EmbeddedPicture
from es_imgsearch.write.documents import failure_document, least_failure, picture_document

# Returns document fields that are computed from the stored vector.
VectorFields = Callable[[Vectors], Mapping[str, Any]]


class DescribeStage:
    """Make documents of pictures with vectors, and of failures."""

    def __init__(
        self,
        store: Store,
        encoder: TextEncoder,
        describers: Sequence[VectorDescriber],
        vector_fields: VectorFields,
        carried: CarriedFields,
        *,
        emit: Callable[[PendingWrite | Unembedded], None],
        outage: Outage,
        stopping: threading.Event,
        properties: Mapping[str, Any],
    ) -> None:
        """`properties` is the mapping of the index."""
        self._store = store
        self._properties = properties
        self._encoder = encoder
        self._by_vector = VectorDescribers(describers)
        self._vector_fields = vector_fields
        self._carried = carried
        self._emit = emit
        self._outage = outage
        self._stopping = stopping
        self._lock = threading.Lock()
        self._is_prepared = not self._by_vector

    def prepare(self) -> None:
        """Prepare the describers, so that the first picture does not wait for it.

        Raises Stopped in an outage that outlasts the pipeline.
        """
        with self._lock:
            if self._is_prepared:
                return
            info = persist(self._store.info, self._stopping, self._outage)
            self._by_vector.begin(
                VectorSpace(self._store.index, info.meta, self._encoder, self._send)
            )
            self._is_prepared = True

    def put(self, items: Sequence[EmbedResult | Unembedded]) -> None:
        """Make documents; pass on a file that has none.  Raises as `prepare`."""
        results = [each for each in items if isinstance(each, EmbedResult)]
        self._describe(results)
        carried = iter(self._carried.of([_embedded_picture(each) for each in results]))
        for item in items:
            if isinstance(item, EmbedResult):
                result = item._replace(picture=item.picture.without_pixels())
                self._emit(self._picture_write(result, next(carried)))
            elif isinstance(item.reason, ReadError):
                self._emit(failure_write(item.job, item.reason))
            else:
                self._emit(item)

    def _renewed(self, outdated: Sequence[PendingWrite]) -> list[PendingWrite]:
        """Make the documents again that others wrote meanwhile.  Raises Stopped."""
        results = [each.result for each in outdated if each.result is not None]
        carried = self._carried.of([_embedded_picture(each) for each in results])
        return [self._picture_write(*each) for each in zip(results, carried, strict=True)]

    def _describe(self, results: Sequence[EmbedResult]) -> None:
        if not self._by_vector or not results:
            return
        self.prepare()
        vectors = np.stack([each.embedded.vector for each in results])
        with self._lock:
            described = self._by_vector.describe(vectors)
        for each, fields in zip(results, described, strict=True):
            _set_fields(each.picture, {**each.picture.fields_by_source, **fields})

    def _picture_write(self, result: EmbedResult, carried: Carried) -> PendingWrite:
        job, picture, embedded, embed_ms = result
        document = picture_document(
            job.change,
            picture,
            embedded,
            embed_ms,
            with_ctime="ctime_ns" in self._properties,
            more={**carried.fields, **self._vector_fields(embedded.vector)},
            properties=self._properties,
        )
        write = Write(job.change.image_id, document=document, version=carried.version)
        fallback = partial(self._instead, result, carried)
        return PendingWrite(job, write, result, fallback, carried.moved_from, self._renewed)

    def _instead(self, result: EmbedResult, carried: Carried, error: StoreError) -> PendingWrite:
        """Drop refused fields, those of describers; return a failure without any."""
        remaining = without_refused(result.picture.fields_by_source, error)
        if remaining is None:
            return failure_write(result.job, ReadError("rejected", str(error)))
        _set_fields(result.picture, remaining)
        return self._picture_write(result, carried)

    def _send(self, request: Request) -> Any:
        """Send a describer's request, waiting out an outage."""
        return persist(lambda: self._store.send(request), self._stopping, self._outage)


def _embedded_picture(result: EmbedResult) -> EmbeddedPicture:
    return EmbeddedPicture(
        result.job.change, result.picture, result.embedded, result.embed_ms is None
    )


def _set_fields(picture: Picture, fields_by_source: dict[str, Any]) -> None:
    picture.fields_by_source, picture.fields = fields_by_source, merged(fields_by_source)


def failure_write(job: Job, error: ReadError) -> PendingWrite:
    """Make the failure of a file."""
    image_id = job.change.image_id
    failure = failure_document(job.change, error, job.signature.state)

    def least(refusal: StoreError) -> PendingWrite:
        reason = f"What is known of its failure was refused. {refusal}"
        return PendingWrite(job, Write(image_id, failure=least_failure(failure, reason)))

    return PendingWrite(job, Write(image_id, failure=failure), fallback=least)
