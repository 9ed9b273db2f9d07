"""Read and write Parquet files of vectors and fields.

Each page is a row group, vectors are lists of fixed length, regions lists of structs.
Format: https://parquet.apache.org/docs/file-format/; written and read by pyarrow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

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
    offsets_from_counts,
)


def load_pyarrow() -> tuple[Any, Any]:
    """Import pyarrow and pyarrow.parquet; raise LibraryMissing."""
    try:
        import pyarrow as pa

        # `pa.compute` exists only after this import.
        import pyarrow.compute
        import pyarrow.parquet as pq
    except ImportError as error:
        raise LibraryMissing(
            "Parquet files need pyarrow: pip install 'es-imgsearch[parquet]'."
        ) from error
    return pa, pq


class ParquetWriter:
    """`FileWriter` for Parquet."""

    def __init__(self, path: Path, columns: Sequence[Column], origin: Origin) -> None:
        self._pa, pq = load_pyarrow()
        self._columns = [*columns, Column(REST_COLUMN, ColumnKind.JSON)]
        fields = [self._pa.field(each.name, self._type(each)) for each in self._columns]
        schema = self._pa.schema(fields, metadata={METADATA_KEY: origin.to_json()})
        # A dictionary of floats that never repeat costs time and saves nothing.
        dictionary_columns = [each.name for each in self._columns if each.kind is ColumnKind.TEXT]
        self._schema = schema
        self._writer = pq.ParquetWriter(
            path, schema, compression="zstd", compression_level=1, use_dictionary=dictionary_columns
        )

    def write(self, values: Mapping[str, Values]) -> None:
        arrays = [self._array(each, values[each.name]) for each in self._columns]
        self._writer.write_table(self._pa.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        self._writer.close()

    def _type(self, column: Column) -> Any:
        pa = self._pa
        if column.kind is ColumnKind.VECTOR:
            return pa.list_(pa.float32(), column.dims)
        if column.kind is ColumnKind.REGIONS:
            parts = {BOX: pa.list_(pa.int32(), 4), EMBEDDING: pa.list_(pa.float32(), column.dims)}
            return pa.list_(pa.struct(list(parts.items())))
        return {
            ColumnKind.TEXT: pa.string(),
            ColumnKind.TEXTS: pa.list_(pa.string()),
            ColumnKind.INT: pa.int64(),
            ColumnKind.FLOAT: pa.float64(),
            ColumnKind.BOOL: pa.bool_(),
            ColumnKind.JSON: pa.string(),
        }[column.kind]

    def _array(self, column: Column, values: Values) -> Any:
        kind = self._type(column)
        if isinstance(values, RegionValues):
            return self._regions(kind, values)
        if not isinstance(values, np.ndarray):
            return self._pa.array(values, kind)
        missing = np.isnan(values).all(axis=1)
        return self._pa.FixedSizeListArray.from_arrays(
            self._pa.array(values.reshape(-1)),
            type=kind,
            mask=self._pa.array(missing) if missing.any() else None,
        )

    def _regions(self, kind: Any, values: RegionValues) -> Any:
        pa = self._pa
        parts = [
            pa.FixedSizeListArray.from_arrays(
                pa.array(np.ascontiguousarray(each).reshape(-1)), type=part.type
            )
            for each, part in zip((values.boxes, values.vectors), kind.value_type, strict=True)
        ]
        # A picture too small for tiles has no regions.
        return pa.ListArray.from_arrays(
            pa.array(values.offsets.astype(np.int32)),
            pa.StructArray.from_arrays(parts, fields=list(kind.value_type)),
            type=kind,
            mask=pa.array(values.counts == 0),
        )


class ParquetReader:
    """`FileReader` for Parquet; `content` is an open file, not of a file system."""

    def __init__(self, path: Path, content: Any = None) -> None:
        pa, pq = load_pyarrow()
        self._path, self._pa = path, pa
        try:
            self._file = pq.ParquetFile(content or path, memory_map=content is None)
            schema = self._file.schema_arrow
            text = (schema.metadata or {}).get(METADATA_KEY.encode())
            self.origin = None if text is None else Origin.from_json(text)
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            raise _invalid(path, error) from error
        self.rows: int = self._file.metadata.num_rows
        self.names: Sequence[str] = schema.names
        self.regions = frozenset(each.name for each in schema if self._is_regions(each.type))
        vectors = {
            each.name: each.type.value_type.field(EMBEDDING).type
            if each.name in self.regions
            else each.type
            for each in schema
        }
        self.dims: Mapping[str, int] = {
            name: kind.list_size
            for name, kind in vectors.items()
            if pa.types.is_fixed_size_list(kind)
        }

    def batches(self, names: Sequence[str], size: int) -> Iterator[dict[str, Values]]:
        try:
            for batch in self._file.iter_batches(batch_size=size, columns=list(names)):
                yield {name: self._values(batch.column(name)) for name in names}
        except (self._pa.ArrowException, OSError, ValueError) as error:
            raise _invalid(self._path, error) from error

    def close(self) -> None:
        self._file.close()

    def _values(self, array: Any) -> Values:
        types = self._pa.types
        if self._is_regions(array.type):
            return self._regions(array)
        if _is_numbers(types, array.type):
            return self._vectors(array, np.float32)
        if types.is_timestamp(array.type) and array.type.unit == "ns":
            # Python's datetime has microseconds; without pandas pyarrow refuses nanoseconds.
            array = array.cast(self._pa.timestamp("us", array.type.tz), safe=False)
        values: list[Any] = array.to_pylist()
        return values

    def _is_regions(self, kind: Any) -> bool:
        """Check for a list of structs, each with the numbers of a box and of a vector."""
        types = self._pa.types
        if not _is_list(types, kind) or not types.is_struct(kind.value_type):
            return False
        parts = {part.name: part.type for part in kind.value_type}
        return all(name in parts and _is_numbers(types, parts[name]) for name in (BOX, EMBEDDING))

    def _regions(self, array: Any) -> RegionValues:
        compute = self._pa.compute
        counts = compute.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False)
        # `flatten` leaves out rows that are null.
        flat = array.flatten()
        return RegionValues(
            offsets_from_counts(counts),
            self._vectors(compute.struct_field(flat, BOX), np.float64),
            self._vectors(compute.struct_field(flat, EMBEDDING), np.float32),
        )

    def _vectors(self, array: Any, dtype: type[np.floating]) -> npt.NDArray[Any] | list[Any]:
        if not self._pa.types.is_fixed_size_list(array.type):
            lengths = self._pa.compute.list_value_length(array).drop_null().unique().to_pylist()
            if array.null_count or len(lengths) != 1:
                rows: list[Any] = array.to_pylist()
                return rows
            dims = int(lengths[0])
        else:
            dims = array.type.list_size
        flat = array.flatten().to_numpy(zero_copy_only=False).astype(dtype)
        if not array.null_count:
            whole: npt.NDArray[Any] = flat.reshape(len(array), dims)
            return whole
        # `flatten` leaves out rows that are null.
        matrix = np.full((len(array), dims), np.nan, dtype)
        matrix[array.is_valid().to_numpy(zero_copy_only=False)] = flat.reshape(-1, dims)
        return matrix


def _is_list(types: Any, kind: Any) -> bool:
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_numbers(types: Any, kind: Any) -> bool:
    """Check for a list of numbers."""
    return _is_list(types, kind) and bool(
        types.is_floating(kind.value_type) or types.is_integer(kind.value_type)
    )


def _invalid(path: Path, error: Exception) -> FileInvalid:
    return FileInvalid(f"{str(path)!r} cannot be read as Parquet ({error}).")
