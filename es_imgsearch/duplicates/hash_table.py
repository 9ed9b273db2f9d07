"""The perceptual hashes of a whole index, each compared with each.

Exact, and 50,000 pictures take 20 s of one core.  Asking Elasticsearch for the neighbours of each,
in every turn, takes 280 s with a graph over the hashes (0.8 ms a search, in batches), which
besides hides equal hashes from each other, and more without one (12 ms).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from es_imgsearch.duplicates.turned_hashes import ALL_TURNS, Turn, turned_hashes

# A tile of 64-bit numbers that stays in a core's cache: 1 MB.
_TILE_ROWS = 64
_TILE_COLUMNS = 2048


class HashPair(NamedTuple):
    """Two pictures whose hashes differ in `distance` bits once the first is turned."""

    one: str
    other: str
    distance: int
    turn: Turn


class HashTable:
    """Ids and 64-bit hashes, 24 bytes of numbers and an id a picture."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._hashes: list[int] = []

    def add(self, image_id: str, perceptual_hash: int) -> None:
        self._ids.append(image_id)
        self._hashes.append(perceptual_hash)

    def __len__(self) -> int:
        return len(self._ids)

    def pairs(self, radius: int) -> Iterator[HashPair]:
        """Every pair within `radius` bits, upright or turned, each turn of a pair once.

        The time grows with the square of the number of pictures: 20 s of one core for 50,000.
        """
        hashes = np.array(self._hashes, np.uint64)
        for turn in ALL_TURNS:
            turned = turned_hashes(hashes, turn)
            for one, other, distance in _near(turned, hashes, radius):
                yield HashPair(self._ids[one], self._ids[other], distance, turn)


def _near(
    turned: npt.NDArray[np.uint64], hashes: npt.NDArray[np.uint64], radius: int
) -> Iterator[tuple[int, int, int]]:
    """Row, column (later than the row) and distance of what is within the radius.

    Earlier columns are left out: a turn and its inverse are both asked for, and the first
    picture turned is as far from the second as the first from the second turned back.
    """
    for top in range(0, len(hashes), _TILE_ROWS):
        rows = turned[top : top + _TILE_ROWS, None]
        for left in range(top, len(hashes), _TILE_COLUMNS):
            distances = np.bitwise_count(rows ^ hashes[None, left : left + _TILE_COLUMNS])
            for place in np.flatnonzero(distances <= radius):
                row, column = divmod(int(place), distances.shape[1])
                if left + column > top + row:
                    yield top + row, left + column, int(distances[row, column])
