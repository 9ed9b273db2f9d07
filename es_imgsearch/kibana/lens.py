"""Build Lens panels from sources of a few lines.

A source names its `data_view` and one of four layouts, whose columns are Lens operations:

    metric: {NAME: COLUMN}
    pie: donut|pie           groups: {NAME: COLUMN...}   values: {NAME: COLUMN}
    table: {NAME: COLUMN...}
    chart: bar|bar_stacked|bar_horizontal|line|area   x: {NAME: COLUMN}   split: {NAME: COLUMN}
                                                      y: {NAME: COLUMN...}

This module fills in what Lens needs besides and follows from an operation and a field's type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from es_imgsearch.errors import FileInvalid
from es_imgsearch.kibana.objects import RECORDS, SavedObject, kql, reference, saved_object

_LAYER: Final = "layer"
_BUCKETS: Final = {"terms": "ordinal", "date_histogram": "interval", "range": "interval"}
_METRICS: Final = {
    "average",
    "count",
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
        "orderDirection": "desc",
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
_SERIES: Final = {"bar", "bar_stacked", "bar_horizontal", "line", "area"}
_PIES: Final = {"pie", "donut"}

Columns = Mapping[str, Mapping[str, Any]]


def lens_panel(
    identifier: str, source: Mapping[str, Any], data_view_id: str, types: Mapping[str, str]
) -> SavedObject:
    """Build a Lens panel; `types` are the mapped types of the data view's fields.

    Raises FileInvalid for a missing field, an unknown operation, or an unknown layout.
    """
    title = source["title"]
    kind, layer_columns, state = _layout(source, title)
    columns = _columns(layer_columns, types, title)
    body = {
        "query": kql(source.get("query", "")),
        "filters": [],
        "internalReferences": [],
        "adHocDataViews": {},
        "datasourceStates": {
            "formBased": {
                "layers": {
                    _LAYER: {
                        "columnOrder": list(columns),
                        "columns": columns,
                        "incompleteColumns": {},
                    }
                }
            }
        },
        "visualization": state,
    }
    attributes = {
        "title": title,
        "description": source.get("description", ""),
        "visualizationType": kind,
        "state": body,
    }
    name = f"indexpattern-datasource-layer-{_LAYER}"
    return saved_object(
        "lens", identifier, attributes, [reference("index-pattern", data_view_id, name)]
    )


def _layout(source: Mapping[str, Any], title: str) -> tuple[str, Columns, dict[str, Any]]:
    """Return the panel's visualisation type, columns and visualisation state."""
    layer = {"layerId": _LAYER, "layerType": "data"}
    if "metric" in source:
        (name,) = source["metric"]
        return "lnsMetric", source["metric"], {**layer, "metricAccessor": name}
    if "table" in source:
        columns = [{"columnId": name} for name in source["table"]]
        return "lnsDatatable", source["table"], {**layer, "columns": columns}
    if source.get("pie") in _PIES:
        groups, values = source["groups"], source["values"]
        shown = {
            "primaryGroups": list(groups),
            "metrics": list(values),
            "numberDisplay": "percent",
            "categoryDisplay": "default",
            "legendDisplay": "default",
            "nestedLegend": len(groups) > 1,
        }
        return "lnsPie", {**groups, **values}, {"shape": source["pie"], "layers": [layer | shown]}
    if source.get("chart") in _SERIES:
        return _chart(source, layer)
    raise FileInvalid(
        f"The panel {title!r} has to have one of metric, table, pie ({', '.join(sorted(_PIES))}) or"
        f" chart ({', '.join(sorted(_SERIES))})."
    )


def _chart(
    source: Mapping[str, Any], layer: Mapping[str, Any]
) -> tuple[str, Columns, dict[str, Any]]:
    x, split, y = source["x"], source.get("split", {}), source["y"]
    drawn: dict[str, Any] = {
        **layer,
        "seriesType": source["chart"],
        "xAccessor": next(iter(x)),
        "accessors": list(y),
        "position": "top",
        "showGridlines": False,
    }
    if split:
        drawn["splitAccessor"] = next(iter(split))
    state = {
        "legend": {"isVisible": bool(split) or len(y) > 1, "position": "right"},
        "preferredSeriesType": source["chart"],
        "valueLabels": "hide",
        "fittingFunction": "None",
        "layers": [drawn],
    }
    # The first bucket is the outer one: series, then points of each series.
    return "lnsXY", {**split, **x, **y}, state


def _columns(columns: Columns, types: Mapping[str, str], title: str) -> dict[str, dict[str, Any]]:
    metrics = [name for name, each in columns.items() if each["operationType"] in _METRICS]
    built = {name: _column(each, types, metrics, title) for name, each in columns.items()}
    # Lens requires buckets before metrics.
    return dict(sorted(built.items(), key=lambda each: not each[1]["isBucketed"]))


def _column(
    source: Mapping[str, Any], types: Mapping[str, str], metrics: list[str], title: str
) -> dict[str, Any]:
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
    if operation == "terms":
        params.setdefault("orderBy", {"type": "column", "columnId": metrics[0]})
    if operation in {"count", "sum", "unique_count"}:
        params.setdefault("emptyAsNull", False)
    has_field_type = operation in _BUCKETS or operation in {"min", "max"}
    column: dict[str, Any] = {
        "label": source["label"],
        "customLabel": True,
        "dataType": _DATA_TYPES[types[field]] if has_field_type else "number",
        "isBucketed": operation in _BUCKETS,
        "scale": _BUCKETS.get(operation, "ratio"),
        "operationType": operation,
        "sourceField": field,
        "params": params,
    }
    if "filter" in source:
        column["filter"] = kql(source["filter"])
    if "timeScale" in source:
        column["timeScale"] = source["timeScale"]
    return column
