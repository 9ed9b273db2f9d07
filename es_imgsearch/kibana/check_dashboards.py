"""Check dashboards: the grid, controls, links, and what they do to their panels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import combinations
from typing import Any, Final

import orjson

from es_imgsearch.kibana.check_context import VALUES, Context, References, schema_problems
from es_imgsearch.kibana.check_context import references_of as _references_of
from es_imgsearch.kibana.check_lens import auto_histogram
from es_imgsearch.kibana.check_queries import (
    filter_problems,
    knn_problems,
    needed_fields,
    shows_pictures,
    vega_types,
)
from es_imgsearch.kibana.fields import FieldTypes, mismatched_field
from es_imgsearch.kibana.objects import (
    GRID_COLUMNS,
    SavedObject,
    control_reference,
    search_source,
)

Panels = Sequence[Mapping[str, Any]]

# From here on an interval that fits the time range is a year: what is new is one bar.
_LONG_YEARS: Final = 5
_RANGE: Final = re.compile(r"now-(\d+)([yMwd])(/\w)?")
_DAYS: Final = {"y": 365, "M": 30, "w": 7, "d": 1}


def dashboard_problems(
    each: SavedObject, references: References, context: Context
) -> Iterator[str]:
    attributes = each["attributes"]
    panels = orjson.loads(attributes["panelsJSON"])
    yield from _grid_problems(panels, references)
    controls = orjson.loads(attributes["controlGroupInput"]["panelsJSON"])
    yield from schema_problems("controls", controls)
    shown = {
        panel["panelIndex"]: target
        for panel in panels
        if "panelRefName" in panel
        and (target := context.target(references, _panel_reference(panel))) is not None
    }
    fields = []
    for name, control in controls.items():
        if control["explicitInput"]["id"] != name:
            yield f"the control {name!r} has another id in explicitInput"
        if (reference := control_reference(name, control)) is not None:
            types = context.types_behind(references, reference)
            field = control["explicitInput"]["fieldName"]
            fields.append(field)
            yield from mismatched_field(field, types, VALUES, "for a control")
    yield from _emptied_problems(shown, fields, context)
    yield from _query_problems(each, shown, context)
    yield from _link_problems(each, panels, references)
    yield from _picture_problems(shown)
    yield from _range_problems(attributes, panels, shown, context)


def unreached_problems(dashboards: Sequence[SavedObject]) -> Iterator[tuple[SavedObject, str]]:
    """Report dashboards of a file to which none of the others leads."""
    for each in dashboards:
        others = [one for one in dashboards if one["id"] != each["id"]]
        if others and not any(
            target["type"] == "dashboard" and target["id"] == each["id"]
            for one in others
            for target in one["references"]
        ):
            yield each, "no other dashboard of the file leads to it"


def _panel_reference(panel: Mapping[str, Any]) -> str:
    return f"{panel['panelIndex']}:{panel['panelRefName']}"


def _is_apart(target: SavedObject) -> bool:
    """Whether a panel ignores the dashboard's filters."""
    if target["type"] != "lens":
        return False
    layers = target["attributes"]["state"]["datasourceStates"]["formBased"]["layers"].values()
    return all(layer.get("ignoreGlobalFilters") for layer in layers)


def _panel_types(target: SavedObject, context: Context) -> list[FieldTypes | None]:
    if target["type"] == "visualization":
        return vega_types(target, context)
    views = [name for name in target["references"] if name["type"] == "index-pattern"]
    return [context.types_behind(_references_of(target), each["name"]) for each in views]


def _emptied_problems(
    shown: Mapping[str, SavedObject], fields: Sequence[str], context: Context
) -> Iterator[str]:
    """Report panels that a control empties, since their index lacks its field."""
    for panel, target in shown.items():
        if _is_apart(target):
            continue
        for types in _panel_types(target, context):
            for field in fields:
                if types is not None and field not in types:
                    yield (
                        f"a choice in the control on {field!r} empties the panel {panel!r}"
                        f" ({target['attributes']['title']}), whose index has no such field: give"
                        " it ignoreGlobalFilters, or leave out the control"
                    )


def _query_problems(
    each: SavedObject, shown: Mapping[str, SavedObject], context: Context
) -> Iterator[str]:
    source = search_source(each)
    yield from filter_problems(source["filter"])
    yield from knn_problems(source["query"]["query"])
    for field in needed_fields(source["query"]):
        for panel, target in shown.items():
            for types in _panel_types(target, context):
                if types is not None and field not in types and not _is_apart(target):
                    yield (
                        f"its kNN query fails in the panel {panel!r}, whose index has no {field!r}"
                    )


def _link_problems(each: SavedObject, panels: Panels, references: References) -> Iterator[str]:
    linked = [
        references.get(f"{panel['panelIndex']}:{link['destinationRefName']}", {}).get("id")
        for panel in panels
        if panel["type"] == "links"
        for link in panel["embeddableConfig"]["attributes"]["links"]
        if link["type"] == "dashboardLink"
    ]
    if linked and each["id"] not in linked:
        yield "its links do not have the dashboard itself, which Kibana would mark"


def _picture_problems(shown: Mapping[str, SavedObject]) -> Iterator[str]:
    kinds = {target["type"] for target in shown.values()}
    if "search" not in kinds and any(
        target["type"] == "visualization" and shows_pictures(target) for target in shown.values()
    ):
        yield (
            "its pictures show only if Kibana lets Vega load them, and no Discover session with"
            " thumbnails stands beside them"
        )


def _range_problems(
    attributes: Mapping[str, Any],
    panels: Panels,
    shown: Mapping[str, SavedObject],
    context: Context,
) -> Iterator[str]:
    years = _years(str(attributes.get("timeFrom", "")))
    if years < _LONG_YEARS:
        return
    for panel in panels:
        target = shown.get(panel["panelIndex"])
        if target is None or target["type"] != "lens" or "timeRange" in panel["embeddableConfig"]:
            continue
        for name in target["references"]:
            view = context.target(_references_of(target), name["name"])
            if name["type"] == "index-pattern" and view is not None:
                time = view["attributes"].get("timeFieldName")
                if auto_histogram(target, time):
                    yield (
                        f"the panel {panel['panelIndex']!r} draws {years} years of {time!r}, a"
                        " bar a year: give it a timeRange of its own"
                    )


def _years(start: str) -> int:
    """Count the years since the start of a time range; 0 if it is unclear."""
    if (match := _RANGE.fullmatch(start)) is not None:
        return int(match[1]) * _DAYS[match[2]] // 365
    try:
        return datetime.now(UTC).year - datetime.fromisoformat(start).year
    except ValueError:
        return 0


def _grid_problems(panels: Panels, references: References) -> Iterator[str]:
    yield from schema_problems("panels", panels)
    for panel in panels:
        grid = panel["gridData"]
        if panel["panelIndex"] != grid["i"]:
            yield f"the panel {panel['panelIndex']!r} has the id {grid['i']!r} on the grid"
        if grid["x"] + grid["w"] > GRID_COLUMNS:
            yield f"the panel {panel['panelIndex']!r} is wider than the grid"
        if panel["type"] == "links":
            yield from schema_problems("links", panel["embeddableConfig"]["attributes"])
        elif (name := _panel_reference(panel)) in references:
            target = references[name]["type"]
            if target != panel["type"]:
                yield f"the panel {panel['panelIndex']!r} is no {target}"
    if len({panel["panelIndex"] for panel in panels}) < len(panels):
        yield "two panels have the same panelIndex"
    for one, other in combinations(panels, 2):
        if _overlap(one["gridData"], other["gridData"]):
            yield f"the panels {one['panelIndex']!r} and {other['panelIndex']!r} overlap"


def _overlap(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )
