"""Create, extend, load, drop the indices behind the alias; change their `_meta`."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from es_imgsearch.elastic.client import Connection
from es_imgsearch.elastic.mapping import (
    Companion,
    failures_body,
    index_body,
    loading_body,
    source_excludes,
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
# Excludes other threads of this process; other processes are noticed by reading back.
_meta_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """The concrete index behind the alias.

    `is_loading`: a bulk load into it has not ended yet.  `source_excludes` are the fields that its
    documents have outside of `_source`.
    """

    name: str
    meta: Meta
    properties: Mapping[str, Mapping[str, Any]]
    is_loading: bool = False
    source_excludes: Sequence[str] = ()
    aliases: Collection[str] = ()

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any], alias: str) -> IndexInfo:
        """Parse the answer to `info_request`.

        Raises IndexConflict if the name is not an alias of ours.
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
            source_excludes=source_excludes(mappings),
            aliases=tuple(body.get("aliases", ())),
        )


class Roles(NamedTuple):
    """Names of the generations by role; None where there is none."""

    serving: str
    next: str | None
    before: str | None


class Generations:
    """Create, extend and drop the indices behind the alias; change their `_meta`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._index = connection.index

    def info(self) -> IndexInfo:
        """Read the index behind the alias.

        Raises IndexMissing, or IndexConflict if the name is not an alias of ours.
        """
        return IndexInfo.from_answer(
            self._connection.send(info_request(self._connection.pictures)),
            self._connection.pictures,
        )

    def roles(self) -> Roles:
        """Read which generation serves, which is being built and which served before.

        Raises IndexMissing if none serves, IndexConflict if the name is an index.
        """
        serving = self._behind(self._index)
        if serving is None:
            # Raises IndexConflict for an index of that name.
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
        """Add the pinned alias to the serving generation if it lacks one; return its name."""
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
        describer_fields: Iterable[Mapping[str, Any]] = (),
        *,
        for_loading: bool = False,
    ) -> None:
        """Create templates, the first generation, the state, and their aliases.

        The first generation is of both indices.  An interrupted `create` is completed, never
        replaced.  `for_loading`: vectors are stored, but not searchable until `end_loading`.
        """
        bodies = {
            self._index: index_body(meta, describer_fields),
            self._connection.failures: failures_body(),
        }
        for alias, body in bodies.items():
            self._connection.request("PUT", f"/_index_template/{alias}", template_body(alias, body))
        if for_loading:
            bodies[self._index] = loading_body(bodies[self._index])
        self.make_state()
        # The alias of the pictures comes last: if it exists, everything does.
        for alias in (self._connection.failures, self._index):
            self.make_generation(alias, bodies[alias])

    def make_state(self) -> None:
        """Create the index of state documents; an existing index stays unchanged."""
        alias, body = Companion.STATE.alias(self._index), Companion.STATE.body()
        self._connection.request("PUT", f"/_index_template/{alias}", template_body(alias, body))
        self.make_generation(alias, body)

    def make_generation(self, alias: str, body: Mapping[str, Any]) -> None:
        """Create the first index behind an alias; an existing index stays unchanged."""
        name = first_generation(alias)
        self._create(name, {**body, "aliases": _writable(alias, pinned_alias(name))})

    def begin_next(self, meta: Meta, describer_fields: Iterable[Mapping[str, Any]] = ()) -> str:
        """Create an empty generation behind the alias `<index>-next`; return its name."""
        existing = self._connection.request(
            "GET",
            f"/{self._index}-0*",
            params={"filter_path": "*.aliases", "expand_wildcards": "all"},
        )
        is_ours = re.compile(re.escape(self._index) + r"-\d{6,}")
        number = 1 + max(generation_number(each) for each in existing if is_ours.fullmatch(each))
        name = generation_name(self._index, number)
        failures = failures_generation(self._index, name)
        # An interrupted call may have left them behind, empty.
        self._create(failures, {**failures_body(), "aliases": _writable(pinned_alias(failures))})
        # The pictures come last: if their alias exists, everything does.
        aliases = _writable(pinned_alias(name), next_alias(self._index))
        if not self._create(name, {**index_body(meta, describer_fields), "aliases": aliases}):
            raise AlreadyRunning(
                f"Another process has just created {name}: see `es-imgsearch status --index"
                f" {self._index}`."
            )
        return name

    def _create(self, name: str, body: Mapping[str, Any]) -> bool:
        """Create an index; False if it exists."""
        try:
            self._connection.request("PUT", f"/{name}", body)
        except StoreRejected as error:
            if "resource_already_exists" not in str(error):
                raise
            return False
        return True

    def drop(self, generation: str) -> None:
        """Delete a generation and its failures."""
        for name in (generation, failures_generation(self._index, generation)):
            self._connection.request("DELETE", f"/{name}", params={"ignore_unavailable": "true"})

    def add_fields(
        self, info: IndexInfo, describer_fields: Iterable[Mapping[str, Any]] = ()
    ) -> list[str]:
        """Map fields that `create` would map now and the index lacks.

        Returns their names.  Mapped fields stay unchanged.
        """
        body = index_body(info.meta, describer_fields)
        properties = body["mappings"]["properties"]
        missing = sorted(
            name
            for name, mapping in properties.items()
            if mapping.get("fields", {}).keys() - info.properties.get(name, {}).get("fields", {})
            or name not in info.properties
        )
        if missing:
            self._connection.request(
                "PUT",
                f"/_index_template/{self._index}",
                template_body(self._index, body, info.name),
            )
            added = {"properties": {name: properties[name] for name in missing}}
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
        """Map vectors with graphs, restore settings, and make everything searchable."""
        self.map_fields(properties)
        self._connection.request(
            "PUT", f"/{self._connection.pictures}/_settings", {"index": settings}
        )
        self._connection.refresh()

    def merge(self, *, wait_seconds: float) -> bool:
        """Merge the pictures into one segment.

        Returns False if that takes longer than `wait_seconds`.
        """
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
        """Read, change and write `_meta`, which the server replaces as a whole.

        Mappings have no compare-and-set, so the result is read back and the change applied again
        after a conflict.  A process that read before and writes after that still undoes it: a
        change that must not be lost needs a check of its own.
        """
        with _meta_lock:
            for _ in range(_META_TRIES):
                info = self.info()
                changed = change(info.meta)
                if changed == info.meta:
                    return changed
                self._connection.request(
                    "PUT", f"/{info.name}/_mapping", {"_meta": changed.to_body()}
                )
                if change(read_back := self.info().meta) == read_back:
                    return read_back
        raise StoreBusy(f"The _meta of {self._index!r} is being rewritten by others.")


def _writable(*aliases: str) -> dict[str, Any]:
    return {alias: {"is_write_index": True} for alias in aliases}
