"""Keep small files on disk, or in memory while the disk refuses (LRU)."""

from __future__ import annotations

import errno
import logging
import os
import re
import tempfile
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

KEY: Final = re.compile(r"(?!\.)[0-9A-Za-z_.-]+")
# Share of the cache left by an eviction: evicting file by file would cost a deletion per write.
_EVICT_TO_SHARE = 0.9
# What is kept in memory while the disk refuses: some 2000 thumbnails.
_MEMORY_BYTES: Final = 32 * 1024 * 1024


class _Sizes:
    """Sizes of files, the least recently used first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._bytes = 0

    def count(self, key: str, size: int) -> None:
        """Note that a file was used."""
        self._bytes += size - self._sizes.pop(key, 0)
        self._sizes[key] = size

    def evict(self) -> list[str]:
        """Forget the files that are too many, and return their keys."""
        keys: list[str] = []
        if self._bytes <= self._max_bytes:
            return keys
        while self._sizes and self._bytes > _EVICT_TO_SHARE * self._max_bytes:
            key, size = self._sizes.popitem(last=False)
            self._bytes -= size
            keys.append(key)
        return keys


class DiskCache:
    """Thread-safe LRU cache of small files; several processes may use one folder.

    A file of another process is readable, and counted once this process has read it or restarts.
    While the folder cannot be written, files are kept in memory, which a warning says once.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._on_disk = _Sizes(max_bytes)
        self._in_memory = _Sizes(min(max_bytes, _MEMORY_BYTES))
        self._memory: dict[str, bytes] = {}
        self._is_refused = False
        try:
            self._make_folder()
            files = sorted(_used(file) for file in folder.glob("??/*"))
        except OSError as error:
            self._refused(error)
        else:
            for _, name, size in files:
                self._on_disk.count(name, size)

    def get(self, key: str) -> bytes | None:
        file = self._file(key)
        with self._lock:
            if (kept := self._memory.get(key)) is not None:
                self._in_memory.count(key, len(kept))
                return kept
        try:
            content = file.read_bytes()
            # The times preserve the order of use across restarts.
            with suppress(OSError):
                os.utime(file)
        except OSError:
            return None
        if not content:
            # A full disk or the loss of power left it so.
            return None
        with self._lock:
            self._on_disk.count(key, len(content))
        return content

    def put(self, key: str, content: bytes) -> None:
        """Store a file, in memory if the disk refuses."""
        file = self._file(key)
        try:
            self._write(file, content)
        except OSError as error:
            self._refused(error)
            with self._lock:
                self._memory[key] = content
                self._in_memory.count(key, len(content))
                for evicted in self._in_memory.evict():
                    del self._memory[evicted]
            return
        with self._lock:
            self._is_refused = False
            self._on_disk.count(key, len(content))
            names = self._on_disk.evict()
        for name in names:
            with suppress(OSError):
                self._file(name).unlink()

    def _make_folder(self) -> None:
        if not self._folder.is_absolute():
            # Without a home folder a default is one that is called `~`.
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def _write(self, file: Path, content: bytes) -> None:
        self._make_folder()
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

    def _refused(self, error: OSError) -> None:
        with self._lock:
            is_known, self._is_refused = self._is_refused, True
        if not is_known:
            logger.warning(
                "Thumbnails cannot be kept in %s (%s): they are kept in memory until it can be"
                " written. Set cache_dir (ES_IMGSEARCH_CACHE_DIR) to another folder, or make room.",
                self._folder, error.strerror,
            )  # fmt: skip

    def _file(self, key: str) -> Path:
        if not KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not a valid cache key")
        return self._folder / key[:2] / key


def _used(file: Path) -> tuple[int, str, int]:
    """When a file was last used, its name and its size; a size of 0 if it is gone."""
    try:
        state = file.stat()
    except FileNotFoundError:
        return 0, file.name, 0
    return state.st_mtime_ns, file.name, state.st_size
