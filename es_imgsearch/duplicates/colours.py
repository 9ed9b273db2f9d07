"""Compare all pictures of few colours, for candidates that hashes miss.

The perceptual hash of a flag saved again as WebP differs in more than 12 bits for four flags in
five, since most of its frequencies are zero and their signs are noise.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

# Copies of flags have 0.986 at least, JPEG of quality 60 of half the size included, and 0.957 if
# they are 5 % darker, too.
MIN_COSINE = 0.95
# Thousands of drawings may have the same colours at the same places.
NEAREST = 10
_ROWS = 512


class ColourTable:
    """Ids and colour vectors of pictures; uses 450 bytes for each."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._colours: list[npt.NDArray[np.float32]] = []

    def add(self, image_id: str, colours: npt.NDArray[np.float32]) -> None:
        self._ids.append(image_id)
        self._colours.append(colours)

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Yield each picture with its ten nearest of at least `MIN_COSINE`."""
        if not self._ids:
            return
        colours = np.stack(self._colours)
        for start in range(0, len(colours), _ROWS):
            cosines = colours[start : start + _ROWS] @ colours.T
            for row, each in enumerate(cosines):
                each[start + row] = -1.0
                near = np.flatnonzero(each >= MIN_COSINE)
                for other in near[np.argsort(-each[near], kind="stable")][:NEAREST]:
                    yield self._ids[start + row], self._ids[other]
