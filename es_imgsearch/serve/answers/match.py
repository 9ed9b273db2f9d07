"""Why a picture is a hit: the words of its fields, and its nearest part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from es_imgsearch.errors import ImageMissing, ReadError, TextUnsupported
from es_imgsearch.records import REGIONS_FIELD, Box, Grid, unit
from es_imgsearch.search.query import StoredPicture, Vector, Weighted, combine_vectors, parse_terms
from es_imgsearch.search.words.matched import matched_fields

if TYPE_CHECKING:
    from es_imgsearch.search.client import ImageSearch
    from es_imgsearch.search.query_vectors import QueryEncoder
    from es_imgsearch.serve.query_pictures import QueryFile

# Quarters, ninths and the middle: 14 parts, embedded in one call of the model.
_GRIDS: Final = (Grid(2, 2, has_centre=True), Grid(3, 3))


class Part(NamedTuple):
    """A part of a picture, and its cosine with the query."""

    box: Box
    cosine: float


def query_vector(
    client: ImageSearch, positive: Sequence[Weighted], negative: Sequence[Weighted]
) -> Vector | None:
    """Return the vector that a search compares; None for words without a model."""
    terms = parse_terms(positive, negative)
    try:
        vectors = [client.embed(each.query) for each in terms]
    except TextUnsupported:
        return None
    return combine_vectors(vectors, [each.weight for each in terms])


def words_of(
    client: ImageSearch, image_id: str, fields: dict[str, Any], positive: Sequence[Weighted]
) -> dict[str, Any]:
    """Return the stored fields that have words of the positive texts."""
    terms = parse_terms(positive, ())
    texts = [each.query.strip() for each in terms if isinstance(each.query, str)]
    return matched_fields(client.store.documents, image_id, fields, texts)


def whole_cosine(client: ImageSearch, image_id: str, query: Vector) -> float:
    """Return the cosine of a stored picture as a whole with the query."""
    return _cosine(client.embed(StoredPicture(image_id)), query)


def stored_part(client: ImageSearch, fields: dict[str, Any], query: Vector) -> Part | None:
    """Return the nearest of the regions that the index keeps of a picture, if any."""
    content_id, info = fields.get("content_id"), client.info
    # Reduced vectors are bytes of fewer dims, and the query's vector is whole.
    if content_id is None or REGIONS_FIELD not in info.properties or info.meta.reduction:
        return None
    stored = client.store.documents.embedded_by_content([content_id], with_regions=True)
    regions = stored[content_id].regions if content_id in stored else ()
    return _nearest([Part(each.box, _cosine(each.vector, query)) for each in regions])


def computed_part(
    client: ImageSearch, encoder: QueryEncoder, original: QueryFile, query: Vector
) -> Part | None:
    """Return the nearest of 14 tiles of a picture; None for one too small for tiles."""
    boxes = [box for grid in _GRIDS for box in grid.boxes(original.width, original.height)]
    if not boxes:
        return None
    vectors = encoder.embed(client.info, (), [original.part(box) for box in boxes]).pictures
    return _nearest(
        [Part(box, _cosine(unit(row), query)) for box, row in zip(boxes, vectors, strict=True)]
    )


def _nearest(parts: Sequence[Part]) -> Part | None:
    return max(parts, key=lambda each: each.cosine, default=None)


def _cosine(one: Vector, other: Vector) -> float:
    return round(float(np.clip(one @ other, -1.0, 1.0)), 6)


def match_of(
    client: ImageSearch,
    encoder: QueryEncoder,
    image_id: str,
    queries: tuple[Sequence[Weighted], Sequence[Weighted]],
    read: Callable[[str], QueryFile],
    *,
    is_text: bool,
) -> dict[str, Any]:
    """Compare one picture with a query; `read` reads its original, for its parts.

    With `is_text` only words are compared.  Raises ImageMissing if it is not stored.
    """
    fields = dict(client.get(image_id))
    answer: dict[str, Any] = {
        "box": None, "box_cosine": None, "whole_cosine": None, "notes": [],
        "fields": words_of(client, image_id, fields, queries[0]),
    }  # fmt: skip
    query = None if is_text else query_vector(client, *queries)
    if query is None:
        return answer
    answer["whole_cosine"] = whole = whole_cosine(client, image_id, query)
    part = stored_part(client, fields, query)
    if part is None:
        try:
            part = computed_part(client, encoder, read(image_id), query)
        except (ImageMissing, ReadError) as error:
            answer["notes"] = [f"Its parts were not compared: {error}"]
    if part is not None and part.cosine > whole:
        answer |= {"box": list(part.box), "box_cosine": part.cosine}
    return answer
