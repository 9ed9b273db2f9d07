"""Stored pictures with what they are compared by, and their neighbours by hash or by vector.

Neighbours are asked for in batches of searches (`_msearch`).  A picture that has as many as
were asked for is asked again for ten times as many, up to 1,000, so that fifty copies of one
picture do not hide each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from es_imgsearch.duplicates.groups import Stored, stored_of
from es_imgsearch.duplicates.hashes import BITS
from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.queries import knn_body, parse_vector, score_to_cosine
from es_imgsearch.elastic.store import Store

HASH_FIELD = "perceptual_hash"
_FIELDS = (
    "image_id", "root", "relative_path", "content_id", "size_bytes", "mtime_ns", "width", "height",
)  # fmt: skip

# A page of 500 vectors of 512 dims is 5 MB of JSON.
_PAGE = 500
_FIRST_K = 10
_LAST_K = 1000

T = TypeVar("T")


class Seen(NamedTuple):
    """A stored picture, its hash and its vector (shape (dims,)), None where it has none."""

    picture: Stored
    perceptual_hash: int | None
    vector: npt.NDArray[np.float32] | None


class Near(NamedTuple):
    """A neighbour: its id, and its distance in bits or its cosine."""

    image_id: str
    measure: float


def pages_of(
    store: Store, filters: Sequence[Mapping[str, Any]] = (), *, vectors: bool = True
) -> Iterator[list[Seen]]:
    """Every stored picture that the filters let through, in the order of root and path."""
    wanted = [HASH_FIELD, VECTOR_FIELD] if vectors else [HASH_FIELD]
    for hits in store.listings.pages(filters, fields=_FIELDS, vectors=wanted, size=_PAGE):
        yield [_seen(hit) for hit in hits]


def pictures_by_id(
    store: Store, image_ids: Sequence[str], *, vectors: bool = True
) -> dict[str, Seen]:
    """Those of these ids that have a document."""
    found: dict[str, Seen] = {}
    for start in range(0, len(image_ids), _PAGE):
        wanted = list(image_ids[start : start + _PAGE])
        for page in pages_of(store, [{"ids": {"values": wanted}}], vectors=vectors):
            found |= {each.picture.image_id: each for each in page}
    return found


def near_hashes(store: Store, hashes: Sequence[int], radius: int) -> list[list[Near]]:
    """For each 64-bit hash the stored pictures whose hash differs in at most `radius` bits."""

    def body(perceptual_hash: int, k: int) -> dict[str, Any]:
        return hash_body(perceptual_hash, k, radius)

    def near(hit: Mapping[str, Any]) -> Near:
        # The score of bit vectors is the share of equal bits.
        return Near(hit["_id"], round((1 - hit["_score"]) * BITS))

    return _asked(store, hashes, body, near, lambda each: each.measure <= radius)


def near_vectors(
    store: Store,
    meta: Meta,
    vectors: Sequence[npt.NDArray[np.float32]],
    least_cosine: float,
    *,
    most: int = _LAST_K,
) -> list[list[Near]]:
    """For each vector the stored pictures of at least this cosine, `most` of them at most."""

    def body(vector: npt.NDArray[np.float32], k: int) -> dict[str, Any]:
        return knn_body(vector, k, meta.tuning, source=False)

    def near(hit: Mapping[str, Any]) -> Near:
        return Near(hit["_id"], score_to_cosine(hit["_score"], meta.similarity))

    return _asked(store, vectors, body, near, lambda each: each.measure >= least_cosine, most)


def hash_body(perceptual_hash: int, k: int, radius: int) -> dict[str, Any]:
    """The k nearest by hash, none of them farther than `radius` bits."""
    return {
        "knn": {
            "field": HASH_FIELD,
            "query_vector": f"{perceptual_hash:016x}",
            "k": k,
            "num_candidates": k,
            "similarity": radius,
        },
        "size": k,
        "_source": False,
    }


def contents_body(after: Mapping[str, Any] | None, size: int) -> dict[str, Any]:
    """A page of contents with the number of files that have each, in the order of content_id."""
    composite: dict[str, Any] = {
        "size": size,
        "sources": [{"content_id": {"terms": {"field": "content_id"}}}],
    }
    if after is not None:
        composite["after"] = dict(after)
    return {
        "size": 0,
        "track_total_hits": False,
        "aggs": {"contents": {"composite": composite}},
    }


def _asked(
    store: Store,
    queries: Sequence[T],
    body: Callable[[T, int], dict[str, Any]],
    near: Callable[[Mapping[str, Any]], Near],
    counts: Callable[[Near], bool],
    most: int = _LAST_K,
) -> list[list[Near]]:
    found: list[list[Near]] = [[] for _ in queries]
    left, k = list(range(len(queries))), min(_FIRST_K, most)
    while left:
        answers = store.searches.msearch([body(queries[n], k) for n in left])
        full = []
        for n, hits in zip(left, answers, strict=True):
            found[n] = [each for each in map(near, hits) if counts(each)]
            if len(found[n]) == k < most:
                full.append(n)
        left, k = full, min(k * 10, most)
    return found


def _seen(hit: Mapping[str, Any]) -> Seen:
    fields = hit.get("fields", {})
    bits, vector = fields.get(HASH_FIELD), fields.get(VECTOR_FIELD)
    return Seen(
        stored_of(hit["_source"]),
        None if bits is None else _hash_of(bits),
        None if vector is None else parse_vector(vector),
    )


def _hash_of(value: Sequence[Any]) -> int:
    """Bits come back as signed bytes, in a list of one list."""
    return int.from_bytes(np.asarray(value).astype(np.int8).tobytes(), "big")
