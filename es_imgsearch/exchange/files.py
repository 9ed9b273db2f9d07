"""Files by their suffix, and what a reader and a writer of one are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from es_imgsearch.errors import ExchangeFileInvalid, UsageError
from es_imgsearch.exchange.columns import Column, Origin, Values
from es_imgsearch.output_file import check_can_replace

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
        """These columns, `size` rows at most at once.  Raises ExchangeFileInvalid."""

    def close(self) -> None: ...


class Writer(Protocol):
    """A file that grows by pages of rows; complete after `close`."""

    def write(self, values: Mapping[str, Values]) -> None: ...

    def close(self) -> None: ...


def open_reader(path: Path) -> Reader:
    """Raises ExchangeFileInvalid, UsageError for an unknown suffix, LibraryMissing."""
    if not path.is_file():
        raise ExchangeFileInvalid(f"There is no file {str(path)!r}.")
    if _is_parquet(path):
        from es_imgsearch.exchange.parquet import ParquetReader

        return ParquetReader(path)
    from es_imgsearch.exchange.hdf5 import Hdf5Reader

    return Hdf5Reader(path)


def check_writable(path: Path) -> None:
    """Raise what `open_writer` would, before anything is asked of the server."""
    if _is_parquet(path):
        from es_imgsearch.exchange.parquet import load_pyarrow

        load_pyarrow()
    else:
        from es_imgsearch.exchange.hdf5 import load_h5py

        load_h5py()
    check_can_replace(path)


def open_writer(path: Path, columns: Sequence[Column], origin: Origin, *, at: Path) -> Writer:
    """A writer of the format that `path` names, into the file `at`."""
    if _is_parquet(path):
        from es_imgsearch.exchange.parquet import ParquetWriter

        return ParquetWriter(at, columns, origin)
    from es_imgsearch.exchange.hdf5 import Hdf5Writer

    return Hdf5Writer(at, columns, origin)


def _is_parquet(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix not in FILE_SUFFIXES:
        raise UsageError(f"{str(path)!r} has to end in .parquet or in .h5, which says what it is.")
    return suffix in _PARQUET
