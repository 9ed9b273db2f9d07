"""Files by their suffix, and what a reader and a writer of one are."""

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


class Reader(Protocol):
    """A file that is open to be read, a batch of rows at a time."""

    rows: int
    names: Sequence[str]
    """Its columns, in their order."""

    dims: Mapping[str, int]
    """Lengths of the vectors of columns that hold vectors of one length."""

    regions: frozenset[str]
    """The columns whose values are `RegionValues`."""

    origin: Origin | None
    """None where another program wrote the file."""

    def batches(self, names: Sequence[str], size: int) -> Iterator[dict[str, Values]]:
        """These columns, `size` rows at most at once.  Raises FileInvalid."""

    def close(self) -> None: ...


class Writer(Protocol):
    """A file that grows by pages of rows; complete after `close`."""

    def write(self, values: Mapping[str, Values]) -> None: ...

    def close(self) -> None: ...


def open_reader(path: Path) -> Reader:
    """Raises FileInvalid, UsageError for an unknown suffix, LibraryMissing."""
    if not path.is_file():
        raise FileInvalid(f"There is no file {str(path)!r}.")
    if _is_parquet(path):
        from es_imgsearch.files.parquet import ParquetReader

        return ParquetReader(path)
    from es_imgsearch.files.hdf5 import Hdf5Reader

    return Hdf5Reader(path)


def check_writable(path: Path) -> None:
    """Raise what `open_writer` would, before anything is asked of the server."""
    if _is_parquet(path):
        from es_imgsearch.files.parquet import load_pyarrow

        load_pyarrow()
    else:
        from es_imgsearch.files.hdf5 import load_h5py

        load_h5py()
    check_can_replace(path)


def open_writer(path: Path, columns: Sequence[Column], origin: Origin, *, at: Path) -> Writer:
    """A writer of the format that `path` names, into the file `at`."""
    if _is_parquet(path):
        from es_imgsearch.files.parquet import ParquetWriter

        return ParquetWriter(at, columns, origin)
    from es_imgsearch.files.hdf5 import Hdf5Writer

    return Hdf5Writer(at, columns, origin)


def _is_parquet(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix not in FILE_SUFFIXES:
        raise UsageError(f"{str(path)!r} has to end in .parquet or in .h5, which says what it is.")
    return suffix in _PARQUET


# Whether a file can be written, asked before the work that makes its content.


def check_can_write(file: Path) -> None:
    """For a file that is written where it is.

    Raises UsageError where there is no folder for it, where it is a folder, or where this user may
    not write it.
    """
    folder = _folder_of(file)
    _check_access(file, file if file.exists() else folder)


def check_can_replace(file: Path) -> None:
    """For a file that is written beside its place and moved there: its folder has to be writable.

    Raises UsageError as `check_can_write` does.
    """
    _check_access(file, _folder_of(file))


def _folder_of(file: Path) -> Path:
    folder = file.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"There is no folder {str(folder)!r} to write into.")
    if file.is_dir():
        raise UsageError(f"{str(file)!r} is a folder: give a file to write.")
    return folder


def _check_access(file: Path, changed: Path) -> None:
    """`changed` is what this user has to be allowed to write, so that the file can be."""
    if not os.access(changed, os.W_OK):
        why = "" if changed == file else f" into folder {str(changed)!r}"
        raise UsageError(f"{str(file)!r} may not be written{why} by this user: give another file.")
