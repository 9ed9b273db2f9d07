"""Regions: the tiles of a picture that get vectors of their own, so that a crop is found.

A vector of a whole picture is made of everything in it; a part that fills a quarter of it may have
a rather different one.  The vector of a tile as large as that part is near to the part's own, which
is why grids of tiles are an old remedy in instance retrieval (Razavian et al. 2014, *CNN Features
off-the-shelf*; Tolias, Sicre and Jégou 2016, R-MAC).

Pure functions: boxes are worked out here, cut in `read`, embedded in `stages`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from es_imgsearch.errors import UsageError
from es_imgsearch.records import Box

REGIONS_FIELD = "regions"
REGION_VECTOR = "regions.embedding"
DEFAULT_GRID = "2x2+centre"

# Each region is stored, indexed and embedded like a picture of its own.
MOST_REGIONS = 16
# A tile smaller than this shows nothing that a crop could be recognised by.
LEAST_SIDE_PIXELS = 16

_CENTRE = "+centre"
_GRID = re.compile(r"([1-9])x([1-9])(\+centre)?")


@dataclass(frozen=True, slots=True)
class Grid:
    """How a picture is cut: `columns` x `rows` tiles, and one of their size in the middle."""

    columns: int
    rows: int
    has_centre: bool = False

    @classmethod
    def parse(cls, text: str) -> Grid:
        """A grid written like ``2x2+centre`` or ``3x3``.  Raises UsageError."""
        match = _GRID.fullmatch(text)
        grid = match and cls(int(match[1]), int(match[2]), match[3] is not None)
        if not grid or not 2 <= grid.count <= MOST_REGIONS:
            raise UsageError(
                f"Regions are a grid of 2 to {MOST_REGIONS} tiles, such as {DEFAULT_GRID} or 3x3,"
                f" not {text!r}."
            )
        return grid

    def __str__(self) -> str:
        return f"{self.columns}x{self.rows}{_CENTRE if self.has_centre else ''}"

    @property
    def count(self) -> int:
        """How many tiles a picture has, at most."""
        return self.columns * self.rows + self.has_centre

    def to_body(self) -> dict[str, Any]:
        """As it stands in `_meta`."""
        return {"grid": str(self)}

    @classmethod
    def from_body(cls, body: Mapping[str, Any] | None) -> Grid | None:
        """Raises KeyError, TypeError or ValueError for what is not one."""
        try:
            return None if body is None else cls.parse(body["grid"])
        except UsageError as error:
            raise ValueError(str(error)) from None

    def boxes(self, width: int, height: int) -> list[Box]:
        """Boxes (x, y, width, height), row by row, then the middle; none of a picture too small.

        The tiles cover every pixel once: their edges are rounded, not their sizes.
        """
        if min(width // self.columns, height // self.rows) < LEAST_SIDE_PIXELS:
            return []
        across = [round(n * width / self.columns) for n in range(self.columns + 1)]
        down = [round(n * height / self.rows) for n in range(self.rows + 1)]
        boxes = [
            (left, top, right - left, bottom - top)
            for top, bottom in pairwise(down)
            for left, right in pairwise(across)
        ]
        if self.has_centre:
            wide, high = width // self.columns, height // self.rows
            middle = ((width - wide) // 2, (height - high) // 2, wide, high)
            boxes += [middle] if middle not in boxes else []
        return boxes
