"""The page `/`: a search, or the pictures that were indexed last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from es_imgsearch.errors import UsageError
from es_imgsearch.search.hits import Hit, Hits
from es_imgsearch.search.results import NOTHING_FITS, count_facets
from es_imgsearch.serve.answers.listing import MOST_LISTED
from es_imgsearch.serve.answers.ranking import is_likely, is_relevant
from es_imgsearch.serve.page import contents
from es_imgsearch.serve.page.address import Address
from es_imgsearch.serve.problems import validated
from es_imgsearch.serve.search_request import LISTS, MOST_HITS, SearchRequest, weighted
from es_imgsearch.serve.service import SearchService

PAGE_SIZE: Final = 60
# A model of some hundred MB is loaded within that time, or else the page says that it is not yet.
WARM_SECONDS: Final = 10.0
# Of one picture to be unlike without a weight, and of all of them together.  With 0.3, `starter`
# ranks other things before the second of two pictures of a motorcycle that is asked for in words.
LESS_WEIGHT: Final = 0.2
MOST_LESS: Final = 0.4
# Parameters of the page alone.
_OWN: Final = {"page", "copies", "n", "part", "scores", "why"}
# Which facets are counted is the page's own affair.
_LISTS: Final = LISTS - {"facets"}


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
    request = validated(SearchRequest, asked, "query")
    return request.model_copy(
        update={
            "k": PAGE_SIZE,
            "collapse": address.get("copies") != "1",
            "unlike": _lessened(request.unlike),
        }
    )


def _lessened(unlike: Sequence[str]) -> list[str]:
    """Give the pictures to be unlike that have no weight a low one.

    Subtracted whole, one that is like those looked for leaves nothing of the search.
    """
    plain = sum(weighted(each)[0] == each for each in unlike)
    weight = min(LESS_WEIGHT, MOST_LESS / max(plain, 1))
    return [each if weighted(each)[0] != each else f"{each}^{weight:g}" for each in unlike]


def page_number(address: Address, most: int = MOST_LISTED // PAGE_SIZE) -> int:
    """Return the number of the page, from 1 on.  Raises UsageError."""
    text = address.get("page") or "1"
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:6]) <= most):
        raise UsageError(f"Pages are numbered from 1 to {most}; there is no page {text[:20]!r}.")
    return int(text)


def hit_number(text: str) -> int | None:
    """Return the number of a hit, from 1 on; None for what is none."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(MOST_LISTED))
    return int(text) if is_number and 1 <= int(text) <= MOST_LISTED else None


def shown_range(address: Address) -> tuple[int, int]:
    """Return the range of hits that a page shows: start, from 0 on, and end.

    Those of one page, or with the number `n` of a hit all up to the end of its page.
    Raises UsageError for a page that there cannot be.
    """
    page = page_number(address)
    hit = None if address.get("page") else hit_number(address.get("n"))
    if hit is None or hit > MOST_HITS:
        return (page - 1) * PAGE_SIZE, page * PAGE_SIZE
    return 0, -(-hit // PAGE_SIZE) * PAGE_SIZE


def place_in(search: Address, number: int) -> str:
    """Return the address of a hit's place in a search."""
    if number > MOST_HITS:
        place = search.turning_to((number - 1) // PAGE_SIZE + 1)
    else:
        place = search.setting("n", str(number)) if number > PAGE_SIZE else search
    return f"{place}#hit-{number}"


def is_search(request: SearchRequest) -> bool:
    """Whether hits should be like something."""
    return bool(request.words or request.like or request.image)


@dataclass(frozen=True, slots=True)
class Found:
    """Hits up to the page's end, whether each is likely right, and counts of facets."""

    hits: Sequence[Hit]
    likely: Sequence[bool]
    counts: Mapping[str, Mapping[str, int]]
    notes: Sequence[str]

    @property
    def is_known(self) -> bool:
        """Whether relevance is known of any hit."""
        return any(each.relevance is not None for each in self.hits)


def found(service: SearchService, request: SearchRequest, start: int, end: int) -> Found:
    """Search up to the end of the page, or list pictures from its start on."""
    if not is_search(request):
        if request.unwanted or request.unlike:
            raise UsageError("Say what pictures should be like, too, not only what not.")
        request = request.model_copy(update={"k": end - start})
        page = service.newest(request, start, contents.FIELDS)
        counts = service.facets(list(contents.FACETS), request)
        return Found(tuple(page), (True,) * len(page), counts, page.notes)
    service.check_model(WARM_SECONDS)
    hits = ranked(service, request, end, contents.FIELDS, is_logged=end == PAGE_SIZE)
    # Each is built on access.
    built = tuple(hits)
    likely = [is_likely(each) for each in built]
    relevant = [hit for hit, is_right in zip(built, likely, strict=True) if is_right]
    # If none is relevant, the nearest are shown and counted.
    counts = count_facets([each.fields for each in relevant or built], list(contents.FACETS))
    return Found(built, likely, counts, hits.notes)


def ranked(
    service: SearchService,
    request: SearchRequest,
    end: int,
    fields: Sequence[str] | None,
    *,
    is_logged: bool = False,
) -> Hits:
    """Return the hits of a search; the nearest, if there are no sorted ones.

    As many as a page with this end ranks, since the order may depend on it.  `is_logged` is for the
    first page of what somebody asked for.
    """
    depth = min(end, MOST_HITS)
    hits = service.ranked(request, depth, fields, is_logged=is_logged)
    if hits or request.sort == "relevance":
        return hits
    return service.ranked(request.model_copy(update={"sort": "relevance"}), depth, fields)


def search_page(service: SearchService, address: Address) -> dict[str, Any]:
    """Return what the template `search.html` shows."""
    request, (start, end) = parse_request(address), shown_range(address)
    searches = is_search(request)
    hits = found(service, request, start, end)
    page = hits.hits[start:end] if searches else hits.hits
    ids = {str(each.fields["content_id"]) for each in page if "content_id" in each.fields}
    copies = service.copies(sorted(ids)) if request.collapse and searches else {}
    shown = list(contents.tiles(page, address, start + 1, copies))
    sentence, is_only_nearest = "", False
    if searches:
        relevant = sum(map(is_relevant, hits.hits)) if hits.is_known else None
        with_words = sum(each.matches_words for each in hits.hits)
        sentence, is_only_nearest = contents.summary(
            len(hits.hits), relevant, with_words, request.min_relevance
        )
    is_full = len(page) == end - start and end < (MOST_HITS if searches else MOST_LISTED)
    return {
        "request": request,
        "days": contents.by_day(shown, request.sort in {"newest", "oldest"}),
        "tiles": shown,
        "summary": sentence,
        "heading": _heading(request, bool(shown), address),
        "only_nearest": is_only_nearest,
        # The summary says it already.
        "notes": [*_kept(request), *(each for each in hits.notes if each != NOTHING_FITS)],
        "facets": list(contents.facets(hits.counts, address)),
        "crumbs": contents.crumbs(address),
        "chips": list(contents.chips(address, _names(service, request), _period(service, request))),
        "more": str(address.turning_to(end // PAGE_SIZE + 1)) if is_full else "",
        "previous": str(address.turning_to(start // PAGE_SIZE)) if start else "",
        "is_search": searches,
        "query_picture": service.query_picture(request.image) if request.image else None,
        "part_of": _part_of(service, request, address),
    }


_HEADINGS: Final = {
    "relevance": "Indexed last", "newest": "Newest pictures", "oldest": "Oldest pictures",
    "largest": "Largest files", "folder": "By folder",
}  # fmt: skip


def _heading(request: SearchRequest, has_pictures: bool, address: Address) -> str:
    """Say what is shown without a question."""
    if has_pictures:
        return _HEADINGS[request.sort]
    return "No picture meets this." if address.pairs else "No pictures yet"


def _kept(request: SearchRequest) -> list[str]:
    """Say which words are searched for together with a picture that was sent."""
    if not (request.image and request.words):
        return []
    words = ", ".join(f"“{each}”" for each in request.words)
    return [f"Searched for with the picture: the words {words}."]


def _period(service: SearchService, request: SearchRequest) -> str:
    """Return the first and the last day that `when` means."""
    if not request.when:
        return ""
    dated = service.dated(request)
    return f"{dated.since}" if dated.since == dated.until else f"{dated.since} to {dated.until}"


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
    return service.names([each.partition("^")[0] for each in [*request.like, *request.unlike]])
