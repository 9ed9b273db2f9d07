"""From what Elasticsearch answered to hits: pages, fused rankings, explanations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.elastic.queries import parse_vector, score_to_cosine
from es_imgsearch.elastic.region_queries import matched_box
from es_imgsearch.errors import UsageError
from es_imgsearch.records import disk_path
from es_imgsearch.search.hits import Hit, Hits, Made
from es_imgsearch.search.options import Plan
from es_imgsearch.search.query import (
    Query,
    QueryPicture,
    StoredPicture,
    Term,
    Vector,
    is_vector,
    picture_of,
)
from es_imgsearch.search.query_vectors import CONTENT, VectorPart
from es_imgsearch.search.relevance import Rating

_COSINE_DIGITS = 6
# The last of 10,000 reciprocal ranks differ by 1e-8.
_FUSED_DIGITS = 10


class Asked(NamedTuple):
    """A search, as far as its hits depend on it.

    `parts` are the vectors compared, each with its share of the score; `of_terms` is the
    content's vector of every term, `rating` turns the content's cosines into relevance.  `code`
    is that of the content's vector, where candidates are found by codes.
    """

    plan: Plan
    info: IndexInfo
    host: str
    terms: Sequence[Term]
    notes: Sequence[str] = ()
    parts: Sequence[tuple[VectorPart, float, Vector]] = ()
    of_terms: Sequence[Vector] = ()
    rating: Rating | None = None
    code: str | None = None


class Ranks(NamedTuple):
    """Where a fused hit stood in each ranking, from 1, and with what `_score` there."""

    fused: float
    vector: int | None
    text: int | None
    vector_score: float | None
    text_score: float | None


class Found(NamedTuple):
    """Hits as the server sent them, best first: all of them, or the page that was asked for."""

    hits: Sequence[Mapping[str, Any]]
    took_ms: int
    ranks: Sequence[Ranks] | None = None
    is_page: bool = False


def fused(
    by_vector: Sequence[Mapping[str, Any]],
    by_text: Sequence[Mapping[str, Any]],
    plan: Plan,
    took_ms: int,
) -> Found:
    """The first k of both rankings by the sum of their reciprocal ranks.

    Collapsed, files of the same content are one, though each ranking may know another of them.
    """

    def keys(hits: Sequence[Mapping[str, Any]]) -> list[str]:
        if not plan.collapse:
            return [str(hit["_id"]) for hit in hits]
        return [str(hit["_source"].get("content_id", hit["_id"])) for hit in hits]

    vector_keys, text_keys = keys(by_vector), keys(by_text)
    scores = reciprocal_ranks([vector_keys, text_keys])
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
    return Found([hits[key] for key in best], took_ms, ranks)


def hits_of(found: Found, asked: Asked) -> Hits:
    """The hits of the page, each made when it is looked at, and the facets of all."""
    plan = asked.plan
    if plan.min_relevance is not None:
        found = found._replace(hits=_relevant(found.hits, plan.min_relevance, asked))
    counted = {}
    if plan.facets:
        counted = count_facets([each["_source"] for each in found.hits], plan.facets)
    hits, ranks = found.hits, found.ranks
    if not found.is_page:
        hits = hits[plan.page]
        ranks = None if ranks is None else ranks[plan.page]
    return Hits(
        Made(len(hits), lambda n: _hit(hits[n], None if ranks is None else ranks[n], asked)),
        found.took_ms,
        [shown for each in asked.terms if (shown := _shown(each)) is not None],
        notes=asked.notes,
        facets=counted,
    )


def _relevant(
    hits: Sequence[Mapping[str, Any]], at_least: float, asked: Asked
) -> list[Mapping[str, Any]]:
    similarity, rating = asked.info.meta.similarity, asked.rating
    if rating is None:
        return []
    return [
        hit for hit in hits if rating.of(score_to_cosine(hit["_score"], similarity)) >= at_least
    ]


def _shown(term: Term) -> str | QueryPicture | None:
    if term.weight < 0:
        return None
    return term.query if isinstance(term.query, str) else picture_of(term.query)


def _hit(raw: Mapping[str, Any], ranks: Ranks | None, asked: Asked) -> Hit:
    plan, meta = asked.plan, asked.info.meta
    source = raw.get("_source", {})
    root, relative_path = source.get("root", ""), source.get("relative_path", "")
    # The score of weighted parts is a script's, and the same for every similarity.
    similarity = meta.similarity if plan.weights is None else "cosine"
    vector_score = ranks.vector_score if ranks else None
    if plan.mode == "vector":
        vector_score = raw["_score"]
    mean = None if vector_score is None else score_to_cosine(vector_score, similarity)
    if ranks is not None:
        score = round(ranks.fused, _FUSED_DIGITS)
    else:
        score = round(raw["_score"] if mean is None else mean, _COSINE_DIGITS)
    cosines = _cosines(raw, asked) if plan.explain else {}
    # The cosine of a reduced picture's bytes is not that of its original.
    is_known = mean is not None and plan.weights is None
    cosine = mean if is_known else cosines.get(CONTENT.name)
    rating = asked.rating
    return Hit(
        image_id=raw["_id"],
        root=root,
        relative_path=relative_path,
        score=score,
        relevance=None if rating is None or cosine is None else rating.of(cosine),
        fields=source,
        path=_original(root, relative_path, asked),
        cosine=None if cosine is None else round(cosine, _COSINE_DIGITS),
        explanation=_explanation(raw, ranks, cosines, asked) if plan.explain else None,
        matched_box=matched_box(raw),
    )


def _original(root: str, relative_path: str, asked: Asked) -> Path | None:
    entry = asked.info.meta.roots.get(root)
    if entry is None or entry["host"] != asked.host:
        return None
    return Path(disk_path(entry["path"])) / disk_path(relative_path)


def _cosines(raw: Mapping[str, Any], asked: Asked) -> dict[str, float]:
    """The cosine of every part that is stored; that of a part which is not counts as 0."""
    stored = raw.get("fields", {})
    return {
        part.name: _cosine(vector, parse_vector(stored[part.field]))
        if part.field in stored
        else 0.0
        for part, _, vector in asked.parts
    }


def _explanation(
    raw: Mapping[str, Any], ranks: Ranks | None, cosines: Mapping[str, float], asked: Asked
) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if cosines:
        told["parts"] = {
            part.name: {
                "weight": round(weight, _COSINE_DIGITS),
                "cosine": round(cosines[part.name], _COSINE_DIGITS),
                "share": round(weight * cosines[part.name], _COSINE_DIGITS),
            }
            for part, weight, _ in asked.parts
        }
    content = raw.get("fields", {}).get(CONTENT.field)
    if content is not None and len(asked.of_terms):
        told["queries"] = [
            {
                "query": _label(term.query),
                "weight": term.weight,
                "cosine": round(_cosine(vector, parse_vector(content)), _COSINE_DIGITS),
            }
            for term, vector in zip(asked.terms, asked.of_terms, strict=True)
        ]
    if asked.plan.mode == "text":
        told["bm25"] = raw["_score"]
    if ranks is not None:
        places = {"vector": ranks.vector, "text": ranks.text}
        told["ranks"] = places
        told["shares"] = {name: share_of(rank) for name, rank in places.items()}
        told["bm25"] = ranks.text_score
    return told


def _label(query: Query) -> str:
    if isinstance(query, str):
        return query
    if isinstance(query, StoredPicture):
        return f"stored picture {query.image_id}"
    return "vector" if is_vector(query) else "picture"


def _cosine(one: Vector, other: Vector) -> float:
    length = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    return float(one @ other) / length if length else 0.0


# Several rankings become one; what is found is counted.

Key = TypeVar("Key", bound=Hashable)

# Cormack, Clarke and Büttcher 2009, "Reciprocal Rank Fusion outperforms Condorcet and individual
# Rank Learning Methods": fixed at 60 in a pilot study, and not critical.
RANK_CONSTANT = 60

# Lists shorter than this leave the end of a small k to chance: of ten hits from two lists of ten,
# those far down in both are never seen in either.
LEAST_DEPTH = 50

# Facets that are no field of their own.
_YEAR = "year"
_COUNTED = {"keyword", "boolean", "integer", "short", "byte", "long"}


def reciprocal_ranks(rankings: Sequence[Sequence[Key]]) -> dict[Key, float]:
    """Every key of any ranking with the sum of 1 / (60 + rank), ranks from 1; best first.

    Keys of equal score stay in the order in which they first occur, list after list.
    """
    scores: dict[Key, float] = {}
    for ranking in rankings:
        for rank, key in enumerate(ranking, start=1):
            scores[key] = scores.get(key, 0.0) + share_of(rank)
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


def share_of(rank: int | None) -> float:
    """What a rank, from 1, adds to the fused score; None is in no list."""
    return 0.0 if rank is None else 1.0 / (RANK_CONSTANT + rank)


def check_facets(names: Sequence[str], properties: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises UsageError for a facet that cannot be counted in an index of these fields."""
    if not names:
        return
    countable = {name for name, each in properties.items() if each.get("type") in _COUNTED}
    for name in names:
        if name != _YEAR and name not in countable:
            raise UsageError(
                f"There is no facet {name!r}; there are {', '.join(sorted(countable | {_YEAR}))}."
            )


def facet_fields(names: Iterable[str]) -> set[str]:
    """The stored fields that counting needs."""
    return {
        field
        for name in names
        for field in (("taken_at", "modified_at") if name == _YEAR else (name,))
    }


def count_facets(
    found: Iterable[Mapping[str, Any]], names: Sequence[str]
) -> dict[str, dict[str, int]]:
    """How many of the documents have each value of each facet, the most frequent first.

    `year` is that of the day a picture was taken, or last modified where the camera wrote no
    date, in UTC as the filters `since` and `until` see it.
    """
    counters: dict[str, Counter[str]] = {name: Counter() for name in names}
    for fields in found:
        for name, counter in counters.items():
            value = _year(fields) if name == _YEAR else fields.get(name)
            values = value if isinstance(value, list) else [value]
            counter.update({str(each) for each in values if each is not None})
    return {
        name: dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))
        for name, counter in counters.items()
    }


def _year(fields: Mapping[str, Any]) -> str | None:
    moment = fields.get("taken_at") or fields.get("modified_at")
    if moment is None:
        return None
    try:
        parsed = datetime.fromisoformat(moment)
    except ValueError:
        return str(moment)[:4]
    # Without an offset it is UTC to Elasticsearch.
    aware = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return f"{aware.astimezone(UTC).year:04}"
