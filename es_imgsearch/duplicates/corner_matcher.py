"""Compare the corners of indexed pictures whose files are on this host."""

from __future__ import annotations

from es_imgsearch.duplicates.corners import Corners, count_agreeing, detect_corners
from es_imgsearch.duplicates.groups import IndexedPicture
from es_imgsearch.duplicates.originals import OriginalFiles, RecentlyUsed

# 500 corners take 20 kB.
_CACHED_PICTURES = 2000


class CornerMatcher:
    """Compare files of indexed pictures; cache the corners of the last 2,000 (40 MB).

    Raises LibraryMissing if OpenCV is not installed.
    """

    def __init__(self, originals: OriginalFiles) -> None:
        self._originals = originals
        self._cache: RecentlyUsed[tuple[str, bool], Corners | None] = RecentlyUsed(_CACHED_PICTURES)

    def count_agreeing(
        self, one: IndexedPicture, other: IndexedPicture, *, mirrored: bool = False
    ) -> int | None:
        """Count matching corners; None if a file is not on this host, or has changed.

        With `mirrored`, the second picture is compared as its mirror image.
        """
        first = self._corners(one, False)
        second = self._corners(other, mirrored) if first is not None else None
        if first is None or second is None:
            return None
        return count_agreeing(first, second)

    def _corners(self, picture: IndexedPicture, mirrored: bool) -> Corners | None:
        def detect() -> Corners | None:
            image = self._originals.read(picture)
            return None if image is None else detect_corners(image, mirrored=mirrored)

        return self._cache.get_or((picture.image_id, mirrored), detect)
