"""The page `/`: a search, or the newest pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from es_imgsearch.errors import ImageMissing, UsageError
from es_imgsearch.search.hits import LIKELY, Hit, Hits
from es_imgsearch.search.results import count_facets
from es_imgsearch.serve.listing import MOST_LISTED
from es_imgsearch.serve.page import contents
from es_imgsearch.serve.page.address import Address
from es_imgsearch.serve.problems import sentences
from es_imgsearch.serve.search_request import MOST_HITS, SearchRequest
from es_imgsearch.serve.service import SearchService

PAGE_SIZE: Final = 60
# Facets count the relevant ones of so many hits; 1,000 take five times as long to fetch.
COUNTED: Final = 300
# Parameters of the page alone.
_OWN: Final = {"page", "copies", "n", "part"}
_LISTS: Final = {"not", "like", "unlike", "filter"}


def parse_request(address: Address) -> SearchRequest:
    """Return what a page's address asks for.  Raises UsageError."""
    asked: dict[str, Any] = {}
    for name, value in address.pairs:
        if name in _OWN:
            continue
        if name in _LISTS:
            asked.setdefault(name, []).append(value)
        else:
            asked[name] = value
    try:
        request = SearchRequest.model_validate(asked)
    except ValidationError as error:
        faults = [{**each, "loc": ("query", *each["loc"])} for each in error.errors()]
        raise UsageError(sentences(faults)) from None
    return request.model_copy(update={"k": PAGE_SIZE, "collapse": address.get("copies") != "1"})


def page_number(address: Address, most: int = MOST_LISTED // PAGE_SIZE) -> int:
    """Return the number of the page, from 1 on.  Raises UsageError."""
    text = address.get("page") or "1"
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:6]) <= most):
        raise UsageError(f"Pages are numbered from 1 to {most}; there is no page {text[:20]!r}.")
    return int(text)


def is_search(request: SearchRequest) -> bool:
    """Whether hits should be like something."""
    return bool(request.q or request.like or request.image)


def found(
    service: SearchService, address: Address
) -> tuple[Hits, Mapping[str, Mapping[str, int]], int]:
    """Return hits up to the page's end, counts of facets, and the page's begin."""
    request, start = parse_request(address), (page_number(address) - 1) * PAGE_SIZE
    if not is_search(request):
        if request.unwanted or request.unlike:
            raise UsageError("Say what pictures should be like, too, not only what not.")
        page = service.newest(request, start, contents.FIELDS)
        return page, {}, start
    depth = min(max(start + PAGE_SIZE, COUNTED), MOST_HITS)
    hits = service.ranked(request, depth, contents.FIELDS)
    return (
        hits,
        count_facets([each.fields for each in _relevant(hits)], list(contents.FACETS)),
        start,
    )


def search_page(service: SearchService, address: Address) -> dict[str, Any]:
    """Return what the template `search.html` shows."""
    request = parse_request(address)
    hits, counts, start = found(service, address)
    searches = is_search(request)
    if not searches:
        counts = service.facets(list(contents.FACETS), request)
    page = hits[start : start + PAGE_SIZE] if searches else hits
    ids = {str(each.fields["content_id"]) for each in page if "content_id" in each.fields}
    copies = service.copies(sorted(ids)) if request.collapse and searches else {}
    shown = list(contents.tiles(page, address, start + 1, copies))
    sentence, is_only_nearest = contents.summary(hits, searches, request.min_relevance)
    is_full = len(page) == PAGE_SIZE and start + PAGE_SIZE < (
        MOST_HITS if searches else MOST_LISTED
    )
    number = page_number(address)
    return {
        "request": request,
        "days": contents.by_day(shown, request.sort in {"newest", "oldest"}),
        "tiles": shown,
        "summary": sentence,
        "only_nearest": is_only_nearest,
        "notes": hits.notes,
        "facets": list(contents.facets(counts, address)),
        "crumbs": contents.crumbs(address),
        "chips": list(contents.chips(address, _names(service, request))),
        "more": str(address.turning_to(number + 1)) if is_full else "",
        "previous": str(address.turning_to(number - 1)) if number > 1 else "",
        "is_search": searches,
        "query_picture": service.query_picture(request.image) if request.image else None,
        "part_of": _part_of(service, request, address),
    }


def _relevant(hits: Hits) -> Sequence[Hit]:
    """Return the relevant hits; all if none is, since the nearest are shown then."""
    relevant = [
        each
        for each in hits
        if each.matches_words or each.relevance is None or each.relevance >= LIKELY
    ]
    return relevant or hits


def _part_of(
    service: SearchService, request: SearchRequest, address: Address
) -> Mapping[str, Any] | None:
    """Return the stored picture of which a part is, or may be, searched."""
    is_alone = len(request.like) == 1 and not request.image
    if not is_alone or not (request.box or address.get("part")):
        return None
    return service.picture(request.like[0].partition("^")[0])


def _names(service: SearchService, request: SearchRequest) -> dict[str, str]:
    """Return the file names of the stored pictures that the request names."""
    names = {}
    for each in [*request.like, *request.unlike]:
        image_id = each.partition("^")[0]
        try:
            names[image_id] = str(service.picture(image_id).get("image_name", image_id))
        except ImageMissing:
            continue
    return names
