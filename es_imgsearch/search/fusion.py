"""Join the vector and the word ranking of mode hybrid by reciprocal ranks."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from es_imgsearch.search.options import SearchPlan

# The last of 10,000 reciprocal ranks differ by 1e-8.
FUSED_DIGITS = 10


class Ranks(NamedTuple):
    """A fused hit's ranks, from 1, and `_score`s in both rankings, or None."""

    fused: float
    vector: int | None
    text: int | None
    vector_score: float | None
    text_score: float | None


class SearchResult(NamedTuple):
    """Raw hits, best first: all of them, or with `is_page` only the requested page."""

    hits: Sequence[Mapping[str, Any]]
    took_ms: int
    ranks: Sequence[Ranks] | None = None
    is_page: bool = False


def fuse_rankings(
    by_vector: Sequence[Mapping[str, Any]],
    by_text: Sequence[Mapping[str, Any]],
    plan: SearchPlan,
    took_ms: int,
) -> SearchResult:
    """Fuse two rankings into the first k by the sum of reciprocal ranks.

    With `collapse`, files of the same content count as one, even if each ranking has another file.
    """

    def keys(hits: Sequence[Mapping[str, Any]]) -> list[str]:
        if not plan.collapse:
            return [str(hit["_id"]) for hit in hits]
        return [str(hit["_source"].get("content_id", hit["_id"])) for hit in hits]

    vector_keys, text_keys = keys(by_vector), keys(by_text)
    scores = reciprocal_rank_fusion([vector_keys, text_keys])
    hits = dict(zip(text_keys, by_text, strict=True)) | dict(
        zip(vector_keys, by_vector, strict=True)
    )
    in_vector = {key: rank for rank, key in enumerate(vector_keys, start=1)}
    in_text = {key: rank for rank, key in enumerate(text_keys, start=1)}
    best = list(scores)[: plan.k]
    ranks = [
        Ranks(
            scores[key],
            vector := in_vector.get(key),
            text := in_text.get(key),
            None if vector is None else by_vector[vector - 1]["_score"],
            None if text is None else by_text[text - 1]["_score"],
        )
        for key in best
    ]
    return SearchResult([hits[key] for key in best], took_ms, ranks)


Key = TypeVar("Key", bound=Hashable)
# Cormack, Clarke and Büttcher 2009, "Reciprocal Rank Fusion outperforms Condorcet and individual
# Rank Learning Methods": fixed at 60 in a pilot study, and not critical.
RANK_CONSTANT = 60
# Both rankings are read to at least this depth: two lists of ten would miss a picture that is
# eleventh in both, though its fused score is among the ten best.
MIN_DEPTH = 50


def reciprocal_rank_fusion(rankings: Sequence[Sequence[Key]]) -> dict[Key, float]:
    """Score every key by the sum of 1 / (60 + rank) over the rankings; best first.

    Ranks start at 1.  Keys of equal score stay in the order of their first occurrence.
    """
    scores: dict[Key, float] = {}
    for ranking in rankings:
        for rank, key in enumerate(ranking, start=1):
            scores[key] = scores.get(key, 0.0) + reciprocal_rank(rank)
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


def reciprocal_rank(rank: int | None) -> float:
    """Return 1 / (60 + rank); 0 for None, which is not in the ranking."""
    return 0.0 if rank is None else 1.0 / (RANK_CONSTANT + rank)
