"""Turn raw hits into `Hits`: pages, relevance, explanations, facets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.elastic.queries import exact_body, parse_vector, score_to_cosine, to_json
from es_imgsearch.elastic.region_queries import matched_box
from es_imgsearch.elastic.requests import checked_hits, search_request
from es_imgsearch.errors import UsageError, did_you_mean
from es_imgsearch.search.filtering.dates import DATE_FIELDS, local_year
from es_imgsearch.search.hits import LIKELY, Hit, Hits, LazyHits
from es_imgsearch.search.options import SearchPlan
from es_imgsearch.search.query import (
    Query,
    QueryPicture,
    StoredPicture,
    Term,
    Vector,
    as_query_picture,
    query_kind,
)
from es_imgsearch.search.query_vectors import CONTENT, VectorPart
from es_imgsearch.search.relevance import NAMED_RELEVANCE, QueryRelevance, named_relevance
from es_imgsearch.search.request_flow import RequestFlow
from es_imgsearch.search.words.fusion import FUSED_DIGITS, Ranks, SearchResult, shares

_COSINE_DIGITS = 6
NOTHING_FITS = "Nothing fits well: none of these is likely right."


class SearchContext(NamedTuple):
    """Everything about a search that its hits depend on.

    `parts` are the vectors compared, each with its weight in the score; `term_vectors` holds the
    content vector of every term; `relevance` turns content cosines into relevance.  `code` is the
    binary code of the content vector, if candidates are searched by codes.
    """

    plan: SearchPlan
    info: IndexInfo
    host: str
    terms: Sequence[Term]
    notes: Sequence[str] = ()
    parts: Sequence[tuple[VectorPart, float, Vector]] = ()
    term_vectors: Sequence[Vector] = ()
    relevance: QueryRelevance | None = None
    code: str | None = None


def build_hits(result: SearchResult, context: SearchContext) -> Hits:
    """Build the page's hits, each on first access, and the facets of all hits."""
    plan, notes = context.plan, list(context.notes)
    best = _best_relevance(result, context)
    if plan.min_relevance is not None:
        result = _relevant(result, plan.min_relevance, context)
        if best is not None and best < plan.min_relevance:
            notes.append(
                f"No hit has a relevance of {plan.min_relevance:.0%} or more; the best has"
                f" {best:.0%}."
            )
    elif best is not None and best < LIKELY and plan.offset == 0 and not _match_words(result):
        notes.append(NOTHING_FITS)
    facets = {}
    if plan.facets:
        facets = count_facets([each["_source"] for each in result.hits], plan.facets)
    hits, ranks = result.hits, result.ranks
    if not result.is_page:
        hits = hits[plan.page]
        ranks = None if ranks is None else ranks[plan.page]
    return Hits(
        LazyHits(len(hits), lambda n: _hit(hits[n], None if ranks is None else ranks[n], context)),
        result.took_ms,
        [shown for each in context.terms if (shown := _shown(each)) is not None],
        notes=notes,
        facets=facets,
        mode=plan.mode,
    )


def _best_relevance(result: SearchResult, context: SearchContext) -> float | None:
    """Return the relevance of the best hit; None if unknown, or without hits.

    In mode vector that is the first one; in mode hybrid looking ends at the first likely one.
    """
    if context.relevance is None or not result.hits:
        return None
    best = 0.0
    of_hits: Sequence[Ranks | None] = result.ranks or [None]
    for hit, ranks in zip(result.hits, of_hits, strict=False):
        best = max(best, _relevance(hit, ranks, context) or 0.0)
        if best >= max(LIKELY, context.plan.min_relevance or 0.0):
            break
    return best


def _match_words(result: SearchResult) -> bool:
    """Return True if any hit has the words, so that its looks do not decide."""
    return any(each.text or each.named for each in result.ranks or ())


def _relevant(result: SearchResult, at_least: float, context: SearchContext) -> SearchResult:
    ranks: Sequence[Ranks | None] = result.ranks or [None] * len(result.hits)
    kept = [
        (hit, rank)
        for hit, rank in zip(result.hits, ranks, strict=True)
        if (_relevance(hit, rank, context) or 0.0) >= at_least
    ]
    return result._replace(
        hits=[hit for hit, _ in kept],
        ranks=None if result.ranks is None else [rank for _, rank in kept if rank is not None],
    )


def _vector_cosine(
    raw: Mapping[str, Any], ranks: Ranks | None, context: SearchContext
) -> float | None:
    """Return the cosine by which vectors found the hit; None if they did not."""
    plan = context.plan
    # Weighted parts are scored by a script, which is the same for every similarity.
    similarity = context.info.meta.similarity if plan.weights is None else "cosine"
    score = raw["_score"] if plan.mode == "vector" else ranks and ranks.vector_score
    return None if score is None else score_to_cosine(score, similarity)


def _relevance(
    raw: Mapping[str, Any],
    ranks: Ranks | None,
    context: SearchContext,
    cosine: float | None = None,
) -> float | None:
    """Compute the relevance from the cosine, by default that of the score.

    Where words were searched for as well, a hit that has them in its name, title or tags is no less
    likely than such hits are.
    """
    if context.relevance is None:
        return None
    if cosine is None:
        cosine = _vector_cosine(raw, ranks, context)
    by_vector = None if cosine is None else context.relevance.probability(cosine)
    if ranks is None or not (ranks.text or ranks.named):
        return by_vector
    texts = [each.query for each in context.terms if each.weight > 0]
    named = named_relevance([each for each in texts if isinstance(each, str)], raw["_source"])
    # 2 for an id, path or name, 1 for a tag, which may have been computed from the vector.
    if named is None and ranks.named >= 2:
        named = NAMED_RELEVANCE
    known = [each for each in (by_vector, named) if each is not None]
    return max(known, default=None)


def _shown(term: Term) -> str | QueryPicture | None:
    if term.weight < 0:
        return None
    return term.query if isinstance(term.query, str) else as_query_picture(term.query)


def _hit(raw: Mapping[str, Any], ranks: Ranks | None, context: SearchContext) -> Hit:
    plan = context.plan
    source = raw.get("_source", {})
    root, relative_path = source.get("root", ""), source.get("relative_path", "")
    mean = _vector_cosine(raw, ranks, context)
    if ranks is not None:
        score = round(ranks.score, FUSED_DIGITS)
    else:
        score = round(raw["_score"] if mean is None else mean, _COSINE_DIGITS)
    cosines = _cosines(raw, context) if plan.explain else {}
    # A reduced index stores bytes, so the cosine of stored vectors is not the reranked one.
    is_known = mean is not None and plan.weights is None
    cosine = mean if is_known else cosines.get(CONTENT.name)
    return Hit(
        image_id=raw["_id"],
        root=root,
        relative_path=relative_path,
        score=score,
        relevance=_relevance(raw, ranks, context, cosine),
        fields=source,
        path=context.info.meta.path_on(context.host, root, relative_path),
        cosine=None if cosine is None else round(cosine, _COSINE_DIGITS),
        explanation=_explanation(raw, ranks, cosines, context) if plan.explain else None,
        matched_box=matched_box(raw),
        matches_words=ranks is not None and (ranks.text is not None or ranks.named > 0),
    )


def _cosines(raw: Mapping[str, Any], context: SearchContext) -> dict[str, float]:
    """Compute the cosine of every part; 0 for a part without a stored vector."""
    stored = raw.get("fields", {})
    return {
        part.name: _cosine(vector, parse_vector(stored[part.field]))
        if part.field in stored
        else 0.0
        for part, _, vector in context.parts
    }


def _explanation(
    raw: Mapping[str, Any],
    ranks: Ranks | None,
    cosines: Mapping[str, float],
    context: SearchContext,
) -> dict[str, Any]:
    explanation: dict[str, Any] = {}
    if cosines:
        explanation["parts"] = {
            part.name: {
                "weight": round(weight, _COSINE_DIGITS),
                "cosine": round(cosines[part.name], _COSINE_DIGITS),
                "share": round(weight * cosines[part.name], _COSINE_DIGITS),
            }
            for part, weight, _ in context.parts
        }
    content = raw.get("fields", {}).get(CONTENT.field)
    if content is not None and len(context.term_vectors):
        explanation["queries"] = [
            {
                "query": _label(term.query),
                "weight": term.weight,
                "cosine": round(_cosine(vector, parse_vector(content)), _COSINE_DIGITS),
            }
            for term, vector in zip(context.terms, context.term_vectors, strict=True)
        ]
    if ranks is not None:
        explanation["bm25"] = ranks.text_score
        if context.plan.mode == "hybrid" or ranks.named:
            explanation["shares"] = shares(ranks, context.plan.mode)
        if context.plan.mode == "hybrid":
            explanation["ranks"] = {"vector": ranks.vector, "text": ranks.text}
    return explanation


def _label(query: Query) -> str:
    if isinstance(query, str):
        return query
    if isinstance(query, StoredPicture):
        return f"stored picture {query.image_id}"
    return query_kind(query)


def _cosine(one: Vector, other: Vector) -> float:
    length = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    return float(one @ other) / length if length else 0.0


def with_cosines(
    index: str, result: SearchResult, context: SearchContext
) -> RequestFlow[SearchResult]:
    """Add the cosines of hits that only words found, for their relevance.

    Those of the page, or with `min_relevance` of all hits, since the others move up.
    """
    if context.relevance is None or result.ranks is None:
        return result
    plan = context.plan
    page = plan.page if plan.min_relevance is None else slice(None)
    without = [
        str(hit["_id"])
        for hit, ranks in zip(result.hits[page], result.ranks[page], strict=True)
        if ranks.vector_score is None
    ]
    if not without:
        return result
    body = exact_body(
        context.parts[0][2],
        len(without),
        context.info.meta.similarity,
        filters=[{"ids": {"values": without}}],
        source=False,
    )
    answer = yield search_request(index, to_json(body))
    found = {hit["_id"]: hit["_score"] for hit in checked_hits(answer, context.info.name)}
    ranks = [
        each if each.vector_score is not None else each._replace(vector_score=found.get(hit["_id"]))
        for hit, each in zip(result.hits, result.ranks, strict=True)
    ]
    return result._replace(ranks=ranks)


# Facets.

# Computed from a date; every other facet is a field of one of these types.
_YEAR = "year"
_FACET_TYPES = {"keyword", "boolean", "integer", "short", "byte", "long"}


def check_facets(names: Sequence[str], properties: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise UsageError for a facet that cannot be counted with these mapped fields."""
    if not names:
        return
    countable = {name for name, each in properties.items() if each.get("type") in _FACET_TYPES}
    for name in names:
        if name != _YEAR and name not in countable:
            raise UsageError(
                f"There is no facet {name!r}; there are {', '.join(sorted(countable | {_YEAR}))}."
                f"{did_you_mean(name, countable | {_YEAR})}"
            )


def facet_fields(names: Iterable[str]) -> set[str]:
    """List the stored fields that facets are counted from."""
    return {field for name in names for field in (DATE_FIELDS if name == _YEAR else (name,))}


def count_facets(
    documents: Iterable[Mapping[str, Any]], names: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Count the documents of each value of each facet, the most frequent value first.

    `year` is the year in which a picture was taken by the camera's own clock, or last modified,
    as of the filters `since` and `until`.
    """
    counters: dict[str, Counter[str]] = {name: Counter() for name in names}
    for fields in documents:
        for name, counter in counters.items():
            value = local_year(fields) if name == _YEAR else fields.get(name)
            values = value if isinstance(value, list) else [value]
            counter.update({str(each) for each in values if each is not None})
    return {
        name: dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))
        for name, counter in counters.items()
    }
