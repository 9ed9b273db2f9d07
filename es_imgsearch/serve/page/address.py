"""The address of a page: its whole state, as pairs of names and values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from es_imgsearch.search.filtering.given import address_form

# Values that mean the same as none.
_DEFAULTS: Final = {
    "mode": "auto", "sort": "relevance", "page": "1", "min_relevance": "0", "copies": "0"
}  # fmt: skip
# Four fields of a form, for the keyboard; one parameter in the address.
_BOX_FIELDS: Final = ("box_x", "box_y", "box_w", "box_h")

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Address:
    """Pairs of a query string, in their order, and the path they belong to.

    Address.parse("/", [("q", "cat"), ("mode", "auto")]).adding("filter", "format:png")
    """

    path: str
    pairs: tuple[Pair, ...]

    @classmethod
    def parse(cls, path: str, pairs: Iterable[Pair]) -> Address:
        """Leave out what means nothing, put the box together, keep each pair once."""
        given = list(pairs)
        box = [value.strip() for name in _BOX_FIELDS for key, value in given if key == name]
        plain = [
            (name, address_form(value.strip()) if name == "filter" else value.strip())
            for name, value in given
            if name not in _BOX_FIELDS and value.strip() and _DEFAULTS.get(name) != value.strip()
        ]
        if len(box) == len(_BOX_FIELDS) and any(box):
            # One that is not whole is an error, not a search of the whole picture.
            plain = [*((name, value) for name, value in plain if name != "box"),
                     ("box", ",".join(box))]  # fmt: skip
        elif box:
            plain = [(name, value) for name, value in plain if name != "box"]
        return cls(path, tuple(dict.fromkeys(plain)))

    def __str__(self) -> str:
        return f"{self.path}?{self.query}" if self.pairs else self.path

    @property
    def query(self) -> str:
        """The query string, in which commas, colons and slashes stay legible."""
        return urlencode(self.pairs, safe=",:/")

    def all(self, name: str) -> list[str]:
        """Return the values of a parameter that may stand several times."""
        return [value for each, value in self.pairs if each == name]

    def get(self, name: str) -> str:
        """Return the last value of a parameter, "" without one."""
        return (self.all(name) or [""])[-1]

    def get_first(self, name: str) -> str:
        """Return the first value of a parameter, "" without one."""
        return (self.all(name) or [""])[0]

    def at(self, path: str) -> Address:
        """Return the same state on another page."""
        return Address(path, self.pairs)

    def adding(self, name: str, value: str) -> Address:
        """Return the first page with one more value."""
        return Address.parse(self.path, [*self._without_page(), (name, value)])

    def setting(self, name: str, value: str) -> Address:
        """Return the first page with this value in place of others."""
        others = [pair for pair in self._without_page() if pair[0] != name]
        return Address.parse(self.path, [*others, (name, value)])

    def dropping(self, name: str, value: str | None = None) -> Address:
        """Return the first page without a value of a parameter, or without all of them."""
        gone = {"box", "image"} if name == "image" else {name}
        pairs = [
            pair
            for pair in self._without_page()
            if pair[0] not in gone or (value is not None and pair[1] != value)
        ]
        return Address(self.path, tuple(pairs))

    def turning_to(self, page: int) -> Address:
        """Return another page of the same search."""
        return Address.parse(self.path, [*self._without_page(), ("page", str(page))])

    def _without_page(self) -> list[Pair]:
        # The number of a hit says where in the search one was; a picture's page is of that hit.
        places = {"page", "n"} if self.path == "/" else {"page"}
        return [pair for pair in self.pairs if pair[0] not in places]
