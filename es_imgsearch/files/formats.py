"""Open vector files by suffix; interfaces of their readers and writers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from es_imgsearch.errors import FileInvalid, UsageError
from es_imgsearch.files.columns import Column, Origin, Values

_PARQUET = {".parquet", ".pq"}
_HDF5 = {".h5", ".hdf5"}
FILE_SUFFIXES = _PARQUET | _HDF5


class FileReader(Protocol):
    """Open file that yields batches of rows."""

    rows: int
    names: Sequence[str]
    """Column names in file order."""

    dims: Mapping[str, int]
    """Vector length of each column whose vectors all have one length."""

    regions: frozenset[str]
    """Columns whose values are `RegionValues`."""

    origin: Origin | None
    """None if another program wrote the file."""

    def batches(self, names: Sequence[str], size: int) -> Iterator[dict[str, Values]]:
        """Yield these columns in batches of at most `size` rows; raise FileInvalid."""

    def close(self) -> None: ...


class FileWriter(Protocol):
    """Open file that takes pages of rows; complete after `close`."""

    def write(self, values: Mapping[str, Values]) -> None: ...

    def close(self) -> None: ...


def open_reader(path: Path) -> FileReader:
    """Open a file to read.

    Raises FileInvalid, LibraryMissing, UsageError for an unknown suffix.
    """
    if not path.is_file():
        raise FileInvalid(f"There is no file {str(path)!r}.")
    if _is_parquet(path):
        from es_imgsearch.files.parquet import ParquetReader

        return ParquetReader(path)
    from es_imgsearch.files.hdf5 import Hdf5Reader

    return Hdf5Reader(path)


def check_writable(path: Path) -> None:
    """Raise the errors of `open_writer` early, before the first request to the server."""
    if _is_parquet(path):
        from es_imgsearch.files.parquet import load_pyarrow

        load_pyarrow()
    else:
        from es_imgsearch.files.hdf5 import load_h5py

        load_h5py()
    check_can_replace(path)


def open_writer(path: Path, columns: Sequence[Column], origin: Origin, *, at: Path) -> FileWriter:
    """Open a writer into the file `at`, in the format of the suffix of `path`."""
    if _is_parquet(path):
        from es_imgsearch.files.parquet import ParquetWriter

        return ParquetWriter(at, columns, origin)
    from es_imgsearch.files.hdf5 import Hdf5Writer

    return Hdf5Writer(at, columns, origin)


def _is_parquet(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix not in FILE_SUFFIXES:
        raise UsageError(
            f"{str(path)!r} has to end in .parquet or in .h5: the suffix selects the format."
        )
    return suffix in _PARQUET


def check_can_write(file: Path) -> None:
    """Check, before the work on its content, that a file can be written in place.

    Raises UsageError if its folder is missing, if it is a folder itself, or if this user may not
    write it.
    """
    folder = _parent_folder(file)
    _check_access(file, file if file.exists() else folder)


def check_can_replace(file: Path) -> None:
    """Check that a file can be replaced by rename, which needs a writable folder.

    Raises UsageError as `check_can_write` does.
    """
    _check_access(file, _parent_folder(file))


def _parent_folder(file: Path) -> Path:
    folder = file.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"There is no folder {str(folder)!r} to write into.")
    if file.is_dir():
        raise UsageError(f"{str(file)!r} is a folder: give a file to write.")
    return folder


def _check_access(file: Path, changed: Path) -> None:
    """Raise UsageError unless this user may write `changed`: the file or its folder."""
    if not os.access(changed, os.W_OK):
        why = "" if changed == file else f" into folder {str(changed)!r}"
        raise UsageError(f"{str(file)!r} may not be written{why} by this user: give another file.")
