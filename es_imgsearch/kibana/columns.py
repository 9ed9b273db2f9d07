"""Build the columns of Lens panels: buckets, metrics, columns computed from them.

A column of a source is a Lens operation with its parameters.  Two are written shorter than Lens
stores them, which keeps the columns that they are computed from beside them:

    {operationType: cumulative_sum, of: COLUMN}               the sum of all buckets up to one
    {operationType: formula, formula: "sum(FIELD) / interval()"}     per millisecond of a bucket
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from es_imgsearch.errors import FileInvalid
from es_imgsearch.kibana.objects import RECORDS, kql

Columns = Mapping[str, Mapping[str, Any]]

_BUCKETS: Final = {"terms": "ordinal", "date_histogram": "interval", "range": "interval"}
# Operations on the documents of a bucket.
_METRICS: Final = {
    "average",
    "count",
    "last_value",
    "max",
    "median",
    "min",
    "percentile",
    "sum",
    "unique_count",
}
_PARAMS: Final[Mapping[str, Mapping[str, Any]]] = {
    "terms": {
        "size": 10,
        "otherBucket": True,
        "missingBucket": False,
        "parentFormat": {"id": "terms"},
        "include": [],
        "exclude": [],
        "includeIsRegex": False,
        "excludeIsRegex": False,
    },
    "date_histogram": {"interval": "auto", "includeEmptyRows": True, "dropPartials": False},
    "range": {
        "type": "histogram",
        "maxBars": "auto",
        "includeEmptyRows": True,
        "ranges": [{"from": 0, "to": 1000, "label": ""}],
    },
    "percentile": {"percentile": 95},
}
_DATA_TYPES: Final = {
    "date": "date",
    "boolean": "boolean",
    **dict.fromkeys(("keyword", "text", "ip"), "string"),
    **dict.fromkeys(
        ("long", "integer", "short", "byte", "float", "double", "half_float"), "number"
    ),
}
_ALPHABETICAL: Final = {"orderBy": {"type": "alphabetical"}, "orderDirection": "asc"}
_COMPUTED: Final = {"dataType": "number", "isBucketed": False, "scale": "ratio"}
_PER_INTERVAL: Final = re.compile(r"(\w+)\((\w+)\) / interval\(\)")


def build_columns(
    columns: Columns, types: Mapping[str, str], title: str
) -> dict[str, dict[str, Any]]:
    """Build the columns of a layer, buckets first, as Lens requires.

    Raises FileInvalid for a missing field or an unknown operation.
    """
    built: dict[str, dict[str, Any]] = {}
    for name, each in columns.items():
        for part, column in _parts(name, each, title):
            is_stored = "references" not in column
            built[part] = _column(column, types, title) if is_stored else dict(column)
    used = {name for each in built.values() for name in each.get("references", [])}
    # Lens orders by no column that another one is computed from, and by no last value of words.
    metrics = [
        name
        for name, each in built.items()
        if each["operationType"] in _METRICS - {"last_value"} and name not in used
    ]
    for each in built.values():
        if each["operationType"] == "terms":
            each["params"] = (_by(metrics[0]) if metrics else _ALPHABETICAL) | each["params"]
    return dict(sorted(built.items(), key=lambda each: not each[1]["isBucketed"]))


def _by(column: str) -> dict[str, Any]:
    return {"orderBy": {"type": "column", "columnId": column}, "orderDirection": "desc"}


def _parts(
    name: str, source: Mapping[str, Any], title: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield a column of a source and those that it is computed from."""
    operation = source["operationType"]
    named = {**_COMPUTED, "label": source["label"], "customLabel": True}
    if operation == "cumulative_sum":
        inner = f"{name}_each"
        yield name, {**named, "operationType": operation, "references": [inner], "params": {}}
        yield inner, {"label": source["label"], **source["of"]}
    elif operation == "formula":
        yield from _formula(name, source["formula"], named, title)
    else:
        yield name, source


def _formula(
    name: str, formula: str, named: Mapping[str, Any], title: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    match = _PER_INTERVAL.fullmatch(formula)
    if match is None:
        raise FileInvalid(
            f"The panel {title!r} has the formula {formula!r}; known is only"
            " OPERATION(FIELD) / interval()."
        )
    metric, interval, quotient = (f"{name}X{number}" for number in range(3))
    part = f"Part of {formula}"
    syntax = {
        "type": "function",
        "name": "divide",
        "args": [metric, interval],
        "location": {"min": 0, "max": len(formula)},
        "text": formula,
    }
    yield (
        name,
        {
            **named,
            "operationType": "formula",
            "params": {"formula": formula, "isFormulaBroken": False},
            "references": [quotient],
        },
    )
    yield metric, {"label": part, "operationType": match[1], "sourceField": match[2]}
    yield interval, {**named, "label": part, "operationType": "interval", "references": []}
    yield (
        quotient,
        {
            **named,
            "label": part,
            "operationType": "math",
            "params": {"tinymathAst": syntax},
            "references": [metric, interval],
        },
    )


def _column(source: Mapping[str, Any], types: Mapping[str, str], title: str) -> dict[str, Any]:
    operation = source["operationType"]
    if operation not in _METRICS and operation not in _BUCKETS:
        raise FileInvalid(f"The panel {title!r} has an unknown operation {operation!r}.")
    field = source.get("sourceField", RECORDS)
    if field != RECORDS and types.get(field) not in _DATA_TYPES:
        raise FileInvalid(
            f"The panel {title!r} aggregates {field!r}, which the index does not have or cannot"
            " aggregate."
        )
    params = {**_PARAMS.get(operation, {}), **source.get("params", {})}
    if operation in {"count", "sum", "unique_count"}:
        params.setdefault("emptyAsNull", False)
    has_field_type = operation in _BUCKETS or operation in {"min", "max", "last_value"}
    column: dict[str, Any] = {
        "label": source["label"],
        "customLabel": True,
        "dataType": _DATA_TYPES[types[field]] if has_field_type else "number",
        "isBucketed": operation in _BUCKETS,
        "scale": "ordinal" if operation == "last_value" else _BUCKETS.get(operation, "ratio"),
        "operationType": operation,
        "sourceField": field,
        "params": params,
    }
    if "filter" in source:
        column["filter"] = kql(source["filter"])
    if "timeScale" in source:
        column["timeScale"] = source["timeScale"]
    return column
