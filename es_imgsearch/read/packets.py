"""Metadata packets that Pillow does not give: XMP and Photoshop's resources.

Where a packet stands: XMP specification, part 3 (Adobe 2020).
"""

from __future__ import annotations

from typing import IO, Any

from es_imgsearch.read.pixel_parts.boxes import boxes
from es_imgsearch.read.pixel_parts.parts import read_at, size_of
from es_imgsearch.read.pixel_parts.photoshop import image_resources
from es_imgsearch.read.pixel_parts.tiff import first_directory

_XMP_TAG, _IIM_TAG, _PHOTOSHOP_TAG = 700, 33723, 34377
_IIM_RESOURCE = 0x0404
_XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_UUID_BOXES = frozenset({b"uuid"})

_MOST_PACKET_BYTES = 4 * 2**20
_MOST_SCANNED_BYTES = 64 * 2**20
_PACKET_BEGINS, _PACKET_ENDS = b"<?xpacket begin", b"<?xpacket end"


def packets(file: IO[bytes], kind: str) -> dict[str, Any]:
    """Return `xmp` (bytes) and `photoshop` (bytes by number), as in `Image.info`.

    `kind` is the format as `decode` names it.
    """
    try:
        if kind == "TIFF":
            return _of_tags(file)
        if kind == "JPEG2000":
            return _of_boxes(file)
        return _of_raw(file) if kind == "RAW" else {}
    except Exception:  # noqa: BLE001 - the file may hold anything; the pixels are good
        return {}


def _of_raw(file: IO[bytes]) -> dict[str, Any]:
    prefix = read_at(file, 0, 12)
    if prefix[4:8] == b"ftyp":
        return _of_boxes(file)
    if prefix[:2] in {b"II", b"MM"}:
        # (Those of Panasonic and Olympus are TIFF files with another number at the front.)
        return _of_tags(file)
    return _scanned(file)


def _of_tags(file: IO[bytes]) -> dict[str, Any]:
    directory = first_directory(file)
    if directory is None:
        return {}
    found: dict[str, Any] = {}
    if xmp := directory.value(file, _XMP_TAG, _MOST_PACKET_BYTES):
        found["xmp"] = xmp
    resources = image_resources(directory.value(file, _PHOTOSHOP_TAG, _MOST_PACKET_BYTES))
    if iim := directory.value(file, _IIM_TAG, _MOST_PACKET_BYTES):
        resources[_IIM_RESOURCE] = iim
    return found | ({"photoshop": resources} if resources else {})


def _of_boxes(file: IO[bytes]) -> dict[str, Any]:
    for box in boxes(file, 0, size_of(file), _UUID_BOXES):
        if box.kind == b"uuid" and read_at(file, box.content, 16) == _XMP_UUID:
            start = box.content + len(_XMP_UUID)
            return {"xmp": read_at(file, start, min(box.end - start, _MOST_PACKET_BYTES))}
    return {}


def _scanned(file: IO[bytes]) -> dict[str, Any]:
    """Search for a packet: its marks are the same in files of any format."""
    content = read_at(file, 0, _MOST_SCANNED_BYTES)
    start = content.find(_PACKET_BEGINS)
    end = content.find(_PACKET_ENDS, start)
    if start < 0 or not 0 < end - start <= _MOST_PACKET_BYTES:
        return {}
    return {"xmp": content[start : content.find(b"?>", end) + 2]}
