"""Metadata that people wrote, from the picture's file (IPTC, XMP) or its sidecar."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from es_imgsearch.describe.fitting import Note, ignore, noting
from es_imgsearch.describe.plain_values import shown
from es_imgsearch.describe.registry import KEYWORD_AND_WORDS, STEMS, WORDS, WORDS_AND_STEMS
from es_imgsearch.records import utf8

MAPPING: Final[Mapping[str, Mapping[str, Any]]] = {
    "title": {
        **WORDS,
        "fields": {"stems": STEMS, "keyword": {"type": "keyword", "ignore_above": 1024}},
    },
    "description": WORDS_AND_STEMS,
    "creator": KEYWORD_AND_WORDS,
    "keywords": KEYWORD_AND_WORDS,
    "rating": {"type": "byte"},
}

# Characters.  Elasticsearch refuses a document with a keyword of more than 32,766 bytes.
MOST_KEYWORD = 1024
_MOST_TEXT = 100_000
_MOST_KEYWORDS = 1000

_RATINGS = range(-1, 6)


def written_fields(
    raw: Mapping[str, Any], left_out: dict[str, list[str]] | None = None
) -> dict[str, Any]:
    """Normalize raw values to the fields of MAPPING; leave out invalid ones.

    `creator` and `keywords` may be one text or several; one creator stays one text.  Adds to
    `left_out` the reasons for what is left out, by name; blanks have none.
    """
    note = partial(noting, {} if left_out is None else left_out)
    creators = texts_of(raw.get("creator"), note("creator"))
    fields = {
        "title": text_of(raw.get("title"), _MOST_TEXT, note("title")),
        "description": text_of(raw.get("description"), _MOST_TEXT, note("description")),
        "creator": creators[0] if len(creators) == 1 else creators,
        "keywords": texts_of(raw.get("keywords"), note("keywords")),
        "rating": rating_of(raw.get("rating"), note("rating")),
    }
    return {name: value for name, value in fields.items() if value not in (None, "", [])}


def text_of(value: Any, most: int, note: Note = ignore) -> str:
    """Return text before the first NUL, cut to `most` characters; "" for no text.

    Of a list of one value that value is taken.
    """
    value = _single(value)
    if value is None or value in ([], (), {}):
        return ""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not isinstance(value, str) and not (is_number and math.isfinite(value)):
        note(f"{shown(value)} is no text")
        return ""
    text = utf8(str(value).partition("\0")[0].strip())
    if len(text) > most:
        note(f"{shown(text)} is cut to {most:,} characters of {len(text):,}")
    return text[:most]


def texts_of(value: Any, note: Note = ignore) -> list[str]:
    """Return one text or several as a list without duplicates."""
    values = value if isinstance(value, (list, tuple)) else [value]
    texts = (text_of(each, MOST_KEYWORD, note) for each in values)
    found = list(dict.fromkeys(text for text in texts if text))
    if len(found) > _MOST_KEYWORDS:
        note(f"of {len(found):,} values the first {_MOST_KEYWORDS:,} are stored")
    return found[:_MOST_KEYWORDS]


def rating_of(value: Any, note: Note = ignore) -> int | None:
    """Return 0 to 5 stars, or -1 for a rejected picture (as in XMP); else None."""
    value = _single(value)
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if text in (None, [], (), {}) or (isinstance(text, str) and not text.strip("\0 \t\r\n")):
        return None
    try:
        stars = round(float(text))
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        stars = None
    if stars not in _RATINGS:
        note(f"{shown(value)} is no rating from -1 to 5")
        return None
    return stars


def _single(value: Any) -> Any:
    return value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value
