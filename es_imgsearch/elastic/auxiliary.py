"""Companion indices: `<index>-tags`, `-codes`, `-reduction`, `-background`, `-searches`.

Most hold a few documents by id.  What the index is useless without has its hash as id: the matrix
of the profile `reduced`, the coder of its codes.  A later generation may have another one, so none
replaces another.  What gives tags has a name as id, and is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from es_imgsearch.elastic.bulk import action_line, json_line
from es_imgsearch.elastic.client import Connection
from es_imgsearch.elastic.generations import Generations
from es_imgsearch.elastic.mapping import template_body
from es_imgsearch.elastic.requests import NDJSON, Request, document_request, info_request
from es_imgsearch.errors import ImageMissing, IndexConflict, IndexMissing

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
