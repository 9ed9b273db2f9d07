"""Read the properties of an XMP packet, from a picture's file or its sidecar.

As in ISO 16684-1 (XMP, part 1) and the IPTC Photo Metadata Standard 2023.1; a packet is RDF/XML,
in which a simple property may be an attribute as well as an element.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

from PIL import Image

from es_imgsearch.describe.fitting import Note, ignore
from es_imgsearch.describe.texts import decoded_text

MOST_PACKET_BYTES: Final = 4 * 1024 * 1024

_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_DC = "{http://purl.org/dc/elements/1.1/}"
_XMP = "{http://ns.adobe.com/xap/1.0/}"
_EXIF = "{http://ns.adobe.com/exif/1.0/}"
_PHOTOSHOP = "{http://ns.adobe.com/photoshop/1.0/}"
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
_DEFAULT_LANGUAGE = "x-default"

_TEXTS = {
    "title": f"{_DC}title",
    "description": f"{_DC}description",
    "rating": f"{_XMP}Rating",
    "identifier": f"{_DC}identifier",
    "source": f"{_DC}source",
    # When the picture was taken, then when it was digitized.
    "exif:DateTimeOriginal": f"{_EXIF}DateTimeOriginal",
    "photoshop:DateCreated": f"{_PHOTOSHOP}DateCreated",
    "exif:DateTimeDigitized": f"{_EXIF}DateTimeDigitized",
    "xmp:CreateDate": f"{_XMP}CreateDate",
    "exif:GPSLatitude": f"{_EXIF}GPSLatitude",
    "exif:GPSLongitude": f"{_EXIF}GPSLongitude",
}
_LISTS = {"creator": f"{_DC}creator", "keywords": f"{_DC}subject"}

ORIGINAL_DATES: Final = ("exif:DateTimeOriginal", "photoshop:DateCreated")
DIGITIZED_DATES: Final = ("xmp:CreateDate", "exif:DateTimeDigitized")

# What XML 1.0 forbids, and ampersands that begin no entity.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_BARE_AMPERSAND = re.compile(r"&(?!(?:#[0-9]+|#x[0-9A-Fa-f]+|amp|lt|gt|quot|apos);)")
# At the start, or behind the packet's own head: searched anywhere, repeats of `<?xml` take minutes.
_DECLARATION = re.compile(r"(?:<\?xpacket\s[^>]*\?>\s*)?<\?xml\s[^>]*\?>")


def xmp_properties(packet: bytes) -> dict[str, Any]:
    """Read what a packet says that describers use.

    That is title, description, creator, keywords, rating, identifier, source, and under the names
    of their properties, such as `photoshop:DateCreated`, dates and place.  Absent ones are left
    out.  `creator` and `keywords` are lists, all others texts; of several languages the default one
    is taken.  Raises ValueError for malformed XMP.
    """
    tree = _tree(packet)
    properties: dict[str, Any] = {}
    for description in tree.iter(f"{_RDF}Description"):
        for name, key in _TEXTS.items():
            if text := _one(description, key):
                properties.setdefault(name, text)
        for name, key in _LISTS.items():
            if texts := _all(description, key):
                properties.setdefault(name, texts)
    return properties


def packet_properties(image: Image.Image, note: Note = ignore) -> dict[str, Any]:
    """Read the XMP packet in a picture's file; notes a malformed one."""
    packet = image.info.get("xmp")
    if isinstance(packet, str):
        packet = packet.encode(errors="replace")
    if not isinstance(packet, bytes) or not packet.strip(b"\0 \t\r\n"):
        return {}
    properties, error = _parsed(packet)
    if error:
        note(error)
    return dict(properties)


# Several describers read the packet of the same picture, also a malformed one.
@lru_cache(maxsize=1)
def _parsed(packet: bytes) -> tuple[dict[str, Any], str]:
    try:
        return xmp_properties(packet), ""
    except ValueError as error:
        return {}, str(error)


def _tree(packet: bytes) -> Any:
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    if len(packet) > MOST_PACKET_BYTES:
        raise ValueError(f"has {len(packet)} bytes of XMP, which is too much")
    # (It is padded, and some writers end it with a NUL.)
    text = decoded_text(packet).replace("\0", "").strip()
    if declaration := _DECLARATION.match(text):
        text = text[declaration.end() :].lstrip()
    try:
        return fromstring(text, forbid_dtd=True)
    except ParseError as error:
        # A character that XML forbids costs itself, not the packet.
        mended = _BARE_AMPERSAND.sub("&amp;", _FORBIDDEN.sub("", text))
        try:
            return fromstring(mended, forbid_dtd=True)
        except (ParseError, DefusedXmlException):
            raise ValueError(f"is malformed XMP: {error}") from error
    except (DefusedXmlException, LookupError, ValueError) as error:
        raise ValueError(f"is malformed XMP: {error}") from error


def _one(description: Any, key: str) -> str:
    if attribute := description.get(key, "").strip():
        return str(attribute)
    items = list(_items(description, key))
    in_default = (text for language, text in items if language == _DEFAULT_LANGUAGE)
    return next(in_default, items[0][1] if items else "")


def _all(description: Any, key: str) -> list[str]:
    attribute = description.get(key, "").strip()
    texts = [attribute] if attribute else [text for _, text in _items(description, key)]
    return list(dict.fromkeys(texts))


def _items(description: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield language and text of each value of a property (list items or its own)."""
    for element in description.iterfind(key):
        items = list(element.iter(f"{_RDF}li")) or [element]
        for item in items:
            if text := (item.text or "").strip():
                yield item.get(_LANGUAGE, ""), text
