"""Small files on disk by key, of bounded size together; the ones not asked for longest go first."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

# Making room for one thumbnail at a time would touch the disk at every write.
_KEPT_SHARE = 0.9
_KEY = re.compile(r"[0-9A-Za-z_.-]+")


class DiskCache:
    """Safe to share between threads; several processes may use one folder.

    What another process wrote is found, and counted once this one has read it or starts anew.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = []
        for file in folder.glob("??/*"):
            with suppress(FileNotFoundError):
                status = file.stat()
                found.append((status.st_mtime_ns, file.name, status.st_size))
        # The least recently used first.
        self._sizes = OrderedDict((name, size) for _, name, size in sorted(found))
        self._bytes = sum(self._sizes.values())

    def get(self, key: str) -> bytes | None:
        file = self._file(key)
        try:
            content = file.read_bytes()
            # So that the order outlives this process.
            os.utime(file)
        except OSError:
            return None
        with self._lock:
            self._count(key, len(content))
        return content

    def put(self, key: str, content: bytes) -> None:
        """Keep a file; a disk that refuses it costs nothing but the file."""
        file = self._file(key)
        with suppress(OSError):
            file.parent.mkdir(exist_ok=True, mode=0o700)
            # Another process never sees half of it.
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
                too_many = self._too_many()
            for name in too_many:
                self._file(name).unlink(missing_ok=True)

    def _count(self, key: str, size: int) -> None:
        self._bytes += size - self._sizes.pop(key, 0)
        self._sizes[key] = size

    def _too_many(self) -> list[str]:
        names: list[str] = []
        if self._bytes <= self._max_bytes:
            return names
        while self._sizes and self._bytes > _KEPT_SHARE * self._max_bytes:
            name, size = self._sizes.popitem(last=False)
            self._bytes -= size
            names.append(name)
        return names

    def _file(self, key: str) -> Path:
        if not _KEY.fullmatch(key) or key.startswith("."):
            raise ValueError(f"{key!r} is no key")
        return self._folder / key[:2] / key
