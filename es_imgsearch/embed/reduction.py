"""Reduce vectors to a few bytes by principal components, and store the matrix.

Principal components: Pearson 1901; here those of the matrix of second moments, not of the
covariance, so that no mean is taken away and the angles between vectors are kept: on 60,000
EfficientNet features 96 of 512 dims find .997 of the true ten among the first 30, .995 where the
mean was taken away, and .909 where the inner product of the cut vectors is compared instead of
their cosine.  Bytes cost nothing that can be seen (.997), since the cosine does not look at
lengths and each vector may use the whole range of its bytes.
"""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from es_imgsearch.codes.floats import float_bytes, floats_from_base64, floats_to_base64
from es_imgsearch.elastic.mapping import Companion
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.meta_entries import ReductionEntry
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import IndexConflict, UsageError
from es_imgsearch.records import unit

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.int8]

DEFAULT_DIMS_KEPT = 96
# Vectors of the sample: 1,000 give the same recall as 20,000 (.999 of the true ten
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
# A vector shorter than this after the cut has nothing left.
_NOTHING = 1e-6


@dataclass(frozen=True, slots=True)
class Reduction:
    """A projection onto orthonormal directions, and the scale of its scores.

    It has `dims_kept` directions.  `matrix` has the shape (dims_kept, dims), strongest direction
    first.  `stretch` is the ratio of the distance 1 - cosine of two near pictures to the distance
    of their bytes.  `least_kept` is the first percentile of the pictures' lengths after the cut
    (unit length before): a query that keeps less, such as a text, points away from all pictures.
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
        """Hash of everything that changes a stored vector or a score."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{self.matrix.shape} {self.stretch!r} {self.least_kept!r}".encode())
        digest.update(float_bytes(self.matrix))
        return digest.hexdigest()

    def entry(self) -> ReductionEntry:
        """Return the entry for `_meta` that names this matrix by its hash."""
        return ReductionEntry(self.hash, self.dims_kept, self.variance_kept)

    def reduce(self, vectors: npt.ArrayLike) -> Bytes:
        """Return vectors of shape (n, dims) as bytes of shape (n, dims_kept).

        The vectors may have any length.  Each uses the whole range from -127 to 127.  A vector that
        the cut reduces to nothing becomes zeros, which an index with cosine refuses.
        """
        cut = np.asarray(vectors, np.float32) @ self.matrix.T
        largest = np.abs(cut).max(axis=1, keepdims=True)
        scale = np.divide(
            _LARGEST_BYTE, largest, out=np.zeros_like(largest), where=largest > _NOTHING
        )
        reduced: Bytes = np.rint(cut * scale).astype(np.int8)
        return reduced

    def expand(self, reduced: npt.ArrayLike) -> Floats:
        """Return unit vectors of shape (n, dims) of stored ones of shape (n, dims_kept).

        What the cut removed stays zero; `reduce` of the result returns the same bytes.
        """
        return unit(np.asarray(reduced, np.float32) @ self.matrix)

    def estimate_cosines(self, cosines: npt.ArrayLike, query: Floats) -> npt.NDArray[np.float64]:
        """Estimate the cosines of full vectors from the cosines of their bytes.

        `query` is the full unit vector, of shape (dims,).  The cut removes more of what two
        pictures differ in than of what they share, so the cosines of the bytes are too high: the
        distance is stretched.  The order stays, and a picture keeps a cosine of 1 to itself.  On
        200,000 EfficientNet features, 96 of 512 dims, the estimates of the true ten are off by .024
        (root mean square), and on average .018 too high.
        """
        length_kept = float(np.linalg.norm(self.matrix @ query))
        distance = 1.0 - np.asarray(cosines, np.float64)
        estimates: npt.NDArray[np.float64] = np.clip(
            min(1.0, length_kept / self.least_kept) * (1.0 - self.stretch * distance), -1.0, 1.0
        )
        return estimates

    def to_document(self) -> dict[str, Any]:
        """Return the document for `<index>-reduction`; the matrix is float32 in base64."""
        return {
            "hash": self.hash,
            "dims": self.dims,
            "dims_kept": self.dims_kept,
            "variance_kept": self.variance_kept,
            "stretch": self.stretch,
            "least_kept": self.least_kept,
            "sample_size": self.sample_size,
            "matrix": floats_to_base64(self.matrix),
        }

    @classmethod
    def from_document(
        cls, document: Mapping[str, Any], expected_hash: str, index: str
    ) -> Reduction:
        """Read a stored document.

        Raises IndexConflict if its hash is not `expected_hash`.
        """
        try:
            shape = (int(document["dims_kept"]), int(document["dims"]))
            reduction = cls(
                matrix=floats_from_base64(document["matrix"], shape),
                variance_kept=float(document["variance_kept"]),
                stretch=float(document["stretch"]),
                least_kept=float(document["least_kept"]),
                sample_size=int(document["sample_size"]),
            )
        except (KeyError, TypeError, ValueError, binascii.Error):
            reduction = None
        if reduction is None or reduction.hash != expected_hash:
            raise IndexConflict(
                f"The matrix in {index}-reduction is not the one that index {index!r} was made"
                " with, so its vectors cannot be compared: restore that index from a snapshot, or"
                " make another --index."
            )
        return reduction


def fit(sample: npt.ArrayLike, dims_kept: int | None = None) -> Reduction:
    """Fit the reduction that keeps most of these vectors.

    They have the shape (n, dims) and any length but 0.  Raises UsageError if `dims_kept` is not
    from 1 to dims, or the sample is too small.
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
    """Fit full on reduced distances of near neighbours.

    The fit is least squares through the origin.
    """
    probes = vectors[:: max(1, len(vectors) // _PROBES)][:_PROBES]
    reduced = unit(reduction.reduce(vectors))
    reduced_probes = unit(reduction.reduce(probes))
    full = 1.0 - probes @ vectors.T
    # The nearest is the probe itself.
    count = min(_NEIGHBOURS + 1, len(vectors))
    nearest = np.argsort(full, axis=1)[:, 1:count]
    target = np.take_along_axis(full, nearest, axis=1).astype(np.float64)
    predictor = np.take_along_axis(1.0 - reduced_probes @ reduced.T, nearest, axis=1)
    predictor = predictor.astype(np.float64)
    norm = float((predictor * predictor).sum())
    # All vectors are alike: there is nothing to stretch.
    return 1.0 if norm < _NOTHING else round(max(1.0, float((target * predictor).sum()) / norm), 6)


# Storage in `<index>-reduction`.  Without the matrix the index is lost: no new picture and no query
# can be compared with its vectors.


def store_reduction(store: Store, reduction: Reduction) -> None:
    """Store the matrix in `<index>-reduction`."""
    store.companions.put(Companion.REDUCTION, reduction.hash, reduction.to_document())


def load_reduction(store: Store, meta: Meta) -> Reduction | None:
    """Load the matrix that `_meta` names by its hash.

    None if the index stores full vectors.  Raises IndexConflict as `read_reduction`.
    """
    if meta.reduction is None:
        return None
    document = store.companions.get(Companion.REDUCTION, meta.reduction.hash)
    return read_reduction(document, store.index, meta)


def read_reduction(document: Mapping[str, Any] | None, index: str, meta: Meta) -> Reduction:
    """Read the matrix from a document that was looked up by the hash in `_meta`.

    Raises IndexConflict if it is missing or not the one that the index was made with.
    """
    if document is None or meta.reduction is None:
        raise IndexConflict(
            f"{Companion.REDUCTION.alias(index)!r} lacks the matrix of index {index!r}, without"
            " which its vectors cannot be compared: restore it from a snapshot, or make another"
            " --index."
        )
    return Reduction.from_document(document, meta.reduction.hash, index)
