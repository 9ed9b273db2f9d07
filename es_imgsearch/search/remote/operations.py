"""The operations of a client that asks a service, as request flows.

`ImageSearch` and `AsyncImageSearch` run them in place of `search.operations.Operations`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from es_imgsearch.errors import UsageError
from es_imgsearch.search.options import SearchOptions, SearchPlan
from es_imgsearch.search.remote.service_search import ServiceSearch, needs_elasticsearch
from es_imgsearch.search.request_flow import RequestFlow, Work, each_of

if TYPE_CHECKING:
    from es_imgsearch.elastic.generations import IndexInfo
    from es_imgsearch.search.hits import Hits
    from es_imgsearch.search.query import Queries, Query, QueryBox, QueryPicture, Vector

R = TypeVar("R")


class RemoteOperations:
    """The methods of the client, each one request to a service."""

    def __init__(self, service: ServiceSearch, check_open: Callable[[], None]) -> None:
        self._service = service
        self._check_open = check_open

    def _ask(self, method: Callable[..., R], *given: Any, **named: Any) -> RequestFlow[R]:
        self._check_open()
        answer: R = yield Work(partial(method, *given, **named))
        return answer

    def search_text(
        self, text: str, k: int = 10, **options: Unpack[SearchOptions]
    ) -> RequestFlow[Hits]:
        """Search by words."""
        if not isinstance(text, str):
            raise UsageError(
                f"The text to search for is a string, not a {type(text).__name__};"
                " pictures are for search_image."
            )
        return (yield from self.search([text], k=k, **options))

    def search_image(
        self,
        image: QueryPicture | str,
        box: QueryBox | None = None,
        k: int = 10,
        **options: Unpack[SearchOptions],
    ) -> RequestFlow[Hits]:
        """Search by a picture, or by a part of it."""
        picture = Path(image) if isinstance(image, str) else image
        return (yield from self.search([picture], box=box, k=k, **options))

    def search(
        self,
        positive: Queries,
        negative: Queries = (),
        k: int = 10,
        *,
        box: QueryBox | None = None,
        **options: Unpack[SearchOptions],
    ) -> RequestFlow[Hits]:
        """Search by positive and negative examples."""
        SearchPlan.parse(k, options)
        asked = partial(self._service.search, positive, negative, k, box=box)
        return (yield from self._ask(asked, **options))

    def search_many(
        self, queries: Sequence[Queries], k: int = 10, **options: Unpack[SearchOptions]
    ) -> RequestFlow[list[Hits]]:
        """Search once for each of several queries."""
        return (yield from each_of(self.search, queries, k=k, **options))

    def similar(
        self, image_id: str, k: int = 10, **options: Unpack[SearchOptions]
    ) -> RequestFlow[Hits]:
        """Search by a picture of the index."""
        SearchPlan.parse(k, options)
        return (yield from self._ask(self._service.similar, image_id, k, **options))

    def similarity(
        self, one: Query | str, other: Query | str, *, part: str = "content"
    ) -> RequestFlow[float]:
        """Compare two queries by the cosine of their vectors."""
        if part != "content":
            raise needs_elasticsearch(f"vectors of {part!r}")
        first = yield from self._ask(self._service.embed, one)
        second = yield from self._ask(self._service.embed, other)
        return float(first @ second)

    def get(self, image_id: str) -> RequestFlow[Mapping[str, Any]]:
        """Read one picture's document."""
        return (yield from self._ask(self._service.get, image_id))

    def embed(self, query: Query, box: QueryBox | None = None) -> RequestFlow[Vector]:
        """Compute the vector of a query."""
        return (yield from self._ask(self._service.embed, query, box))

    def knn_query(self, *_given: Any, **_named: Any) -> RequestFlow[dict[str, Any]]:
        """Raise UsageError: bodies of Elasticsearch are made where it is asked."""
        yield Work(self._check_open)
        raise needs_elasticsearch("kNN queries")

    def info(self) -> RequestFlow[IndexInfo]:
        """Raise UsageError: a service does not give an index's metadata."""
        yield Work(self._check_open)
        raise needs_elasticsearch("metadata of the index")

    def reload(self) -> None:
        """Forget the service's encoder."""
        self._service.forget()
