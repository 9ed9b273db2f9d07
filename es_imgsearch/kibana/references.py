"""The names of the references that an object's content uses, whatever references it has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from es_imgsearch.kibana.objects import Object

_ENDS: Final = {
    "optionsListControl": "optionsListDataView",
    "rangeSliderControl": "rangeSliderDataView",
}


def reference_names(each: Object) -> Iterator[str]:
    """Of any saved object; raises KeyError or ValueError for one that is not as it should be."""
    attributes = each["attributes"]
    if "kibanaSavedObjectMeta" in attributes:
        yield from _of_search_source(search_source(each))
    if each["type"] == "lens":
        for layer in attributes["state"]["datasourceStates"]["formBased"]["layers"]:
            yield f"indexpattern-datasource-layer-{layer}"
    if each["type"] == "dashboard":
        for panel in orjson.loads(attributes["panelsJSON"]):
            yield from _of_panel(panel)
        for name, control in orjson.loads(attributes["controlGroupInput"]["panelsJSON"]).items():
            if (reference := control_reference(name, control)) is not None:
                yield reference


def search_source(each: Object) -> Mapping[str, Any]:
    """The query and the filters of an object that has them."""
    found: Mapping[str, Any] = orjson.loads(
        each["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"]
    )
    return found


def control_reference(name: str, control: Mapping[str, Any]) -> str | None:
    """The name of the reference to a control's data view; None for one that needs none."""
    end = _ENDS.get(control["type"])
    return None if end is None else f"controlGroup_{name}:{end}"


def _of_search_source(source: Mapping[str, Any]) -> Iterator[str]:
    if "indexRefName" in source:
        yield source["indexRefName"]
    for pill in source["filter"]:
        if "indexRefName" in pill["meta"]:
            yield pill["meta"]["indexRefName"]


def _of_panel(panel: Mapping[str, Any]) -> Iterator[str]:
    place = panel["panelIndex"]
    if "panelRefName" in panel:
        yield f"{place}:{panel['panelRefName']}"
    for link in panel["embeddableConfig"].get("attributes", {}).get("links", []):
        if "destinationRefName" in link:
            yield f"{place}:{link['destinationRefName']}"
