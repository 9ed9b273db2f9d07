"""Filters as they are given; needs no NumPy, nor Elasticsearch's client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple

from es_imgsearch.errors import FilterInvalid

Place = tuple[float, float, str]
FilterValue = str | int | float | bool | date | datetime | None
Filters = Mapping[
    str,
    FilterValue | Sequence[FilterValue] | tuple[FilterValue, FilterValue] | Place | Sequence[Place],
]


class GivenFilters(NamedTuple):
    """Filters that hits meet, and those of which they meet none."""

    filters: Mapping[str, Any]
    without: Mapping[str, Any]


def parse_filters(texts: Iterable[str], *, in_address: bool = False) -> GivenFilters:
    """Parse `FIELD=VALUE` and `FIELD!=VALUE`; a field twice means any of its values.

    `in_address`, that is `field:value` and `-field:value`.  Raises FilterInvalid.
    """
    form, separator = ("field:value or -field:value", ":") if in_address else (
        "FIELD=VALUE or FIELD!=VALUE", "=")  # fmt: skip
    given: tuple[dict[str, list[str]], dict[str, list[str]]] = {}, {}
    for text in texts:
        field, found, value = text.partition(separator)
        field = field.strip()
        name = field.removeprefix("-") if in_address else field.removesuffix("!")
        if not (found and name.strip()):
            raise FilterInvalid(f"A filter is written {form}, not {text!r}.")
        given[name != field].setdefault(name.strip(), []).append(value)
    return GivenFilters(*given)
