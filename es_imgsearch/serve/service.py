"""What the HTTP routes do: one set of functions for the API and the page."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import ImageMissing, StoreBusy, TextUnsupported
from es_imgsearch.manage.failures import listed_failures
from es_imgsearch.manage.status import index_status
from es_imgsearch.records import is_text, unit
from es_imgsearch.search.client import ImageSearch, run_operations
from es_imgsearch.search.hits import Hits
from es_imgsearch.search.operations import Operations
from es_imgsearch.search.query import Weighted, parse_terms, text_terms
from es_imgsearch.search.query_vectors import QueryEncoder
from es_imgsearch.search.request_flow import RequestFlow, together
from es_imgsearch.search.results import check_facets
from es_imgsearch.serve.answers.duplicate_lists import (
    DuplicateList,
    DuplicateLists,
    DuplicateRequest,
)
from es_imgsearch.serve.answers.listing import clauses_of, list_pictures
from es_imgsearch.serve.answers.match import match_of
from es_imgsearch.serve.answers.ranking import find, find_first
from es_imgsearch.serve.originals import state_of
from es_imgsearch.serve.query_pictures import QueryFile, QueryPictures, Upload
from es_imgsearch.serve.search_request import (
    MOST_HITS,
    SearchRequest,
    read_cursor,
    write_cursor,
)
from es_imgsearch.serve.thumbnails import PictureFiles
from es_imgsearch.serve.traffic.served_search import ServedSearch
from es_imgsearch.serve.traffic.shared_encoder import SharedQueryEncoder
from es_imgsearch.settings import Settings

if TYPE_CHECKING:
    from PIL import Image

# In bytes; Elasticsearch has no longer ids, and a letter has up to four.
_LONGEST_ID: Final = 128
# Of each field, the most frequent values.
_MOST_VALUES: Final = 100

logger = logging.getLogger(__name__)


class SearchService:
    """Search an index, look up its pictures and report its state.  Thread-safe."""

    def __init__(
        self,
        settings: Settings,
        client: ImageSearch | None = None,
        *,
        originals: PictureFiles | None = None,
        today: Callable[[], date] = date.today,
    ) -> None:
        """Set up; `originals` finds the files of stored pictures, `today` dates `when`."""
        self._settings = settings
        self._originals = originals
        self._today = today
        self._client = client or ServedSearch(settings)
        self._pictures = QueryPictures(settings)
        self._duplicates = DuplicateLists(self._client.store, settings)
        self._is_warm = threading.Event()
        self._warming = threading.Lock()

    @property
    def shared_encoder(self) -> SharedQueryEncoder | None:
        """The encoder of all requests; None for a client that has another."""
        return getattr(self._client, "shared", None)

    def warm_up(self) -> None:
        """Load the model, so that the first search need not wait; `is_ready` retries."""
        if not self._warming.acquire(blocking=False):
            return
        try:
            # Also what an encoder loads for its first text.
            self._client.embed("a picture")
        except TextUnsupported:
            self._is_warm.set()
        except Exception as error:  # noqa: BLE001
            # Whatever an encoder of another package raises must not end the tries.
            logger.warning("The encoder could not be loaded yet: %s", error)
        else:
            self._is_warm.set()
        finally:
            self._warming.release()

    def check_model(self, wait_seconds: float) -> None:
        """Wait until the model is loaded; raise StoreBusy if that takes longer.

        Returns if it cannot be loaded: the search says why.
        """
        if self._is_warm.is_set():
            return
        if not self._warming.acquire(timeout=wait_seconds):
            raise StoreBusy("The model is being loaded: try again in a few seconds.")
        self._warming.release()

    def close(self) -> None:
        """Close connections and the reading process."""
        self._duplicates.close()
        self._pictures.close()
        self._client.close()

    def is_ready(self) -> bool:
        """Whether the model is loaded; if not, try again meanwhile.

        Raises StoreUnreachable if Elasticsearch is away.
        """
        self._client.store.info()
        is_warm = self._is_warm.is_set()
        if not is_warm and not self._warming.locked():
            threading.Thread(target=self.warm_up, name="warm up", daemon=True).start()
        return is_warm

    def search(self, request: SearchRequest, picture: Upload | None = None) -> dict[str, Any]:
        """Search; return what `search --json` prints, with `next` and `image`."""
        return run_operations(self._client, partial(self._search, request, picture))

    def search_many(self, requests: Sequence[SearchRequest]) -> list[dict[str, Any]]:
        """Search as `search` does for each, with few requests and calls of the model."""
        return run_operations(
            self._client,
            lambda operations: together(
                [self._search(each, None, operations) for each in requests]
            ),
        )

    def _search(
        self, request: SearchRequest, picture: Upload | None, operations: Operations
    ) -> RequestFlow[dict[str, Any]]:
        key = request.image if picture is None else self._pictures.put(picture)
        when, request = request.when, self.dated(request.model_copy(update={"image": key}))
        generation = (yield from operations.info()).name
        offset = read_cursor(request, generation)
        queries = self._queries(request)
        # Who reads on asks for nothing else.
        logged_k = None if offset else request.k
        hits = yield from find(operations, request, queries, offset, logged_k=logged_k)
        end = offset + len(hits)
        goes_on = len(hits) == request.k and end < MOST_HITS
        return {
            **hits.to_dict(),
            "next": write_cursor(request, end, generation) if goes_on else None,
            "image": key or None,
            "when": when and {"since": request.since, "until": request.until},
        }

    def dated(self, request: SearchRequest) -> SearchRequest:
        """Return a request with the dates that `when` says.  Raises UsageError."""
        return request.dated(self._today())

    def _queries(self, request: SearchRequest) -> tuple[list[Weighted], list[Weighted]]:
        """Return what hits should be like and unlike, with the picture that was sent."""
        if request.boxed_id is not None:
            return request.queries(self._original(request.boxed_id))
        return request.queries(self._pictures.get(request.image) if request.image else None)

    def _original(self, image_id: str) -> QueryFile:
        """Read the original of a stored picture.  Raises ImageMissing, ReadError."""
        if self._originals is None:
            raise ImageMissing("This service reads no originals: send the picture itself.")
        original = self._originals.original(image_id)
        state_of(original.path, image_id)
        return self._pictures.original(original.path, image_id, original.content_id)

    def ranked(
        self,
        request: SearchRequest,
        count: int,
        fields: Sequence[str] | None = None,
        *,
        is_logged: bool = False,
    ) -> Hits:
        """Return the first hits with these stored fields, in the order of the request.

        `is_logged` is for what the user asked for, not for a page that shows it again.
        """
        request = self.dated(request)
        queries = self._queries(request)
        found = partial(
            find_first, request=request, queries=queries, count=count, fields=fields,
            logged_k=request.k if is_logged else None,
        )  # fmt: skip
        return run_operations(self._client, found)

    def knn_query(self, request: SearchRequest, k: int, min_relevance: float) -> dict[str, Any]:
        """Return the kNN query of a search and its filters, to be sent by another program."""
        request = self.dated(request)
        positive, negative = self._queries(request)
        clauses, _ = clauses_of(self._client, self._settings, request)
        knn = self._client.knn_query(positive, negative, k=k, min_relevance=min_relevance)
        return {**knn, **({"filter": clauses} if clauses else {})}

    def newest(self, request: SearchRequest, offset: int, fields: Sequence[str]) -> Hits:
        """Return pictures that meet the filters without a query, those indexed last first."""
        request = self.dated(request)
        return list_pictures(self._client, self._settings, request, offset, fields)

    def query_picture(self, key: str) -> QueryFile:
        """Return a picture that was sent.  Raises ImageMissing."""
        return self._pictures.get(key)

    def keep_picture(self, picture: Upload) -> str:
        """Decode a picture and keep it; return its hash.  Raises QueryPictureInvalid."""
        return self._pictures.put(picture)

    def copies(self, content_ids: Sequence[str]) -> Counter[str]:
        """Count the files of each content."""
        listings = self._client.store.listings
        return Counter(content for content, _ in listings.ids_by_content(content_ids))

    def names(self, image_ids: Sequence[str]) -> dict[str, str]:
        """Return the file names of stored pictures by image_id."""
        ids = [each for each in image_ids if is_text(each) and 0 < len(each) <= _LONGEST_ID]
        found = self._client.store.documents.stored_fields(ids, ["image_name"]) if ids else {}
        return {each: str(fields.get("image_name", each)) for each, fields in found.items()}

    def ids_of_content(self, content_id: str) -> list[str]:
        """Return the image_ids of the files with this content."""
        listings = self._client.store.listings
        return [image_id for _, image_id in listings.ids_by_content([content_id])]

    @property
    def store(self) -> Store:
        """What is stored."""
        return self._client.store

    @property
    def settings(self) -> Settings:
        """The settings of this service."""
        return self._settings

    @property
    def _encoder(self) -> QueryEncoder:
        return getattr(self._client, "shared", self._client.model)

    @property
    def client(self) -> ImageSearch:
        """The client that searches; it stays open until `close`."""
        return self._client

    def decoded(self, uploads: Sequence[Upload]) -> list[Image.Image]:
        """Decode pictures, which are not kept.  Raises QueryPictureInvalid."""
        return [self._pictures.decode(each).picture for each in uploads]

    def encode(self, queries: Sequence[str | Upload]) -> dict[str, Any]:
        """Return unit vectors of texts or of pictures, in one call of the model."""
        info = self._client.info
        pictures = self.decoded([each for each in queries if isinstance(each, Upload)])
        texts = [each for each in queries if isinstance(each, str)]
        terms = text_terms(parse_terms(texts, ())) if texts else []
        encoded = self._encoder.embed(info, [str(each.query) for each in terms], pictures)
        rows = [*encoded.texts, *encoded.pictures]
        return {
            "vectors": [[round(float(number), 6) for number in unit(row)] for row in rows],
            "encoder": info.meta.seal.name,
            "truncated": list(encoded.truncated),
        }

    def picture(self, image_id: str) -> dict[str, Any]:
        """Return the stored fields of a picture.  Raises ImageMissing."""
        return dict(self._client.get(image_id))

    def match(self, image_id: str, request: SearchRequest) -> dict[str, Any]:
        """Return why a picture is a hit of a search.  Raises ImageMissing."""
        queries = self._queries(request)
        is_text = request.mode == "text"
        client, encoder = self._client, self._encoder
        return match_of(client, encoder, image_id, queries, self._original, is_text=is_text)

    def facets(self, fields: Sequence[str], request: SearchRequest) -> dict[str, dict[str, int]]:
        """Count the values of fields over the pictures that meet the filters and dates."""
        check_facets(fields, self._client.info.properties)
        clauses, _ = clauses_of(self._client, self._settings, self.dated(request))
        return self._client.store.listings.counts_by_value(fields, clauses, _MOST_VALUES)

    def count(self, request: SearchRequest) -> int:
        """Count the pictures that meet the filters and dates."""
        clauses, _ = clauses_of(self._client, self._settings, self.dated(request))
        return self._client.store.listings.count_matching({"bool": {"filter": clauses}})

    def duplicates(self, request: DuplicateRequest, wait_seconds: float = 25.0) -> DuplicateList:
        """Return groups of files that show the same picture.

        Raises ComparisonRunning after some seconds; the result comes later.
        """
        return self._duplicates.find(request, wait_seconds)

    def status(self) -> dict[str, Any]:
        """Return what `status --json` prints."""
        return index_status(self._client.store)

    def failures(self) -> list[dict[str, Any]]:
        """Return what `failures --json` prints."""
        return listed_failures(self._client.store, self._settings.host)
