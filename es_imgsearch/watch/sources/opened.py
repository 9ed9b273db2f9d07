"""Look at and open a file by its absolute path or URL."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path

from es_imgsearch.records import is_url
from es_imgsearch.watch.sources.protocol import OpenedFile
from es_imgsearch.watch.sources.registry import source_of, split_url


def status_at(path: str | Path) -> os.stat_result:
    """Return the status of a file, as `os.stat`, which a path of a file system gets.

    Raises OSError.
    """
    if not is_url(path):
        return os.stat(path)
    bucket, key = split_url(os.fspath(path))
    return source_of(bucket).status(key)


def opened_at(path: str | Path, *, only_bytes: int = 0) -> AbstractContextManager[OpenedFile]:
    """Open the file of a URL, see `Source.open`.  Raises OSError."""
    bucket, key = split_url(os.fspath(path))
    return source_of(bucket).open(key, only_bytes=only_bytes)


def is_readable(path: str | Path) -> bool:
    """Return False for a file that this user may not read; True for a URL."""
    return is_url(path) or os.access(path, os.R_OK)
