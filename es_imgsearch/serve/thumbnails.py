"""Look up originals by id and make thumbnails of them, cached on disk."""

from __future__ import annotations

import io
import os
import posixpath
import re
import tempfile
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import platformdirs
from PIL import Image

from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import ImageMissing, ReadError
from es_imgsearch.read.file import Skipped
from es_imgsearch.read.preparation import Preparation
from es_imgsearch.read.workers import ReadPlan, ReadWorkers
from es_imgsearch.records import Picture, disk_path
from es_imgsearch.settings import Settings

_JPEG_QUALITY: Final = 85
_SOURCE: Final = ("image_id", "image_name", "root", "relative_path", "content_id")


@dataclass(frozen=True, slots=True)
class Original:
    """Path of a stored picture on this machine, and its content hash when stored."""

    path: Path
    name: str
    content_id: str


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
        folder = folder or platformdirs.user_cache_path("es-imgsearch") / "thumbnails"
        self._cache = DiskCache(folder, settings.thumbnail_cache_mb * 1024 * 1024)
        plan = ReadPlan.of(
            settings,
            Preparation(self._side, self._side, mode="fit", resampling="lanczos"),
            describers=(),
        )
        self._workers = ReadWorkers(plan, settings.read_workers)

    def close(self) -> None:
        """End the reading processes."""
        self._workers.close()

    def original(self, image_id: str) -> Original:
        """Find the original; raise ImageMissing if not stored or not on this host."""
        try:
            source = self._store.documents.get(image_id)
        except ImageMissing:
            raise ImageMissing(f"No picture has the image_id {image_id!r}.") from None
        root = self._store.info().meta.roots.get(source["root"])
        if root is None or root["host"] != self._host:
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
        path = Path(disk_path(root["path"])) / relative
        return Original(path, source["image_name"], source.get("content_id", image_id))

    def thumbnail(self, image_id: str) -> Thumbnail:
        """Return a thumbnail of at most `thumbnail_pixels` on its longer side.

        Raises ImageMissing if there is no original, ReadError if it cannot be read.
        """
        original = self.original(image_id)
        key = f"{original.content_id}-{self._side}.jpeg"
        if (cached := self._cache.get(key)) is not None:
            return Thumbnail(cached, original.content_id)
        picture = self._read(original.path)
        if picture is None:
            raise ImageMissing(f"The original of {image_id!r} is gone or being written.")
        content = _jpeg(picture)
        # Imported pictures have no hash of their content.
        is_current = original.content_id in {picture.content_id, image_id}
        if is_current:
            self._cache.put(key, content)
        return Thumbnail(content, original.content_id, is_current)

    def _read(self, path: Path) -> Picture | None:
        ((_, outcome),) = self._workers.read_each([str(path)])
        if isinstance(outcome, ReadError):
            raise outcome
        return None if isinstance(outcome, Skipped) else outcome


def _jpeg(picture: Picture) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture.pixels).save(stream, "JPEG", quality=_JPEG_QUALITY)
    return stream.getvalue()


# Share of the cache left by an eviction: evicting file by file would cost a deletion per write.
_EVICT_TO_SHARE = 0.9
_KEY = re.compile(r"[0-9A-Za-z_.-]+")


class DiskCache:
    """Thread-safe LRU cache of small files; several processes may use one folder.

    A file of another process is readable, and counted once this process has read it or restarts.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        files = []
        for file in folder.glob("??/*"):
            with suppress(FileNotFoundError):
                status = file.stat()
                files.append((status.st_mtime_ns, file.name, status.st_size))
        # Least recently used first.
        self._sizes = OrderedDict((name, size) for _, name, size in sorted(files))
        self._bytes = sum(self._sizes.values())

    def get(self, key: str) -> bytes | None:
        file = self._file(key)
        try:
            content = file.read_bytes()
            # The times preserve the order of use across restarts.
            os.utime(file)
        except OSError:
            return None
        with self._lock:
            self._count(key, len(content))
        return content

    def put(self, key: str, content: bytes) -> None:
        """Store a file; skip it if the disk refuses."""
        file = self._file(key)
        with suppress(OSError):
            file.parent.mkdir(exist_ok=True, mode=0o700)
            # A rename, so that no process reads a partial file.
            with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as new:
                unfinished = Path(new.name)
                try:
                    new.write(content)
                    new.flush()
                    unfinished.replace(file)
                except OSError:
                    unfinished.unlink(missing_ok=True)
                    raise
            with self._lock:
                self._count(key, len(content))
                evicted = self._evict()
            for name in evicted:
                self._file(name).unlink(missing_ok=True)

    def _count(self, key: str, size: int) -> None:
        self._bytes += size - self._sizes.pop(key, 0)
        self._sizes[key] = size

    def _evict(self) -> list[str]:
        names: list[str] = []
        if self._bytes <= self._max_bytes:
            return names
        while self._sizes and self._bytes > _EVICT_TO_SHARE * self._max_bytes:
            name, size = self._sizes.popitem(last=False)
            self._bytes -= size
            names.append(name)
        return names

    def _file(self, key: str) -> Path:
        if not _KEY.fullmatch(key) or key.startswith("."):
            raise ValueError(f"{key!r} is not a valid cache key")
        return self._folder / key[:2] / key
