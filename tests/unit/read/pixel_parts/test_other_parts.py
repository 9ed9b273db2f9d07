"""Other formats: damaged metadata costs itself only, damaged pixels stay a failure."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from PIL import Image

from es_imgsearch.errors import ReadError
from es_imgsearch.read.decoding import Decoded, decode
from tests.support import broken_files as broken
from tests.support import broken_png
from tests.support import picture_samples as samples

pytestmark = pytest.mark.filterwarnings("ignore")

JUNK = broken.JUNK
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'


def decoded(content: bytes, suffix: str = "") -> Decoded:
    return decode(content, max_pixels=1_000_000, suffix=suffix)


@cache
def pixels(content: bytes, suffix: str = "") -> np.ndarray:
    return np.asarray(decoded(content, suffix).image)


def assert_same(content: bytes, clean: bytes, suffix: str = "") -> None:
    assert (np.asarray(decoded(content, suffix).image) == pixels(clean, suffix)).all()


def exif() -> bytes:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    return exif.tobytes()


# -- WebP ----------------------------------------------------------------------------------

WEBPS = {
    "lossy": lambda: broken.saved("WEBP", quality=90, exif=exif(), xmp=XMP),
    "lossless": lambda: broken.saved("WEBP", lossless=True, exif=exif()),
    "plain": lambda: broken.saved("WEBP"),
    "transparent": lambda: broken.saved("WEBP", "RGBA", exif=exif()),
    "animated": lambda: broken.saved(
        "WEBP", save_all=True, append_images=[broken.noise().rotate(90)], exif=exif()
    ),
}


@pytest.mark.parametrize("name", WEBPS)
@pytest.mark.parametrize("kind", [b"EXIF", b"XMP ", b"ICCP", b"ABCD"])
def test_damaged_chunks_of_a_webp(name: str, kind: bytes):
    clean = WEBPS[name]()
    chunks = broken.riff_chunks(clean)
    for data in JUNK:
        for at in range(len(chunks) + 1):
            for more in (0, -2, 2, 200, 10**6, 2**31):
                content = broken.riff(*chunks[:at], (kind, data, more), *chunks[at:])
                assert_same(content, clean)


@pytest.mark.parametrize("name", WEBPS)
def test_a_webp_that_announces_what_it_lacks_or_a_wrong_size(name: str):
    clean = WEBPS[name]()
    pictures = [each for each in broken.riff_chunks(clean) if each[0] not in {b"EXIF", b"XMP "}]
    assert_same(broken.riff(*pictures), clean)
    assert_same(clean + b"junk" * 100, clean)
    for size in (0, 4, len(clean) - 18, len(clean) + 10, 2**32 - 1):
        assert_same(clean[:4] + struct.pack("<I", size) + clean[8:], clean)


def test_what_is_whole_in_a_damaged_webp_is_read():
    chunks = broken.riff_chunks(WEBPS["lossy"]())
    found = decoded(broken.riff(chunks[0], (b"ABCD", b"junk", 99), *chunks[1:]))
    assert found.exif[0x010F] == "Maker"
    assert found.image.info["xmp"] == XMP


@pytest.mark.parametrize("name", ["lossy", "lossless", "animated"])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_half_a_webp_is_a_failure(name: str, share: float):
    content = WEBPS[name]()
    chunk = (b"EXIF", JUNK[-1], 77)
    broken_too = broken.riff(chunk, *broken.riff_chunks(content))
    for each in (content, broken_too):
        with pytest.raises(ReadError):
            decoded(each[: int(len(each) * share)])


# -- GIF -----------------------------------------------------------------------------------

GIFS = {
    "plain": lambda: broken.saved("GIF", "P"),
    "animated": lambda: broken.saved(
        "GIF", "P", save_all=True, append_images=[broken.noise("P").rotate(90)], duration=50
    ),
    "transparent": lambda: broken.saved("GIF", "P", transparency=3),
}


@pytest.mark.parametrize("name", GIFS)
@pytest.mark.parametrize("label", [0xFE, 0xFF, 0x01, 0xF9, 0xCE, 0x00])
def test_damaged_extensions_of_a_gif(name: str, label: int):
    clean = GIFS[name]()
    palette_end = 13 + 3 * (2 << (clean[10] & 7))
    picture = clean.index(b",", palette_end)
    for data in (*(each[:255] for each in JUNK), b"NETSCAPE2.0", b"XMP DataXMP"):
        for damage, extension in broken.extensions(label, data[:240]):
            if label == 0xF9 and damage == "good" and len(data) >= 4:
                continue  # it says which colour is transparent
            for at in (palette_end, picture, len(clean) - 1):
                assert_same(clean[:at] + extension + clean[at:], clean)


def test_the_xmp_of_a_gif_is_read():
    clean = GIFS["plain"]()
    end = 13 + 3 * (2 << (clean[10] & 7))
    trailer = bytes([1, *range(255, -1, -1), 0])
    content = clean[:end] + b"!\xff\x0bXMP DataXMP" + XMP + trailer + clean[end:]
    assert_same(content, clean)
    assert decoded(content).image.info["xmp"] == XMP


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_half_a_gif_is_a_failure(share: float):
    content = GIFS["plain"]()
    with pytest.raises(ReadError) as caught:
        decoded(content[: int(len(content) * share)])
    assert caught.value.error_class in {"truncated", "corrupt"}


def test_a_picture_larger_than_the_screen_is_shown_whole():
    clean = GIFS["plain"]()
    assert_same(clean[:6] + struct.pack("<HH", 8, 8) + clean[10:], clean)


# -- TIFF ----------------------------------------------------------------------------------

TIFFS = {
    "plain": lambda: broken.saved("TIFF"),
    "lzw": lambda: broken.saved("TIFF", compression="tiff_lzw"),
    "big endian": lambda: samples.tiff(
        np.asarray(broken.noise()), photometric="rgb", byteorder=">"
    ),
    "float": lambda: samples.tiff(samples.corners_array(np.float32, 1.0), photometric="rgb"),
    "jpeg": lambda: broken.saved("TIFF", compression="jpeg"),
}
# Texts, resolution, dates, XMP, IPTC, Photoshop, EXIF, GPS, GeoTIFF, halftones and more.
TIFF_TAGS = (
    269, 270, 271, 272, 280, 281, 282, 283, 285, 286, 290, 296, 297, 301, 305, 306, 315, 316, 318,
    319, 333, 336, 700, 33432, 33550, 33723, 34377, 34665, 34735, 34853, 37724, 42113, 65000,
)  # fmt: skip


@pytest.mark.parametrize("name", TIFFS)
@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4, 5, 7, 9, 12, 13, 16, 0xFFFF])
def test_damaged_tags_of_a_tiff(name: str, kind: int):
    clean = TIFFS[name]()
    for tag in TIFF_TAGS:
        for count, value in ((0, 0), (1, 2**32 - 1), (3, 8), (2**32 - 1, 8), (5, len(clean) - 3)):
            assert_same(broken.tiff_with(clean, tag, kind, count, value), clean)


def test_what_is_whole_in_a_damaged_tiff_is_read():
    content = broken.saved("TIFF", tiffinfo={271: "Maker", 274: 6, 315: "Ada"})
    found = decoded(broken.tiff_with(content, 700, 5, 1, 0))
    assert found.size == (48, 64)
    assert (found.exif[271], found.exif[315]) == ("Maker", "Ada")


# -- HEIF and AVIF -------------------------------------------------------------------------


@cache
def heif(kind: str) -> bytes:
    return broken.saved(kind, quality=90, exif=exif(), xmp=XMP)


def damaged_items(content: bytes) -> Iterator[bytes]:
    """The payloads of metadata, the kinds of its items, and where they are said to lie."""
    for place in (content.find(b"Maker") - 24, content.find(XMP)):
        for at in range(place, place + 30):
            yield content[:at] + b"\xff" + content[at + 1 :]
    for name in (b"Exif", b"mime", b"application/rdf+xml", b"cdsc"):
        at = content.find(name)
        yield content[:at] + b"zzzz" + content[at + 4 :]
    iloc = content.find(b"iloc")
    for at in range(iloc, iloc + 80):
        (value,) = struct.unpack_from(">I", content, at)
        if value == content.find(XMP):
            for wrong in (0, 1, len(content) - 1, len(content) + 5, 2**31, 2**32 - 1):
                yield content[:at] + struct.pack(">I", wrong) + content[at + 4 :]


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_damaged_metadata_of_heif_and_avif(kind: str):
    clean = heif(kind)
    for content in damaged_items(clean):
        assert_same(content, clean)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_what_follows_a_heif_or_avif(kind: str):
    clean = heif(kind)
    for name in (b"free", b"uuid", b"abcd", b"meta", b"Exif"):
        for data in JUNK:
            for more in (0, 50):
                assert_same(clean + broken.box(name, data, more), clean)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_half_a_heif_or_avif_is_a_failure(kind: str, share: float):
    content = broken.saved(kind, quality=90)
    with pytest.raises(ReadError):
        decoded(content[: int(len(content) * share)], ".heic")


# -- JPEG 2000 and JPEG XL -----------------------------------------------------------------


@pytest.mark.parametrize("kind", [b"xml ", b"uuid", b"uinf", b"free", b"res ", b"jp2i", b"abcd"])
def test_damaged_boxes_of_jpeg_2000(kind: bytes):
    clean = broken.saved("JPEG2000")
    signature, file_type, header, stream = broken.boxes(clean)
    resolution = struct.pack(">I", 18) + b"resc" + b"\xff" * 10
    for data in (*JUNK, resolution, resolution[:9]):
        for more in (0, -3, 5, 500, 2**31):
            extra = broken.box(kind, data, more)
            for parts in (
                (extra, header, stream),
                (header, extra, stream),
                (header, stream, extra),
                (broken.box(b"jp2h", header[8:30] + extra + header[30:]), stream),
                (broken.box(b"jp2h", header[8:] + extra), stream),
            ):
                assert_same(b"".join([signature, file_type, *parts]), clean, ".jp2")


@pytest.mark.parametrize("marker", [0x64, 0x63, 0x57, 0x55])
def test_damaged_markers_of_a_jpeg_2000_stream(marker: int):
    boxed = broken.saved("JPEG2000")
    clean = boxed[boxed.index(b"\xff\x4f\xff\x51") :]
    end = 4 + struct.unpack_from(">H", clean, 4)[0]
    for data in JUNK:
        for more in (0, -2, 3, 900):
            content = clean[:end] + broken.segment(marker, data, more) + clean[end:]
            assert_same(content, clean, ".j2k")


@pytest.mark.parametrize(
    "kind", [b"Exif", b"xml ", b"jumb", b"brob", b"jbrd", b"free", b"abcd", b"jxli", b"jhgm"]
)
def test_damaged_boxes_of_jpeg_xl(kind: bytes):
    clean = samples.jxl(broken.noise(), lossless=True, usecontainer=True)
    signature, file_type, stream = broken.boxes(clean)
    parts = [
        broken.box(b"jxlp", struct.pack(">I", 0) + stream[8:40]),
        broken.box(b"jxlp", struct.pack(">I", 0x80000001) + stream[40:]),
    ]
    for data in JUNK:
        for more in (0, -3, 5, 500, 2**31 - 8):
            extra = broken.box(kind, data, more)
            for boxes in (
                (extra, stream),
                (stream, extra),
                (extra, *parts),
                (parts[0], extra, parts[1]),
            ):
                assert_same(b"".join([signature, file_type, *boxes]), clean, ".jxl")


# -- PSD and icons -------------------------------------------------------------------------


def test_damaged_resources_and_layers_of_a_psd():
    clean = samples.psd()
    good = b"8BIM\4\4\0\0\0\0\0\5title\0" + b"8BIM\4\x24\0\0" + struct.pack(">I", 38) + XMP + b"\0"
    for data in (*JUNK, b"8BIM\4\x0f\0\0\xff\xff\xff\xff", b"8BIM\4\x0f\0\0\0\0\0\4abcd", good):
        size = struct.pack(">I", len(data))
        assert_same(clean[:30] + size + data + clean[34:], clean)
        assert_same(clean[:34] + size + data + clean[38:], clean)
    found = decoded(clean[:30] + struct.pack(">I", len(good)) + good + clean[34:])
    assert found.image.info["photoshop"][0x0404] == b"title"
    assert found.image.info["xmp"].rstrip(b"\0") == XMP


BROKEN_CHUNKS = [
    broken_png.wrong_sum(b"tEXt", b"abc"),
    samples.png_chunk(b"pHYs", b""),
    broken_png.wrong_length(b"iCCP", b"abcd", 9),
]


def ico(*entries: tuple[bytes, bytes]) -> bytes:
    at = 6 + 16 * len(entries)
    heads, contents = b"", b""
    for head, content in entries:
        heads += head + struct.pack("<II", len(content), at + len(contents))
        contents += content
    return b"\0\0\1\0" + struct.pack("<H", len(entries)) + heads + contents


def test_damaged_parts_of_icons():
    written = broken.saved("ICO", sizes=[(64, 48), (32, 24), (16, 12)])
    entries = []
    for at in range(6, 6 + 16 * written[4], 16):
        size, start = struct.unpack_from("<II", written, at + 8)
        entries.append((written[at : at + 8], written[start : start + size]))
    *small, (head, largest) = entries
    clean = ico(*entries)
    assert_same(clean, written)
    for chunk in BROKEN_CHUNKS:
        damaged = broken_png.with_chunks(largest, "after_header", chunk)
        assert_same(ico(*small, (head, damaged)), clean)
    for junk in (b"", b"junk", small[0][1][:20]):
        assert_same(ico((small[0][0], junk), (head, largest)), clean)
    assert_same(clean[:4] + b"\x09\0" + clean[6:], clean)
    assert_same(clean + b"junk", clean)
    with pytest.raises(ReadError):
        decoded(ico((head, largest[: len(largest) // 2])))


def test_damaged_elements_of_apples_icons():
    png = samples.saved(broken.noise().resize((128, 128)), "PNG")

    def icns(*elements: tuple[bytes, bytes]) -> bytes:
        body = b"".join(kind + struct.pack(">I", 8 + len(data)) + data for kind, data in elements)
        return b"icns" + struct.pack(">I", 8 + len(body)) + body

    clean = icns((b"ic07", png))
    for chunk in BROKEN_CHUNKS:
        assert_same(icns((b"ic07", broken_png.with_chunks(png, "after_header", chunk))), clean)
    for extra in ((b"TOC ", b""), (b"info", b"bplist"), (b"abcd", b"1234"), (b"icnV", b"")):
        assert_same(icns(extra, (b"ic07", png)), clean)
        assert_same(icns((b"ic07", png), extra), clean)
    assert_same(clean[:4] + b"\0\0\0\x09" + clean[8:], clean)
    assert_same(clean + b"junk", clean)


# -- formats of which Pillow reads no more than the pixels need ------------------------------


def test_other_formats_take_no_harm():
    bmp = broken.saved("BMP")
    # Size of the file, reserved bytes, size of the data, resolution, important colours.
    for at in (*range(2, 10), *range(34, 46), *range(50, 54)):
        assert_same(bmp[:at] + b"\xff" + bmp[at + 1 :], bmp)
    tga = broken.saved("TGA")
    assert_same(bytes([5]) + tga[1:18] + b"\xff\0abc" + tga[18:], tga, ".tga")
    assert_same(tga + b"\xff" * 8 + b"TRUEVISION-XFILE.\0", tga, ".tga")
    ppm = broken.saved("PPM")
    for comment in (b"# caf\xe9\n", b"#\n", b"#" + b"x" * 5000 + b"\n"):
        assert_same(ppm[:3] + comment + ppm[3:], ppm)
    for kind in ("BMP", "PPM", "QOI", "SGI", "PCX", "DDS"):
        content = broken.saved(kind)
        assert_same(content + b"junk" * 9, content, f".{kind.lower()}")
