"""The connection for asyncio, as far as the client needs it: requests, and our errors."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import cached_property, partial, wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from es_imgsearch.elastic.client import Connection, addresses, connect, connect_async
from es_imgsearch.elastic.error_mapping import translate_errors
from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.elastic.requests import Request
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.registry import is_encoder
from es_imgsearch.errors import UsageError
from es_imgsearch.search.hits import Hit, Hits
from es_imgsearch.search.operations import Operations
from es_imgsearch.search.options import SearchOptions
from es_imgsearch.search.query import StoredPicture
from es_imgsearch.search.query_vectors import ModelHere
from es_imgsearch.search.reduced import originals_of
from es_imgsearch.search.request_flow import RequestFlow, run_flow, run_flow_async
from es_imgsearch.settings import Settings, changed_settings, load_settings

if TYPE_CHECKING:
    from es_imgsearch.elastic.error_mapping import AsyncClient, SyncClient
    from es_imgsearch.elastic.requests import Request
    from es_imgsearch.embed.protocol import Encoder


class AsyncConnection:
    """A client and the name of an index; the counterpart of `store.Connection`.

    Every method raises errors of our tree only; `transient` ones may be tried again.
    """

    def __init__(self, client: AsyncClient, index: str) -> None:
        self.client = client
        self.index = index

    @cached_property
    def address(self) -> str:
        """The address of Elasticsearch, without credentials."""
        return addresses(self.client)

    async def send(self, request: Request) -> Any:
        """The parsed answer to one request."""
        with translate_errors(self.address, self.index):
            answer = await self.client.perform_request(
                request.method, request.path, headers=request.headers, body=request.body
            )
            return answer.body


# The thin client: a query becomes a vector, the vector a request, the answer hits.
#
# `dialogue.Operations` holds every method once, as a request flow without I/O; the two classes
# here run it, one for threads and one for asyncio.

__all__ = ["AsyncImageSearch", "Hit", "Hits", "ImageSearch", "SearchOptions", "StoredPicture"]

P = ParamSpec("P")
R = TypeVar("R")


def _blocking(
    method: Callable[Concatenate[Operations, P], RequestFlow[R]],
) -> Callable[Concatenate[ImageSearch, P], R]:
    @wraps(method)
    def carry_out(self: ImageSearch, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return run_flow(method(self._operations, *args, **kwargs), self._send)

    return carry_out


def _awaiting(
    method: Callable[Concatenate[Operations, P], RequestFlow[R]],
) -> Callable[Concatenate[AsyncImageSearch, P], Coroutine[Any, Any, R]]:
    @wraps(method)
    async def carry_out(self: AsyncImageSearch, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await run_flow_async(method(self._operations, *args, **kwargs), self._send)

    return carry_out


class _Client:
    """What both clients share: the operations that they run, and the model for queries."""

    _connection: Connection | AsyncConnection

    def __init__(self, settings: Settings, encoder: Encoder | None, *, is_own: bool) -> None:
        """`is_own`: no other part of the program has the connection, so `close` ends it."""
        if encoder is not None and not is_encoder(encoder):
            raise UsageError(
                "encoder is an Encoder, such as es_imgsearch.embed.load_encoder gives, not a"
                f" {type(encoder).__name__}."
            )
        self.settings = settings
        self._is_own = is_own
        self._is_closed = False
        self.model = ModelHere(settings.index, settings, encoder)
        self._operations = Operations(
            settings.index,
            settings,
            self.model,
            partial(originals_of, settings=settings, index=settings.index),
        )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self._connection.address!r}, index={self._connection.index!r})"
        )

    def reload(self) -> None:
        """Forget what is known of the index, after it was tuned, extended or switched."""
        self._operations.reload()

    def _check_open(self) -> None:
        if self._is_closed:
            raise UsageError(f"This {type(self).__name__} was closed: make another.")


class ImageSearch(_Client):
    """Searches one index.

    `elasticsearch` is an address or a client of your own; without it the settings say where
    (`ES_URL`, es-imgsearch.toml).  The model loads with the first query that needs it and
    stays loaded.  Safe to share between threads.

    Every search takes `k`, how many hits (1 to 10,000), and the options of `SearchOptions`.
    """

    _connection: Connection

    def __init__(
        self,
        elasticsearch: str | SyncClient | None = None,
        index: str | None = None,
        *,
        encoder: Encoder | None = None,
        settings: Settings | None = None,
    ) -> None:
        client, settings = _client_and_settings(elasticsearch, index, settings, is_async=False)
        super().__init__(settings, encoder, is_own=client is None)
        # What reads or writes more than hits takes it: `evaluate`, `calibrate`, `train_tags`.
        self.store = Store(client or connect(settings), settings.index)
        self._connection = self.store.connection

    search_text = _blocking(Operations.search_text)
    search_image = _blocking(Operations.search_image)
    search = _blocking(Operations.search)
    similar = _blocking(Operations.similar)
    similarity = _blocking(Operations.similarity)
    get = _blocking(Operations.get)
    embed = _blocking(Operations.embed)
    knn_query = _blocking(Operations.knn_query)

    @property
    def info(self) -> IndexInfo:
        """The index as it was when first asked for; `reload` asks again."""
        return run_flow(self._operations.info(), self._send)

    @property
    def encoder(self) -> Encoder:
        """The index's encoder, checked against its seal."""
        return self.model.encoder(self.info)

    def close(self) -> None:
        """Close the connections to Elasticsearch; those of a client of yours stay open."""
        self._is_closed = True
        if self._is_own:
            self._connection.client.close()

    def _send(self, request: Request) -> Any:
        self._check_open()
        return self.store.send(request)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncImageSearch(_Client):
    """`ImageSearch` for asyncio: the same methods, awaited.

    `elasticsearch` is an address or an `AsyncElasticsearch` of your own; an address needs
    aiohttp, which `pip install es-imgsearch[async]` brings.  Models run in threads.
    """

    _connection: AsyncConnection

    def __init__(
        self,
        elasticsearch: str | AsyncClient | None = None,
        index: str | None = None,
        *,
        encoder: Encoder | None = None,
        settings: Settings | None = None,
    ) -> None:
        client, settings = _client_and_settings(elasticsearch, index, settings, is_async=True)
        super().__init__(settings, encoder, is_own=client is None)
        self._connection = AsyncConnection(client or connect_async(settings), settings.index)

    search_text = _awaiting(Operations.search_text)
    search_image = _awaiting(Operations.search_image)
    search = _awaiting(Operations.search)
    similar = _awaiting(Operations.similar)
    similarity = _awaiting(Operations.similarity)
    get = _awaiting(Operations.get)
    embed = _awaiting(Operations.embed)
    knn_query = _awaiting(Operations.knn_query)

    async def close(self) -> None:
        """Close the connections to Elasticsearch; those of a client of yours stay open."""
        self._is_closed = True
        if self._is_own:
            await self._connection.client.close()

    async def _send(self, request: Request) -> Any:
        self._check_open()
        return await self._connection.send(request)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _client_and_settings(
    given: Any, index: str | None, settings: Settings | None, *, is_async: bool
) -> tuple[Any, Settings]:
    """The client given, None where an address or nothing was; the settings with both of them."""
    address = given if isinstance(given, str) else None
    client = None if address is not None else given
    perform = getattr(client, "perform_request", None)
    if client is not None and (perform is None or iscoroutinefunction(perform) != is_async):
        kinds = ("ImageSearch", "Elasticsearch"), ("AsyncImageSearch", "AsyncElasticsearch")
        searching, wanted = kinds[is_async]
        raise UsageError(
            f"{searching} takes one address, a client (elasticsearch.{wanted}) or nothing, not a"
            f" {type(client).__name__}."
        )
    if settings is not None and not isinstance(settings, Settings):
        raise UsageError(
            "settings are what es_imgsearch.settings.load_settings gives, not a"
            f" {type(settings).__name__}."
        )
    changes = {"es_url": address, "index": index}
    return client, (
        load_settings(changes, given_by="the arguments")
        if settings is None
        else changed_settings(settings, **changes)
    )
