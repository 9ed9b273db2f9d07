"""Between embed and write: fields that are told from vectors, and fields that are refused.

It has no thread of its own: vectors come from the look-up and from every encoder.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from es_imgsearch.backoff import Outage, persist
from es_imgsearch.describe import VectorDescriber, VectorSpace
from es_imgsearch.describe.by_vector import VectorDescribers
from es_imgsearch.describe.refusal import without_refused
from es_imgsearch.described import merged
from es_imgsearch.embed import Encoder
from es_imgsearch.errors import StoreError
from es_imgsearch.records import Picture
from es_imgsearch.stages.jobs import Result
from es_imgsearch.store import Store
from es_imgsearch.talk import Request


class DescribeStage:
    """Completes pictures' fields; `begin` comes first."""

    def __init__(
        self,
        store: Store,
        encoder: Encoder,
        describers: Sequence[VectorDescriber],
        *,
        outage: Outage,
        stopping: threading.Event,
    ) -> None:
        self._store = store
        self._encoder = encoder
        self._by_vector = VectorDescribers(describers)
        self._outage = outage
        self._stopping = stopping
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Let describers get ready.  Raises Stopped in an outage that outlasts the pipeline."""
        if self._by_vector:
            info = persist(self._store.info, self._stopping, self._outage)
            self._by_vector.begin(
                VectorSpace(self._store.index, info.meta, self._encoder, self._send)
            )

    def describe(self, results: Sequence[Result]) -> None:
        """Give these pictures the fields that are told from their vectors; raises as `begin`."""
        if not self._by_vector:
            return
        vectors = np.stack([each.embedded.vector for each in results])
        with self._lock:
            found = self._by_vector.told(vectors)
        for each, told in zip(results, found, strict=True):
            _tell(each.picture, {**each.picture.told, **told})

    def mend(self, result: Result, error: StoreError) -> bool:
        """Take from a picture the fields that were refused; False where it gets no better."""
        left = without_refused(result.picture.told, error)
        if left is None:
            return False
        _tell(result.picture, left)
        return True

    def _send(self, request: Request) -> Any:
        """What describers ask for waits out an outage, as everything else does."""
        return persist(lambda: self._store.send(request), self._stopping, self._outage)


def _tell(picture: Picture, told: dict[str, Any]) -> None:
    picture.told, picture.fields = told, merged(told)
