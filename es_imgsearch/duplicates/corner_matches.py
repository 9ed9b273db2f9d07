"""Stored pictures compared corner by corner, as far as their files are on this host."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from es_imgsearch.duplicates.groups import Stored
from es_imgsearch.duplicates.local_features import Corners, agreeing, corners
from es_imgsearch.errors import LibraryMissing, ReadError
from es_imgsearch.mapping import Meta
from es_imgsearch.pictures.decoding import decode
from es_imgsearch.records import FileState, disk_path

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
