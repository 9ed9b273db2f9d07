"""Binary codes of vectors: a few bits each, compared by Hamming distance.

The Hamming distance is the number of bits that differ.

    code = bits of [ matrix @ v > thresholds ],  v of unit length

Three ways to fit a coder, all for vectors of any encoder:

`sign`
    one bit a dim: whether it is above its mean over a sample.  Without the mean, features that
    are nearly all positive, as those of a CNN are, would have the same sign.
`lsh`
    on which side of random hyperplanes through the mean (Charikar 2002, STOC): the share of bits
    that differ tends to the angle between two vectors.
`learned`
    a layer of sigmoids between the vectors and a classifier, trained on labels; a bit is 1 if its
    sigmoid is above a half (Lin et al. 2015, Deep Learning of Binary Hash Codes for Fast Image
    Retrieval, CVPR Workshops).  In the paper the network of the features is trained along; here
    the features are stored vectors, so nothing is embedded again.

Searched coarse to fine: the nearest codes by Hamming distance, sorted by the full vectors
(`codes.queries`).  Pure NumPy; `codes.storage` stores a coder in `<index>-codes`.
"""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from es_imgsearch.errors import IndexConflict, UsageError
from es_imgsearch.records import float_bytes, floats_from_base64, floats_to_base64, unit

Floats = npt.NDArray[np.float32]
Method = Literal["sign", "lsh", "learned"]
DEFAULT_BITS: Final = 128
# Vectors to take the mean of: means of 5,000 are as good as means of all.
SAMPLE_SIZE: Final = 5_000

# Elasticsearch stores whole bytes, at most 4,096 bits.
_BITS_A_BYTE = 8
_MOST_BITS = 4_096
# The mean of fewer vectors says nothing about later pictures.
_LEAST_SAMPLE = 20


@dataclass(frozen=True, slots=True, eq=False)
class Coder:
    """A function from vectors to codes.

    `matrix` has the shape (bits, dims), or is None if each bit is one dim; `thresholds` has the
    shape (bits,).  `sample_size` is the number of vectors it was fitted on.
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
        """Hash of everything that changes a code."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{self.bits} {self.dims}".encode())
        for each in (self.matrix, self.thresholds):
            digest.update(b"" if each is None else float_bytes(each))
        return digest.hexdigest()

    def pack(self, vectors: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """Return codes of shape (n, bits / 8) of vectors of shape (n, dims).

        The vectors may have any length.
        """
        rows = unit(vectors)
        projected = rows if self.matrix is None else rows @ self.matrix.T
        return np.packbits(projected > self.thresholds, axis=1)

    def codes(self, vectors: npt.ArrayLike) -> list[str]:
        """Return the codes of n vectors in hexadecimal digits, as the index takes them."""
        return [row.tobytes().hex() for row in self.pack(vectors)]

    def code(self, vector: npt.ArrayLike) -> str:
        """Return the code of one vector, of shape (dims,), in hexadecimal digits."""
        return self.codes(np.asarray(vector)[None])[0]

    def to_document(self) -> dict[str, Any]:
        """Return the document for `<index>-codes`; arrays are float32 in base64."""
        document = {
            "hash": self.hash,
            "method": self.method,
            "bits": self.bits,
            "dims": self.dims,
            "sample_size": self.sample_size,
            "thresholds": floats_to_base64(self.thresholds),
        }
        if self.matrix is not None:
            document["matrix"] = floats_to_base64(self.matrix)
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any], expected_hash: str, index: str) -> Coder:
        """Read a stored document.

        Raises IndexConflict if its hash is not `expected_hash`.
        """
        try:
            bits, dims = int(document["bits"]), int(document["dims"])
            matrix = document.get("matrix")
            coder = cls(
                method=str(document["method"]),
                matrix=None if matrix is None else floats_from_base64(matrix, (bits, dims)),
                thresholds=floats_from_base64(document["thresholds"], (bits,)),
                sample_size=int(document["sample_size"]),
            )
        except (KeyError, TypeError, ValueError, binascii.Error):
            coder = None
        if coder is None or coder.hash != expected_hash:
            raise IndexConflict(
                f"The coder in {index}-codes is not the one that the codes of index {index!r} were"
                " made with: train them anew with `es-imgsearch codes train`."
            )
        return coder


def fit_sign(sample: npt.ArrayLike) -> Coder:
    """Fit one bit for each dim of the sample, of shape (n, dims).

    Raises UsageError if the sample is too small, or dims no multiple of 8.
    """
    vectors = _unit_sample(sample)
    dims = vectors.shape[1]
    if dims % _BITS_A_BYTE:
        raise UsageError(
            f"Codes by sign have a bit a dim, and {dims} is no multiple of {_BITS_A_BYTE}: use"
            " --method lsh."
        )
    return Coder("sign", None, vectors.mean(axis=0), len(vectors))


def fit_lsh(sample: npt.ArrayLike, bits: int = DEFAULT_BITS, *, seed: int = 0) -> Coder:
    """Choose random hyperplanes through the mean of the sample, of shape (n, dims).

    Raises UsageError if the sample is too small or the number of bits is invalid.
    """
    check_bits(bits)
    vectors = _unit_sample(sample)
    planes = np.random.default_rng(seed).standard_normal((bits, vectors.shape[1]))
    matrix = planes.astype(np.float32)
    return Coder("lsh", matrix, matrix @ vectors.mean(axis=0), len(vectors))


def check_bits(bits: int) -> None:
    """Raise UsageError unless a code may have this number of bits."""
    if not 0 < bits <= _MOST_BITS or bits % _BITS_A_BYTE:
        raise UsageError(
            f"Codes have a multiple of {_BITS_A_BYTE} bits up to {_MOST_BITS}, not {bits}."
        )


def _unit_sample(sample: npt.ArrayLike) -> Floats:
    vectors = unit(sample)
    if len(vectors) < _LEAST_SAMPLE:
        raise UsageError(
            f"The index holds {len(vectors)} vectors to learn codes from, {_LEAST_SAMPLE} are"
            " needed: store pictures first."
        )
    return vectors


# The learned coder.

_STEPS = 2_000
_BATCH = 256
# AdamW: Adam (Kingma & Ba 2015, ICLR) with decoupled weight decay (Loshchilov & Hutter 2019, ICLR).
_LEARNING_RATE = 3e-3
_DECAYS = (0.9, 0.999)
_EPSILON = 1e-8
_WEIGHT_DECAY = 1e-3


def fit_learned(vectors: Floats, targets: Floats, bits: int = DEFAULT_BITS) -> Coder:
    """Train the sigmoid layer between vectors (n, dims) and targets (n, labels).

    A row of `targets` holds the share of each label in a picture, and sums to 1; with one label a
    picture the loss is the cross-entropy of a softmax, as in the paper.  The same input gives the
    same coder.
    """
    check_bits(bits)
    rows = unit(vectors)
    mean = rows.mean(axis=0)
    # Near vectors differ little; scaled to a deviation of 1 they move the sigmoids.
    scale = np.float32(1.0 / max(float((rows - mean).std()), 1e-6))
    inputs = (rows - mean) * scale
    random = np.random.default_rng(0)
    shapes = [(bits, rows.shape[1]), (bits, 1), (targets.shape[1], bits), (targets.shape[1], 1)]
    # Latent weights and offsets, then the classifier's.
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


def label_targets(labels: Sequence[Sequence[str]]) -> tuple[Floats, list[str]]:
    """Return targets for `fit_learned`, and the names of their columns.

    The targets are of pictures with these labels.
    """
    names = sorted({label for each in labels for label in each})
    column = {name: n for n, name in enumerate(names)}
    targets = np.zeros((len(labels), len(names)), np.float32)
    for row, each in zip(targets, labels, strict=True):
        row[[column[label] for label in each]] = 1.0 / len(set(each))
    return targets, names


def _gradients(parameters: Sequence[Floats], inputs: Floats, targets: Floats) -> list[Floats]:
    """Return the gradients of the mean cross-entropy by each of the parameters."""
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
    """Return small random weights; offsets (one column) start at 0."""
    if shape[1] == 1:
        return np.zeros(shape, np.float32)
    limit = 1.0 / np.sqrt(shape[1])
    return random.uniform(-limit, limit, shape).astype(np.float32)
