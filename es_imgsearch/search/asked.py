"""What is searched for: texts, pictures, vectors and stored pictures, each with a weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from es_imgsearch.errors import ImageMissing, UsageError
from es_imgsearch.records import is_text
from es_imgsearch.search.query_picture import QueryPicture

Vector = npt.NDArray[np.float32]

# Equal to rounding: nothing is left of the query.
_NOTHING = 1e-6


@dataclass(frozen=True, slots=True)
class StoredPicture:
    """A picture of the index as a query: its stored vectors are used, and no model."""

    image_id: str

    def __post_init__(self) -> None:
        if not isinstance(self.image_id, str) or not self.image_id or not is_text(self.image_id):
            raise ImageMissing(f"No picture has the image_id {self.image_id!r}.")


Query: TypeAlias = str | QueryPicture | StoredPicture
Weighted: TypeAlias = Query | tuple[Query, float]
Queries: TypeAlias = Weighted | Sequence[Weighted]

_ONE = (str, PathLike, bytes, bytearray, memoryview, Image.Image, np.ndarray, StoredPicture)


class Term(NamedTuple):
    """One query and how much it counts, less than nothing where the search goes away from it."""

    query: Query
    weight: float


def terms_of(positive: Queries, negative: Queries) -> Sequence[Term]:
    """Every query with its signed weight, 1 where none was given.

    Raises UsageError where there is nothing to search for or a weight is not above 0.
    """
    wanted = [_term(each, 1.0) for each in _listed(positive)]
    if not wanted:
        raise UsageError("There is nothing to search for: give words or a picture.")
    return [*wanted, *(_term(each, -1.0) for each in _listed(negative))]


def texts_of(terms: Sequence[Term]) -> list[Term]:
    """Those terms that are words, stripped.  Raises UsageError for one that cannot be read."""
    texts = [Term(each.query.strip(), each.weight) for each in terms if isinstance(each.query, str)]
    for text, _ in texts:
        if not text:
            raise UsageError("The text to search for is empty.")
        if not is_text(str(text)):
            raise UsageError("The text to search for is not valid Unicode.")
    return texts


def is_vector(query: Query) -> bool:
    """Whether it is an array of one axis: a vector of the index's encoder, made elsewhere."""
    return isinstance(query, np.ndarray) and query.ndim == 1


def picture_of(query: Query) -> QueryPicture | None:
    """The query where it is a picture to be opened, else None."""
    if isinstance(query, (str, StoredPicture)) or is_vector(query):
        return None
    return query


def given_vector(query: Any, dims: int) -> Vector:
    """A vector given as the query, at unit length.  Raises UsageError."""
    if query.shape != (dims,):
        raise UsageError(
            f"A vector to search for must have the index's {dims} dims, not {len(query)}; a"
            " picture is an array of two or three axes."
        )
    if query.dtype.kind not in "fiu" or not np.isfinite(query).all():
        raise UsageError("A vector to search for must be of finite numbers.")
    return _unit(query.astype(np.float32), "The vector to search for has no direction.")


def combined(vectors: Sequence[Vector], weights: Sequence[float]) -> Vector:
    """The weighted sum of unit vectors, of shape (dims,), at unit length.

    What Rocchio 1971 does to a query with documents that are wanted and documents that are not.
    """
    if len(vectors) == 1 and weights[0] > 0:
        return vectors[0]
    total: Vector = np.asarray(weights, dtype=np.float32) @ np.stack(vectors)
    return _unit(total, "The negative queries cancel the positive ones: nothing is left.")


def _unit(vector: Vector, otherwise: str) -> Vector:
    length = math.sqrt(float(vector @ vector))
    if length < _NOTHING:
        raise UsageError(otherwise)
    found: Vector = vector / np.float32(length)
    return found


def _listed(asked: Any) -> list[Any]:
    """One query is a list of one: a string would be a list of letters, an array of rows."""
    return [asked] if isinstance(asked, _ONE) or _is_pair(asked) else list(asked)


def _is_pair(asked: Any) -> bool:
    return (
        isinstance(asked, tuple)
        and len(asked) == 2
        and isinstance(asked[0], _ONE)
        and isinstance(asked[1], (int, float, np.number))
        and not isinstance(asked[1], bool)
    )


def _term(asked: Any, sign: float) -> Term:
    query, weight = asked if _is_pair(asked) else (asked, 1.0)
    weight = float(weight)
    if not (math.isfinite(weight) and weight > 0):
        raise UsageError(f"The weight of a query must be above 0, not {weight:g}.")
    return Term(query, sign * weight)
