"""Give documents of earlier schemas the camera's own date and time, `taken_local`.

An update by query would lose the vectors (see `elastic.rewrites`), so documents are rewritten.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from es_imgsearch.describe.dates import TAKEN_MAPPING, local_of
from es_imgsearch.elastic.store import Store

logger = logging.getLogger(__name__)

_PAGE = 1000
_READ: Final = ("image_id", "taken_at")
_REPORT_EVERY = 20_000  # documents

# Other years, which Elasticsearch takes, have no `taken_local`.
_YEARS: Final = {"gte": "0001-01-02", "lt": "9999-12-31"}
_MISSING: Final = (
    {"range": {"taken_at": _YEARS}},
    {"bool": {"must_not": [{"exists": {"field": "taken_local"}}]}},
)


def map_taken(store: Store) -> None:
    """Map the fields of dates that an earlier schema lacks."""
    present = store.generations.sealed().properties
    store.generations.map_fields(
        {name: mapping for name, mapping in TAKEN_MAPPING.items() if name not in present}
    )


def fill_taken_local(store: Store) -> int:
    """Add `taken_local` where there is only `taken_at`; return how many were written.

    Documents that cannot be written stay as they are: filters find them by `taken_at`.  Raises
    errors of requests.
    """
    missing = store.listings.count_matching({"bool": {"filter": list(_MISSING)}})
    if not missing:
        return 0
    logger.info("Giving %d pictures of index %r their local date.", missing, store.index)
    written = refused = 0
    for hits in store.listings.pages(_MISSING, fields=_READ, vectors=(), size=_PAGE):
        found = [hit["_source"] for hit in hits]
        ids = [each["image_id"] for each in found if local_of(each.get("taken_at"))]
        outcome = store.rewrites.rewrite(ids, _filled)
        before, written = written, written + len(outcome.written)
        refused += len(outcome.refused)
        if written // _REPORT_EVERY > before // _REPORT_EVERY:
            logger.info("%d of %d pictures have it.", written, missing)
    if refused:
        logger.warning(
            "%d pictures of index %r could not be given their local date: `es-imgsearch describe"
            " exif --index %s` does it.", refused, store.index, store.index,
        )  # fmt: skip
    return written


def _filled(document: dict[str, Any]) -> Mapping[str, Any] | None:
    local = local_of(document.get("taken_at"))
    return None if local is None or "taken_local" in document else document | {"taken_local": local}
