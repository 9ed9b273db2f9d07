"""The indices behind the alias: made, extended, loaded, dropped, and their `_meta`."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from es_imgsearch.elastic.client import Connection
from es_imgsearch.elastic.mapping import (
    failures_body,
    index_body,
    left_out_of_source,
    loading_body,
    state_alias,
    state_body,
    template_body,
)
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.naming import (
    before_alias,
    failures_generation,
    first_generation,
    generation_name,
    generation_number,
    next_alias,
    pinned_alias,
)
from es_imgsearch.elastic.requests import info_request
from es_imgsearch.errors import (
    AlreadyRunning,
    ImageMissing,
    IndexConflict,
    IndexMissing,
    StoreBusy,
    StoreRejected,
    StoreUnreachable,
)

_META_TRIES = 5
# No other thread of this process comes between; other processes are noticed by reading back.
_meta_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """The concrete index behind the alias.

    `is_loading`: it was made for a load that has not ended yet.  `left_out` are the fields that
    documents have and their `_source` lacks.
    """

    name: str
    meta: Meta
    properties: Mapping[str, Mapping[str, Any]]
    is_loading: bool = False
    left_out: Sequence[str] = ()
    aliases: Collection[str] = ()

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any], alias: str) -> IndexInfo:
        """What the server says of an alias.

        Raises IndexConflict where the name is not an alias of ours.
        """
        if alias in answer:
            raise IndexConflict(
                f"{alias!r} is an index, not an alias made by `es-imgsearch init`:"
                " choose another --index, or remove it."
            )
        if len(answer) != 1:
            raise IndexConflict(
                f"Alias {alias!r} points to {len(answer)} indices ({', '.join(answer)});"
                " it must point to one."
            )
        ((name, body),) = answer.items()
        mappings = body["mappings"]
        return cls(
            name=name,
            meta=Meta.from_body(mappings.get("_meta", {}), alias),
            properties=mappings["properties"],
            is_loading=body["settings"]["index"].get("refresh_interval") == "-1",
            left_out=left_out_of_source(mappings),
            aliases=tuple(body.get("aliases", ())),
        )


class Roles(NamedTuple):
    """Names of the generations by what they are for; None where there is none."""

    serving: str
    next: str | None
    before: str | None


class Generations:
    """Makes, extends and drops the indices behind the alias, and keeps their `_meta`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._index = connection.index

    def info(self) -> IndexInfo:
        """The index behind the alias.

        Raises IndexMissing, or IndexConflict where the name is not an alias of ours.
        """
        return IndexInfo.from_answer(
            self._connection.send(info_request(self._connection.pictures)),
            self._connection.pictures,
        )

    def roles(self) -> Roles:
        """Which generation serves, which is being built and which served before.

        Raises IndexMissing where none serves, IndexConflict where the name is an index.
        """
        serving = self._behind(self._index)
        if serving is None:
            # An index of that name has no such alias, and is no index of ours.
            self.info()
            raise IndexMissing(
                f"There is no index {self._index!r} at {self._connection.address}: make it with"
                f" `es-imgsearch init --index {self._index}`."
            )
        return Roles(
            serving, self._behind(next_alias(self._index)), self._behind(before_alias(self._index))
        )

    def _behind(self, alias: str) -> str | None:
        try:
            return str(next(iter(self._connection.request("GET", f"/_alias/{alias}"))))
        except (IndexMissing, ImageMissing):
            return None

    def pin(self) -> str:
        """Give the generation that serves an alias of its own, and return its name.

        An index from before there were such aliases has none.
        """
        info = self.info()
        pinned = self._connection.at(info.name)
        if pinned.pictures not in info.aliases:
            names = {
                info.name: pinned.pictures,
                failures_generation(self._index, info.name): pinned.failures,
            }
            actions = [
                {"add": {"index": name, "alias": alias, "is_write_index": True}}
                for name, alias in names.items()
            ]
            self._connection.request("POST", "/_aliases", {"actions": actions})
        return info.name

    def create(
        self,
        meta: Meta,
        described: Iterable[Mapping[str, Any]] = (),
        *,
        for_loading: bool = False,
    ) -> None:
        """Templates, the first generation of both indices, the state, and their aliases.

        What an interrupted `create` left behind is completed, never replaced.  `for_loading`:
        with vectors that are only stored, not searchable until `end_loading`.
        """
        bodies = {
            self._index: index_body(meta, described),
            self._connection.failures: failures_body(),
        }
        for alias, body in bodies.items():
            self._connection.request("PUT", f"/_index_template/{alias}", template_body(alias, body))
        if for_loading:
            bodies[self._index] = loading_body(bodies[self._index])
        self.make_state()
        # The pictures' alias comes last: where it exists, everything does.
        for alias in (self._connection.failures, self._index):
            self.make_generation(alias, bodies[alias])

    def make_state(self) -> None:
        """Make the index of state documents; one that is there already stays as it is."""
        alias, body = state_alias(self._index), state_body()
        self._connection.request("PUT", f"/_index_template/{alias}", template_body(alias, body))
        self.make_generation(alias, body)

    def make_generation(self, alias: str, body: Mapping[str, Any]) -> None:
        """The first index behind an alias; one that is there already stays as it is."""
        try:
            self._connection.request(
                "PUT",
                f"/{first_generation(alias)}",
                {
                    **body,
                    "aliases": {
                        each: {"is_write_index": True}
                        for each in (alias, pinned_alias(first_generation(alias)))
                    },
                },
            )
        except StoreRejected as error:
            if "resource_already_exists" not in str(error):
                raise

    def begin_next(self, meta: Meta, described: Iterable[Mapping[str, Any]] = ()) -> str:
        """Make an empty generation behind the alias `<index>-next`, and return its name."""
        there = self._connection.request(
            "GET",
            f"/{self._index}-0*",
            params={"filter_path": "*.aliases", "expand_wildcards": "all"},
        )
        is_ours = re.compile(re.escape(self._index) + r"-\d{6,}")
        number = 1 + max(generation_number(each) for each in there if is_ours.fullmatch(each))
        name = generation_name(self._index, number)
        failures = failures_generation(self._index, name)
        # Perhaps one was begun and no more than these came of it; then they are empty.
        self._create(failures, {**failures_body(), "aliases": _writable(pinned_alias(failures))})
        # The pictures come last: where the alias exists, everything does.
        aliases = _writable(pinned_alias(name), next_alias(self._index))
        if not self._create(name, {**index_body(meta, described), "aliases": aliases}):
            raise AlreadyRunning(
                f"Another process begins {name} at this moment: see `es-imgsearch status --index"
                f" {self._index}`."
            )
        return name

    def _create(self, name: str, body: Mapping[str, Any]) -> bool:
        """Make an index of that name; False if there is one."""
        try:
            self._connection.request("PUT", f"/{name}", body)
        except StoreRejected as error:
            if "resource_already_exists" not in str(error):
                raise
            return False
        return True

    def drop(self, generation: str) -> None:
        """Delete a generation, and its failures."""
        for name in (generation, failures_generation(self._index, generation)):
            self._connection.request("DELETE", f"/{name}", params={"ignore_unavailable": "true"})

    def add_fields(self, info: IndexInfo, described: Iterable[Mapping[str, Any]] = ()) -> list[str]:
        """Map the fields that `create` would map today and the index lacks; their names.

        What is mapped already stays as it is.
        """
        body = index_body(info.meta, described)
        wanted = body["mappings"]["properties"]
        missing = sorted(
            name
            for name, mapping in wanted.items()
            if mapping.get("fields", {}).keys() - info.properties.get(name, {}).get("fields", {})
            or name not in info.properties
        )
        if missing:
            self._connection.request(
                "PUT",
                f"/_index_template/{self._index}",
                template_body(self._index, body, info.name),
            )
            added = {"properties": {name: wanted[name] for name in missing}}
            self._connection.request("PUT", f"/{info.name}/_mapping", added)
        return missing

    def map_fields(self, properties: Mapping[str, Mapping[str, Any]]) -> None:
        """Add these fields to the mapping."""
        if properties:
            self._connection.request(
                "PUT", f"/{self._connection.pictures}/_mapping", {"properties": dict(properties)}
            )

    def end_loading(
        self, properties: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]
    ) -> None:
        """Give vectors their graphs from now on, make everything searchable, and say so."""
        if properties:
            self._connection.request(
                "PUT", f"/{self._connection.pictures}/_mapping", {"properties": properties}
            )
        self._connection.request(
            "PUT", f"/{self._connection.pictures}/_settings", {"index": settings}
        )
        self._connection.refresh()

    def merge(self, *, wait_seconds: float) -> bool:
        """Merge the pictures into one segment; False if it goes on after `wait_seconds`."""
        patient = self._connection.client.options(request_timeout=wait_seconds)
        try:
            replace(self._connection, client=patient).request(
                "POST",
                f"/{self._connection.pictures}/_forcemerge",
                params={"max_num_segments": "1"},
            )
        except (StoreUnreachable, StoreBusy):
            return False
        return True

    def update_meta(self, change: Callable[[Meta], Meta]) -> Meta:
        """Read, change, write `_meta`, since the server replaces it whole.

        There is no compare-and-set for mappings, so the result is read back and the change
        applied again if another process came between.  One that read before and writes after
        that still undoes the change: what must not be lost has to leave a mark that is missed.
        """
        with _meta_lock:
            for _ in range(_META_TRIES):
                info = self.info()
                wanted = change(info.meta)
                if wanted == info.meta:
                    return wanted
                self._connection.request(
                    "PUT", f"/{info.name}/_mapping", {"_meta": wanted.to_body()}
                )
                if change(read_back := self.info().meta) == read_back:
                    return read_back
        raise StoreBusy(f"The _meta of {self._index!r} is being rewritten by others.")


def _writable(*aliases: str) -> dict[str, Any]:
    return {alias: {"is_write_index": True} for alias in aliases}
