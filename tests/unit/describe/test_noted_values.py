"""Each value that cannot be understood has a note; zeros and blanks of cameras have none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from es_imgsearch.describe.exif import Exif
from es_imgsearch.describe.fitting import ERRORS_FIELD
from es_imgsearch.describe.iptc import Iptc
from es_imgsearch.describe.sidecar import SIDECAR_ID, sidecar_fields

IMAGE = Image.new("RGB", (4, 4))
TIME = {"photoTakenTime": {"timestamp": "1526623689"}}


def said(folder: Path, name: str, content: str | bytes | dict[str, Any]) -> dict[str, Any]:
    if isinstance(content, dict):
        content = orjson.dumps(content)
    elif isinstance(content, str):
        content = content.encode()
    (folder / name).write_bytes(content)
    fields = sidecar_fields(str(folder / "a.jpg"))
    fields.pop(SIDECAR_ID, None)
    return fields


def packet(properties: str) -> str:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
        'syntax-ns#"><rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:exif='
        f'"http://ns.adobe.com/exif/1.0/" {properties}/></rdf:RDF></x:xmpmeta>'
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rating", "five"), ("rating", 9), ("rating", -2), ("rating", 1e9), ("rating", {"of": 5}),
        ("rating", "5 stars"), ("rating", [4, 5]), ("creator", {"name": "Ann"}), ("creator", True),
        ("creator", [{"name": "Ann"}]), ("location", {"lat": 48.2}), ("location", {"lng": 16.3}),
        ("location", {"lat": "x", "lon": "y"}), ("location", {"latitude": 91, "longitude": 1}),
        ("location", [48.2, None]), ("title", ["a", "b"]), ("title", {"en": "a"}), ("title", True),
        ("description", ["a", "b"]), ("source_url", ["https://a.example", "https://b.example"]),
        ("source_url", {"href": "https://a.example"}), ("product_id", ["A1", "A2"]),
        ("product_id", False), ("taken_at", ["2018-05-18", "2018-05-19"]), ("taken_at", {"y": 1}),
        ("keywords", {"a": 1}), ("keywords", ["a", ["b", "c"]]), ("keywords", "k" * 40_000),
        ("keywords", [f"k{each}" for each in range(20_000)]), ("title", "t" * 100_001),
        ("description", "d " * 60_000), ("source_url", "https://a.example/" + "x" * 5000),
        ("attributes", {f"n{each}": each + 1 for each in range(5000)}), ("shelf", "s" * 2000),
        ("latitude", 48.2), ("longitude", "16.4"),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_json(tmp_path: Path, name: str, value: Any):
    fields = said(tmp_path, "a.json", {"note": "x", name: value})
    (note,) = fields[ERRORS_FIELD]
    told = "location" if name in {"latitude", "longitude"} else name
    assert note.startswith(f"sidecar: left out: a.json: {told}")
    assert fields["attributes"].get("note", "x") == "x"


@pytest.mark.parametrize("value", ["NaN", "Infinity", "9" * 400])
def test_numbers_that_are_none(tmp_path: Path, value: str):
    fields = said(tmp_path, "a.json", f'{{"title": "x", "rating": {value}, "size": {value}}}')
    assert fields.pop("title") == "x"
    first, second = fields.pop(ERRORS_FIELD)
    assert first.startswith("sidecar: left out: a.json: size ")
    assert second.startswith("sidecar: left out: a.json: rating ")
    assert fields == {}


def test_a_list_of_one_is_that_one(tmp_path: Path):
    fields = said(tmp_path, "a.json", {
        "title": ["T"], "product_id": ["A1"], "rating": [4], "source_url": ["https://a.example"],
        "taken_at": ["2018-05-18"],
    })  # fmt: skip
    assert ERRORS_FIELD not in fields
    assert (fields["title"], fields["product_id"], fields["rating"]) == ("T", "A1", 4)
    assert (fields["source_url"], fields["taken_local"][:10]) == ("https://a.example", "2018-05-18")


@pytest.mark.parametrize("blank", [None, "", "  ", [], {}, "\0"])
def test_blanks_have_no_note(tmp_path: Path, blank: Any):
    names = ["rating", "title", "creator", "keywords", "product_id", "source_url", "taken_at"]
    names += ["description", "location", "latitude", "attributes"]
    assert said(tmp_path, "a.json", dict.fromkeys(names, blank)) == {}


def test_a_bad_value_does_not_hide_the_good_one_of_another_file(tmp_path: Path):
    (tmp_path / "metadata.csv").write_text("file_name,rating\na.jpg,4\n")
    fields = said(tmp_path, "a.json", {"rating": "five"})
    assert fields["rating"] == 4
    assert fields[ERRORS_FIELD] == [
        "sidecar: left out: a.json: rating 'five' is no rating from -1 to 5"
    ]


@pytest.mark.parametrize("value", ["x", "9", "-3", "★★★"])
def test_tables(tmp_path: Path, value: str):
    fields = said(tmp_path, "metadata.csv", f"file_name,title,rating\na.jpg,A,{value}\n")
    (note,) = fields.pop(ERRORS_FIELD)
    assert note == f"sidecar: left out: metadata.csv: rating {value!r} is no rating from -1 to 5"
    assert fields == {"title": "A"}


XMP_VALUES = [
    ('xmp:Rating="five"', "rating"), ('xmp:Rating="9"', "rating"), ('xmp:Rating="NaN"', "rating"),
    ('exif:GPSLatitude="91,0N" exif:GPSLongitude="16,0E"', "location"),
    ('exif:GPSLatitude="48,x" exif:GPSLongitude="E16,22"', "location"),
    ('exif:GPSLatitude="48,12.5N"', "location"),
    ('exif:GPSLatitude="48,12.5E" exif:GPSLongitude="16,0E"', "location"),
    ('exif:GPSLatitude="north" exif:GPSLongitude="16,0E"', "location"),
]  # fmt: skip


@pytest.mark.parametrize(("properties", "name"), XMP_VALUES)
def test_xmp(tmp_path: Path, properties: str, name: str):
    (tmp_path / "a.json").write_text('{"title": "x"}')
    fields = said(tmp_path, "a.xmp", packet(properties))
    (note,) = fields.pop(ERRORS_FIELD)
    assert note.startswith(f"sidecar: left out: a.xmp: {name} ")
    image = IMAGE.copy()
    image.info["xmp"] = packet(properties).encode()
    describer: Exif | Iptc = Exif() if name == "location" else Iptc()
    fields = dict(describer.describe(image, Image.Exif(), "a.jpg"))
    (note,) = fields.pop(ERRORS_FIELD)
    assert note.startswith(f"{describer.name}: left out: {name}: ")
    assert fields == {}


@pytest.mark.parametrize("data", [{"latitude": "x", "longitude": 1}, {"latitude": 48.2},
                                  {"latitude": 48.2, "longitude": 200}])  # fmt: skip
@pytest.mark.parametrize("part", ["geoData", "geoDataExif"])
def test_takeout(tmp_path: Path, part: str, data: dict[str, Any]):
    (note,) = said(tmp_path, "a.jpg.json", {**TIME, part: data})[ERRORS_FIELD]
    assert note.startswith(f"sidecar: left out: a.jpg.json: {part} ")


def angle(degrees: float) -> tuple[IFDRational, ...]:
    return IFDRational(degrees), IFDRational(0), IFDRational(0)


def located(lat: Any, north: Any, lon: Any, east: Any) -> dict[str, Any]:
    exif, tags = Image.Exif(), ExifTags.GPS
    gps = {tags.GPSLatitude: lat, tags.GPSLatitudeRef: north}
    gps |= {tags.GPSLongitude: lon, tags.GPSLongitudeRef: east}
    exif._ifds[ExifTags.IFD.GPSInfo] = {
        tag: value for tag, value in gps.items() if value is not None
    }
    return dict(Exif().describe(IMAGE, exif, "a.jpg"))


@pytest.mark.parametrize(
    "place",
    [
        (angle(148), "N", angle(16), "E"), (angle(48), "N", angle(200), "E"),
        ((IFDRational(48, 0), IFDRational(0), IFDRational(0)), "N", angle(16), "E"),
        (angle(48), None, angle(16), None), (angle(48), "", angle(16), "E"),
        (angle(48)[:1], "N", angle(16)[:1], "E"), (angle(48), "N", None, None),
        ((float("nan"), 0, 0), "N", angle(16), "E"), ("48", "N", "16", "E"),
        (angle(48), "E", angle(16), "N"),
    ],
)  # fmt: skip
def test_places_of_exif(place: tuple[Any, ...]):
    (note,) = located(*place).pop(ERRORS_FIELD)
    assert note.startswith("exif: left out: location: GPS ")
    assert note.endswith(" is no place")


NOTHING = (IFDRational(0, 0),) * 3


@pytest.mark.parametrize(
    "place",
    [(angle(0), "N", angle(0), "E"), (angle(0), None, angle(0), None), (None, None, None, None),
     (NOTHING, "N", NOTHING, "E"), (NOTHING, "\0", NOTHING, "\0"), ("", "", "", ""),
     (b"\0\0", "", b"\0", ""), ((0.0, 0.0, 0.0), "", (0, 0, 0), ""), (None, "N", None, "E")],
)  # fmt: skip
def test_zeros_and_blanks_of_cameras_have_no_note(place: tuple[Any, ...]):
    assert located(*place) == {}


@pytest.mark.parametrize("value", [99, 6, -2, "x", (4, 5), IFDRational(1, 0)])
def test_ratings_of_exif(value: Any):
    exif = Image.Exif()
    exif[0x4746] = value
    (note,) = dict(Iptc().describe(IMAGE, exif, "a.jpg"))[ERRORS_FIELD]
    assert note.startswith("iptc: left out: rating: ")


def test_malformed_blocks(monkeypatch: pytest.MonkeyPatch):
    image = IMAGE.copy()
    image.info["xmp"] = b"<x"
    image.info["photoshop"] = {0x0404: b"\x1c\x02\x05\x00\x01T\x1c\x02\x19\x7f\xff"}
    fields = dict(Iptc().describe(image, Image.Exif(), "a.jpg"))
    first, second = fields.pop(ERRORS_FIELD)
    assert first == "iptc: left out: IPTC: is malformed from byte 6 of 11"
    assert second.startswith("iptc: left out: XMP: is malformed XMP: ")
    assert fields == {"title": "T"}

    def get_ifd(self: Image.Exif, tag: int) -> dict[int, Any]:
        raise SyntaxError(f"no directory {tag}")

    monkeypatch.setattr(Image.Exif, "get_ifd", get_ifd)
    found = dict(Exif().describe(IMAGE, Image.Exif(), "a.jpg"))
    assert [each.partition(" is ")[0] for each in found.pop(ERRORS_FIELD)] == [
        "exif: left out: EXIF: Exif", "exif: left out: location: GPSInfo",
    ]  # fmt: skip


@pytest.mark.parametrize("block", [b"", b"\0\0", b"  ", b"\x1c\x02\x05\x00\x01T\0"])
def test_padding_of_blocks_has_no_note(block: bytes):
    image = IMAGE.copy()
    image.info["xmp"] = block if not block.strip(b"\0 ") else b""
    image.info["photoshop"] = {0x0404: block}
    assert ERRORS_FIELD not in Iptc().describe(image, Image.Exif(), "a.jpg")
