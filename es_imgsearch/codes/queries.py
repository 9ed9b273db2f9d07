"""Bodies for searches by binary codes; pure functions, as in `elastic.queries`.

Coarse to fine (Lin et al. 2015, CVPR Workshops): the codes nearest by Hamming distance are
candidates, sorted by their full vectors in the same request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.meta_entries import CODE_FIELD
from es_imgsearch.elastic.queries import MAX_NUM_CANDIDATES, check_k, exact_score, source_filter

# 128 random hyperplanes find .86 of the true ten of 50,000 with 5 a hit, .97 with 20.
CANDIDATES_PER_HIT = 20


def code_body(
    code: str,
    vector: Any,
    k: int,
    similarity: str,
    *,
    num_candidates: int | None = None,
    filters: Sequence[Mapping[str, Any]] = (),
    source: bool | Sequence[str] = True,
) -> dict[str, Any]:
    """Find the k best by full vectors of the `num_candidates` nearest codes.

    The default of `num_candidates` is 20 k.  `code` is in hexadecimal digits, `vector` of unit
    length.  Scores are those of every other search by vectors (`elastic.queries.exact_score`), so
    `score_to_cosine` reads them.
    """
    check_k(k)
    requested = CANDIDATES_PER_HIT * k if num_candidates is None else num_candidates
    depth = min(max(k, requested), MAX_NUM_CANDIDATES)
    knn = {
        "field": CODE_FIELD,
        "query_vector": code,
        "k": depth,
        "num_candidates": depth,
        **({"filter": list(filters)} if filters else {}),
    }
    fine = {
        "query": {"match_all": {}},
        "script": {"source": exact_score(similarity, VECTOR_FIELD), "params": {"query": vector}},
    }
    return {
        "knn": knn,
        "rescore": {
            "window_size": depth,
            "query": {
                "query_weight": 0,
                "rescore_query_weight": 1,
                "rescore_query": {"script_score": fine},
            },
        },
        "size": k,
        "_source": source_filter(source),
    }
