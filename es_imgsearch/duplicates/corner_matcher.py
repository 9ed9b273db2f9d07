"""Compare the corners of indexed pictures whose files are on this host."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from es_imgsearch.duplicates.corners import Corners, count_agreeing, detect_corners
from es_imgsearch.duplicates.groups import IndexedPicture
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.errors import LibraryMissing, ReadError
from es_imgsearch.read.decoding import decode
from es_imgsearch.records import FileState, disk_path

logger = logging.getLogger(__name__)

# 500 corners take 20 kB.
_CACHED_PICTURES = 2000


class CornerMatcher:
    """Compare files of indexed pictures; cache the corners of the last 2,000 (40 MB).

    Files that changed since they were indexed (size or modification time) count as absent, and all
    files if OpenCV is not installed, which `library_is_missing` shows.
    """

    def __init__(self, meta: Meta, host: str, max_pixels: int) -> None:
        self._roots: Mapping[str, Path] = {
            name: Path(disk_path(entry["path"]))
            for name, entry in meta.roots.items()
            if entry["host"] == host
        }
        self._max_pixels = max_pixels
        self._cache: OrderedDict[tuple[str, bool], Corners | None] = OrderedDict()
        self.library_is_missing = False

    def count_agreeing(
        self, one: IndexedPicture, other: IndexedPicture, *, mirrored: bool = False
    ) -> int | None:
        """Count matching corners; None if a file is not on this host, or has changed.

        With `mirrored`, the second picture is compared as its mirror image.
        """
        if one.root not in self._roots or other.root not in self._roots:
            return None
        first = self._corners(one, False)
        second = self._corners(other, mirrored) if first is not None else None
        if first is None or second is None:
            return None
        return count_agreeing(first, second)

    def _corners(self, picture: IndexedPicture, mirrored: bool) -> Corners | None:
        key = picture.image_id, mirrored
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        corners = None if self.library_is_missing else self._read(picture, mirrored)
        self._cache[key] = corners
        if len(self._cache) > _CACHED_PICTURES:
            self._cache.popitem(last=False)
        return corners

    def _read(self, picture: IndexedPicture, mirrored: bool) -> Corners | None:
        path = self._roots[picture.root] / disk_path(picture.relative_path)
        try:
            if FileState.of(os.stat(path)) != picture.state:
                return None
            image = decode(
                path.read_bytes(), max_pixels=self._max_pixels, suffix=path.suffix.lower()
            ).image
            return detect_corners(image, mirrored=mirrored)
        except (OSError, ReadError):
            return None
        except LibraryMissing as error:
            self.library_is_missing = True
            logger.warning("Pictures are compared by hash and embedding only. %s", error)
            return None
