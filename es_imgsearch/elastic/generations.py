"""The index behind the alias: made, extended, loaded, and its `_meta`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from es_imgsearch.elastic.client import Requests
from es_imgsearch.elastic.mapping import (
    failures_body,
    index_body,
    left_out_of_source,
    loading_body,
    template_body,
)
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.naming import failures_generation, first_generation, pinned_alias
from es_imgsearch.elastic.requests import info_request
from es_imgsearch.errors import IndexConflict, StoreBusy, StoreRejected, StoreUnreachable

_META_TRIES = 5
# Within a process nobody comes between; between processes it is read back.
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


class Generations(Requests):
    """What may be done with the index as a whole."""

    def version(self) -> str:
        return str(self.request("GET", "/")["version"]["number"])

    def info(self) -> IndexInfo:
        """The index behind the alias.

        Raises IndexMissing, or IndexConflict where the name is not an alias of ours.
        """
        return IndexInfo.from_answer(self.send(info_request(self.pictures)), self.pictures)

    def pinned(self) -> Self:
        """This store, held to the generation that the alias points to now.

        A writer whose vectors fit one generation must not write into the next by surprise, and
        names of indices are no protection: a bulk makes an index that is not there.  So each
        generation has an alias of its own, which is made here for an index from before there was
        one.
        """
        if self.generation is not None:
            return self
        info = self.info()
        pinned = type(self)(self.client, self.index, generation=info.name)
        if pinned.pictures not in info.aliases:
            names = {
                info.name: pinned.pictures,
                failures_generation(self.index, info.name): pinned.failures,
            }
            self.request(
                "POST",
                "/_aliases",
                {
                    "actions": [
                        {"add": {"index": name, "alias": alias, "is_write_index": True}}
                        for name, alias in names.items()
                    ]
                },
            )
        return pinned

    def create(
        self,
        meta: Meta,
        described: Iterable[Mapping[str, Any]] = (),
        *,
        for_loading: bool = False,
    ) -> None:
        """Templates, the first generation of both indices, and their aliases.

        What an interrupted `create` left behind is completed, never replaced.  `for_loading`:
        with vectors that are only stored, not searchable until `end_loading`.
        """
        bodies = {self.index: index_body(meta, described), self.failures: failures_body()}
        for alias, body in bodies.items():
            self.request("PUT", f"/_index_template/{alias}", template_body(alias, body))
        if for_loading:
            bodies[self.index] = loading_body(bodies[self.index])
        # The pictures' alias comes last: where it exists, everything does.
        for alias in (self.failures, self.index):
            self.make_generation(alias, bodies[alias])

    def make_generation(self, alias: str, body: Mapping[str, Any]) -> None:
        """The first index behind an alias; one that is there already stays as it is."""
        try:
            self.request(
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
            self.request(
                "PUT", f"/_index_template/{self.index}", template_body(self.index, body, info.name)
            )
            added = {"properties": {name: wanted[name] for name in missing}}
            self.request("PUT", f"/{info.name}/_mapping", added)
        return missing

    def end_loading(
        self, properties: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]
    ) -> None:
        """Give vectors their graphs from now on, make everything searchable, and say so."""
        if properties:
            self.request("PUT", f"/{self.pictures}/_mapping", {"properties": properties})
        self.request("PUT", f"/{self.pictures}/_settings", {"index": settings})
        self.refresh()

    def merge(self, *, wait_seconds: float) -> bool:
        """Rewrite the pictures into one segment; False if it goes on after `wait_seconds`."""
        patient = Requests(
            self.client.options(request_timeout=wait_seconds),
            self.index,
            generation=self.generation,
        )
        try:
            patient.request(
                "POST", f"/{self.pictures}/_forcemerge", params={"max_num_segments": "1"}
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
                self.request("PUT", f"/{info.name}/_mapping", {"_meta": wanted.to_body()})
                if change(read_back := self.info().meta) == read_back:
                    return read_back
        raise StoreBusy(f"The _meta of {self.index!r} is being rewritten by others.")
