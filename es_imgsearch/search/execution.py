"""From vectors and words to what Elasticsearch found: in one round trip wherever that can be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

from es_imgsearch.codes import queries as code_queries
from es_imgsearch.elastic import queries, region_queries
from es_imgsearch.elastic.requests import (
    checked_hits,
    msearch_answers,
    msearch_request,
    search_request,
)
from es_imgsearch.search.options import Plan
from es_imgsearch.search.query import Term
from es_imgsearch.search.query_vectors import CONTENT
from es_imgsearch.search.reduced import Refinement
from es_imgsearch.search.request_flow import RequestFlow, Work
from es_imgsearch.search.results import LEAST_DEPTH, Asked, Found, facet_fields, fused

Clauses: TypeAlias = Sequence[Mapping[str, Any]]
Body: TypeAlias = dict[str, Any]
Ranking: TypeAlias = Literal["vector", "text"]
# How many hits, under which filters -> the body.
Search: TypeAlias = Callable[[int, Clauses], Body]
Raw: TypeAlias = Mapping[str, Any]


def vector_body(asked: Asked, k: int, clauses: Clauses) -> Body:
    """The search by vectors."""
    if asked.plan.weights is None:
        similarity = asked.info.meta.similarity
        if asked.code is not None:
            body = code_queries.code_body(
                asked.code,
                asked.parts[0][2],
                k,
                similarity,
                num_candidates=_candidates(asked.plan, k),
                filters=clauses,
                source=_source(asked),
            )
            return _with_vectors(body, asked)
        exact = partial(queries.exact_body, similarity=similarity)
        return _compared(asked, asked.parts[0][2], k, clauses, queries.knn_body, exact)
    parts = [queries.PartQuery(part.field, vector, weight) for part, weight, vector in asked.parts]
    return _compared(asked, parts, k, clauses, queries.weighted_body, queries.exact_weighted_body)


def region_body(asked: Asked, k: int, clauses: Clauses) -> Body:
    """The search by the vectors of regions, beside `vector_body`."""
    similarity = asked.info.meta.similarity
    exact = partial(region_queries.exact_region_body, similarity=similarity)
    vector = asked.parts[0][2]
    return _compared(asked, vector, k, clauses, region_queries.region_knn_body, exact)


def _compared(
    asked: Asked,
    wanted: Any,
    k: int,
    clauses: Clauses,
    graph: Callable[..., Body],
    exact: Callable[..., Body],
) -> Body:
    """A body of what is `wanted`: by walking the graph, or by comparing everything."""
    plan, source = asked.plan, _source(asked)
    if plan.exact:
        body = exact(wanted, k, filters=clauses, source=source)
    else:
        tuning, candidates = asked.info.meta.tuning, _candidates(plan, k)
        body = graph(wanted, k, tuning, num_candidates=candidates, filters=clauses, source=source)
    return _with_vectors(body, asked)


def text_body(asked: Asked, texts: Sequence[Term], k: int, clauses: Clauses) -> Body:
    """The search for words; those of a negative weight are left out."""
    body = queries.text_body(
        [(str(text), weight) for text, weight in texts if weight > 0],
        [str(text) for text, weight in texts if weight < 0],
        k,
        filters=clauses,
        source=_source(asked),
    )
    return _with_vectors(body, asked)


def found(
    index: str,
    generation: str,
    searches: Mapping[Ranking, Search],
    plan: Plan,
    clauses: Clauses,
    refinement: Refinement | None = None,
    by_region: Search | None = None,
) -> RequestFlow[Found]:
    """What the searches found: the page of one of them, or as many hits as fusing needs.

    `refinement` is what the hits of the search by vectors go through, where it has one;
    `by_region` finds more of them.  Raises GenerationSwitched where hits are not of `generation`,
    whose encoder and settings the searches were made with.
    """
    collected = partial(
        _collected,
        index,
        generation,
        searches,
        collapse=plan.collapse,
        clauses=clauses,
        refinement=refinement,
        by_region=by_region,
    )
    if plan.mode == "hybrid":
        depth = min(queries.MAX_NUM_CANDIDATES, max(plan.k, LEAST_DEPTH))
        lists, took = yield from collected(depth)
        return fused(lists["vector"], lists["text"], plan, took)
    (name,) = searches
    # A part of the list is enough where nobody counts the rest, and where a longer one would not
    # be in another order.
    needed = plan.k if plan.facets or refinement is not None else plan.page.stop
    if plan.collapse or plan.facets or refinement is not None or by_region is not None:
        if not needed:
            return Found([], 0)
        lists, took = yield from collected(needed)
        return Found(lists[name], took)
    body = searches[name](plan.k, clauses)
    if plan.page != slice(0, plan.k):
        body = queries.with_page(body, plan.page.start, plan.page.stop - plan.page.start)
    answer = yield search_request(index, queries.to_json(body))
    return Found(checked_hits(answer, generation), int(answer.get("took", 0)), is_page=True)


def _collected(
    index: str,
    generation: str,
    searches: Mapping[Ranking, Search],
    needed: int,
    collapse: bool,
    clauses: Clauses,
    refinement: Refinement | None,
    by_region: Search | None,
) -> RequestFlow[tuple[dict[Ranking, list[Raw]], int]]:
    """The first `needed` hits of every search, and Elasticsearch's time in ms.

    Collapsed, a search goes on, without the contents it has, until it has as many or nothing
    is left: a kNN search that collapses on the server ends with fewer (with five copies of
    each, k = 10 gave 2 groups).  All searches share every round trip.
    """
    lists: dict[Ranking, list[Raw]] = {name: [] for name in searches}
    contents: dict[Ranking, dict[str, None]] = {name: {} for name in searches}
    open_searches, took, factor = list(searches), 0, 2 if collapse else 1
    while open_searches:
        asked = {
            name: min(queries.MAX_NUM_CANDIDATES, factor * (needed - len(lists[name])))
            for name in open_searches
        }
        depths = dict(asked)
        if refinement is not None and "vector" in depths:
            wanted = refinement.depth(asked["vector"])
            depths["vector"] = min(queries.MAX_NUM_CANDIDATES, wanted)
        among = {name: [*clauses, *_without(lists[name], contents[name])] for name in open_searches}
        answered, took_now = yield from _round(
            index, generation, searches, depths, among, by_region
        )
        took += took_now
        for name, (found_now, is_end) in answered.items():
            hits = found_now
            if refinement is not None and name == "vector":
                hits = yield Work(partial(refinement.refine, hits))
            hits = hits[: asked[name]]
            for hit in hits:
                content = hit["_source"].get("content_id") if collapse else None
                if content is None or content not in contents[name]:
                    lists[name].append(hit)
                if content is not None:
                    contents[name][content] = None
            if not collapse or len(lists[name]) >= needed or is_end:
                open_searches.remove(name)
        factor *= 2
    return {name: hits[:needed] for name, hits in lists.items()}, took


def _round(
    index: str,
    generation: str,
    searches: Mapping[Ranking, Search],
    depths: Mapping[Ranking, int],
    among: Mapping[Ranking, Clauses],
    by_region: Search | None,
) -> RequestFlow[tuple[dict[Ranking, tuple[Sequence[Raw], bool]], int]]:
    """Of every search its hits and whether there are no more; and Elasticsearch's time in ms."""
    bodies = [searches[name](depth, among[name]) for name, depth in depths.items()]
    with_regions = by_region is not None and "vector" in depths
    if by_region is not None and with_regions:
        bodies.append(by_region(depths["vector"], among["vector"]))
    if len(bodies) == 1:
        answer = yield search_request(index, queries.to_json(bodies[0]))
        answers = [answer]
    else:
        body = queries.to_msearch(bodies)
        answer = yield msearch_request(index, body, inner_hits=with_regions)
        answers = msearch_answers(answer)
    in_regions = checked_hits(answers.pop(), generation) if with_regions else ()
    answered: dict[Ranking, tuple[Sequence[Raw], bool]] = {}
    for name, each in zip(depths, answers, strict=True):
        hits = checked_hits(each, generation)
        # Every picture has a vector, so where those end no region is left either.
        is_end = len(hits) < depths[name]
        if with_regions and name == "vector":
            hits = region_queries.merge_rankings(hits, in_regions)
        answered[name] = (hits, is_end)
    return answered, int(answer.get("took", 0))


def _candidates(plan: Plan, k: int) -> int | None:
    # A round of collapsing may ask for more than the k that the caller compared it with.
    given = plan.num_candidates
    return given if given is None or given < plan.k else max(given, k)


def _source(asked: Asked) -> bool | list[str]:
    plan = asked.plan
    # Originals are found by their content.
    by_content = plan.collapse or asked.info.meta.reduction is not None
    if plan.fields is None:
        return True
    needed = {*plan.fields, *facet_fields(plan.facets), "root", "relative_path"}
    return sorted(needed | ({"content_id"} if by_content else set()))


def _with_vectors(body: Body, asked: Asked) -> Body:
    """The vectors that `explain` compares with, exactly as they are stored."""
    fields = {part.field for part, _, _ in asked.parts}
    if not asked.plan.explain or not fields:
        return body
    fields.update({CONTENT.field} if asked.of_terms else ())
    return {**body, "docvalue_fields": sorted(fields)}


def _without(
    hits: Sequence[Mapping[str, Any]], contents: Mapping[str, None]
) -> list[dict[str, Any]]:
    """Leaves out what has been found; pictures without a content_id by their own id."""
    nameless = [hit["_id"] for hit in hits if "content_id" not in hit["_source"]]
    clauses: list[dict[str, Any]] = []
    if contents:
        clauses.append({"terms": {"content_id": list(contents)}})
    if nameless:
        clauses.append({"ids": {"values": nameless}})
    return [{"bool": {"must_not": clauses}}] if clauses else []
