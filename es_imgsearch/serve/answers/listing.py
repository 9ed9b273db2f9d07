"""List pictures without a query, by date, size or folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from es_imgsearch.search.client import ImageSearch
from es_imgsearch.search.filters import filter_clauses, meant_clauses, parse_filters
from es_imgsearch.search.hits import Hit, Hits
from es_imgsearch.search.request_flow import run_flow
from es_imgsearch.serve.search_request import SearchRequest
from es_imgsearch.settings import Settings

# Elasticsearch skips no more hits than this together with those it returns.
MOST_LISTED: Final = 10_000


# As the dates that are shown: when it was taken, or else when its file changed.
_DATE_SCRIPT: Final = """
for (name in ['taken_local', 'taken_at', 'modified_at']) {
  if (doc.containsKey(name) && doc[name].size() > 0) {
    return doc[name].value.toInstant().toEpochMilli();
  }
}
return 0;
"""


def _by_date(order: str) -> list[dict[str, Any]]:
    return [{"_script": {"type": "number", "order": order, "script": {"source": _DATE_SCRIPT}}}]


_ORDERS: Final[Mapping[str, list[dict[str, Any]]]] = {
    "relevance": [{"indexed_at": {"order": "desc", "missing": "_last", "unmapped_type": "date"}}],
    "newest": _by_date("desc"),
    "oldest": _by_date("asc"),
    "largest": [{"size_bytes": {"order": "desc", "missing": "_last"}}],
    "folder": [],
}


def list_pictures(
    client: ImageSearch,
    settings: Settings,
    request: SearchRequest,
    offset: int,
    fields: Sequence[str],
) -> Hits:
    """Return `request.k` pictures that meet the filters; scores are 0.

    Those that were indexed last come first unless the request names another order; `largest` is by
    the size of the file.
    """
    info = client.info
    clauses, notes = clauses_of(client, settings, request)
    body = {
        "query": {"bool": {"filter": clauses}},
        "_source": list(fields),
        "from": offset,
        "size": max(0, min(request.k, MOST_LISTED - offset)),
        "sort": [*_ORDERS[request.sort], "root", "relative_path"],
    }
    hits = []
    for raw in client.store.searches.hits(body):
        source = raw["_source"]
        root, path = source.get("root", ""), source.get("relative_path", "")
        on_disk = info.meta.path_on(settings.host, root, path)
        hits.append(Hit(raw["_id"], root, path, 0.0, None, source, on_disk))
    return Hits(hits, 0, notes=notes)


def clauses_of(
    client: ImageSearch, settings: Settings, request: SearchRequest
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return clauses of filters and dates, and notes on unknown values."""
    properties = client.info.properties
    given = parse_filters(request.filter, in_address=True)
    flow = meant_clauses(settings.index, given, properties)
    clauses, notes = run_flow(flow, client.store.send)
    dates = filter_clauses(None, properties, since=request.since, until=request.until)
    return [*clauses, *dates], notes
