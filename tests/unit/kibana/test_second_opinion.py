"""Compare saved objects with those of kb-dashboard-core 0.4.1, another builder.

It needs Python 3.12, so that what it makes of `second_opinion/panels.yaml` is kept in
`compiled.json`; `compile.py` there makes it anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from es_imgsearch.kibana.dashboards import dashboard
from es_imgsearch.kibana.lens import lens_panel

FOLDER = Path(__file__).parent / "second_opinion"
PANELS = yaml.safe_load((FOLDER / "panels.yaml").read_text(encoding="utf-8"))
TITLES = [each["ours"]["title"] for each in PANELS]
THEIRS = json.loads((FOLDER / "compiled.json").read_text(encoding="utf-8"))
TYPES = {
    **dict.fromkeys(("folder", "format", "root"), "keyword"),
    **dict.fromkeys(("size_bytes", "width", "ingest_lag_ms"), "long"),
    "embed_ms": "float",
    "indexed_at": "date",
}
COLUMNS = "datasourceStates.formBased.layers.layer"
# What either of them leaves to Kibana's defaults.
ONLY_THEIRS = {
    f"{COLUMNS}.sampling", "datasourceStates.indexpattern", "datasourceStates.textBased",
    "visualization.applyColorTo", "visualization.secondaryLabelPosition",
    "visualization.secondaryTrend", "visualization.layers.0.colorMapping",
    "visualization.layers.0.emptySizeRatio", "visualization.layers.0.legendPosition",
    *(f"visualization.columns.{n}.isMetric" for n in range(4)),
    *(f"visualization.columns.{n}.isTransposed" for n in range(4)),
}  # fmt: skip
ONLY_OURS = {
    "visualization.fittingFunction",
    "visualization.emphasizeFitting",
    "visualization.legend.isVisible",
    "visualization.yTitle",
    "visualization.axisTitlesVisibilitySettings",
}
# Where Kibana itself does as we do: it keeps a metric's filter, the greatest date is a date, and
# the breakdown stands before the axis, so that its top values are those of the whole time, and an
# area that is not stacked is called `area`.
KIBANA_IS_WITH_US = {
    ("Filtered count", f"{COLUMNS}.columns.n.filter"),
    ("Table", f"{COLUMNS}.columns.newest.dataType"),
    ("Table", f"{COLUMNS}.columns.newest.params.emptyAsNull"),
    ("Bars over time, by root", f"{COLUMNS}.columnOrder.0"),
    ("Bars over time, by root", f"{COLUMNS}.columnOrder.1"),
    ("Area", "visualization.preferredSeriesType"),
    ("Area", "visualization.layers.0.seriesType"),
}


def differing(ours: Any, theirs: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Paths at which two values differ, or at which only one of them is."""
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        ours, theirs = (dict(enumerate(each)) for each in (ours, theirs))
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in ours.keys() | theirs.keys():
            inner = (*path, str(name))
            if name in ours and name in theirs:
                yield from differing(ours[name], theirs[name], inner)
            else:
                yield ".".join(inner)
    elif ours != theirs:
        yield ".".join(path)


def their_panels() -> list[dict[str, Any]]:
    return json.loads(THEIRS["attributes"]["panelsJSON"])


@pytest.mark.parametrize("number", range(len(PANELS)), ids=TITLES)
def test_lens_panels(number: int):
    source = PANELS[number]["ours"]
    built = lens_panel("x", source, "view", TYPES)
    theirs = their_panels()[number]["embeddableConfig"]["attributes"]
    (layer,) = theirs["state"]["datasourceStates"]["formBased"]["layers"]
    theirs = json.loads(json.dumps(theirs).replace(layer, "layer"))
    ours = built["attributes"]
    assert (ours["title"], ours["visualizationType"]) == (
        theirs["title"],
        theirs["visualizationType"],
    )
    assert built["references"] == theirs["references"]
    found = set(differing(ours["state"], theirs["state"])) - ONLY_THEIRS - ONLY_OURS
    assert found == {path for title, path in KIBANA_IS_WITH_US if title == source["title"]}


def test_a_dashboard_its_controls_and_its_links():
    source = {
        "title": "Board",
        "description": "All of them.",
        "data_view": "images",
        "time": {"from": "now-50y", "to": "now"},
        "controls": ["tags"],
        "rows": [{"height": 4, "panels": [{"links": 48}]}],
    }
    built = dashboard(
        "board",
        source,
        lambda kind, name: "view" if kind == "data_views" else "board",
        links={"other": "Other"},
        lens_configs={},
    )
    for name in ("type", "coreMigrationVersion"):
        assert built[name] == THEIRS[name]
    # Theirs has nothing either that came after the schema of 8.9.
    assert (built["typeMigrationVersion"], THEIRS["typeMigrationVersion"]) == ("8.9.0", "10.2.0")
    ours, theirs = built["attributes"], THEIRS["attributes"]
    for name in ("title", "description", "timeRestore", "timeFrom", "timeTo", "version"):
        assert ours[name] == theirs[name]
    assert json.loads(ours["optionsJSON"]) == json.loads(theirs["optionsJSON"])
    assert json.loads(ours["kibanaSavedObjectMeta"]["searchSourceJSON"]) == json.loads(
        theirs["kibanaSavedObjectMeta"]["searchSourceJSON"]
    )
    group, their_group = ours["controlGroupInput"], theirs["controlGroupInput"]
    for name in ("chainingSystem", "controlStyle"):
        assert group[name] == their_group[name]
    name = "ignoreParentSettingsJSON"
    assert json.loads(group[name]) == json.loads(their_group[name])
    controls = json.loads(group["panelsJSON"]), json.loads(their_group["panelsJSON"])
    # Ours name the data view by their reference alone, as Kibana's exports do.
    assert set(differing(*controls)) == {
        "tags.explicitInput.dataViewId",
        "time.explicitInput.timesliceStartAsPercentageOfTimeRange",
        "time.explicitInput.timesliceEndAsPercentageOfTimeRange",
        "time.width",
    }
    (links,), their_links = json.loads(ours["panelsJSON"]), their_panels()[-1]
    assert links["embeddableConfig"]["attributes"] == their_links["embeddableConfig"]["attributes"]
    names = {each["name"].partition(":")[2] for each in built["references"]}
    assert names <= {each["name"].partition(":")[2] for each in THEIRS["references"]}
