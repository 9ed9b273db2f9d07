"""Vectors cut to a few bytes: rotated and cut by PCA, then scaled to bytes, and the way back.

Principal components: Pearson 1901; here those of the matrix of second moments, not of the
covariance, so that no mean is taken away and the angles between vectors are kept: on 60,000
EfficientNet features 96 of 512 dims find .997 of the true ten among the first 30, .995 where the
mean was taken away, and .909 where the inner product of the cut vectors is compared instead of
their cosine.  Bytes cost nothing that can be seen (.997), since the cosine does not look at
lengths and each vector may use the whole range of its bytes.

Pure NumPy; `store` keeps the matrix in `<index>-reduction`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from es_imgsearch.elastic.mapping import Companion
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.meta_entries import ReductionEntry
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.protocol import Encoder, FieldEncoder, Pixels, Vectors, rows_of, vectors_of
from es_imgsearch.embed.runtime.network import batch_size
from es_imgsearch.errors import IndexConflict, UsageError
from es_imgsearch.read.preparation import Preparation
from es_imgsearch.records import unit

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.int8]

DEFAULT_DIMS_KEPT = 96
# How many of the sample are asked for: 1,000 give the same recall as 20,000 (.999 of the true ten
# among the first 50 of 200,000), so this is plenty, and 60 MB of JSON at 512 dims.
SAMPLE_SIZE = 5_000
# From 200 vectors the 96 components still find .944 of the true ten among the first 20, from
# 20,000 .962; fewer vectors than components determine nothing.
_LEAST_SAMPLES_A_DIM = 2

_LARGEST_BYTE = 127
# The pairs that the scale of the scores is fitted on: the nearest, since those are hits, and since
# the sample lies thinner than the index (with 10 instead of 3 scores were .021 too high, not .018).
_PROBES = 300
_NEIGHBOURS = 3
# Shorter than this after the cut is a vector of which nothing is left.
_NOTHING = 1e-6


@dataclass(frozen=True, slots=True)
class Reduction:
    """A projection onto `dims_kept` orthonormal directions, and how its scores are read.

    `matrix` has the shape (dims_kept, dims), strongest direction first.  `stretch` is by how much
    the distance 1 - cosine of two near pictures is larger than that of their bytes.  `least_kept`
    is the length that a hundredth of the pictures have less than when they are cut (unit length
    before): a query that keeps less, such as a text, points away from all pictures.
    `variance_kept` is the share of the squared length that the cut leaves, from 0 to 1.
    """

    matrix: Floats
    variance_kept: float
    stretch: float
    least_kept: float
    sample_size: int

    @property
    def dims(self) -> int:
        return int(self.matrix.shape[1])

    @property
    def dims_kept(self) -> int:
        return int(self.matrix.shape[0])

    @property
    def hash(self) -> str:
        """Of everything that changes a stored vector or a score."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{self.matrix.shape} {self.stretch!r} {self.least_kept!r}".encode())
        digest.update(_little_endian(self.matrix))
        return digest.hexdigest()

    def entry(self) -> ReductionEntry:
        """The entry in `_meta` that names this matrix by its hash."""
        return ReductionEntry(self.hash, self.dims_kept, self.variance_kept)

    def reduce(self, vectors: npt.ArrayLike) -> Bytes:
        """Vectors of shape (n, dims), of any length, as bytes of shape (n, dims_kept).

        Each uses the whole range from -127 to 127.  One of which the cut leaves nothing becomes
        zeros, which no index with cosine takes.
        """
        cut = np.asarray(vectors, np.float32) @ self.matrix.T
        largest = np.abs(cut).max(axis=1, keepdims=True)
        scale = np.divide(
            _LARGEST_BYTE, largest, out=np.zeros_like(largest), where=largest > _NOTHING
        )
        found: Bytes = np.rint(cut * scale).astype(np.int8)
        return found

    def expand(self, reduced: npt.ArrayLike) -> Floats:
        """Unit vectors of shape (n, dims) from stored ones of shape (n, dims_kept).

        What was cut away stays away; `reduce` gives back the very bytes.
        """
        return unit(np.asarray(reduced, np.float32) @ self.matrix)

    def estimated(self, cosines: npt.ArrayLike, query: Floats) -> npt.NDArray[np.float64]:
        """Cosines of the full vectors, estimated from those of the bytes.

        `query` is the full unit vector, of shape (dims,).  The cut takes away more of what two
        pictures differ in than of what they share, so the bytes' cosines are too high: the
        distance is stretched.  The order stays, and a picture is 1 to itself.  On 200,000
        EfficientNet features, 96 of 512 dims, the estimates of the true ten are off by .024 (root
        mean square), and on average .018 too high.
        """
        kept = float(np.linalg.norm(self.matrix @ query))
        distance = 1.0 - np.asarray(cosines, np.float64)
        found: npt.NDArray[np.float64] = np.clip(
            min(1.0, kept / self.least_kept) * (1.0 - self.stretch * distance), -1.0, 1.0
        )
        return found

    # -- kept beside the index -------------------------------------------------------------

    def to_document(self) -> dict[str, Any]:
        """As it is stored; the matrix is float32, little-endian, row by row, in base64."""
        return {
            "hash": self.hash,
            "dims": self.dims,
            "dims_kept": self.dims_kept,
            "variance_kept": self.variance_kept,
            "stretch": self.stretch,
            "least_kept": self.least_kept,
            "sample_size": self.sample_size,
            "matrix": base64.b64encode(_little_endian(self.matrix)).decode(),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any], wanted_hash: str, index: str) -> Reduction:
        """Raises IndexConflict where the document is not the one that the index was made with."""
        try:
            shape = (int(document["dims_kept"]), int(document["dims"]))
            raw = base64.b64decode(document["matrix"], validate=True)
            found = cls(
                matrix=np.frombuffer(raw, "<f4").reshape(shape).astype(np.float32),
                variance_kept=float(document["variance_kept"]),
                stretch=float(document["stretch"]),
                least_kept=float(document["least_kept"]),
                sample_size=int(document["sample_size"]),
            )
        except (KeyError, TypeError, ValueError, binascii.Error):
            found = None
        if found is None or found.hash != wanted_hash:
            raise IndexConflict(
                f"The matrix in {index}-reduction is not the one that index {index!r} was made"
                " with, so its vectors cannot be compared: restore that index from a snapshot, or"
                " make another --index."
            )
        return found


def fit(sample: npt.ArrayLike, dims_kept: int | None = None) -> Reduction:
    """The best cut of these vectors, of shape (n, dims) and any length but 0.

    Raises UsageError where `dims_kept` is not from 1 to dims, or the sample is too small.
    """
    vectors = np.asarray(sample, np.float32)
    dims = vectors.shape[1]
    kept = min(DEFAULT_DIMS_KEPT, dims) if dims_kept is None else dims_kept
    if not 1 <= kept <= dims:
        raise UsageError(f"--dims-kept must be from 1 to the encoder's {dims}, not {kept}.")
    if len(vectors) < _LEAST_SAMPLES_A_DIM * kept:
        raise UsageError(
            f"The sample has {len(vectors)} vectors; {kept} dims need"
            f" {_LEAST_SAMPLES_A_DIM * kept} at least, and better 1,000: give a larger --sample,"
            " or a smaller --dims-kept."
        )
    vectors = unit(vectors)
    moments = vectors.T.astype(np.float64) @ vectors.astype(np.float64) / len(vectors)
    variances, directions = np.linalg.eigh(moments)
    matrix = np.ascontiguousarray(directions[:, ::-1][:, :kept].T, dtype=np.float32)
    # The largest coordinate is positive, so that the same sample gives the same matrix.
    signs = np.sign(matrix[np.arange(kept), np.abs(matrix).argmax(axis=1)])
    matrix *= signs[:, None]
    share = float(variances[::-1][:kept].sum() / variances.sum())
    bare = Reduction(matrix, round(min(1.0, share), 6), 1.0, 1.0, len(vectors))
    lengths = np.linalg.norm(vectors @ matrix.T, axis=1)
    return replace(
        bare,
        stretch=_stretch(bare, vectors),
        least_kept=round(max(_NOTHING, float(np.percentile(lengths, 1))), 6),
    )


def _stretch(reduction: Reduction, vectors: Floats) -> float:
    """Least squares through the origin of full on reduced distances of near neighbours."""
    probes = vectors[:: max(1, len(vectors) // _PROBES)][:_PROBES]
    reduced = unit(reduction.reduce(vectors))
    reduced_probes = unit(reduction.reduce(probes))
    full = 1.0 - probes @ vectors.T
    # The probe itself comes first and says nothing.
    count = min(_NEIGHBOURS + 1, len(vectors))
    nearest = np.argsort(full, axis=1)[:, 1:count]
    wanted = np.take_along_axis(full, nearest, axis=1).astype(np.float64)
    given = np.take_along_axis(1.0 - reduced_probes @ reduced.T, nearest, axis=1)
    given = given.astype(np.float64)
    norm = float((given * given).sum())
    # All alike: there is nothing to stretch.
    return 1.0 if norm < _NOTHING else round(max(1.0, float((wanted * given).sum()) / norm), 6)


def _little_endian(matrix: Floats) -> bytes:
    return np.ascontiguousarray(matrix, dtype="<f4").tobytes()


# `<index>-reduction`: the matrix of an index of the profile `reduced`.
#
# Losing it is losing the index: no new picture and no query can be compared any more.


def keep_reduction(store: Store, reduction: Reduction) -> None:
    """Store the matrix."""
    store.companions.put(Companion.REDUCTION, reduction.hash, reduction.to_document())


def load_reduction(store: Store, meta: Meta) -> Reduction | None:
    """The matrix that `_meta` names by its hash; None for an index that stores whole vectors.

    Raises IndexConflict, see `reduction_from`.
    """
    if meta.reduction is None:
        return None
    document = store.companions.get(Companion.REDUCTION, meta.reduction.hash)
    return reduction_from(document, store.index, meta)


def reduction_from(document: Mapping[str, Any] | None, index: str, meta: Meta) -> Reduction:
    """The matrix in a document that was looked up by the hash in `_meta`.

    Raises IndexConflict where it is missing or is not the one that the index was made with.
    """
    if document is None or meta.reduction is None:
        raise IndexConflict(
            f"{Companion.REDUCTION.alias(index)!r} lacks the matrix of index {index!r}, without"
            " which its vectors cannot be compared: restore it from a snapshot, or make another"
            " --index."
        )
    return Reduction.from_document(document, meta.reduction.hash, index)


# An encoder for indexes of the profile `reduced`: its vectors are shortened to bytes.


def checked(given: Any, count: int, encoder: Encoder) -> Vectors:
    """Apply `vectors_of`, or `rows_of` for a `ReducedEncoder`, whose vectors are bytes.

    A `ReducedEncoder` checks the whole vectors before it shortens them.
    """
    is_reduced = isinstance(encoder, ReducedEncoder)
    return (rows_of if is_reduced else vectors_of)(given, count, encoder)


class ReducedEncoder:
    """Returns vectors of shape (n, dims_kept), integers from -127 to 127.

    The index returns stored vectors in the same form, so reused vectors are not reduced again.
    """

    def __init__(self, encoder: Encoder, reduction: Reduction) -> None:
        self._encoder = encoder
        self._reduction = reduction

    @property
    def whole(self) -> Encoder:
        """The encoder whose vectors are shortened."""
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
        # Vectors that are not finite stay so, and become failures of their pictures.
        is_finite = np.isfinite(vectors).all(axis=1)
        reduced = np.full((len(vectors), self.dims), np.nan, np.float32)
        reduced[is_finite] = self._reduction.reduce(vectors[is_finite])
        return reduced
