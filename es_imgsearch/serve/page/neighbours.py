"""The pictures before and after one in the search that it was opened from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from es_imgsearch.errors import ImgSearchError
from es_imgsearch.search.hits import Hit
from es_imgsearch.serve.page.address import Address
from es_imgsearch.serve.page.search_page import (
    PAGE_SIZE,
    hit_number,
    is_search,
    parse_request,
    place_in,
    ranked,
)
from es_imgsearch.serve.service import SearchService

# Parameters that say nothing about a search.
_OWN: Final = ("n", "page", "part", "why")


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Addresses of the pictures before and after, and of the search; "" for none."""

    previous: str = ""
    following: str = ""
    search: str = "/"
    number: int = 0


def neighbours(service: SearchService, address: Address, image_id: str) -> Neighbours:
    """Return the neighbours of a picture in the search of an address.

    The address has its number `n`.  Without one, or if the search works no longer, there are none.
    """
    search = address.at("/")
    for name in _OWN:
        search = search.dropping(name)
    number = hit_number(address.get("n"))
    if number is None:
        return Neighbours(search=str(search))
    try:
        hits, first = _around(service, search, number)
    except ImgSearchError as error:
        if error.transient:
            raise
        return Neighbours(search=str(search))
    ids = [each.image_id for each in hits]
    # Pictures may have come before it, or have gone, since the address was made.
    at = ids.index(image_id) if image_id in ids else number - first
    number = first + at

    def view(step: int) -> str:
        if not 0 <= at + step < len(ids):
            return ""
        view = search.at(f"/pictures/{ids[at + step]}").setting("n", str(number + step))
        return str(view.setting("why", address.get("why")))

    return Neighbours(view(-1), view(1), place_in(search, number), number)


def _around(service: SearchService, search: Address, number: int) -> tuple[list[Hit], int]:
    """Return hits around a number, and the number of the first of them."""
    request = parse_request(search)
    if not is_search(request):
        first = max(1, number - 1)
        request = request.model_copy(update={"k": number - first + 2})
        return list(service.newest(request, first - 1, ["image_name"])), first
    # The page that has the next one.
    end = (number // PAGE_SIZE + 1) * PAGE_SIZE
    return list(ranked(service, request, end, ["image_name"])), 1
