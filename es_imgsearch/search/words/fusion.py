"""Join the rankings by vectors and by words, and put what the text names first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Literal, NamedTuple, TypeAlias

from es_imgsearch.search.options import SearchPlan

# The last of 10,000 reciprocal ranks differ by 1e-8.
FUSED_DIGITS = 10

Ranking: TypeAlias = Literal["vector", "text", "exact"]
Raw: TypeAlias = Mapping[str, Any]


class Ranks(NamedTuple):
    """A hit's score, its ranks from 1 and `_score`s in both rankings, or None.

    `named` is the score of `bodies.exact_body`: 0 for a hit that the text does not name.
    """

    score: float
    vector: int | None
    text: int | None
    vector_score: float | None
    text_score: float | None
    named: int = 0


class SearchResult(NamedTuple):
    """Raw hits, best first: all of them, or with `is_page` only the requested page."""

    hits: Sequence[Raw]
    took_ms: int
    ranks: Sequence[Ranks] | None = None
    is_page: bool = False


def fuse_rankings(
    lists: Mapping[Ranking, Sequence[Raw]], plan: SearchPlan, took_ms: int
) -> SearchResult:
    """Order the hits of all rankings; return the first k.

    In mode hybrid by the sum of reciprocal ranks, in mode text by BM25.  Pictures that the text
    names as a whole come first, unless there are many: then it is a tag of a whole category, and
    counts as any word does.  With `collapse`, files of the same content count as one, even if each
    ranking has another file.
    """
    rankings = {name: _by_key(hits, plan) for name, hits in lists.items()}
    vector, text = rankings.get("vector", {}), rankings.get("text", {})
    exact = rankings.get("exact", {})
    named = {key: round(hit["_score"]) for key, hit in exact.items()}
    if len(named) >= MIN_DEPTH:
        named = {}
    if plan.is_auto and "vector" in rankings and not text and not named:
        return SearchResult(list(vector.values())[: plan.k], took_ms)
    in_vector = {key: rank for rank, key in enumerate(vector, start=1)}
    in_text = _text_ranks(text, shared=plan.is_auto)
    hits = exact | text | vector
    # Of a content that several files have, the file that was named.
    hits |= {key: exact[key] for key in named if hits[key]["_id"] != exact[key]["_id"]}
    found: list[tuple[Ranks, str]] = []
    # Of equal scores the first stays first.
    order = [*named, *text, *vector] if plan.is_auto else [*vector, *text, *named]
    for key in dict.fromkeys(order):
        vector_score, text_score = _score(vector.get(key)), _score(text.get(key))
        ranks = Ranks(
            0.0, in_vector.get(key), in_text.get(key), vector_score, text_score, named.get(key, 0)
        )
        found.append((ranks._replace(score=sum(shares(ranks, plan.mode).values())), key))
    found.sort(key=lambda pair: -pair[0].score)
    best = found[: plan.k]
    return SearchResult([hits[key] for _, key in best], took_ms, [ranks for ranks, _ in best])


def shares(ranks: Ranks, mode: str) -> dict[str, float]:
    """Return what the score of a hit is the sum of."""
    if mode == "text":
        parts = {"text": ranks.text_score or 0.0}
    else:
        parts = {
            "vector": reciprocal_rank(ranks.vector),
            "text": reciprocal_rank(ranks.text),
        }
    return parts | ({"exact": _EXACT_SHARE[mode] * ranks.named} if ranks.named else {})


def _by_key(hits: Sequence[Raw], plan: SearchPlan) -> dict[str, Raw]:
    if not plan.collapse:
        return {str(hit["_id"]): hit for hit in hits}
    return {str(hit["_source"].get("content_id", hit["_id"])): hit for hit in hits}


def _text_ranks(ranking: Mapping[str, Raw], *, shared: bool) -> dict[str, int]:
    """Rank by score; with `shared`, hits of equal score have the same rank.

    Many pictures have the words of a folder or a tag, and their order says nothing.
    """
    ordered = sorted(ranking.items(), key=lambda item: -item[1]["_score"])
    if not shared:
        return {key: rank for rank, (key, _) in enumerate(ordered, start=1)}
    ranks: dict[str, int] = {}
    for _, equal in groupby(ordered, key=lambda item: item[1]["_score"]):
        ranks |= dict.fromkeys((key for key, _ in equal), len(ranks) + 1)
    return ranks


def _score(hit: Raw | None) -> float | None:
    return None if hit is None else float(hit["_score"])


# Cormack, Clarke and Büttcher 2009, "Reciprocal Rank Fusion outperforms Condorcet and individual
# Rank Learning Methods": fixed at 60 in a pilot study, and not critical.
RANK_CONSTANT = 60
# Both rankings are read to at least this depth: two lists of ten would miss a picture that is
# eleventh in both, though its fused score is among the ten best.
MIN_DEPTH = 50
# More than any sum of two reciprocal ranks, and in practice than any score of BM25.
_EXACT_SHARE = {"hybrid": 1.0, "text": 1000.0}


def reciprocal_rank(rank: int | None) -> float:
    """Return 1 / (60 + rank); 0 for None, which is not in the ranking."""
    return 0.0 if rank is None else 1.0 / (RANK_CONSTANT + rank)
