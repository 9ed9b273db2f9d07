"""Log searches and their results in `<index>-searches`, if `log_searches` is on.

One document a search.  It holds the words of a query; of pictures and vectors only the kind.  It
is written after the hits are there, with one more request.  If that fails, the search succeeds
all the same, and one warning is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import orjson

from es_imgsearch.elastic.error_mapping import item_error
from es_imgsearch.elastic.mapping import Companion
from es_imgsearch.elastic.requests import NDJSON, Request
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import IndexMissing, StoreDenied, StoreError
from es_imgsearch.records import iso_timestamp
from es_imgsearch.search.hits import Hits
from es_imgsearch.search.query import Term, query_kind
from es_imgsearch.search.request_flow import RequestFlow
from es_imgsearch.search.results import SearchContext

logger = logging.getLogger(__name__)

_MAX_CHARACTERS = 2000


def create_searches_index(store: Store) -> None:
    """Create the index for the log, unless it exists."""
    store.companions.create(Companion.SEARCHES)


class SearchLog:
    """Logs the searches of one client."""

    def __init__(self, index: str, host: str) -> None:
        self._index = index
        self._alias = Companion.SEARCHES.alias(index)
        self._host = host
        self._has_warned = False

    def write(
        self, context: SearchContext, hits: Hits, duration_ms: float, k: int
    ) -> RequestFlow[None]:
        """Index the document of one search for k hits; log a warning if that fails."""
        # A bulk takes less of a key than a request of one document: the name of the only privilege
        # for such requests, create_doc, lets a key change the mapping, too (Elasticsearch 8).
        path = f"/{self._alias}/_bulk?require_alias=true"
        body = orjson.dumps(search_document(context, hits, duration_ms, self._host, k))
        try:
            answer = yield Request("POST", path, b'{"create":{}}\n' + body + b"\n", NDJSON)
            if answer["errors"]:
                raise item_error(answer["items"][0]["create"])
        except IndexMissing:
            self._warn(
                f"Searches cannot be logged: there is no index {self._alias!r}. Run"
                f" `es-imgsearch init --index {self._index}` with log_searches on, which creates"
                " it."
            )
        except StoreDenied as error:
            self._warn(
                f"Searches cannot be logged in {self._alias!r}: {error} Grant the"
                " privilege create_doc on it, or set log_searches = false."
            )
        except StoreError as error:
            self._warn(f"Searches cannot be logged: {error}")

    def _warn(self, message: str) -> None:
        if not self._has_warned:
            logger.warning(message)
            self._has_warned = True


def search_document(
    context: SearchContext, hits: Hits, duration_ms: float, host: str, k: int
) -> dict[str, Any]:
    """Build the document of one search, see mappings/searches.json."""
    plan = context.plan
    candidates, oversample = context.info.meta.tuning.for_k(plan.k)
    words = " ".join(each.query for each in context.terms if isinstance(each.query, str))
    document: dict[str, Any] = {
        "searched_at": iso_timestamp(timespec="milliseconds"),
        "kind": _search_kind(context.terms),
        "mode": plan.mode,
        "k": int(k),
        "hits": min(len(hits), int(k)),
        "exact": plan.exact,
        "duration_ms": round(duration_ms, 3),
        "took_ms": hits.took_ms,
        "host": host,
    }
    if words:
        document["text"] = words[:_MAX_CHARACTERS]
    if filtered := {*(plan.filters or ()), *(plan.without or ())}:
        document["filters"] = sorted(filtered)
    if plan.min_relevance is not None:
        document["min_relevance"] = plan.min_relevance
    # A search by binary codes does not use the index's tuned number of candidates.
    if plan.mode != "text" and not plan.exact and not plan.codes:
        document["num_candidates"] = plan.num_candidates or candidates
        if oversample is not None:
            document["oversample"] = oversample
    if hits:
        document["best_score"] = hits[0].score
        if hits[0].relevance is not None:
            document["best_relevance"] = hits[0].relevance
    return document


def _search_kind(terms: Sequence[Term]) -> str:
    kinds = {query_kind(each.query) for each in terms}
    return kinds.pop() if len(kinds) == 1 else "mixed"
