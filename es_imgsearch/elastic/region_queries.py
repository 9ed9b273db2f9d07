"""Searches among the regions of pictures: bodies, and the merge of two rankings.

A search among whole pictures and one among their regions are sent together.  Elasticsearch would
add up the scores of several kNN clauses; here a picture counts by the better of both, so
`merge_rankings` merges them.  A picture among the best k of the merged ranking is among the best k
of the ranking with its better score, so k of each are enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from es_imgsearch.elastic.meta_entries import Tuning
from es_imgsearch.elastic.queries import exact_score, knn_body, source_filter
from es_imgsearch.records import MAX_REGIONS, REGION_VECTOR, REGIONS_FIELD, Box

# Key of a merged hit for the box that matched better than the whole picture.
_MATCHED = "matched"


def region_knn_body(
    vector: Sequence[float] | Any,
    k: int,
    tuning: Tuning,
    *,
    num_candidates: int | None = None,
    filters: Sequence[Mapping[str, Any]] = (),
    source: bool | Sequence[str] = True,
) -> dict[str, Any]:
    """Approximate search: the k pictures with the nearest region, with its box.

    Elasticsearch's kNN over a nested field counts and filters pictures, not regions (reference of
    the kNN search, "Search nested documents").
    """
    body = knn_body(
        vector, k, tuning, num_candidates=num_candidates, filters=filters, source=source
    )
    body["knn"] |= {"field": REGION_VECTOR, "inner_hits": _nearest_box()}
    return body


def exact_region_body(
    vector: Sequence[float] | Any,
    k: int,
    similarity: str,
    *,
    filters: Sequence[Mapping[str, Any]] = (),
    source: bool | Sequence[str] = True,
) -> dict[str, Any]:
    """Exact search: the k pictures with the nearest region, with its box."""
    script = {"source": exact_score(similarity, REGION_VECTOR), "params": {"query": vector}}
    nearest = {
        "nested": {
            "path": REGIONS_FIELD,
            "score_mode": "max",
            "query": {
                "script_score": {"query": {"exists": {"field": REGION_VECTOR}}, "script": script}
            },
            "inner_hits": _nearest_box(),
        }
    }
    return {
        "query": {"bool": {"must": [nearest], "filter": list(filters)}},
        "size": k,
        "_source": source_filter(source),
    }


def _nearest_box() -> dict[str, Any]:
    return {"size": 1, "_source": [f"{REGIONS_FIELD}.box"]}


def stored_regions_clause() -> dict[str, Any]:
    """Clause that adds the regions to every hit, for `region_hits`; excludes no hit."""
    return {
        "nested": {
            "path": REGIONS_FIELD,
            "query": {"match_all": {}},
            "inner_hits": {
                "size": MAX_REGIONS,
                "_source": [f"{REGIONS_FIELD}.box"],
                "docvalue_fields": [REGION_VECTOR],
            },
        }
    }


def region_hits(hit: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """List the regions of a hit, in the order of the document."""
    inner = hit.get("inner_hits", {}).get(REGIONS_FIELD, {}).get("hits", {}).get("hits", ())
    return sorted(inner, key=lambda each: int(each["_nested"]["offset"]))


def parse_box(region: Mapping[str, Any]) -> Box:
    """Parse the box of one of `region_hits`."""
    x, y, width, height = region["_source"]["box"]
    return x, y, width, height


def merge_rankings(
    whole: Sequence[Mapping[str, Any]], by_region: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Merge two rankings: every picture once, by its better score, best first.

    With equal scores the whole picture counts.
    """
    best: dict[str, Mapping[str, Any]] = {hit["_id"]: hit for hit in whole}
    for hit in by_region:
        other = best.get(hit["_id"])
        if other is None or hit["_score"] > other["_score"]:
            (region,) = region_hits(hit)
            best[hit["_id"]] = {**hit, _MATCHED: parse_box(region)}
    return sorted(best.values(), key=lambda hit: -hit["_score"])


def matched_box(hit: Mapping[str, Any]) -> Box | None:
    """Box that a hit of `merge_rankings` matched by; None for the whole picture."""
    box: Box | None = hit.get(_MATCHED)
    return box
