"""Find documents that lack a part which their index stores of every picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.meta_entries import CODE_FIELD
from es_imgsearch.elastic.store import Store
from es_imgsearch.records import MIN_TILE_PIXELS, REGIONS_FIELD, Grid

_HAS_VECTOR = {"exists": {"field": VECTOR_FIELD}}


def incomplete_documents(store: Store, meta: Meta, root_name: str) -> Iterator[tuple[str, str]]:
    """Yield what is missing, and the stored path, of a root's incomplete documents.

    A document without a vector is listed once: it has no regions and no code either.
    """
    queries = [("without vector", {"bool": {"must_not": [_HAS_VECTOR]}})]
    if meta.grid is not None:
        queries.append(("without regions", _without_regions(meta.grid)))
    if meta.codes is not None:
        queries.append(("without code", _without({"exists": {"field": CODE_FIELD}})))
    for what, query in queries:
        for path in store.listings.matching(root_name, query):
            yield what, path


def _without_regions(grid: Grid) -> dict[str, Any]:
    """Match pictures that are large enough for tiles, see `Grid.boxes`, and have none."""
    has_regions = {"nested": {"path": REGIONS_FIELD, "query": {"match_all": {}}}}
    large = [
        {"range": {"width": {"gte": grid.columns * MIN_TILE_PIXELS}}},
        {"range": {"height": {"gte": grid.rows * MIN_TILE_PIXELS}}},
    ]
    return _without(has_regions, *large)


def _without(part: dict[str, Any], *filters: dict[str, Any]) -> dict[str, Any]:
    return {"bool": {"filter": [_HAS_VECTOR, *filters], "must_not": [part]}}
