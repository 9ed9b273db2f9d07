"""Vectors for benchmarks: synthetic ones from a seed, or real ones from a file.

Synthetic vectors lie around centres, 100 to each, and are spread as wide as the centres are apart:
near ones are hard to tell from the next, as embeddings of photographs are.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]

_PER_CENTRE = 100


class Dataset(NamedTuple):
    """Unit vectors to store, of shape (n, dims), and unstored ones to search with."""

    name: str
    stored: Vectors
    queries: Vectors


def add_vector_options(
    parser: argparse.ArgumentParser, *, count: int = 20_000, queries: int = 200
) -> None:
    parser.add_argument("--vectors", type=Path, metavar="FILE.npy", help="real vectors, (n, dims)")
    parser.add_argument("--count", type=int, default=count, help="vectors to store")
    parser.add_argument("--queries", type=int, default=queries, help="queries to search with")
    parser.add_argument("--dims", type=int, default=512, help="of synthetic vectors")


def load_dataset(given: argparse.Namespace) -> Dataset:
    """Load vectors by the options of `add_vector_options`, with queries alike."""
    if given.vectors is None:
        both = clustered(given.count + given.queries, given.dims, seed=2)
        name = "synthetic"
    else:
        # Not all at once: the file may hold millions.
        file = np.load(given.vectors, mmap_mode="r")
        wanted = given.count + given.queries
        if len(file) < wanted:
            raise SystemExit(f"{given.vectors} holds {len(file)} vectors, {wanted} are needed.")
        rows = np.sort(np.random.default_rng(2).choice(len(file), wanted, replace=False))
        both = _unit(np.asarray(file[rows], dtype=np.float32))
        both = np.random.default_rng(3).permutation(both)
        name = given.vectors.stem
    return Dataset(name, both[given.queries :], both[: given.queries])


def clustered(count: int, dims: int, seed: int) -> Vectors:
    random = np.random.default_rng(seed)
    centres = random.normal(size=(max(1, count // _PER_CENTRE), dims)).astype(np.float32)
    vectors = random.normal(size=(count, dims)).astype(np.float32)
    vectors += centres[random.integers(len(centres), size=count)]
    return _unit(vectors)


def nearest(stored: Vectors, queries: Vectors, k: int) -> npt.NDArray[np.int64]:
    """Positions of the k nearest by cosine, best first, of shape (queries, k)."""
    found = np.empty((len(queries), k), dtype=np.int64)
    for start in range(0, len(queries), 50):
        cosines = queries[start : start + 50] @ stored.T
        top = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(cosines, top, axis=1), axis=1)
        found[start : start + 50] = np.take_along_axis(top, order, axis=1)
    return found


def recall(found: list[list[int]], truth: npt.NDArray[np.int64]) -> float:
    """Share of the true neighbours among the results."""
    hits = [
        len(set(few).intersection(map(int, right))) for few, right in zip(found, truth, strict=True)
    ]
    return sum(hits) / truth.size


def _unit(vectors: Vectors) -> Vectors:
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit.astype(np.float32)
