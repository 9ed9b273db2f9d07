"""Metadata that people wrote, from the picture's file (IPTC, XMP) or its sidecar."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from es_imgsearch.describe.registry import WORDS
from es_imgsearch.records import utf8

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
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    return utf8(str(value).partition("\0")[0].strip())[:most]


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
