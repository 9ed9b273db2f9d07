"""Turn raw hits into `Hits`: pages, relevance, explanations, facets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.elastic.queries import parse_vector, score_to_cosine
from es_imgsearch.elastic.region_queries import matched_box
from es_imgsearch.errors import UsageError
from es_imgsearch.search.filtering.dates import local_year
from es_imgsearch.search.hits import Hit, Hits, LazyHits
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
from es_imgsearch.search.relevance import QueryRelevance
from es_imgsearch.search.words.fusion import FUSED_DIGITS, Ranks, SearchResult, shares

_COSINE_DIGITS = 6


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
    plan = context.plan
    if plan.min_relevance is not None:
        result = result._replace(hits=_relevant(result.hits, plan.min_relevance, context))
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
        notes=context.notes,
        facets=facets,
        mode=plan.mode,
    )


def _relevant(
    hits: Sequence[Mapping[str, Any]], at_least: float, context: SearchContext
) -> list[Mapping[str, Any]]:
    similarity, relevance = context.info.meta.similarity, context.relevance
    if relevance is None:
        return []
    return [
        hit
        for hit in hits
        if relevance.probability(score_to_cosine(hit["_score"], similarity)) >= at_least
    ]


def _shown(term: Term) -> str | QueryPicture | None:
    if term.weight < 0:
        return None
    return term.query if isinstance(term.query, str) else as_query_picture(term.query)


def _hit(raw: Mapping[str, Any], ranks: Ranks | None, context: SearchContext) -> Hit:
    plan, meta = context.plan, context.info.meta
    source = raw.get("_source", {})
    root, relative_path = source.get("root", ""), source.get("relative_path", "")
    # Weighted parts are scored by a script, which is the same for every similarity.
    similarity = meta.similarity if plan.weights is None else "cosine"
    vector_score = ranks.vector_score if ranks else None
    if plan.mode == "vector":
        vector_score = raw["_score"]
    mean = None if vector_score is None else score_to_cosine(vector_score, similarity)
    if ranks is not None:
        score = round(ranks.score, FUSED_DIGITS)
    else:
        score = round(raw["_score"] if mean is None else mean, _COSINE_DIGITS)
    cosines = _cosines(raw, context) if plan.explain else {}
    # A reduced index stores bytes, so the cosine of stored vectors is not the reranked one.
    is_known = mean is not None and plan.weights is None
    cosine = mean if is_known else cosines.get(CONTENT.name)
    relevance = context.relevance
    return Hit(
        image_id=raw["_id"],
        root=root,
        relative_path=relative_path,
        score=score,
        relevance=None if relevance is None or cosine is None else relevance.probability(cosine),
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


# Facets.

# Computed from a date; every other facet is a field of one of these types.
_YEAR = "year"
_YEAR_FIELDS = ("taken_local", "taken_at", "modified_at")
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
            )


def facet_fields(names: Iterable[str]) -> set[str]:
    """List the stored fields that facets are counted from."""
    return {field for name in names for field in (_YEAR_FIELDS if name == _YEAR else (name,))}


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
