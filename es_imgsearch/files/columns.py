"""Columns of a vector file: derive them from a mapping, fill them from hits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from es_imgsearch.elastic.meta import Seal
from es_imgsearch.elastic.meta_entries import CODE_FIELD
from es_imgsearch.elastic.queries import parse_vector
from es_imgsearch.elastic.region_queries import parse_box, region_hits
from es_imgsearch.records import MAX_REGIONS, REGION_VECTOR, REGIONS_FIELD, Grid, Region

# Column names of a region's parts, the same as in the field `regions`.
BOX, EMBEDDING = "box", "embedding"


@dataclass(frozen=True, slots=True)
class RegionValues:
    """Regions of several rows; row n has the regions offsets[n] to offsets[n + 1].

    `offsets` is int64 of shape (rows + 1,) and begins with 0.  `boxes` (x, y, width, height, in
    pixels) has shape (regions, 4), `vectors` is float32 of shape (regions, dims); either is a list
    if the lengths in the file may differ.
    """

    offsets: npt.NDArray[np.int64]
    boxes: npt.NDArray[Any] | list[Any]
    vectors: npt.NDArray[np.float32] | list[Any]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> list[Region]:
        return [
            Region((int(x), int(y), int(width), int(height)), self.vectors[n])
            for n in range(self.offsets[row], self.offsets[row + 1])
            for x, y, width, height in [self.boxes[n]]
        ]

    def __iter__(self) -> Iterator[list[Region]]:
        return (self[row] for row in range(len(self)))

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Number of regions of each row, of shape (rows,)."""
        return np.diff(self.offsets)


def offsets_from_counts(counts: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Cumulate counts of shape (rows,) to offsets of shape (rows + 1,)."""
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


def hit_regions(hits: Sequence[Mapping[str, Any]], dims: int) -> RegionValues:
    """Collect the regions of hits; skip those without a vector."""
    by_hit = [
        [each for each in region_hits(hit) if REGION_VECTOR in each.get("fields", {})]
        for hit in hits
    ]
    flat = list(chain.from_iterable(by_hit))
    return RegionValues(
        offsets_from_counts([len(each) for each in by_hit]),
        np.array([parse_box(each) for each in flat], np.int32).reshape(-1, 4),
        np.array(
            [parse_vector(each["fields"][REGION_VECTOR]) for each in flat], np.float32
        ).reshape(-1, dims),
    )


# Key of `Origin` in a file: in Parquet's schema metadata, an attribute of HDF5's root group.
METADATA_KEY = "es_imgsearch"

# Values that do not fit their own column, as JSON: a list where nearly all rows have one value.
REST_COLUMN = "other_values"

_FORMAT_VERSION = 1

# Elasticsearch mappings do not say which fields hold lists.
_LISTS = {"colours", "describe_errors", "keywords", "palette", "tags"}
_INTS = {"long", "integer", "short", "byte"}
_FLOATS = {"float", "double", "half_float"}
_JSON_TYPES = {"flattened", "geo_point", "nested", "object"}


class ColumnKind(StrEnum):
    """Type of the values of a column."""

    TEXT = "text"
    TEXTS = "texts"
    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    JSON = "json"
    VECTOR = "vector"
    REGIONS = "regions"


@dataclass(frozen=True, slots=True)
class Column:
    """One field in a file.

    `dims` is the length of a vector, 0 for other kinds; `vectors` is the largest number of vectors
    in a row.
    """

    name: str
    kind: ColumnKind
    dims: int = 0
    vectors: int = 1

    @property
    def floats(self) -> int:
        """Largest number of floats in a row."""
        return self.dims * self.vectors


# A list with None for a missing value; vectors as float32 of shape (n, dims) with rows of NaN for
# missing ones, or as a list if the lengths in the file may differ.
Values = list[Any] | npt.NDArray[np.float32] | RegionValues


@dataclass(frozen=True, slots=True)
class Origin:
    """Source of a file's vectors: decides whether they are comparable with others.

    `roots` maps the roots' names to `path` and `host`, as `_meta` does.  `grid` describes the
    regions of the pictures; None if the file has no column of regions.
    """

    seal: Seal
    similarity: str
    profile: str
    roots: Mapping[str, Mapping[str, Any]]
    grid: Grid | None = None

    def to_json(self) -> str:
        body = {
            "format_version": _FORMAT_VERSION,
            "encoder": self.seal.to_body(),
            "similarity": self.similarity,
            "profile": self.profile,
            "roots": {
                name: {"path": entry["path"], "host": entry["host"]}
                for name, entry in self.roots.items()
            },
            **({"regions": self.grid.to_body()} if self.grid else {}),
        }
        return orjson.dumps(body).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Origin:
        """Parse output of `to_json`; raise ValueError, KeyError or TypeError otherwise."""
        body = orjson.loads(text)
        if body["format_version"] > _FORMAT_VERSION:
            raise ValueError(
                f"its format {body['format_version']} is newer than this program's"
                f" {_FORMAT_VERSION}: update es_imgsearch"
            )
        return cls(
            seal=Seal.from_body(body["encoder"]),
            similarity=str(body["similarity"]),
            profile=str(body["profile"]),
            roots={name: dict(entry) for name, entry in body["roots"].items()},
            grid=Grid.from_body(body.get("regions")),
        )


def mapped_columns(
    properties: Mapping[str, Mapping[str, Any]], grid: Grid | None = None
) -> list[Column]:
    """Create a column for each mapped field; a bit vector becomes hexadecimal text.

    Codes are left out: another index makes them with a coder of its own.  `grid` limits the number
    of regions in a row.
    """
    max_regions = MAX_REGIONS if grid is None else grid.count
    return [
        _column(name, mapping, max_regions)
        for name, mapping in properties.items()
        if name != CODE_FIELD
    ]


def _column(name: str, mapping: Mapping[str, Any], max_regions: int) -> Column:
    if name == REGIONS_FIELD:
        dims = int(mapping["properties"][EMBEDDING]["dims"])
        return Column(name, ColumnKind.REGIONS, dims, max_regions)
    # Elasticsearch omits the type of an object.
    kind = str(mapping.get("type", "object"))
    if kind == "dense_vector":
        if mapping.get("element_type") == "bit":
            return Column(name, ColumnKind.TEXT)
        return Column(name, ColumnKind.VECTOR, int(mapping["dims"]))
    if kind in _INTS:
        return Column(name, ColumnKind.INT)
    if kind in _FLOATS:
        return Column(name, ColumnKind.FLOAT)
    if kind == "boolean":
        return Column(name, ColumnKind.BOOL)
    if kind in _JSON_TYPES:
        return Column(name, ColumnKind.JSON)
    return Column(name, ColumnKind.TEXTS if name in _LISTS else ColumnKind.TEXT)


def column_values(
    columns: Sequence[Column], hits: Sequence[Mapping[str, Any]], bit_vectors: Sequence[str]
) -> dict[str, Values]:
    """Convert a page of hits to columns; REST_COLUMN holds values that fit no column."""
    sources = [hit.get("_source", {}) for hit in hits]
    rest: list[dict[str, Any]] = [{} for _ in hits]
    values: dict[str, Values] = {}
    for column in columns:
        if column.kind is ColumnKind.VECTOR:
            values[column.name] = _matrix(column, hits)
        elif column.kind is ColumnKind.REGIONS:
            values[column.name] = hit_regions(hits, column.dims)
        elif column.name in bit_vectors:
            values[column.name] = [_bits(hit, column.name) for hit in hits]
        else:
            values[column.name] = [
                _cell(column, source.get(column.name), other)
                for source, other in zip(sources, rest, strict=True)
            ]
    values[REST_COLUMN] = [orjson.dumps(other).decode() if other else None for other in rest]
    return values


def _cell(column: Column, value: Any, rest: dict[str, Any]) -> Any:
    if value is None:
        return None
    match column.kind:
        case ColumnKind.JSON:
            return orjson.dumps(value).decode()
        # HDF5 ends a text at NUL; JSON escapes it.
        case ColumnKind.TEXT if isinstance(value, str) and "\0" not in value:
            return value
        case ColumnKind.TEXTS if isinstance(value, list) and all(isinstance(v, str) for v in value):
            return value
        case ColumnKind.INT if isinstance(value, int) and not isinstance(value, bool):
            return value
        case ColumnKind.FLOAT if isinstance(value, float):
            return value
        case ColumnKind.BOOL if isinstance(value, bool):
            return value
    rest[column.name] = value
    return None


def _matrix(column: Column, hits: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.float32]:
    matrix = np.full((len(hits), column.dims), np.nan, np.float32)
    vectors = {n: _doc_value(hit, column.name) for n, hit in enumerate(hits)}
    vectors = {n: vector for n, vector in vectors.items() if vector is not None}
    if vectors:
        matrix[list(vectors)] = np.array(list(vectors.values()), np.float32)
    return matrix


def _bits(hit: Mapping[str, Any], name: str) -> str | None:
    value = _doc_value(hit, name)
    return None if value is None else np.array(value, np.int8).tobytes().hex()


def _doc_value(hit: Mapping[str, Any], name: str) -> Any:
    value = hit.get("fields", {}).get(name)
    # docvalue_fields wraps a vector in a list of one.
    return value[0] if value and isinstance(value[0], list) else value
