"""Load hashes, colours and vectors of indexed pictures; search by any of them.

Neighbours are searched in batches (`_msearch`).  If a search returns as many as it asked for, it is
repeated with ten times as many, up to 1,000, so that fifty copies of a picture are all found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from es_imgsearch.duplicates.groups import IndexedPicture, parse_picture
from es_imgsearch.duplicates.hashes import BITS
from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.queries import knn_body, parse_vector, score_to_cosine
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import ImageMissing

HASH_FIELD = "perceptual_hash"
_FIELDS = (
    "image_id", "root", "relative_path", "content_id", "size_bytes", "mtime_ns", "width", "height",
)  # fmt: skip
COLOUR_FIELD = "colour_embedding"
_COLOUR_FIELDS = ("colour_shares", "monochrome")
# The three most frequent colours cover this share of a picture of few colours, whose hash may
# change when it is saved again: of a flag, most frequencies are zero.
_FEW_COLOURS_SHARE = 0.9

# A page of 500 vectors of 512 dims is 5 MB of JSON.
_PAGE = 500
_FIRST_K = 10
_MAX_K = 1000

T = TypeVar("T")


class PictureFeatures(NamedTuple):
    """An indexed picture, its hash and its vector (dims,), None if it has none.

    `colours`, of shape (108,), are those of a picture of few colours that is not grey.
    """

    picture: IndexedPicture
    perceptual_hash: int | None
    vector: npt.NDArray[np.float32] | None
    colours: npt.NDArray[np.float32] | None = None


class Neighbour(NamedTuple):
    """A picture near another one; `measure` is the distance in bits, or the cosine."""

    image_id: str
    measure: float


def load_pages(
    store: Store,
    filters: Sequence[Mapping[str, Any]] = (),
    *,
    vectors: bool = True,
    colours: bool = False,
) -> Iterator[list[PictureFeatures]]:
    """Yield pages of indexed pictures that pass the filters, by root and path."""
    names = [HASH_FIELD, *([VECTOR_FIELD] if vectors else []), *([COLOUR_FIELD] if colours else [])]
    fields = (*_FIELDS, *(_COLOUR_FIELDS if colours else ()))
    for hits in store.listings.pages(filters, fields=fields, vectors=names, size=_PAGE):
        yield [_parse_features(hit) for hit in hits]


def load_by_id(
    store: Store, image_ids: Sequence[str], *, vectors: bool = True, colours: bool = False
) -> dict[str, PictureFeatures]:
    """Load pictures by id; ids without a document are left out."""
    pictures: dict[str, PictureFeatures] = {}
    for start in range(0, len(image_ids), _PAGE):
        chunk = list(image_ids[start : start + _PAGE])
        for page in load_pages(
            store, [{"ids": {"values": chunk}}], vectors=vectors, colours=colours
        ):
            pictures |= {each.picture.image_id: each for each in page}
    return pictures


def load_one(store: Store, image_id: str) -> PictureFeatures:
    """Load a picture by id.  Raises ImageMissing."""
    features = load_by_id(store, [image_id], colours=True).get(image_id)
    if features is None:
        raise ImageMissing(f"No picture has the image_id {image_id!r}.")
    return features


def search_hashes(store: Store, hashes: Sequence[int], radius: int) -> list[list[Neighbour]]:
    """Search for pictures whose hash differs in at most `radius` bits, per hash."""
    return _search_all(
        store,
        hashes,
        lambda perceptual_hash, k: hash_body(perceptual_hash, k, radius),
        # The score of bit vectors is the share of equal bits.
        lambda score: round((1 - score) * BITS),
        lambda distance: distance <= radius,
    )


def search_vectors(
    store: Store,
    meta: Meta,
    vectors: Sequence[npt.NDArray[np.float32]],
    min_cosine: float,
    *,
    max_k: int = _MAX_K,
) -> list[list[Neighbour]]:
    """Search for up to `max_k` pictures of at least a cosine, for each vector."""
    return _search_all(
        store,
        vectors,
        lambda vector, k: knn_body(vector, k, meta.tuning, source=False),
        lambda score: score_to_cosine(score, meta.similarity),
        lambda cosine: cosine >= min_cosine,
        max_k,
    )


def search_colours(
    store: Store, colours: npt.NDArray[np.float32], k: int, min_cosine: float
) -> list[str]:
    """Search for the k nearest of at least a cosine by their colours at their places."""
    body = {
        "knn": {
            "field": COLOUR_FIELD,
            "query_vector": colours.tolist(),
            "k": k,
            "num_candidates": 10 * k,
            "similarity": min_cosine,
        },
        "size": k,
        "_source": False,
    }
    return [hit["_id"] for hit in store.searches.hits(body)]


def hash_body(perceptual_hash: int, k: int, radius: int) -> dict[str, Any]:
    """Build a search for the k nearest by hash within `radius` bits."""
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
    """Build an aggregation of a page of contents, with their numbers of files."""
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


def _search_all(
    store: Store,
    queries: Sequence[T],
    body: Callable[[T, int], dict[str, Any]],
    measure: Callable[[float], float],
    is_near: Callable[[float], bool],
    max_k: int = _MAX_K,
) -> list[list[Neighbour]]:
    neighbours: list[list[Neighbour]] = [[] for _ in queries]
    left, k = list(range(len(queries))), min(_FIRST_K, max_k)
    while left:
        answers = store.searches.msearch([body(queries[n], k) for n in left])
        full = []
        for n, hits in zip(left, answers, strict=True):
            measured = [Neighbour(hit["_id"], measure(hit["_score"])) for hit in hits]
            neighbours[n] = [each for each in measured if is_near(each.measure)]
            if len(neighbours[n]) == k < max_k:
                full.append(n)
        left, k = full, min(k * 10, max_k)
    return neighbours


def _parse_features(hit: Mapping[str, Any]) -> PictureFeatures:
    fields = hit.get("fields", {})
    bits, vector = fields.get(HASH_FIELD), fields.get(VECTOR_FIELD)
    source, colours = hit["_source"], fields.get(COLOUR_FIELD)
    return PictureFeatures(
        parse_picture(source),
        None if bits is None else _parse_hash(bits),
        None if vector is None else parse_vector(vector),
        parse_vector(colours) if colours is not None and _has_few_colours(source) else None,
    )


def _has_few_colours(source: Mapping[str, Any]) -> bool:
    # Pages of text are all alike by their colours.
    if source.get("monochrome", True):
        return False
    shares = sorted(source.get("colour_shares", {}).values(), reverse=True)
    return sum(map(float, shares[:3])) >= _FEW_COLOURS_SHARE


def _parse_hash(value: Sequence[Any]) -> int:
    """Convert a bit vector from signed bytes in a list of one list, as returned."""
    return int.from_bytes(np.asarray(value).astype(np.int8).tobytes(), "big")
