"""The client for asyncio: the methods of `ImageSearch`, awaited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from es_imgsearch.elastic.client import (
    addresses,
    client_and_settings,
    connect_async,
    open_own_connections,
)
from es_imgsearch.elastic.error_mapping import translate_errors
from es_imgsearch.search.client import SearchClient
from es_imgsearch.search.filters import Filters
from es_imgsearch.search.hits import Hits
from es_imgsearch.search.options import SearchOptions
from es_imgsearch.search.query import Queries, Query, QueryBox, QueryPicture, Vector
from es_imgsearch.search.remote.service_search import check_place
from es_imgsearch.search.request_flow import RequestFlow, run_flow_async
from es_imgsearch.settings import changed_settings

if TYPE_CHECKING:
    from es_imgsearch.elastic.error_mapping import AsyncClient
    from es_imgsearch.elastic.requests import Request
    from es_imgsearch.embed.protocol import Encoder
    from es_imgsearch.settings import Settings

R = TypeVar("R")


class AsyncImageSearch(SearchClient):
    """Search one index of pictures from asyncio.

        async with AsyncImageSearch("http://127.0.0.1:9200", index="images") as search:
            for hit in await search.search_text("a cat on a sofa", k=20):
                print(hit.score, hit.path)

    `elasticsearch` is an address or a client of your own (`elasticsearch.AsyncElasticsearch`); an
    address needs aiohttp (`pip install es-imgsearch[async]`).  Models run in threads, so other
    tasks continue meanwhile.  Methods, arguments, results and errors are the same as in
    `ImageSearch`.
    """

    def __init__(
        self,
        elasticsearch: str | AsyncClient | None = None,
        index: str | None = None,
        *,
        encoder: Encoder | None = None,
        settings: Settings | None = None,
        service: str | None = None,
        encoder_url: str | None = None,
        token: str | None = None,
    ) -> None:
        check_place(elasticsearch, encoder, service, encoder_url)
        client, settings = client_and_settings(elasticsearch, index, settings, is_async=True)
        settings = changed_settings(settings, encoder_url=encoder_url, service_token=token)
        super().__init__(settings, encoder, owns_client=client is None, service=service)
        if service is not None:
            return
        self._client: AsyncClient = client or connect_async(settings)
        self._address = addresses(self._client)
        open_own_connections(self._client)

    async def search_text(self, text: str, k: int = 10, **options: Unpack[SearchOptions]) -> Hits:
        """Search by words; see `ImageSearch.search_text`.

        hits = await search.search_text("a cat on a sofa", k=20)
        """
        return await self._run(self._operations.search_text(text, k, **options))

    async def search_image(
        self,
        image: QueryPicture | str,
        box: QueryBox | None = None,
        k: int = 10,
        **options: Unpack[SearchOptions],
    ) -> Hits:
        """Search by a picture, or by a part of it; see `ImageSearch.search_image`.

        hits = await search.search_image("street.jpg", box=(40, 60, 200, 120))
        """
        return await self._run(self._operations.search_image(image, box, k, **options))

    async def search(
        self,
        positive: Queries,
        negative: Queries = (),
        k: int = 10,
        *,
        box: QueryBox | None = None,
        **options: Unpack[SearchOptions],
    ) -> Hits:
        """Search by positive and negative examples; see `ImageSearch.search`.

        hits = await search.search([Path("beach.jpg"), ("at night", 0.5)], negative="people")
        """
        return await self._run(self._operations.search(positive, negative, k, box=box, **options))

    async def similar(self, image_id: str, k: int = 10, **options: Unpack[SearchOptions]) -> Hits:
        """Search by a picture of the index; see `ImageSearch.similar`.

        hits = await search.similar(hits[0].image_id)
        """
        return await self._run(self._operations.similar(image_id, k, **options))

    async def search_many(
        self, queries: Sequence[Queries], k: int = 10, **options: Unpack[SearchOptions]
    ) -> list[Hits]:
        """Search once for each of several queries; see `ImageSearch.search_many`.

        cats, beaches = await search.search_many(["a cat", Path("beach.jpg")], k=5)
        """
        return await self._run(self._operations.search_many(queries, k, **options))

    async def similarity(
        self, one: Query | str, other: Query | str, *, part: str = "content"
    ) -> float:
        """Compare two queries by their cosine; see `ImageSearch.similarity`.

        cosine = await search.similarity(Path("a.jpg"), Path("b.jpg"))
        """
        return await self._run(self._operations.similarity(one, other, part=part))

    async def get(self, image_id: str) -> Mapping[str, Any]:
        """Read one picture's document; see `ImageSearch.get`.

        document = await search.get(hits[0].image_id)
        """
        return await self._run(self._operations.get(image_id))

    async def embed(self, query: Query, box: QueryBox | None = None) -> Vector:
        """Compute the vector of a query; see `ImageSearch.embed`.

        vector = await search.embed("a cat on a sofa")
        """
        return await self._run(self._operations.embed(query, box))

    async def knn_query(
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
        """Build the kNN query of a search; see `ImageSearch.knn_query`.

        body = {"knn": await search.knn_query("a cat on a sofa", k=50)}
        """
        return await self._run(
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

    async def close(self) -> None:
        """Close the connections to Elasticsearch; a client that was passed in stays open.

        await search.close()  # or: async with AsyncImageSearch(...) as search:
        """
        self._is_closed = True
        if self._service is not None:
            self._service.close()
        elif self._owns_client:
            await self._client.close()

    async def _run(self, flow: RequestFlow[R]) -> R:
        return await run_flow_async(flow, self._send)

    async def _send(self, request: Request) -> Any:
        self._check_open()
        with translate_errors(self._address, self.settings.index):
            answer = await self._client.perform_request(
                request.method, request.path, headers=request.headers, body=request.body
            )
            return answer.body

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
