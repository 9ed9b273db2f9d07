"""What to leave out of a search that no picture meets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from es_imgsearch.serve.page.address import Address
from es_imgsearch.serve.page.search_page import parse_request
from es_imgsearch.serve.service import SearchService

# Each is a count in Elasticsearch, of some ms.
_MOST: Final = 8
_NARROWING: Final = frozenset({"filter", "since", "until", "when"})


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What is left out, the address without it, and how many pictures meet the rest."""

    label: str
    href: str
    count: int


def suggestions(service: SearchService, address: Address) -> Sequence[Suggestion]:
    """Return what to leave out, one part each; all parts if no single one helps."""
    parts = [pair for pair in address.pairs if pair[0] in _NARROWING][:_MOST]
    tried = [(_label(*pair), address.dropping(*pair)) for pair in parts]
    found = [_counted(service, *each) for each in tried]
    helpful = [each for each in found if each.count]
    if helpful or len(parts) < 2:
        return helpful
    for name in _NARROWING:
        address = address.dropping(name)
    whole = _counted(service, "Without all of these", address)
    return [whole] if whole.count else []


def _label(name: str, value: str) -> str:
    if name != "filter":
        return f"Without {name} {value}"
    # To leave out what leaves pictures out brings these back.
    verb = "Also with" if value.startswith("-") else "Without"
    return f"{verb} {value.removeprefix('-').replace(':', ': ', 1)}"


def _counted(service: SearchService, label: str, address: Address) -> Suggestion:
    return Suggestion(label, str(address), service.count(parse_request(address)))
