"""What an encoder is: pictures in, unit vectors out; texts too, if it can."""

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


@runtime_checkable
class Encoder(Protocol):
    """One model, or a pair of models that share a space.

    The properties are cheap: they never load weights.  The first call of an `embed_` method
    may load them.  Both methods may be called from any one thread at a time.

    An encoder may also have ``truncated(texts) -> list[bool]``: of each text whether it is longer
    than the model reads, which a search then says; ``batch_size``, how many pictures `embed_images`
    wants at once (16 if it does not say); ``spec``, what finds it on this machine where its name
    alone does not: the name with whole paths; and what `FieldEncoder` adds.

    A plug-in's vectors are not taken on trust, see `output`: what has another shape fails, and what
    has another length is brought to unit length.
    """

    @property
    def name(self) -> str:
        """What `--encoder` finds it by; kept in the index, but no part of its identity."""

    @property
    def revision(self) -> str:
        """Changes whenever the weights do."""

    @property
    def dims(self) -> int:
        """Length of every vector; Elasticsearch takes 1 to 4096."""

    @property
    def similarity(self) -> str:
        """The similarity the model was trained for; ours are all `cosine`."""

    @property
    def preparation(self) -> Preparation:
        """How the reading workers shrink a picture for `embed_images`."""

    @property
    def fingerprint(self) -> str:
        """Hash of everything but the weights that changes a vector."""

    @property
    def supports_text(self) -> bool:
        """False for image-only encoders, whose `embed_texts` raises TextUnsupported."""

    def embed_images(self, pictures: Pixels) -> Vectors:
        """Vectors of shape (n, dims), unit length, of pictures of shape (n, height, width, 3)."""

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Vectors of shape (n, dims), unit length, in the same space as the pictures."""


@runtime_checkable
class FieldEncoder(Protocol):
    """What an encoder has besides if it gives fields of the document along with the vectors.

    The fields are stored with the vector, and reused with it for copies and renamed files.
    """

    @property
    def fields(self) -> Sequence[str]:
        """Names of the fields it may give; the index must have them (docs/reference/fields.md)."""

    def embed_with_fields(self, pictures: Pixels) -> tuple[Vectors, Sequence[Mapping[str, Any]]]:
        """What `embed_images` gives, and the fields of each of the n pictures."""


# What an encoder gave, held to what it promised: a plug-in is somebody else's code.

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
