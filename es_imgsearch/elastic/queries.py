"""Bodies of searches, and the conversion of scores and vectors in their answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.meta_entries import Tuning
from es_imgsearch.errors import UsageError

# The server's limit, for k too.
MAX_NUM_CANDIDATES = 10_000


class PartQuery(NamedTuple):
    """Query of one vector field: a unit vector, and its weight in the score."""

    field: str
    vector: Sequence[float] | npt.NDArray[np.float32]
    weight: float


# `tune` measures searches of one field.  The best of a weighted mean may rank low in each part:
# with 50 from each, at least 95 % of the true ten of 300 were found.
_CANDIDATES_PER_PART = 50


def knn_body(
    vector: Sequence[float] | Any,
    k: int,
    tuning: Tuning,
    *,
    num_candidates: int | None = None,
    filters: Sequence[Mapping[str, Any]] = (),
    source: bool | Sequence[str] = True,
) -> dict[str, Any]:
    """Approximate kNN search: the k nearest among `num_candidates` per shard.

    Filters run inside the graph search, so a filtered search still finds k if k exist.
    """
    check_k(k)
    if num_candidates is not None:
        check_whole("num_candidates", num_candidates)
    tuned_candidates, oversample = tuning.for_k(k)
    if num_candidates is None:
        num_candidates = tuned_candidates
    elif num_candidates < k:
        raise UsageError(
            f"num_candidates is {num_candidates} but must be at least k, which is {k}."
        )
    knn: dict[str, Any] = {
        "field": VECTOR_FIELD,
        "query_vector": vector,
        "k": k,
        "num_candidates": min(num_candidates, MAX_NUM_CANDIDATES),
    }
    if oversample is not None:
        # 8.19 compares num_candidates · oversample vectors again, 9.4 k · oversample (50 · 3 and
        # 1 · 3 of 1-bit codes: recall@1 1.00 and .20): like this both compare the same.
        knn["k"] = knn["num_candidates"]
        knn["rescore_vector"] = {"oversample": oversample}
    if filters:
        knn["filter"] = list(filters)
    return {"knn": knn, "size": k, "_source": source_filter(source)}


def exact_body(
    vector: Sequence[float] | Any,
    k: int,
    similarity: str,
    *,
    filters: Sequence[Mapping[str, Any]] = (),
    source: bool | Sequence[str] = True,
) -> dict[str, Any]:
    """Exact kNN search with the full vectors, the ground truth of approximate search.

    Scores are those of approximate search in the same index, so `score_to_cosine` converts both.
    """
    check_k(k)
    has_vector = {"exists": {"field": VECTOR_FIELD}}
    return {
        "query": {
            "script_score": {
                "query": {"bool": {"filter": [has_vector, *filters]}},
                "script": {
                    "source": exact_score(similarity, VECTOR_FIELD),
                    "params": {"query": vector},
                },
            }
        },
        "size": k,
        "_source": source_filter(source),
    }


def exact_score(similarity: str, field: str) -> str:
    """Script that scores a vector field against `params.query` as kNN search does."""
    # Rounding takes 1 + cos below 0 for an opposite vector, which the server refuses as a score.
    scripts = {
        "cosine": f"Math.max(0.0, 1.0 + cosineSimilarity(params.query, '{field}')) / 2.0",
        "dot_product": f"Math.max(0.0, 1.0 + dotProduct(params.query, '{field}')) / 2.0",
        "l2_norm": f"double d = l2norm(params.query, '{field}'); return 1.0 / (1.0 + d * d)",
    }
    return scripts[similarity]


def weighted_body(
    parts: Sequence[PartQuery],
    k: int,
    tuning: Tuning,
    *,
    num_candidates: int | None = None,
    filters: Sequence[Mapping[str, Any]] = (),
    source: bool | Sequence[str] = True,
) -> dict[str, Any]:
    """Weighted kNN search over several vector fields, rescored exactly.

    Each part contributes its `num_candidates` nearest.  Elasticsearch adds up the scores of the
    clauses that found a picture and counts the others as 0, so `rescore` gives every candidate its
    true score: the weighted mean of the cosines, as `score_to_cosine` expects it.  A picture
    without a vector of a part has the cosine 0 there.
    """
    check_k(k)
    one = knn_body([], k, tuning, num_candidates=num_candidates)["knn"]["num_candidates"]
    if num_candidates is None:
        one = max(one, _CANDIDATES_PER_PART)
    clauses = [
        {
            "field": part.field,
            "query_vector": part.vector,
            "k": one,
            "num_candidates": one,
            "boost": part.weight,
            **({"filter": list(filters)} if filters else {}),
        }
        for part in parts
    ]
    return {
        "knn": clauses,
        "rescore": {
            # The most that index.max_rescore_window allows by default.
            "window_size": min(one * len(parts), MAX_NUM_CANDIDATES),
            "query": {
                "query_weight": 0,
                "rescore_query_weight": 1,
                "rescore_query": _weighted_score(parts, {"match_all": {}}),
            },
        },
        "size": k,
        "_source": source_filter(source),
    }


def exact_weighted_body(
    parts: Sequence[PartQuery],
    k: int,
    *,
    filters: Sequence[Mapping[str, Any]] = (),
    source: bool | Sequence[str] = True,
) -> dict[str, Any]:
    """Exact `weighted_body`, over all pictures that have a vector of any part."""
    check_k(k)
    having = [{"exists": {"field": part.field}} for part in parts]
    among = {"bool": {"filter": [{"bool": {"should": having}}, *filters]}}
    return {"query": _weighted_score(parts, among), "size": k, "_source": source_filter(source)}


def _weighted_score(parts: Sequence[PartQuery], among: Mapping[str, Any]) -> dict[str, Any]:
    # Scores must not be negative, and the cosine of opposite vectors is -1 only to rounding.
    terms = [
        f"params.weights[{n}] * (doc['{part.field}'].size() == 0 ? 0.5"
        f" : Math.max(0.0, 1.0 + cosineSimilarity(params.query{n}, '{part.field}')) / 2.0)"
        for n, part in enumerate(parts)
    ]
    vectors = {f"query{n}": part.vector for n, part in enumerate(parts)}
    return {
        "script_score": {
            "query": among,
            "script": {
                "source": " + ".join(terms),
                "params": {"weights": [part.weight for part in parts], **vectors},
            },
        }
    }


def stored_vectors_body(image_ids: Sequence[str], fields: Sequence[str]) -> dict[str, Any]:
    """Search that returns stored vectors, bit for bit; read it with `vectors_by_id`."""
    return {
        "query": {"ids": {"values": list(image_ids)}},
        "size": len(image_ids),
        "_source": False,
        "docvalue_fields": list(fields),
    }


def with_page(body: Mapping[str, Any], offset: int, size: int) -> dict[str, Any]:
    """Restrict a search to `size` hits from `offset` (0 is the best)."""
    return {**body, "from": offset, "size": size}


def to_json(body: Mapping[str, Any]) -> bytes:
    """Encode a body as JSON; vectors straight from NumPy, 12 bytes per dim."""
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def to_msearch(bodies: Iterable[Mapping[str, Any]]) -> bytes:
    """Encode several searches for one `_msearch`."""
    return msearch_lines(map(to_json, bodies))


def msearch_lines(bodies: Iterable[bytes]) -> bytes:
    """Put encoded searches together for one `_msearch`."""
    # Documents on a shard that does not answer would silently be missing.
    head = b'{"allow_partial_search_results":false}\n'
    return b"".join(head + body + b"\n" for body in bodies)


def parse_vector(value: Any) -> npt.NDArray[np.float32]:
    """Convert a vector of `docvalue_fields` to float32.

    The vector may be in a list of one.
    """
    if len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    return np.asarray(value, dtype=np.float32)


def score_to_cosine(score: float, similarity: str) -> float:
    """Convert the `_score` of unit vectors to a cosine.

    Elasticsearch scores (1 + cos) / 2 for cosine and dot_product and 1 / (1 + d²) for
    l2_norm; for unit vectors d² = 2 - 2 cos (reference of the dense_vector field type).
    """
    if similarity == "l2_norm":
        return 1.0 - (1.0 / score - 1.0) / 2.0
    return 2.0 * score - 1.0


def cosine_to_similarity(cosine: float, similarity: str) -> float:
    """Convert a cosine to a kNN query's least similarity, its `similarity`.

    It is the cosine itself, or for l2_norm the greatest distance (reference of the kNN query).
    """
    return math.sqrt(max(0.0, 2.0 - 2.0 * cosine)) if similarity == "l2_norm" else cosine


def check_k(k: int) -> None:
    """Raise UsageError unless k is a whole number that the server accepts."""
    check_whole("k", k)
    if not 1 <= k <= MAX_NUM_CANDIDATES:
        raise UsageError(f"k must be between 1 and {MAX_NUM_CANDIDATES}, not {k}.")


def check_whole(name: str, value: Any) -> None:
    """Raise UsageError unless the value is a whole number."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise UsageError(f"{name} must be a whole number, not a {type(value).__name__}.")


def source_filter(source: bool | Sequence[str]) -> bool | list[str]:
    """Value of `_source`: all, none or these fields."""
    return source if isinstance(source, bool) else list(source)
