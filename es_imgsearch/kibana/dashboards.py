"""Build dashboards: rows of panels, controls above them, links to each other.

A source (`kibana/dashboards/NAME.yaml` at the top of the checkout) has `rows`, each with a height
and panels with their widths on the grid of 48 columns: `{height: 12, panels: [lens/tags: 24,
vega/places: 24]}`.  The panel `links` leads to all dashboards and marks the one that is open; the
panel `nearest` leads to those of saved searches, and is left out if there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from es_imgsearch.errors import FileInvalid
from es_imgsearch.kibana.objects import (
    GRID_COLUMNS,
    TYPES,
    Reference,
    SavedObject,
    json_text,
    kql,
    reference,
    saved_object,
)

# Kinds of Lens panels on which a click can open the pictures of a bar or a row.
_CLICKABLE: Final = {"lnsXY", "lnsPie", "lnsDatatable"}
_LINKS: Final = "links"
_NEAREST: Final = "nearest"

Panel = dict[str, Any]


def dashboard(
    identifier: str,
    source: Mapping[str, Any],
    identify: Callable[[str, str], str],
    *,
    links: Mapping[str, str],
    lens_configs: Mapping[str, Panel],
    nearest: Mapping[str, str] | None = None,
) -> SavedObject:
    """Build a dashboard; raise FileInvalid for a panel or a row that does not fit.

    `identify` returns the id of a kind and a name; `links` and `nearest` map names of dashboards to
    link to to their titles; `lens_configs` is what a panel with a Lens object has besides.
    """
    panels, references = _panels(
        source, identify, {_LINKS: links, _NEAREST: nearest or {}}, lens_configs
    )
    view = identify("data_views", source["data_view"])
    controls, control_references = _controls(source, view)
    attributes: dict[str, Any] = {
        "title": source["title"],
        "description": source.get("description", ""),
        "panelsJSON": json_text(panels),
        "optionsJSON": json_text(
            {
                "useMargins": True,
                "syncColors": True,
                "syncCursor": True,
                "syncTooltips": False,
                "hidePanelTitles": False,
            }
        ),
        "timeRestore": True,
        "timeFrom": source["time"]["from"],
        "timeTo": source["time"]["to"],
        "refreshInterval": {
            "pause": "refresh_seconds" not in source,
            "value": 1000 * source.get("refresh_seconds", 60),
        },
        "controlGroupInput": {
            "controlStyle": "oneLine",
            "chainingSystem": "HIERARCHICAL",
            "panelsJSON": json_text(controls),
            "ignoreParentSettingsJSON": json_text(
                {
                    "ignoreFilters": False,
                    "ignoreQuery": False,
                    "ignoreTimerange": False,
                    "ignoreValidations": False,
                }
            ),
        },
        "kibanaSavedObjectMeta": {"searchSourceJSON": json_text({"query": kql(""), "filter": []})},
        "version": 1,
    }
    return saved_object("dashboard", identifier, attributes, references + control_references)


def _panels(
    source: Mapping[str, Any],
    identify: Callable[[str, str], str],
    links: Mapping[str, Mapping[str, str]],
    lens_configs: Mapping[str, Panel],
) -> tuple[list[Panel], list[Reference]]:
    panels: list[Panel] = []
    references: list[Reference] = []
    top = 0
    for row in source["rows"]:
        if any(links.get(content) == {} for entry in row["panels"] for content in entry):
            continue
        left = 0
        for entry in row["panels"]:
            ((content, width),) = entry.items()
            panel_id = f"panel{len(panels)}"
            grid = {"x": left, "y": top, "w": width, "h": row["height"], "i": panel_id}
            panel: Panel = {"panelIndex": panel_id, "gridData": grid}
            if content in links:
                panel |= _links(links[content])
                references += [
                    reference(
                        "dashboard", identify("dashboards", name), f"{panel_id}:{_link(name)}"
                    )
                    for name in links[content]
                ]
            else:
                kind, _, name = content.partition("/")
                if TYPES.get(kind) in {None, "dashboard", "index-pattern"}:
                    raise FileInvalid(
                        f"The dashboard {source['title']!r} has a panel {content!r}; panels are"
                        " links, nearest, lens/NAME, vega/NAME or discover/NAME."
                    )
                panel |= {
                    "type": TYPES[kind],
                    "panelRefName": f"panel_{panel_id}",
                    "embeddableConfig": {
                        "enhancements": {},
                        **(lens_configs.get(name, {}) if kind == "lens" else {}),
                    },
                }
                references.append(
                    reference(TYPES[kind], identify(kind, name), f"{panel_id}:panel_{panel_id}")
                )
            panels.append(panel)
            left += width
        if left > GRID_COLUMNS:
            raise FileInvalid(
                f"A row of the dashboard {source['title']!r} is {left} columns wide; there are"
                f" {GRID_COLUMNS}."
            )
        top += row["height"]
    return panels, references


def lens_config(kind: str, time: Mapping[str, str] | None) -> Panel:
    """Build a Lens panel's own settings: where a click leads, a time range."""
    own_time = {} if time is None else {"timeRange": dict(time)}
    if kind not in _CLICKABLE:
        return own_time
    event = {
        "eventId": "open-in-discover",
        "triggers": ["FILTER_TRIGGER"],
        "action": {
            "factoryId": "OPEN_IN_DISCOVER_DRILLDOWN",
            "name": "Open in Discover",
            "config": {"openInNewTab": False},
        },
    }
    return {"enhancements": {"dynamicActions": {"events": [event]}}, **own_time}


def _link(name: str) -> str:
    return f"link_{name}_dashboard"


def _links(titles: Mapping[str, str]) -> Panel:
    links = [
        {
            "type": "dashboardLink",
            "id": name,
            "order": order,
            "label": title,
            "destinationRefName": _link(name),
            # Each dashboard has its own controls and time range.
            "options": {
                "openInNewTab": False,
                "useCurrentFilters": False,
                "useCurrentDateRange": False,
            },
        }
        for order, (name, title) in enumerate(titles.items())
    ]
    attributes = {"layout": "horizontal", "links": links}
    return {
        "type": "links",
        "embeddableConfig": {
            "attributes": attributes,
            "enhancements": {},
            "hidePanelTitles": True,
        },
    }


def _controls(source: Mapping[str, Any], view: str) -> tuple[dict[str, Any], list[Reference]]:
    """Build lists of values to choose from, and a slider over the time range."""
    controls: dict[str, Any] = {}
    references = []
    for order, name in enumerate(source["controls"]):
        controls[name] = {
            "order": order,
            "type": "optionsListControl",
            "width": "medium",
            "grow": True,
            "explicitInput": {
                "id": name,
                "fieldName": name,
                "title": name.replace("_", " ").capitalize(),
                "searchTechnique": "prefix",
                "selectedOptions": [],
                "sort": {"by": "_count", "direction": "desc"},
            },
        }
        references.append(
            reference("index-pattern", view, f"controlGroup_{name}:optionsListDataView")
        )
    controls["time"] = {
        "order": len(controls),
        "type": "timeSlider",
        "width": "large",
        "grow": True,
        "explicitInput": {"id": "time"},
    }
    return controls, references
