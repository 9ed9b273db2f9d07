"""Choose the mode of a search by its query, and complete the hits that words found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from es_imgsearch.elastic import queries
from es_imgsearch.elastic.meta import IndexInfo
from es_imgsearch.elastic.requests import checked_hits, search_request
from es_imgsearch.errors import UsageError
from es_imgsearch.search.options import Mode, SearchPlan
from es_imgsearch.search.query import Term
from es_imgsearch.search.request_flow import RequestFlow
from es_imgsearch.search.results import SearchContext
from es_imgsearch.search.words.fusion import Ranking, Raw, SearchResult


def chosen_mode(plan: SearchPlan, terms: Sequence[Term], info: IndexInfo) -> Mode:
    """Return what mode auto is for a search: by its query, its options and the encoder."""
    is_words = all(isinstance(each.query, str) for each in terms)
    # Relevance and weights are of vectors: what only words find has neither.
    if not is_words or plan.min_relevance is not None or plan.weights is not None:
        return "vector"
    if info.meta.seal.supports_text:
        return "hybrid"
    return "vector" if plan.regions or plan.codes or plan.exact else "text"


def check_words(terms: Sequence[Term], texts: Sequence[Term], plan: SearchPlan) -> None:
    """Raise UsageError unless the mode can search for these terms."""
    if plan.mode == "text" and len(texts) < len(terms):
        raise UsageError("Mode 'text' looks for words: search for pictures in mode 'vector'.")
    if not any(weight > 0 for _, weight in texts):
        raise UsageError(f"Mode {plan.mode!r} needs words to look for.")


def words_of(
    index: str,
    generation: str,
    text_search: Callable[[int, Sequence[Mapping[str, Any]]], dict[str, Any]],
    lists: Mapping[Ranking, Sequence[Raw]],
    clauses: Sequence[Mapping[str, Any]],
) -> RequestFlow[tuple[list[Raw], int]]:
    """Search the words of what only the vectors found; return hits and the time in ms.

    For words that more pictures have than were listed, such as the name of a folder.
    """
    listed = {hit["_id"] for hit in lists["text"]}
    ids = [hit["_id"] for hit in lists["vector"] if hit["_id"] not in listed]
    if not ids:
        return [], 0
    body = text_search(len(ids), [*clauses, {"ids": {"values": ids}}])
    answer = yield search_request(index, queries.to_json(body))
    return list(checked_hits(answer, generation)), int(answer.get("took", 0))


def with_cosines(
    index: str, result: SearchResult, context: SearchContext
) -> RequestFlow[SearchResult]:
    """Add the cosines of the page's hits that only words found, for their relevance."""
    if context.relevance is None or result.ranks is None:
        return result
    page = context.plan.page
    without = [
        str(hit["_id"])
        for hit, ranks in zip(result.hits[page], result.ranks[page], strict=True)
        if ranks.vector_score is None
    ]
    if not without:
        return result
    body = queries.exact_body(
        context.parts[0][2],
        len(without),
        context.info.meta.similarity,
        filters=[{"ids": {"values": without}}],
        source=False,
    )
    answer = yield search_request(index, queries.to_json(body))
    found = {hit["_id"]: hit["_score"] for hit in checked_hits(answer, context.info.name)}
    ranks = [
        each if each.vector_score is not None else each._replace(vector_score=found.get(hit["_id"]))
        for hit, each in zip(result.hits, result.ranks, strict=True)
    ]
    return result._replace(ranks=ranks)
