"""What a file's columns are: from a mapping to columns, from hits to their values."""

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

# Regions as files hold them: those of all rows in one row, and where each row's begin.

# A region's parts have the names that they have in the field `regions`.
BOX, EMBEDDING = "box", "embedding"


@dataclass(frozen=True, slots=True)
class RegionValues:
    """The regions of some rows; those of row n are offsets[n] to offsets[n + 1].

    `offsets` is int64 of shape (rows + 1,) and begins with 0.  `boxes` (x, y, width, height, in
    pixels) has shape (regions, 4), `vectors` is float32 of shape (regions, dims); either is a list
    where the file does not promise that all have one length.
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
        """How many regions each row has."""
        return np.diff(self.offsets)


def offsets_of(counts: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)


def regions_of(hits: Sequence[Mapping[str, Any]], dims: int) -> RegionValues:
    """Those that the hits came with; one that has lost its vector is of no use."""
    found = [
        [each for each in region_hits(hit) if REGION_VECTOR in each.get("fields", {})]
        for hit in hits
    ]
    flat = list(chain.from_iterable(found))
    return RegionValues(
        offsets_of([len(each) for each in found]),
        np.array([parse_box(each) for each in flat], np.int32).reshape(-1, 4),
        np.array(
            [parse_vector(each["fields"][REGION_VECTOR]) for each in flat], np.float32
        ).reshape(-1, dims),
    )


# Where a file keeps `Origin`: a key of Parquet's schema metadata, an attribute of HDF5's root.
METADATA_KEY = "es_imgsearch"

# Holds, as JSON, what does not fit its own column: a list where nearly all have one value.
REST_COLUMN = "other_values"

_FORMAT_VERSION = 1

# The mapping does not tell which fields hold lists.
_LISTS = {"colours", "describe_errors", "keywords", "palette", "tags"}
_INTS = {"long", "integer", "short", "byte"}
_FLOATS = {"float", "double", "half_float"}
_JSON_TYPES = {"flattened", "geo_point", "nested", "object"}


class ColumnKind(StrEnum):
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

    `dims` is the length of a vector, 0 for everything else; `vectors` is how many of them a row
    has at most.
    """

    name: str
    kind: ColumnKind
    dims: int = 0
    vectors: int = 1

    @property
    def floats(self) -> int:
        """How many a row has at most."""
        return self.dims * self.vectors


# A list with None where nothing is; of vectors float32 of shape (n, dims) with rows of NaN there,
# or a list where the file does not promise that all have one length.
Values = list[Any] | npt.NDArray[np.float32] | RegionValues


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a file's vectors come from: what makes them comparable with others, or not.

    `roots` maps the roots' names to `path` and `host`, as `_meta` does.  `grid` says which regions
    the pictures have, None where the file has no such column.
    """

    seal: Seal
    similarity: str
    profile: str
    roots: Mapping[str, Mapping[str, Any]]
    grid: Grid | None = None

    def to_json(self) -> str:
        body = {"format_version": _FORMAT_VERSION, **_plain(self)}
        return orjson.dumps(body).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Origin:
        """Raises ValueError, KeyError or TypeError where it is not what `to_json` gave."""
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


def _plain(origin: Origin) -> dict[str, Any]:
    return {
        "encoder": origin.seal.to_body(),
        "similarity": origin.similarity,
        "profile": origin.profile,
        "roots": {
            name: {"path": entry["path"], "host": entry["host"]}
            for name, entry in origin.roots.items()
        },
        **({"regions": origin.grid.to_body()} if origin.grid else {}),
    }


def columns_of(
    properties: Mapping[str, Mapping[str, Any]], grid: Grid | None = None
) -> list[Column]:
    """A column for each field; a bit vector is text, its hexadecimal digits.

    Codes are left out: another index makes them with a coder of its own.  `grid` says how many
    regions a row has at most.
    """
    most_regions = MAX_REGIONS if grid is None else grid.count
    return [
        _column(name, mapping, most_regions)
        for name, mapping in properties.items()
        if name != CODE_FIELD
    ]


def _column(name: str, mapping: Mapping[str, Any], most_regions: int) -> Column:
    if name == REGIONS_FIELD:
        dims = int(mapping["properties"][EMBEDDING]["dims"])
        return Column(name, ColumnKind.REGIONS, dims, most_regions)
    # The server leaves the type of an object out.
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


def values_of(
    columns: Sequence[Column], hits: Sequence[Mapping[str, Any]], bit_vectors: Sequence[str]
) -> dict[str, Values]:
    """The columns of a page of hits, and REST_COLUMN for what does not fit them."""
    sources = [hit.get("_source", {}) for hit in hits]
    rest: list[dict[str, Any]] = [{} for _ in hits]
    values: dict[str, Values] = {}
    for column in columns:
        if column.kind is ColumnKind.VECTOR:
            values[column.name] = _matrix(column, hits)
        elif column.kind is ColumnKind.REGIONS:
            values[column.name] = regions_of(hits, column.dims)
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
    found = [_doc_value(hit, column.name) for hit in hits]
    having = [n for n, each in enumerate(found) if each is not None]
    if having:
        matrix[having] = np.array([found[n] for n in having], np.float32)
    return matrix


def _bits(hit: Mapping[str, Any], name: str) -> str | None:
    value = _doc_value(hit, name)
    return None if value is None else np.array(value, np.int8).tobytes().hex()


def _doc_value(hit: Mapping[str, Any], name: str) -> Any:
    value = hit.get("fields", {}).get(name)
    # docvalue_fields wraps a vector in a list of one.
    return value[0] if value and isinstance(value[0], list) else value
