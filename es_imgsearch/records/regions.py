"""Regions: tiles of a picture with vectors of their own, so that a crop is found.

A part that fills a quarter of a picture is closer to the vector of a tile of that size than to
that of the whole: instance retrieval uses grids of tiles (Razavian et al. 2014, *CNN Features
off-the-shelf*; Tolias, Sicre and Jégou 2016, R-MAC).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from es_imgsearch.errors import UsageError

# x, y, width, height in pixels of the upright picture.
Box = tuple[int, int, int, int]

REGIONS_FIELD = "regions"
REGION_VECTOR = "regions.embedding"
DEFAULT_GRID = "2x2+centre"

# Each region is stored, indexed and embedded like a picture of its own.
MAX_REGIONS = 16
# A smaller tile shows too little to recognise a crop by.
MIN_TILE_PIXELS = 16

_CENTRE = "+centre"
_GRID = re.compile(r"([1-9])x([1-9])(\+centre)?")


@dataclass(frozen=True, slots=True)
class Grid:
    """A grid of `columns` x `rows` tiles, and perhaps one of their size in the middle."""

    columns: int
    rows: int
    has_centre: bool = False

    @classmethod
    def parse(cls, text: str) -> Grid:
        """Parse text like ``2x2+centre`` or ``3x3``.  Raises UsageError."""
        match = _GRID.fullmatch(text)
        grid = match and cls(int(match[1]), int(match[2]), match[3] is not None)
        if not grid or not 2 <= grid.count <= MAX_REGIONS:
            raise UsageError(
                f"Regions are a grid of 2 to {MAX_REGIONS} tiles, such as {DEFAULT_GRID} or 3x3,"
                f" not {text!r}."
            )
        return grid

    def __str__(self) -> str:
        return f"{self.columns}x{self.rows}{_CENTRE if self.has_centre else ''}"

    @property
    def count(self) -> int:
        """The largest number of tiles of a picture."""
        return self.columns * self.rows + self.has_centre

    def to_body(self) -> dict[str, Any]:
        """Return the grid's entry in `_meta`."""
        return {"grid": str(self)}

    @classmethod
    def from_body(cls, body: Mapping[str, Any] | None) -> Grid | None:
        """Read an entry of `_meta`; KeyError, TypeError or ValueError if it is invalid."""
        try:
            return None if body is None else cls.parse(body["grid"])
        except UsageError as error:
            raise ValueError(str(error)) from None

    def boxes(self, width: int, height: int) -> list[Box]:
        """Return boxes (x, y, width, height) row by row, then the middle one.

        There are none if the picture is too small.  The grid covers every pixel once: edges are
        rounded, not sizes.
        """
        if min(width // self.columns, height // self.rows) < MIN_TILE_PIXELS:
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
