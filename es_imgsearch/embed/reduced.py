"""An encoder as an index of the profile `reduced` wants it: its vectors are cut to bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from es_imgsearch.embed.network import batch_size
from es_imgsearch.embed.output import rows_of, vectors_of
from es_imgsearch.embed.protocol import Encoder, FieldEncoder, Pixels, Vectors
from es_imgsearch.pictures.preparation import Preparation
from es_imgsearch.reduction import Reduction


def checked(given: Any, count: int, encoder: Encoder) -> Vectors:
    """`vectors_of`, but what a `ReducedEncoder` gave is bytes and stays as long as it is.

    That has held the whole vectors to what was promised before it cut them.
    """
    is_reduced = isinstance(encoder, ReducedEncoder)
    return (rows_of if is_reduced else vectors_of)(given, count, encoder)


class ReducedEncoder:
    """Gives vectors of shape (n, dims_kept), whole numbers from -127 to 127.

    That is also what the index gives back of a stored vector, so what is reused is not reduced
    again.
    """

    def __init__(self, encoder: Encoder, reduction: Reduction) -> None:
        self._encoder = encoder
        self._reduction = reduction

    @property
    def whole(self) -> Encoder:
        """The encoder whose vectors are cut."""
        return self._encoder

    @property
    def reduction(self) -> Reduction:
        return self._reduction

    @property
    def name(self) -> str:
        return self._encoder.name

    @property
    def revision(self) -> str:
        return self._encoder.revision

    @property
    def dims(self) -> int:
        return self._reduction.dims_kept

    @property
    def similarity(self) -> str:
        return self._encoder.similarity

    @property
    def preparation(self) -> Preparation:
        return self._encoder.preparation

    @property
    def fingerprint(self) -> str:
        return self._encoder.fingerprint

    @property
    def supports_text(self) -> bool:
        return self._encoder.supports_text

    @property
    def batch_size(self) -> int:
        return batch_size(self._encoder)

    def embed_images(self, pictures: Pixels) -> Vectors:
        return self._reduced(self._encoder.embed_images(pictures), len(pictures))

    @property
    def fields(self) -> Sequence[str]:
        return self._encoder.fields if isinstance(self._encoder, FieldEncoder) else ()

    def embed_with_fields(self, pictures: Pixels) -> tuple[Vectors, Sequence[Mapping[str, Any]]]:
        if isinstance(self._encoder, FieldEncoder):
            vectors, fields = self._encoder.embed_with_fields(pictures)
            return self._reduced(vectors, len(pictures)), fields
        return self.embed_images(pictures), [{}] * len(pictures)

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        return self._reduced(self._encoder.embed_texts(texts), len(texts))

    def _reduced(self, given: Vectors, count: int) -> Vectors:
        vectors = vectors_of(given, count, self._encoder)
        # One that is not finite stays so, and becomes a failure of its picture.
        is_finite = np.isfinite(vectors).all(axis=1)
        reduced = np.full((len(vectors), self.dims), np.nan, np.float32)
        reduced[is_finite] = self._reduction.reduce(vectors[is_finite])
        return reduced
