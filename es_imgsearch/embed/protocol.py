"""The protocol of encoders, and checks of their output.

A plug-in may get its output wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from es_imgsearch.describe.registry import TextEncoder
from es_imgsearch.elastic.retry import Stopped
from es_imgsearch.errors import EmbedFailed, ImgSearchError
from es_imgsearch.read.preparation import Preparation

Vectors = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

Query = TypeVar("Query", bound=Sized)

# float32 sums of 4,096 squares are nearer to 1 than this; vectors further off were not brought to
# unit length.
_ROUNDING: Final = 1e-3


@runtime_checkable
class Encoder(Protocol):
    """One model, or a pair of models that share a space.

    The properties are cheap: they never load weights.  The first call of an `embed_` method
    may load them.  Both methods may be called from any one thread at a time.

    An encoder may also have ``truncated(texts) -> list[bool]``: for each text, whether it is longer
    than the model reads, which a search then reports; ``batch_size``, how many pictures
    `embed_images` takes at once (default 16); ``spec``, the name with absolute paths, if the name
    alone does not find it on this machine; and the members of `FieldEncoder`.

    Its vectors are checked by `check_vectors`: another shape is an error, another length is scaled
    to unit length.
    """

    @property
    def name(self) -> str:
        """The name for `--encoder`; stored in the index, but no part of the seal's check."""

    @property
    def revision(self) -> str:
        """An identifier that changes whenever the weights do."""

    @property
    def dims(self) -> int:
        """Length of every vector; Elasticsearch takes 1 to 4096."""

    @property
    def similarity(self) -> str:
        """The similarity the model was trained for; ours are all `cosine`."""

    @property
    def preparation(self) -> Preparation:
        """The way the reading workers shrink a picture for `embed_images`."""

    @property
    def fingerprint(self) -> str:
        """Hash of everything but the weights that changes a vector."""

    @property
    def supports_text(self) -> bool:
        """False for image-only encoders, whose `embed_texts` raises TextUnsupported."""

    def embed_images(self, pictures: Pixels) -> Vectors:
        """Return unit vectors of shape (n, dims) of pictures (n, height, width, 3)."""

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors of shape (n, dims), in the same space as the pictures."""


@runtime_checkable
class FieldEncoder(Protocol):
    """An encoder that also returns fields of the document.

    The fields are stored with the vector, and reused with it for copies and renamed files.
    """

    @property
    def fields(self) -> Sequence[str]:
        """Names of the fields that it may return; the index must map them."""

    def embed_with_fields(self, pictures: Pixels) -> tuple[Vectors, Sequence[Mapping[str, Any]]]:
        """Return what `embed_images` does, and the fields of each of the n pictures."""


def check_vectors(output: Any, count: int, encoder: Encoder | TextEncoder) -> Vectors:
    """Return the output of `encoder` for `count` inputs, checked and scaled.

    The result is float32 of shape (count, dims).  Rows are scaled to unit length, unless they are
    zero or not finite.  Raises as `check_rows`.
    """
    vectors = check_rows(output, count, encoder)
    # float32 has no squares of 1e25 nor of 1e-30.
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    stray = np.isfinite(lengths) & (lengths > 0) & (abs(lengths - 1) > _ROUNDING)
    if stray.any():
        vectors = vectors.copy()
        vectors[stray] = vectors[stray] / lengths[stray, None]
    return vectors


def check_rows(output: Any, count: int, encoder: Encoder | TextEncoder) -> Vectors:
    """Check as `check_vectors` does, without scaling.

    Vectors of a reduced index are bytes.  Raises EmbedFailed for another shape, or for values that
    are no numbers.
    """
    try:
        vectors: Vectors = np.asarray(output, dtype=np.float32)
    except Exception as error:
        # For example a torch tensor that requires a gradient, or an integer beyond float32.
        raise EmbedFailed(
            f"Encoder {encoder.name!r} gave {type(output).__name__}, not vectors: {error}."
        ) from error
    if vectors.shape != (count, encoder.dims):
        raise EmbedFailed(
            f"Encoder {encoder.name!r} gave an array of shape {vectors.shape}, not"
            f" {(count, encoder.dims)}: one vector of {encoder.dims} dims for each input."
        )
    return vectors


def embed_queries(
    encoder: Encoder | TextEncoder, embed: Callable[[Query], Any], queries: Query
) -> Vectors:
    """Return `embed(queries)` as vectors to search with.

    `embed` is a method of `encoder`.  Raises EmbedFailed for any error that is no ImgSearchError,
    and for vectors of another shape, zero or not finite.
    """
    try:
        output = embed(queries)
    except (ImgSearchError, MemoryError, Stopped):
        raise
    except Exception as error:
        raise EmbedFailed(
            f"Encoder {encoder.name!r} failed: {type(error).__name__}: {error}."
        ) from error
    vectors = check_vectors(output, len(queries), encoder)
    if not (np.isfinite(vectors).all() and vectors.any(axis=1).all()):
        raise EmbedFailed(f"Encoder {encoder.name!r} gave a vector that is zero or not finite.")
    return vectors
