"""Check Lens panels: fields, columns, time, axes, colours."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from es_imgsearch.kibana.check_context import DATES, VALUES, Context, References, is_hash
from es_imgsearch.kibana.fields import NUMBERS, mismatched_field, query_problems
from es_imgsearch.kibana.lens import LINES
from es_imgsearch.kibana.objects import RECORDS, SavedObject

_FITTING: Final[Mapping[str, frozenset[str]]] = {
    "date_histogram": DATES,
    "range": NUMBERS,
    **dict.fromkeys(("terms", "unique_count", "last_value"), VALUES),
    **dict.fromkeys(("min", "max"), NUMBERS | DATES),
    **dict.fromkeys(("average", "median", "percentile", "sum"), NUMBERS),
}
# A label of something by time, which the suffix of a time scale fits.
_RATE: Final = re.compile(
    r"(/ ?|\b(per|an?) )(s|second|m|min|minute|h|hour|d|day)\b", re.IGNORECASE
)


def lens_problems(each: SavedObject, references: References, context: Context) -> Iterator[str]:
    attributes = each["attributes"]
    state = attributes["state"]
    layers = state["datasourceStates"]["formBased"]["layers"]
    for name, layer in layers.items():
        view = context.target(references, f"indexpattern-datasource-layer-{name}")
        types = context.types_of(view)
        columns = layer["columns"]
        yield from _order_problems(layer)
        for column in columns.values():
            if "references" not in column and (field := column["sourceField"]) != RECORDS:
                operation = column["operationType"]
                yield from mismatched_field(field, types, _FITTING[operation], f"for {operation}")
        yield from query_problems(state["query"], types)
        if view is not None:
            yield from _time_problems(columns, view["attributes"].get("timeFieldName"))
            if view["attributes"]["title"].endswith("-failures"):
                yield from _colour_problems(attributes)
        if layer.get("ignoreGlobalFilters") and state["query"]["query"]:
            yield "ignoreGlobalFilters leaves out the panel's own query as well"
    yield from _shown_problems(layers, state["visualization"])
    visible = {name for name, is_visible in _accessors(state["visualization"]) if is_visible}
    for name, layer in layers.items():
        view = context.target(references, f"indexpattern-datasource-layer-{name}")
        yield from _hash_problems(layer["columns"], visible, view)
    if "growth" in attributes["title"].casefold() and not any(
        column["operationType"] == "cumulative_sum"
        for layer in layers.values()
        for column in layer["columns"].values()
    ):
        yield "its title says growth, but it sums nothing up (cumulative_sum)"
    if attributes["visualizationType"] == "lnsXY":
        yield from _axis_problems(state["visualization"])


def auto_histogram(each: SavedObject, time_field: str | None) -> bool:
    """Whether a panel draws the time field by an interval that fits the time range."""
    return any(
        column["operationType"] == "date_histogram"
        and column["sourceField"] == time_field
        and column["params"].get("interval") == "auto"
        for layer in each["attributes"]["state"]["datasourceStates"]["formBased"]["layers"].values()
        for column in layer["columns"].values()
    )


def _order_problems(layer: Mapping[str, Any]) -> Iterator[str]:
    columns = layer["columns"]
    if set(layer["columnOrder"]) != columns.keys():
        yield "columnOrder names other columns than there are"
    is_bucket = [columns[column]["isBucketed"] for column in layer["columnOrder"]]
    if is_bucket != sorted(is_bucket, reverse=True):
        yield "a metric precedes a bucket"
    for name, column in columns.items():
        ordered_by = column.get("params", {}).get("orderBy", {}).get("columnId")
        if ordered_by is not None and ordered_by not in columns:
            yield f"a column is ordered by {ordered_by!r}, which does not exist"
        for used in column.get("references", []):
            if used not in columns:
                yield f"the column {name!r} is computed from {used!r}, which does not exist"


def _time_problems(
    columns: Mapping[str, Mapping[str, Any]], time_field: str | None
) -> Iterator[str]:
    """Report what the time range would do to a panel."""
    for column in columns.values():
        params = column.get("params", {})
        if column["operationType"] == "date_histogram":
            ignores = params.get("ignoreTimeRange", False)
            field = column["sourceField"]
            if field != time_field and not ignores:
                yield (
                    f"the time range goes by {field!r} instead of {time_field!r}: give its date"
                    " histogram ignoreTimeRange and a fixed interval"
                )
            if ignores and params.get("interval", "auto") == "auto":
                yield f"the histogram of {field!r} has ignoreTimeRange, but no fixed interval"
        if (scale := column.get("timeScale")) and not _RATE.search(column["label"]):
            yield (
                f"its values end in “/{scale}” (timeScale), which the label {column['label']!r}"
                " does not say"
            )


def _axis_problems(visualization: Mapping[str, Any]) -> Iterator[str]:
    if not visualization.get("yTitle"):
        yield "its y axis has no title with a unit (yTitle)"
    series = {layer.get("seriesType") for layer in visualization["layers"]}
    if any(each in LINES or str(each).startswith("area") for each in series) and not (
        visualization.get("fittingFunction", "None") != "None"
        and visualization.get("emphasizeFitting")
    ):
        yield (
            "buckets without a value interrupt its lines, and single ones are dots: set"
            " fittingFunction Linear and emphasizeFitting"
        )


def _colour_problems(attributes: Mapping[str, Any]) -> Iterator[str]:
    state = attributes["state"]["visualization"]
    kind = attributes["visualizationType"]
    if kind == "lnsMetric" and not (state.get("palette") or state.get("color")):
        yield "failures have the colour of everything else (palette)"
    if kind == "lnsXY" and not all(
        layer.get("palette") or layer.get("yConfig") or layer.get("colorMapping")
        for layer in state["layers"]
    ):
        yield "failures have the colours of everything else (palette)"


def _shown_problems(layers: Mapping[str, Any], state: Mapping[str, Any]) -> Iterator[str]:
    columns = {name: each for layer in layers.values() for name, each in layer["columns"].items()}
    used = {name for each in columns.values() for name in each.get("references", [])}
    shown = dict(_accessors(state))
    for name in sorted(shown.keys() ^ (columns.keys() - used)):
        yield f"the column {name!r} is either not shown or not defined"


def _hash_problems(
    columns: Mapping[str, Mapping[str, Any]], visible: set[str], view: SavedObject | None
) -> Iterator[str]:
    for name in sorted(visible & columns.keys()):
        field, operation = columns[name].get("sourceField"), columns[name]["operationType"]
        if operation in {"terms", "last_value"} and is_hash(field, view):
            yield (
                f"the column {name!r} shows hashes ({field}): hide it, and show the last value of"
                " image_id, which the data view shows as a picture"
            )


def _accessors(state: Any, *, visible: bool = True) -> Iterator[tuple[str, bool]]:
    """Yield the columns that a Lens visualisation has, and whether they are visible."""
    if isinstance(state, list):
        for each in state:
            yield from _accessors(each, visible=visible)
    elif isinstance(state, dict):
        visible = visible and not state.get("hidden", False)
        for name, value in state.items():
            if name in {"metricAccessor", "xAccessor", "splitAccessor", "columnId"}:
                yield value, visible
            elif name in {"accessors", "metrics", "primaryGroups"}:
                for each in value:
                    yield each, visible
            else:
                yield from _accessors(value, visible=visible)
