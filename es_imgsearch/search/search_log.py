"""`<index>-searches`: what was searched for and how it went, where `log_searches` is on.

One document a search: its words, but of pictures and vectors only that there were some.  Written
after the hits are known, one request more; what cannot be noted is told once in the log and costs
no search.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import orjson

from es_imgsearch.elastic.mapping import Companion
from es_imgsearch.elastic.requests import JSON, Request
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import IndexMissing, StoreDenied, StoreError
from es_imgsearch.records import iso_timestamp
from es_imgsearch.search.hits import Hits
from es_imgsearch.search.query import StoredPicture, Term, is_vector
from es_imgsearch.search.request_flow import RequestFlow
from es_imgsearch.search.results import Asked

logger = logging.getLogger(__name__)

_MOST_CHARACTERS = 2000


def make_searches(store: Store) -> None:
    """The index for the log; one that is there stays as it is."""
    store.companions.create(Companion.SEARCHES)


class SearchLog:
    """Notes the searches of one client."""

    def __init__(self, index: str, host: str) -> None:
        self._index = index
        self._host = host
        self._has_warned = False

    def note(self, asked: Asked, hits: Hits, duration_ms: float) -> RequestFlow[None]:
        """Write one search down."""
        path = f"/{Companion.SEARCHES.alias(self._index)}/_doc?require_alias=true"
        body = orjson.dumps(search_document(asked, hits, duration_ms, self._host))
        try:
            yield Request("POST", path, body, JSON)
        except IndexMissing:
            self._warn(
                f"There is no {Companion.SEARCHES.alias(self._index)!r} to note searches in: run"
                " `es-imgsearch init` with log_searches on, which makes it."
            )
        except StoreDenied as error:
            self._warn(
                f"Searches cannot be noted in {Companion.SEARCHES.alias(self._index)!r}: {error} It"
                " takes the right create_doc there; or set log_searches = false."
            )
        except StoreError as error:
            self._warn(f"Searches cannot be noted: {error}")

    def _warn(self, message: str) -> None:
        if not self._has_warned:
            logger.warning(message)
            self._has_warned = True


def search_document(asked: Asked, hits: Hits, duration_ms: float, host: str) -> dict[str, Any]:
    """What is kept of one search, see mappings/searches.json; `duration_ms` is the client's."""
    plan = asked.plan
    candidates, oversample = asked.info.meta.tuning.for_k(plan.k)
    words = " ".join(each.query for each in asked.terms if isinstance(each.query, str))
    document: dict[str, Any] = {
        "searched_at": iso_timestamp(timespec="milliseconds"),
        "kind": _kind(asked.terms),
        "mode": plan.mode,
        "k": plan.k,
        "hits": len(hits),
        "exact": plan.exact,
        "duration_ms": round(duration_ms, 3),
        "took_ms": hits.took_ms,
        "host": host,
    }
    if words:
        document["text"] = words[:_MOST_CHARACTERS]
    if plan.filters:
        document["filters"] = sorted(plan.filters)
    if plan.min_relevance is not None:
        document["min_relevance"] = plan.min_relevance
    # Binary codes have candidates of their own, to which the index was not tuned.
    if plan.mode != "text" and not plan.exact and not plan.codes:
        document["num_candidates"] = plan.num_candidates or candidates
        if oversample is not None:
            document["oversample"] = oversample
    if hits:
        document["best_score"] = hits[0].score
        if hits[0].relevance is not None:
            document["best_relevance"] = hits[0].relevance
    return document


def _kind(terms: Sequence[Term]) -> str:
    kinds = {_kind_of(each.query) for each in terms}
    return kinds.pop() if len(kinds) == 1 else "mixed"


def _kind_of(query: Any) -> str:
    if isinstance(query, str):
        return "text"
    if isinstance(query, StoredPicture):
        return "stored"
    return "vector" if is_vector(query) else "picture"
