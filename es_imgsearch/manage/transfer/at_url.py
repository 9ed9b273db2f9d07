"""Exports in parts at a URL, and files of vectors that are read from one.

    s3://bucket/vectors.parquet/part-00000.parquet, part-00001.parquet, ..., _SUCCESS

Batch jobs write and read such folders.  A part is written on this machine's disk, then put there;
`_SUCCESS` is taken away first and put there last.  An import reads a single file as well, and
parts that others wrote.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from es_imgsearch.errors import FileInvalid, UsageError
from es_imgsearch.files.columns import Column, Origin, Values
from es_imgsearch.files.formats import FileReader, FileWriter, open_reader, open_writer
from es_imgsearch.files.parquet import ParquetReader, load_pyarrow
from es_imgsearch.records import is_url, stored_path
from es_imgsearch.watch.sources.fsspec_source import answered, file_system

_SUFFIXES: Final = (".parquet", ".pq")
_DONE: Final = "_SUCCESS"
# Of a part, of 4 bytes each: 256 MB on the disk.
_PART_FLOATS: Final = 2**26


def check_url(url: str) -> None:
    """Raise UsageError or LibraryMissing unless Parquet can be at this URL."""
    if not url.lower().endswith(_SUFFIXES):
        raise UsageError(f"{url!r} has to end in .parquet: at a URL there is no other format.")
    load_pyarrow()
    file_system(url)


class PartsWriter:
    """`FileWriter` of parts; nothing is complete before `complete`."""

    def __init__(
        self, url: str, columns: Sequence[Column], origin: Origin, *, part_rows: int | None = None
    ) -> None:
        floats = sum(each.floats for each in columns)
        self._part_rows = part_rows or max(1, _PART_FLOATS // max(1, floats))
        self._columns, self._origin = columns, origin
        self._fs, self._path = file_system(url)
        self._folder = tempfile.TemporaryDirectory(prefix="es-imgsearch-")
        self._file = Path(self._folder.name) / "part.parquet"
        self._part: FileWriter | None = None
        self._rows = 0
        self._written: list[str] = []
        done = f"{self._path}/{_DONE}"
        if answered(lambda: self._fs.exists(done)):
            answered(lambda: self._fs.rm_file(done))

    def write(self, values: Mapping[str, Values]) -> None:
        """Write a page; parts end with pages.  Raises OSError."""
        if self._part is None:
            self._part = open_writer(self._file, self._columns, self._origin, at=self._file)
        self._part.write(values)
        self._rows += len(next(iter(values.values())))
        if self._rows >= self._part_rows:
            self._put()

    def complete(self) -> None:
        """Put the last part there, remove parts of an earlier export, mark it as done."""
        if self._part is None and not self._written:
            self._part = open_writer(self._file, self._columns, self._origin, at=self._file)
        if self._part is not None:
            self._put()
        for path in _parts(self._fs, self._path):
            if path.rpartition("/")[2] not in self._written:
                answered(lambda path=path: self._fs.rm_file(path))  # type: ignore[misc]
        answered(lambda: self._fs.pipe_file(f"{self._path}/{_DONE}", b""))

    def close(self) -> None:
        if self._part is not None:
            self._part.close()
        self._folder.cleanup()

    def _put(self) -> None:
        if self._part is not None:
            self._part.close()
        self._part, self._rows = None, 0
        name = f"part-{len(self._written):05}.parquet"
        answered(lambda: self._fs.put_file(str(self._file), f"{self._path}/{name}"))
        self._written.append(name)


class PartsReader:
    """`FileReader` of parts, read one after the other."""

    def __init__(self, fs: Any, paths: Sequence[str], url: str) -> None:
        self._fs, self._paths, self._url = fs, paths, url
        self.rows = 0
        for path in paths:
            with _Opened(fs, path) as part:
                if path == paths[0]:
                    self.names, self.dims = part.names, part.dims
                    self.regions, self.origin = part.regions, part.origin
                elif (part.names, part.dims, part.origin) != (self.names, self.dims, self.origin):
                    raise FileInvalid(
                        f"{url!r} has parts of different exports: {path!r} has other columns or"
                        " vectors than the first. Export it again."
                    )
                self.rows += part.rows

    def batches(self, names: Sequence[str], size: int) -> Iterator[dict[str, Values]]:
        for path in self._paths:
            with _Opened(self._fs, path) as part:
                yield from part.batches(names, size)

    def close(self) -> None:
        """Do nothing: each part is closed when it was read."""


class _Opened:
    """A part that is open in a context."""

    def __init__(self, fs: Any, path: str) -> None:
        self._file = answered(lambda: fs.open(path, "rb"))
        self._reader = ParquetReader(Path(path), self._file)

    def __enter__(self) -> ParquetReader:
        return self._reader

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        self._file.close()


def open_anywhere(path: Path) -> FileReader:
    """Open a file of vectors, or at a URL a file or a folder of parts.

    Raises FileInvalid, LibraryMissing, UsageError.
    """
    if not is_url(path):
        return open_reader(path)
    url = str(path)
    check_url(url)
    fs, place = file_system(url)
    try:
        is_file = bool(answered(lambda: fs.isfile(place)))
        paths = [place] if is_file else _parts(fs, place)
        if not paths:
            raise FileInvalid(f"There is neither a file nor a part at {url!r}.")
        return PartsReader(fs, paths, url)
    except OSError as error:
        raise FileInvalid(f"{url!r} cannot be read ({error.strerror}).") from error


def _parts(fs: Any, folder: str) -> list[str]:
    try:
        found = answered(lambda: fs.find(folder, refresh=True))
    except FileNotFoundError:
        return []
    return sorted(
        each
        for each in map(str, found)
        if each.lower().endswith(_SUFFIXES) and not each.rpartition("/")[2].startswith(("_", "."))
    )


def stored_file(path: Path) -> str:
    """Return the absolute path or the URL of a file as the index stores it."""
    return stored_path(str(path) if is_url(path) else os.path.abspath(path))
