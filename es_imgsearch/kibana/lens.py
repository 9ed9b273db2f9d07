"""Build Lens panels from sources of a few lines.

A source names its `data_view` and one of four layouts, whose columns are Lens operations:

    metric: {NAME: COLUMN}   alarm: N      green below N, red from N on
    pie: donut|pie           groups: {NAME: COLUMN...}   values: {NAME: COLUMN}
    table: {NAME: COLUMN...}   hidden: [NAME...]
    chart: bar|bar_stacked|bar_horizontal|line|area|area_stacked   unit: what the y axis counts
           x: {NAME: COLUMN}   split: {NAME: COLUMN}   y: {NAME: COLUMN...}   colours: PALETTE

`ignore_filters: true` keeps the dashboard's query, filters and controls from a panel, but not its
time range; `time: {from, to}` is a time range of its own.  This module fills in what Lens needs
besides and follows from an operation and a field's type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from es_imgsearch.errors import FileInvalid
from es_imgsearch.kibana.columns import Columns, build_columns
from es_imgsearch.kibana.objects import SavedObject, kql, reference, saved_object

_LAYER: Final = "layer"
# Series drawn between the points of buckets.
LINES: Final = frozenset({"line", "area", "area_stacked"})
_SERIES: Final = {"bar", "bar_stacked", "bar_horizontal", *LINES}
_PIES: Final = {"pie", "donut"}
_GREEN: Final = "#209280"
_RED: Final = "#CC5642"


def lens_panel(
    identifier: str, source: Mapping[str, Any], data_view_id: str, types: Mapping[str, str]
) -> SavedObject:
    """Build a Lens panel; `types` are the mapped types of the data view's fields.

    Raises FileInvalid for a missing field, an unknown operation, or an unknown layout.
    """
    title = source["title"]
    kind, layer_columns, state = _layout(source, title)
    columns = build_columns(layer_columns, types, title)
    layer: dict[str, Any] = {
        "columnOrder": list(columns),
        "columns": columns,
        "incompleteColumns": {},
    }
    if source.get("ignore_filters"):
        if source.get("query"):
            raise FileInvalid(
                f"The panel {title!r} has ignore_filters, which leaves out its own query as well:"
                " give its columns a filter instead."
            )
        layer["ignoreGlobalFilters"] = True
    body = {
        "query": kql(source.get("query", "")),
        "filters": [],
        "internalReferences": [],
        "adHocDataViews": {},
        "datasourceStates": {"formBased": {"layers": {_LAYER: layer}}},
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
        state = {**layer, "metricAccessor": name}
        if "alarm" in source:
            state["palette"] = _alarm(source["alarm"])
        return "lnsMetric", source["metric"], state
    if "table" in source:
        hidden = source.get("hidden", [])
        columns = [
            {"columnId": name, **({"hidden": True} if name in hidden else {})}
            for name in source["table"]
        ]
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
        return _chart(source, layer, title)
    raise FileInvalid(
        f"The panel {title!r} has to have one of metric, table, pie ({', '.join(sorted(_PIES))}) or"
        f" chart ({', '.join(sorted(_SERIES))})."
    )


def _chart(
    source: Mapping[str, Any], layer: Mapping[str, Any], title: str
) -> tuple[str, Columns, dict[str, Any]]:
    if "unit" not in source:
        raise FileInvalid(f"The chart {title!r} has no unit: say what its y axis counts.")
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
    if "colours" in source:
        drawn["palette"] = {"type": "palette", "name": source["colours"]}
    state: dict[str, Any] = {
        "legend": {"isVisible": bool(split) or len(y) > 1, "position": "right"},
        "preferredSeriesType": source["chart"],
        "valueLabels": "hide",
        "fittingFunction": "None",
        "yTitle": source["unit"],
        "axisTitlesVisibilitySettings": {"x": True, "yLeft": True, "yRight": True},
        "layers": [drawn],
    }
    if source["chart"] in LINES:
        # Buckets without a value would leave single points, which show as dots or not at all.
        state |= {"fittingFunction": "Linear", "emphasizeFitting": True}
    # The first bucket is the outer one: series, then points of each series.
    return "lnsXY", {**split, **x, **y}, state


def _alarm(first: float) -> dict[str, Any]:
    """Build a palette of two colours, the second from a number on."""
    stops = [(_GREEN, 0.0, first), (_RED, first, first + 1)]
    return {
        "type": "palette",
        "name": "custom",
        "params": {
            "name": "custom",
            "steps": 2,
            "maxSteps": 5,
            "reverse": False,
            "rangeType": "number",
            "rangeMin": 0,
            "rangeMax": None,
            "progression": "fixed",
            "continuity": "above",
            # Of each colour, where it ends and where it begins.
            "stops": [{"color": colour, "stop": end} for colour, _, end in stops],
            "colorStops": [{"color": colour, "stop": start} for colour, start, _ in stops],
        },
    }
