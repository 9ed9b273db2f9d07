"""Titles and keywords in the metadata of containers: RAW, JPEG XL, TIFF of every layout."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest

from es_imgsearch.describe.exif import Exif
from es_imgsearch.describe.iptc import Iptc
from es_imgsearch.read.decoding import decode
from es_imgsearch.read.file import read_file
from es_imgsearch.read.packets import packets
from es_imgsearch.read.preparation import Preparation
from es_imgsearch.records import Picture
from tests.support import broken_files as broken
from tests.support import picture_samples as samples

pytestmark = pytest.mark.filterwarnings("ignore")

XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title><rdf:Alt><rdf:li
 xml:lang="x-default">Café am Fluß</rdf:li></rdf:Alt></dc:title><dc:subject><rdf:Bag>
 <rdf:li>river</rdf:li><rdf:li>cup</rdf:li></rdf:Bag></dc:subject></rdf:Description>
</rdf:RDF></x:xmpmeta><?xpacket end="w"?>""".encode()
IIM = b"\x1c\2\5\0\5Title" + b"\x1c\2\x19\0\5river"
RESOURCES = b"8BIM\4\4\0\0" + struct.pack(">I", len(IIM)) + IIM
UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
XMP_TAG = (700, "B", len(XMP), XMP, True)
IIM_TAG = (33723, "B", len(IIM), IIM, True)
PHOTOSHOP_TAG = (34377, "B", len(RESOURCES), RESOURCES, True)


def tiff(values: np.ndarray, tag: tuple[Any, ...] = XMP_TAG, **options: Any) -> bytes:
    return samples.tiff(values, photometric="rgb", extratags=[tag], **options)


def jxl(*boxes: bytes) -> bytes:
    head, file_type, stream = broken.boxes(
        samples.jxl(samples.four_corners(), lossless=True, usecontainer=True)
    )
    return b"".join([head, file_type, *boxes, stream])


def jp2(extra: bytes) -> bytes:
    parts = broken.boxes(samples.sample("jpeg2000"))
    return b"".join([*parts[:3], extra, *parts[3:]])


WORDS = samples.corners_array(np.uint16, 65535)
FLOATS = samples.corners_array(np.float32, 1.0)
SENSOR = samples.four_corners((800, 600))
PREVIEW = samples.four_corners((400, 300))

FILES = {
    "raw with a preview.dng": lambda: samples.dng(SENSOR, PREVIEW, more_tags=[XMP_TAG]),
    "raw.dng": lambda: samples.dng(SENSOR, more_tags=[XMP_TAG]),
    "raw.nef": lambda: samples.dng(SENSOR, PREVIEW, more_tags=[XMP_TAG]),
    "raw.tif": lambda: samples.dng(SENSOR, more_tags=[XMP_TAG]),
    "float.tif": lambda: tiff(FLOATS),
    "half.tif": lambda: tiff(samples.corners_array(np.float16, 1.0)),
    "double, lzw.tif": lambda: tiff(FLOATS.astype(float), compression="lzw", predictor=True),
    "planes.tif": lambda: tiff(WORDS.transpose(2, 0, 1), planarconfig="separate"),
    "big endian.tif": lambda: tiff(FLOATS, byteorder=">"),
    "big.tif": lambda: tiff(FLOATS, bigtiff=True),
    "big and small.tif": lambda: tiff(np.asarray(samples.four_corners()), bigtiff=True),
    "32 bits.tif": lambda: tiff(samples.corners_array(np.uint32, 2**32 - 1)),
    "zstd.tif": lambda: tiff(WORDS, compression="zstd"),
    "plain.tif": lambda: tiff(np.asarray(samples.four_corners())),
    "box.jxl": lambda: jxl(broken.box(b"xml ", XMP)),
    "packed box.jxl": lambda: jxl(
        broken.box(b"brob", b"xml " + bytes(imagecodecs.brotli_encode(XMP)))
    ),
    "after a damaged box.jxl": lambda: jxl(
        broken.box(b"Exif", b"\0"), broken.box(b"brob", b"Exif\xff\xff"), broken.box(b"xml ", XMP)
    ),
    "uuid.jp2": lambda: jp2(broken.box(b"uuid", UUID + XMP)),
}


def read(folder: Path, name: str, content: bytes, *, is_damaged: bool = False) -> Picture:
    path = folder / name
    path.write_bytes(content)
    describers = [("exif", Exif().describe), ("iptc", Iptc().describe)]
    found = read_file(
        str(path), Preparation(width=16, height=16, mode="squash"), describers, max_pixels=10**6
    )
    assert isinstance(found, Picture)
    notes = found.fields.get("describe_errors", [])
    assert [each for each in notes if not (is_damaged and ": left out: " in each)] == []
    return found


@pytest.mark.parametrize("name", FILES)
def test_the_xmp_of_every_container_is_read(name: str, tmp_path: Path):
    fields = read(tmp_path, name, FILES[name]()).fields
    assert fields["title"] == "Café am Fluß"
    assert fields["keywords"] == ["river", "cup"]


@pytest.mark.parametrize("tag", [IIM_TAG, PHOTOSHOP_TAG])
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("values", [FLOATS, np.asarray(samples.four_corners())])
def test_the_iptc_of_every_tiff_is_read(
    tag: tuple[Any, ...], bigtiff: bool, values: np.ndarray, tmp_path: Path
):
    fields = read(tmp_path, "a.tif", tiff(values, tag, bigtiff=bigtiff)).fields
    assert (fields["title"], fields["keywords"]) == ("Title", ["river"])


def test_the_camera_of_a_bigtiff_is_read(tmp_path: Path):
    content = tiff(FLOATS, (271, "s", 0, "Maker", True), bigtiff=True)
    assert read(tmp_path, "a.tif", content).fields["camera"] == "Maker"


@pytest.mark.parametrize(
    "content",
    [
        b"IIU\0" + tiff(FLOATS)[4:],
        b"IIRO" + tiff(FLOATS)[4:],
        b"MMOR" + tiff(FLOATS, byteorder=">")[4:],
        b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + broken.box(b"moov", bytes(90))
        + broken.box(b"uuid", UUID + XMP) + broken.box(b"mdat", bytes(900)),
        b"FUJIFILMCCD-RAW " + bytes(500) + XMP + bytes(500),
        b"\0MRM" + bytes(500) + XMP + bytes(500),
    ],
    ids=["Panasonic", "Olympus", "Olympus, big endian", "Canon CR3", "Fujifilm", "Minolta"],
)  # fmt: skip
def test_the_packet_of_each_makers_raw_file_is_found(content: bytes):
    assert packets(io.BytesIO(content), "RAW")["xmp"].strip(b"\0") == XMP


def test_damaged_packets_cost_nothing(tmp_path: Path):
    for tag in (
        (700, "B", 5, b"<x:xm", True),
        (700, "I", 1, 2**32 - 1, True),
        (700, "d", 1, 1.5, True),
        (34377, "B", 9, b"8BIM\4\4\0\0\xff", True),
        (33723, "H", 1, 7, True),
    ):
        for content in (tiff(FLOATS, tag), tiff(np.asarray(samples.four_corners()), tag)):
            assert "title" not in read(tmp_path, "a.tif", content, is_damaged=True).fields
        raw = samples.dng(SENSOR, more_tags=[tag])
        assert "title" not in read(tmp_path, "a.dng", raw, is_damaged=True).fields
    bomb = bytes(imagecodecs.brotli_encode(bytes(50_000_000)))
    for boxes in (
        broken.box(b"brob", b"xml " + bomb),
        broken.box(b"xml ", b"<x"),
        broken.box(b"xml ", XMP[:200]),
        broken.box(b"brob", b"xm"),
    ):
        assert "title" not in read(tmp_path, "a.jxl", jxl(boxes), is_damaged=True).fields


def test_a_raw_file_with_its_packet_decodes_as_before():
    plain, with_xmp = samples.dng(SENSOR, PREVIEW), FILES["raw with a preview.dng"]()
    images = [decode(each, max_pixels=10**6, suffix=".dng").image for each in (plain, with_xmp)]
    assert (np.asarray(images[0]) == np.asarray(images[1])).all()
