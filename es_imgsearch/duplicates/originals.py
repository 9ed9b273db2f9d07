"""Read unchanged originals of indexed pictures on this host; compare their pixels."""

from __future__ import annotations

import posixpath
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from PIL import Image

from es_imgsearch.duplicates.groups import IndexedPicture
from es_imgsearch.duplicates.hashes import UPRIGHT, Turn
from es_imgsearch.duplicates.pixels import (
    COARSE_PIXELS,
    FINE_PIXELS,
    Pixels,
    fitted,
    may_be_parts,
    show_the_same,
)
from es_imgsearch.elastic.meta import Meta, is_open_on
from es_imgsearch.errors import ReadError
from es_imgsearch.read.decoding import decode
from es_imgsearch.records import FileState, disk_path, is_url, path_of
from es_imgsearch.watch.sources.opened import opened_at, status_at

# At most 200 kB and 7 MB each.
_COARSE_CACHED, _FINE_CACHED = 500, 16

K = TypeVar("K")
V = TypeVar("V")


class RecentlyUsed(OrderedDict[K, V]):
    """A cache that drops what was not used for longest."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def get_or(self, key: K, make: Callable[[], V]) -> V:
        """Return the cached value, or make and cache it."""
        if key in self:
            self.move_to_end(key)
            return self[key]
        value = self[key] = make()
        if len(self) > self._size:
            self.popitem(last=False)
        return value


class OriginalFiles:
    """The files of indexed pictures, as far as they are on this host."""

    def __init__(self, meta: Meta, host: str, max_pixels: int) -> None:
        self._roots: Mapping[str, Path] = {
            name: path_of(disk_path(entry["path"]))
            for name, entry in meta.roots.items()
            if is_open_on(entry, host)
        }
        self._max_pixels = max_pixels

    def path(self, picture: IndexedPicture) -> Path | None:
        """Return the absolute path; None for a picture of another host."""
        relative = disk_path(picture.relative_path)
        # This program writes no path that leads out of its root: others may write to the index.
        if picture.root not in self._roots or posixpath.isabs(relative):
            return None
        return None if ".." in relative.split("/") else self._roots[picture.root] / relative

    def located(self, picture: IndexedPicture) -> IndexedPicture:
        """Return the picture with its path on this host."""
        return replace(picture, path=self.path(picture))

    def read(self, picture: IndexedPicture) -> Image.Image | None:
        """Decode the file; None if it is not here or unreadable, or has changed."""
        path = self.path(picture)
        try:
            if path is None or FileState.of(status_at(path)) != picture.state:
                return None
            content = _content(path)
            return decode(content, max_pixels=self._max_pixels, suffix=path.suffix.lower()).image
        except (OSError, ReadError):
            return None


def _content(path: Path) -> bytes:
    if not is_url(path):
        return path.read_bytes()
    with opened_at(path) as (content, _status):
        return content.read()


class _FileGone(Exception):
    """A file went away between two readings."""


class PixelMatcher:
    """Compare the pixels of originals; keep the small copies of the last 500 (100 MB)."""

    def __init__(self, originals: OriginalFiles) -> None:
        self._originals = originals
        self._coarse: RecentlyUsed[str, Pixels | None] = RecentlyUsed(_COARSE_CACHED)
        self._fine: RecentlyUsed[str, Image.Image | None] = RecentlyUsed(_FINE_CACHED)

    def show_the_same(
        self, one: IndexedPicture, other: IndexedPicture, turn: Turn = UPRIGHT
    ) -> bool | None:
        """Compare two originals; None if one is not on this host, or has changed."""
        if self._originals.path(one) is None or self._originals.path(other) is None:
            return None
        if not may_be_parts((one.width, one.height), (other.width, other.height), turn):
            return False
        first = self._pixels(one)
        second = self._pixels(other) if first is not None else None
        if first is None or second is None:
            return None
        try:
            return show_the_same(first, second, turn)
        except _FileGone:
            return None

    def _pixels(self, picture: IndexedPicture) -> Pixels | None:
        return self._coarse.get_or(picture.image_id, lambda: self._read(picture))

    def _read(self, picture: IndexedPicture) -> Pixels | None:
        image = self._originals.read(picture)
        if image is None:
            return None
        fine = fitted(image, FINE_PIXELS)
        self._fine.get_or(picture.image_id, lambda: fine)
        coarse = fitted(fine, COARSE_PIXELS)
        return Pixels(coarse, image.size, lambda: self._read_fine(picture))

    def _read_fine(self, picture: IndexedPicture) -> Image.Image:
        def read() -> Image.Image | None:
            image = self._originals.read(picture)
            return None if image is None else fitted(image, FINE_PIXELS)

        fine = self._fine.get_or(picture.image_id, read)
        if fine is None:
            raise _FileGone
        return fine
