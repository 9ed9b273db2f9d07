"""Bodies for searches: pure functions, values in and dictionaries out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from os import PathLike
from typing import Any

import numpy as np

from es_imgsearch.errors import FilterInvalid, UsageError
from es_imgsearch.mapping import VECTOR_FIELD, Tuning
from es_imgsearch.records import is_text, stored_path

# The server's own ceiling; a k above it cannot be asked for either.
MAX_NUM_CANDIDATES = 10_000

# The tuned number is for k = 10; a larger k needs more.  The server's own default is 1.5 k, which
# found .95 (int8) and .87 (int4) of the true ten of 10,000 vectors, the profiles' tuning all of
# them (benchmarks/knn_settings.py).
_CANDIDATES_PER_HIT = 2

_NUMBERS = {"long", "integer", "short", "byte", "float", "double", "half_float"}
_INT64 = range(-(2**63), 2**63)
_PATHS = {"folder", "relative_path", "image_name"}
_NOT_FILTERABLE = {"dense_vector", "geo_point", "nested", "object"}
_DATE = re.compile(r"[0-9]{4}(-[0-9]{2}){0,2}")
_DATE_AND_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{3,6})?)?"
    r"(Z|[+-][0-9]{2}:[0-9]{2})?"
)
_RANGE = re.compile(r"^(?P<low>[^.]*(?:\.[^.]+)*)\.\.(?P<high>.*)$")

FilterValue = str | int | float | bool | date | datetime | None
Filters = Mapping[str, FilterValue | Sequence[FilterValue] | tuple[FilterValue, FilterValue]]


def knn_body(
    vector: Sequence[float] | Any,
    k: int,
    tuning: Tuning,
    *,
    num_candidates: int | None = None,
    filters: Sequence[Mapping[str, Any]] = (),
    source: bool | Sequence[str] = True,
) -> dict[str, Any]:
    """Approximate search: the k nearest among `num_candidates` a shard.

    Filters run inside the graph search, so a filtered search still finds k if k exist.
    """
    check_k(k)
    if num_candidates is not None:
        _check_int("num_candidates", num_candidates)
    if num_candidates is None:
        num_candidates = max(tuning.num_candidates, _CANDIDATES_PER_HIT * k)
    elif num_candidates < k:
        raise UsageError(
            f"num_candidates is {num_candidates} but must be at least k, which is {k}."
        )
    knn: dict[str, Any] = {
        "field": VECTOR_FIELD,
        "query_vector": vector,
        "k": k,
        "num_candidates": min(num_candidates, MAX_NUM_CANDIDATES),
    }
    if tuning.oversample is not None:
        knn["rescore_vector"] = {"oversample": tuning.oversample}
    if filters:
        knn["filter"] = list(filters)
    return {"knn": knn, "size": k, "_source": _source(source)}


def exact_body(
    vector: Sequence[float] | Any,
    k: int,
    similarity: str,
    *,
    filters: Sequence[Mapping[str, Any]] = (),
    source: bool | Sequence[str] = True,
) -> dict[str, Any]:
    """Every picture compared with the full vectors: what approximate search is measured by.

    The score of a hit is that of the approximate search of the same index, so `cosine_of`
    reads both.
    """
    check_k(k)
    scripts = {
        "cosine": f"(1.0 + cosineSimilarity(params.query, '{VECTOR_FIELD}')) / 2.0",
        "dot_product": f"(1.0 + dotProduct(params.query, '{VECTOR_FIELD}')) / 2.0",
        "l2_norm": f"double d = l2norm(params.query, '{VECTOR_FIELD}'); return 1.0 / (1.0 + d * d)",
    }
    having_vector = {"exists": {"field": VECTOR_FIELD}}
    return {
        "query": {
            "script_score": {
                "query": {"bool": {"filter": [having_vector, *filters]}},
                "script": {"source": scripts[similarity], "params": {"query": vector}},
            }
        },
        "size": k,
        "_source": _source(source),
    }


def cosine_of(score: float, similarity: str) -> float:
    """The cosine behind a `_score`, for unit vectors.

    Elasticsearch scores (1 + cos) / 2 for cosine and dot_product and 1 / (1 + d²) for
    l2_norm; for unit vectors d² = 2 - 2 cos (reference of the dense_vector field type).
    """
    if similarity == "l2_norm":
        return 1.0 - (1.0 / score - 1.0) / 2.0
    return 2.0 * score - 1.0


def check_k(k: int) -> None:
    _check_int("k", k)
    if not 1 <= k <= MAX_NUM_CANDIDATES:
        raise UsageError(f"k must be between 1 and {MAX_NUM_CANDIDATES}, not {k}.")


def _check_int(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise UsageError(f"{name} must be a whole number, not a {type(value).__name__}.")


def _source(source: bool | Sequence[str]) -> bool | list[str]:
    return source if isinstance(source, bool) else list(source)


def filter_clauses(
    filters: Filters | None,
    properties: Mapping[str, Mapping[str, Any]],
    *,
    since: str | date | None = None,
    until: str | date | None = None,
) -> list[dict[str, Any]]:
    """Filter clauses for {field: value}, all of which a hit must meet.

    A list means any of its values; a pair (low, high) with None for an open end is a range
    over numbers, dates and keywords, and so is, over numbers and dates, the string
    ``low..high``; `folder` matches the whole subtree.  `since` and `until` compare the day a
    picture was taken, or last modified where the camera wrote no date.  `properties` is the
    index's mapping.
    """
    clauses = [_clause(field, value, properties) for field, value in (filters or {}).items()]
    if since is not None or until is not None:
        clauses.append(_dated(since, until))
    return clauses


def parse_filters(texts: Iterable[str]) -> dict[str, list[str]]:
    """`FIELD=VALUE` of the command line; a field given twice means either value."""
    filters: dict[str, list[str]] = {}
    for text in texts:
        field, equals, value = text.partition("=")
        if not equals or not field.strip():
            raise FilterInvalid(f"A filter is written FIELD=VALUE, not {text!r}.")
        filters.setdefault(field.strip(), []).append(value)
    return filters


def _clause(field: str, value: Any, properties: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    name, _, key = field.partition(".")
    mapping = properties.get(name)
    if mapping is None or (key and _kind(mapping) != "flattened"):
        raise FilterInvalid(
            f"There is no field {field!r} to filter by; there are {_filterable(properties)}."
        )
    kind = _kind(mapping)
    if not is_text(key):
        raise FilterInvalid(f"The name {field!r} of a field is not valid Unicode.")
    if isinstance(value, tuple):
        if len(value) != 2:
            raise FilterInvalid(f"A range of {field!r} is a pair (low, high).")
        low, high = (_storable(name, end) for end in value)
        return _range(field, low, high, kind)
    values = list(value) if isinstance(value, (list, set, frozenset)) else [value]
    if not values:
        return {"match_none": {}}
    clauses = [_single(field, _storable(name, one), mapping) for one in values]
    if len(clauses) == 1:
        return clauses[0]
    return {"bool": {"should": clauses, "minimum_should_match": 1}}


def _storable(field: str, value: Any) -> Any:
    """The value as the index would hold it; a path as the system gives it may not be Unicode.

    A path that is Unicode is left alone, so that what a hit says can be filtered by.
    """
    if not isinstance(value, (str, PathLike)) or is_text(str(value)):
        return value
    try:
        if field in _PATHS:
            return stored_path(str(value))
    except UnicodeEncodeError:
        pass
    raise FilterInvalid(f"The value {str(value)!r} for field {field!r} is not valid Unicode.")


def _single(field: str, value: Any, mapping: Mapping[str, Any]) -> dict[str, Any]:
    kind = _kind(mapping)
    if value is None:
        return {"bool": {"must_not": [{"exists": {"field": field}}]}}
    if field == "folder":
        return {"term": {"folder.tree": str(value).strip("/") or "."}}
    if isinstance(value, str) and kind in {*_NUMBERS, "date"} and (found := _RANGE.match(value)):
        return _range(field, found["low"] or None, found["high"] or None, kind)
    if kind == "date":
        return _range(field, value, value, kind)
    if kind in _NUMBERS:
        return {"term": {field: _number(field, value)}}
    if kind in {"keyword", "flattened"}:
        return {"term": {field: str(value)}}
    if kind == "boolean":
        return {"term": {field: value}}
    if kind == "text":
        if "keyword" in mapping.get("fields", {}):
            return {"term": {f"{field}.keyword": str(value)}}
        return {"match": {field: {"query": str(value), "operator": "and"}}}
    raise FilterInvalid(f"Field {field!r} is a {kind} and cannot be compared with a value.")


def _range(field: str, low: Any, high: Any, kind: str) -> dict[str, Any]:
    if low is None and high is None:
        raise FilterInvalid(f"A range of {field!r} needs a low or a high end.")
    if kind in _NUMBERS:
        low, high = (None if end is None else _number(field, end) for end in (low, high))
    elif kind == "date":
        low, high = (None if end is None else _moment(field, end) for end in (low, high))
        # 2024 or 2024-05 as an upper end means all of it: the server rounds `lte` up.
        high = f"{high}||/{_unit(high)}" if high and _unit(high) else high
        low = f"{low}||/{_unit(low)}" if low and _unit(low) else low
    elif kind != "keyword":
        raise FilterInvalid(f"Field {field!r} is a {kind} and has no ranges.")
    bounds = {"gte": low, "lte": high}
    return {"range": {field: {name: end for name, end in bounds.items() if end is not None}}}


def _dated(since: str | date | None, until: str | date | None) -> dict[str, Any]:
    untaken = {"bool": {"must_not": [{"exists": {"field": "taken_at"}}]}}
    return {
        "bool": {
            "should": [
                _range("taken_at", since, until, "date"),
                {"bool": {"filter": [untaken, _range("modified_at", since, until, "date")]}},
            ],
            "minimum_should_match": 1,
        }
    }


def _number(field: str, value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise FilterInvalid(f"Field {field!r} holds numbers, not {value!r}.")
    try:
        # Not by way of float, which would change an mtime_ns.
        number = int(value) if not isinstance(value, float) else _whole(value)
    except (ValueError, OverflowError):
        try:
            number = _whole(float(value))
        except (ValueError, OverflowError):
            shown = value[:40] if isinstance(value, str) else value
            raise FilterInvalid(f"Field {field!r} holds numbers, not {shown!r}.") from None
    if isinstance(number, int) and number not in _INT64:
        # It is not repeated: Python does not even write very long ones.
        raise FilterInvalid(f"The number for field {field!r} is larger than 64 bits hold.")
    return number


def _whole(number: float) -> int | float:
    """An int where it is one that fits; raises for what is not finite."""
    return int(number) if int(number) == number and int(number) in _INT64 else number


def _moment(field: str, value: Any) -> str:
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    text = str(value).strip()
    if _DATE_AND_TIME.fullmatch(text):
        # Elasticsearch wants the T.
        text = candidate = text.replace(" ", "T")
    else:
        candidate = text + "-01-01"[len(text) - 4 :]
    try:
        # Other forms that Python reads (20240531, 2024-W22) mean something else to Elasticsearch.
        if not (_DATE.fullmatch(text) or _DATE_AND_TIME.fullmatch(text)):
            raise ValueError
        datetime.fromisoformat(candidate)
    except ValueError:
        raise FilterInvalid(
            f"Field {field!r} holds dates such as 2024, 2024-05-31 or 2024-05-31T18:00, not"
            f" {text!r}."
        ) from None
    return text


def _unit(moment: str) -> str | None:
    return {4: "y", 7: "M", 10: "d"}.get(len(moment))


def _filterable(properties: Mapping[str, Mapping[str, Any]]) -> str:
    return ", ".join(
        sorted(
            name for name, mapping in properties.items() if _kind(mapping) not in _NOT_FILTERABLE
        )
    )


def _kind(mapping: Mapping[str, Any]) -> str:
    # The server leaves the type of an object out.
    return str(mapping.get("type", "object"))
