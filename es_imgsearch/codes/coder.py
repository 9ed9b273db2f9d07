"""A coder that learns from labels which bits tell pictures of different kinds apart.

Lin et al. 2015 (Deep Learning of Binary Hash Codes for Fast Image Retrieval, CVPR Workshops):
between the features and a classifier lies a layer of sigmoids, the classifier alone says what is
learnt, and a bit says whether its sigmoid is above a half.  There the features are those of a
network that learns along; here they are stored vectors, so nothing is embedded again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from es_imgsearch.errors import IndexConflict, UsageError
from es_imgsearch.records import unit

# Binary codes of vectors: a few bits each, compared by counting those that differ.
#
#     code = bits of [ matrix @ v > thresholds ],  v of unit length
#
# Three ways to a coder, all for vectors of any encoder:
#
# `sign`
#     one bit a dim, whether it is above its mean over a sample.  Without the mean, features that
#     are nearly all positive, as those of a CNN are, would have the same sign.
# `lsh`
#     on which side of random hyperplanes through the mean (Charikar 2002, STOC): the share of bits
#     that differ tends to the angle between two vectors.
# `learned`
#     a sigmoid layer trained on labels (Lin et al. 2015, CVPR Workshops), see `learned_codes`.
#
# Searched coarse to fine: the nearest codes by Hamming distance, put in order by the whole vectors
# (`code_queries`).  Pure NumPy; `kept_coder` keeps a coder in `<index>-codes`.

Floats = npt.NDArray[np.float32]
Method = Literal["sign", "lsh", "learned"]
DEFAULT_BITS: Final = 128
# What mean is taken of: means of 5,000 are as good as those of all.
SAMPLE_SIZE: Final = 5_000

# A byte is the least that the server stores, 4,096 bits the most.
_BITS_A_BYTE = 8
_MOST_BITS = 4_096
# The mean of fewer says nothing of the pictures to come.
_LEAST_SAMPLE = 20


@dataclass(frozen=True, slots=True, eq=False)
class Coder:
    """Turns vectors into codes.

    `matrix` has the shape (bits, dims), or is None where a bit stands for a dim; `thresholds`
    has the shape (bits,).  `sample_size` is the number of vectors it was made from.
    """

    method: str
    matrix: Floats | None
    thresholds: Floats
    sample_size: int

    @property
    def bits(self) -> int:
        return len(self.thresholds)

    @property
    def dims(self) -> int:
        return self.bits if self.matrix is None else int(self.matrix.shape[1])

    @property
    def hash(self) -> str:
        """Of everything that changes a code."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{self.bits} {self.dims}".encode())
        for each in (self.matrix, self.thresholds):
            digest.update(b"" if each is None else _little_endian(each))
        return digest.hexdigest()

    def packed(self, vectors: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """Codes of shape (n, bits / 8), of vectors of shape (n, dims) and any length."""
        rows = unit(vectors)
        projected = rows if self.matrix is None else rows @ self.matrix.T
        return np.packbits(projected > self.thresholds, axis=1)

    def codes(self, vectors: npt.ArrayLike) -> list[str]:
        """The same in hexadecimal digits, as the index takes them."""
        return [row.tobytes().hex() for row in self.packed(vectors)]

    def code(self, vector: npt.ArrayLike) -> str:
        """That of one vector, of shape (dims,)."""
        return self.codes(np.asarray(vector)[None])[0]

    # -- kept beside the index -------------------------------------------------------------

    def to_document(self) -> dict[str, Any]:
        """As it is stored; arrays are float32, little-endian, row by row, in base64."""
        document = {
            "hash": self.hash,
            "method": self.method,
            "bits": self.bits,
            "dims": self.dims,
            "sample_size": self.sample_size,
            "thresholds": base64.b64encode(_little_endian(self.thresholds)).decode(),
        }
        if self.matrix is not None:
            document["matrix"] = base64.b64encode(_little_endian(self.matrix)).decode()
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any], wanted_hash: str, index: str) -> Coder:
        """Raises IndexConflict where the document is not the one that the codes were made with."""
        try:
            bits, dims = int(document["bits"]), int(document["dims"])
            matrix = document.get("matrix")
            found = cls(
                method=str(document["method"]),
                matrix=None if matrix is None else _floats(matrix, (bits, dims)),
                thresholds=_floats(document["thresholds"], (bits,)),
                sample_size=int(document["sample_size"]),
            )
        except (KeyError, TypeError, ValueError, binascii.Error):
            found = None
        if found is None or found.hash != wanted_hash:
            raise IndexConflict(
                f"The coder in {index}-codes is not the one that the codes of index {index!r} were"
                " made with: train them anew with `es-imgsearch codes train`."
            )
        return found


def fit_sign(sample: npt.ArrayLike) -> Coder:
    """One bit for each of the dims of the sample, of shape (n, dims).

    Raises UsageError where the sample is too small, or dims no multiple of 8.
    """
    vectors = _usable(sample)
    dims = vectors.shape[1]
    if dims % _BITS_A_BYTE:
        raise UsageError(
            f"Codes by sign have a bit a dim, and {dims} is no multiple of {_BITS_A_BYTE}: use"
            " --method lsh."
        )
    return Coder("sign", None, vectors.mean(axis=0), len(vectors))


def fit_lsh(sample: npt.ArrayLike, bits: int = DEFAULT_BITS, *, seed: int = 0) -> Coder:
    """Random hyperplanes through the mean of the sample, of shape (n, dims).

    Raises UsageError where the sample is too small, or the number of bits cannot be.
    """
    check_bits(bits)
    vectors = _usable(sample)
    planes = np.random.default_rng(seed).standard_normal((bits, vectors.shape[1]))
    matrix = planes.astype(np.float32)
    return Coder("lsh", matrix, matrix @ vectors.mean(axis=0), len(vectors))


def check_bits(bits: int) -> None:
    if not 0 < bits <= _MOST_BITS or bits % _BITS_A_BYTE:
        raise UsageError(
            f"Codes have a multiple of {_BITS_A_BYTE} bits up to {_MOST_BITS}, not {bits}."
        )


def _usable(sample: npt.ArrayLike) -> Floats:
    vectors = unit(sample)
    if len(vectors) < _LEAST_SAMPLE:
        raise UsageError(
            f"The index holds {len(vectors)} vectors to learn codes from, {_LEAST_SAMPLE} are"
            " needed: store pictures first."
        )
    return vectors


def _floats(text: str, shape: Sequence[int]) -> Floats:
    raw = base64.b64decode(text, validate=True)
    return np.frombuffer(raw, "<f4").reshape(shape).astype(np.float32)


def _little_endian(array: Floats) -> bytes:
    return np.ascontiguousarray(array, dtype="<f4").tobytes()


_STEPS = 2_000
_BATCH = 256
# Adam (Kingma & Ba 2015, ICLR) with the decay kept apart (Loshchilov & Hutter 2019, ICLR).
_LEARNING_RATE = 3e-3
_DECAYS = (0.9, 0.999)
_EPSILON = 1e-8
_WEIGHT_DECAY = 1e-3


def fit_learned(vectors: Floats, targets: Floats, bits: int = DEFAULT_BITS) -> Coder:
    """The sigmoid layer between vectors of shape (n, dims) and labels of shape (n, labels).

    A row of `targets` says which share each label has in a picture, and sums to 1; with one label
    a picture the loss is that of the paper, the cross-entropy of a softmax.  The same input gives
    the same coder.
    """
    check_bits(bits)
    rows = unit(vectors)
    mean = rows.mean(axis=0)
    # Near vectors differ little: brought to a deviation of 1, the sigmoids have something to tell.
    scale = np.float32(1.0 / max(float((rows - mean).std()), 1e-6))
    inputs = (rows - mean) * scale
    random = np.random.default_rng(0)
    shapes = [(bits, rows.shape[1]), (bits, 1), (targets.shape[1], bits), (targets.shape[1], 1)]
    # latent weights and offsets, the classifier's weights and offsets
    parameters = [_initial(shape, random) for shape in shapes]
    means = [np.zeros_like(each) for each in parameters]
    squares = [np.zeros_like(each) for each in parameters]
    # On two busy cores threads wait for each other in every step: 28 s instead of 3 for 3,000
    # vectors of 384 dims, 128 bits and 100 labels.
    with threadpool_limits(1):
        for step in range(1, _STEPS + 1):
            batch = random.integers(len(inputs), size=min(_BATCH, len(inputs)))
            gradients = _gradients(parameters, inputs[batch], targets[batch])
            for value, gradient, first, second in zip(
                parameters, gradients, means, squares, strict=True
            ):
                first += (1 - _DECAYS[0]) * (gradient - first)
                second += (1 - _DECAYS[1]) * (gradient * gradient - second)
                slope = first / (1 - _DECAYS[0] ** step)
                size = np.sqrt(second / (1 - _DECAYS[1] ** step)) + _EPSILON
                value -= _LEARNING_RATE * (slope / size + _WEIGHT_DECAY * value)
    matrix, offsets = parameters[:2]
    thresholds = (matrix @ mean - offsets[:, 0] / scale).astype(np.float32)
    return Coder("learned", matrix, thresholds, len(rows))


def targets_of(labels: Sequence[Sequence[str]]) -> tuple[Floats, list[str]]:
    """Of pictures with these labels the targets of `fit_learned`, and what a column stands for."""
    names = sorted({label for each in labels for label in each})
    column = {name: n for n, name in enumerate(names)}
    targets = np.zeros((len(labels), len(names)), np.float32)
    for row, each in zip(targets, labels, strict=True):
        row[[column[label] for label in each]] = 1.0 / len(set(each))
    return targets, names


def _gradients(parameters: Sequence[Floats], inputs: Floats, targets: Floats) -> list[Floats]:
    """Of the mean cross-entropy, by each of the parameters."""
    latent, offsets, classifier, biases = parameters
    codes = 1.0 / (1.0 + np.exp(-np.clip(inputs @ latent.T + offsets[:, 0], -30, 30)))
    logits = codes @ classifier.T + biases[:, 0]
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    by_logit = (shares - targets) / np.float32(len(inputs))
    by_sum = (by_logit @ classifier) * codes * (1.0 - codes)
    return [
        by_sum.T @ inputs,
        by_sum.sum(axis=0)[:, None],
        by_logit.T @ codes,
        by_logit.sum(axis=0)[:, None],
    ]


def _initial(shape: tuple[int, int], random: np.random.Generator) -> Floats:
    """Small and different from each other; offsets begin at 0."""
    if shape[1] == 1:
        return np.zeros(shape, np.float32)
    limit = 1.0 / np.sqrt(shape[1])
    return random.uniform(-limit, limit, shape).astype(np.float32)
