"""Saved objects: everything built passes the check, and every defect is reported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from es_imgsearch.errors import FileInvalid
from es_imgsearch.kibana.build import (
    SavedObjectBuilder,
    SavedQuery,
    Target,
    create_builder,
    index_field_types,
)
from es_imgsearch.kibana.check import find_problems, parse_ndjson
from es_imgsearch.kibana.objects import slug, to_ndjson
from es_imgsearch.kibana.sources import Sources, fill_placeholders, load_sources
from es_imgsearch.settings import Settings, load_settings

SavedObject = dict[str, Any]
KNN = {
    "field": "image_embedding",
    "query_vector": [0.1, 0.2],
    "k": 60,
    "num_candidates": 90,
    "similarity": 0.2,
}


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings({"index": "holidays", "service_url": "https://pictures.example/"})


@pytest.fixture(scope="module")
def built(settings: Settings) -> list[SavedObject]:
    return create_builder(settings).build_all([SavedQuery("A dog, at sea", KNN)])


@pytest.fixture
def objects(built: list[SavedObject]) -> list[SavedObject]:
    return parse_ndjson(to_ndjson(built))


def one(objects: list[SavedObject], kind: str, end: str) -> SavedObject:
    (match,) = [each for each in objects if each["type"] == kind and each["id"].endswith(end)]
    return match


def test_everything_built_has_no_problems(built: list[SavedObject], settings: Settings):
    again = parse_ndjson(to_ndjson(built))
    assert again == built
    assert find_problems(again, index_field_types(settings)) == []


def test_ids_stay_and_are_unique(built: list[SavedObject], settings: Settings):
    keys = [(each["type"], each["id"]) for each in built]
    assert len(set(keys)) == len(keys)
    later = create_builder(settings).build_all([SavedQuery("A dog, at sea", KNN)])
    assert to_ndjson(later) == to_ndjson(built)


# Of version 0.1, for the index `holidays` and a saved search.
EARLIER = {
    "index-pattern": "data-failures data-images data-searches",
    "search": "duplicates failures gallery large-files newest nearest-a-dog-at-sea",
    "lens": "backlog by-date-taken cameras colours describe-errors different-pictures encoder-time"
    " failed failure-messages failures-by-class folders-count folders formats growth lag"
    " median-duration median-relevance megapixels orientations pictures queries-without-hits"
    " queries redundant roots search-candidates search-latency search-modes search-relevance"
    " searches-without-hits searches tags throughput total-size",
    "visualization": "gallery places same-bytes same-moment",
    "dashboard": "duplicates gallery ingest library search-quality nearest-a-dog-at-sea",
}


def test_an_import_replaces_the_objects_of_an_earlier_version(built: list[SavedObject]):
    keys = {(each["type"], each["id"]) for each in built}
    for kind, names in EARLIER.items():
        assert {(kind, f"es-imgsearch-holidays-{name}") for name in names.split()} <= keys


def test_two_indices_live_side_by_side(built: list[SavedObject]):
    other = create_builder(load_settings({"index": "products"})).build_all()
    assert not {each["id"] for each in built} & {each["id"] for each in other}


def test_thumbnails_come_from_the_service(built: list[SavedObject]):
    formats = json.loads(one(built, "index-pattern", "data-images")["attributes"]["fieldFormatMap"])
    assert (
        formats["thumbnail"]["params"]["urlTemplate"]
        == "https://pictures.example/thumbnails/{{value}}"
    )
    assert b"${" not in to_ndjson(built)


def test_titles_of_data_views_name_one_index_each(built: list[SavedObject]):
    titles = {each["attributes"]["title"] for each in built if each["type"] == "index-pattern"}
    assert titles == {"holidays", "holidays-failures", "holidays-searches"}


def test_a_saved_query_is_scored_in_its_session_and_in_its_gallery(built: list[SavedObject]):
    session = one(built, "search", "-nearest-a-dog-at-sea")
    source = json.loads(session["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])
    assert source["query"] == {"language": "lucene", "query": {"knn": KNN}}
    assert session["attributes"]["sort"] == [["_score", "desc"]]
    board = one(built, "dashboard", "-nearest-a-dog-at-sea")
    source = json.loads(board["attributes"]["kibanaSavedObjectMeta"]["searchSourceJSON"])
    # The search bar stays free for words.
    assert source == {"query": {"query": "", "language": "kuery"}, "filter": []}
    state = json.loads(
        one(built, "visualization", "-nearest-a-dog-at-sea")["attributes"]["visState"]
    )
    body = json.loads(state["params"]["spec"])["data"][0]["url"]["body"]
    (clause,) = body["query"]["bool"]["must"]
    assert clause["knn"].pop("filter")["bool"]["filter"]
    assert clause == {"knn": KNN}
    shown = {each["type"] for each in board["references"] if each["id"].endswith("-at-sea")}
    assert shown == {"search", "visualization", "dashboard"}


def test_a_saved_query_is_offered_in_every_search_bar(built: list[SavedObject]):
    query = one(built, "query", "-nearest-a-dog-at-sea")
    assert query["attributes"]["query"] == {"language": "lucene", "query": {"knn": KNN}}
    assert query["typeMigrationVersion"] == "8.0.0"


def boards(built: list[SavedObject]) -> dict[str, SavedObject]:
    return {
        each["id"].removeprefix("es-imgsearch-holidays-"): each
        for each in built
        if each["type"] == "dashboard"
    }


def test_each_dashboard_of_pictures_has_every_control(built: list[SavedObject]):
    for name, board in boards(built).items():
        controls = json.loads(board["attributes"]["controlGroupInput"]["panelsJSON"])
        ordered = sorted(controls, key=lambda each: controls[each]["order"])
        if name == "search-quality":
            assert ordered == ["kind", "mode", "host", "time"]
        elif name == "ingest":
            # Files that failed have no tags, colours, camera or year.
            assert ordered == ["root", "folder", "time"]
        else:
            pictures = ["root", "folder", "tags", "colours", "camera", "year_taken", "time"]
            assert ordered == pictures, name


def links_of(board: SavedObject) -> list[list[str]]:
    """The dashboards that each panel of links leads to, by their names."""
    ids = {each["name"]: each["id"] for each in board["references"]}
    return [
        [
            ids[f"{panel['panelIndex']}:{link['destinationRefName']}"].partition("holidays-")[2]
            for link in panel["embeddableConfig"]["attributes"]["links"]
        ]
        for panel in json.loads(board["attributes"]["panelsJSON"])
        if panel["type"] == "links"
    ]


def test_each_dashboard_leads_to_all_and_marks_itself(built: list[SavedObject]):
    own = boards(built)
    nearest = ["nearest-a-dog-at-sea"]
    for name, board in own.items():
        first, *others = links_of(board)
        assert set(first) == own.keys() - set(nearest)
        # Kibana marks the link to the dashboard that is open.
        assert others == ([nearest] if name in {"gallery", *nearest} else [])


def test_a_saved_search_by_itself_leads_to_all_and_marks_itself(settings: Settings):
    added = create_builder(settings).build_query(SavedQuery("A dog, at sea", KNN))
    (linked,) = links_of(one(added, "dashboard", "-at-sea"))
    assert linked[-1] == "nearest-a-dog-at-sea"
    assert set(linked[:-1]) == boards(create_builder(settings).build_all()).keys()


def test_what_is_written_is_the_lowest_version(built: list[SavedObject]):
    versions = {each["type"]: each["typeMigrationVersion"] for each in built}
    assert versions == {
        "index-pattern": "8.0.0",
        "search": "8.0.0",
        "lens": "8.9.0",
        "visualization": "8.5.0",
        "dashboard": "8.9.0",
        "query": "8.0.0",
        "tag": "8.0.0",
    }
    assert {each["coreMigrationVersion"] for each in built} == {"8.8.0"}


def test_everything_that_can_have_a_tag_has_one(built: list[SavedObject]):
    tag = one(built, "tag", "-tag")
    assert tag["attributes"]["name"] == "es-imgsearch holidays"
    wanted = {"type": "tag", "id": tag["id"], "name": f"tag-ref-{tag['id']}"}
    for each in built:
        can_have_one = each["type"] in {"dashboard", "visualization", "lens", "search"}
        assert (wanted in each["references"]) == can_have_one


def test_growth_sums_up_over_a_range_of_its_own(built: list[SavedObject]):
    columns = layer(one(built, "lens", "-growth"))["columns"]
    assert columns["total"]["operationType"] == "cumulative_sum"
    assert columns[columns["total"]["references"][0]]["operationType"] == "count"
    library = one(built, "dashboard", "-library")
    ids = {each["name"]: each["id"] for each in library["references"]}
    (panel,) = [
        each
        for each in json.loads(library["attributes"]["panelsJSON"])
        if ids.get(f"{each['panelIndex']}:{each.get('panelRefName')}", "").endswith("-growth")
    ]
    assert panel["embeddableConfig"]["timeRange"] == {"from": "now-90d", "to": "now"}


def test_the_backlog_is_a_number_of_files(built: list[SavedObject]):
    """As Lens stores `sum(ingest_lag_ms) / interval()`, milliseconds by milliseconds."""
    columns = layer(one(built, "lens", "-backlog"))["columns"]
    assert not [each for each in columns.values() if "timeScale" in each]
    formula = columns["waiting"]
    assert formula["operationType"] == "formula"
    quotient = columns[formula["references"][0]]
    assert quotient["params"]["tinymathAst"]["name"] == "divide"
    total, interval = (columns[name] for name in quotient["references"])
    assert (total["operationType"], total["sourceField"]) == ("sum", "ingest_lag_ms")
    assert (interval["operationType"], interval["references"]) == ("interval", [])


def test_every_chart_has_a_unit_and_no_gaps_in_its_lines(built: list[SavedObject]):
    charts = [
        each["attributes"]["state"]["visualization"]
        for each in built
        if each["type"] == "lens" and each["attributes"]["visualizationType"] == "lnsXY"
    ]
    assert len(charts) == 14
    for each in charts:
        assert each["yTitle"]
        assert each["axisTitlesVisibilitySettings"]["yLeft"]
        if each["preferredSeriesType"].startswith("bar"):
            continue
        assert (each["fittingFunction"], each["emphasizeFitting"]) == ("Linear", True)


def test_without_a_log_of_searches_nothing_asks_it(settings: Settings):
    left = create_builder(settings).without_searches().build_all()
    assert find_problems(left, index_field_types(settings)) == []
    assert b"holidays-searches" not in to_ndjson(left)
    assert "search-quality" not in boards(left)


def test_charts_and_tables_lead_to_discover(built: list[SavedObject]):
    kinds = {
        each["id"]: each["attributes"]["visualizationType"]
        for each in built
        if each["type"] == "lens"
    }
    kinds_shown = set()
    for board in boards(built).values():
        ids = {each["name"]: each["id"] for each in board["references"]}
        for panel in json.loads(board["attributes"]["panelsJSON"]):
            if panel["type"] == "lens":
                kind = kinds[ids[f"{panel['panelIndex']}:{panel['panelRefName']}"]]
                enhancements = panel["embeddableConfig"]["enhancements"]
                assert ("dynamicActions" in enhancements) == (kind != "lnsMetric")
                kinds_shown.add(kind)
    assert kinds_shown == {"lnsXY", "lnsPie", "lnsDatatable", "lnsMetric"}


def test_the_land_of_the_map_is_one_short_line(built: list[SavedObject]):
    state = json.loads(one(built, "visualization", "-places")["attributes"]["visState"])
    text = state["params"]["spec"]
    (land,) = [each for each in json.loads(text)["data"] if each["name"] == "land"]
    assert json.loads(land["values"])["objects"].keys() == {land["format"]["feature"]}
    assert len(land["values"]) < 60_000
    # People edit the rest in Kibana.
    assert sorted(len(line) for line in text.splitlines())[-2] < 400


def attributes(change: Callable[[Any], None], name: str) -> Callable[[SavedObject], None]:
    """A change of a JSON string among the attributes; a dot leads into one of them."""

    def of(each: SavedObject) -> None:
        holder = each["attributes"]
        *path, last = name.split(".")
        for part in path:
            holder = holder[part]
        value = json.loads(holder[last])
        change(value)
        holder[last] = json.dumps(value)

    return of


def layer(each: SavedObject) -> dict[str, Any]:
    return each["attributes"]["state"]["datasourceStates"]["formBased"]["layers"]["layer"]


def vega(change: Callable[[Any], None]) -> Callable[[SavedObject], None]:
    def of(state: Any) -> None:
        spec = json.loads(state["params"]["spec"])
        change(spec)
        state["params"]["spec"] = json.dumps(spec)

    return attributes(of, "visState")


SEARCH_SOURCE = "kibanaSavedObjectMeta.searchSourceJSON"
DEFECTS: list[tuple[str, str, Callable[[SavedObject], Any], str]] = [
    ("search", "-gallery", lambda o: o.pop("typeMigrationVersion"), "has no typeMigrationVersion"),
    ("search", "-gallery", lambda o: o.update(typeMigrationVersion="10.6.0"), "newer than 8.0.0"),
    ("lens", "-tags", lambda o: o.update(coreMigrationVersion="9.0.0"), "newer than 8.8.0"),
    ("search", "-gallery", lambda o: o["attributes"].pop("title"), "'title' is a required"),
    ("search", "-gallery", lambda o: o["attributes"].update(tabs=[]), "'tabs' was unexpected"),
    ("search", "-gallery", lambda o: o["attributes"]["columns"].append("colour"), "no field 'col"),
    (
        "search",
        "-gallery",
        lambda o: o["attributes"].update(sort=[["caption", "asc"]]),
        "'caption' is text, which does not fit to sort by",
    ),
    (
        "search",
        "-failures",
        lambda o: o["attributes"].update(breakdownField="attempts"),
        "does not fit to break down by",
    ),
    (
        "search",
        "-large-files",
        attributes(lambda s: s["query"].update(query="size > 1"), SEARCH_SOURCE),
        "no field 'size'",
    ),
    (
        "search",
        "-nearest-a-dog-at-sea",
        attributes(lambda s: s["query"]["query"]["knn"].update(field="vector"), SEARCH_SOURCE),
        "no field 'vector'",
    ),
    ("search", "-newest", lambda o: o["references"].clear(), "uses the reference"),
    (
        "search",
        "-newest",
        lambda o: o["references"][0].update(id="elsewhere"),
        "leads to index-pattern/elsewhere, which the file does not have",
    ),
    (
        "search",
        "-newest",
        lambda o: o["references"].append({"type": "lens", "id": "x", "name": "y"}),
        "has the reference 'y', which it does not use",
    ),
    ("search", "-newest", lambda o: o["references"].append(o["references"][0]), "the same name"),
    (
        "index-pattern",
        "data-images",
        attributes(lambda f: f.update(nothing={"id": "bytes"}), "fieldFormatMap"),
        "no field 'nothing'",
    ),
    (
        "index-pattern",
        "data-images",
        lambda o: o["attributes"].update(timeFieldName="camera"),
        "does not fit as the time",
    ),
    (
        "index-pattern",
        "data-images",
        lambda o: o["attributes"].update(fieldAttrs="{"),
        "cannot be read further",
    ),
    (
        "lens",
        "-tags",
        lambda o: layer(o)["columns"]["tag"].update(sourceField="caption"),
        "'caption' is text, which does not fit for terms",
    ),
    (
        "lens",
        "-lag",
        lambda o: layer(o)["columns"]["p95"].update(sourceField="camera"),
        "does not fit for percentile",
    ),
    ("lens", "-tags", lambda o: layer(o)["columnOrder"].reverse(), "a metric precedes"),
    ("lens", "-tags", lambda o: layer(o)["columnOrder"].pop(), "columnOrder names other columns"),
    (
        "lens",
        "-tags",
        lambda o: layer(o)["columns"]["tag"]["params"]["orderBy"].update(columnId="x"),
        "ordered by 'x'",
    ),
    (
        "lens",
        "-tags",
        lambda o: o["attributes"]["state"]["visualization"]["layers"][0].update(accessors=[]),
        "the column 'count' is either not shown or not defined",
    ),
    (
        "visualization",
        "-gallery",
        vega(lambda s: s["data"][0]["url"]["body"].update(query={"match_all": {}})),
        "%context% and a query of its own",
    ),
    (
        "visualization",
        "-gallery",
        vega(lambda s: s["data"][0]["url"].update(timeout=1)),
        "has timeout, which Kibana does not pass on",
    ),
    (
        "visualization",
        "-gallery",
        vega(lambda s: s["data"][0]["url"].update(index="holidays*")),
        "queries the index 'holidays*'",
    ),
    (
        "visualization",
        "-places",
        vega(
            lambda s: s["data"][0]["url"]["body"]["aggs"]["places"]["geotile_grid"].update(
                field="place"
            )
        ),
        "no field 'place'",
    ),
    ("visualization", "-places", vega(lambda s: s.pop("$schema")), "names no Vega schema"),
    (
        "dashboard",
        "-library",
        attributes(lambda p: p[1]["gridData"].update(y=0), "panelsJSON"),
        "overlap",
    ),
    (
        "dashboard",
        "-library",
        attributes(lambda p: p[-1]["gridData"].update(x=1), "panelsJSON"),
        "wider than the grid",
    ),
    (
        "dashboard",
        "-library",
        attributes(lambda p: p[1]["gridData"].update(i="other"), "panelsJSON"),
        "has the id 'other' on the grid",
    ),
    (
        "dashboard",
        "-library",
        attributes(lambda p: p[1].update(panelRefName="panel_gone"), "panelsJSON"),
        "uses the reference 'panel1:panel_gone', which it does not have",
    ),
    (
        "dashboard",
        "-library",
        attributes(lambda p: p[1].update(type="search"), "panelsJSON"),
        "is no lens",
    ),
    (
        "dashboard",
        "-library",
        attributes(
            lambda p: p[0]["embeddableConfig"]["attributes"]["links"][0]["options"].pop(
                "openInNewTab"
            ),
            "panelsJSON",
        ),
        "links.0",
    ),
    (
        "dashboard",
        "-library",
        attributes(
            lambda c: c["tags"]["explicitInput"].update(fieldName="caption"),
            "controlGroupInput.panelsJSON",
        ),
        "'caption' is text, which does not fit for a control",
    ),
    (
        "dashboard",
        "-library",
        attributes(
            lambda c: c["tags"]["explicitInput"].update(id="other"),
            "controlGroupInput.panelsJSON",
        ),
        "another id in explicitInput",
    ),
]


@pytest.mark.parametrize(
    ("kind", "end", "damage", "message"), DEFECTS, ids=[each[3][:40] for each in DEFECTS]
)
def test_a_defect_is_reported(
    objects: list[SavedObject],
    settings: Settings,
    kind: str,
    end: str,
    damage: Callable[[SavedObject], Any],
    message: str,
):
    bad = one(objects, kind, end)
    damage(bad)
    problems = [str(each) for each in find_problems(objects, index_field_types(settings))]
    assert any(message in each for each in problems), problems
    # Panels go by the time of their data view.
    if kind != "index-pattern":
        assert all(each.startswith(f"{kind}/{bad['id']}: ") for each in problems)


def test_duplicate_objects_are_reported(objects: list[SavedObject], settings: Settings):
    problems = find_problems([*objects, objects[0]], index_field_types(settings))
    assert [each.what for each in problems] == ["the file has it 2 times"]


def test_an_unsupported_type_is_reported(settings: Settings):
    (problem,) = find_problems([{"type": "map", "id": "m", "attributes": {}, "references": []}])
    assert "'map' is none of" in problem.what


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no saved objects"),
        (b"{", "Line 1 is not JSON"),
        (b"[]", "Line 1 is not an object"),
        (b'\n{"type": "lens"}', "Line 2 has no type and id"),
    ],
)
def test_an_invalid_file_is_refused(content: bytes, message: str):
    with pytest.raises(FileInvalid, match=message):
        parse_ndjson(content)


def test_objects_have_the_shape_of_exports(built: list[SavedObject]):
    """Exports of Kibana have these top-level keys, and some that an import replaces."""
    for each in built:
        assert each.keys() == {
            "type",
            "id",
            "attributes",
            "references",
            "coreMigrationVersion",
            "typeMigrationVersion",
        }


PROPERTIES = {
    "images": {"tags": {"type": "keyword"}, "at": {"type": "date"}},
    "failures": {},
    "searches": {},
}


def sources(**kinds: dict[str, Any]) -> Sources:
    view = {"title": "i", "timeFieldName": "at"}
    views = {"images": view, "failures": view, "searches": view}
    given = {"data_views": views, "discover": {}, "lens": {}, "vega": {}, "dashboards": {}}
    return Sources({**given, **kinds})


@pytest.mark.parametrize(
    ("panel", "message"),
    [
        ({}, "has to have one of metric, table"),
        ({"metric": {"x": {"operationType": "mode", "label": "l"}}}, "unknown operation 'mode'"),
        (
            {"metric": {"x": {"operationType": "sum", "sourceField": "size", "label": "l"}}},
            "aggregates 'size'",
        ),
    ],
)
def test_an_invalid_panel_is_refused(panel: dict[str, Any], message: str):
    bad = {"bad": {"title": "Bad", "data_view": "images", **panel}}
    with pytest.raises(FileInvalid, match=message):
        SavedObjectBuilder(Target("i", "", PROPERTIES), sources(lens=bad)).build_all()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([{"lens/gone": 10}], "refers to lens/gone"),
        ([{"lens/tags": 30}, {"lens/tags": 30}], "60 columns wide"),
        ([{"map/here": 10}], "has a panel 'map/here'"),
    ],
)
def test_an_invalid_dashboard_is_refused(row: list[dict[str, int]], message: str):
    count = {"metric": {"n": {"operationType": "count", "label": "n"}}}
    panel = {"tags": {"title": "Tags", "data_view": "images", **count}}
    board = {
        "title": "i, board",
        "data_view": "images",
        "time": {"from": "now-1y", "to": "now"},
        "controls": [],
        "rows": [{"height": 5, "panels": row}],
    }
    given = sources(lens=panel, dashboards={"board": board})
    with pytest.raises(FileInvalid, match=message):
        SavedObjectBuilder(Target("i", "", PROPERTIES), given).build_all()


def test_an_unknown_placeholder_is_refused():
    with pytest.raises(FileInvalid, match=r"\$\{host\}"):
        fill_placeholders({"a": ["${host}"]}, {"index": "i"}, "file.yaml")


def test_a_malformed_source_is_refused(tmp_path: Path):
    for kind in ("data_views", "discover", "lens", "vega", "dashboards"):
        (tmp_path / kind).mkdir()
    (tmp_path / "queries.yaml").write_text("[]")
    (tmp_path / "lens" / "bad.yaml").write_text("a: [")
    with pytest.raises(FileInvalid, match=r"bad\.yaml is not YAML"):
        load_sources({}, tmp_path)
    (tmp_path / "lens" / "bad.yaml").write_text("- a")
    with pytest.raises(FileInvalid, match="has to be a mapping"):
        load_sources({}, tmp_path)


@pytest.mark.parametrize(
    ("text", "name"),
    [("Sunset over the sea!", "sunset-over-the-sea"), ("日の出", "日の出"), ("??", "query")],
)
def test_slugs(text: str, name: str):
    assert slug(text) == name


@pytest.mark.parametrize(
    ("fields", "taken"),
    [
        ({"taken_at", "taken_local"}, "taken_local"),
        ({"taken_at"}, "taken_at"),
    ],
)
def test_dates_of_taking_are_the_cameras_own_where_the_index_has_them(
    settings: Settings, fields: set[str], taken: str
):
    described = create_builder(settings)._target.properties["images"]
    properties = {name: each for name, each in described.items() if not name.startswith("taken_")}
    properties |= {name: {"type": "date"} for name in fields}
    built = create_builder(settings, properties).build_all()
    assert find_problems(built, index_field_types(settings, properties)) == []
    columns = layer(one(built, "lens", "-by-date-taken"))["columns"]
    assert columns["taken"]["sourceField"] == taken
    assert columns["count"]["filter"]["query"] == f"{taken}: *"
    view = one(built, "index-pattern", "data-images")["attributes"]
    assert (
        f"doc['{taken}']" in json.loads(view["runtimeFieldMap"])["year_taken"]["script"]["source"]
    )
    assert json.loads(view["fieldAttrs"])[taken] == {"customLabel": "Taken"}
    assert taken in one(built, "search", "-duplicates")["attributes"]["columns"]


def test_a_new_index_has_the_cameras_own_dates(built: list[SavedObject]):
    assert layer(one(built, "lens", "-by-date-taken"))["columns"]["taken"]["sourceField"] == (
        "taken_local"
    )
    spec = json.loads(one(built, "visualization", "-same-moment")["attributes"]["visState"])
    assert '"field": "taken_local"' in spec["params"]["spec"]
