"""Fit a coder of binary codes: by sign, by random hyperplanes, or on labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from es_imgsearch.codes.coder import BITS_A_BYTE, DEFAULT_BITS, MOST_BITS, Coder, Floats
from es_imgsearch.errors import UsageError
from es_imgsearch.records import unit

# The mean of fewer vectors says nothing about later pictures.
_LEAST_SAMPLE = 20


def fit_sign(sample: npt.ArrayLike) -> Coder:
    """Fit one bit for each dim of the sample, of shape (n, dims).

    Raises UsageError if the sample is too small, or dims no multiple of 8.
    """
    vectors = _unit_sample(sample)
    dims = vectors.shape[1]
    if dims % BITS_A_BYTE:
        raise UsageError(
            f"Codes by sign have a bit a dim, and {dims} is no multiple of {BITS_A_BYTE}: use"
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
    if not 0 < bits <= MOST_BITS or bits % BITS_A_BYTE:
        raise UsageError(
            f"Codes have a multiple of {BITS_A_BYTE} bits up to {MOST_BITS}, not {bits}."
        )


def _unit_sample(sample: npt.ArrayLike) -> Floats:
    vectors = unit(sample)
    if len(vectors) < _LEAST_SAMPLE:
        raise UsageError(
            f"The index holds {len(vectors)} vectors to learn codes from, {_LEAST_SAMPLE} are"
            " needed: store pictures first."
        )
    return vectors


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
