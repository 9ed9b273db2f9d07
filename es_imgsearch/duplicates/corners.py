"""Detect corners of pictures, and count those that match under one homography.

ORB corners (Rublee et al. 2011, "ORB: an efficient alternative to SIFT or SURF"), matched in both
directions with Lowe's ratio test; a homography decides which matches agree, by RANSAC (Fischler
and Bolles 1981) in the form MAGSAC++ (Barath et al. 2020), which rejects unrelated pictures in 0.4
ms instead of 17 ms with OpenCV's plain RANSAC.  Needs OpenCV: the extra `duplicates`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from es_imgsearch.errors import LibraryMissing

_LONGER_SIDE_PIXELS = 640
_MAX_CORNERS = 500
# Small pictures are enlarged by this factor at most: ORB describes a corner by 31 x 31 pixels.
_MAX_ENLARGEMENT = 4.0
# ORB's default of 31 would leave a fifth of a picture's width without corners.
_EDGE_PIXELS = 12
# The size of ORB's patch; OpenCV fails on pictures whose scaled copies would have no width.
_MIN_SIDE_PIXELS = 31
# Lowe (2004) uses 0.8 for SIFT; ORB's short codes have more chance matches.
_RATIO = 0.85
_RANSAC_PIXELS = 4.0
# Any four matches fit a homography, so a few more are needed as evidence.
_MIN_MATCHES = 8
# Largest ratio of areas between a picture and its copy inside another.
_MAX_ZOOM = 36.0
# Rounds of RANSAC: with 25 % of matches right, 99.5 % probability of four right ones.
_ROUNDS = 2000


@dataclass(frozen=True, slots=True)
class Corners:
    """Positions and codes of a picture's corners.

    `positions` has shape (n, 2), in pixels of the scaled picture; `codes` (n, 32), bytes.
    """

    positions: npt.NDArray[np.float32]
    codes: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.positions)


def detect_corners(image: Image.Image, *, mirrored: bool = False) -> Corners:
    """Detect up to 500 corners of an upright RGB picture, or of its mirror image.

    Takes about 20 ms for 640 x 480 pixels.  Raises LibraryMissing if OpenCV is not installed.
    """
    cv2 = _opencv()
    grey = _scale(image).convert("L")
    if mirrored:
        grey = grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    no_corners = Corners(np.zeros((0, 2), np.float32), np.zeros((0, 32), np.uint8))
    if min(grey.size) < _MIN_SIDE_PIXELS:
        return no_corners
    orb = cv2.ORB_create(nfeatures=_MAX_CORNERS, edgeThreshold=_EDGE_PIXELS, fastThreshold=7)
    points, codes = orb.detectAndCompute(np.asarray(grey), None)
    if codes is None:
        return no_corners
    return Corners(np.array([point.pt for point in points], np.float32), codes)


def count_agreeing(one: Corners, other: Corners) -> int:
    """Count the corners of two pictures that match under one homography.

    0 if no plausible homography maps one picture to the other.  Unrelated pictures of
    benchmarks/same_picture.py have 7 at most.
    """
    if min(len(one), len(other)) < _MIN_MATCHES:
        return 0
    cv2 = _opencv()
    pairs = _match(cv2, one, other)
    if len(pairs) < _MIN_MATCHES:
        return 0
    source, target = one.positions[pairs[:, 0]], other.positions[pairs[:, 1]]
    # OpenCV seeds its random numbers anew each time: the same pictures give the same result.
    matrix, mask = cv2.findHomography(
        source, target, cv2.USAC_MAGSAC, _RANSAC_PIXELS, maxIters=_ROUNDS, confidence=0.995
    )
    if matrix is None or not _is_plausible(matrix, source[mask.ravel() > 0]):
        return 0
    inside = mask.ravel() > 0
    # Corners at the same position count once: a letter or a star is no evidence.
    return min(_count_positions(source[inside]), _count_positions(target[inside]))


def _match(cv2: Any, one: Corners, other: Corners) -> npt.NDArray[np.intp]:
    matcher = cv2.BFMatcher(cv2.NORM_HAMMING)
    back = {match.queryIdx: match.trainIdx for match in matcher.match(other.codes, one.codes)}
    pairs = [
        (best.queryIdx, best.trainIdx)
        for best, second in matcher.knnMatch(one.codes, other.codes, k=2)
        if best.distance < _RATIO * second.distance and back[best.trainIdx] == best.queryIdx
    ]
    return np.array(pairs, dtype=np.intp).reshape(-1, 2)


def _is_plausible(matrix: npt.NDArray[np.float64], positions: npt.NDArray[np.float32]) -> bool:
    """Return whether a camera could see it so: not mirrored, folded or degenerate."""
    if len(positions) < 4:
        return False
    for x, y in (positions.min(axis=0), positions.mean(axis=0), positions.max(axis=0)):
        depth = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2]
        # The Jacobian determinant of a homography: how much larger the picture becomes here.
        zoom = np.linalg.det(matrix) / depth**3 if depth else math.inf
        if not 1 / _MAX_ZOOM < zoom < _MAX_ZOOM:
            return False
    return True


def _count_positions(positions: npt.NDArray[np.float32]) -> int:
    return len(np.unique((positions // _RANSAC_PIXELS).astype(np.int32), axis=0))


def _scale(image: Image.Image) -> Image.Image:
    scale = min(_LONGER_SIDE_PIXELS / max(image.size), _MAX_ENLARGEMENT)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)


def check_library() -> None:
    """Raise LibraryMissing if OpenCV is not installed."""
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
