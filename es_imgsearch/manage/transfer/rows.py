"""Convert the columns of a file to documents, and check each row.

A row that cannot be stored becomes a `BadRow`; `importing` raises RowInvalid or skips it.
"""

from __future__ import annotations

import math
import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from es_imgsearch.describe.dates import local_of
from es_imgsearch.describe.fields import with_composed_texts
from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.embed.reduction import Reduction
from es_imgsearch.files.columns import (
    EMBEDDING,
    REST_COLUMN,
    Column,
    ColumnKind,
    RegionValues,
    Values,
    mapped_columns,
)
from es_imgsearch.manage.transfer.checks import Rows, checked_regions, checked_vectors
from es_imgsearch.records import (
    REGIONS_FIELD,
    Grid,
    Region,
    disk_path,
    image_id,
    iso_timestamp,
    stored_path,
)
from es_imgsearch.write.documents import TOP_FOLDER

_INT64 = range(-(2**63), 2**63)

# Fields that a comparison with a folder needs in every document.
STATE_FIELDS = ("content_id", "mtime_ns", "size_bytes")


@dataclass(frozen=True, slots=True)
class Row:
    """A valid row: `number` counts from 1, `vectors` are float32 and not in `fields`."""

    number: int
    image_id: str
    root: str
    fields: dict[str, Any]
    vectors: dict[str, npt.NDArray[np.float32]]
    regions: Sequence[Region] = ()


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was not stored, and why; `number` counts from 1."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class RowPlan:
    """Converter of the columns of a file to rows.

    `names` maps columns to fields; those in `as_attributes` go into `attributes`.  `root` is the
    default root.  `paths_are_stored`: the file has paths in the form of the index.  `reduction`
    applies to the vectors in an index of the profile `reduced`, `vector_fields` computes further
    fields of each (its binary code), `grid` defines its regions.
    """

    properties: Mapping[str, Mapping[str, Any]]
    names: Mapping[str, str]
    root: str | None = None
    as_attributes: frozenset[str] = frozenset()
    paths_are_stored: bool = False
    reduction: Reduction | None = None
    vector_fields: Callable[[npt.NDArray[np.float32]], Mapping[str, Any]] = lambda _vector: {}
    grid: Grid | None = None
    columns: Mapping[str, Column] = field(init=False)

    def __post_init__(self) -> None:
        columns = {each.name: each for each in mapped_columns(self.properties, self.grid)}
        if self.reduction is not None:
            columns[VECTOR_FIELD] = Column(VECTOR_FIELD, ColumnKind.VECTOR, self.reduction.dims)
        object.__setattr__(self, "columns", columns)

    def rows(self, values: Mapping[str, Values], first: int) -> tuple[list[Row], list[BadRow]]:
        """Convert a batch whose first row has the number `first`."""
        count = len(next(iter(values.values()), ()))
        reasons: dict[int, str] = {}
        vectors: dict[str, npt.NDArray[np.float32]] = {}
        cells: dict[str, list[Any]] = {}
        extra: dict[str, list[Any]] = {}
        regions: Sequence[Sequence[Region]] | RegionValues = [()] * count
        for name, column in values.items():
            target = self.names.get(name, name)
            if name in self.as_attributes:
                extra[name] = _converted(target, column, _attribute, reasons)
            elif target == REST_COLUMN:
                cells[target] = _converted(target, column, _map, reasons)
            elif isinstance(column, RegionValues):
                regions = self._regions(column, reasons)
            elif self.columns[target].kind is ColumnKind.VECTOR:
                vectors[target] = self._vectors(target, column, reasons)
            else:
                cells[target] = _converted(target, column, self._converter(target), reasons)
        now = iso_timestamp(timespec="milliseconds")
        good: list[Row] = []
        for n in range(count):
            if n in reasons:
                continue
            having = {k: v[n] for k, v in vectors.items() if not np.isnan(v[n, 0])}
            try:
                fields = {"indexed_at": now} | _collect_fields(n, cells, extra)
                good.append(self._row(first + n, fields, having, regions[n]))
            except (ValueError, UnicodeError) as error:
                reasons[n] = str(error)
        return good, [BadRow(first + n, reason) for n, reason in sorted(reasons.items())]

    def _row(
        self,
        number: int,
        fields: dict[str, Any],
        vectors: dict[str, npt.NDArray[np.float32]],
        regions: Sequence[Region],
    ) -> Row:
        if VECTOR_FIELD not in vectors:
            raise ValueError(f"it has no {VECTOR_FIELD}")
        path = fields.get("relative_path") or fields.get("image_name")
        root = fields.get("root") or self.root
        if not path or not root:
            raise ValueError(f"it has no {'relative_path' if root else 'root'}")
        path, root = str(path), str(root)
        if "/" in root or root != root.strip() or not root.isprintable():
            raise ValueError(f"the root {root!r} is no usable name")
        stored = path if self.paths_are_stored else stored_path(path)
        folder, name = posixpath.split(stored)
        key = image_id(root, disk_path(stored))
        fields |= {"image_id": key, "root": root, "relative_path": stored}
        fields |= self.vector_fields(vectors[VECTOR_FIELD])
        fields.setdefault("image_name", name)
        fields.setdefault("folder", folder or TOP_FOLDER)
        if "taken_local" in self.properties and (local := local_of(fields.get("taken_at"))):
            fields.setdefault("taken_local", local)
            fields.setdefault("taken_from", "import")
        return Row(number, key, root, with_composed_texts(fields), vectors, regions)

    def _vectors(self, name: str, column: Rows, reasons: dict[int, str]) -> npt.NDArray[np.float32]:
        """Convert vectors to shape (n, stored dims); a missing one is a row of NaN."""
        similarity = self.properties[name].get("similarity", "cosine")
        matrix = checked_vectors(name, column, self.columns[name].dims, similarity, reasons)
        if self.reduction is None or name != VECTOR_FIELD:
            return matrix
        reduced = np.full((len(matrix), self.reduction.dims_kept), np.nan, np.float32)
        usable = np.isfinite(matrix).all(axis=1)
        reduced[usable] = self.reduction.reduce(matrix[usable])
        return reduced

    def _regions(self, column: RegionValues, reasons: dict[int, str]) -> RegionValues:
        mapping = self.properties[REGIONS_FIELD]["properties"][EMBEDDING]
        dims = self.columns[REGIONS_FIELD].dims
        return checked_regions(column, dims, mapping.get("similarity", "cosine"), reasons)

    def _converter(self, name: str) -> Callable[[Any], Any]:
        mapping = self.properties[name]
        match self.columns[name].kind:
            case ColumnKind.INT:
                return _integer
            case ColumnKind.FLOAT:
                return _number
            case ColumnKind.BOOL:
                return _boolean
            case ColumnKind.JSON:
                return _map
        if mapping.get("type") == "date":
            return _date
        if mapping.get("element_type") == "bit":
            return _bits
        return _text


def _collect_fields(
    row: int, cells: Mapping[str, Sequence[Any]], extra: Mapping[str, Sequence[Any]]
) -> dict[str, Any]:
    """Collect the fields of a row; columns in `extra` become attributes.

    Raises ValueError.
    """
    fields = {name: each[row] for name, each in cells.items() if each[row] is not None}
    rest, own = fields.pop(REST_COLUMN, {}), fields.get("attributes", {})
    if not isinstance(rest, dict) or (extra and not isinstance(own, dict)):
        raise ValueError(f"its {REST_COLUMN} or attributes is no map of names and values")
    fields |= rest
    if extra and (added := {k: v[row] for k, v in extra.items() if v[row] is not None}):
        fields["attributes"] = {**fields.get("attributes", {}), **added}
    return fields


def _converted(
    name: str,
    values: Sequence[Any] | Values,
    convert: Callable[[Any], Any],
    reasons: dict[int, str],
) -> list[Any]:
    converted: list[Any] = []
    for n, value in enumerate(values):
        # Pandas writes a missing number as NaN.
        if value is None or (isinstance(value, float) and math.isnan(value)):
            converted.append(None)
            continue
        try:
            converted.append(convert(value))
        except (ValueError, TypeError, OverflowError, ArithmeticError) as error:
            converted.append(None)
            reasons.setdefault(n, f"its {name} cannot be stored: {error}")
    return converted


def _text(value: Any) -> Any:
    if isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_text(each) for each in value if each is not None]
    raise ValueError(f"{type(value).__name__} instead of text")


def _integer(value: Any) -> Any:
    if isinstance(value, (list, np.ndarray)):
        return [_integer(each) for each in value]
    number = int(value)
    if number != float(value) and number != value:
        raise ValueError(f"{value!r} is no whole number")
    if number not in _INT64:
        raise ValueError("it has more than 64 bits")
    return number


def _number(value: Any) -> Any:
    if isinstance(value, (list, np.ndarray)):
        return [_number(each) for each in value]
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("it is not finite")
    return number


def _boolean(value: Any) -> bool:
    if value in {True, False, "true", "false"}:
        return value is True or value == 1 or value == "true"
    raise ValueError(f"{value!r} is neither true nor false")


def _date(value: Any) -> Any:
    if isinstance(value, (date, datetime)):
        return _date_text(value)
    if isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return _integer(value)
    raise ValueError(f"{type(value).__name__} instead of a date")


def _date_text(value: date) -> str:
    if isinstance(value, datetime):
        return iso_timestamp(value, "milliseconds")
    return value.isoformat()


def _bits(value: Any) -> Any:
    """Convert hexadecimal digits, bytes, or lists of bytes to digits.

    The bytes of a list are signed or unsigned.
    """
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (list, np.ndarray)):
        return np.asarray(value).astype(np.int64).astype(np.uint8).tobytes().hex()
    return _text(value)


def _map(value: Any) -> Any:
    """Convert a map or list, or its JSON; other text is left to the server."""
    if isinstance(value, str):
        return orjson.loads(value) if value[:1] in {"{", "["} else value
    if isinstance(value, list) and value and all(isinstance(each, tuple) for each in value):
        # Arrow represents maps so.
        return _plain(dict(value))
    return _plain(value)


def _attribute(value: Any) -> Any:
    return _date_text(value) if isinstance(value, date) else _plain(value)


def _plain(value: Any) -> Any:
    """Convert to JSON types; names without a value are left out."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, (str, bool, int)):
        return value
    raise ValueError(f"a {type(value).__name__} has no place in a document")
