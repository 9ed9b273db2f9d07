"""What an encoder gave, held to what it promised: a plug-in is somebody else's code."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Any, Final, TypeVar

import numpy as np

from es_imgsearch.backoff import Stopped
from es_imgsearch.describe import TextEncoder
from es_imgsearch.embed.protocol import Encoder, Vectors
from es_imgsearch.errors import EmbedFailed, ImgSearchError

Q = TypeVar("Q", bound=Sized)

# float32 sums of 4,096 squares are nearer to 1 than this; what is further off was never brought
# to unit length.
_ROUNDING: Final = 1e-3


def vectors_of(given: Any, count: int, encoder: Encoder | TextEncoder) -> Vectors:
    """What `encoder` gave for `count` pictures or texts, float32 of shape (count, dims).

    Rows are of unit length, but for those that cannot be: zero or not finite.  Raises what
    `rows_of` does.
    """
    vectors = rows_of(given, count, encoder)
    # float32 has no squares of 1e25 nor of 1e-30.
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    stray = np.isfinite(lengths) & (lengths > 0) & (abs(lengths - 1) > _ROUNDING)
    if stray.any():
        vectors = vectors.copy()
        vectors[stray] = vectors[stray] / lengths[stray, None]
    return vectors


def rows_of(given: Any, count: int, encoder: Encoder | TextEncoder) -> Vectors:
    """The same, but rows are left as long as they are: short vectors of a reduced index are bytes.

    Raises EmbedFailed where it is of another shape, or holds no numbers.
    """
    try:
        vectors: Vectors = np.asarray(given, dtype=np.float32)
    except Exception as error:
        # Such as a tensor of torch that wants a gradient, or whole numbers without end.
        raise EmbedFailed(
            f"Encoder {encoder.name!r} gave {type(given).__name__} where vectors are wanted:"
            f" {error}."
        ) from error
    if vectors.shape != (count, encoder.dims):
        raise EmbedFailed(
            f"Encoder {encoder.name!r} gave an array of shape {vectors.shape} where"
            f" {(count, encoder.dims)} is wanted: one vector of {encoder.dims} dims for each."
        )
    return vectors


def query_vectors(encoder: Encoder | TextEncoder, embed: Callable[[Q], Any], queries: Q) -> Vectors:
    """`embed(queries)`, where `embed` is a method of `encoder`: vectors that can be searched with.

    Whatever it raises that is not of our tree becomes EmbedFailed; so do vectors of another shape,
    and such as are zero or not finite.
    """
    try:
        given = embed(queries)
    except (ImgSearchError, MemoryError, Stopped):
        raise
    except Exception as error:
        raise EmbedFailed(
            f"Encoder {encoder.name!r} failed: {type(error).__name__}: {error}."
        ) from error
    vectors = vectors_of(given, len(queries), encoder)
    if not (np.isfinite(vectors).all() and vectors.any(axis=1).all()):
        raise EmbedFailed(f"Encoder {encoder.name!r} gave a vector that is zero or not finite.")
    return vectors
