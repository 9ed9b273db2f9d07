"""What cameras write, and what they should not have written."""

from __future__ import annotations

import io
import re
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from es_imgsearch.describe.exif import Exif
from tests.support import picture_samples as samples

MAKE, MODEL = 0x010F, 0x0110
TAKEN, TAKEN_OFFSET, DIGITIZED, DIGITIZED_OFFSET = 0x9003, 0x9011, 0x9004, 0x9012
LAT_REF, LAT, LON_REF, LON = 1, 2, 3, 4
IMAGE = Image.new("RGB", (1, 1))

pytestmark = pytest.mark.filterwarnings("ignore")


def exif_of(
    tags: dict[int, Any] | None = None,
    details: dict[int, Any] | None = None,
    gps: dict[int, Any] | None = None,
) -> Image.Exif:
    """As if read from a file: values are what Pillow would hand out."""
    exif = Image.Exif()
    for tag, value in (tags or {}).items():
        exif[tag] = value
    exif._ifds[ExifTags.IFD.Exif] = dict(details or {})
    exif._ifds[ExifTags.IFD.GPSInfo] = dict(gps or {})
    return exif


def described(**parts: Any) -> dict[str, Any]:
    return dict(Exif().describe(IMAGE, exif_of(**parts), "a.jpg"))


def taken_at(text: Any, offset: Any = None) -> str | None:
    details = {TAKEN: text} | ({} if offset is None else {TAKEN_OFFSET: offset})
    return described(details=details).get("taken_at")


def from_file(exif: Image.Exif) -> Image.Exif:
    """Written into a JPEG and read back."""
    buffer = io.BytesIO()
    samples.four_corners().save(buffer, "JPEG", exif=exif.tobytes())
    return Image.open(buffer).getexif()


# -- when ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "offset", "expected"),
    [
        ("2024:05:31 18:00:05", None, "2024-05-31T18:00:05"),
        ("2024:05:31 18:00:05", "+02:00", "2024-05-31T18:00:05+02:00"),
        ("2024:05:31 18:00:05", "-09:30", "2024-05-31T18:00:05-09:30"),
        ("2024:05:31 18:00:05", "Z", "2024-05-31T18:00:05+00:00"),
        ("2024:05:31 18:00:05\0", "+02:00\0", "2024-05-31T18:00:05+02:00"),
        (b"2024:05:31 18:00:05", b"+02:00", "2024-05-31T18:00:05+02:00"),
        ("1999:12:31 23:59:59", "+00:00", "1999-12-31T23:59:59+00:00"),
    ],
)
def test_the_moment_is_kept_with_the_offset_the_camera_wrote(text, offset, expected):
    assert taken_at(text, offset) == expected


@pytest.mark.parametrize(
    "offset", ["   :  ", "+25:00", "+23:00", "T1", ".5", "+02:00:30", "", "\0", "summer", 2, (1, 2)]
)
def test_an_offset_that_is_none_is_left_out(offset):
    found = taken_at("2024:05:31 18:00:05", offset)
    assert found in {"2024-05-31T18:00:05", "2024-05-31T18:00:05+02:00"}
    assert found is not None
    # Java's time zones, and so Elasticsearch's, end at 18 hours.
    assert not re.search(r"[+-](1[5-9]|2)", found[19:])


def test_the_moment_of_digitizing_stands_in_for_a_missing_one():
    details = {TAKEN: "0000:00:00 00:00:00", DIGITIZED: "2024:05:31 18:00:05"}
    assert described(details=details)["taken_at"] == "2024-05-31T18:00:05"
    details = {DIGITIZED: "2024:05:31 18:00:05", DIGITIZED_OFFSET: "+01:00"}
    assert described(details=details)["taken_at"] == "2024-05-31T18:00:05+01:00"


# -- with what -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "model", "expected"),
    [
        ("Apple", "iPhone 15", "Apple iPhone 15"),
        ("Canon", "Canon EOS R5", "Canon EOS R5"),
        ("CANON", "Canon EOS R5", "Canon EOS R5"),
        ("NIKON CORPORATION", "NIKON D90", "NIKON D90"),
        ("Canon\0\0\0", "Canon EOS\0junk", "Canon EOS"),
        ("  SONY  ", " ILCE-7 ", "SONY ILCE-7"),
        (None, "D90", "D90"),
        ("Nikon", None, "Nikon"),
        ("", "", None),
        ("\0\0\0", "\0", None),
        (None, None, None),
        (b"Apple\0", b"iPhone", "Apple iPhone"),
        ((1, 2), 7, None),
        ("x" * 5000, "y", "x" * 256),
    ],
)
def test_make_and_model_are_one_name(make, model, expected):
    tags = {tag: value for tag, value in ((MAKE, make), (MODEL, model)) if value is not None}
    assert described(tags=tags).get("camera") == expected


# -- where ---------------------------------------------------------------------------------


def located(lat: Any, lat_ref: Any, lon: Any, lon_ref: Any) -> Any:
    gps = {LAT: lat, LAT_REF: lat_ref, LON: lon, LON_REF: lon_ref}
    return described(gps={key: value for key, value in gps.items() if value is not None}).get(
        "location"
    )


def angle(degrees: float, minutes: float = 0, seconds: float = 0) -> tuple[IFDRational, ...]:
    return tuple(IFDRational(round(part * 100), 100) for part in (degrees, minutes, seconds))


@pytest.mark.parametrize(
    ("lat_ref", "lon_ref", "expected"),
    [("N", "E", (1, 1)), ("N", "W", (1, -1)), ("S", "E", (-1, 1)), ("S", "W", (-1, -1)),
     ("s\0", "w", (-1, -1)), (b"S", b"W", (-1, -1)), ("South", "West", (-1, -1))],
)  # fmt: skip
def test_all_hemispheres(lat_ref, lon_ref, expected):
    found = located(angle(33, 51, 24.84), lat_ref, angle(151, 12, 33.48), lon_ref)
    assert found == {"lat": expected[0] * 33.8569, "lon": expected[1] * 151.2093}


def test_a_negative_angle_in_the_south_is_south():
    assert located(angle(-33), "S", angle(-70), "W") == {"lat": -33, "lon": -70}


@pytest.mark.parametrize(
    ("lat", "lat_ref", "lon", "lon_ref"),
    [
        (angle(33), None, angle(151), "E"),
        (angle(33), "", angle(151), "E"),
        (angle(33), "E", angle(151), "E"),
        ((IFDRational(33, 0), IFDRational(0, 1), IFDRational(0, 1)), "N", angle(1), "E"),
        ((IFDRational(0, 0),) * 3, "N", (IFDRational(0, 0),) * 3, "E"),
        (angle(91), "N", angle(1), "E"),
        (angle(1), "N", angle(181), "E"),
        (angle(90, 0, 1), "N", angle(1), "E"),
        (angle(0), "N", angle(0), "E"),
        ("123", "N", angle(1), "E"),
        (b"\x01\x02\x03", "N", angle(1), "E"),
        (("a", "b", "c"), "N", angle(1), "E"),
        (angle(1)[:2], "N", angle(1), "E"),
        (IFDRational(1, 2), "N", angle(1), "E"),
        (33.5, "N", angle(1), "E"),
        ((float("inf"), 0, 0), "N", angle(1), "E"),
        ((float("nan"), 0, 0), "N", angle(1), "E"),
        (angle(1), "N", None, None),
        (angle(1), 7, angle(1), (1, 2)),
    ],
)
def test_a_place_that_makes_no_sense_is_left_out(lat, lat_ref, lon, lon_ref):
    assert located(lat, lat_ref, lon, lon_ref) is None


def test_places_survive_being_written_and_read():
    exif = Image.Exif()
    exif[ExifTags.IFD.GPSInfo] = {
        LAT_REF: "S", LAT: (33.0, 51.0, 24.84), LON_REF: "E", LON: (151.0, 12.0, 33.48),
    }  # fmt: skip
    exif[MAKE], exif[MODEL] = "Canon", "Canon EOS"
    exif[ExifTags.IFD.Exif] = {TAKEN: "2024:05:31 18:00:05", TAKEN_OFFSET: "+02:00"}
    assert Exif().describe(IMAGE, from_file(exif), "a.jpg") == {
        "taken_at": "2024-05-31T18:00:05+02:00",
        "taken_local": "2024-05-31T18:00:05",
        "taken_from": "exif",
        "camera": "Canon EOS",
        "location": {"lat": -33.8569, "lon": 151.2093},
    }


# -- broken blocks -------------------------------------------------------------------------


def full_block() -> bytes:
    exif = Image.Exif()
    exif[MAKE], exif[MODEL] = "Canon", "Canon EOS"
    exif[ExifTags.IFD.Exif] = {TAKEN: "2024:05:31 18:00:05", TAKEN_OFFSET: "+02:00"}
    exif[ExifTags.IFD.GPSInfo] = {
        LAT_REF: "S", LAT: (33.0, 51.0, 24.0), LON_REF: "E", LON: (151.0, 12.0, 33.0),
    }  # fmt: skip
    return exif.tobytes()


def assert_plausible(fields: dict[str, Any]) -> None:
    """What the mapping takes: a date, a keyword, a place on Earth."""
    taken = {"taken_at", "taken_local", "taken_from"}
    assert fields.keys() <= {*taken, "camera", "location", "describe_errors"}
    assert len(fields.keys() & taken) in {0, 3}
    if "taken_at" in fields:
        offset = datetime.fromisoformat(fields["taken_at"]).utcoffset()
        assert offset is None or abs(offset.total_seconds()) <= 14 * 3600
    if "camera" in fields:
        assert fields["camera"]
        assert len(fields["camera"].encode()) < 32_766
    if "location" in fields:
        assert abs(fields["location"]["lat"]) <= 90
        assert abs(fields["location"]["lon"]) <= 180


def read_block(block: bytes) -> dict[str, Any]:
    buffer = io.BytesIO()
    samples.four_corners((8, 8)).save(buffer, "JPEG", exif=block)
    buffer.seek(0)
    from es_imgsearch.read.decoding import decode

    decoded = decode(buffer.getvalue(), max_pixels=1000)
    return dict(Exif().describe(decoded.image, decoded.exif, "a.jpg"))


def test_lens_and_exposure_survive_being_written_and_read():
    tags = ExifTags.Base
    details = {
        tags.LensMake: "NIKON",
        tags.LensModel: "AF-S 35mm f/1.8",
        tags.ExposureTime: IFDRational(1, 250),
        tags.FNumber: IFDRational(18, 10),
        tags.ISOSpeedRatings: 400,
        tags.FocalLength: IFDRational(35, 1),
    }
    assert Exif().describe(IMAGE, from_file(exif_of(details=details)), "a.jpg") == {
        "lens": "NIKON AF-S 35mm f/1.8",
        "exposure_seconds": 0.004,
        "f_number": 1.8,
        "iso": 400,
        "focal_length_mm": 35.0,
    }


@pytest.mark.parametrize("value", [0, -1, IFDRational(1, 0), float("nan"), float("inf"), "x", None])
def test_an_exposure_that_no_camera_makes_is_left_out(value):
    tags = ExifTags.Base
    details = {tags.ExposureTime: value, tags.FNumber: value, tags.ISOSpeedRatings: value}
    assert described(details=details) == {}


def test_a_block_cut_anywhere_gives_what_is_left_of_it():
    block = full_block()
    whole = read_block(block)
    assert len(whole) == 5
    for length in range(6, len(block)):
        fields = read_block(block[:length])
        assert_plausible(fields)
        for name in fields.keys() & {"camera"}:
            assert whole[name].startswith(fields[name]) or fields[name] in {"Canon", "Canon Canon"}


def test_a_part_that_cannot_be_read_costs_itself_only(monkeypatch: pytest.MonkeyPatch):
    exif = exif_of(tags={MAKE: "Canon"}, gps={LAT: angle(1), LAT_REF: "N"})
    get = Image.Exif.get_ifd

    def get_ifd(self: Image.Exif, tag: int) -> dict[int, Any]:
        if tag == ExifTags.IFD.Exif:
            raise TypeError("not a tag")
        return get(self, tag)

    monkeypatch.setattr(Image.Exif, "get_ifd", get_ifd)
    fields = dict(Exif().describe(IMAGE, exif, "a.jpg"))
    assert fields.pop("describe_errors")[0].startswith("exif: left out: EXIF: Exif is malformed")
    assert fields == {"camera": "Canon"}


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_block_with_any_bytes_changed_gives_plausible_fields(data: st.DataObject):
    block = bytearray(full_block())
    for at, value in data.draw(
        st.lists(
            st.tuples(st.integers(6, len(block) - 1), st.integers(0, 255)), min_size=1, max_size=8
        )
    ):
        block[at] = value
    assert_plausible(read_block(bytes(block)))


# Anything Pillow may hand out for any tag.
values = st.one_of(
    st.none(), st.text(max_size=30), st.binary(max_size=30), st.integers(), st.floats(),
    st.builds(IFDRational, st.integers(), st.integers()),
    st.lists(
        st.one_of(st.integers(), st.text(max_size=3), st.floats(),
                  st.builds(IFDRational, st.integers(), st.integers())),
        max_size=4,
    ).map(tuple),
)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from([MAKE, MODEL]), values),
    st.dictionaries(
        st.sampled_from([TAKEN, TAKEN_OFFSET, DIGITIZED, DIGITIZED_OFFSET]),
        st.one_of(values, st.just("2024:05:31 18:00:05"), st.from_regex(r"[+-]\d\d:\d\d")),
    ),
    st.dictionaries(st.sampled_from([LAT, LAT_REF, LON, LON_REF]),
                    st.one_of(values, st.sampled_from(["N", "S", "E", "W"]))),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_whatever_stands_in_the_tags_the_fields_are_plausible(tags, details, gps):
    assert_plausible(described(tags=tags, details=details, gps=gps))
