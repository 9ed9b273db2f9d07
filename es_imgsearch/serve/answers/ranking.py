"""Rank pictures for a page, or order the relevant ones by date, size, folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeAlias

from es_imgsearch.errors import UsageError
from es_imgsearch.search.filtering.dates import DATE_FIELDS, date_of
from es_imgsearch.search.hits import LIKELY, Hit, Hits
from es_imgsearch.search.operations import Operations
from es_imgsearch.search.options import SearchOptions
from es_imgsearch.search.query import Weighted
from es_imgsearch.search.request_flow import RequestFlow
from es_imgsearch.search.results import count_facets
from es_imgsearch.serve.search_request import MOST_HITS, SearchRequest

_ORDERED_BY: Final = (*DATE_FIELDS, "width", "height")
# A search of 1,000 takes four times as long.
_FUSED_DEPTH: Final = 300

# Positive and negative ones.
Queries: TypeAlias = tuple[Sequence[Weighted], Sequence[Weighted]]


def find_first(
    operations: Operations,
    request: SearchRequest,
    queries: Queries,
    count: int,
    fields: Sequence[str] | None = None,
    *,
    logged_k: int | None,
) -> RequestFlow[Hits]:
    """Return the first hits with these stored fields, in the order of the request.

    With `logged_k` it is logged as a search of that many hits.
    """
    in_order = request.sort != "relevance"
    wanted = request.model_copy(update={"k": MOST_HITS if in_order else count, "sort": "relevance"})
    extra: SearchOptions = {}
    if fields is not None:
        extra = {"fields": [*fields, *_ORDERED_BY] if in_order else fields}
    hits = yield from find(operations, wanted, queries, 0, extra, logged_k=logged_k)
    return _in_order(hits, request, 0, count) if in_order else hits


def find(
    operations: Operations,
    request: SearchRequest,
    queries: Queries,
    offset: int,
    extra: SearchOptions | None = None,
    *,
    logged_k: int | None,
) -> RequestFlow[Hits]:
    """Return hits from an offset on: of all, or of the relevant ones in another order."""
    info = yield from operations.info()
    depth = _depth(request, offset, is_reduced=info.meta.reduction is not None)
    search = partial(operations.find, *queries, logged_k=logged_k)
    options = request.options() | (extra or {})
    chosen = request.num_candidates
    if chosen is not None and chosen >= request.k:
        options["num_candidates"] = max(chosen, depth)
    elif chosen is not None and request.mode != "text" and not request.exact:
        raise UsageError(
            f"num_candidates is {chosen} but must be at least k, which is {request.k}."
        )
    if request.sort != "relevance":
        found = yield from search(depth, **options)
        return _in_order(found, request, offset, request.k)
    end = min(offset + request.k, MOST_HITS)
    # Facets count the hits up to the end of the page.
    start = 0 if request.facets else offset
    if depth < end:
        deep = partial(operations.find, *queries, logged_k=None)
        found = yield from _beyond(search, deep, depth, request.collapse, options)
        found = found[start:end]
    else:
        options |= {"offset": start, "size": end - start}
        found = yield from search(depth, **options)
    if not request.facets:
        return found
    page = found[offset - start :]
    page.facets = count_facets([each.fields for each in found], request.facets)
    return page


def _beyond(
    search: Callable[..., RequestFlow[Hits]],
    search_deeper: Callable[..., RequestFlow[Hits]],
    depth: int,
    collapse: bool,
    options: SearchOptions,
) -> RequestFlow[Hits]:
    """Return the hits of a ranking of this depth, then those of a deeper one."""
    first = yield from search(depth, **options)
    if len(first) < depth:
        return first
    if "num_candidates" in options:
        options |= {"num_candidates": max(options["num_candidates"] or 0, MOST_HITS)}
    deeper = yield from search_deeper(MOST_HITS, **options)
    known = {_identity(each, collapse) for each in first}
    others = [each for each in deeper if _identity(each, collapse) not in known]
    hits = [*first, *others][:MOST_HITS]
    return Hits(hits, first.took_ms + deeper.took_ms, first.queries, notes=first.notes)


def _depth(request: SearchRequest, offset: int, *, is_reduced: bool) -> int:
    """Return how many hits are ranked, of which a page is part, or behind which.

    Where several rankings are fused, or the hits of one are ordered again, the order depends
    on that number: all pages take the same one, so that none repeats or skips a hit.
    """
    if request.sort != "relevance":
        return MOST_HITS
    is_fused = request.mode != "vector" and bool(request.words)
    if is_fused or is_reduced:
        return _FUSED_DEPTH
    return min(offset + request.k, MOST_HITS)


def is_likely(hit: Hit, least: float = LIKELY) -> bool:
    """Whether a hit is likely right or has the words, as far as is known."""
    return hit.matches_words or hit.relevance is None or hit.relevance >= least


def is_relevant(hit: Hit) -> bool:
    """Whether a hit is known to be likely right, whatever its words."""
    return hit.relevance is not None and hit.relevance >= LIKELY


def _identity(hit: Hit, collapse: bool) -> str:
    return str(hit.fields.get("content_id", hit.image_id)) if collapse else hit.image_id


def _in_order(hits: Hits, request: SearchRequest, offset: int, size: int) -> Hits:
    """Sort the relevant hits, or all where relevance is not known."""
    order = request.sort
    # What is less relevant than was asked for is no hit.
    least = LIKELY if request.min_relevance is None else request.min_relevance
    relevant = [each for each in hits if is_likely(each, least)]
    if order in {"newest", "oldest"}:
        relevant.sort(key=lambda hit: date_of(hit.fields), reverse=order == "newest")
    elif order == "largest":
        relevant.sort(key=lambda hit: -hit.fields.get("width", 0) * hit.fields.get("height", 0))
    else:
        relevant.sort(key=lambda hit: (hit.root, hit.relative_path))
    page = relevant[offset : offset + size]
    return Hits(page, hits.took_ms, hits.queries, notes=hits.notes, facets=hits.facets)
