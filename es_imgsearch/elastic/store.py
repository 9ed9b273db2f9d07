"""Store: all operations on one index of pictures and its companion indices.

    store.connection    sends requests; names of indices
    store.documents     write, delete and read documents by id
    store.listings      list and count documents by root and path
    store.searches      run searches
    store.rewrites      change whole documents, vectors included
    store.generations   create, extend and drop the indices behind the alias; `_meta`
    store.switching     switch the alias, block writes
    store.companions    read and write companion indices
    store.state         documents that processes share, by compare-and-set

`Connection.request` translates the client's errors into those of `errors`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from es_imgsearch.elastic.bulk import BulkWriter, action_line, json_line
from es_imgsearch.elastic.client import Connection
from es_imgsearch.elastic.documents import Documents, Write
from es_imgsearch.elastic.generations import Generations, IndexInfo, Roles
from es_imgsearch.elastic.listings import IndexedFile, Listings, Searches
from es_imgsearch.elastic.mapping import Companion, template_body
from es_imgsearch.elastic.meta import Seal
from es_imgsearch.elastic.meta_entries import ShardLayout
from es_imgsearch.elastic.naming import failures_alias
from es_imgsearch.elastic.requests import NDJSON, Request, document_request, info_request
from es_imgsearch.elastic.rewrites import Rewrites
from es_imgsearch.elastic.state import State
from es_imgsearch.elastic.switching import Switching
from es_imgsearch.errors import ImageMissing, ImgSearchError, IndexConflict, IndexMissing, StoreBusy

if TYPE_CHECKING:
    import elasticsearch


__all__ = [
    "BulkWriter",
    "Connection",
    "IndexInfo",
    "IndexedFile",
    "Roles",
    "Send",
    "Store",
    "Write",
    "get_companion",
]


# Sends a request and returns the parsed answer, such as `Store.send`.
Send: TypeAlias = Callable[[Request], Any]


def get_companion(
    send: Send, companion: Companion, index: str, name: str
) -> Mapping[str, Any] | None:
    """Get a document of a companion index by its id; None if it is missing."""
    try:
        source: Mapping[str, Any] = send(document_request(companion.alias(index), name))["_source"]
    except (IndexMissing, ImageMissing):
        return None
    return source


class Companions:
    """Read and write the companion indices, which hold a few documents by id.

    The matrix of the profile `reduced` and the coder of codes have their hash as id: another
    generation may have another one, so none replaces another.  Documents of tags have names as ids
    and are replaced.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(self, companion: Companion) -> None:
        """Create a companion index and its template; an existing index stays unchanged."""
        alias, body = companion.alias(self._connection.index), companion.body()
        self._connection.define(f"/_index_template/{alias}", template_body(alias, body))
        Generations(self._connection).make_generation(alias, body)

    def exists(self, companion: Companion) -> bool:
        """Tell whether there is a companion index."""
        try:
            self._connection.request("GET", f"/{companion.alias(self._connection.index)}")
        except IndexMissing:
            return False
        return True

    def get(self, companion: Companion, name: str) -> Mapping[str, Any] | None:
        """Get a document by its id; None if it is missing."""
        return get_companion(self._connection.send, companion, self._connection.index, name)

    def put(self, companion: Companion, name: str, document: Mapping[str, Any]) -> None:
        """Store a document under this id; create its index if there is none."""
        self.create(companion)
        params = {"refresh": "true", "require_alias": "true"}
        path = f"/{companion.alias(self._connection.index)}/_doc/{name}"
        self._connection.request("PUT", path, document, params=params)

    def delete(self, companion: Companion, name: str) -> bool:
        """Delete a document by its id; False if it is missing."""
        path = f"/{companion.alias(self._connection.index)}/_doc/{name}"
        try:
            self._connection.request("DELETE", path, params={"refresh": "true"})
        except (IndexMissing, ImageMissing):
            return False
        return True

    def replace_all(
        self,
        companion: Companion,
        seal: Seal,
        documents: Iterable[tuple[str, Mapping[str, Any]]],
    ) -> None:
        """Replace a companion index by a new one with these documents, by id.

        It is filled before the alias moves to it, so no client reads half of it.  Raises
        IndexConflict where the name is taken by an index, or a document is refused.
        """
        alias = companion.alias(self._connection.index)
        before = self._indices(alias)
        if alias in before:
            raise IndexConflict(
                f"{alias!r} is an index, not an alias of ours: remove it, or use another --index."
            )
        numbers = [int(name.rpartition("-")[2]) for name in before]
        name = f"{alias}-{max(numbers, default=0) + 1:06}"
        # An interrupted run may have left it behind no alias.
        self._connection.request("DELETE", f"/{name}", params={"ignore_unavailable": "true"})
        self._connection.define(f"/{name}", companion.body(seal))
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

    def _indices(self, alias: str) -> list[str]:
        try:
            return list(self._connection.send(info_request(alias)))
        except IndexMissing:
            return []


class Store:
    """One alias of pictures with its failures and companion indices.

    Every method raises errors of our tree only; `transient` ones may be tried again.
    """

    def __init__(
        self,
        client: elasticsearch.Elasticsearch,
        index: str,
        *,
        generation: str | None = None,
        index_id: str | None = None,
    ) -> None:
        connection = Connection(client, index, generation, index_id)
        self.index, self.generation = index, generation
        self.connection = connection
        self.documents = Documents(connection)
        self.listings = Listings(connection)
        self.searches = Searches(connection)
        self.generations = Generations(connection)
        self.switching = Switching(connection)
        self.rewrites = Rewrites(connection)
        self.companions = Companions(connection)
        self.state = State(connection)

    def info(self) -> IndexInfo:
        """Read the index behind the alias, see `Generations.info`."""
        return self.generations.info()

    def send(self, request: Request) -> Any:
        """Send a request and return the parsed answer."""
        return self.connection.send(request)

    def set_copies(self, layout: ShardLayout) -> None:
        """Copy pictures, failures and state as often as `layout` says."""
        names = [self.index, failures_alias(self.index), Companion.STATE.alias(self.index)]
        self.connection.request("PUT", f"/{','.join(names)}/_settings", layout.copies())

    def refresh(self) -> None:
        """Make everything that was written searchable."""
        self.connection.refresh()

    def at(self, generation: str, index_id: str | None = None) -> Store:
        """Return a store that is held to a generation; see `pinned`."""
        return Store(self.connection.client, self.index, generation=generation, index_id=index_id)

    def pinned(self) -> Store:
        """Return a store that is held to the generation that the alias points to now.

        A writer whose vectors fit one generation must not write into the next one.  Names of
        indices do not prevent that, since a bulk creates a missing index; so each generation has an
        alias that never moves.
        """
        if self.generation is not None:
            return self
        return self.at(*self.generations.pin())

    def check_reachable(self, *, within_seconds: float) -> None:
        """Read from the state, without a second try.

        Raises a transient error without an answer in time, another one if the answer is an error.
        """
        client = self.connection.client.options(request_timeout=within_seconds, max_retries=0)
        Store(client, self.index).state.read("reachable")

    def check_generation(self) -> None:
        """Raise GenerationSwitched if the alias points to another generation."""
        if self.generation is not None:
            self.switching.check_serving()

    def check_busy(self, error: ImgSearchError) -> None:
        """Raise GenerationSwitched if that is why Elasticsearch refuses writes.

        The previous generation is read-only after a switch, which only StoreBusy shows.
        """
        if isinstance(error, StoreBusy):
            try:
                self.check_generation()
            except ImgSearchError as reason:
                if not reason.transient:
                    raise
