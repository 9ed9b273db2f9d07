"""The operations on one index and its companions, in parts of one job each.

    store.connection    the client, the names of indices, requests
    store.documents     by id: write, delete, read
    store.listings      by root and path; counts
    store.searches      ready bodies
    store.rewrites      whole documents changed
    store.generations   make, extend, drop indices; `_meta`
    store.switching     the alias; writes held back
    store.auxiliary     companion indices
    store.state         documents that processes share, by compare-and-set

Foreign errors become ours in `connection.translated`; bodies come from `mapping` and `queries`, or
are a line long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from es_imgsearch.elastic.bulk import BulkWriter, action_line, json_line
from es_imgsearch.elastic.client import Connection
from es_imgsearch.elastic.documents import Documents, Write
from es_imgsearch.elastic.generations import Generations, IndexInfo, Roles
from es_imgsearch.elastic.listings import Listings, Searches, Stored
from es_imgsearch.elastic.mapping import template_body
from es_imgsearch.elastic.requests import NDJSON, Request, document_request, info_request
from es_imgsearch.elastic.rewrites import Rewrites
from es_imgsearch.elastic.state import State
from es_imgsearch.elastic.switching import Switching
from es_imgsearch.errors import ImageMissing, IndexConflict, IndexMissing

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


# Most companion indices hold a few documents by id.  A document without which the index is useless
# has its hash as id: the matrix of the profile `reduced`, the coder of its codes.  A later
# generation may have another one, so none replaces another.  Documents of tags have names as ids,
# and are replaced.

# Makes a request and returns the parsed answer, such as `Store.send`.
Send: TypeAlias = Callable[[Request], Any]


def get_auxiliary(send: Send, alias: str, name: str) -> Mapping[str, Any] | None:
    """The document of that id in a companion index; None where it is missing."""
    try:
        source: Mapping[str, Any] = send(document_request(alias, name))["_source"]
    except (IndexMissing, ImageMissing):
        return None
    return source


class Auxiliary:
    """Keeps the companion indices of an index, each behind an alias."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def make(self, alias: str, body: Mapping[str, Any]) -> None:
        """Make a companion index; one that is there already stays as it is."""
        self._connection.request("PUT", f"/_index_template/{alias}", template_body(alias, body))
        Generations(self._connection).make_generation(alias, body)

    def get(self, alias: str, name: str) -> Mapping[str, Any] | None:
        """The document of that id; None where it is missing."""
        return get_auxiliary(self._connection.send, alias, name)

    def put(
        self, alias: str, body: Mapping[str, Any], name: str, document: Mapping[str, Any]
    ) -> None:
        """Store a document under this id; its index is made where there is none."""
        self.make(alias, body)
        params = {"refresh": "true", "require_alias": "true"}
        self._connection.request("PUT", f"/{alias}/_doc/{name}", document, params=params)

    def delete(self, alias: str, name: str) -> bool:
        """Remove the document of that id; False where there is none."""
        try:
            self._connection.request("DELETE", f"/{alias}/_doc/{name}", params={"refresh": "true"})
        except (IndexMissing, ImageMissing):
            return False
        return True

    def replace_all(
        self,
        alias: str,
        body: Mapping[str, Any],
        documents: Iterable[tuple[str, Mapping[str, Any]]],
    ) -> None:
        """Put a new index of these documents, by id, in place of the one behind the alias.

        It is filled before the alias shows it, so no client reads half of it.  Raises
        IndexConflict where the name is taken by an index, or a document is refused.
        """
        before = self._behind(alias)
        if alias in before:
            raise IndexConflict(
                f"{alias!r} is an index, not an alias of ours: remove it, or use another --index."
            )
        numbers = [int(name.rpartition("-")[2]) for name in before]
        name = f"{alias}-{max(numbers, default=0) + 1:06}"
        # An interrupted run may have left it behind no alias.
        self._connection.request("DELETE", f"/{name}", params={"ignore_unavailable": "true"})
        self._connection.request("PUT", f"/{name}", body)
        lines = [
            line
            for image_id, document in documents
            for line in (action_line("index", name, image_id), json_line(document))
        ]
        results = self._connection.request(
            "POST",
            "/_bulk",
            b"".join(lines),
            params={"refresh": "true", "filter_path": "errors"},
            headers=NDJSON,
        )
        if results["errors"]:
            raise IndexConflict(f"Some documents were refused by {name!r}: run it again.")
        actions: list[dict[str, Any]] = [{"add": {"index": name, "alias": alias}}]
        actions += [{"remove_index": {"index": each}} for each in before]
        self._connection.request("POST", "/_aliases", {"actions": actions})

    def _behind(self, alias: str) -> list[str]:
        try:
            return list(self._connection.send(info_request(alias)))
        except IndexMissing:
            return []


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
        self.state = State(connection)

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
