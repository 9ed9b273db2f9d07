"""PNG: whatever stands in ancillary chunks, the pixels are those of the clean file."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from es_imgsearch.errors import ReadError
from es_imgsearch.read.decoding import decode
from tests.support import broken_png
from tests.support import picture_samples as samples

pytestmark = pytest.mark.filterwarnings("ignore")

MODES = ("RGB", "P", "L", "RGBA")
PLACES = broken_png.PLACES


@cache
def pixels(content: bytes) -> np.ndarray:
    return np.asarray(decode(content, max_pixels=1_000_000).image)


@cache
def clean(mode: str) -> bytes:
    return broken_png.clean(mode)


def assert_same(content: bytes, mode: str = "RGB") -> None:
    assert (np.asarray(decode(content, max_pixels=1_000_000).image) == pixels(clean(mode))).all()


def failure(content: bytes) -> str:
    with pytest.raises(ReadError) as caught:
        decode(content, max_pixels=1_000_000)
    return caught.value.error_class


JUNK = bytes(range(200))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("mode", MODES)
def test_damaged_ancillary_chunks_of_every_kind_cost_nothing(place: str, mode: str):
    for kind in broken_png.ANCILLARY:
        for data in (b"", b"\0", JUNK):
            assert_same(
                broken_png.with_chunks(clean(mode), place, broken_png.wrong_sum(kind, data)), mode
            )
            # (A good tRNS changes pixels, that is what it is for.)
            if kind != b"tRNS" or not data:
                chunk = samples.png_chunk(kind, data)
                assert_same(broken_png.with_chunks(clean(mode), place, chunk, chunk), mode)
        for more in (-300, -5, 1, 5, 300, 10**6, 2**31):
            chunk = broken_png.wrong_length(kind, JUNK, more)
            assert_same(broken_png.with_chunks(clean(mode), place, chunk), mode)


LARGE = {
    "text": (b"tEXt", b"mxfile\0" + b"x" * 3_000_000),
    "packed text": (b"zTXt", b"mxfile\0\0" + broken_png.bomb(3 << 20)),
    "packed text of all languages": (b"iTXt", b"mxfile\0\1\0\0\0" + broken_png.bomb(3 << 20)),
    "XMP": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + broken_png.bomb(3 << 20)),
    "profile": (b"iCCP", b"name\0\0" + broken_png.bomb(3 << 20)),
    "EXIF": (b"eXIf", b"II*\0" + bytes(2 << 20)),
    "suggested palette": (b"sPLT", b"name\0\x08" + bytes(6 * 300_000)),
    "private": (b"prVt", bytes(2 << 20)),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", LARGE)
def test_large_texts_and_profiles_cost_nothing(name: str, place: str):
    assert_same(broken_png.with_chunks(clean("RGB"), place, samples.png_chunk(*LARGE[name])))


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_text_of_four_gigabytes_is_not_unpacked(kind: bytes):
    packed = broken_png.bomb(4 << 30)
    head = b"XML:com.adobe.xmp\0\1\0\0\0" if kind == b"iTXt" else b"Raw profile type xmp\0\0"
    content = broken_png.with_chunks(
        clean("RGB"), "before_data", samples.png_chunk(kind, head + packed)
    )
    pixels(clean("RGB"))
    tracemalloc.start()
    try:
        assert_same(content)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(packed) + (64 << 20)
    finally:
        tracemalloc.stop()


def test_a_file_that_lacks_its_end_is_read():
    content = clean("RGB")
    for cut in (12, 8, 5, 1):
        assert_same(content[:-cut])
    for more in (b"\0", b"junk" * 100, content):
        assert_same(content + more)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95])
def test_a_file_that_lacks_pixels_is_a_failure(share: float):
    content = clean("RGB")
    head = content.index(b"IDAT") + 4
    end = head + int((len(content) - head - 16) * share)
    assert failure(content[:end]) == "truncated"
    # With the end of a whole file, too.
    data = zlib.compress(zlib.decompress(content[head:-16])[: int(9000 * share)])
    parts = broken_png.chunks_of(content)
    assert failure(content[:8] + parts[0] + samples.png_chunk(b"IDAT", data) + parts[-1]) in {
        "truncated", "corrupt",
    }  # fmt: skip


def test_a_damaged_picture_stays_a_failure():
    content = clean("RGB")
    data = content.index(b"IDAT") + 4
    assert failure(content[:data] + b"\xff" * 40 + content[data + 40 :]) == "corrupt"
    assert failure(content.replace(b"IHDR", b"IHDX")) == "corrupt"
    assert failure(content[:29] + b"\0\0\0\0" + content[33:]) == "corrupt"
    # Data whose kind is damaged is not passed over as if it were a text.
    parts = broken_png.split_data(content)
    parts[2] = parts[2].replace(b"IDAT", b"IDAU", 1)
    assert failure(content[:8] + b"".join(parts)) in {"truncated", "corrupt"}
    palette = clean("P").replace(b"PLTE", b"pLTE")
    assert failure(palette) == "corrupt"


def test_too_many_pixels_are_refused_whatever_else_is_damaged():
    content = broken_png.with_chunks(
        clean("RGB"), "before_data", broken_png.wrong_sum(b"tEXt", b"a\0b")
    )
    with pytest.raises(ReadError, match=r"^64 x 48 pixels"):
        decode(content, max_pixels=64 * 48 - 1)


# -- what is needed, or read ----------------------------------------------------------------


def test_transparency_counts_if_it_is_good_and_where_it_belongs():
    image = Image.new("RGB", (8, 8), (10, 20, 30))
    content = samples.saved(image, "PNG")
    chunk = samples.png_chunk(b"tRNS", struct.pack(">3H", 10, 20, 30))
    assert pixels(broken_png.with_chunks(content, "before_data", chunk))[0, 0].tolist() == [255] * 3
    for place in ("between_data", "after_data"):
        found = pixels(broken_png.with_chunks(content, place, chunk))
        assert found[0, 0].tolist() == [10, 20, 30]
    damaged = chunk[:-1] + bytes([chunk[-1] ^ 1])
    found = pixels(broken_png.with_chunks(content, "before_data", damaged))
    assert found[0, 0].tolist() == [10, 20, 30]


def large_profile() -> bytes:
    """A profile of 2.5 MB, as those of printers are."""
    profile = samples.rgb_profile(samples.ADOBE_RGB)
    noise = np.random.default_rng(3).integers(0, 256, 2_500_000, np.uint8).tobytes()
    return struct.pack(">I", len(profile) + len(noise)) + profile[4:] + noise


@pytest.mark.parametrize("extra", [b"", broken_png.wrong_sum(b"tEXt", b"a\0b")])
def test_a_profile_of_2_5_megabytes_is_followed(extra: bytes):
    content = samples.saved(Image.new("RGB", (16, 16), (144, 255, 60)), "PNG")
    chunk = samples.png_chunk(b"iCCP", b"printer\0\0" + zlib.compress(large_profile(), 1))
    found = pixels(broken_png.with_chunks(content, "after_header", extra, chunk))
    assert samples.near(found[8, 8], (0, 255, 0), 14)


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'


@pytest.mark.parametrize("place", PLACES[:-1])
def test_metadata_is_read_beside_damaged_chunks(place: str):
    exif = samples.exif_bytes(6).removeprefix(b"Exif\0\0")
    content = broken_png.with_chunks(
        clean("RGB"),
        place,
        broken_png.wrong_sum(b"pHYs", b"zz"),
        samples.png_chunk(b"eXIf", exif),
        samples.png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)),
        broken_png.wrong_sum(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<wrong/>"),
    )
    found = decode(content, max_pixels=1_000_000)
    assert found.size == (48, 64)
    assert (np.rot90(pixels(clean("RGB")), -1) == np.asarray(found.image)).all()
    assert found.image.info["xmp"] == XMP


def test_the_hexadecimal_profiles_of_imagemagick_are_read():
    iptc = b"8BIM\4\4\0\0\0\0\0\5title\0"
    exif = samples.exif_bytes(6)
    profiles = {b"exif": exif, b"xmp": XMP, b"iptc": iptc}
    chunks = [
        samples.png_chunk(
            b"zTXt",
            b"Raw profile type " + kind + b"\0\0"
            + zlib.compress(b"\n%s\n%8d\n%s\n" % (kind, len(data), data.hex().encode())),
        )
        for kind, data in profiles.items()
    ]  # fmt: skip
    found = decode(broken_png.with_chunks(clean("RGB"), "after_data", *chunks), max_pixels=10**6)
    assert found.size == (48, 64)
    assert found.image.info["xmp"] == XMP
    assert found.image.info["photoshop"] == {0x0404: b"title"}


def test_an_animation_shows_its_picture_and_a_damaged_one_too():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    content = samples.saved(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert pixels(content)[0, 0].tolist() == [255, 0, 0]
    for kind in (b"acTL", b"fcTL", b"fdAT"):
        at = content.index(kind) + 4
        for junk in (b"\xff" * 4, b"\0" * 4):
            damaged = content[:at] + junk + content[at + 4 :]
            assert pixels(damaged)[0, 0].tolist() == [255, 0, 0]


def test_the_photographs_are_read_as_before(photographs: Path):
    for path in sorted(photographs.glob("*.png")):
        content = path.read_bytes()
        with Image.open(path) as image:
            if image.mode not in {"RGB", "L"} or "icc_profile" in image.info:
                continue
            wanted = np.asarray(image.convert("RGB"))
        chunk = broken_png.wrong_length(b"tEXt", JUNK, 7)
        broken = broken_png.with_chunks(content, "before_data", chunk)
        for each in (content, broken):
            found = decode(each, max_pixels=10**8).image
            assert (np.asarray(found) == wanted).all(), path.name


# -- any bytes ------------------------------------------------------------------------------

CHUNK_SIZES = [len(chunk) for chunk in broken_png.split_data(clean("RGB"))]


@st.composite
def ancillary(draw: st.DrawFn) -> bytes:
    """A chunk of any kind that is not needed, of any data, perhaps of a wrong sum or length."""
    kind = draw(st.sampled_from(broken_png.ANCILLARY)) if draw(st.booleans()) else b"abCd"
    data = draw(st.binary(max_size=300))
    match draw(st.sampled_from(["good", "sum", "length"])):
        case "sum":
            return broken_png.wrong_sum(kind, data)
        case "length":
            return broken_png.wrong_length(kind, data, draw(st.integers(1, 11)))
    return samples.png_chunk(b"tEXt" if kind == b"tRNS" else kind, data)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(chunks=st.dictionaries(st.sampled_from(PLACES), ancillary(), max_size=3))
def test_whatever_stands_in_ancillary_places_the_pixels_are_the_same(chunks: dict[str, bytes]):
    content = clean("RGB")
    for place, chunk in chunks.items():
        content = inserted(content, place, chunk)
    assert_same(content)


def inserted(content: bytes, place: str, chunk: bytes) -> bytes:
    """Insert between good chunks; others may be damaged, so that offsets are searched for."""
    first = content.index(b"IDAT") - 4
    at = {
        "after_header": 33,
        "before_data": first,
        "between_data": first,
        "after_data": content.rindex(b"IEND") - 4,
        "after_end": content.rindex(b"IEND") + 8,
    }[place]
    return content[:at] + chunk + content[at:]
