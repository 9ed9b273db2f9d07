"""Files beside pictures: names, encodings, bad values, dates and places."""

from __future__ import annotations

import os
import time
import unicodedata
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from es_imgsearch.describe.fitting import ERRORS_FIELD
from es_imgsearch.describe.places import coordinate, read_place
from es_imgsearch.describe.sidecar import SIDECAR_ID, Sidecar, look_for_tables_up_to, sidecar_fields
from es_imgsearch.describe.sidecars import names as sidecar_names
from es_imgsearch.describe.sidecars.names import Listing, is_sidecar
from es_imgsearch.describe.texts import decoded_text
from tests.unit.describe.test_exif import exif_of
from tests.unit.describe.test_iptc import OF_XMP, XMP

IMAGE = Image.new("RGB", (1, 1))
LONG = "a_very_long_name_of_a_picture_from_the_summer_of_2019"
TAKEN = {
    "taken_at": "2024-01-01T00:30:00+09:00",
    "taken_local": "2024-01-01T00:30:00",
    "taken_from": "sidecar",
}


def said(folder: Path, picture: str, **files: bytes | str) -> dict[str, Any]:
    for name, content in files.items():
        put(folder, name, content)
    fields = sidecar_fields(str(folder / picture))
    fields.pop(SIDECAR_ID, None)
    return fields


def put(folder: Path, name: str, content: bytes | str | dict[str, Any]) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, dict):
        content = orjson.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def dated_xmp(properties: str) -> str:
    return XMP.replace(
        'xmp:Rating="4"',
        f'xmp:Rating="4" xmlns:exif="http://ns.adobe.com/exif/1.0/"'
        f' xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" {properties}',
    )


# -- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["a.xmp", "a.XMP", "a.Xmp", "a.jpg.xmp", "a.jpg.XMP", "a.JPG.XMP", "A.xmp", "A.JPG.xmp"],
)
def test_xmp_is_found_in_any_capitals(tmp_path: Path, name: str):
    assert is_sidecar(name)
    assert said(tmp_path, "a.jpg", **{"a.jpg": b"", name: XMP}) == OF_XMP
    assert Listing(["a.jpg", name]).about(name) == ["a.jpg"]


@pytest.mark.parametrize("name", ["a.JSON", "a.Json", "A.json", "a.jpg.JSON", "A.JPG.JSON"])
def test_json_is_found_in_any_capitals(tmp_path: Path, name: str):
    assert is_sidecar(name)
    assert said(tmp_path, "a.jpg", **{"a.jpg": b"", name: '{"title": "x"}'}) == {"title": "x"}


def test_a_table_is_found_in_capitals(tmp_path: Path):
    assert is_sidecar("METADATA.CSV")
    found = said(tmp_path, "a.jpg", **{"METADATA.CSV": "file_name,title\na.jpg,x\n"})
    assert found == {"title": "x"}


def test_a_sidecar_in_the_capitals_of_another_picture_is_that_pictures(tmp_path: Path):
    for name in ("IMG.jpg", "img.jpg"):
        put(tmp_path, name, b"")
    put(tmp_path, "IMG.json", {"title": "large"})
    assert said(tmp_path, "IMG.jpg") == {"title": "large"}
    assert said(tmp_path, "img.jpg") == {}
    assert Listing(["IMG.jpg", "img.jpg"]).about("IMG.json") == ["IMG.jpg"]
    put(tmp_path, "img.json", {"title": "small"})
    sidecar_names._last.clear()
    assert said(tmp_path, "img.jpg") == {"title": "small"}
    assert said(tmp_path, "IMG.jpg") == {"title": "large"}


def test_a_name_of_a_mac_is_that_of_others(tmp_path: Path):
    composed, decomposed = (unicodedata.normalize(form, "Grüße") for form in ("NFC", "NFD"))
    found = said(tmp_path, f"{decomposed}.jpg", **{f"{composed}.json": '{"title": "x"}'})
    assert found == {"title": "x"}
    table = f"file_name,description\n{composed}.jpg,y\n"
    found = said(tmp_path, f"{decomposed}.jpg", **{"metadata.csv": table})
    assert found == {"title": "x", "description": "y"}


def test_names_that_are_no_unicode(tmp_path: Path):
    picture = os.fsdecode(b"\xff.jpg")
    assert said(tmp_path, picture, **{os.fsdecode(b"\xff.json"): '{"title": "x"}'}) == {
        "title": "x"
    }
    put(tmp_path, os.fsdecode(b"\xff.json"), b"{")
    with pytest.raises(ValueError, match=r"\\udcff.json is no JSON"):
        said(tmp_path, picture)


def test_a_sidecar_that_comes_while_its_folder_is_listed_is_read(tmp_path: Path):
    """Listings are reused only while they cannot be stale."""
    put(tmp_path, "a.jpg", b"")
    for n, name in enumerate(["a.xmp", "a.jpg.XMP", "a.json", "a.jpg.JSON"]):
        assert said(tmp_path, f"other{n}.jpg") == {}
        put(tmp_path, name, XMP if "xmp" in name.lower() else '{"title": "of json"}')
        assert said(tmp_path, "a.jpg")["title"] == ("of json" if n > 1 else OF_XMP["title"])
        (tmp_path / name).unlink()
        assert said(tmp_path, "a.jpg") == {}


def test_a_folder_at_rest_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for n in range(20):
        put(tmp_path, f"{n}.jpg", b"")
    put(tmp_path, "7.json", {"title": "x"})
    before = time.time() - 60
    os.utime(tmp_path, (before, before))
    sidecar_names._last.clear()
    monkeypatch.setattr(sidecar_names, "_REUSED_SECONDS", 60.0)
    calls: list[str] = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: calls.append(str(path)) or listdir(path))
    titles = [said(tmp_path, f"{n}.jpg").get("title") for n in range(20)]
    assert titles == [None] * 7 + ["x"] + [None] * 12
    assert len(calls) == 1


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders listed from now on."""
    sidecar_names._last.clear()
    calls: list[str] = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: calls.append(str(path)) or listdir(path))
    return calls


def rest(*folders: Path) -> None:
    """Let the folders look unchanged, as those of some network file systems always do."""
    for folder in folders:
        os.utime(folder, (1_700_000_000, 1_700_000_000))


def test_folders_read_in_turn_are_listed_once_each(tmp_path: Path, listings: list[str]):
    """Only the last folder was kept: each picture cost a listing of its whole folder."""
    folders = [tmp_path / name for name in "abcdefgh"]
    for n, folder in enumerate(folders):
        put(folder, "0.jpg", b"")
        put(folder, "0.JSON", {"title": str(n)})
    rest(*folders)
    for _ in range(5):
        titles = [said(folder, "0.jpg").get("title") for folder in folders]
        assert titles == [str(n) for n in range(8)]
    assert len(listings) == 8


def test_few_listings_are_kept_those_read_last(tmp_path: Path, listings: list[str]):
    folders = [tmp_path / str(n) for n in range(30)]
    for folder in folders:
        put(folder, "0.jpg", b"")
    rest(*folders)
    for folder in folders[1:]:
        for each in (folders[0], folder):
            assert said(each, "0.jpg") == {}
    assert len(listings) == 30
    assert len(sidecar_names._last) == 8


@pytest.mark.parametrize(("most", "kept"), [(100, 8), (9, 3), (2, 1)])
def test_listings_are_kept_up_to_a_number_of_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, kept: int
):
    monkeypatch.setattr(sidecar_names, "_MOST_NAMES", most)
    sidecar_names._last.clear()
    for n in range(10):
        for name in "abc":
            put(tmp_path / str(n), f"{name}.jpg", b"")
        assert said(tmp_path / str(n), "a.jpg") == {}
    assert list(sidecar_names._last) == [str(tmp_path / str(n)) for n in range(10)][-kept:]


def test_an_unchanged_folder_is_not_listed_again_after_a_moment(
    tmp_path: Path, listings: list[str], monkeypatch: pytest.MonkeyPatch
):
    """A folder of a million files was listed for a quarter of the time, though at rest."""
    monkeypatch.setattr(sidecar_names, "_REUSED_SECONDS", 0.0)
    monkeypatch.setattr(sidecar_names, "_REUSED_TIMES", 0.0)
    put(tmp_path, "7.Json", {"title": "x"})
    rest(tmp_path)
    titles = [said(tmp_path, f"{n}.jpg").get("title") for n in range(20)]
    assert titles == [None] * 7 + ["x"] + [None] * 12
    assert len(listings) == 1


@pytest.mark.parametrize(
    ("picture", "sidecar"),
    [("a.jpg", f"a{end}") for end in (".json", ".JSON", ".jpg.json", ".jpg.JSON",
                                      ".jpg.supplemental-metadata.json")]
    + [("a(1).jpg", "a.jpg(1).json"), ("a-edited.jpg", "a.jpg.json"),
       ("a(2).jpg", "a.jpg.supplemental-metadata(2).json"),
       (f"{LONG[:47]}.jpg", f"{LONG[:46]}.json"),
       (f"{LONG[:30]}.jpg", f"{LONG[:30]}.jpg.supplementa.json")],
)  # fmt: skip
def test_a_sidecar_that_changes_no_time_of_its_folder_is_read(
    tmp_path: Path, listings: list[str], monkeypatch: pytest.MonkeyPatch, picture: str, sidecar: str
):
    monkeypatch.setattr(sidecar_names, "_REUSED_SECONDS", 0.0)
    monkeypatch.setattr(sidecar_names, "_REUSED_TIMES", 0.0)
    put(tmp_path, picture, b"")
    rest(tmp_path)
    assert said(tmp_path, picture) == {}
    put(tmp_path, sidecar, of_takeout(picture if LONG[:9] in picture else "a.jpg"))
    rest(tmp_path)
    assert said(tmp_path, picture)["description"] == "Harbour"
    (tmp_path / sidecar).unlink()
    rest(tmp_path)
    assert said(tmp_path, picture) == {}
    assert len(listings) == 1


def test_a_changed_or_aged_folder_is_listed_again(
    tmp_path: Path, listings: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sidecar_names, "_REUSED_SECONDS", 0.0)
    monkeypatch.setattr(sidecar_names, "_REUSED_TIMES", 0.0)
    rest(tmp_path)
    assert said(tmp_path, "a.jpg") == {}
    # In capitals that no program writes.
    put(tmp_path, "a.Json", {"title": "x"})
    assert said(tmp_path, "a.jpg") == {"title": "x"}
    rest(tmp_path)
    assert said(tmp_path, "a.jpg") == {"title": "x"}
    assert len(listings) == 3
    put(tmp_path, "a.jSON", {"title": "y"})
    rest(tmp_path)
    monkeypatch.setattr(sidecar_names, "_KEPT_SECONDS", 0.0)
    assert len(sidecar_names.listed(str(tmp_path))[0].sidecars_of("a.jpg")) == 2
    assert len(listings) == 4


# -- encodings -------------------------------------------------------------------------------

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_in_every_encoding(tmp_path: Path, encoding: str):
    content = '{"title": "Grüße", "keywords": ["日本"]}'.encode(encoding)
    assert said(tmp_path, "a.jpg", **{"a.json": content}) == {
        "title": "Grüße", "keywords": ["日本"],
    }  # fmt: skip


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ["", "\n", "\0", "  \0\0"])
def test_xmp_in_every_encoding(tmp_path: Path, encoding: str, end: str):
    assert said(tmp_path, "a.jpg", **{"a.xmp": (XMP + end).encode(encoding)}) == OF_XMP
    declared = f'<?xml version="1.0" encoding="{encoding}"?>\n{XMP}{end}'
    assert said(tmp_path, "a.jpg", **{"a.xmp": declared.encode(encoding)}) == OF_XMP


def test_xmp_in_a_declared_encoding(tmp_path: Path):
    text = XMP.replace("Harbour at dawn", "Grüße")
    for name in ("ISO-8859-1", "windows-1252", "UTF-16", "unknown-8"):
        declared = f'<?xml version="1.0" encoding="{name}"?>{text}'.replace("\ufeff", "")
        assert said(tmp_path, "a.jpg", **{"a.xmp": declared.encode("latin-1")})["title"] == "Grüße"


@pytest.mark.parametrize("encoding", [*ENCODINGS, "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_tables_in_every_encoding_and_with_every_delimiter(
    tmp_path: Path, encoding: str, delimiter: str
):
    rows = [["file_name", "title", "shelf"], ["a.jpg", "Grüße", '"1,5;\t|x"'], ["b.jpg", "B", "2"]]
    table = "\r\n".join(delimiter.join(row) for row in rows)
    assert said(tmp_path, "a.jpg", **{"metadata.csv": table.encode(encoding)}) == {
        "title": "Grüße", "attributes": {"shelf": "1,5;\t|x"},
    }  # fmt: skip


@given(st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_some_text(content: bytes):
    text = decoded_text(content)
    text.encode()
    assert decoded_text(text.encode("utf-8-sig")).lstrip("\ufeff") == text.lstrip("\ufeff")


# -- one bad value costs itself only ---------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"title": "x", "size": NaN}', {}),
        ('{"title": "x", "size": [1, Infinity, -Infinity]}', {"attributes": {"size": ["1"]}}),
        ('{"title": "x", "rating": NaN}', {}),
        ('{"title": "x", "rating": "five"}', {}),
        ('{"title": "x", "creator": {"name": "Ada"}}', {}),
        ('{"title": "x", "shelf": ' + "9" * 5000 + "}", {}),
        ('{"title": "x", "big": 18446744073709551616}',
         {"attributes": {"big": "18446744073709551616"}}),
        ('{"title": "x", "odd": "\\ud800"}', {"attributes": {"odd": "\\ud800"}}),
        ('{"title": "x", "\\ud800": 1}', {"attributes": {"\\ud800": "1"}}),
        ('{"title": "x", "two lines": "a\nb"}', {"attributes": {"two lines": "a\nb"}}),
        ('{"title": "x", "tab": "a\tb"}', {"attributes": {"tab": "a\tb"}}),
        (b'{"title": "x", "latin": "\xe4"}', {"attributes": {"latin": "ä"}}),
        (b'{"title": "x", "no": "\x81"}',
         {ERRORS_FIELD: ["sidecar: left out: a.json: no is in an unknown encoding"]}),
        ('{"title": null, "title": "x", "a": 1e999}', {"title": "x"}),
    ],
)  # fmt: skip
def test_a_bad_value_of_json_costs_itself(
    tmp_path: Path, content: str | bytes, expected: dict[str, Any]
):
    found = said(tmp_path, "a.jpg", **{"a.json": content})
    if b"null" not in (content if isinstance(content, bytes) else content.encode()):
        assert found.pop("title") == "x"
    # tests/unit/describe/test_noted_values.py has the notes of what is left out.
    notes = found.pop(ERRORS_FIELD, [])
    assert notes == expected.get(ERRORS_FIELD, notes)
    assert found == {name: each for name, each in expected.items() if name != ERRORS_FIELD}
    orjson.dumps(found)


@pytest.mark.parametrize(
    "broken", ["Boats \x01 gulls", "Boats & gulls", "Boats \ufffe gulls", "Boats &nbsp; gulls"]
)
def test_a_bad_character_of_xmp_costs_itself(tmp_path: Path, broken: str):
    found = said(tmp_path, "a.jpg", **{"a.xmp": XMP.replace("Boats &amp; gulls", broken)})
    description = found.pop("description")
    assert description.startswith("Boats ")
    assert description.endswith(" gulls")
    assert found == {name: value for name, value in OF_XMP.items() if name != "description"}


def test_a_byte_of_xmp_that_is_no_utf8_costs_itself(tmp_path: Path):
    packet = XMP.encode().replace(b"Boats", b"Bo\xe4ts")
    assert said(tmp_path, "a.jpg", **{"a.xmp": packet})["description"] == "Boäts & gulls"


def test_a_file_that_cannot_be_understood_costs_itself(tmp_path: Path):
    found = said(tmp_path, "a.jpg", **{"a.xmp": XMP, "a.json": "{", "a.jpg.json": "[1]"})
    first, second = found.pop(ERRORS_FIELD)
    assert first.startswith("sidecar: left out: a.json: is no JSON")
    assert second == "sidecar: left out: a.jpg.json: holds no JSON object"
    assert found == OF_XMP


@pytest.mark.parametrize(
    "row",
    [b"b.jpg,\xff\xfe,", b'b.jpg,"unfinished,', b'b.jpg,"a"b,', b"b.jpg", b"b.jpg,x,y,z,u",
     b"b.jpg," + b"y" * 200_000, b'"', b"\0,\0", b",,,", b"b.jpg,x,\x81", b'"\n"b.jpg'],
)  # fmt: skip
def test_a_bad_row_costs_itself(tmp_path: Path, row: bytes):
    table = b"file_name,title,shelf\na.jpg,A,1\n" + row + b"\nc.jpg,C,3\n" + row + b"\nd.jpg,D,4\n"
    put(tmp_path, "metadata.csv", table)
    for name, title, shelf in (("a", "A", "1"), ("c", "C", "3"), ("d", "D", "4")):
        assert said(tmp_path, f"{name}.jpg") == {"title": title, "attributes": {"shelf": shelf}}


def test_a_table_full_of_quotes_ends(tmp_path: Path):
    put(tmp_path, "metadata.csv", b"file_name,title\na.jpg,A\n" + b'b.jpg,"x\n' * 50_000)
    began = time.monotonic()
    assert said(tmp_path, "a.jpg") == {"title": "A"}
    assert time.monotonic() - began < 30


# -- tables of folders below -----------------------------------------------------------------


@pytest.fixture
def watched(tmp_path: Path) -> Any:
    look_for_tables_up_to([str(tmp_path / "r")])
    yield tmp_path / "r"
    look_for_tables_up_to(())


@pytest.mark.parametrize(
    "name", ["train/cat/a.jpg", "./train/cat/a.jpg", "train\\cat\\a.jpg", "train//cat/../cat/a.jpg"]
)
def test_a_table_describes_pictures_below_it(watched: Path, name: str):
    put(watched, "metadata.csv", f"file_name,title\n{name},x\n")
    put(watched, "train/cat/a.jpg", b"")
    assert said(watched, "train/cat/a.jpg") == {"title": "x"}
    assert said(watched, "a.jpg") == {}
    assert said(watched, "train/a.jpg") == {}


def test_the_nearest_table_counts_and_none_above_the_watched_folder(watched: Path):
    put(watched.parent, "metadata.csv", "file_name,title,room\nr/train/a.jpg,outside,1\n")
    put(watched, "metadata.csv", "file_name,title,shelf\ntrain/a.jpg,top,3\n../b.jpg,up,4\n")
    assert said(watched, "train/a.jpg") == {"title": "top", "attributes": {"shelf": "3"}}
    put(watched, "train/metadata.csv", "file_name,title\na.jpg,near\n")
    assert said(watched, "train/a.jpg") == {"title": "near", "attributes": {"shelf": "3"}}
    look_for_tables_up_to(())
    assert said(watched, "train/a.jpg") == {"title": "near"}


# -- dates and places ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ('photoshop:DateCreated="2024-01-01T00:30:00+09:00"', TAKEN),
        ('exif:DateTimeOriginal="2024-01-01T00:30:00+09:00" xmp:CreateDate="2020-01-01"', TAKEN),
        ('xmp:CreateDate="2024:01:01 00:30:00+09:00"', TAKEN),
        ('exif:GPSLatitude="48,12.5N" exif:GPSLongitude="16,22.25E"',
         {"location": {"lat": 48.2083333, "lon": 16.3708333}}),
        ('exif:GPSLatitude="33,51,24S" exif:GPSLongitude="70,40,0W"',
         {"location": {"lat": -33.8566667, "lon": -70.6666667}}),
        ('exif:GPSLatitude="48.2" exif:GPSLongitude="-16.37"',
         {"location": {"lat": 48.2, "lon": -16.37}}),
        ('exif:GPSLatitude="91,0N" exif:GPSLongitude="16,0E"', {}),
        ('exif:GPSLatitude="0,0N" exif:GPSLongitude="0,0E"', {}),
        ('exif:GPSLatitude="48,12.5N"', {}),
        ('exif:GPSLatitude="north" exif:GPSLongitude="16,0E"', {}),
    ],
)  # fmt: skip
def test_date_and_place_of_xmp(tmp_path: Path, properties: str, expected: dict[str, Any]):
    found = said(tmp_path, "a.jpg", **{"a.xmp": dated_xmp(properties)})
    is_noted = bool(found.pop(ERRORS_FIELD, []))
    assert is_noted == (not expected and "0,0N" not in properties.replace("91,0N", ""))
    assert found == OF_XMP | expected


def test_a_bad_date_of_xmp_is_noted(tmp_path: Path):
    found = said(tmp_path, "a.jpg", **{"a.xmp": dated_xmp('photoshop:DateCreated="2024-13-01"')})
    assert found == OF_XMP | {
        ERRORS_FIELD: ["sidecar: left out: a.xmp: photoshop:DateCreated '2024-13-01' is no date"],
    }


def test_date_and_place_of_json_and_tables(tmp_path: Path):
    found = said(tmp_path, "a.jpg", **{
        "a.json": '{"taken_at": "2024-01-01T00:30:00+09:00", "location": {"lat": 1, "lon": 2}}',
    })  # fmt: skip
    assert found == TAKEN | {
        "location": {"lat": 1.0, "lon": 2.0},
        "attributes": {
            "taken_at": "2024-01-01T00:30:00+09:00", "location": {"lat": "1", "lon": "2"},
        },
    }  # fmt: skip
    table = "file_name,taken_at,latitude,longitude\nb.jpg,2024-01-01 00:30:00+0900,48.2,16.37\n"
    found = said(tmp_path, "b.jpg", **{"metadata.csv": table})
    assert found["location"] == {"lat": 48.2, "lon": 16.37}
    assert found["taken_local"] == "2024-01-01T00:30:00"
    put(tmp_path, "c.json", {"title": "x", "taken_at": "once", "location": 7})
    found = said(tmp_path, "c.jpg")
    assert found["title"] == "x"
    assert found[ERRORS_FIELD] == [
        "sidecar: left out: c.json: taken_at 'once' is no date",
        "sidecar: left out: c.json: location '7' is no place",
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"lat": 48.2, "lon": 16.37}, {"lat": 48.2, "lon": 16.37}),
        ({"latitude": "48.2", "longitude": "16.37"}, {"lat": 48.2, "lon": 16.37}),
        ({"lat": 48.2, "lng": 16.37}, {"lat": 48.2, "lon": 16.37}),
        ({"type": "Point", "coordinates": [16.37, 48.2]}, {"lat": 48.2, "lon": 16.37}),
        ([16.37, 48.2], {"lat": 48.2, "lon": 16.37}),
        ("48.2,16.37", {"lat": 48.2, "lon": 16.37}),
        ("48.2N 16.37E", {"lat": 48.2, "lon": 16.37}),
        ("0,0", None), ("", None), (None, None), ({}, None), ("Paris", None),
        ({"name": "Paris"}, None), (["Paris", "Rome"], None), ("Paris, France", None),
    ],
)  # fmt: skip
def test_forms_of_a_place(value: Any, expected: dict[str, float] | None):
    assert read_place(value) == expected


@pytest.mark.parametrize(
    "value", ["91,0", "48.2", "48.2,16.37,5", [1], {"lat": 1, "lon": 181}, "x1,y2",
              {"lat": float("nan"), "lon": 1}, {"lat": True, "lon": 1}]
)  # fmt: skip
def test_what_is_no_place(value: Any):
    with pytest.raises(ValueError, match="is no place"):
        read_place(value)


@pytest.mark.parametrize("end", ["", "x", "N", " N x"])
@pytest.mark.parametrize("part", [" ", "\t\n", '"', "1 ", "° ", "' ", ", "])
def test_a_long_text_is_no_coordinate_at_once(part: str, end: str):
    """Blanks could be shared out among the parts in n² ways: 100 kB took half a minute."""
    assert coordinate("48" + part * 50_000 + end, "NS") in {None, 48.0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("48° 12' 30\" N", 48.2083333), ("  48.5  ", 48.5), ("48, 12.5 n", 48.2083333),
        ("48 12 30 S", -48.2083333), ("48  \t12", 48.2), ("-48.5", -48.5), ("48″ N", 48.0),
        ("4 8 1 2", None), ("48.5E", None), ("48 ,12", None), ("0." + "1" * 63, None), ("", None),
    ],
)  # fmt: skip
def test_forms_of_a_coordinate(text: str, expected: float | None):
    assert coordinate(text, "NS") == (expected and pytest.approx(expected))


def test_a_sidecars_date_and_place_count_over_those_of_the_file(tmp_path: Path):
    details = {0x9003: "2020:02:02 02:02:02", 0x9011: "+01:00"}
    exif = exif_of(details=details)
    put(tmp_path, "a.xmp", dated_xmp('photoshop:DateCreated="2024-01-01T00:30:00+09:00"'))
    fields = Sidecar().describe(IMAGE, exif, str(tmp_path / "a.jpg"))
    assert fields.items() >= TAKEN.items()
    # One that repeats the file's date loses nothing that only the file says.
    put(tmp_path, "a.xmp", dated_xmp('photoshop:DateCreated="2020-02-02T02:02:02"'))
    fields = Sidecar().describe(IMAGE, exif, str(tmp_path / "a.jpg"))
    assert fields["taken_at"] == "2020-02-02T02:02:02+01:00"


# -- Google Takeout --------------------------------------------------------------------------


def of_takeout(title: str = "a.jpg", **more: Any) -> dict[str, Any]:
    return {
        "title": title,
        "description": "Harbour",
        "creationTime": {"timestamp": "1704200000", "formatted": "02.01.2024, 12:53:20 UTC"},
        "photoTakenTime": {"timestamp": "1704112200", "formatted": "01.01.2024, 12:30:00 UTC"},
        "geoData": {"latitude": 48.2, "longitude": 16.37, "altitude": 0.0},
        "people": [{"name": "Ada"}],
        **more,
    }


OF_TAKEOUT = {
    "taken_at": "2024-01-01T12:30:00+00:00",
    "taken_local": "2024-01-01T12:30:00",
    "taken_from": "takeout",
    "location": {"lat": 48.2, "lon": 16.37},
    "description": "Harbour",
}


@pytest.mark.parametrize(
    ("picture", "sidecar"),
    [
        ("a.jpg", "a.jpg.json"),
        ("a.jpg", "a.json"),
        ("a.jpg", "a.jpg.supplemental-metadata.json"),
        ("a.jpg", "a.jpg.supplemental-meta.json"),
        ("a.jpg", "a.jpg.suppl.json"),
        ("a.jpg", "a.jpg.s.json"),
        ("a.jpg", "a.jpg..json"),
        ("A.JPG", "a.jpg.Supplemental-Metadata.JSON"),
        ("a(1).jpg", "a.jpg(1).json"),
        ("a(1).jpg", "a.jpg.supplemental-metadata(1).json"),
        ("a(12).jpg", "a.jpg.supplemental-me(12).json"),
        ("a(1).jpg", "a(1).jpg.supplemental-metadata.json"),
        ("a-edited.jpg", "a.jpg.json"),
        ("a-edited.jpg", "a.jpg.supplemental-metadata.json"),
        ("a-bearbeitet.jpg", "a.jpg.supplemental-metadata.json"),
        ("a-edited(1).jpg", "a.jpg(1).json"),
        ("a(1)-edited.jpg", "a.jpg.supplemental-metadata(1).json"),
        # 46 characters and .json are 51.
        (f"{LONG[:47]}.jpg", f"{LONG[:46]}.json"),
        (f"{LONG[:47]}(2).jpg", f"{LONG[:46]}(2).json"),
        (f"{LONG[:47]}-edited.jpg", f"{LONG[:46]}.json"),
        (f"{LONG[:42]}.jpg", f"{LONG[:42]}.jpg.json"),
        (f"{LONG[:44]}.jpg", f"{LONG[:44]}.j.json"),
        (f"{LONG[:40]}.jpg", f"{LONG[:40]}.jpg.s.json"),
        (f"{LONG[:30]}.jpeg", f"{LONG[:30]}.jpeg.supplement.json"),
    ],
)
def test_every_name_of_google(tmp_path: Path, picture: str, sidecar: str):
    title = "a.jpg"
    if picture.startswith(LONG[:20]):
        title = f"{LONG}.jpg" if LONG[:47] in picture else picture
    elif sidecar.startswith("a(1)"):
        title = picture
    put(tmp_path, picture, b"")
    put(tmp_path, "b.jpg", b"")
    put(tmp_path, sidecar, of_takeout(title))
    found = said(tmp_path, picture)
    assert {name: found[name] for name in OF_TAKEOUT} == OF_TAKEOUT
    assert "title" not in found
    assert found["attributes"]["people"] == [{"name": "Ada"}]
    assert said(tmp_path, "b.jpg") == {}
    assert Listing([picture, "b.jpg", sidecar]).about(sidecar) == [picture]


@pytest.mark.parametrize(
    ("picture", "sidecar"),
    [
        ("a.jpg", "a.jpg(1).json"),
        ("a(1).jpg", "a.jpg.json"),
        ("a(1).jpg", "a.jpg(2).json"),
        ("a.jpg", "ab.jpg.json"),
        ("a.jpg", "a.png.json"),
        ("a.jpg", "a.jpg.other.json"),
        (f"{LONG[:47]}.jpg", f"{LONG[:30]}.json"),
        (f"{LONG[:40]}_b_of_another.jpg", f"{LONG[:46]}.json"),
    ],
)
def test_names_of_other_pictures(tmp_path: Path, picture: str, sidecar: str):
    put(tmp_path, picture, b"")
    put(tmp_path, sidecar, of_takeout("other.jpg"))
    assert said(tmp_path, picture) == {}


def test_a_cut_name_of_two_pictures_goes_by_the_title(tmp_path: Path):
    start = LONG[:44]
    for picture in (f"{start}AA.jpg", f"{start}BB.jpg"):
        put(tmp_path, picture, b"")
    put(tmp_path, f"{start}AA.json", of_takeout(f"{LONG[:10]}.jpg"))
    assert said(tmp_path, f"{start}BB.jpg") == {}


@pytest.mark.parametrize("pattern", ["{}.jpg.json", "{}.json", "{}.jpg.supplemental-metadata.json"])
@pytest.mark.parametrize("start", [LONG[:42], LONG[:38], LONG])
def test_names_of_one_beginning_are_not_read_for_each_other(start: str, pattern: str):
    """Of n pictures each read all n sidecars, and a changed sidecar all n pictures."""
    pictures = [f"{start}{n:04}.jpg" for n in range(200)]
    sidecars = [pattern.format(f"{start}{n:04}") for n in range(200)]
    listing = Listing([*pictures, *sidecars])
    for picture, sidecar in zip(pictures, sidecars, strict=True):
        assert [each.name for each in listing.sidecars_of(picture)] == [sidecar]
        assert listing.about(sidecar) == [picture]


def test_pictures_without_sidecars_read_none_of_those_of_one_beginning():
    pictures = [f"{LONG[:42]}{n:04}.jpg" for n in range(200)]
    sidecars = [f"{LONG[:42]}{n:04}.json" for n in range(200, 400)]
    listing = Listing([*pictures, *sidecars])
    assert not any(listing.sidecars_of(each) for each in pictures)
    assert not any(listing.about(each) for each in sidecars)


@pytest.mark.parametrize(
    ("picture", "sidecar", "is_its"),
    [
        (f"{LONG[:44]}(2).jpg", f"{LONG[:46]}(2).json", True),
        (f"{LONG[:43]}-edited.jpg", f"{LONG[:46]}.json", True),
        (f"{LONG[:43]}-edi.jpg", f"{LONG[:46]}.json", True),
        (f"{LONG[:42]}.jpg", f"{LONG[:46]}.json", True),
        (f"{LONG[:50]}.jpg", f"{LONG[:42]}.json", True),
        (f"{LONG[:50]}.jpg", f"{LONG[:44]}.json", True),
        (f"{LONG[:50]}.jpg", f"{LONG[:47]}.json", False),
        (f"{LONG[:50]}.jpg", f"{LONG[:41]}.json", False),
        (f"{LONG[:43]}-two.jpg", f"{LONG[:46]}.json", False),
        (f"{LONG[:44]}(2).jpg", f"{LONG[:46]}(3).json", False),
        ("Straße-" * 8 + ".jpg", ("Straße-" * 8)[:46] + ".json", True),
        ("Strasse-" * 8 + ".jpg", ("Strasse-" * 8)[:46].upper() + ".JSON", True),
        (unicodedata.normalize("NFD", "Grüße_" * 9) + ".jpg", ("Grüße_" * 9)[:46] + ".json", True),
        (("📷" * 4 + LONG)[:47] + ".jpg", ("📷" * 4 + LONG)[:42] + ".json", True),
    ],
)
def test_where_google_cuts_a_name(picture: str, sidecar: str, *, is_its: bool):
    listing = Listing([picture, sidecar])
    assert [each.name for each in listing.sidecars_of(picture)] == [sidecar] * is_its
    assert listing.about(sidecar) == [picture] * is_its


def test_a_cut_name_yields_to_the_pictures_own_json():
    picture, own, other = f"{LONG[:42]}.jpg", f"{LONG[:42]}.jpg.json", f"{LONG[:46]}.json"
    assert [each.name for each in Listing([picture, own, other]).sidecars_of(picture)] == [own]
    xmp = f"{LONG[:42]}.xmp"
    found = Listing([picture, other, xmp]).sidecars_of(picture)
    assert [each.name for each in found] == [other, xmp]


def test_only_takeouts_own_json_is_read_by_its_rules(tmp_path: Path):
    put(tmp_path, "a.jpg", b"")
    put(tmp_path, "a.jpg.s.json", {"title": "of something else"})
    put(tmp_path, "a.jpg.suppl.json", b"{")
    assert said(tmp_path, "a.jpg") == {}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"photoTakenTime": {"timestamp": "-86400"}}, {"taken_local": "1969-12-31T00:00:00"}),
        ({"photoTakenTime": {"timestamp": 1704112200}}, {"taken_local": "2024-01-01T12:30:00"}),
        ({"photoTakenTime": {"timestamp": "0"}}, {"taken_local": "1970-01-01T00:00:00"}),
        ({"geoData": {"latitude": 0.0, "longitude": 0.0},
          "geoDataExif": {"latitude": 1.5, "longitude": 2.5}},
         {"location": {"lat": 1.5, "lon": 2.5}}),
        ({"geoData": {"latitude": 0.0, "longitude": 0.0}}, {"location": None}),
        ({"geoData": {"latitude": 91, "longitude": 0.0}}, {"location": None}),
        ({"geoData": "none"}, {"location": None}),
        ({"photoTakenTime": {"timestamp": "soon"}},
         {"taken_local": None, "description": "Harbour"}),
        ({"photoTakenTime": {"timestamp": "9" * 30}}, {"taken_local": None}),
        ({"photoTakenTime": {"timestamp": None}}, {"taken_local": None}),
    ],
)  # fmt: skip
def test_what_takeout_says(tmp_path: Path, more: dict[str, Any], expected: dict[str, Any]):
    put(tmp_path, "a.jpg.json", of_takeout(**more))
    found = said(tmp_path, "a.jpg")
    assert {name: found.get(name) for name in expected} == expected
    is_noted = expected.get("taken_local", "") is None or "91" in str(more)
    assert (ERRORS_FIELD in found) is is_noted


def test_takeout_yields_to_the_file_and_to_other_sidecars(tmp_path: Path):
    put(tmp_path, "a.jpg.json", of_takeout())
    path = str(tmp_path / "a.jpg")
    assert Sidecar().describe(IMAGE, Image.Exif(), path).items() >= OF_TAKEOUT.items()
    exif = exif_of(
        details={0x9003: "2020:02:02 02:02:02"},
        gps={1: "N", 2: (1.0, 0.0, 0.0), 3: "E", 4: (2.0, 0.0, 0.0)},
    )
    fields = Sidecar().describe(IMAGE, exif, path)
    assert not fields.keys() & {"taken_at", "taken_local", "taken_from", "location"}
    assert fields["description"] == "Harbour"
    # Changes are noticed by what the file says, whatever the picture's own date.
    assert fields[SIDECAR_ID] == sidecar_fields(path)[SIDECAR_ID]
    put(tmp_path, "a.xmp", dated_xmp('photoshop:DateCreated="2024-01-01T00:30:00+09:00"'))
    fields = Sidecar().describe(IMAGE, exif, path)
    assert fields.items() >= TAKEN.items()
    assert fields["description"] == OF_XMP["description"]
