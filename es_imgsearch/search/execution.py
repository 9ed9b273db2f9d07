"""Build search bodies and run them in as few round trips as possible.

A search is one request.  Hybrid searches and searches of regions share one `_msearch`; collapsing
may need further rounds, see `_collect`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from es_imgsearch.codes import queries as code_queries
from es_imgsearch.elastic import queries, region_queries
from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.elastic.requests import (
    checked_hits,
    msearch_answers,
    msearch_request,
    search_request,
)
from es_imgsearch.search.filtering.values import met_filters
from es_imgsearch.search.filters import clause_of, filter_clauses
from es_imgsearch.search.options import SearchPlan
from es_imgsearch.search.query import StoredPicture, Term
from es_imgsearch.search.query_vectors import CONTENT
from es_imgsearch.search.reduced import Reranking
from es_imgsearch.search.request_flow import RequestFlow, Work, sent
from es_imgsearch.search.results import SearchContext, facet_fields
from es_imgsearch.search.words import bodies
from es_imgsearch.search.words.auto import words_of
from es_imgsearch.search.words.fusion import MIN_DEPTH, Ranking, SearchResult, fuse_rankings

Clauses: TypeAlias = Sequence[Mapping[str, Any]]
Body: TypeAlias = dict[str, Any]
# (number of hits, filters) -> body.
Search: TypeAlias = Callable[[int, Clauses], Body]
Raw: TypeAlias = Mapping[str, Any]


def vector_body(context: SearchContext, k: int, clauses: Clauses) -> Body:
    """Build the search by vectors."""
    if context.plan.weights is None:
        similarity = context.info.meta.similarity
        if context.code is not None:
            body = code_queries.code_body(
                context.code,
                context.parts[0][2],
                k,
                similarity,
                num_candidates=_candidates(context.plan, k),
                filters=clauses,
                source=_source(context),
            )
            return _with_vectors(body, context)
        exact = partial(queries.exact_body, similarity=similarity)
        return _knn_body(context, context.parts[0][2], k, clauses, queries.knn_body, exact)
    parts = [
        queries.PartQuery(part.field, vector, weight) for part, weight, vector in context.parts
    ]
    return _knn_body(context, parts, k, clauses, queries.weighted_body, queries.exact_weighted_body)


def region_body(context: SearchContext, k: int, clauses: Clauses) -> Body:
    """Build the search by vectors of regions, run together with `vector_body`."""
    similarity = context.info.meta.similarity
    exact = partial(region_queries.exact_region_body, similarity=similarity)
    vector = context.parts[0][2]
    return _knn_body(context, vector, k, clauses, region_queries.region_knn_body, exact)


def _knn_body(
    context: SearchContext,
    query: Any,
    k: int,
    clauses: Clauses,
    graph: Callable[..., Body],
    exact: Callable[..., Body],
) -> Body:
    """Build an approximate search (`graph`), or an exact one if the plan says so."""
    plan, source = context.plan, _source(context)
    if plan.exact:
        body = exact(query, k, filters=clauses, source=source)
    else:
        tuning, candidates = context.info.meta.tuning, _candidates(plan, k)
        body = graph(query, k, tuning, num_candidates=candidates, filters=clauses, source=source)
    return _with_vectors(body, context)


def text_body(context: SearchContext, texts: Sequence[Term], k: int, clauses: Clauses) -> Body:
    """Build the search for words; words of a negative weight must not occur."""
    build = bodies.close_body if context.plan.is_auto else bodies.text_body
    body = build(
        [(str(text), weight) for text, weight in texts if weight > 0],
        [str(text) for text, weight in texts if weight < 0],
        k,
        filters=clauses,
        source=_source(context),
    )
    return _with_vectors(body, context)


def exact_body(context: SearchContext, texts: Sequence[Term], k: int, clauses: Clauses) -> Body:
    """Build the search for what the words name as a whole."""
    positive = [str(text) for text, weight in texts if weight > 0]
    body = bodies.exact_body(positive, k, filters=clauses, source=_source(context))
    return _with_vectors(body, context)


def run_searches(
    index: str,
    generation: str,
    searches: Mapping[Ranking, Search],
    plan: SearchPlan,
    clauses: Clauses,
    reranking: Reranking | None = None,
    region_search: Search | None = None,
) -> RequestFlow[SearchResult]:
    """Run the searches; return the page of a single one, or fuse several.

    `reranking` rescores the hits of the search by vectors, `region_search` adds to them.  Raises
    GenerationSwitched if hits are not of `generation`, for which the searches were built.
    """
    collect = partial(
        _collect,
        index,
        generation,
        searches,
        collapse=plan.collapse,
        clauses=clauses,
        reranking=reranking,
        region_search=region_search,
    )
    # The hits up to the end of the page are enough, unless facets count the others, or fusing or
    # reranking may move them up.
    is_fused = "vector" in searches and len(searches) > 1
    needed = plan.k if plan.facets or reranking is not None or is_fused else plan.page.stop
    if len(searches) > 1:
        depth = min(queries.MAX_NUM_CANDIDATES, max(needed, MIN_DEPTH))
        lists, took = yield from collect(depth)
        if plan.is_auto and is_fused and len(lists["text"]) >= depth:
            more, took_more = yield from words_of(
                index, generation, searches["text"], lists, clauses
            )
            lists["text"] += more
            took += took_more
        return fuse_rankings(lists, plan, took)
    (name,) = searches
    if plan.collapse or plan.facets or reranking is not None or region_search is not None:
        if not needed:
            return SearchResult([], 0)
        lists, took = yield from collect(needed)
        return SearchResult(lists[name], took)
    body = searches[name](plan.k, clauses)
    if plan.page != slice(0, plan.k):
        body = queries.with_page(body, plan.page.start, plan.page.stop - plan.page.start)
    answer = yield search_request(index, queries.to_json(body))
    return SearchResult(checked_hits(answer, generation), int(answer.get("took", 0)), is_page=True)


def search_clauses(
    plan: SearchPlan, terms: Sequence[Term], info: IndexInfo
) -> list[Mapping[str, Any]]:
    """Build the filters of a search; the stored pictures it asks with are left out."""
    clauses: list[Mapping[str, Any]] = list(
        filter_clauses(
            plan.filters,
            info.properties,
            without=plan.without,
            since=plan.since,
            until=plan.until,
        )
    )
    ids = [each.query.image_id for each in terms if isinstance(each.query, StoredPicture)]
    if ids:
        clauses.append({"bool": {"must_not": [{"ids": {"values": ids}}]}})
    return clauses


def run_filtered(
    index: str,
    context: SearchContext,
    find: Callable[[Clauses], RequestFlow[SearchResult]],
    clauses: Clauses,
) -> RequestFlow[tuple[SearchContext, SearchResult]]:
    """Run the searches; run them again with the values that filters mean.

    That is for values which no picture has as they are typed; the context gets notes on those that
    do not exist at all.
    """
    plan, properties = context.plan, context.info.properties
    if plan.without:
        # Hits do not show whether a value that they should lack exists.
        left_out = yield from met_filters(index, plan.without, properties, clause_of(properties))
        plan = replace(plan, without=left_out.filters)
        clauses = search_clauses(plan, context.terms, context.info)
        context = context._replace(notes=[*context.notes, *left_out.notes])
    result = yield from find(clauses)
    if not plan.filters:
        return context, result
    met = yield from met_filters(
        index,
        plan.filters,
        properties,
        clause_of(properties),
        found=[hit.get("_source", {}) for hit in result.hits],
    )
    if met.filters is not plan.filters:
        meant = replace(plan, filters=met.filters)
        result = yield from find(search_clauses(meant, context.terms, context.info))
    return context._replace(notes=[*context.notes, *met.notes]), result


def _collect(
    index: str,
    generation: str,
    searches: Mapping[Ranking, Search],
    needed: int,
    collapse: bool,
    clauses: Clauses,
    reranking: Reranking | None,
    region_search: Search | None,
) -> RequestFlow[tuple[dict[Ranking, list[Raw]], int]]:
    """Collect the first `needed` hits of every search, and Elasticsearch's time in ms.

    With `collapse`, a search is repeated without the contents it already has, until it has enough
    hits or nothing is left: a kNN search that collapses on the server returns fewer (with five
    copies of each picture, k = 10 gave 2 groups).  All searches share every round trip.
    """
    lists: dict[Ranking, list[Raw]] = {name: [] for name in searches}
    contents: dict[Ranking, dict[str, None]] = {name: {} for name in searches}
    open_searches, took, factor = list(searches), 0, 2 if collapse else 1
    while open_searches:
        counts = {
            name: min(queries.MAX_NUM_CANDIDATES, factor * (needed - len(lists[name])))
            for name in open_searches
        }
        depths = dict(counts)
        if reranking is not None and "vector" in depths:
            depth = reranking.depth(counts["vector"])
            depths["vector"] = min(queries.MAX_NUM_CANDIDATES, depth)
        filters = {
            name: [*clauses, *_without(lists[name], contents[name])] for name in open_searches
        }
        answered, took_now = yield from _round(
            index, generation, searches, depths, filters, region_search
        )
        took += took_now
        for name, (hits, is_end) in answered.items():
            if reranking is not None and name == "vector":
                hits = yield Work(partial(reranking.rerank, hits))
            hits = hits[: counts[name]]
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
    filters: Mapping[Ranking, Clauses],
    region_search: Search | None,
) -> RequestFlow[tuple[dict[Ranking, tuple[Sequence[Raw], bool]], int]]:
    """Run one round trip.

    Returns, for each search, its hits and if there are no more; and Elasticsearch's time in ms.
    """
    bodies = [searches[name](depth, filters[name]) for name, depth in depths.items()]
    with_regions = region_search is not None and "vector" in depths
    if region_search is not None and with_regions:
        bodies.append(region_search(depths["vector"], filters["vector"]))
    if len(bodies) == 1:
        request = search_request(index, queries.to_json(bodies[0]))
        answer, answers = yield from sent(request, lambda each: (each, [each]))
    else:
        body = queries.to_msearch(bodies)
        request = msearch_request(index, body, inner_hits=with_regions)
        answer, answers = yield from sent(request, lambda each: (each, msearch_answers(each)))
    in_regions = checked_hits(answers.pop(), generation) if with_regions else ()
    answered: dict[Ranking, tuple[Sequence[Raw], bool]] = {}
    for name, each in zip(depths, answers, strict=True):
        hits = checked_hits(each, generation)
        # Every picture has a vector, so the search by regions ends with it.
        is_end = len(hits) < depths[name]
        if with_regions and name == "vector":
            hits = region_queries.merge_rankings(hits, in_regions)
        answered[name] = (hits, is_end)
    return answered, int(answer.get("took", 0))


def _candidates(plan: SearchPlan, k: int) -> int | None:
    # A round of collapsing may ask for more hits than the plan's k; num_candidates below the
    # plan's k stays, so that the body builder refuses it.
    chosen = plan.num_candidates
    return chosen if chosen is None or chosen < plan.k else max(chosen, k)


def _source(context: SearchContext) -> bool | list[str]:
    plan = context.plan
    # Whole vectors of a reduced index are looked up by content_id.
    needs_content = plan.collapse or context.info.meta.reduction is not None
    if plan.fields is None:
        return True
    needed = {*plan.fields, *facet_fields(plan.facets), "root", "relative_path"}
    return sorted(needed | ({"content_id"} if needs_content else set()))


def _with_vectors(body: Body, context: SearchContext) -> Body:
    """Add the stored vectors to the answer, which `explain` compares with."""
    fields = {part.field for part, _, _ in context.parts}
    if not context.plan.explain or not fields:
        return body
    fields.update({CONTENT.field} if context.term_vectors else ())
    return {**body, "docvalue_fields": sorted(fields)}


def _without(
    hits: Sequence[Mapping[str, Any]], contents: Mapping[str, None]
) -> list[dict[str, Any]]:
    """Exclude collected contents, and pictures without content_id by their id."""
    without_content = [hit["_id"] for hit in hits if "content_id" not in hit["_source"]]
    clauses: list[dict[str, Any]] = []
    if contents:
        clauses.append({"terms": {"content_id": list(contents)}})
    if without_content:
        clauses.append({"ids": {"values": without_content}})
    return [{"bool": {"must_not": clauses}}] if clauses else []
