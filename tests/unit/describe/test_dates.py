"""When a picture was taken: every place and every form in which files say so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from es_imgsearch.describe.dates import read_date, read_offset
from es_imgsearch.describe.exif import Exif
from es_imgsearch.describe.fitting import ERRORS_FIELD
from es_imgsearch.read.decoding import decode
from tests.support import picture_samples as samples
from tests.unit.describe.test_exif import exif_of
from tests.unit.describe.test_iptc import dataset, iim, jpeg

DATE_TIME, ORIGINAL, DIGITIZED = 0x0132, 0x9003, 0x9004
OFFSET, OFFSET_ORIGINAL, OFFSET_DIGITIZED = 0x9010, 0x9011, 0x9012
SUBSECOND_ORIGINAL, ZONE = 0x9291, 0x882A
GPS_TIME, GPS_DATE = 7, 29


def described(
    tags: dict[int, Any] | None = None,
    details: dict[int, Any] | None = None,
    gps: dict[int, Any] | None = None,
    *,
    name: str = "a.jpg",
    xmp: str | None = None,
) -> dict[str, Any]:
    image = Image.new("RGB", (1, 1))
    if xmp is not None:
        image.info["xmp"] = xmp.encode()
    return dict(Exif().describe(image, exif_of(tags, details, gps), f"/pictures/{name}"))


def packet(properties: str) -> str:
    return f"""<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:exif="http://ns.adobe.com/exif/1.0/"
    xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/" {properties}/>
 </rdf:RDF></x:xmpmeta>"""


def moment(fields: dict[str, Any]) -> tuple[Any, Any, Any]:
    return tuple(fields.get(name) for name in ("taken_at", "taken_local", "taken_from"))  # type: ignore[return-value]


# -- forms -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2024:05:31 18:00:05", "2024-05-31T18:00:05"),
        ("2024-05-31 18:00:05", "2024-05-31T18:00:05"),
        ("2024/05/31 18:00:05", "2024-05-31T18:00:05"),
        ("2024.05.31 18.00.05", "2024-05-31T18:00:05"),
        ("2024-05-31T18:00:05", "2024-05-31T18:00:05"),
        ("2024:05:31T18:00:05", "2024-05-31T18:00:05"),
        ("2024-05-31T18:00:05Z", "2024-05-31T18:00:05+00:00"),
        ("2024-05-31T18:00:05+02:00", "2024-05-31T18:00:05+02:00"),
        ("2024:05:31 18:00:05-0930", "2024-05-31T18:00:05-09:30"),
        ("2024:05:31 18:00:05 +09", "2024-05-31T18:00:05+09:00"),
        ("2024:05:31 18:00:05 UTC", "2024-05-31T18:00:05+00:00"),
        ("2024-05-31T18:00:05.25+02:00", "2024-05-31T18:00:05.250+02:00"),
        ("2024:05:31 18:00:05.000", "2024-05-31T18:00:05"),
        ("2024:05:31 18:00", "2024-05-31T18:00:00"),
        ("2024:05:31", "2024-05-31T00:00:00"),
        ("2024-05-31", "2024-05-31T00:00:00"),
        ("20240531 180005", "2024-05-31T18:00:05"),
        ("20240531T180005Z", "2024-05-31T18:00:05+00:00"),
        ("20240531", "2024-05-31T00:00:00"),
        ("20240531180005", "2024-05-31T18:00:05"),
        ("20240531180005Z", "2024-05-31T18:00:05+00:00"),
        ("20240531180005+0200", "2024-05-31T18:00:05+02:00"),
        ("20240531180005.25", "2024-05-31T18:00:05.250"),
        ("202405311800", "2024-05-31T18:00:00"),
        ("2024", "2024-01-01T00:00:00"),
        ("1920", "1920-01-01T00:00:00"),
        ("1954-07", "1954-07-01T00:00:00"),
        ("2024:05", "2024-05-01T00:00:00"),
        ("2024: 5:31  8:00: 5", "2024-05-31T08:00:05"),
        ("2024:5:1 8:0:5", "2024-05-01T08:00:05"),
        ("2024:05:31  18:00:05", "2024-05-31T18:00:05"),
        ("2024:05:31-18:00:05", "2024-05-31T18:00:05"),
        ("2024:05:31 06:00:05 PM", "2024-05-31T18:00:05"),
        ("2024:05:31 12:00:05 am", "2024-05-31T00:00:05"),
        ("Fri May 31 18:00:05 2024", "2024-05-31T18:00:05"),
        ("2024:05:31 24:00:00", "2024-06-01T00:00:00"),
        ("2024:12:31 24:00:00", "2025-01-01T00:00:00"),
        ("2024:05:31 18:00:60", "2024-05-31T18:01:00"),
        ("2016:12:31 23:59:60", "2017-01-01T00:00:00"),
        ("2024:05:31 18:00:05\0\0\0", "2024-05-31T18:00:05"),
        ("  2024:05:31 18:00:05  ", "2024-05-31T18:00:05"),
        (b"2024:05:31 18:00:05\0", "2024-05-31T18:00:05"),
        ("2024:05:31;18:00:05", "2024-05-31T18:00:05"),
        ("2024-05-31T18", "2024-05-31T18:00:00"),
        ("2024-05-31T18Z", "2024-05-31T18:00:00+00:00"),
        ("2024-05-31T18+02:00", "2024-05-31T18:00:00+02:00"),
        ("2024-05-31T1800", "2024-05-31T18:00:00"),
        ("2024-05-31 18h00m05s", "2024-05-31T18:00:05"),
        ("2024:05:31   :  :  ", "2024-05-31T00:00:00"),
        ("1954:  :     :  :  ", "1954-01-01T00:00:00"),
        ("2024:05:31-180005", "2024-05-31T18:00:05"),
        ("2024:05:31 18:00:05 UTC+2", "2024-05-31T18:00:05+02:00"),
        ("1954:00:00 00:00:00", "1954-01-01T00:00:00"),
        ("1826:01:01 00:00:00", "1826-01-01T00:00:00"),
    ],
)
def test_every_form_of_a_date_is_read(text: str | bytes, at: str):
    fields = described(details={ORIGINAL: text})
    assert moment(fields) == (at, at[: 23 if "." in at else 19], "exif")
    assert ERRORS_FIELD not in fields


@pytest.mark.parametrize(
    "text",
    ["0000:00:00 00:00:00", "    :  :     :  :  ", "", " ", "\0" * 20, "0000:00:00 12:30:00",
     "----:--:-- --:--:--", None, 20240531, (2024, 5, 31)],
)  # fmt: skip
def test_a_clock_that_was_never_set_says_nothing(text: Any):
    assert described(details={ORIGINAL: text}) == {}


@pytest.mark.parametrize(
    "text",
    ["2024:13:01 00:00:00", "2024:31:05 00:00:00", "2024:02:30 00:00:00", "2024:05:31 24:00:01",
     "2024:05:31 25:00:00", "2024:05:31 18:60:00", "2024:05:31 18:00:61", "0001:01:01 00:00:00",
     "1601:01:01 00:00:00", "9999:12:31 23:59:59", "9999:12:31 24:00:00", "yesterday",
     "31.05.2024 18:00", "24:05:31 18:00:05", "2023:02:29 10:00:00", "٢٠٢٤:٠٥:٣١ ١٨:٠٠:٠٥",
     b"\xff\xfe\xfd", "1717171717", "1914-1918", "2019-2020", "2016/2017", "2016 - 2017",
     "2019:03:04-2019:03:09", "2016-02-03-2017-01-01", "2016-02-03-2017", "2016-02-03/2016-02-05",
     "2016-W05-3", "2016W053", "2016-Q3", "2016-Q3-01", "2016-02-03T04:05:06+99:99",
     "2016-02 12:00", "2016-02-03T04:05:06+25:00", "2024:05:31 18:00:05junk",
     "2016-02-03 to 2016-02-05", "1960s", "2016-02-03T04:05:06-14:30", "2016-034",
     "2016-02-03 4", "2016-02-0304:05:06", "2016?",
     "2024-W22", "2024W22", "2024-W22-5", "2024-152", "1920x1080",
     "1920 x 1080", "1920*1080", "2024 Ford", "2024, harbour", "2024-05 Ford", "2024-05x",
     "2024-13", "2024 18:00:05", "2024-05 18:00:05", "2024-05T18:00", "1848 MP", "2024/2025",
     "1990s", "1954?", "20245311800055", "20241331180005", "20240531250005"],
)  # fmt: skip
def test_a_date_that_never_was_is_noted_and_costs_nothing_else(text: str | bytes):
    fields = described({0x0110: "D90"}, {ORIGINAL: text})
    (note,) = fields.pop(ERRORS_FIELD)
    assert note.startswith("exif: left out: DateTimeOriginal: ")
    assert fields == {"camera": "D90"}
    # The next source is read.
    fields = described({DATE_TIME: "2024:05:31 18:00:05"}, {ORIGINAL: text})
    assert moment(fields)[0] == "2024-05-31T18:00:05"
    assert fields[ERRORS_FIELD] == [note]


def test_a_clock_that_is_ahead_is_noted():
    tomorrow = datetime.now(tz=UTC) + timedelta(hours=20)
    assert moment(described(details={ORIGINAL: f"{tomorrow:%Y:%m:%d %H:%M:%S}"}))[2] == "exif"
    later = datetime.now(tz=UTC) + timedelta(days=3)
    fields = described(details={ORIGINAL: f"{later:%Y:%m:%d %H:%M:%S}"})
    (note,) = fields[ERRORS_FIELD]
    assert "in the future" in note
    assert "taken_at" not in fields


# -- offsets and fractions -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("details", "at"),
    [
        ({OFFSET: "+09:00"}, "2024-05-31T18:00:05+09:00"),
        ({OFFSET: "+09:00", OFFSET_ORIGINAL: "+02:00"}, "2024-05-31T18:00:05+02:00"),
        ({OFFSET: "+09:00", OFFSET_ORIGINAL: "   :  "}, "2024-05-31T18:00:05+09:00"),
        ({OFFSET_DIGITIZED: "-05:00"}, "2024-05-31T18:00:05-05:00"),
        ({OFFSET: "+0530"}, "2024-05-31T18:00:05+05:30"),
        ({OFFSET: "+9:00"}, "2024-05-31T18:00:05+09:00"),
        ({OFFSET: "+09"}, "2024-05-31T18:00:05+09:00"),
        ({OFFSET: "GMT+9"}, "2024-05-31T18:00:05+09:00"),
        ({OFFSET: "\u221203:30\0"}, "2024-05-31T18:00:05-03:30"),
        ({OFFSET: "Z"}, "2024-05-31T18:00:05+00:00"),
        ({ZONE: -8}, "2024-05-31T18:00:05-08:00"),
        ({ZONE: (1, 2)}, "2024-05-31T18:00:05+01:00"),
        ({ZONE: 99}, "2024-05-31T18:00:05"),
        ({OFFSET: "+25:00"}, "2024-05-31T18:00:05"),
        ({OFFSET: "+14:30"}, "2024-05-31T18:00:05"),
        ({OFFSET: "summer"}, "2024-05-31T18:00:05"),
        ({SUBSECOND_ORIGINAL: "123"}, "2024-05-31T18:00:05.123"),
        ({SUBSECOND_ORIGINAL: "5", OFFSET: "+09:00"}, "2024-05-31T18:00:05.500+09:00"),
        ({SUBSECOND_ORIGINAL: "123456789"}, "2024-05-31T18:00:05.123"),
        ({SUBSECOND_ORIGINAL: "99 \0"}, "2024-05-31T18:00:05.990"),
        ({SUBSECOND_ORIGINAL: "00"}, "2024-05-31T18:00:05"),
        ({SUBSECOND_ORIGINAL: "x"}, "2024-05-31T18:00:05"),
        ({SUBSECOND_ORIGINAL: 12}, "2024-05-31T18:00:05"),
    ],
)
def test_offset_and_fraction_are_added(details: dict[int, Any], at: str):
    fields = described(details={ORIGINAL: "2024:05:31 18:00:05", **details})
    assert fields["taken_at"] == at
    assert fields["taken_local"] == at[: 23 if "." in at else 19]
    is_offset_left_out = any(each in str(details) for each in ("+25:00", "+14:30", "summer"))
    assert (ERRORS_FIELD in fields) is is_offset_left_out


@pytest.mark.parametrize("offset", ["+25:00", "-14:30", "+02:75", "CEST", "+02:00x", "+99"])
def test_an_offset_that_is_none_is_noted(offset: str):
    fields = described(details={ORIGINAL: "2024:05:31 18:00:05", OFFSET_ORIGINAL: offset})
    assert moment(fields)[0] == "2024-05-31T18:00:05"
    note = f"exif: left out: offset of DateTimeOriginal: {offset!r} is no offset from UTC"
    assert fields[ERRORS_FIELD] == [note]


def test_the_offset_in_the_text_counts_first():
    details = {ORIGINAL: "2024:05:31 18:00:05+02:00", OFFSET_ORIGINAL: "+09:00"}
    assert described(details=details)["taken_at"] == "2024-05-31T18:00:05+02:00"


# -- sources -------------------------------------------------------------------------------

WHEN = {
    "original": ({}, {ORIGINAL: "2001:01:01 01:00:00"}, {}),
    "digitized": ({}, {DIGITIZED: "2004:01:01 01:00:00"}, {}),
    "gps": ({}, {}, {GPS_DATE: "2006:01:01", GPS_TIME: (1.0, 0.0, 0.0)}),
    "date_time": ({DATE_TIME: "2007:01:01 01:00:00"}, {}, {}),
}


@pytest.mark.parametrize(
    ("tags", "details", "gps", "expected"),
    [
        ({DATE_TIME: "2024:05:31 18:00:05"}, {}, {},
         ("2024-05-31T18:00:05", "2024-05-31T18:00:05", "exif")),
        ({DATE_TIME: "2024:05:31 18:00:05"}, {OFFSET: "+09:00"}, {},
         ("2024-05-31T18:00:05+09:00", "2024-05-31T18:00:05", "exif")),
        ({ORIGINAL: "2024:05:31 18:00:05"}, {}, {},
         ("2024-05-31T18:00:05", "2024-05-31T18:00:05", "exif")),
        ({}, {DIGITIZED: "2024:05:31 18:00:05", OFFSET_DIGITIZED: "+01:00", 0x9292: "7"}, {},
         ("2024-05-31T18:00:05.700+01:00", "2024-05-31T18:00:05.700", "exif")),
        ({}, {}, {GPS_DATE: "2024:05:31", GPS_TIME: (18.0, 0.0, 5.0)},
         ("2024-05-31T18:00:05+00:00", "2024-05-31T18:00:05", "gps")),
        ({}, {}, {GPS_DATE: "2024-05-31\0", GPS_TIME: (18.0, 0.0, 5.25)},
         ("2024-05-31T18:00:05.250+00:00", "2024-05-31T18:00:05.250", "gps")),
        ({}, {}, {GPS_TIME: (18.0, 0.0, 5.0)}, (None, None, None)),
        ({}, {}, {GPS_DATE: "2024:05:31"}, (None, None, None)),
        ({}, {}, {GPS_DATE: "0000:00:00", GPS_TIME: (0.0, 0.0, 0.0)}, (None, None, None)),
    ],
)  # fmt: skip
def test_every_tag_that_holds_a_date(tags, details, gps, expected):
    assert moment(described(tags, details, gps)) == expected


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ('photoshop:DateCreated="2024-01-01T00:30:00+09:00"',
         ("2024-01-01T00:30:00+09:00", "2024-01-01T00:30:00", "xmp")),
        ('photoshop:DateCreated="2024-01-01"',
         ("2024-01-01T00:00:00", "2024-01-01T00:00:00", "xmp")),
        ('photoshop:DateCreated="1954-07"',
         ("1954-07-01T00:00:00", "1954-07-01T00:00:00", "xmp")),
        ('photoshop:DateCreated="1954"',
         ("1954-01-01T00:00:00", "1954-01-01T00:00:00", "xmp")),
        ('exif:DateTimeOriginal="2024-01-01T00:30:00.5"',
         ("2024-01-01T00:30:00.500", "2024-01-01T00:30:00.500", "xmp")),
        ('xmp:CreateDate="2024-01-01T00:30Z"',
         ("2024-01-01T00:30:00+00:00", "2024-01-01T00:30:00", "xmp")),
        ('exif:DateTimeDigitized="2024-01-01T00:30:00"',
         ("2024-01-01T00:30:00", "2024-01-01T00:30:00", "xmp")),
        ('xmp:CreateDate="2020-01-01" photoshop:DateCreated="1954-01-01"',
         ("1954-01-01T00:00:00", "1954-01-01T00:00:00", "xmp")),
        ('exif:DateTimeOriginal="2024-13-01" photoshop:DateCreated="2024-01-01"',
         ("2024-01-01T00:00:00", "2024-01-01T00:00:00", "xmp")),
        ('xmp:ModifyDate="2024-01-01T00:30:00"', (None, None, None)),
    ],
)  # fmt: skip
def test_dates_of_xmp(properties: str, expected: tuple[Any, ...]):
    assert moment(described(xmp=packet(properties))) == expected


@pytest.mark.parametrize(
    ("datasets", "expected"),
    [
        ({55: b"20240101", 60: b"003000+0900"},
         ("2024-01-01T00:30:00+09:00", "2024-01-01T00:30:00", "iptc")),
        ({55: b"20240101", 60: b"003000"},
         ("2024-01-01T00:30:00", "2024-01-01T00:30:00", "iptc")),
        ({55: b"20240101"}, ("2024-01-01T00:00:00", "2024-01-01T00:00:00", "iptc")),
        ({55: b"2024-01-01", 60: b"00:30:00"},
         ("2024-01-01T00:30:00", "2024-01-01T00:30:00", "iptc")),
        ({55: b"19540000"}, ("1954-01-01T00:00:00", "1954-01-01T00:00:00", "iptc")),
        ({62: b"20240101", 63: b"003000-0330"},
         ("2024-01-01T00:30:00-03:30", "2024-01-01T00:30:00", "iptc")),
        ({55: b"20240101", 60: b"99"}, ("2024-01-01T00:00:00", "2024-01-01T00:00:00", "iptc")),
        ({55: b"00000000", 60: b"000000"}, (None, None, None)),
        ({60: b"003000"}, (None, None, None)),
    ],
)  # fmt: skip
def test_dates_of_iptc(datasets: dict[int, bytes], expected: tuple[Any, ...]):
    content = jpeg(iim(*(dataset(number, value) for number, value in datasets.items())))
    decoded = decode(content, max_pixels=1_000_000)
    assert moment(dict(Exif().describe(decoded.image, decoded.exif, "a.jpg"))) == expected


def test_the_order_of_the_sources():
    """Of the moment itself first, then of digitizing, and last what is least sure."""
    xmp = {"original": 'exif:DateTimeOriginal="2002-01-01"',
           "digitized": 'xmp:CreateDate="2005-01-01"'}  # fmt: skip
    order = [
        ("original", 2001), ("xmp original", 2002), ("digitized", 2004), ("xmp digitized", 2005),
        ("gps", 2006), ("date_time", 2007), ("name", 2008),
    ]  # fmt: skip
    for at in range(len(order)):
        left = {each for each, _ in order[at:]}
        parts: list[dict[int, Any]] = [{}, {}, {}]
        for each in left & WHEN.keys():
            for part, more in zip(parts, WHEN[each], strict=True):
                part.update(more)
        properties = " ".join(text for each, text in xmp.items() if f"xmp {each}" in left)
        fields = described(*parts, name="IMG_20080101_010000.jpg", xmp=packet(properties))
        assert fields["taken_at"][:4] == str(order[at][1]), order[at]


# -- names ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("IMG_20240101_120000.jpg", "2024-01-01T12:00:00"),
        ("20240101_120000.jpg", "2024-01-01T12:00:00"),
        ("20240101_120000(1).jpg", "2024-01-01T12:00:00"),
        ("IMG_20240101_120000_HDR.jpg", "2024-01-01T12:00:00"),
        ("IMG_20240101_120000123.jpg", "2024-01-01T12:00:00.123"),
        ("PXL_20240101_120000123.MP.jpg", "2024-01-01T12:00:00.123+00:00"),
        ("IMG-20240101-WA0001.jpg", "2024-01-01T00:00:00"),
        ("Screenshot_20240101-120000.png", "2024-01-01T12:00:00"),
        ("Screenshot_2024-01-01-12-00-00-123_com.app.png", "2024-01-01T12:00:00.123"),
        ("Screenshot 2024-01-01 at 12.00.05.png", "2024-01-01T12:00:05"),
        ("Screenshot 2024-01-01 at 1.05.07 PM.png", "2024-01-01T13:05:07"),
        ("Bildschirmfoto 2024-01-01 um 12.00.05.png", "2024-01-01T12:00:05"),
        ("WhatsApp Image 2024-01-01 at 12.00.05 (2).jpeg", "2024-01-01T12:00:05"),
        ("photo_2024-01-01_12-00-05.jpg", "2024-01-01T12:00:05"),
        ("signal-2024-01-01-12-00-05-123.jpg", "2024-01-01T12:00:05.123"),
        ("2024-01-01 12.00.05.jpg", "2024-01-01T12:00:05"),
        ("2024_01_01 harbour.jpg", "2024-01-01T00:00:00"),
        ("1954-07-01 Oma.jpg", "1954-07-01T00:00:00"),
        ("20240101T120005Z.jpg", "2024-01-01T12:00:05+00:00"),
        ("20240101T120005.jpg", "2024-01-01T12:00:05"),
        ("cam-2024-01-01T12-00-05Z.png", "2024-01-01T12:00:05+00:00"),
        ("20240101T120005123Z_0001.jpg", "2024-01-01T12:00:05.123+00:00"),
        ("VID_20240229_235959.jpg", "2024-02-29T23:59:59"),
        ("IMG20240101120005.jpg", "2024-01-01T12:00:05"),
        ("20240101120005.jpg", "2024-01-01T12:00:05"),
        ("VID20240101120005.jpg", "2024-01-01T12:00:05"),
        ("IMG20240101120005_01.jpg", "2024-01-01T12:00:05"),
        ("IMG20240101120005(1).jpg", "2024-01-01T12:00:05"),
        ("Screenshot_20240101120005.png", "2024-01-01T12:00:05"),
        ("IMG_20240101120005_HDR.jpg", "2024-01-01T12:00:05"),
        ("mmexport_19991231235959.jpg", "1999-12-31T23:59:59"),
        ("20240101120005123.jpg", "2024-01-01T12:00:05.123"),
    ],
)
def test_a_date_in_the_name_is_the_last_resort(name: str, at: str):
    assert moment(described(name=name)) == (at, at.removesuffix("+00:00"), "name")
    exif = {ORIGINAL: "2020:02:02 02:02:02"}
    assert moment(described(details=exif, name=name))[2] == "exif"


@pytest.mark.parametrize(
    "name",
    ["a.jpg", "DSC_0001.jpg", "IMG_20241301_120000.jpg", "IMG_20240230_120000.jpg",
     "12345678901234.jpg", "product-4711-20240101001.jpg", "99999999_120000.jpg",
     "IMG_30240101_120000.jpg", "5f20240101a.jpg", "1600x1200.jpg", "20230229.jpg",
     "19540701.jpg", "ISO-8601-2024.jpg", "2024.jpg", "2024-01.jpg",
     "2024 Ford.jpg", "1920x1080.jpg", "19540701120000.jpg", "20241301120000.jpg",
     "20240101250000.jpg", "20240101126000.jpg", "2024010112000.jpg", "202401011200001234.jpg",
     "20991231235959.jpg", "1717171717171.jpg", "x20240101120005y.jpg"],
)  # fmt: skip
def test_a_number_in_a_name_is_no_date(name: str):
    assert described(name=name) == {}


def test_a_time_in_the_name_that_never_was_leaves_the_day():
    assert moment(described(name="IMG_20240101_250000.jpg"))[0] == "2024-01-01T00:00:00"


# -- texts of any length ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "start", ["2024", "2024-01-01", "2024-01-01 10:00", "2024-01-01 10:00 UTC"]
)
@pytest.mark.parametrize("part", [" ", " -", "_", "+ ", "1"])
def test_a_long_text_is_no_date_at_once(start: str, part: str):
    with pytest.raises(ValueError, match="is no date"):
        read_date(start + part * 50_000 + "x")


@pytest.mark.parametrize("start", ["UTC", "GMT", "+", "", "+09:00"])
def test_a_long_text_is_no_offset_at_once(start: str):
    assert read_offset(start + " " * 100_000 + "x") is None


def test_what_pads_a_date_does_not_count():
    taken = read_date(" " * 100_000 + "2024:05:31 18:00:05" + " " * 100_000 + "\0" * 100)
    assert taken is not None
    assert taken.fields()["taken_at"] == "2024-05-31T18:00:05"
    assert read_offset(" " * 100 + "+09:00" + " " * 100) == timedelta(hours=9)
    assert read_date("0" * 100_000) is None


# -- whatever there is -----------------------------------------------------------------------

texts = st.one_of(
    st.text(max_size=30),
    st.binary(max_size=30),
    st.from_regex(r"[0-9]{4}[:/.-][0-9]{2}[:/.-][0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}.{0,8}"),
    st.datetimes().map(lambda when: f"{when:%Y:%m:%d %H:%M:%S}"),
    st.sampled_from(["9999:12:31 24:00:00", "0001:01:01 00:00:00", "9999:12:31 23:59:60"]),
)


@given(
    st.dictionaries(
        st.sampled_from([ORIGINAL, DIGITIZED, OFFSET, OFFSET_ORIGINAL, SUBSECOND_ORIGINAL]), texts
    ),
    st.dictionaries(st.sampled_from([GPS_DATE, GPS_TIME]),
                    st.one_of(texts, st.tuples(*[st.floats()] * 3))),
    st.text(max_size=40),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_whatever_a_file_says_it_is_a_date_or_a_note(details, gps, name):
    fields = described({DATE_TIME: details.get(ORIGINAL, "")}, details, gps, name=name)
    if "taken_at" in fields:
        local = datetime.fromisoformat(fields["taken_local"])
        at = datetime.fromisoformat(fields["taken_at"])
        assert local.tzinfo is None
        assert at.replace(tzinfo=None) == local
        assert 1826 <= local.year <= datetime.now(tz=UTC).year + 1
        assert abs(at.utcoffset() or timedelta()) <= timedelta(hours=14)
        assert fields["taken_from"] in {"exif", "gps", "name"}
    assert fields.keys() <= {"taken_at", "taken_local", "taken_from", ERRORS_FIELD}


def test_dates_survive_being_written_and_read():
    exif = Image.Exif()
    exif[DATE_TIME] = "2024-05-31 18:00:05"
    exif[0x8769] = {OFFSET: "+09:00"}
    content = samples.saved(samples.four_corners(), "JPEG", exif=exif)
    decoded = decode(content, max_pixels=1_000_000)
    assert moment(dict(Exif().describe(decoded.image, decoded.exif, "a.jpg"))) == (
        "2024-05-31T18:00:05+09:00", "2024-05-31T18:00:05", "exif",
    )  # fmt: skip
