"""The stored fields of a picture, as people read them."""

from __future__ import annotations

from typing import Any

import pytest

from es_imgsearch.serve.page.field_rows import field_rows, place_of, shown_date


@pytest.mark.parametrize(
    ("name", "value", "texts"),
    [
        ("size_bytes", 54411, ["54.4 kB (54,411 bytes)"]),
        ("size_bytes", 12, ["12 bytes (12 bytes)"]),
        ("mtime_ns", 1795894528020345052, ["2026-11-28 19:35:28.020345052 UTC"]),
        ("mtime_ns", -1, ["1969-12-31 23:59:59.999999999 UTC"]),
        ("ingest_lag_ms", 1104, ["1.1 s"]),
        ("embed_ms", 69.093, ["69 ms"]),
        ("modified_at", "2026-11-28T19:35:28.021+00:00", ["2026-11-28 19:35:28 UTC"]),
        ("taken_local", "2024-05-01T10:00:00", ["2024-05-01 10:00:00"]),
        ("taken_at", "2024-05-01T10:00:00+02:00", ["2024-05-01 08:00:00 UTC"]),
        ("taken_at", "yesterday", ["yesterday"]),
        ("transparent", True, ["yes"]),
        ("tags", ["frog", "green frog"], ["frog", "green frog"]),
        ("tags", "frog", ["frog"]),
        ("tag_scores", {"a": 0.1, "frog": 0.97}, ["frog 0.97", "a 0.1"]),
        ("attributes", {"x": "1", "y": {"z": 2}}, ["x 1", 'y {"z": 2}']),
        ("location", {"lat": 48.2, "lon": 16.37}, ["48.2, 16.37"]),
        ("location", [16.37, 48.2], ["48.2, 16.37"]),
        ("location", "48.2,16.37", ["48.2, 16.37"]),
        ("location", "nowhere", ["nowhere"]),
        ("rating", 0, ["0"]),
        ("iso", 12800, ["12,800"]),
        ("exposure", 0.005, ["0.005"]),
        ("caption", "", []),
        ("keywords", [], []),
        ("lens", None, []),
    ],
)
def test_a_value_is_shown_with_its_unit(name: str, value: Any, texts: list[str]):
    rows = list(field_rows({name: value}))
    assert [each.text for row in rows for each in row.values] == texts


def test_width_and_height_are_one_row():
    (row,) = field_rows({"width": 4000, "height": 3000})
    assert (row.name, row.values[0].text) == ("width", "4,000 × 3,000 (12 megapixels)")
    assert [each.name for each in field_rows({"height": 3})] == ["height"]


def test_values_that_pictures_share_lead_to_them():
    (row,) = field_rows({"tags": ["a&b=c", "?#"]})
    assert [each.href for each in row.values] == [
        "/?filter=tags:a%26b%3Dc", "/?filter=tags:%3F%23"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "address",
    ["javascript:alert(1)", "JAVASCRIPT:alert(1)", " javascript:x", "data:text/html,x", "//evil",
     "vbscript:x", "file:///etc/passwd", "/etc"],
)  # fmt: skip
def test_only_addresses_of_the_web_are_links(address: str):
    (row,) = field_rows({"source_url": address})
    assert row.values[0].href == ""
    (row,) = field_rows({"source_url": "https://example.org/a"})
    assert row.values[0].href == "https://example.org/a"


@pytest.mark.parametrize(
    "value", [None, "", "1", "a,b", {"lat": "x", "lon": 1}, [1], {"lat": 91, "lon": 0}, "0,181"]
)
def test_a_place_that_is_none(value: Any):
    assert place_of({"location": value}) is None


def test_other_dates_stay_as_they_are():
    assert [shown_date(each) for each in ("2024", "", "2024-05-01")] == ["2024", "", "2024-05-01"]


def test_what_people_look_for_comes_first_and_technical_fields_last():
    fields = {
        "ctime_ns": 1, "zeta": "own", "tags": ["cat"], "image_id": "a", "format": "png",
        "caption": "A cat", "taken_local": "2024", "content_id": "b", "width": 4, "height": 3,
        "camera": "Canon", "perceptual_hash": "c", "location": "1,2", "folder": "x",
        "relative_path": "x/y", "embed_ms": 1, "size_bytes": 1, "tag_scores": {"cat": 1},
    }  # fmt: skip
    rows = list(field_rows(fields))
    plain = [each.name for each in rows if not each.is_technical]
    assert plain == ["caption", "taken_local", "location", "camera", "tags", "folder", "width",
                     "size_bytes", "format", "zeta"]  # fmt: skip
    assert [each.name for each in rows if each.is_technical] == [
        "content_id", "ctime_ns", "embed_ms", "image_id", "perceptual_hash", "relative_path",
        "tag_scores",
    ]  # fmt: skip
    # Technical ones follow the others.
    assert [each.is_technical for each in rows] == sorted(each.is_technical for each in rows)
