"""One connection to one alias: requests out, parsed answers and errors of our tree in."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import elasticsearch

from es_imgsearch.connection import addresses, translated
from es_imgsearch.generations import failures_alias, failures_generation, pinned_alias
from es_imgsearch.talk import JSON, Request


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
