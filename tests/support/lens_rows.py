"""What a Lens panel has to show: its rows computed from the documents, and from an answer."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from tests.support.kibana_queries import AUTO_INTERVAL, RANGE_INTERVAL

Document = Mapping[str, Any]
Columns = Mapping[str, Mapping[str, Any]]
Rows = dict[tuple[Any, ...], dict[str, Any]]

_KQL = re.compile(r"([\w.]+)\s*(:|>=)\s*(.+)")
_AUTO_MS = int(AUTO_INTERVAL.removesuffix("d")) * 86_400_000


def matches(document: Document, query: str) -> bool:
    if not query:
        return True
    match = _KQL.fullmatch(query)
    assert match is not None, query
    name, operator, wanted = match.groups()
    value = document.get(name)
    if value is None or wanted == "*":
        return value is not None
    return value >= float(wanted) if operator == ">=" else str(value) == wanted


def milliseconds(value: str) -> float:
    return math.floor(datetime.fromisoformat(value).timestamp() * 1000)


def _keys(document: Document, column: Mapping[str, Any]) -> list[Any]:
    value = document.get(column["sourceField"].removesuffix(".keyword"))
    values = value if isinstance(value, list) else [] if value is None else [value]
    if column["operationType"] == "terms":
        return values
    if column["operationType"] == "range":
        return [math.floor(each / RANGE_INTERVAL + 1e-9) for each in values]
    interval = column["params"]["interval"]
    if interval == "auto":
        return [milliseconds(each) // _AUTO_MS * _AUTO_MS for each in values]
    assert interval in {"1M", "1y"}, interval
    found = []
    for each in values:
        at = datetime.fromisoformat(each)
        start = datetime(at.year, 1 if interval == "1y" else at.month, 1, tzinfo=UTC)
        found.append(start.timestamp() * 1000)
    return found


def _value(documents: Sequence[Document], column: Mapping[str, Any]) -> Any:
    chosen = [
        each for each in documents if matches(each, column.get("filter", {}).get("query", ""))
    ]
    operation = column["operationType"]
    if operation == "count":
        return len(chosen)
    name = column["sourceField"].removesuffix(".keyword")
    if operation == "last_value":
        by = column["params"]["sortField"]
        return max(chosen, key=lambda each: datetime.fromisoformat(each[by]))[name]
    values = [each[name] for each in chosen if each.get(name) is not None]
    numbers = [milliseconds(each) if name.endswith(("_at", "_local")) else each for each in values]
    if operation in {"median", "percentile"}:
        # The server interpolates by its own rule.
        return (min(numbers), max(numbers))
    compute = {
        "sum": sum,
        "average": lambda each: sum(each) / len(each),
        "min": min,
        "max": max,
        "unique_count": lambda each: len(set(each)),
    }
    return compute[operation](numbers)


def _stored(columns: Columns, *, bucketed: bool) -> dict[str, Mapping[str, Any]]:
    """Columns that Elasticsearch computes."""
    return {
        name: each
        for name, each in columns.items()
        if each["isBucketed"] == bucketed and "references" not in each
    }


def expected_rows(layer: Mapping[str, Any], documents: Sequence[Document]) -> Rows:
    columns = {name: layer["columns"][name] for name in layer["columnOrder"]}
    groups: dict[tuple[Any, ...], list[Document]] = {(): list(documents)}
    for column in _stored(columns, bucketed=True).values():
        split: dict[tuple[Any, ...], list[Document]] = {}
        for key, members in groups.items():
            for each in members:
                for value in dict.fromkeys(_keys(each, column)):
                    split.setdefault((*key, value), []).append(each)
        groups = split
    metrics = _stored(columns, bucketed=False)
    return {
        key: {name: _value(members, column) for name, column in metrics.items()}
        for key, members in groups.items()
    }


def answered_rows(layer: Mapping[str, Any], answer: Mapping[str, Any]) -> Rows:
    columns = {name: layer["columns"][name] for name in layer["columnOrder"]}
    buckets = list(_stored(columns, bucketed=True).items())
    metrics = _stored(columns, bucketed=False)
    if not buckets:
        whole = {**answer.get("aggregations", {}), "doc_count": answer["hits"]["total"]["value"]}
        return {(): {name: _number(whole, name, each) for name, each in metrics.items()}}
    return dict(_rows(answer["aggregations"], buckets, metrics, ()))


def _rows(
    level: Mapping[str, Any], buckets: Sequence[Any], metrics: Columns, key: tuple[Any, ...]
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    (name, column), *inner = buckets
    for bucket in level[name]["buckets"]:
        own = bucket["key"]
        if column["operationType"] == "range":
            own = math.floor(own / RANGE_INTERVAL + 1e-9)
        if inner:
            yield from _rows(bucket, inner, metrics, (*key, own))
        else:
            row = {name: _number(bucket, name, each) for name, each in metrics.items()}
            yield (*key, own), row


def _number(bucket: Mapping[str, Any], name: str, column: Mapping[str, Any]) -> Any:
    if name not in bucket:
        return bucket["doc_count"]
    value = bucket[name]
    if column["operationType"] == "last_value":
        (top,) = value["hits"]["hits"]
        ((found,),) = top["fields"].values()
        return found
    if "values" in value:
        (found,) = value["values"].values()
        return found
    return value.get("value", value.get("doc_count"))


def taken(document: Document) -> str:
    date: str = document.get("taken_local", document["taken_at"])
    return date


def runtime_fields(document: Document, view: Mapping[str, Any]) -> dict[str, Any]:
    """The data view's runtime fields of a picture, computed here."""
    known = {
        "thumbnail": lambda each: each["image_id"],
        "original": lambda each: each["image_id"],
        "year_taken": lambda each: datetime.fromisoformat(taken(each)).year,
        "megapixels": lambda each: each["width"] * each["height"] / 1e6,
        "ingest_lag_seconds": lambda each: each["ingest_lag_ms"] / 1000,
    }
    names = json.loads(view.get("runtimeFieldMap", "{}"))
    return {**document, **{name: known[name](document) for name in names}}
