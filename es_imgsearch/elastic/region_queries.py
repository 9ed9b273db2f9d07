"""Searches among the regions of pictures: bodies, and two rankings joined into one.

A search by the whole pictures and one by their regions go side by side.  Elasticsearch adds up the
scores of several kNN clauses; here each picture counts by the better of both, so the rankings are
joined by `best_of`.  A picture among the best k of the joined ranking is among the best k of the
ranking that its better score is from, so k of each are enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from es_imgsearch.elastic.meta_entries import Tuning
from es_imgsearch.elastic.queries import exact_score, knn_body, source_filter
from es_imgsearch.records import MAX_REGIONS, REGION_VECTOR, REGIONS_FIELD, Box

# Under this key a joined hit carries the box that matched better than the whole picture.
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
    """The k pictures with the nearest region, each once, with that region's box.

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
    """`region_knn_body` with every region compared."""
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
    """Makes every hit carry its regions, `regions_of` reads them; leaves no hit out."""
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
    """The regions that a hit came with, in the order of the document."""
    inner = hit.get("inner_hits", {}).get(REGIONS_FIELD, {}).get("hits", {}).get("hits", ())
    return sorted(inner, key=lambda each: int(each["_nested"]["offset"]))


def box_of(region: Mapping[str, Any]) -> Box:
    """The box of one of `region_hits`."""
    x, y, width, height = region["_source"]["box"]
    return x, y, width, height


def best_of(
    whole: Sequence[Mapping[str, Any]], by_region: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Every picture of both rankings once, by its better score, the best first.

    Where both are equal the whole picture counts.
    """
    best: dict[str, Mapping[str, Any]] = {hit["_id"]: hit for hit in whole}
    for hit in by_region:
        rival = best.get(hit["_id"])
        if rival is None or hit["_score"] > rival["_score"]:
            (region,) = region_hits(hit)
            best[hit["_id"]] = {**hit, _MATCHED: box_of(region)}
    return sorted(best.values(), key=lambda hit: -hit["_score"])


def matched_box(hit: Mapping[str, Any]) -> Box | None:
    """The box by which a hit of `best_of` was found; None where it was the whole picture."""
    box: Box | None = hit.get(_MATCHED)
    return box
