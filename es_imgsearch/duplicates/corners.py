"""Whether two pictures show the same picture: corners that match, and lie alike.

ORB corners (Rublee et al. 2011, "ORB: an efficient alternative to SIFT or SURF"), matched both
ways with Lowe's ratio test, and a homography that says which matches agree: by RANSAC (Fischler
and Bolles 1981) in the form MAGSAC++ (Barath et al. 2020), which gives up on unrelated pictures
in 0.4 ms where OpenCV's plain RANSAC takes 17.  Needs OpenCV: the extra `duplicates`.
"""

from __future__ import annotations

import logging
import math
import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from es_imgsearch.duplicates.groups import Stored
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.errors import LibraryMissing, ReadError
from es_imgsearch.read.decoding import decode
from es_imgsearch.records import FileState, disk_path

_LONGER_SIDE_PIXELS = 640
_CORNERS = 500
# Small pictures are enlarged, at most so much: ORB describes a corner by 31 x 31 pixels around it.
_LARGEST_ENLARGEMENT = 4.0
# ORB's own 31 would leave a fifth of a picture's width without corners.
_EDGE_PIXELS = 12
# ORB's patch; OpenCV fails where a smaller copy of the picture would have no width at all.
_LEAST_SIDE_PIXELS = 31
# Lowe (2004) has 0.8 for SIFT; ORB's short codes have more chance neighbours.
_RATIO = 0.85
_RANSAC_PIXELS = 4.0
# Four matches make a homography, so fewer prove nothing.
_LEAST_MATCHES = 8
# A picture inside another may be smaller or larger by this much (of area) and no more.
_LARGEST_ZOOM = 36.0
# Rounds of RANSAC; with 25 % of matches right, 99.5 % to meet four right ones.
_ROUNDS = 2000


@dataclass(frozen=True, slots=True)
class Corners:
    """Where the corners of a picture are and how they look.

    `places` has shape (n, 2), pixels of the shrunk picture; `codes` (n, 32), bytes.
    """

    places: npt.NDArray[np.float32]
    codes: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.places)


def corners(image: Image.Image, *, mirrored: bool = False) -> Corners:
    """Up to 500 corners of an upright RGB picture, or of its mirror image.

    About 20 ms for 640 x 480 pixels.  Raises LibraryMissing where OpenCV is not installed.
    """
    cv2 = _opencv()
    grey = _scaled(image).convert("L")
    if mirrored:
        grey = grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if min(grey.size) < _LEAST_SIDE_PIXELS:
        return Corners(np.zeros((0, 2), np.float32), np.zeros((0, 32), np.uint8))
    orb = cv2.ORB_create(nfeatures=_CORNERS, edgeThreshold=_EDGE_PIXELS, fastThreshold=7)
    points, codes = orb.detectAndCompute(np.asarray(grey), None)
    if codes is None:
        return Corners(np.zeros((0, 2), np.float32), np.zeros((0, 32), np.uint8))
    return Corners(np.array([point.pt for point in points], np.float32), codes)


def agreeing(one: Corners, other: Corners) -> int:
    """How many corners of two pictures match and lie alike under one homography.

    0 where none could turn one picture into the other.  No two unrelated pictures of
    benchmarks/same_picture.py have 8 or more.
    """
    if min(len(one), len(other)) < _LEAST_MATCHES:
        return 0
    cv2 = _opencv()
    pairs = _matched(cv2, one, other)
    if len(pairs) < _LEAST_MATCHES:
        return 0
    here, there = one.places[pairs[:, 0]], other.places[pairs[:, 1]]
    # Its random numbers begin alike each time: the same pictures give the same answer.
    matrix, mask = cv2.findHomography(
        here, there, cv2.USAC_MAGSAC, _RANSAC_PIXELS, maxIters=_ROUNDS, confidence=0.995
    )
    if matrix is None or not _is_plausible(matrix, here[mask.ravel() > 0]):
        return 0
    inside = mask.ravel() > 0
    # Corners that lie on top of each other count once: a letter or a star is no evidence.
    return min(_spots(here[inside]), _spots(there[inside]))


def _matched(cv2: Any, one: Corners, other: Corners) -> npt.NDArray[np.intp]:
    matcher = cv2.BFMatcher(cv2.NORM_HAMMING)
    back = {match.queryIdx: match.trainIdx for match in matcher.match(other.codes, one.codes)}
    pairs = [
        (best.queryIdx, best.trainIdx)
        for best, second in matcher.knnMatch(one.codes, other.codes, k=2)
        if best.distance < _RATIO * second.distance and back[best.trainIdx] == best.queryIdx
    ]
    return np.array(pairs, dtype=np.intp).reshape(-1, 2)


def _is_plausible(matrix: npt.NDArray[np.float64], places: npt.NDArray[np.float32]) -> bool:
    """Whether a camera could have seen it so: no mirror image, nothing folded, no needle."""
    if len(places) < 4:
        return False
    for x, y in (places.min(axis=0), places.mean(axis=0), places.max(axis=0)):
        depth = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2]
        # The Jacobian determinant of a homography: how much larger the picture becomes here.
        zoom = np.linalg.det(matrix) / depth**3 if depth else math.inf
        if not 1 / _LARGEST_ZOOM < zoom < _LARGEST_ZOOM:
            return False
    return True


def _spots(places: npt.NDArray[np.float32]) -> int:
    return len(np.unique((places // _RANSAC_PIXELS).astype(np.int32), axis=0))


def _scaled(image: Image.Image) -> Image.Image:
    scale = min(_LONGER_SIDE_PIXELS / max(image.size), _LARGEST_ENLARGEMENT)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)


def check_library() -> None:
    """Raise LibraryMissing where OpenCV is not installed."""
    _opencv()


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise LibraryMissing(
            "Comparing pictures corner by corner needs OpenCV, which is not installed:"
            " pip install 'es-imgsearch[duplicates]'."
        ) from error
    return cv2


# Stored pictures compared corner by corner, as far as their files are on this host.

logger = logging.getLogger(__name__)

# Of 500 corners, 20 kB a picture.
_KEPT_PICTURES = 2000


class CornerMatches:
    """Compares the files of stored pictures; keeps the corners of the last 2,000 (40 MB).

    A file that is not what was indexed (another size or modification time) counts as absent,
    and so does every file where OpenCV is not installed: `library_is_missing` tells.
    """

    def __init__(self, meta: Meta, host: str, max_pixels: int) -> None:
        self._roots: Mapping[str, Path] = {
            name: Path(disk_path(entry["path"]))
            for name, entry in meta.roots.items()
            if entry["host"] == host
        }
        self._max_pixels = max_pixels
        self._kept: OrderedDict[tuple[str, bool], Corners | None] = OrderedDict()
        self.library_is_missing = False

    def agreeing_corners(self, one: Stored, other: Stored, *, mirrored: bool = False) -> int | None:
        """Corners of both that match and lie alike; None where a file is not here.

        With `mirrored` the second is compared as its mirror image.
        """
        if one.root not in self._roots or other.root not in self._roots:
            return None
        first = self._corners(one, False)
        second = self._corners(other, mirrored) if first is not None else None
        if first is None or second is None:
            return None
        return agreeing(first, second)

    def _corners(self, picture: Stored, mirrored: bool) -> Corners | None:
        key = picture.image_id, mirrored
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        found = None if self.library_is_missing else self._read(picture, mirrored)
        self._kept[key] = found
        if len(self._kept) > _KEPT_PICTURES:
            self._kept.popitem(last=False)
        return found

    def _read(self, picture: Stored, mirrored: bool) -> Corners | None:
        path = self._roots[picture.root] / disk_path(picture.relative_path)
        try:
            if FileState.of(os.stat(path)) != picture.state:
                return None
            image = decode(
                path.read_bytes(), max_pixels=self._max_pixels, suffix=path.suffix.lower()
            ).image
            return corners(image, mirrored=mirrored)
        except (OSError, ReadError):
            return None
        except LibraryMissing as error:
            self.library_is_missing = True
            logger.warning("Hashes and embeddings decide alone. %s", error)
            return None
