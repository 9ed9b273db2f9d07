"""Create, extend, load and drop the indices behind the alias; change their `Meta`."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

from es_imgsearch.elastic.client import Connection
from es_imgsearch.elastic.mapping import (
    Companion,
    failures_body,
    index_body,
    loading_body,
    template_body,
    with_analysers_of,
)
from es_imgsearch.elastic.meta import IndexInfo, Meta
from es_imgsearch.elastic.meta_entries import ShardLayout
from es_imgsearch.elastic.naming import (
    before_alias,
    failures_alias,
    failures_generation,
    first_generation,
    generation_name,
    generation_number,
    next_alias,
    no_index,
    pinned_alias,
)
from es_imgsearch.elastic.requests import info_request
from es_imgsearch.elastic.state import REFRESH_OFF, State
from es_imgsearch.errors import (
    AlreadyRunning,
    ImageMissing,
    IndexConflict,
    IndexMissing,
    StoreBusy,
    StoreError,
    StoreRejected,
    StoreUnreachable,
)

__all__ = ["Generations", "IndexInfo", "Roles"]

_Fields: TypeAlias = Iterable[Mapping[str, Any]]  # mappings that describers add


class Roles(NamedTuple):
    """Names of the generations by role; None where there is none."""

    serving: str
    next: str | None
    before: str | None


class Generations:
    """Create, extend and drop the indices behind the alias; change their `Meta`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._index = connection.index
        self._state = State(connection)

    def info(self) -> IndexInfo:
        """Read the index behind the alias, and the documents that belong to it.

        Raises IndexMissing, or IndexConflict if the name is not an alias of ours.
        """
        info = self.sealed()
        names = info.meta.document_ids
        documents = self._state.read_many((*names, REFRESH_OFF) if info.is_loading else names)
        # With that, refresh is off for a load that leaves the graphs as they are.
        is_loading = info.is_loading and documents.pop(REFRESH_OFF, None) is None
        return replace(info.with_documents(documents), is_loading=is_loading)

    def sealed(self) -> IndexInfo:
        """Read the index behind the alias, of its `meta` only the seal.  Raises as `info`."""
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
            self.sealed()
            raise IndexMissing(no_index(self._index, self._connection.address))
        return Roles(
            serving, self._behind(next_alias(self._index)), self._behind(before_alias(self._index))
        )

    def _behind(self, alias: str) -> str | None:
        try:
            return str(next(iter(self._connection.request("GET", f"/_alias/{alias}"))))
        except (IndexMissing, ImageMissing):
            return None

    def pin(self) -> tuple[str, str]:
        """Add the pinned alias to the serving generation if it lacks one.

        Returns the names of the generation and of its index.
        """
        info = self.sealed()
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
        return info.name, info.meta.index_id

    def create(
        self,
        meta: Meta,
        describer_fields: _Fields = (),
        *,
        for_loading: bool = False,
        layout: ShardLayout | None = None,
    ) -> None:
        """Create templates, the first generation, the state, and their aliases.

        An existing generation stays unchanged, also if two processes create it at once.
        `for_loading`: vectors are stored, but not searchable until `end_loading`.
        """
        self.make_state()
        if (serving := self._behind(self._index)) is not None:
            self.make_failures(serving)
            return
        meta = replace(meta, index_id=uuid.uuid4().hex, generation_id=uuid.uuid4().hex)
        name = generation_name(self._index, 1, meta.generation_id)
        bodies = {
            self._connection.failures: failures_body(),
            self._index: index_body(meta, describer_fields, layout),
        }
        for alias, body in bodies.items():
            template = template_body(alias, body, alias + name.removeprefix(self._index))
            self._connection.define(f"/_index_template/{alias}", template)
        self._store_documents(meta)
        if for_loading:
            bodies[self._index] = loading_body(bodies[self._index])
        for alias, body in bodies.items():
            each = alias + name.removeprefix(self._index)
            self._create(each, {**body, "aliases": _writable(pinned_alias(each))})
        self._publish(name)

    def make_failures(self, generation: str) -> None:
        """Create the failures of the serving generation; existing ones stay unchanged."""
        if self._behind(self._connection.failures) is None:
            name = failures_generation(self._index, generation)
            aliases = _writable(self._connection.failures, pinned_alias(name))
            self._create(name, {**failures_body(), "aliases": aliases})

    def _publish(self, name: str) -> None:
        """Add the aliases to a new generation, unless another process was faster.

        Both at once: if the alias of the pictures exists, everything does.  The server refuses a
        second write index behind one alias.
        """
        failures = self._connection.failures
        both = {name: self._index, failures_generation(self._index, name): failures}
        actions: list[dict[str, Any]] = [
            {"add": {"index": each, "alias": alias, "is_write_index": True}}
            for each, alias in both.items()
        ]
        if (left_over := self._behind(failures)) is not None:
            # Of an index whose pictures were deleted, or whose creation was interrupted.
            actions.insert(0, {"remove_index": {"index": left_over}})
        try:
            self._connection.request("POST", "/_aliases", {"actions": actions})
        except (StoreError, IndexMissing, ImageMissing):
            if (serving := self._behind(self._index)) is None:
                raise
            if serving != name:
                self.drop(name)

    def _store_documents(self, meta: Meta) -> None:
        """Store what a new generation begins with and its `_meta` does not hold."""
        sealed = Meta.from_body(meta.to_body(), self._index).to_documents()
        for name, document in meta.to_documents().items():
            if document != sealed[name]:
                self._state.create(name, document)

    def make_state(self) -> None:
        """Create the index of state documents; an existing index stays unchanged."""
        alias, body = Companion.STATE.alias(self._index), Companion.STATE.body()
        self._connection.define(f"/_index_template/{alias}", template_body(alias, body))
        self.make_generation(alias, body)

    def make_generation(self, alias: str, body: Mapping[str, Any]) -> None:
        """Create the first index behind an alias; an existing index stays unchanged."""
        name = first_generation(alias)
        self._create(name, {**body, "aliases": _writable(alias, pinned_alias(name))})

    def begin_next(
        self, meta: Meta, describer_fields: _Fields = (), layout: ShardLayout | None = None
    ) -> str:
        """Create an empty generation behind the alias `<index>-next`; return its name.

        It gets curves and codes of `meta`, and the roots of the index, which all generations share.
        """
        meta = replace(
            meta, index_id=self.sealed().meta.index_id, generation_id=uuid.uuid4().hex, roots={}
        )
        numbers = self._numbers(self._index)
        number = 1 + max(numbers.values())
        name = generation_name(self._index, number, meta.generation_id)
        failures_of_all = self._numbers(failures_alias(self._index))
        for left_over in [each for each in failures_of_all if failures_of_all[each] >= number]:
            # Of an interrupted call, empty.
            self._connection.request("DELETE", f"/{left_over}")
        failures = failures_generation(self._index, name)
        self._create(failures, {**failures_body(), "aliases": _writable(pinned_alias(failures))})
        self._store_documents(meta)
        # The pictures come last: if their alias exists, everything does.
        aliases = _writable(pinned_alias(name), next_alias(self._index))
        try:
            self._create(name, {**index_body(meta, describer_fields, layout), "aliases": aliases})
        except StoreError as error:
            if (other := self._behind(next_alias(self._index))) in {None, name}:
                raise
            self.drop(name)
            raise AlreadyRunning(
                f"Another process has just created {other}: see `es-imgsearch status --index"
                f" {self._index}`."
            ) from error
        return name

    def _numbers(self, alias: str) -> dict[str, int]:
        """Numbers of the indices named like generations, by their name."""
        existing = self._connection.request(
            "GET",
            f"/{alias}-0*",
            params={"filter_path": "*.aliases", "expand_wildcards": "all"},
        )
        return {
            name: number
            for name in existing
            if (number := generation_number(alias, name)) is not None
        }

    def _create(self, name: str, body: Mapping[str, Any]) -> None:
        """Create an index; an existing one stays unchanged."""
        try:
            self._connection.define(f"/{name}", body)
        except StoreRejected as error:
            if "resource_already_exists" not in str(error):
                raise

    def drop(self, generation: str) -> None:
        """Delete a generation and its failures."""
        for name in (generation, failures_generation(self._index, generation)):
            self._connection.request("DELETE", f"/{name}", params={"ignore_unavailable": "true"})

    def add_fields(self, info: IndexInfo, describer_fields: _Fields = ()) -> list[str]:
        """Map fields that `create` would map now and the index lacks.

        Returns their names.  Mapped fields stay unchanged.
        """
        body = index_body(info.meta, describer_fields)
        properties = with_analysers_of(info.properties, body["mappings"]["properties"])
        missing = sorted(
            name
            for name, mapping in properties.items()
            if mapping.get("fields", {}).keys() - info.properties.get(name, {}).get("fields", {})
            or name not in info.properties
        )
        if missing:
            template = template_body(self._index, body, info.name)
            self._connection.define(f"/_index_template/{self._index}", template)
            added = {name: properties[name] for name in missing}
            self._connection.request("PUT", f"/{info.name}/_mapping", {"properties": added})
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

    def merge(self, *, wait_seconds: float, segments: int = 1) -> bool:
        """Merge each shard into so many segments; False if that takes longer."""
        patient = self._connection.client.options(request_timeout=wait_seconds)
        try:
            replace(self._connection, client=patient).request(
                "POST",
                f"/{self._connection.pictures}/_forcemerge",
                params={"max_num_segments": str(segments)},
            )
        except (StoreUnreachable, StoreBusy):
            return False
        return True

    def update_meta(self, change: Callable[[Meta], Meta]) -> Meta:
        """Change roots or learned entries by compare-and-set; return what is stored then.

        `change` is called again after a conflict with another process, so it must be idempotent; an
        error that it raises ends this without a write.  Raises IndexConflict for an index of an
        earlier schema, ValueError for a change of the seal, StoreBusy.
        """
        meta = self.info().meta
        if not meta.document_ids:
            raise IndexConflict(
                f"Index {self._index!r} is of schema {meta.schema_version}: run `es-imgsearch init"
                f" --index {self._index}` once, which upgrades it."
            )
        changed = change(meta)
        seal = replace(changed.seal, spec=meta.seal.spec)
        if replace(changed, seal=seal, tuning=meta.tuning).to_body() != meta.to_body():
            raise ValueError("the seal of an index never changes")
        before, after = meta.to_documents(), changed.to_documents()
        for name in meta.document_ids:
            if before[name] != after[name]:
                meta = self._update_document(name, meta, change)
        return meta

    def _update_document(self, name: str, meta: Meta, change: Callable[[Meta], Meta]) -> Meta:
        def changed(stored: Mapping[str, Any] | None) -> Mapping[str, Any]:
            now = meta if stored is None else meta.with_documents({name: stored})
            return change(now).to_documents()[name]

        document = self._state.update(name, changed)
        return meta if document is None else meta.with_documents({name: document})


def _writable(*aliases: str) -> dict[str, Any]:
    return {alias: {"is_write_index": True} for alias in aliases}
