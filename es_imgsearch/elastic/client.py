"""Connect to Elasticsearch, send requests, and page through hits."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from inspect import iscoroutinefunction
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit, urlunsplit
from weakref import WeakSet

import elasticsearch
import orjson
from elasticsearch import SerializationError
from elasticsearch.serializer import OrjsonSerializer, TextSerializer

from es_imgsearch.elastic.error_mapping import JSON_TYPE, SMILE_TYPE, translate_errors
from es_imgsearch.elastic.naming import failures_alias, failures_generation, pinned_alias
from es_imgsearch.elastic.requests import JSON, Request
from es_imgsearch.elastic.server.http_node import HttpNode
from es_imgsearch.elastic.server.version import holds_vectors, with_vectors_in_source
from es_imgsearch.errors import SettingsError, StoreBusy, UsageError
from es_imgsearch.settings import Settings, addresses_of, changed_settings, load_settings

# How long the server waits for the shards of a new index: less than we wait for the server (30 s).
_SHARDS_WAIT = "20s"


def connect(settings: Settings) -> elasticsearch.Elasticsearch:
    """Create a client from settings, without sending a request."""
    return new_client(settings.es_url, **_options(settings))


def connect_async(settings: Settings) -> elasticsearch.AsyncElasticsearch:
    """Create a client for asyncio.  Raises SettingsError if aiohttp is not installed."""
    urls, options = _addresses_and_options(settings.es_url, _options(settings))
    try:
        return elasticsearch.AsyncElasticsearch(urls, **options)
    except (ValueError, TypeError, OSError) as error:
        # Without aiohttp it is a ValueError that names the extra to install.
        raise SettingsError(f"Elasticsearch cannot be reached as set: {error}.") from None


def addresses(client: elasticsearch.Elasticsearch | elasticsearch.AsyncElasticsearch) -> str:
    """List the addresses a client sends requests to, without credentials."""
    return ", ".join(str(node.base_url) for node in client.transport.node_pool.all())


def _options(settings: Settings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "request_timeout": settings.request_timeout_seconds,
        "max_retries": max(1, len(addresses_of(settings.es_url)) - 1),
    }
    if settings.es_api_key is not None:
        options["api_key"] = settings.es_api_key.get_secret_value()
    if settings.es_ca_certs is not None:
        if not settings.es_ca_certs.is_file():
            raise SettingsError(f"es_ca_certs: there is no file {str(settings.es_ca_certs)!r}.")
        options["ca_certs"] = str(settings.es_ca_certs)
    return options


class _Json(OrjsonSerializer):
    """JSON; also of answers with half a surrogate pair.

    The server writes such of a long text that it refused, and quotes (8.19.13).
    """

    def loads(self, data: bytes) -> Any:
        try:
            return super().loads(data)
        except SerializationError:
            with suppress(ValueError):
                found = json.loads(data)
                return orjson.loads(json.dumps(found, ensure_ascii=False).encode(errors="replace"))
            raise


def new_client(url: str, **options: Any) -> elasticsearch.Elasticsearch:
    """Create a client for addresses, with or without port and credentials."""
    urls, options = _addresses_and_options(url, options)
    options.setdefault("node_class", HttpNode)
    try:
        return elasticsearch.Elasticsearch(urls, **options)
    except (ValueError, TypeError, OSError) as error:
        raise SettingsError(f"Elasticsearch cannot be reached as set: {error}.") from None


def _addresses_and_options(url: str, options: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Return the addresses without credentials; options have the first that are given.

    A request that one node does not answer is sent to another one.
    """
    # Bodies in SMILE are encoded already: TextSerializer passes bytes through.
    options.setdefault("serializers", {JSON_TYPE: _Json(), SMILE_TYPE: TextSerializer()})
    found = [_bare_and_credentials(each) for each in addresses_of(url)]
    credentials = next((each for _, each in found if each is not None), None)
    if credentials is not None and "api_key" not in options:
        # The client would encode them as ASCII; Elasticsearch reads UTF-8.
        options["basic_auth"] = b64encode(credentials.encode()).decode()
    return [bare for bare, _ in found], options


def _bare_and_credentials(url: str) -> tuple[str, str | None]:
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError
    except ValueError:
        # The address may hold a password, and so may messages about it: neither is repeated.
        raise SettingsError(
            "es_url cannot be used: it needs http:// or https:// and a host; in a password,"
            " characters such as / and # are written %2F and %23."
        ) from None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    bare = urlunsplit((parts.scheme, f"{host}:{port}", parts.path, "", ""))
    if parts.username is None:
        return bare, None
    return bare, f"{unquote(parts.username)}:{unquote(parts.password or '')}"


# -- Connections belong to a process
#
# A child made by `os.fork` (gunicorn with preload, multiprocessing with fork) inherits the sockets
# of idle connections.  Parent and child would send requests on the same one, and each would read
# what comes first: another process's answer.

_Client: TypeAlias = elasticsearch.Elasticsearch | elasticsearch.AsyncElasticsearch
_clients: WeakSet[_Client] = WeakSet()
# Sessions of asyncio: closing one in the child would take the parent's sockets out of the event
# loop's epoll, which is shared.
_inherited_sessions: list[Any] = []


def open_own_connections(client: _Client) -> None:
    """Have this client open its own connections in every child of a later fork."""
    _clients.add(client)


def _renew_connections() -> None:
    for client in list(_clients):
        for node in client.transport.node_pool.all():
            _inherited_sessions.append(getattr(node, "session", None))
            # Made anew in its place in the pool; no connection is opened yet.
            type(node).__init__(node, node.config)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_connections)


# The most hits that one page may hold (index.max_result_window).
MOST_HITS = 10_000

# Root and path never change under one id, so a page that follows the last path of the page before
# misses nothing.  The indices are sorted by them: a page ends as soon as it is full.
BY_PATH: Sequence[Mapping[str, str]] = ({"root": "asc"}, {"relative_path": "asc"})

Hits: TypeAlias = Sequence[Mapping[str, Any]]
# Calls a search and may repeat it, such as `retry.persist` with an event and an outage.
Retry: TypeAlias = Callable[[Callable[[], Hits]], Hits]


def without_retry(search: Callable[[], Hits]) -> Hits:
    """Call a search once."""
    return search()


@dataclass(frozen=True, eq=False)
class Connection:
    """A client and the names that requests go to, shared by all parts of a `Store`.

    `index` is the alias that people use; the names of all companion indices derive from it.
    `pictures` and `failures` are aliases that move with a switch.  With a `generation` they are
    the aliases of that generation, which never move (see `Store.pinned`), and `index_id` is the id
    of its index, if known.

    Every method raises only errors of `errors`; `transient` ones may be retried.
    """

    client: elasticsearch.Elasticsearch
    index: str
    generation: str | None = None
    index_id: str | None = None

    def __post_init__(self) -> None:
        open_own_connections(self.client)

    @cached_property
    def pictures(self) -> str:
        return self.index if self.generation is None else pinned_alias(self.generation)

    @cached_property
    def failures(self) -> str:
        if self.generation is None:
            return failures_alias(self.index)
        return pinned_alias(failures_generation(self.index, self.generation))

    @cached_property
    def address(self) -> str:
        """The address of Elasticsearch, without credentials."""
        return addresses(self.client)

    def at(self, generation: str, index_id: str | None = None) -> Connection:
        """Return a connection that is held to a generation."""
        return replace(self, generation=generation, index_id=index_id)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send a request and return the parsed answer."""
        with translate_errors(self.address, self.index):
            answer = self.client.perform_request(
                method, path, params=params, headers=headers or JSON, body=body
            )
            return answer.body

    def send(self, request: Request) -> Any:
        """Send a request whose path and body are ready; return the parsed answer."""
        return self.request(request.method, request.path, request.body, headers=request.headers)

    def hits(
        self, name: str, body: Mapping[str, Any], parts: str, *, preference: str | None = None
    ) -> Hits:
        """Search an index; return its hits, reduced to these parts.

        Never returns a partial answer.
        """
        answer = self.request(
            "POST",
            f"/{name}/_search",
            dict(body),
            params={
                "filter_path": ",".join(f"hits.hits.{each}" for each in parts.split(",")),
                # Documents on a shard that does not answer would look absent.
                "allow_partial_search_results": "false",
                **({"preference": preference} if preference else {}),
            },
        )
        hits: Hits = answer.get("hits", {}).get("hits", ())
        return hits

    def pages(
        self,
        name: str,
        body: Mapping[str, Any],
        parts: str,
        *,
        size: int = MOST_HITS,
        preference: str | None = None,
        retry: Retry = without_retry,
    ) -> Iterator[Hits]:
        """Page through all hits of a search, in the order of root and path.

        Pages follow each other by `search_after`.  Each page is searched when it is requested, and
        sees what was refreshed until then.  No point-in-time is held, so a listing that waits for
        hours on a full queue does not expire.  `retry` calls the search of each page.
        """
        page = {"_source": False, **body, "size": size, "track_total_hits": False, "sort": BY_PATH}
        search = partial(self.hits, name, page, f"{parts},sort", preference=preference)
        while hits := retry(search):
            yield hits
            if len(hits) < size:
                return
            page["search_after"] = hits[-1]["sort"]

    def refresh(self) -> None:
        """Make all acknowledged writes searchable."""
        self.request("POST", f"/{self.pictures},{self.failures}/_refresh")

    def define(self, path: str, body: Mapping[str, Any]) -> None:
        """Create an index, or an index template.

        What is in `_source` is the same on every version of Elasticsearch: where documents have
        vectors, it is asked for its version first.  Raises StoreBusy if no node takes the shards
        of a new index.
        """
        mapped = body.get("template", body)["mappings"]
        if holds_vectors(mapped):
            body = with_vectors_in_source(self.version(), body)
        if "template" in body:
            self.request("PUT", path, body)
            return
        answer = self.request("PUT", path, body, params={"timeout": _SHARDS_WAIT})
        if not answer["shards_acknowledged"]:
            raise StoreBusy(
                f"No node takes the shards of {path[1:]}, mostly since the disks are nearly full:"
                " free space there or add a node, then run this again. GET"
                " /_cluster/allocation/explain says why."
            )

    def version(self) -> str:
        """Read the version of Elasticsearch."""
        return str(self.request("GET", "/")["version"]["number"])


def client_and_settings(
    elasticsearch: Any, index: str | None, settings: Settings | None, *, is_async: bool
) -> tuple[Any, Settings]:
    """Check arguments; return the client passed in, or None, and the merged settings."""
    address = elasticsearch if isinstance(elasticsearch, str) else None
    client = None if address is not None else elasticsearch
    perform = getattr(client, "perform_request", None)
    if client is not None and (perform is None or iscoroutinefunction(perform) != is_async):
        kinds = ("ImageSearch", "Elasticsearch"), ("AsyncImageSearch", "AsyncElasticsearch")
        ours, theirs = kinds[is_async]
        raise UsageError(
            f"{ours} takes one address, a client (elasticsearch.{theirs}) or nothing, not a"
            f" {type(client).__name__}."
        )
    if settings is not None and not isinstance(settings, Settings):
        raise UsageError(
            "settings must be what es_imgsearch.settings.load_settings returns, not a"
            f" {type(settings).__name__}."
        )
    changes = {"es_url": address, "index": index}
    return client, (
        load_settings(changes, given_by="the arguments")
        if settings is None
        else changed_settings(settings, **changes)
    )
