"""JPEG: whatever stands in application segments, the pixels are those of the clean file."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from es_imgsearch.errors import ReadError
from es_imgsearch.read.decoding import decode
from tests.support import broken_files as broken
from tests.support import picture_samples as samples

pytestmark = pytest.mark.filterwarnings("ignore")

THUMBNAIL = samples.saved(broken.noise().resize((16, 12)), "JPEG")
BODIES = (*broken.JUNK[:4], broken.JUNK[-1], b"II*\0\x08\0\0\0" + THUMBNAIL)
KINDS = {
    "colours": lambda: broken.saved("JPEG", quality=95),
    "grey": lambda: broken.saved("JPEG", "L"),
    "progressive": lambda: broken.saved("JPEG", progressive=True),
    "inks": lambda: broken.saved("JPEG", "CMYK"),
}
PLACES = tuple(broken.jpeg_places(KINDS["colours"]()))


@cache
def clean(kind: str) -> bytes:
    return KINDS[kind]()


@cache
def pixels(kind: str) -> np.ndarray:
    return np.asarray(decode(clean(kind), max_pixels=1_000_000).image)


def assert_same(content: bytes, kind: str = "colours") -> None:
    assert (np.asarray(decode(content, max_pixels=1_000_000).image) == pixels(kind)).all()


def inserted(kind: str, place: str, data: bytes) -> bytes:
    content = clean(kind)
    at = broken.jpeg_places(content)[place]
    return content[:at] + data + content[at:]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_segments_of_every_application_cost_nothing(kind: str, place: str):
    for marker in broken.JPEG_MARKERS:
        for head in broken.JPEG_HEADS.get(marker, (b"application\0",)):
            for body in BODIES:
                data = head + body
                # (Adobe's segment of this length says which colours these are.)
                if marker != 0xEE or len(data) < 12:
                    assert_same(inserted(kind, place, broken.segment(marker, data)), kind)


@pytest.mark.parametrize("place", PLACES[:-1])
@pytest.mark.parametrize("kind", ["colours", "progressive"])
def test_segments_of_a_wrong_length_cost_themselves_only(kind: str, place: str):
    for marker in (0xE1, 0xE2, 0xED, 0xE5, 0xFE):
        for head in broken.JPEG_HEADS.get(marker, (b"application\0",)):
            for body in BODIES:
                for more in (-(len(head + body) // 2), -1, 1, 7, 60, 3000):
                    data = broken.segment(marker, head + body, more)
                    assert_same(inserted(kind, place, data), kind)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "junk", [b"junk" * 4, b"\xff\0\xff\x02\xff\xff", b"\0" * 3, b"\xff\xe1\0\0", b"\xff\xe1\0\1\0"]
)
def test_bytes_between_segments_cost_nothing(place: str, junk: bytes):
    if place != "after_start" or junk.startswith(b"\xff\xe1"):
        assert_same(inserted("colours", place, junk))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("kind", ["colours", "progressive"])
def test_a_file_that_lacks_pixels_is_a_failure_with_damaged_segments_too(kind: str, share: float):
    data = broken.segment(0xE1, b"Exif\0\0" + broken.JUNK[-1], 60)
    for content in (clean(kind), inserted(kind, "before_tables", data)):
        scan = content.index(b"\xff\xda")
        end = scan + int((len(content) - scan) * share)
        with pytest.raises(ReadError) as caught:
            decode(content[:end], max_pixels=1_000_000)
        assert caught.value.error_class == "truncated"


def test_damaged_tables_stay_a_failure():
    content = clean("colours")
    for kept in (content.index(b"\xff\xc0"), content.index(b"\xff\xda")):
        with pytest.raises(ReadError):
            decode(content[:kept] + b"\xff\xd9", max_pixels=1_000_000)


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'


@pytest.mark.parametrize(
    "damaged",
    [
        broken.segment(0xE2, b"MPF\0II*\0\x08\0\0\0", 99),
        broken.segment(0xED, b"Photoshop 3.0\x008BIM"),
        broken.segment(0xE0, b"JFIF\0"),
        broken.segment(0xEE, b"Adobe"),
        b"junk",
    ],
)
def test_what_is_whole_is_read_beside_what_is_damaged(damaged: bytes):
    profile = samples.rgb_profile(samples.ADOBE_RGB)
    content = broken.saved(
        "JPEG", quality=95, icc_profile=profile, xmp=XMP, exif=samples.exif_bytes(6)
    )
    wanted = decode(content, max_pixels=1_000_000)
    at = content.index(b"\xff\xdb")
    iptc = broken.segment(0xED, b"Photoshop 3.0\x008BIM\4\4\0\0\0\0\0\5title\0")
    for more in (damaged + iptc, iptc + damaged):
        found = decode(content[:at] + more + content[at:], max_pixels=1_000_000)
        assert found.size == (48, 64)
        assert (np.asarray(found.image) == np.asarray(wanted.image)).all()
        assert found.image.info["xmp"] == XMP
        assert found.image.info["photoshop"][0x0404] == b"title"


def test_the_thumbnail_of_a_damaged_segment_is_not_taken_for_the_picture():
    large = samples.saved(broken.noise().resize((640, 480)), "JPEG")
    data = b"Exif\0\0II*\0\x08\0\0\0" + large
    for more in (-900, -3, 5, 900):
        assert_same(inserted("colours", "after_end", broken.segment(0xE1, data, more)))
    data = b"Exif\0\0II*\0\x08\0\0\0" + THUMBNAIL
    for more in (-600, -3, 5, 900):
        for place in PLACES[:-1]:
            assert_same(inserted("colours", place, broken.segment(0xE1, data, more)))


def test_the_photographs_are_read_as_before_and_beside_damage(photographs: Path):
    for path in (photographs / "rocket.jpg", *sorted(photographs.glob("*.jpg"))):
        content = path.read_bytes()
        wanted = np.asarray(decode(content, max_pixels=10**8).image)
        data = broken.segment(0xE2, b"MPF\0" + broken.JUNK[-1], 400)
        found = decode(content[:2] + data + content[2:], max_pixels=10**8).image
        assert (np.asarray(found) == wanted).all(), path.name


@st.composite
def application(draw: st.DrawFn) -> bytes:
    """A segment that no pixel needs, of any data, perhaps said to be longer than it is."""
    marker = draw(st.sampled_from(broken.JPEG_MARKERS))
    head = draw(st.sampled_from(broken.JPEG_HEADS.get(marker, (b"application\0",))))
    data = head + draw(st.binary(max_size=300))
    more = draw(st.sampled_from([0, 0, 1, 2, 5, 9]))
    return broken.segment(marker, data[:11] if marker == 0xEE else data, more)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(segments=st.lists(application(), max_size=3), place=st.sampled_from(PLACES))
def test_whatever_stands_in_application_segments_the_pixels_are_the_same(
    segments: list[bytes], place: str
):
    assert_same(inserted("colours", place, b"".join(segments)))
