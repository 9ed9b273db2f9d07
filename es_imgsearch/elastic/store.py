"""The only package that talks to Elasticsearch.

    store.connection    the client, the names of indices, requests
    store.documents     by id: write, delete, read
    store.listings      by root and path; counts
    store.searches      ready bodies
    store.rewrites      whole documents changed
    store.generations   make, extend, drop indices; `_meta`
    store.switching     the alias; writes held back
    store.auxiliary     companion indices

Foreign errors become ours in `connection.translated`; bodies come from `mapping` and `queries`, or
are a line long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from es_imgsearch.elastic.auxiliary import Auxiliary, Send, get_auxiliary
from es_imgsearch.elastic.bulk import BulkWriter
from es_imgsearch.elastic.client import Connection
from es_imgsearch.elastic.documents import Documents, Write
from es_imgsearch.elastic.generations import Generations, IndexInfo, Roles
from es_imgsearch.elastic.listings import Listings, Stored
from es_imgsearch.elastic.rewrites import Rewrites
from es_imgsearch.elastic.searches import Searches
from es_imgsearch.elastic.switching import Switching

if TYPE_CHECKING:
    import elasticsearch

    from es_imgsearch.elastic.requests import Request


__all__ = [
    "BulkWriter",
    "Connection",
    "IndexInfo",
    "Roles",
    "Send",
    "Store",
    "Stored",
    "Write",
    "get_auxiliary",
]


class Store:
    """One alias of pictures with its failures and companion indices, in parts of one job each.

    Every method raises errors of our tree only; `transient` ones may be tried again.
    """

    def __init__(
        self, client: elasticsearch.Elasticsearch, index: str, *, generation: str | None = None
    ) -> None:
        connection = Connection(client, index, generation)
        self.index, self.generation = index, generation
        self.connection = connection
        self.documents = Documents(connection)
        self.listings = Listings(connection)
        self.searches = Searches(connection)
        self.generations = Generations(connection)
        self.switching = Switching(connection)
        self.rewrites = Rewrites(connection)
        self.auxiliary = Auxiliary(connection)

    def info(self) -> IndexInfo:
        """The index behind the alias, see `Generations.info`."""
        return self.generations.info()

    def send(self, request: Request) -> Any:
        """The parsed answer to a request whose path and body are ready."""
        return self.connection.send(request)

    def refresh(self) -> None:
        """Make everything that was written searchable."""
        self.connection.refresh()

    def at(self, generation: str) -> Store:
        """This store, held to a generation whatever it is for; see `pinned`."""
        return Store(self.connection.client, self.index, generation=generation)

    def pinned(self) -> Store:
        """This store, held to the generation that the alias points to now.

        A writer whose vectors fit one generation must not write into the next by surprise, and
        names of indices are no protection: a bulk makes an index that is not there.  So each
        generation has an alias of its own.
        """
        if self.generation is not None:
            return self
        return self.at(self.generations.pin())
