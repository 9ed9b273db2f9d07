"""A coder that learns from labels which bits tell pictures of different kinds apart.

Lin et al. 2015 (Deep Learning of Binary Hash Codes for Fast Image Retrieval, CVPR Workshops):
between the features and a classifier lies a layer of sigmoids, the classifier alone says what is
learnt, and a bit says whether its sigmoid is above a half.  There the features are those of a
network that learns along; here they are stored vectors, so nothing is embedded again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from es_imgsearch.codes import DEFAULT_BITS, Coder, Floats, check_bits, unit_rows

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
    rows = unit_rows(vectors)
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
