"""Nearest-neighbour libraries behind one call: build on vectors, get a search.

Each imports its library when it is built; `pip install --group bench` brings them all.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from timing import Search
from vectors import Vectors

# As mappings/balanced.json has them.
M, EF_CONSTRUCTION = 16, 100
EFFORTS = (10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000)


def numpy_exact(vectors: Vectors, k: int) -> Search:
    def search(query: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        cosines = vectors @ query
        top = np.argpartition(-cosines, k - 1)[:k]
        return top[np.argsort(-cosines[top])]

    return search


def faiss_flat(vectors: Vectors, k: int) -> Search:
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return lambda query: index.search(query[None], k)[1][0]


def hnswlib_graph(vectors: Vectors, k: int) -> Callable[[int], Search]:
    import hnswlib

    index = hnswlib.Index(space="ip", dim=vectors.shape[1])
    index.init_index(len(vectors), M=M, ef_construction=EF_CONSTRUCTION, random_seed=1)
    index.add_items(vectors)
    index.set_num_threads(1)

    def search_with(effort: int) -> Search:
        index.set_ef(max(k, effort))
        return lambda query: index.knn_query(query, k)[0][0]

    return search_with


def faiss_graph(vectors: Vectors, k: int) -> Callable[[int], Search]:
    import faiss

    index = faiss.IndexHNSWFlat(vectors.shape[1], M, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = EF_CONSTRUCTION
    index.add(vectors)

    def search_with(effort: int) -> Search:
        index.hnsw.efSearch = max(k, effort)
        return lambda query: index.search(query[None], k)[1][0]

    return search_with


def faiss_lsh(vectors: Vectors, k: int, bits: int) -> Callable[[int], Search]:
    """Hash by signs of `bits` random projections (Charikar 2002); rescore exactly."""
    import faiss

    index = faiss.IndexLSH(vectors.shape[1], bits, True, False)
    index.train(vectors)
    index.add(vectors)
    return lambda effort: reranked(
        lambda query: index.search(query[None], max(k, effort))[1][0], vectors, k
    )


def faiss_bits(vectors: Vectors, k: int) -> Callable[[int], Search]:
    """Hash a bit per dimension, above the mean or not; rescore exactly."""
    import faiss

    mean = vectors.mean(axis=0)
    index = faiss.IndexBinaryFlat(vectors.shape[1])
    index.add(np.packbits(vectors > mean, axis=1))
    return lambda effort: reranked(
        lambda query: index.search(np.packbits(query > mean)[None], max(k, effort))[1][0],
        vectors,
        k,
    )


def sklearn_brute(vectors: Vectors, k: int) -> Search:
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=k, algorithm="brute", metric="cosine").fit(vectors)
    return lambda query: index.kneighbors(query[None], return_distance=False)[0]


def sklearn_kd_tree(vectors: Vectors, k: int) -> Search:
    """Search by Euclidean distance, which orders unit vectors as the cosine does."""
    from sklearn.neighbors import KDTree

    tree = KDTree(vectors, leaf_size=40)
    return lambda query: tree.query(query[None], k, return_distance=False)[0]


def reranked(candidates: Search, vectors: Vectors, k: int) -> Search:
    """Rescore candidates by the full vectors; return the best k."""

    def search(query: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        positions = np.asarray(candidates(query))
        cosines = vectors[positions] @ query
        return positions[np.argsort(-cosines)[:k]]

    return search
