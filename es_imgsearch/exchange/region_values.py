"""Regions as files hold them: those of all rows in one row, and where each row's begin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from es_imgsearch.queries import vector_of
from es_imgsearch.records import Region
from es_imgsearch.region_queries import box_of, region_hits
from es_imgsearch.regions import REGION_VECTOR

# A region's parts have the names that they have in the field `regions`.
BOX, EMBEDDING = "box", "embedding"


@dataclass(frozen=True, slots=True)
class RegionValues:
    """The regions of some rows; those of row n are offsets[n] to offsets[n + 1].

    `offsets` is int64 of shape (rows + 1,) and begins with 0.  `boxes` (x, y, width, height, in
    pixels) has shape (regions, 4), `vectors` is float32 of shape (regions, dims); either is a list
    where the file does not promise that all have one length.
    """

    offsets: npt.NDArray[np.int64]
    boxes: npt.NDArray[Any] | list[Any]
    vectors: npt.NDArray[np.float32] | list[Any]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> list[Region]:
        return [
            Region((int(x), int(y), int(width), int(height)), self.vectors[n])
            for n in range(self.offsets[row], self.offsets[row + 1])
            for x, y, width, height in [self.boxes[n]]
        ]

    def __iter__(self) -> Iterator[list[Region]]:
        return (self[row] for row in range(len(self)))

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """How many regions each row has."""
        return np.diff(self.offsets)


def offsets_of(counts: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


def regions_of(hits: Sequence[Mapping[str, Any]], dims: int) -> RegionValues:
    """Those that the hits came with; one that has lost its vector is of no use."""
    found = [
        [each for each in region_hits(hit) if REGION_VECTOR in each.get("fields", {})]
        for hit in hits
    ]
    flat = list(chain.from_iterable(found))
    return RegionValues(
        offsets_of([len(each) for each in found]),
        np.array([box_of(each) for each in flat], np.int32).reshape(-1, 4),
        np.array([vector_of(each["fields"][REGION_VECTOR]) for each in flat], np.float32).reshape(
            -1, dims
        ),
    )
