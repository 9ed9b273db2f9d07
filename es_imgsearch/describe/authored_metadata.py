"""Metadata that people wrote, from the picture's file (IPTC, XMP) or its sidecar.

XMP properties as in ISO 16684-1 (XMP, part 1) and the IPTC Photo Metadata Standard 2023.1; a
packet is RDF/XML, in which a simple property may be an attribute as well as an element.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from es_imgsearch.describe.registry import WORDS

_KEYWORD_AND_TEXT: Final = {"type": "keyword", "fields": {"text": WORDS}}

MAPPING: Final[Mapping[str, Mapping[str, Any]]] = {
    "title": {
        **WORDS,
        "fields": {"keyword": {"type": "keyword", "ignore_above": 1024}},
    },
    "description": WORDS,
    "creator": _KEYWORD_AND_TEXT,
    "keywords": _KEYWORD_AND_TEXT,
    "rating": {"type": "byte"},
}

# Characters.  Elasticsearch refuses a document with a keyword of more than 32,766 bytes.
MOST_KEYWORD = 1024
_MOST_TEXT = 100_000
_MOST_KEYWORDS = 1000

_RATINGS = range(-1, 6)


def written_fields(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Normalize raw values to the fields of MAPPING; leave out invalid ones.

    `creator` and `keywords` may be one text or several; one creator stays one text.
    """
    creators = texts_of(raw.get("creator"))
    fields = {
        "title": text_of(raw.get("title"), _MOST_TEXT),
        "description": text_of(raw.get("description"), _MOST_TEXT),
        "creator": creators[0] if len(creators) == 1 else creators,
        "keywords": texts_of(raw.get("keywords")),
        "rating": rating_of(raw.get("rating")),
    }
    return {name: value for name, value in fields.items() if value not in (None, "", [])}


def text_of(value: Any, most: int) -> str:
    """Return text before the first NUL, cut to `most` characters; "" for no text."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return ""
    return str(value).partition("\0")[0].strip()[:most]


def texts_of(value: Any) -> list[str]:
    """Return one text or several as a list without duplicates."""
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    texts = (text_of(each, MOST_KEYWORD) for each in values)
    return list(dict.fromkeys(text for text in texts if text))[:_MOST_KEYWORDS]


def rating_of(value: Any) -> int | None:
    """Return 0 to 5 stars, or -1 for a rejected picture (as in XMP); else None."""
    try:
        stars = round(float(value))
    except (TypeError, ValueError, OverflowError):
        return None
    return stars if stars in _RATINGS else None


# -- XMP packets

MOST_PACKET_BYTES: Final = 4 * 1024 * 1024

_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_DC = "{http://purl.org/dc/elements/1.1/}"
_XMP = "{http://ns.adobe.com/xap/1.0/}"
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
_DEFAULT_LANGUAGE = "x-default"


def xmp_properties(packet: bytes) -> dict[str, Any]:
    """Read title, description, creator, keywords, rating, identifier and source.

    Absent ones are left out.  `creator` and `keywords` are lists, all others texts; of several
    languages the default one is taken.  Raises ValueError for malformed XMP.
    """
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    if len(packet) > MOST_PACKET_BYTES:
        raise ValueError(f"an XMP packet of {len(packet)} bytes is not read")
    try:
        # (It is padded, and some writers end it with a NUL.)
        tree = fromstring(packet.strip(b"\0 \r\n\t"), forbid_dtd=True)
    except (ParseError, DefusedXmlException, LookupError) as error:
        raise ValueError(f"the XMP is malformed: {error}") from error
    properties: dict[str, Any] = {}
    for description in tree.iter(f"{_RDF}Description"):
        for name, key in (
            ("title", f"{_DC}title"),
            ("description", f"{_DC}description"),
            ("rating", f"{_XMP}Rating"),
            ("identifier", f"{_DC}identifier"),
            ("source", f"{_DC}source"),
        ):
            if text := _one(description, key):
                properties.setdefault(name, text)
        for name, key in (("creator", f"{_DC}creator"), ("keywords", f"{_DC}subject")):
            if texts := _all(description, key):
                properties.setdefault(name, texts)
    return properties


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
