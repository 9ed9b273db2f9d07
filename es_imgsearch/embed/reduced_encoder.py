"""An encoder for indexes of the profile `reduced`, whose vectors are bytes.

It reduces the vectors of another encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from es_imgsearch.embed.protocol import (
    Encoder,
    FieldEncoder,
    Pixels,
    Vectors,
    check_rows,
    check_vectors,
)
from es_imgsearch.embed.reduction import Reduction
from es_imgsearch.embed.runtime.network import batch_size


class ReducedEncoder:
    """Encoder of vectors of shape (n, dims_kept), integers from -127 to 127.

    The index returns stored vectors in the same form, so reused vectors are not reduced again.
    """

    def __init__(self, encoder: Encoder, reduction: Reduction) -> None:
        """`encoder` returns the full vectors."""
        self.whole = encoder
        self.reduction = reduction
        self.name = encoder.name
        self.revision = encoder.revision
        self.dims = reduction.dims_kept
        self.similarity = encoder.similarity
        self.preparation = encoder.preparation
        self.fingerprint = encoder.fingerprint
        self.supports_text = encoder.supports_text
        self.batch_size = batch_size(encoder)
        self.fields = encoder.fields if isinstance(encoder, FieldEncoder) else ()

    def embed_images(self, pictures: Pixels) -> Vectors:
        """Return vectors of shape (n, dims_kept) of pictures (n, height, width, 3)."""
        return self._reduce(self.whole.embed_images(pictures), len(pictures))

    def embed_with_fields(self, pictures: Pixels) -> tuple[Vectors, Sequence[Mapping[str, Any]]]:
        """Return vectors, and the fields of the encoder, if it has any, else empty ones."""
        if not isinstance(self.whole, FieldEncoder):
            return self.embed_images(pictures), [{}] * len(pictures)
        vectors, fields = self.whole.embed_with_fields(pictures)
        return self._reduce(vectors, len(pictures)), fields

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Return vectors of shape (n, dims_kept)."""
        return self._reduce(self.whole.embed_texts(texts), len(texts))

    def _reduce(self, output: Vectors, count: int) -> Vectors:
        vectors = check_vectors(output, count, self.whole)
        # Vectors that are not finite stay so, and become failures of their pictures.
        is_finite = np.isfinite(vectors).all(axis=1)
        reduced = np.full((len(vectors), self.dims), np.nan, np.float32)
        reduced[is_finite] = self.reduction.reduce(vectors[is_finite])
        return reduced


def check_output(output: Any, count: int, encoder: Encoder) -> Vectors:
    """Apply `check_vectors`, or `check_rows` for a `ReducedEncoder`.

    The vectors of a `ReducedEncoder` are bytes.  A `ReducedEncoder` checks the full vectors before
    it reduces them.
    """
    check = check_rows if isinstance(encoder, ReducedEncoder) else check_vectors
    return check(output, count, encoder)
