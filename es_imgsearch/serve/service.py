"""What the HTTP routes do: one set of functions for the API and the page."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any, Final

from es_imgsearch.errors import ImgSearchError
from es_imgsearch.manage.failures import listed_failures
from es_imgsearch.manage.status import index_status
from es_imgsearch.search.client import ImageSearch
from es_imgsearch.search.filters import filter_clauses
from es_imgsearch.search.hits import Hit, Hits
from es_imgsearch.search.query import Query
from es_imgsearch.search.results import check_facets
from es_imgsearch.serve.query_pictures import QueryFile, QueryPictures
from es_imgsearch.serve.search_request import (
    MOST_HITS,
    SearchRequest,
    parse_field_filters,
    read_cursor,
    write_cursor,
)
from es_imgsearch.settings import Settings

# Of each field, the most frequent values.
_MOST_VALUES: Final = 100
_LIKELY: Final = 0.5

logger = logging.getLogger(__name__)


class SearchService:
    """Search an index, look up its pictures and report its state.  Thread-safe."""

    def __init__(self, settings: Settings, client: ImageSearch | None = None) -> None:
        self._settings = settings
        self._client = client or ImageSearch(settings=settings)
        self._pictures = QueryPictures(settings)
        self._is_warm = threading.Event()

    def warm_up(self) -> None:
        """Load the model, so that the first search need not wait for it."""
        try:
            # Also what an encoder loads for its first text.
            self._client.embed("a picture")
        except ImgSearchError as error:
            # Of an encoder without texts, or without an index: searches say so themselves.
            logger.warning("The encoder could not be loaded yet: %s", error)
        self._is_warm.set()

    def close(self) -> None:
        """Close connections and the reading process."""
        self._pictures.close()
        self._client.close()

    def is_ready(self) -> bool:
        """Whether the model is loaded.  Raises StoreUnreachable if Elasticsearch is away."""
        self._client.store.info()
        return self._is_warm.is_set()

    def search(self, request: SearchRequest, picture: bytes | None = None) -> dict[str, Any]:
        """Search; return what `search --json` prints, with `next` and `image`."""
        key = request.image if picture is None else self._pictures.put(picture)
        shown = self._pictures.get(key) if key else None
        positive, negative = request.queries(shown)
        generation = self._client.info.name
        request = request.model_copy(update={"image": key})
        offset = read_cursor(request, generation)
        hits = self._find(request, positive, negative, shown, offset)
        end = offset + len(hits)
        goes_on = len(hits) == request.k and end < MOST_HITS
        return {
            **hits.to_dict(),
            "next": write_cursor(request, end, generation) if goes_on else None,
            "image": key or None,
        }

    def _find(
        self,
        request: SearchRequest,
        positive: Sequence[Query],
        negative: Sequence[Query],
        shown: QueryFile | None,
        offset: int,
    ) -> Hits:
        """Return hits from an offset on: of all, or of the relevant ones in another order."""
        box = None
        if request.box is not None and shown is not None:
            box = shown.scaled(request.box)
        options = request.options()
        if request.sort == "relevance":
            options |= {"offset": offset, "size": request.k}
            k = min(offset + request.k, MOST_HITS)
            return self._client.search(positive, negative, k, box=box, **options)
        found = self._client.search(positive, negative, MOST_HITS, box=box, **options)
        return _in_order(found, request.sort, offset, request.k)

    def encode(self, queries: Sequence[str | bytes]) -> dict[str, Any]:
        """Return unit vectors of texts or pictures."""
        vectors = []
        for each in queries:
            query: Query = each
            if isinstance(each, bytes):
                query = self._pictures.get(self._pictures.put(each)).picture
            vectors.append([round(float(number), 6) for number in self._client.embed(query)])
        return {"vectors": vectors, "encoder": self._client.info.meta.seal.name}

    def picture(self, image_id: str) -> dict[str, Any]:
        """Return the stored fields of a picture.  Raises ImageMissing."""
        return dict(self._client.get(image_id))

    def facets(self, fields: Sequence[str], filters: Sequence[str]) -> dict[str, dict[str, int]]:
        """Count the values of fields over the pictures that meet the filters."""
        properties = self._client.info.properties
        check_facets(fields, properties)
        clauses = filter_clauses(parse_field_filters(filters), properties)
        return self._client.store.listings.counts_by_value(fields, clauses, _MOST_VALUES)

    def status(self) -> dict[str, Any]:
        """Return what `status --json` prints."""
        return index_status(self._client.store)

    def failures(self) -> list[dict[str, Any]]:
        """Return what `failures --json` prints."""
        return listed_failures(self._client.store, self._settings.host)


def _in_order(hits: Hits, order: str, offset: int, size: int) -> Hits:
    """Sort the relevant hits, or all where relevance is not known."""
    relevant = [each for each in hits if each.relevance is None or each.relevance >= _LIKELY]

    def taken(hit: Hit) -> str:
        names = ("taken_local", "taken_at", "modified_at")
        return next((str(hit.fields[each]) for each in names if each in hit.fields), "")

    if order in {"newest", "oldest"}:
        relevant.sort(key=taken, reverse=order == "newest")
    elif order == "largest":
        relevant.sort(key=lambda hit: -hit.fields.get("width", 0) * hit.fields.get("height", 0))
    else:
        relevant.sort(key=lambda hit: (hit.root, hit.relative_path))
    page = relevant[offset : offset + size]
    return Hits(page, hits.took_ms, hits.queries, notes=hits.notes, facets=hits.facets)
