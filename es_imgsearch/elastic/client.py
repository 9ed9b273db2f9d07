"""One connection to one alias: requests out, parsed answers and errors of our tree in."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from functools import cached_property
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import elasticsearch
from elasticsearch.serializer import OrjsonSerializer, TextSerializer

from es_imgsearch.elastic.error_mapping import _JSON, _SMILE, translated
from es_imgsearch.elastic.http_node import HttpNode
from es_imgsearch.elastic.naming import failures_alias, failures_generation, pinned_alias
from es_imgsearch.elastic.requests import JSON, Request
from es_imgsearch.errors import (
    SettingsError,
)
from es_imgsearch.settings import Settings


def connect(settings: Settings) -> elasticsearch.Elasticsearch:
    """Make a client for these settings, without sending a request."""
    return new_client(settings.es_url, **_options(settings))


def connect_async(settings: Settings) -> elasticsearch.AsyncElasticsearch:
    """Make a client for asyncio.  Raises SettingsError if aiohttp is not installed."""
    url, options = _address_and_options(settings.es_url, _options(settings))
    try:
        return elasticsearch.AsyncElasticsearch(url, **options)
    except (ValueError, TypeError, OSError) as error:
        # Without aiohttp it is a ValueError that names the extra to install.
        raise SettingsError(f"Elasticsearch cannot be reached as set: {error}.") from None


def addresses(client: elasticsearch.Elasticsearch | elasticsearch.AsyncElasticsearch) -> str:
    """List the addresses a client sends requests to, without credentials."""
    return ", ".join(str(node.base_url) for node in client.transport.node_pool.all())


def _options(settings: Settings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "request_timeout": settings.request_timeout_seconds,
        "max_retries": 1,
    }
    if settings.es_api_key is not None:
        options["api_key"] = settings.es_api_key.get_secret_value()
    if settings.es_ca_certs is not None:
        if not settings.es_ca_certs.is_file():
            raise SettingsError(f"es_ca_certs: there is no file {str(settings.es_ca_certs)!r}.")
        options["ca_certs"] = str(settings.es_ca_certs)
    return options


def new_client(url: str, **options: Any) -> elasticsearch.Elasticsearch:
    """Make a client for an address, with or without port and credentials."""
    bare, options = _address_and_options(url, options)
    options.setdefault("node_class", HttpNode)
    try:
        return elasticsearch.Elasticsearch(bare, **options)
    except (ValueError, TypeError, OSError) as error:
        raise SettingsError(f"Elasticsearch cannot be reached as set: {error}.") from None


def _address_and_options(url: str, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    # The second passes on bytes that are SMILE already.
    options.setdefault("serializers", {_JSON: OrjsonSerializer(), _SMILE: TextSerializer()})
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError
    except ValueError:
        # The address, and urlsplit's message about it, may hold a password: nothing is repeated.
        raise SettingsError(
            "es_url cannot be used: it needs http:// or https:// and a host; in a password,"
            " characters such as / and # are written %2F and %23."
        ) from None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    bare = urlunsplit((parts.scheme, f"{host}:{port}", parts.path, "", ""))
    if parts.username is not None and "api_key" not in options:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        # The client would encode them as ASCII; Elasticsearch reads UTF-8.
        options["basic_auth"] = b64encode(credentials.encode()).decode()
    return bare, options


class Requests:
    """What every part of the store has: the connection, and where its requests go.

    `index` is the name that people use, and that names beside it are made of; requests go to
    `pictures` and `failures`: the aliases of those names, or with a `generation` those that never
    leave it, see `Generations.pinned`.
    """

    def __init__(
        self, client: elasticsearch.Elasticsearch, index: str, *, generation: str | None = None
    ) -> None:
        self.client = client
        self.index = index
        self.generation = generation
        self.pictures, self.failures = index, failures_alias(index)
        if generation is not None:
            self.pictures = pinned_alias(generation)
            self.failures = pinned_alias(failures_generation(index, generation))

    @cached_property
    def address(self) -> str:
        """Where Elasticsearch is, without credentials."""
        return addresses(self.client)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The parsed answer to one request."""
        with translated(self.address, self.index):
            answer = self.client.perform_request(
                method, path, params=params, headers=headers or JSON, body=body
            )
            return answer.body

    def send(self, request: Request) -> Any:
        """The parsed answer to a request whose path and body are ready."""
        return self.request(request.method, request.path, request.body, headers=request.headers)

    def refresh(self) -> None:
        self.request("POST", f"/{self.pictures},{self.failures}/_refresh")
