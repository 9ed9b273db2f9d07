"""The store for asyncio, as far as the client needs it: requests, and our errors."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from es_imgsearch.connection import addresses, translated

if TYPE_CHECKING:
    import elasticsearch

    from es_imgsearch.talk import Request


class AsyncStore:
    """One alias of pictures; the counterpart of `store.Store`.

    Every method raises errors of our tree only; `transient` ones may be tried again.
    """

    def __init__(self, client: elasticsearch.AsyncElasticsearch, index: str) -> None:
        self.client = client
        self.index = index

    @cached_property
    def address(self) -> str:
        """Where Elasticsearch is, without credentials."""
        return addresses(self.client)

    async def send(self, request: Request) -> Any:
        """The parsed answer to one request."""
        with translated(self.address, self.index):
            answer = await self.client.perform_request(
                request.method, request.path, headers=request.headers, body=request.body
            )
            return answer.body
