"""`kibana check` names each fault with which Kibana opens an object and shows something wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from es_imgsearch.kibana.build import SavedQuery, create_builder, index_field_types
from es_imgsearch.kibana.check import find_problems, parse_ndjson
from es_imgsearch.kibana.objects import to_ndjson
from es_imgsearch.settings import Settings, load_settings
from tests.unit.kibana.test_objects import KNN, SEARCH_SOURCE, attributes, layer, one, vega

SavedObject = dict[str, Any]
INDICES = {"holidays", "holidays-failures", "holidays-searches"}
AT_SEA = "-nearest-a-dog-at-sea"


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings({"index": "holidays"})


@pytest.fixture(scope="module")
def content(settings: Settings) -> bytes:
    queries = [SavedQuery("A dog, at sea", KNN), SavedQuery("A cat", KNN)]
    return to_ndjson(create_builder(settings).build_all(queries))


def found(objects: list[SavedObject], settings: Settings, **given: Any) -> list[str]:
    given = {"indices": INDICES, **given}
    return [str(each) for each in find_problems(objects, index_field_types(settings), **given)]


def drawn(each: SavedObject) -> dict[str, Any]:
    return each["attributes"]["state"]["visualization"]


def panels(change: Callable[[list[Any]], Any]) -> Callable[[SavedObject], None]:
    return attributes(change, "panelsJSON")


def without_panels(kind: str, content: str = "") -> Callable[[SavedObject], None]:
    """Remove the panels of a type, with their references."""

    def of(each: SavedObject) -> None:
        ids = {one["name"]: one["id"] for one in each["references"]}

        def remove(all_panels: list[Any]) -> None:
            gone = [
                panel
                for panel in all_panels
                if panel["type"] == kind
                and ids.get(f"{panel['panelIndex']}:{panel.get('panelRefName')}", "").endswith(
                    content
                )
            ]
            for panel in gone:
                all_panels.remove(panel)
                each["references"] = [
                    one
                    for one in each["references"]
                    if not one["name"].startswith(f"{panel['panelIndex']}:")
                ]

        panels(remove)(each)

    return of


def without_link(name: str) -> Callable[[SavedObject], None]:
    """Remove the link to a dashboard, with its reference."""

    def of(each: SavedObject) -> None:
        def remove(all_panels: list[Any]) -> None:
            for panel in all_panels:
                shown = panel["embeddableConfig"].get("attributes", {}).get("links", [])
                shown[:] = [link for link in shown if link["id"] != name]

        panels(remove)(each)
        each["references"] = [
            one for one in each["references"] if not one["name"].endswith(f":link_{name}_dashboard")
        ]

    return of


def knn_in_vega(change: Callable[[dict[str, Any]], Any]) -> Callable[[SavedObject], None]:
    return vega(lambda spec: change(spec["data"][0]["url"]["body"]))


def into_filter(body: dict[str, Any]) -> None:
    clauses = body["query"]["bool"]
    clauses["filter"] = clauses.pop("must")


def beside(body: dict[str, Any]) -> None:
    body["knn"] = body.pop("query")["bool"]["must"][0]["knn"]


def pill(query: dict[str, Any]) -> Callable[[SavedObject], None]:
    meta = {"type": "custom", "disabled": False, "negate": False, "alias": "a"}
    return attributes(
        lambda source: source["filter"].append({"meta": meta, "query": query}), SEARCH_SOURCE
    )


def with_control(each: SavedObject) -> None:
    def add(controls: dict[str, Any]) -> None:
        controls["tags"] = json.loads(json.dumps(controls["root"]))
        controls["tags"]["explicitInput"] |= {"id": "tags", "fieldName": "tags"}

    attributes(add, "controlGroupInput.panelsJSON")(each)
    (view,) = [one for one in each["references"] if one["name"].startswith("controlGroup_root")]
    each["references"].append({**view, "name": "controlGroup_tags:optionsListDataView"})


def counted_again(each: SavedObject) -> None:
    """Growth as it was: a count a bucket."""
    columns = layer(each)["columns"]
    columns["total"] = columns.pop("total_each")
    layer(each)["columnOrder"].remove("total_each")


def scaled_again(each: SavedObject) -> None:
    """The backlog as it was: a sum of seconds by second."""
    columns = layer(each)["columns"]
    columns["waiting"] = {**columns["waitingX0"], "label": "Files on their way", "timeScale": "s"}
    for name in ("waitingX0", "waitingX1", "waitingX2"):
        del columns[name]
        layer(each)["columnOrder"].remove(name)


def untagged(each: SavedObject) -> None:
    each["references"] = [one for one in each["references"] if one["type"] != "tag"]


def plain_dots(each: SavedObject) -> None:
    drawn(each).update(fittingFunction="None")


FAULTS: list[tuple[str, str, Callable[[SavedObject], Any], str]] = [
    # A click on the map.
    (
        "visualization",
        "-places",
        vega(
            lambda s: [
                each["on"][0].update(
                    update=each["on"][0]["update"].replace("ignore_unmapped: true, ", "")
                )
                for each in s["signals"]
                if each["name"] == "chosen"
            ]
        ),
        "filter geo_bounding_box without ignore_unmapped",
    ),
    (
        "visualization",
        "-places",
        vega(
            lambda s: [
                each["on"][0].update(
                    update=each["on"][0]["update"].replace(
                        "ignore_unmapped: true", "ignore_unmapped: false"
                    )
                )
                for each in s["signals"]
                if each["name"] == "chosen"
            ]
        ),
        "filter geo_bounding_box without ignore_unmapped",
    ),
    ("dashboard", "-library", pill({"geo_distance": {"location": "0,0"}}), "geo_distance has no"),
    ("dashboard", "-library", pill({"nested": {"path": "regions"}}), "nested has no"),
    ("dashboard", "-library", pill({"geo_shape": {"location": {}}}), "geo_shape has no"),
    # Time.
    (
        "lens",
        "-by-date-taken",
        lambda o: layer(o)["columns"]["taken"]["params"].pop("ignoreTimeRange"),
        "the time range goes by 'taken",
    ),
    (
        "lens",
        "-by-date-taken",
        lambda o: layer(o)["columns"]["taken"]["params"].update(interval="auto"),
        "no fixed interval",
    ),
    (
        "lens",
        "-throughput",
        lambda o: layer(o)["columns"]["time"].update(sourceField="modified_at"),
        "the time range goes by 'modified_at'",
    ),
    ("lens", "-growth", counted_again, "sums nothing up"),
    *[
        (
            "dashboard",
            "-library",
            lambda o, start=start: (
                o["attributes"].update(timeFrom=start),
                panels(lambda p: [each["embeddableConfig"].pop("timeRange", None) for each in p])(
                    o
                ),
            ),
            f"draws {years} years of 'indexed_at', a bar a year",
        )
        for start, years in [
            ("now-50y", 50),
            ("now-5y", 5),
            ("now-120M", 9),
            ("now-3650d", 10),
            ("now-20y/y", 20),
            ("1970-01-01T00:00:00.000Z", datetime.now(tz=UTC).year - 1970),
        ]
    ],
    ("lens", "-backlog", scaled_again, "its values end in “/s”"),
    ("lens", "-throughput", lambda o: layer(o)["columns"]["rate"].update(label="Pictures"), "“/m”"),
    # Axes and lines.
    ("lens", "-lag", lambda o: drawn(o).pop("yTitle"), "y axis has no title"),
    ("lens", "-tags", lambda o: drawn(o).update(yTitle=""), "y axis has no title"),
    ("lens", "-lag", plain_dots, "single ones are dots"),
    ("lens", "-search-latency", lambda o: drawn(o).pop("emphasizeFitting"), "single ones are dots"),
    ("lens", "-backlog", plain_dots, "single ones are dots"),
    (
        "lens",
        "-tags",
        lambda o: drawn(o)["layers"][0].update(seriesType="area_percentage_stacked"),
        "single ones are dots",
    ),
    (
        "lens",
        "-throughput",
        lambda o: layer(o)["columns"]["rate"].update(label="Things and days"),
        "“/m”",
    ),
    # Nearness.
    ("visualization", AT_SEA, knn_in_vega(into_filter), "stands in a filter"),
    ("dashboard", "-gallery", pill({"knn": KNN}), "stands in a filter"),
    ("dashboard", "-gallery", pill({"bool": {"must": [{"knn": KNN}]}}), "stands in a filter"),
    (
        "visualization",
        AT_SEA,
        knn_in_vega(lambda b: b["query"]["bool"]["must"][0]["knn"].pop("similarity")),
        "no cut-off",
    ),
    (
        "search",
        AT_SEA,
        attributes(lambda s: s["query"]["query"]["knn"].pop("similarity"), SEARCH_SOURCE),
        "no cut-off",
    ),
    (
        "query",
        AT_SEA,
        lambda o: o["attributes"]["query"]["query"]["knn"].pop("similarity"),
        "no cut-off",
    ),
    (
        "visualization",
        AT_SEA,
        knn_in_vega(lambda b: b.update(sort=[{"indexed_at": "desc"}])),
        "not sorted by _score",
    ),
    (
        "search",
        AT_SEA,
        lambda o: o["attributes"].update(sort=[["indexed_at", "desc"]]),
        "not sorted by _score",
    ),
    ("visualization", AT_SEA, knn_in_vega(beside), "gets none of the dashboard's filters"),
    (
        "dashboard",
        "-ingest",
        attributes(
            lambda s: s.update(query={"language": "lucene", "query": {"knn": KNN}}), SEARCH_SOURCE
        ),
        "its kNN query fails in the panel",
    ),
    (
        "visualization",
        "-gallery",
        lambda o: o["attributes"].update(description="What the query leaves, best first."),
        "promises the best first",
    ),
    (
        "search",
        "-gallery",
        lambda o: o["attributes"].update(description="Every picture, nearest first."),
        "promises the best first",
    ),
    # Sessions in Discover.
    ("search", "-gallery", lambda o: o["attributes"].pop("timeRestore"), "last 15 minutes"),
    ("search", "-failures", lambda o: o["attributes"].update(timeRestore=False), "last 15 minutes"),
    ("search", AT_SEA, lambda o: o["attributes"].pop("timeRange"), "last 15 minutes"),
    (
        "search",
        "-gallery",
        lambda o: o["attributes"].update(columns=["image_name"]),
        "image_name.keyword can",
    ),
    (
        "search",
        "-duplicates",
        lambda o: o["attributes"]["columns"].append("content_id"),
        "shows hashes",
    ),
    # Controls.
    ("dashboard", "-ingest", with_control, "'tags' empties the panel"),
    # Versions.
    ("dashboard", "-gallery", lambda o: o.update(typeMigrationVersion="10.2.0"), "than 8.9.0"),
    ("search", "-newest", lambda o: o.update(typeMigrationVersion="10.5.0"), "than 8.0.0"),
    ("query", AT_SEA, lambda o: o.update(typeMigrationVersion="10.2.0"), "than 8.0.0"),
    ("tag", "-tag", lambda o: o.update(typeMigrationVersion="8.8.0"), "than 8.0.0"),
    # Saved queries and tags.
    (
        "query",
        AT_SEA,
        lambda o: o["attributes"]["query"].update(language="kuery"),
        "in the language lucene only",
    ),
    ("query", AT_SEA, lambda o: o["attributes"].update(titleKeyword="a"), "'titleKeyword' was"),
    (
        "query",
        AT_SEA,
        lambda o: o["attributes"]["query"]["query"]["knn"].update(field="vector"),
        "no field 'vector'",
    ),
    ("tag", "-tag", lambda o: o["attributes"].update(color="red"), "color"),
    ("tag", "-tag", lambda o: o["attributes"].update(name=" "), "has no name"),
    ("lens", "-tags", untagged, "none of the file's tags"),
    ("dashboard", "-gallery", untagged, "none of the file's tags"),
    # Links and pictures.
    ("dashboard", "-gallery", without_link("gallery"), "do not have the dashboard itself"),
    ("dashboard", "-gallery", without_panels("search"), "lets Vega load them"),
    ("dashboard", AT_SEA, without_panels("search"), "lets Vega load them"),
    ("visualization", "-gallery", vega(lambda s: s.pop("usermeta")), "replaces the dashboard"),
    ("visualization", AT_SEA, vega(lambda s: s.pop("usermeta")), "replaces the dashboard"),
    (
        "visualization",
        "-same-bytes",
        vega(lambda s: s["usermeta"]["embedOptions"]["loader"].update(target="_self")),
        "replaces the dashboard",
    ),
    (
        "lens",
        "-redundant",
        lambda o: drawn(o)["columns"][0].pop("hidden"),
        "'content' shows hashes",
    ),
    # Failures.
    ("lens", "-failed", lambda o: drawn(o).pop("palette"), "colour of everything else"),
    (
        "lens",
        "-failures-by-class",
        lambda o: drawn(o)["layers"][0].pop("palette"),
        "colours of everything else",
    ),
    (
        "lens",
        "-failed",
        lambda o: o["attributes"]["state"]["query"].update(query="attempts > 1"),
        "leaves out the panel's own query",
    ),
    (
        "lens",
        "-growth",
        lambda o: layer(o)["columns"]["total"].update(references=["gone"]),
        "computed from 'gone'",
    ),
]


def test_there_are_no_false_alarms(content: bytes, settings: Settings):
    assert found(parse_ndjson(content), settings) == []


@pytest.mark.parametrize(
    ("kind", "end", "damage", "message"),
    FAULTS,
    ids=[f"{each[0]}{each[1]}: {each[3]}" for each in FAULTS],
)
def test_a_fault_is_named(
    content: bytes,
    settings: Settings,
    kind: str,
    end: str,
    damage: Callable[[SavedObject], Any],
    message: str,
):
    objects = parse_ndjson(content)
    bad = one(objects, kind, end)
    damage(bad)
    problems = found(objects, settings)
    assert any(message in each for each in problems), problems
    assert any(each.startswith(f"{kind}/{bad['id']}: ") for each in problems)
    assert not any("cannot be read further" in each for each in problems)


def test_a_panel_on_failures_that_a_control_empties(content: bytes, settings: Settings):
    objects = parse_ndjson(content)
    del layer(one(objects, "lens", "-failed"))["ignoreGlobalFilters"]
    problems = found(objects, settings)
    for name in ("tags", "colours", "camera", "year_taken"):
        assert any(f"control on {name!r} empties" in each for each in problems), name
    assert not any("control on 'root' empties" in each for each in problems)


def test_a_picture_that_the_data_view_shows_as_a_hash(content: bytes, settings: Settings):
    objects = parse_ndjson(content)
    view = one(objects, "index-pattern", "data-images")
    attributes(lambda formats: formats.pop("image_id"), "fieldFormatMap")(view)
    assert any("'picture' shows hashes (image_id)" in each for each in found(objects, settings))


@pytest.mark.parametrize("name", ["-gallery", AT_SEA])
def test_a_dashboard_to_which_none_leads(content: bytes, settings: Settings, name: str):
    objects = parse_ndjson(content)
    bad = one(objects, "dashboard", name)
    for each in objects:
        if each["type"] == "dashboard":
            without_link(bad["id"].partition("holidays-")[2])(each)
    problems = found(objects, settings)
    assert f"dashboard/{bad['id']}: no other dashboard of the file leads to it" in problems


@pytest.mark.parametrize("missing", sorted(INDICES))
def test_a_missing_index_is_named(content: bytes, settings: Settings, missing: str):
    objects = parse_ndjson(content)
    problems = found(objects, settings, indices=INDICES - {missing})
    assert len(problems) == 1
    assert f"there is no index {missing!r}" in problems[0]
    assert "es-imgsearch init" in problems[0]
    # Without a server nobody knows.
    assert found(objects, settings, indices=None) == []


def test_a_saved_search_by_itself(settings: Settings):
    builder = create_builder(settings)
    added = builder.build_query(SavedQuery("A dog, at sea", KNN))
    assert found(added, settings, known=builder.build_all()) == []
    # By themselves they refer to what has to be there.
    alone = found(added, settings)
    assert len([each for each in alone if "which the file does not have" in each]) == len(alone)
    one(added, "dashboard", AT_SEA)["references"][0]["id"] = "elsewhere"
    assert len(found(added, settings, known=builder.build_all())) == 1
