"""The stored fields of a picture as rows of a table, for people to read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from es_imgsearch.errors import readable_bytes
from es_imgsearch.serve.page.address import Address

# What people ask for first; other fields follow by name.
_FIRST: Final = (
    "title", "caption", "description", "taken_local", "taken_at", "location", "camera", "lens",
    "tags", "keywords", "text_in_image", "creator", "rating", "product_id", "source_url",
    "image_name", "folder", "root", "width", "size_bytes", "format", "colours", "orientation",
    "modified_at",
)  # fmt: skip
# What programs compare, and how the picture was read and stored.
_TECHNICAL: Final = frozenset(
    {"colour_shares", "content_id", "ctime_ns", "embed_ms", "image_id", "indexed_at",
     "ingest_lag_ms", "monochrome", "mtime_ns", "palette", "perceptual_hash", "relative_path",
     "tag_scores", "transparent"}
)  # fmt: skip
_LABELS: Final = {
    "taken_local": "Taken (camera's time)", "taken_at": "Taken", "modified_at": "File changed",
    "indexed_at": "Indexed", "size_bytes": "File size", "image_name": "File name",
    "relative_path": "Path in its root", "width": "Size in pixels", "text_in_image": "Text in it",
    "location": "Place", "content_id": "Hash of the content", "image_id": "Image id",
    "mtime_ns": "File changed, exactly", "ctime_ns": "File state changed, exactly",
    "ingest_lag_ms": "Searchable after", "embed_ms": "Embedded in", "source_url": "Source",
    "product_id": "Product",
}  # fmt: skip
# Their values are links to all pictures that have them.
_FILTERED: Final = frozenset(
    {"tags", "keywords", "colours", "camera", "lens", "creator", "folder", "root", "format",
     "orientation", "product_id"}
)  # fmt: skip
_MOST_VALUES: Final = 100


@dataclass(frozen=True, slots=True)
class FieldValue:
    """A text, and the address it leads to; `is_foreign` if that is on another host."""

    text: str
    href: str = ""
    is_foreign: bool = False


@dataclass(frozen=True, slots=True)
class FieldRow:
    """A field: its name in the index, what it is called here, and its values."""

    name: str
    label: str
    values: Sequence[FieldValue]
    is_technical: bool = False


def field_rows(fields: Mapping[str, Any]) -> Iterator[FieldRow]:
    """Yield a row for each field with a value, in the order of what is asked for."""
    known = [name for name in _FIRST if name in fields]
    others = sorted(set(fields) - set(known), key=lambda name: (name in _TECHNICAL, name))
    for name in [*known, *others]:
        if name == "height" and "width" in fields:
            continue
        values = list(_values(name, fields[name], fields))[:_MOST_VALUES]
        if values:
            label = _LABELS.get(name) or name.replace("_", " ").capitalize()
            yield FieldRow(name, label, values, name in _TECHNICAL)


def place_of(fields: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return latitude and longitude, from any form of a geo_point."""
    value = fields.get("location")
    try:
        match value:
            case {"lat": lat, "lon": lon}:
                place = float(lat), float(lon)
            case [lon, lat]:
                place = float(lat), float(lon)
            case str():
                lat, lon = value.split(",")
                place = float(lat), float(lon)
            case _:
                return None
    except (TypeError, ValueError):
        return None
    return place if abs(place[0]) <= 90 and abs(place[1]) <= 180 else None


def shown_date(text: str) -> str:
    """Return a stored date without what people do not read; others as they are."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    if "T" not in text:
        return text
    if moment.tzinfo is None:
        return f"{moment:%Y-%m-%d %H:%M:%S}"
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _values(name: str, value: Any, fields: Mapping[str, Any]) -> Iterator[FieldValue]:
    if value is None or value in ("", [], {}):
        return
    if name == "location" and (place := place_of(fields)) is not None:
        # Degrees to the metre.
        text = ", ".join(f"{each:.5f}".rstrip("0").rstrip(".") for each in place)
        yield FieldValue(text)
    elif name == "width":
        yield FieldValue(_pixels(value, fields.get("height")))
    elif isinstance(value, Mapping):
        yield from _pairs(value)
    else:
        for each in value if isinstance(value, list) else [value]:
            yield _value(name, each)


def _pixels(width: Any, height: Any) -> str:
    if not isinstance(width, int) or not isinstance(height, int):
        return f"{width} wide"
    return f"{width:,} × {height:,} ({width * height / 1e6:.2g} megapixels)"


def _pairs(value: Mapping[str, Any]) -> Iterator[FieldValue]:
    """Yield the entries of a nested field, the largest numbers first."""

    def largest(item: tuple[str, Any]) -> float:
        return -item[1] if isinstance(item[1], int | float) else 0.0

    for name, each in sorted(value.items(), key=largest):
        plain = each if isinstance(each, str | int | float) else json.dumps(each, default=str)
        yield FieldValue(f"{name} {plain}")


def _value(name: str, value: Any) -> FieldValue:
    if isinstance(value, Mapping | list):
        return FieldValue(json.dumps(value, default=str, ensure_ascii=False))
    if name in _FILTERED:
        return FieldValue(str(value), str(Address("/", (("filter", f"{name}:{value}"),))))
    if name == "source_url" and urlsplit(str(value)).scheme in {"http", "https"}:
        return FieldValue(str(value), str(value), is_foreign=True)
    return FieldValue(_text(name, value))


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        if name.endswith("_bytes"):
            return f"{readable_bytes(value)} ({value:,} bytes)"
        if name.endswith("_ns"):
            moment = datetime.fromtimestamp(value // 1_000_000_000, UTC)
            return f"{moment:%Y-%m-%d %H:%M:%S}.{value % 1_000_000_000:09} UTC"
        if name.endswith("_ms"):
            return f"{value / 1000:.1f} s" if value >= 1000 else f"{value:.0f} ms"
        return f"{value:,}" if isinstance(value, int) else f"{value:g}"
    return shown_date(str(value)) if name.endswith(("_at", "_local")) else str(value)
