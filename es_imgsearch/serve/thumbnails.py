"""Look up originals by id and make thumbnails of them, cached on disk."""

from __future__ import annotations

import io
import posixpath
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import platformdirs
from PIL import Image

from es_imgsearch.elastic.meta import is_open_on
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import ImageMissing, ReadError
from es_imgsearch.read.file import Skipped, hash_file
from es_imgsearch.read.preparation import Preparation
from es_imgsearch.read.workers import ReadPlan, ReadWorkers
from es_imgsearch.records import FileState, Picture, disk_path, path_of
from es_imgsearch.serve.disk_cache import KEY, DiskCache
from es_imgsearch.settings import Settings

_JPEG_QUALITY: Final = 85
# Longer side of what a page shows large: a screen's width, and some 300 kB.
PREVIEW_PIXELS: Final = 1600
# Failures of files that can be read: thumbnails show which they are.
READABLE_FAILURES: Final = frozenset({"embed_failed", "unstored", "rejected"})


@dataclass(frozen=True, slots=True)
class Original:
    """Path of a stored picture on this machine, and its content when it was stored.

    An imported picture has neither format nor state.
    """

    path: Path
    name: str
    content_id: str
    format: str
    state: FileState | None

    def is_current(self, state: FileState) -> bool:
        """Return False if the file, in this state now, has other content than was stored."""
        if self.state is None or self.state == state:
            return True
        if self.state.size_bytes != state.size_bytes:
            return False
        # Touched, or copied anew.
        with suppress(OSError):
            return hash_file(str(self.path), only_in=state) == self.content_id
        return False


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """JPEG; `is_current` is False if the file has changed since it was stored."""

    content: bytes
    content_id: str
    is_current: bool = True


class PictureFiles:
    """Look up pictures; make thumbnails in worker processes: originals may be hostile."""

    def __init__(self, store: Store, settings: Settings, folder: Path | None = None) -> None:
        self._store = store
        self._host = settings.host
        self._side = settings.thumbnail_pixels
        cache_dir = settings.cache_dir or platformdirs.user_cache_path("es-imgsearch")
        folder = folder or cache_dir / "thumbnails"
        self._cache = DiskCache(folder, settings.thumbnail_cache_mb * 1024 * 1024)
        self._workers = ReadWorkers(_plan(settings, self._side), settings.read_workers)
        # One at a time: a preview of 1600 pixels takes a reading process 8 MB more.
        self._preview_workers = ReadWorkers(_plan(settings, PREVIEW_PIXELS), 1)

    def close(self) -> None:
        """End the reading processes."""
        self._workers.close()
        self._preview_workers.close()

    def original(self, image_id: str) -> Original:
        """Find the original; raise ImageMissing if not stored or not on this host."""
        return self._located(image_id, self._store.documents.get(image_id))

    def _located(self, image_id: str, source: Mapping[str, Any]) -> Original:
        root = self._store.info().meta.roots.get(source["root"])
        if root is None or not is_open_on(root, self._host):
            place = "no root" if root is None else f"the host {root['host']!r}"
            raise ImageMissing(
                f"The original of {image_id!r} is on {place}, not here ({self._host!r}): run"
                " `es-imgsearch serve` there."
            )
        relative = disk_path(source["relative_path"])
        if posixpath.isabs(relative) or ".." in relative.split("/"):
            # This program writes no such path: a user who may write to the index must not read
            # this machine's files.
            raise ImageMissing(f"The path of {image_id!r} leads out of its root.")
        path = path_of(disk_path(root["path"])) / relative
        content_id = source.get("content_id", image_id)
        return Original(
            path,
            source["image_name"],
            # It becomes part of a header and of a file's name.
            content_id if KEY.fullmatch(content_id) else image_id,
            str(source.get("format")),
            FileState.stored(source) if "mtime_ns" in source else None,
        )

    def thumbnail(self, image_id: str) -> Thumbnail:
        """Return a thumbnail of at most `thumbnail_pixels` on its longer side.

        Also of a file that could be read, and then failed.

        Raises ImageMissing if there is no original, ReadError if it cannot be read.
        """
        try:
            original = self.original(image_id)
        except ImageMissing:
            failure = self._store.documents.failure(image_id)
            if failure is None or failure["error_class"] not in READABLE_FAILURES:
                raise
            original = self._located(image_id, failure)
        return self._shrunk(image_id, original, self._side, self._workers)

    def preview(self, image_id: str) -> Thumbnail:
        """Return a JPEG of at most 1600 pixels on its longer side; raises as `thumbnail`."""
        original = self.original(image_id)
        return self._shrunk(image_id, original, PREVIEW_PIXELS, self._preview_workers)

    def _shrunk(
        self, image_id: str, original: Original, side: int, workers: ReadWorkers
    ) -> Thumbnail:
        key = f"{original.content_id}-{side}.jpeg"
        if (cached := self._cache.get(key)) is not None:
            return Thumbnail(cached, original.content_id)
        picture = _read(workers, original.path)
        if picture is None:
            raise ImageMissing(f"The original of {image_id!r} is gone or being written.")
        content = _jpeg(picture)
        # Imported pictures have no hash of their content.
        is_current = original.content_id in {picture.content_id, image_id}
        if is_current:
            self._cache.put(key, content)
        return Thumbnail(content, original.content_id, is_current)


def _plan(settings: Settings, side: int) -> ReadPlan:
    preparation = Preparation(side, side, mode="fit", resampling="lanczos")
    return ReadPlan.of(settings, preparation, describers=())


def _read(workers: ReadWorkers, path: Path) -> Picture | None:
    ((_, outcome),) = workers.read_each([str(path)])
    if isinstance(outcome, ReadError):
        raise outcome
    return None if isinstance(outcome, Skipped) else outcome


def _jpeg(picture: Picture) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture.pixels).save(stream, "JPEG", quality=_JPEG_QUALITY)
    return stream.getvalue()
