"""Read and write HDF5 files of vectors and fields.

The group `fields` holds one dataset per field, the group `present` a dataset of the same name:
which rows have a value.  Lists and maps are JSON text.  Regions are a group of three datasets:
`box` and `embedding` have a row for each region, and row n has the regions offsets[n] to
offsets[n + 1].  A file of another program may have its datasets at the top.
Format: https://docs.hdfgroup.org/; written and read by h5py.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import orjson

from es_imgsearch.errors import FileInvalid, LibraryMissing
from es_imgsearch.files.columns import (
    BOX,
    EMBEDDING,
    METADATA_KEY,
    REST_COLUMN,
    Column,
    ColumnKind,
    Origin,
    RegionValues,
    Values,
)

_T = TypeVar("_T")

_FIELDS, _PRESENT = "fields", "present"
_OFFSETS = "offsets"
_REGION_PARTS = {BOX, EMBEDDING, _OFFSETS}

# A dataset takes at least one chunk on disk, and a file has about 60 datasets.
_CHUNK_BYTES = 2**18
_CELL_CHUNK_ROWS = 1024


def load_h5py() -> Any:
    """Import h5py; raise LibraryMissing."""
    try:
        import h5py
    except ImportError as error:
        raise LibraryMissing("HDF5 files need h5py: pip install 'es-imgsearch[hdf5]'.") from error
    return h5py


class _Target(io.RawIOBase):
    """The file that HDF5 writes to; an error of it is kept and raised by `check`.

    HDF5 (1.14) cannot close a file that a full disk refuses to take, and the process ends with
    SIGSEGV: it is told that everything was written.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self._error: OSError | None = None

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)

    def write(self, content: Any) -> int:
        left = memoryview(content).cast("B")
        size = left.nbytes
        while left and self._error is None:
            # The last bytes that fit are written alone.
            left = left[self._kept(lambda left=left: self._file.write(left), 0) :]
        return size

    def truncate(self, size: int | None = None) -> int:
        return self._kept(lambda: self._file.truncate(size), size or 0)

    def close(self) -> None:
        self._kept(self._file.close, None)
        super().close()

    def _kept(self, call: Callable[[], _T], otherwise: _T) -> _T:
        try:
            return call() if self._error is None else otherwise
        except OSError as error:
            self._error = error
            return otherwise


class Hdf5Writer:
    """`FileWriter` for HDF5."""

    def __init__(self, path: Path, columns: Sequence[Column], origin: Origin) -> None:
        self._h5py = load_h5py()
        self._columns = [*columns, Column(REST_COLUMN, ColumnKind.JSON)]
        self._target = _Target(path)
        self._file = self._h5py.File(self._target, "w")
        self._file.attrs[METADATA_KEY] = origin.to_json()
        for column in self._columns:
            if column.kind is ColumnKind.REGIONS:
                self._create_regions(column)
                continue
            self._create(_FIELDS, column, self._type(column))
            self._create(_PRESENT, Column(column.name, ColumnKind.BOOL), np.dtype(bool))

    def write(self, values: Mapping[str, Values]) -> None:
        for column in self._columns:
            rows = values[column.name]
            if isinstance(rows, RegionValues):
                self._append_regions(column, rows)
                continue
            if isinstance(rows, np.ndarray):
                present = np.logical_not(np.isnan(rows).all(axis=1))
                filled: Any = np.where(present[:, None], rows, np.float32(0))
            else:
                present = np.array([each is not None for each in rows], bool)
                empty = "" if self._is_text(column) else 0
                if column.kind is ColumnKind.TEXTS:
                    rows = [None if each is None else orjson.dumps(each).decode() for each in rows]
                filled = [empty if each is None else each for each in rows]
            self._extend(self._file[f"{_FIELDS}/{column.name}"], filled)
            self._extend(self._file[f"{_PRESENT}/{column.name}"], present)
        self._target.check()

    def close(self) -> None:
        try:
            self._file.close()
        finally:
            self._target.close()
        self._target.check()

    def _create(self, group: str, column: Column, kind: Any) -> None:
        dataset = self._dataset(f"{group}/{column.name}", kind, column.dims)
        dataset.attrs["kind"] = column.kind.value

    def _create_regions(self, column: Column) -> None:
        path = f"{_FIELDS}/{column.name}"
        self._dataset(f"{path}/{BOX}", np.int32, 4)
        self._dataset(f"{path}/{EMBEDDING}", np.float32, column.dims)
        self._extend(self._dataset(f"{path}/{_OFFSETS}", np.int64), np.zeros(1, np.int64))

    def _append_regions(self, column: Column, rows: RegionValues) -> None:
        group = self._file[f"{_FIELDS}/{column.name}"]
        offsets = rows.offsets[1:] + len(group[BOX])
        for name, values in ((BOX, rows.boxes), (EMBEDDING, rows.vectors), (_OFFSETS, offsets)):
            self._extend(group[name], values)

    def _dataset(self, path: str, kind: Any, dims: int = 0) -> Any:
        """Create an empty, growable dataset, of vectors if `dims` is not 0."""
        tail = (dims,) if dims else ()
        rows = max(1, _CHUNK_BYTES // (4 * dims)) if dims else _CELL_CHUNK_ROWS
        return self._file.create_dataset(
            path,
            shape=(0, *tail),
            maxshape=(None, *tail),
            chunks=(rows, *tail),
            dtype=kind,
            # Vectors do not compress: their floats hardly ever repeat.
            compression=None if dims else "lzf",
        )

    @staticmethod
    def _extend(dataset: Any, values: Any) -> None:
        before = len(dataset)
        dataset.resize(before + len(values), axis=0)
        if len(values):
            dataset[before:] = values

    def _type(self, column: Column) -> Any:
        if self._is_text(column):
            return self._h5py.string_dtype()
        kinds: dict[ColumnKind, Any] = {
            ColumnKind.INT: np.int64,
            ColumnKind.FLOAT: np.float64,
            ColumnKind.BOOL: bool,
            ColumnKind.VECTOR: np.float32,
        }
        return np.dtype(kinds[column.kind])

    @staticmethod
    def _is_text(column: Column) -> bool:
        return column.kind in {ColumnKind.TEXT, ColumnKind.TEXTS, ColumnKind.JSON}


class Hdf5Reader:
    """`FileReader` for HDF5."""

    def __init__(self, path: Path) -> None:
        self._h5py = load_h5py()
        self._path = path
        try:
            self._file = self._h5py.File(path, "r")
            text = self._file.attrs.get(METADATA_KEY)
            self.origin = None if text is None else Origin.from_json(text)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _invalid(path, error) from error
        group = self._file.get(_FIELDS, self._file)
        self._datasets = {
            name: each for name, each in group.items() if isinstance(each, self._h5py.Dataset)
        }
        self._regions = {
            name: {part: each[part] for part in _REGION_PARTS}
            for name, each in group.items()
            if isinstance(each, self._h5py.Group) and self._is_regions(each)
        }
        self.regions = frozenset(self._regions)
        self._present = self._file.get(_PRESENT, {}) if group is not self._file else {}
        lengths = {
            name: each.shape[0] if each.shape else 0 for name, each in self._datasets.items()
        }
        lengths |= {name: len(parts[_OFFSETS]) - 1 for name, parts in self._regions.items()}
        if len(set(lengths.values())) > 1:
            raise _invalid(path, ValueError(f"its datasets have different lengths: {lengths}"))
        self.rows: int = max(lengths.values(), default=0)
        self.names: Sequence[str] = [*self._datasets, *self._regions]
        vectors = self._datasets | {name: parts[EMBEDDING] for name, parts in self._regions.items()}
        self.dims: Mapping[str, int] = {
            name: each.shape[1] for name, each in vectors.items() if len(each.shape or ()) == 2
        }

    def batches(self, names: Sequence[str], size: int) -> Iterator[dict[str, Values]]:
        try:
            for start in range(0, self.rows, size):
                rows = slice(start, min(start + size, self.rows))
                yield {name: self._values(name, rows) for name in names}
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise _invalid(self._path, error) from error

    def close(self) -> None:
        self._file.close()

    def _values(self, name: str, rows: slice) -> Values:
        if name in self._regions:
            return self._region_values(self._regions[name], rows)
        dataset = self._datasets[name]
        present = self._present[name][rows] if name in self._present else None
        if len(dataset.shape) == 2 and dataset.dtype.kind in "fiu":
            matrix = dataset[rows].astype(np.float32)
            if present is not None:
                matrix[~present] = np.nan
            vectors: Values = matrix
            return vectors
        is_text = self._h5py.check_string_dtype(dataset.dtype) is not None
        values = (dataset.asstr()[rows] if is_text else dataset[rows]).tolist()
        if dataset.attrs.get("kind") == ColumnKind.TEXTS:
            values = [orjson.loads(each) if each else None for each in values]
        if present is not None:
            values = [v if there else None for v, there in zip(values, present, strict=True)]
        listed: Values = values
        return listed

    def _is_regions(self, group: Any) -> bool:
        """Check the datasets of a group: other programs may use the same names otherwise."""
        for part, rank, kinds in ((_OFFSETS, 1, "iu"), (BOX, 2, "fiu"), (EMBEDDING, 2, "fiu")):
            # None for a broken link.
            dataset = group.get(part)
            if not isinstance(dataset, self._h5py.Dataset) or dataset.dtype.kind not in kinds:
                return False
            # An empty dataspace has no shape.
            if dataset.shape is None or len(dataset.shape) != rank:
                return False
        return True

    @staticmethod
    def _region_values(parts: Mapping[str, Any], rows: slice) -> RegionValues:
        offsets = parts[_OFFSETS][rows.start : rows.stop + 1].astype(np.int64)
        first, end = int(offsets[0]), int(offsets[-1])
        boxes, vectors = parts[BOX][first:end], parts[EMBEDDING][first:end].astype(np.float32)
        if (np.diff(offsets) < 0).any() or not len(boxes) == len(vectors) == end - first:
            raise ValueError(f"the offsets of its {parts[_OFFSETS].parent.name} do not fit")
        return RegionValues(offsets - first, boxes, vectors)


def vector_row_reader(
    path: Path, name: str
) -> Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]:
    """Return a function that reads given rows of a column of vectors.

    It returns float32 of shape (n, dims), in the order of its argument, and is thread-safe.  The
    file is mapped into memory, so the column has to be uncompressed, as `Hdf5Writer` writes it:
    50 rows of 512 dims take 0.5 ms, while HDF5 would read a chunk of a megabyte for each.
    Raises FileInvalid.
    """
    h5py = load_h5py()
    try:
        with h5py.File(path, "r") as file:
            dataset = file.get(_FIELDS, file)[name]
            dtype, dims = dataset.dtype, int(dataset.shape[1])
            starts = _chunk_starts(dataset)
            chunk_rows = dataset.chunks[0] if dataset.chunks else dataset.shape[0]
        if starts is None:
            raise ValueError(f"{name} is compressed, so that single rows cannot be read")
        mapped = np.memmap(path, np.uint8, "r")
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise _invalid(path, error) from error

    def read(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        vectors = np.empty((len(rows), dims), np.float32)
        for n, row in enumerate(rows):
            chunk, row_in_chunk = divmod(int(row), chunk_rows)
            start = starts[chunk] + row_in_chunk * dims * dtype.itemsize
            vectors[n] = np.frombuffer(mapped, dtype, dims, start)
        return vectors

    return read


def _chunk_starts(dataset: Any) -> list[int] | None:
    """File offset of each chunk of rows; None if rows are not stored as plain bytes."""
    if dataset.chunks is None:
        start = dataset.id.get_offset()
        return None if start is None else [start]
    if dataset.compression or dataset.shuffle or dataset.chunks[1] != dataset.shape[1]:
        return None
    starts = [0] * -(-dataset.shape[0] // dataset.chunks[0])

    def note(chunk: Any) -> None:
        starts[chunk.chunk_offset[0] // dataset.chunks[0]] = chunk.byte_offset

    dataset.id.chunk_iter(note)
    return starts


def _invalid(path: Path, error: Exception) -> FileInvalid:
    return FileInvalid(f"{str(path)!r} cannot be read as HDF5 ({error}).")
