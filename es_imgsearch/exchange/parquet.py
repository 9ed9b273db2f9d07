"""Parquet: one row group a page, vectors as lists of fixed length.

Format: https://parquet.apache.org/docs/file-format/; written and read by pyarrow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from es_imgsearch.errors import ExchangeFileInvalid, LibraryMissing
from es_imgsearch.exchange.columns import (
    METADATA_KEY,
    REST_COLUMN,
    Column,
    Kind,
    Origin,
    Values,
)


def load_pyarrow() -> tuple[Any, Any]:
    """pyarrow and its module of Parquet.  Raises LibraryMissing."""
    try:
        import pyarrow as pa
        import pyarrow.compute  # an attribute of `pa` only once somebody has imported it
        import pyarrow.parquet as pq
    except ImportError as error:
        raise LibraryMissing(
            "Parquet files need pyarrow: pip install 'es-imgsearch[parquet]'."
        ) from error
    return pa, pq


class ParquetWriter:
    def __init__(self, path: Path, columns: Sequence[Column], origin: Origin) -> None:
        self._pa, pq = load_pyarrow()
        self._columns = [*columns, Column(REST_COLUMN, Kind.JSON)]
        fields = [self._pa.field(each.name, self._type(each)) for each in self._columns]
        schema = self._pa.schema(fields, metadata={METADATA_KEY: origin.to_json()})
        # A dictionary of floats that never repeat costs time and saves nothing.
        worth_it = [each.name for each in self._columns if each.kind is Kind.TEXT]
        self._schema = schema
        self._writer = pq.ParquetWriter(
            path, schema, compression="zstd", compression_level=1, use_dictionary=worth_it
        )

    def write(self, values: Mapping[str, Values]) -> None:
        arrays = [self._array(each, values[each.name]) for each in self._columns]
        self._writer.write_table(self._pa.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        self._writer.close()

    def _type(self, column: Column) -> Any:
        pa = self._pa
        if column.kind is Kind.VECTOR:
            return pa.list_(pa.float32(), column.dims)
        return {
            Kind.TEXT: pa.string(),
            Kind.TEXTS: pa.list_(pa.string()),
            Kind.INT: pa.int64(),
            Kind.FLOAT: pa.float64(),
            Kind.BOOL: pa.bool_(),
            Kind.JSON: pa.string(),
        }[column.kind]

    def _array(self, column: Column, values: Values) -> Any:
        kind = self._type(column)
        if not isinstance(values, np.ndarray):
            return self._pa.array(values, kind)
        missing = np.isnan(values).all(axis=1)
        return self._pa.FixedSizeListArray.from_arrays(
            self._pa.array(values.reshape(-1)),
            type=kind,
            mask=self._pa.array(missing) if missing.any() else None,
        )


class ParquetReader:
    def __init__(self, path: Path) -> None:
        pa, pq = load_pyarrow()
        self._path, self._pa = path, pa
        try:
            self._file = pq.ParquetFile(path, memory_map=True)
            schema = self._file.schema_arrow
            text = (schema.metadata or {}).get(METADATA_KEY.encode())
            self.origin = None if text is None else Origin.from_json(text)
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            raise _invalid(path, error) from error
        self.rows: int = self._file.metadata.num_rows
        self.names: Sequence[str] = schema.names
        self.dims: Mapping[str, int] = {
            field.name: field.type.list_size
            for field in schema
            if pa.types.is_fixed_size_list(field.type)
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
        is_list = types.is_fixed_size_list(array.type) or types.is_list(array.type)
        if (is_list or types.is_large_list(array.type)) and _is_number(
            types, array.type.value_type
        ):
            return self._vectors(array)
        if types.is_timestamp(array.type) and array.type.unit == "ns":
            # Python's own dates end at microseconds; without pandas this would be refused.
            array = array.cast(self._pa.timestamp("us", array.type.tz), safe=False)
        values: list[Any] = array.to_pylist()
        return values

    def _vectors(self, array: Any) -> Values:
        if not self._pa.types.is_fixed_size_list(array.type):
            lengths = self._pa.compute.list_value_length(array).drop_null().unique().to_pylist()
            if array.null_count or len(lengths) != 1:
                rows: list[Any] = array.to_pylist()
                return rows
            dims = int(lengths[0])
        else:
            dims = array.type.list_size
        flat = array.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        if not array.null_count:
            whole: Values = flat.reshape(len(array), dims)
            return whole
        # `flatten` leaves out rows that are null.
        matrix = np.full((len(array), dims), np.nan, np.float32)
        matrix[array.is_valid().to_numpy(zero_copy_only=False)] = flat.reshape(-1, dims)
        return matrix


def _is_number(types: Any, kind: Any) -> bool:
    return bool(types.is_floating(kind) or types.is_integer(kind))


def _invalid(path: Path, error: Exception) -> ExchangeFileInvalid:
    return ExchangeFileInvalid(f"{str(path)!r} cannot be read as Parquet ({error}).")
