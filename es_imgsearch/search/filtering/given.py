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

    `in_address`, `field:value` and `-field:value` as well.  Raises FilterInvalid.
    """
    form, separator = ("field:value or -field:value", ":") if in_address else (
        "FIELD=VALUE or FIELD!=VALUE", "=")  # fmt: skip
    given: tuple[dict[str, list[str]], dict[str, list[str]]] = {}, {}
    for text in texts:
        field, found, value = (address_form(text) if in_address else text).partition(separator)
        field = field.strip()
        name = field.removeprefix("-") if in_address else field.removesuffix("!")
        if not (found and name.strip()):
            raise FilterInvalid(f"A filter is written {form}, not {text!r}.")
        given[name != field].setdefault(name.strip(), []).append(value)
    return GivenFilters(*given)


def address_form(text: str) -> str:
    """Return a filter as it stands in an address; what is no filter as it is.

    `field=value` is `field:value`, and `field!=value` is `-field:value`.  The first of : and =
    separates; of a name with a dot, whose end is any text, the first colon.
    """
    name, is_equal, value = text.partition("=")
    if not is_equal or (":" in name) or ("." in name and ":" in value):
        return text
    name = name.strip()
    if name.endswith("!"):
        name = f"-{name[:-1].strip()}"
    return f"{name}:{value}"
