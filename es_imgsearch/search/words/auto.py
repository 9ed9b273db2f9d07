"""Choose the mode of a search by its query; complete the hits that words found."""

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
from es_imgsearch.search.words.fusion import Ranking, Raw


def chosen_mode(plan: SearchPlan, terms: Sequence[Term], info: IndexInfo) -> Mode:
    """Choose the mode by the query, the options and the encoder."""
    is_words = all(isinstance(each.query, str) for each in terms)
    # Weights are of vectors: what only words find has none.  Words match or do not: what a picture
    # should be unlike is compared by vectors only.
    is_apart = any(each.weight < 0 for each in terms)
    if not is_words or plan.weights is not None or (is_apart and info.meta.seal.supports_text):
        return "vector"
    if info.meta.seal.supports_text:
        return "hybrid"
    only_vectors = plan.regions or plan.codes or plan.exact or plan.min_relevance is not None
    return "vector" if only_vectors else "text"


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
