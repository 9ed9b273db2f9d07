"""The exact filter clauses of every kind of field and value."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from es_imgsearch.describe.colours import SHADES
from es_imgsearch.elastic.mapping import load_json
from es_imgsearch.errors import FilterInvalid
from es_imgsearch.read.decoding import _FORMATS, PICTURE_SUFFIXES
from es_imgsearch.read.rare_formats import RAW_SUFFIXES
from es_imgsearch.search.filtering.values import spellings, stored_name
from es_imgsearch.search.filters import filter_clauses, parse_filters

PROPERTIES: dict[str, Any] = {
    **load_json("mappings", "common.json")["mappings"]["properties"],
    "image_embedding": {"type": "dense_vector", "dims": 3},
    "regions": {"type": "nested", "properties": {"box": {"type": "integer"}}},
    "checked": {"type": "boolean"},
    # An object: the server leaves its type out.
    "owner": {"properties": {"name": {"type": "keyword"}}},
}


def term(field: str, value: str) -> dict[str, Any]:
    return {"term": {field: {"value": value, "case_insensitive": True}}}


def any_of(*clauses: dict[str, Any]) -> dict[str, Any]:
    return {"bool": {"should": list(clauses), "minimum_should_match": 1}}


def clause(field: str, value: Any) -> dict[str, Any]:
    (clause_body,) = filter_clauses({field: value}, PROPERTIES)
    return clause_body


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        # keywords
        ("format", "jpeg", term("format", "jpeg")),
        ("camera", 'He said "5 cm"', term("camera", 'He said "5 cm"')),
        ("product_id", 17, {"term": {"product_id": "17"}}),
        ("creator", "a..b", term("creator", "a..b")),
        ("format", ("a", "c"), {"range": {"format": {"gte": "a", "lte": "c"}}}),
        ("tags", ["cat", "dog"], any_of(term("tags", "cat"), term("tags", "dog"))),
        ("tags", ["cat"], term("tags", "cat")),
        # as a frame's or an array's values come
        ("width", np.int64(512), {"term": {"width": 512}}),
        ("width", (np.int16(5), np.float32(7)), {"range": {"width": {"gte": 5, "lte": 7}}}),
        ("tags", list(np.array(["cat", "dog"])), any_of(term("tags", "cat"), term("tags", "dog"))),
        ("tags", [], {"match_none": {}}),
        ("camera", None, {"bool": {"must_not": [{"exists": {"field": "camera"}}]}}),
        ("tags", ["cat", None], {"bool": {
            "should": [term("tags", "cat"),
                       {"bool": {"must_not": [{"exists": {"field": "tags"}}]}}],
            "minimum_should_match": 1}}),
        # folders
        ("folder", "2024/May", term("folder.tree", "2024/May")),
        ("folder", "/2024/May/", term("folder.tree", "2024/May")),
        ("folder", ".", {"term": {"folder.tree": "."}}),
        ("folder", "", {"term": {"folder.tree": "."}}),
        ("folder", "/", {"term": {"folder.tree": "."}}),
        # A name that is not UTF-8, as the shell hands it over; and as a hit shows it.
        ("folder", "caf\udce9", term("folder.tree", "caf\\xe9")),
        ("folder", "caf\\xe9", term("folder.tree", "caf\\xe9")),
        ("relative_path", "caf\udce9/a", {"term": {"relative_path": "caf\\xe9/a"}}),
        ("image_name", "\udce9.jpg", term("image_name.keyword", "\\xe9.jpg")),
        # texts
        ("image_name", "IMG 1.jpg", term("image_name.keyword", "IMG 1.jpg")),
        ("caption", "a cat", {"match": {"caption": {"query": "a cat", "operator": "and"}}}),
        # flattened
        ("attributes.colour", "red", term("attributes.colour", "red")),
        ("attributes.a.b", "1..2", {"term": {"attributes.a.b": "1..2"}}),
        ("attributes", "red", term("attributes", "red")),
        ("attributes.colour", None,
         {"bool": {"must_not": [{"exists": {"field": "attributes.colour"}}]}}),
        # numbers
        ("embed_ms", "1e300", {"term": {"embed_ms": 1e300}}),
        ("mtime_ns", -(2**63), {"term": {"mtime_ns": -(2**63)}}),
        ("width", 640, {"term": {"width": 640}}),
        ("width", "640", {"term": {"width": 640}}),
        ("width", "640.0", {"term": {"width": 640}}),
        ("embed_ms", "1.5", {"term": {"embed_ms": 1.5}}),
        ("width", "100..200", {"range": {"width": {"gte": 100, "lte": 200}}}),
        ("width", "100..", {"range": {"width": {"gte": 100}}}),
        ("width", "..200", {"range": {"width": {"lte": 200}}}),
        ("embed_ms", "-0.5..1.5", {"range": {"embed_ms": {"gte": -0.5, "lte": 1.5}}}),
        ("width", (100, None), {"range": {"width": {"gte": 100}}}),
        ("width", (None, 2.5), {"range": {"width": {"lte": 2.5}}}),
        # A float on the way would change it.
        ("mtime_ns", 1763800000123456789, {"term": {"mtime_ns": 1763800000123456789}}),
        ("mtime_ns", "1763800000123456789..",
         {"range": {"mtime_ns": {"gte": 1763800000123456789}}}),
        # Ends that the type cannot hold: the server refuses them.
        ("width", "..1e15", {"range": {"width": {"lte": 2**31 - 1}}}),
        ("width", (-(10**15), 100), {"range": {"width": {"gte": -(2**31), "lte": 100}}}),
        ("width", (2**31, None), {"match_none": {}}),
        ("width", (None, -(2**31) - 1), {"match_none": {}}),
        ("mtime_ns", (None, 1e30), {"range": {"mtime_ns": {"lte": 2**63 - 1}}}),
        ("mtime_ns", (1e30, None), {"match_none": {}}),
        # places
        *(
            ("location", place, {"geo_distance": {
                "distance": "5km", "location": {"lat": 48.2, "lon": 16.37}}})
            for place in ((48.2, 16.37, "5km"), "48.2,16.37,5km", " 48.2, 16.37, 5 km")
        ),
        ("location", None, {"bool": {"must_not": [{"exists": {"field": "location"}}]}}),
        ("location", [(0, 0, "1mi"), "1,2,0.5nmi"], {"bool": {
            "should": [{"geo_distance": {"distance": "1mi", "location": {"lat": 0.0, "lon": 0.0}}},
                       {"geo_distance": {"distance": "0.5nmi",
                                         "location": {"lat": 1.0, "lon": 2.0}}}],
            "minimum_should_match": 1}}),
        # booleans
        ("checked", True, {"term": {"checked": True}}),
        ("checked", "true", {"term": {"checked": True}}),
        ("checked", "No", {"term": {"checked": False}}),
        # dates
        ("modified_at", "2024", {"range": {"modified_at": {"gte": "2024||/y", "lte": "2024||/y"}}}),
        ("modified_at", 2024, {"range": {"modified_at": {"gte": "2024||/y", "lte": "2024||/y"}}}),
        ("modified_at", "2024-05",
         {"range": {"modified_at": {"gte": "2024-05||/M", "lte": "2024-05||/M"}}}),
        ("modified_at", date(2024, 5, 31),
         {"range": {"modified_at": {"gte": "2024-05-31||/d", "lte": "2024-05-31||/d"}}}),
        ("modified_at", "2024..2024-05",
         {"range": {"modified_at": {"gte": "2024||/y", "lte": "2024-05||/M"}}}),
        ("modified_at", "2024-05-31 18:00",
         {"range": {"modified_at": {"gte": "2024-05-31T18:00", "lte": "2024-05-31T18:00"}}}),
        ("modified_at", ("2024-05-31T18:00:00.500Z", None),
         {"range": {"modified_at": {"gte": "2024-05-31T18:00:00.500Z"}}}),
        ("modified_at", "2024-05-31T18:00:00.500..2024-06-01T00:00:00.250",
         {"range": {"modified_at": {"gte": "2024-05-31T18:00:00.500",
                                 "lte": "2024-06-01T00:00:00.250"}}}),
        ("modified_at", (datetime(2024, 5, 31, 18, tzinfo=UTC), None),
         {"range": {"modified_at": {"gte": "2024-05-31T18:00:00+00:00"}}}),
        ("modified_at", np.datetime64("2024-05-31"),
         {"range": {"modified_at": {"gte": "2024-05-31||/d", "lte": "2024-05-31||/d"}}}),
        ("modified_at", (pd.Series(["2024-05-31T18:00:00.123456789"], dtype="M8[ns]").values[0],
                         None),
         {"range": {"modified_at": {"gte": "2024-05-31T18:00:00.123456"}}}),
        ("modified_at", (pd.Timestamp("2024-05-31T18:00"), None),
         {"range": {"modified_at": {"gte": "2024-05-31T18:00:00"}}}),
        ("taken_at", None, {"bool": {"must_not": [{"exists": {"field": "taken_at"}}]}}),
    ],
)  # fmt: skip
def test_each_kind_of_field_and_value(field: str, value: Any, expected: dict[str, Any]):
    assert clause(field, value) == expected


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("colour", "red", "no field 'colour'"),
        ("camera.keyword", "x", "no field 'camera.keyword'"),
        ("", "x", "no field ''"),
        ("image_embedding", "x", "dense_vector"),
        ("location", "1,2", "latitude, longitude and distance"),
        ("location", (48.2, 16.37), "latitude, longitude and distance"),
        ("location", (91, 0, "5km"), "latitude"),
        ("location", (0, 181, "5km"), "latitude"),
        ("location", (0, float("nan"), "5km"), "latitude"),
        ("location", (0, 0, "-5km"), "latitude"),
        ("location", (0, 0, "0km"), "latitude"),
        ("location", (0, 0, "5 parsecs"), "latitude"),
        ("location", 5, "latitude"),
        ("checked", 1, "true or false"),
        ("checked", "maybe", "true or false"),
        ("regions", "x", "nested"),
        ("owner", "x", "object"),
        ("width", "wide", "numbers, not 'wide'"),
        ("width", True, "numbers, not True"),
        ("width", "nan", "numbers, not 'nan'"),
        ("width", float("inf"), "numbers, not inf"),
        ("width", "1e999", "numbers"),
        ("mtime_ns", 2**63, "larger than 64 bits"),
        ("mtime_ns", f"-{2**63 + 1}", "larger than 64 bits"),
        ("mtime_ns", (None, 2**64), "larger than 64 bits"),
        ("width", 10**400, "larger than 64 bits"),
        ("width", "1" * 5000, "holds numbers"),
        ("camera", "caf\udce9", "'caf.udce9' .* not valid Unicode"),
        ("camera", ("a", "\udce9"), "not valid Unicode"),
        ("attributes.\udce9", "x", "not valid Unicode"),
        ("folder", "\ud800", "not valid Unicode"),
        ("width", "..", "low or a high end"),
        ("width", (None, None), "low or a high end"),
        ("width", (1, 2, 3), r"pair \(low, high\)"),
        ("caption", ("a", "b"), "text and has no ranges"),
        ("attributes.size", ("1", "2"), "flattened and has no ranges"),
        ("taken_at", "yesterday", "dates such as 2024"),
        ("taken_at", "2024-13", "There is no date 2024-13"),
        ("taken_at", "2024-02-30", "There is no date"),
        # Python reads these, and Elasticsearch would take them for milliseconds since 1970.
        ("taken_at", "20240531", "dates"),
        ("taken_at", "2024-W22", "dates"),
        ("taken_at", "2024-W22-5", "dates"),
        ("taken_at", "", "dates"),
        ("taken_at", "٢٠٢٤", "dates"),
        ("taken_at", 1.5, "dates"),
        ("taken_at", "2024-05-31T25:00", "There is no date"),
    ],
)
def test_an_invalid_filter_is_refused(field: str, value: Any, words: str):
    with pytest.raises(FilterInvalid, match=words):
        clause(field, value)


@pytest.mark.parametrize(
    "missing", [pd.NaT, np.datetime64("NaT", "ns"), float("nan"), np.float32("nan")], ids=repr
)
def test_nan_and_nat_are_refused(missing: Any):
    for field, value in (("camera", missing), ("taken_at", (missing, None)), ("tags", [missing])):
        with pytest.raises(FilterInvalid, match=r"leave it out .*, or give None"):
            clause(field, value)
    with pytest.raises(FilterInvalid, match="leave it out"):
        filter_clauses(None, PROPERTIES, since=missing)


def test_the_message_of_an_unknown_field_lists_those_there_are():
    with pytest.raises(FilterInvalid) as caught:
        clause("colour", "red")
    assert "camera" in str(caught.value)
    for hidden in ("image_embedding", "perceptual_hash", "regions", "owner"):
        assert hidden not in str(caught.value)


def test_several_filters_are_all_met():
    assert filter_clauses({"root": "photos", "width": "100.."}, PROPERTIES) == [
        {"term": {"root": "photos"}},
        {"range": {"width": {"gte": 100}}},
    ]
    assert filter_clauses({}, PROPERTIES) == filter_clauses(None, PROPERTIES) == []


@pytest.mark.parametrize(
    ("since", "until", "bounds"),
    [
        ("2024", None, {"gte": "2024||/y"}),
        (None, date(2024, 5, 31), {"lte": "2024-05-31||/d"}),
        (np.datetime64("2024-05-31T18:00", "ns"), None, {"gte": "2024-05-31T18:00:00"}),
        ("2024-05", "2024-06", {"gte": "2024-05||/M", "lte": "2024-06||/M"}),
    ],
)
def test_since_and_until_ask_for_the_day_taken_or_else_modified(since, until, bounds):
    (clause_body,) = filter_clauses(None, PROPERTIES, since=since, until=until)
    undated = [{"exists": {"field": "taken_at"}}, {"exists": {"field": "taken_local"}}]
    assert clause_body == {
        "bool": {
            "should": [
                {"range": {"taken_local": bounds}},
                {"bool": {"filter": [{"range": {"taken_at": bounds}}],
                          "must_not": [{"exists": {"field": "taken_local"}}]}},
                {"bool": {"filter": [{"range": {"modified_at": bounds}}], "must_not": undated}},
            ],
            "minimum_should_match": 1,
        }
    }  # fmt: skip


@pytest.mark.parametrize("field", ["taken_at", "taken_local"])
@pytest.mark.parametrize(
    ("value", "local", "moment"),
    [
        ("2024", {"gte": "2024||/y", "lte": "2024||/y"}, None),
        (date(2024, 5, 31), {"gte": "2024-05-31||/d", "lte": "2024-05-31||/d"}, None),
        ("2024-05..", {"gte": "2024-05||/M"}, None),
        ((None, "2024-05-31 18:00"), {"lte": "2024-05-31T18:00"}, None),
        ((datetime(2024, 5, 31, 18), None), {"gte": "2024-05-31T18:00:00"}, None),  # noqa: DTZ001
        ("2024-05-31T18:00Z", None, {"gte": "2024-05-31T18:00Z", "lte": "2024-05-31T18:00Z"}),
        ((datetime(2024, 5, 31, 18, tzinfo=UTC), None), None, {"gte": "2024-05-31T18:00:00+00:00"}),
        (("2024-05-31", "2024-06-01T00:00+09:00"), {"gte": "2024-05-31||/d"},
         {"lte": "2024-06-01T00:00+09:00"}),
    ],
)  # fmt: skip
def test_a_date_is_of_the_camera_and_one_with_an_offset_a_moment(field, value, local, moment):
    found = clause(field, value)
    by_camera = {
        "bool": {
            "should": [
                {"range": {"taken_local": local}},
                {"bool": {"filter": [{"range": {"taken_at": local}}],
                          "must_not": [{"exists": {"field": "taken_local"}}]}},
            ],
            "minimum_should_match": 1,
        }
    }  # fmt: skip
    by_moment = {"range": {"taken_at": moment}}
    if local and moment:
        assert found == {"bool": {"filter": [by_camera, by_moment]}}
    else:
        assert found == (by_camera if local else by_moment)


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    def set_zone(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield set_zone
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("Asia/Tokyo", "2024-01-01", [("2024-01-01||/d", "2024-01-01||/d", "+09:00")]),
        ("America/St_Johns", "2024", [("2024||/y", "2024||/y", "-03:30")]),
        ("Europe/Vienna", "2024-01..2024-07",
         [("2024-01||/M", None, "+01:00"), (None, "2024-07||/M", "+02:00")]),
        ("UTC", "2024-01-01", [("2024-01-01||/d", "2024-01-01||/d", None)]),
        ("Asia/Tokyo", "2024-01-01T00:30Z", [("2024-01-01T00:30Z", "2024-01-01T00:30Z", None)]),
    ],
)  # fmt: skip
def test_other_dates_are_those_of_this_machine(zone, name, value, expected):
    zone(name)
    found = clause("modified_at", value)
    ranges = found["bool"]["filter"] if "bool" in found else [found]
    assert [
        tuple(each["range"]["modified_at"].get(part) for part in ("gte", "lte", "time_zone"))
        for each in ranges
    ] == expected


def test_filters_of_the_command_line():
    texts = ["root=photos", "tags=cat", "tags=dog", "title=a=b", " width = 1..2", "title=a!=b"]
    assert parse_filters(texts).filters == {
        "root": ["photos"],
        "tags": ["cat", "dog"],
        "title": ["a=b", "a!=b"],
        "width": [" 1..2"],
    }
    assert parse_filters([]) == ({}, {})
    negative = parse_filters(["tags!=cat", "tags=dog", "tags != a=b", "root!=-x", "folder!=a:b"])
    assert negative == (
        {"tags": ["dog"]},
        {"tags": ["cat", " a=b"], "root": ["-x"], "folder": ["a:b"]},
    )


def test_filters_of_an_address():
    texts = ["root:photos", "-tags:cat", "-tags:dog", "tags:-x", " -title:a:b", "root:a!=b"]
    assert parse_filters(texts, in_address=True) == (
        {"root": ["photos", "a!=b"], "tags": ["-x"]},
        {"tags": ["cat", "dog"], "title": ["a:b"]},
    )


def test_filters_of_an_address_as_on_the_command_line():
    texts = [
        "root=photos", "tags!=cat", " tags != dog", "title=a:b", "title:a=b", "tags=", "-tags=x",
        "attributes.a=b:c", "attributes.a=b",
    ]  # fmt: skip
    assert parse_filters(texts, in_address=True) == (
        {"root": ["photos"], "title": ["a:b", "a=b"], "tags": [""], "attributes.a=b": ["c"],
         "attributes.a": ["b"]},
        {"tags": ["cat", " dog", "x"]},
    )  # fmt: skip


@pytest.mark.parametrize("text", ["root", "", "=photos", " =x", "!=x", " ! =x", "root!"])
def test_a_malformed_filter_text_is_refused(text: str):
    with pytest.raises(FilterInvalid, match="FIELD=VALUE or FIELD!=VALUE"):
        parse_filters([text])


@pytest.mark.parametrize(
    "text", ["root", "", ":photos", "-:x", " - :x", "-root", "=x", "!=x", "-=x"]
)
def test_a_malformed_filter_of_an_address_is_refused(text: str):
    with pytest.raises(FilterInvalid, match="field:value or -field:value"):
        parse_filters([text], in_address=True)


def test_what_hits_must_not_meet_is_one_clause():
    wanted, unwanted = filter_clauses(
        {"root": "photos"}, PROPERTIES, without={"root": "scans", "width": (None, 99)}
    )
    assert wanted == {"term": {"root": "photos"}}
    assert unwanted == {
        "bool": {"must_not": [{"term": {"root": "scans"}}, {"range": {"width": {"lte": 99}}}]}
    }
    assert filter_clauses({}, PROPERTIES, without={}) == []
    with pytest.raises(FilterInvalid, match="no field 'tag'"):
        filter_clauses({}, PROPERTIES, without={"tag": "cat"})


@pytest.mark.parametrize("value", [{"gte": 4}, object(), b"cat", [{}, "cat"], ({}, "cat")])
@pytest.mark.parametrize("field", ["tags", "width", "taken_at", "title"])
def test_a_value_of_the_wrong_type_is_refused(field: str, value: Any):
    with pytest.raises(FilterInvalid, match=rf"'{field}' is filtered by a value"):
        clause(field, value)


def test_a_field_is_named_by_a_string():
    with pytest.raises(FilterInvalid, match="not 5"):
        filter_clauses({5: "cat"}, PROPERTIES)  # type: ignore[dict-item]


def test_a_program_s_long_list_is_one_clause():
    tags = [f"Tag {n}" for n in range(51)]
    assert clause("tags", tags) == {"terms": {"tags": tags}}
    assert clause("image_id", ["A", "b"]) == {"terms": {"image_id": ["A", "b"]}}
    assert clause("relative_path", "Ä.jpg") == {"term": {"relative_path": "Ä.jpg"}}


@pytest.mark.parametrize(
    ("typed", "stored"),
    [("müller", "MÜLLER"), ("MÜLLER", "Müller"), ("Müller", "Mu\u0308ller"), ("é", "E\u0301"),
     ("москва", "Москва"), ("ФОТО С ДАЧИ", "Фото с дачи"),
     ("서울", "\u1109\u1165\u110b\u116e\u11af")],
)  # fmt: skip
def test_a_value_is_asked_for_in_its_usual_spellings(typed: str, stored: str):
    def plain(text: str) -> str:
        """As the server compares: without regard to the case of A to Z."""
        return "".join(each.lower() if each.isascii() else each for each in text)

    assert plain(stored) in {plain(each) for each in spellings(typed)}


@pytest.mark.parametrize("suffix", sorted(PICTURE_SUFFIXES - RAW_SUFFIXES))
def test_every_suffix_names_a_format(suffix: str):
    formats = {name.lower() for name in _FORMATS} | {"jpegxl", "pcx", "tga"}
    assert stored_name("format", suffix) in formats - {"mpo"}
    assert stored_name("format", suffix.upper().lstrip(".")) in formats


def test_every_colour_has_its_american_name():
    assert stored_name("colours", "Gray") == "grey"
    assert {stored_name("colours", each.title()) for each in SHADES} == set(SHADES)
