"""The vectors a picture is stored with, by the names that `weights` calls them.

Each part has a field of the index and its own way from a query to a vector; a new one is a line
in `PARTS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from es_imgsearch.errors import UsageError
from es_imgsearch.mapping import VECTOR_FIELD
from es_imgsearch.search.asked import Vector

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True)
class VectorPart:
    """One vector field; without `of_picture` its vectors are the encoder's, of texts too."""

    name: str
    field: str
    of_picture: Callable[[Image.Image], Vector] | None = None


def _colours(image: Image.Image) -> Vector:
    from es_imgsearch.describe.layout import colour_vector

    return colour_vector(image)


CONTENT: Final = VectorPart("content", VECTOR_FIELD)
PARTS: Final = {
    part.name: part for part in (CONTENT, VectorPart("colour", "colour_embedding", _colours))
}


def weighted_parts(
    weights: Mapping[str, float] | None, properties: Mapping[str, Any], index: str
) -> list[tuple[VectorPart, float]]:
    """The parts to search by with their weights, which sum to 1; by default the content alone.

    A weight of 0 leaves a part out.  Raises UsageError for a part that there is not, that the
    index has no field for, or a weight that cannot be one.
    """
    if weights is None:
        return [(CONTENT, 1.0)]
    chosen = []
    for name, weight in weights.items():
        part = PARTS.get(name)
        if part is None:
            raise UsageError(
                f"There is no part {name!r} to weigh; there are {', '.join(sorted(PARTS))}."
            )
        try:
            number = float(weight)
        except (TypeError, ValueError):
            number = math.nan
        if not (math.isfinite(number) and number >= 0):
            raise UsageError(f"The weight of {name!r} must be a number from 0 on, not {weight!r}.")
        if number > 0 and part.field not in properties:
            raise UsageError(
                f"Index {index!r} has no field {part.field!r}, by which {name!r} is compared: add"
                f" it with `es-imgsearch init --index {index}`, then store the pictures anew."
            )
        if number > 0:
            chosen.append((part, number))
    if not chosen:
        raise UsageError("No part has a weight above 0: such as content=0.7, colour=0.3.")
    total = sum(number for _, number in chosen)
    return [(part, number / total) for part, number in chosen]
