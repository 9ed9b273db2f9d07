"""The blocking client: query → vector → request → hits.

`operations.Operations` holds every method once, as a request flow without I/O; `ImageSearch` runs
the flows with blocking requests, `async_client.AsyncImageSearch` with awaited ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from es_imgsearch.elastic.client import client_and_settings, connect
from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.registry import is_encoder
from es_imgsearch.errors import UsageError
from es_imgsearch.search.filters import Filters
from es_imgsearch.search.hits import Hits
from es_imgsearch.search.operations import Operations
from es_imgsearch.search.options import SearchOptions
from es_imgsearch.search.query import Queries, Query, QueryBox, QueryPicture, Vector
from es_imgsearch.search.query_vectors import LocalQueryEncoder
from es_imgsearch.search.reduced import open_originals
from es_imgsearch.search.remote.operations import RemoteOperations
from es_imgsearch.search.remote.service_search import (
    ServiceSearch,
    check_place,
    needs_elasticsearch,
    open_service,
)
from es_imgsearch.search.request_flow import RequestFlow, run_flow
from es_imgsearch.settings import Settings, changed_settings

if TYPE_CHECKING:
    from es_imgsearch.elastic.error_mapping import SyncClient
    from es_imgsearch.elastic.requests import Request
    from es_imgsearch.embed.protocol import Encoder

R = TypeVar("R")


class SearchClient:
    """The common part of both clients: settings, the query model, the operations."""

    _address: str

    def __init__(
        self,
        settings: Settings,
        encoder: Encoder | None,
        *,
        owns_client: bool,
        service: str | None = None,
    ) -> None:
        """Set up the operations; with `owns_client`, `close` closes the connections.

        With the address of a `service` they ask that.
        """
        if encoder is not None and not is_encoder(encoder):
            raise UsageError(
                "encoder must be an Encoder, such as es_imgsearch.embed.load_encoder returns, not a"
                f" {type(encoder).__name__}."
            )
        self.settings = settings
        self.model = LocalQueryEncoder(settings.index, settings, encoder)
        self._owns_client = owns_client
        self._is_closed = False
        self._service: ServiceSearch | None = None
        self._operations: Operations | RemoteOperations
        if service is not None:
            self._service = open_service(service, settings)
            self._address = self._service.service.url
            self._operations = RemoteOperations(self._service, self._check_open)
            return
        self._operations = Operations(
            settings.index,
            settings,
            self.model,
            partial(open_originals, settings=settings, index=settings.index),
        )

    def __repr__(self) -> str:
        if self._service is not None:
            return f"{type(self).__name__}(service={self._address!r})"
        return f"{type(self).__name__}({self._address!r}, index={self.settings.index!r})"

    def reload(self) -> None:
        """Read the index's metadata again with the next search.

            search.reload()

        For a client that was running while the index was tuned, calibrated or extended, and should
        not wait until the metadata is 10 s old.
        """
        self._operations.reload()

    def _check_open(self) -> None:
        if self._is_closed:
            raise UsageError(f"This {type(self).__name__} was closed: create another.")


class ImageSearch(SearchClient):
    """Search one index of pictures.

        with ImageSearch("http://127.0.0.1:9200", index="images") as search:
            for hit in search.search_text("a cat on a sofa", k=20):
                print(hit.score, hit.path)

    `elasticsearch` is an address or a client of your own (`elasticsearch.Elasticsearch`); without
    it, the settings name the address (`ES_URL`, es-imgsearch.toml).  `index` is the index's alias
    (default: `images`), `encoder` a loaded encoder instead of the one that the index names,
    `settings` the result of `es_imgsearch.settings.load_settings`.

    `service` is the address of a running `es-imgsearch serve` that answers in place of
    Elasticsearch and a model; `knn_query`, `info`, `store` and vectors of stored pictures raise
    UsageError then.  `encoder_url` is that of one whose model embeds words and pictures while
    Elasticsearch is searched from here.  `token` is sent to either.

    The model loads with the first query that needs it and stays loaded.  Safe to share between
    threads.  Every search takes `k`, the number of hits (1 to 10,000, default 10), and the options
    of `SearchOptions`.

    Every error is an `ImgSearchError`: UsageError and its subclasses if the call has to change,
    StoreUnreachable if Elasticsearch does not answer.
    """

    def __init__(
        self,
        elasticsearch: str | SyncClient | None = None,
        index: str | None = None,
        *,
        encoder: Encoder | None = None,
        settings: Settings | None = None,
        service: str | None = None,
        encoder_url: str | None = None,
        token: str | None = None,
    ) -> None:
        check_place(elasticsearch, encoder, service, encoder_url)
        client, settings = client_and_settings(elasticsearch, index, settings, is_async=False)
        settings = changed_settings(settings, encoder_url=encoder_url, service_token=token)
        super().__init__(settings, encoder, owns_client=client is None, service=service)
        if service is None:
            self._store = Store(client or connect(settings), settings.index)
            self._address = self._store.connection.address

    def search_text(self, text: str, k: int = 10, **options: Unpack[SearchOptions]) -> Hits:
        """Search by words.

            hits = search.search_text("a cat on a sofa", k=20, filters={"folder": "2024"})

        `text` is in any language that the index's encoder knows; with ``mode="text"`` it is
        compared with the stored words instead, and with ``mode="hybrid"`` with both.

        Returns the hits, best first.  Raises TextUnsupported if the index's encoder knows pictures
        only.
        """
        return self._run(self._operations.search_text(text, k, **options))

    def search_image(
        self,
        image: QueryPicture | str,
        box: QueryBox | None = None,
        k: int = 10,
        **options: Unpack[SearchOptions],
    ) -> Hits:
        """Search by a picture, or by a part of it.

            hits = search.search_image("cat.jpg")
            hits = search.search_image("street.jpg", box=(40, 60, 200, 120))

        `image` is a path, an open file, the bytes of a file, a PIL image or an array of shape
        (height, width), (height, width, 3) or (height, width, 4).  `box` is (x, y, width, height)
        in pixels of the upright picture: only that part is compared.

        Returns the hits, best first.  Raises QueryPictureInvalid if the picture cannot be read or
        the box lies outside of it.
        """
        return self._run(self._operations.search_image(image, box, k, **options))

    def search(
        self,
        positive: Queries,
        negative: Queries = (),
        k: int = 10,
        *,
        box: QueryBox | None = None,
        **options: Unpack[SearchOptions],
    ) -> Hits:
        """Search by several examples: near the positive ones, away from the negative ones.

            hits = search.search(Path("beach.jpg"), "people")
            hits = search.search([Path("beach.jpg"), ("at night", 0.5)], negative=["people"])

        A string is words; a path has to be a `Path`; an array of one axis is a vector of the
        index's encoder; a `StoredPicture` is a picture of the index, and is not among the hits.
        A single query needs no list, and each may be a pair (query, weight).  The query vector is
        the weighted sum of the positive unit vectors minus the negative ones, at unit length.
        `box` applies to every picture among the queries.  In mode text, pictures that have every
        word of a negative text in one of their fields are left out.

        Returns the hits, best first.  Raises UsageError if there is no positive query or nothing
        is left of the sum, and the errors of `search_text`, `search_image` and `similar`.
        """
        return self._run(self._operations.search(positive, negative, k, box=box, **options))

    def similar(self, image_id: str, k: int = 10, **options: Unpack[SearchOptions]) -> Hits:
        """Search by a picture of the index.

            hits = search.similar(hits[0].image_id)

        Compares stored vectors, so no model is loaded; the picture itself is not among the hits.

        Returns the hits, best first.  Raises ImageMissing if no picture has this `image_id`.
        """
        return self._run(self._operations.similar(image_id, k, **options))

    def search_many(
        self, queries: Sequence[Queries], k: int = 10, **options: Unpack[SearchOptions]
    ) -> list[Hits]:
        """Search once for each of several queries, with the same options.

            for hits in search.search_many(["a cat", Path("beach.jpg")], k=5):
                print(hits[0].path)

        Each is what `search` takes as `positive`.  Returns the hits of each, in the order of the
        queries.  Raises the errors of `search`.
        """
        return self._run(self._operations.search_many(queries, k, **options))

    def similarity(self, one: Query | str, other: Query | str, *, part: str = "content") -> float:
        """Compare two queries: pictures, texts, vectors or stored pictures.

            cosine = search.similarity(Path("a.jpg"), "a cat on a sofa")

        `part` is the vector that is compared: ``content``, or ``colour`` for two pictures.

        Returns the cosine, from -1 to 1.  Raises the errors of `search`.
        """
        return self._run(self._operations.similarity(one, other, part=part))

    def get(self, image_id: str) -> Mapping[str, Any]:
        """Read one picture's document: every stored field except the vectors.

            search.get(hits[0].image_id)["width"]

        Raises ImageMissing if no picture has this `image_id`.
        """
        return self._run(self._operations.get(image_id))

    def embed(self, query: Query, box: QueryBox | None = None) -> Vector:
        """Compute the vector of a query, as `search` would.

            vector = search.embed("a cat on a sofa")

        Returns a float32 array of shape (dims,), at unit length.  Raises the errors of `search`.
        """
        return self._run(self._operations.embed(query, box))

    def knn_query(
        self,
        positive: Queries,
        negative: Queries = (),
        k: int = 10,
        *,
        box: QueryBox | None = None,
        min_relevance: float | None = None,
        filters: Filters | None = None,
        without: Filters | None = None,
    ) -> dict[str, Any]:
        """Build the kNN query of a search, to be sent by another program: Kibana, curl.

            body = {"knn": search.knn_query("a cat on a sofa", k=50)}

        Takes the arguments of `search`; of its options only `filters` and `without`.

        `min_relevance` sets the query's `similarity`: pictures of less relevance are left out.
        Without relevance (see `calibrate`) it leaves out those that are no nearer than a standard
        deviation above the average picture.

        Returns the value of ``knn``: the vector as the index stores vectors, and the tuned number
        of candidates.  Raises the errors of `search`.
        """
        return self._run(
            self._operations.knn_query(
                positive,
                negative,
                k,
                box=box,
                min_relevance=min_relevance,
                filters=filters,
                without=without,
            )
        )

    @property
    def store(self) -> Store:
        """The index's store, for programs that read or write more than hits."""
        if self._service is not None:
            raise needs_elasticsearch("documents")
        return self._store

    @property
    def info(self) -> IndexInfo:
        """The index's generation, metadata and fields, at most 10 s old; see `reload`."""
        return self._run(self._operations.info())

    @property
    def encoder(self) -> Encoder:
        """The index's encoder, checked against the index's seal."""
        if self._service is not None:
            return self._service.encoder()
        return self.model.encoder(self.info)

    def close(self) -> None:
        """Close the connections to Elasticsearch.

            search.close()  # or: with ImageSearch(...) as search:

        A client of your own that was passed in stays open.
        """
        self._is_closed = True
        if self._service is not None:
            self._service.close()
        elif self._owns_client:
            self.store.connection.client.close()

    def _run(self, flow: RequestFlow[R]) -> R:
        return run_flow(flow, self._send)

    def _send(self, request: Request) -> Any:
        self._check_open()
        return self.store.send(request)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run_operations(client: ImageSearch, flow_of: Callable[[Operations], RequestFlow[R]]) -> R:
    """Run a flow of several operations; of a client that asks no service."""
    operations = client._operations
    if not isinstance(operations, Operations):
        raise needs_elasticsearch("single steps of a search")
    return client._run(flow_of(operations))
