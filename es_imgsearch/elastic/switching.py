"""Generations side by side: begun, filled behind the alias, switched, dropped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

from es_imgsearch.elastic.documents import action_line, json_line
from es_imgsearch.elastic.mapping import failures_body, index_body, template_body
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.naming import (
    before_alias,
    failures_alias,
    failures_generation,
    generation_name,
    generation_number,
    next_alias,
    pinned_alias,
)
from es_imgsearch.elastic.requests import NDJSON
from es_imgsearch.elastic.rewrites import Rewrites, whole_documents_body
from es_imgsearch.errors import (
    AlreadyRunning,
    GenerationSwitched,
    ImageMissing,
    IndexMissing,
    StoreBusy,
    StoreRejected,
)

_FAILURES_AT_ONCE = 500
_BY_PATH = [{"root": "asc"}, {"relative_path": "asc"}]


class Roles(NamedTuple):
    """Names of the generations by what they are for; None where there is none."""

    serving: str
    next: str | None
    before: str | None


class Switching(Rewrites):
    """What `reindex` does with the indices behind the alias."""

    def roles(self) -> Roles:
        """Which generation serves, which is being built and which served before.

        Raises IndexMissing where none serves, IndexConflict where the name is an index.
        """
        serving = self._behind(self.index)
        if serving is None:
            # An index of that name has no such alias, and is no index of ours.
            self.info()
            raise IndexMissing(
                f"There is no index {self.index!r} at {self.address}: make it with"
                f" `es-imgsearch init --index {self.index}`."
            )
        return Roles(
            serving, self._behind(next_alias(self.index)), self._behind(before_alias(self.index))
        )

    def _behind(self, alias: str) -> str | None:
        try:
            return str(next(iter(self.request("GET", f"/_alias/{alias}"))))
        except (IndexMissing, ImageMissing):
            return None

    def at(self, generation: str) -> Self:
        """This store, held to a generation whatever it is for; see `pinned`."""
        return type(self)(self.client, self.index, generation=generation)

    def check_serving(self) -> None:
        """Raise GenerationSwitched where this is held to a generation that no longer serves."""
        held = self.generation
        if held is not None and (serving := self.roles().serving) != held:
            raise GenerationSwitched(
                f"Index {self.index!r} is {serving} now and was {held}, perhaps of another encoder:"
                " begin again."
            )

    @contextmanager
    def while_serving(self, what: str) -> Iterator[None]:
        """For work that is lost on a generation that stops serving meanwhile.

        Raises GenerationSwitched where it did, also in place of what the server says to whoever
        still writes there.
        """
        try:
            yield
        except (GenerationSwitched, IndexMissing, StoreBusy):
            self._check_still_serving(what)
            raise
        self._check_still_serving(what)

    def _check_still_serving(self, what: str) -> None:
        try:
            self.check_serving()
        except GenerationSwitched as error:
            raise GenerationSwitched(
                f"Index {self.index!r} was switched to another generation while {what} ran: run it"
                " again."
            ) from error

    def begin_next(self, meta: Meta, described: Iterable[Mapping[str, Any]] = ()) -> Self:
        """An empty generation behind the alias `<index>-next`, and the store that fills it."""
        there = self.request(
            "GET",
            f"/{self.index}-0*",
            params={"filter_path": "*.aliases", "expand_wildcards": "all"},
        )
        is_ours = re.compile(re.escape(self.index) + r"-\d{6,}")
        number = 1 + max(generation_number(each) for each in there if is_ours.fullmatch(each))
        name = generation_name(self.index, number)
        failures = failures_generation(self.index, name)
        # Perhaps one was begun and no more than these came of it; then they are empty.
        self._create(failures, {**failures_body(), "aliases": _writable(pinned_alias(failures))})
        # The pictures come last: where the alias exists, everything does.
        aliases = _writable(pinned_alias(name), next_alias(self.index))
        if not self._create(name, {**index_body(meta, described), "aliases": aliases}):
            raise AlreadyRunning(
                f"Somebody else begins {name} at this moment: see `es-imgsearch status --index"
                f" {self.index}`."
            )
        return self.at(name)

    def _create(self, name: str, body: Mapping[str, Any]) -> bool:
        """Make an index of that name; False if there is one."""
        try:
            self.request("PUT", f"/{name}", body)
        except StoreRejected as error:
            if "resource_already_exists" not in str(error):
                raise
            return False
        return True

    def keep_failures(self, failures: Sequence[Mapping[str, Any]]) -> None:
        """Store failures as they are, attempts and all; their pictures are removed."""
        for start in range(0, len(failures), _FAILURES_AT_ONCE):
            lines = []
            for each in failures[start : start + _FAILURES_AT_ONCE]:
                image_id = each["image_id"]
                lines += [
                    action_line("index", self.failures, image_id),
                    json_line(each),
                    action_line("delete", self.pictures, image_id),
                ]
            for error in self.bulk(b"".join(lines), NDJSON["content-type"]):
                if error is not None:
                    raise error

    def map_fields(self, properties: Mapping[str, Mapping[str, Any]]) -> None:
        """Add these fields to the mapping."""
        if properties:
            self.request("PUT", f"/{self.pictures}/_mapping", {"properties": dict(properties)})

    def checkpoints(self) -> dict[str, int]:
        """By shard the sequence number up to which everything can be searched from now on."""
        answer = self.request(
            "GET",
            f"/{self.pictures}/_stats",
            params={
                "level": "shards",
                "filter_path": "indices.*.shards.*.routing.primary,indices.*.shards.*.seq_no",
            },
        )
        # What was acknowledged before these were read is made searchable after.
        self.refresh()
        ((_, index),) = answer["indices"].items()
        return {
            shard: int(copy["seq_no"]["global_checkpoint"])
            for shard, copies in index["shards"].items()
            for copy in copies
            if copy["routing"]["primary"]
        }

    def changed_since(
        self, until: Mapping[str, int], left_out: Sequence[str], size: int
    ) -> Iterator[Sequence[Mapping[str, Any]]]:
        """Pages of the whole documents written after these checkpoints, as hits.

        A shard that is not among them is read as a whole.
        """
        for shard in self.checkpoints():
            newer = {"range": {"_seq_no": {"gt": until.get(shard, -1)}}}
            body = {**whole_documents_body([newer], left_out), "size": size, "sort": _BY_PATH}
            while hits := self.whole_hits(body, preference=f"_shards:{shard}"):
                yield hits
                if len(hits) < size:
                    break
                body["search_after"] = hits[-1]["sort"]

    def block_writes(self) -> None:
        """Let nothing more be written; returns when what was under way has ended.

        Whoever writes is told to wait, see `errors.StoreBusy`; searching goes on.
        """
        for alias in (self.pictures, self.failures):
            self.request("PUT", f"/{alias}/_block/write")

    def allow_writes(self) -> None:
        for alias in (self.pictures, self.failures):
            self.request("PUT", f"/{alias}/_settings", {"index": {"blocks": {"write": None}}})

    def is_blocked(self) -> bool:
        """Whether `block_writes` was called, by whoever."""
        answer = self.request(
            "GET",
            f"/{self.pictures}/_settings/index.blocks.write",
            params={"filter_path": "*.settings.index.blocks.write"},
        )
        return any(
            str(each["settings"]["index"]["blocks"]["write"]) == "true" for each in answer.values()
        )

    def switch_to(self, generation: str, described: Iterable[Mapping[str, Any]] = ()) -> None:
        """Have this generation serve and keep the one that did, at one moment for everybody."""
        serving = self.roles().serving
        names, failed = self.index, failures_alias(self.index)
        actions: list[dict[str, Any]] = []
        for alias, old, new in (
            (names, serving, generation),
            (
                failed,
                failures_generation(names, serving),
                failures_generation(names, generation),
            ),
        ):
            actions += [
                {"remove": {"index": old, "alias": alias}},
                {"add": {"index": new, "alias": alias, "is_write_index": True}},
            ]
        for role in (next_alias(names), before_alias(names)):
            actions.append({"remove": {"index": generation, "alias": role, "must_exist": False}})
        actions.append({"add": {"index": serving, "alias": before_alias(names)}})
        self.request("POST", "/_aliases", {"actions": actions})
        # A stray write to a missing alias must not make an index of guessed mappings.
        bodies = {
            names: index_body(self.at(generation).info().meta, described),
            failed: failures_body(),
        }
        for alias, body in bodies.items():
            template = template_body(
                alias, body, generation_name(alias, generation_number(generation))
            )
            self.request("PUT", f"/_index_template/{alias}", template)

    def drop(self, generation: str) -> None:
        """Delete a generation, and its failures."""
        for name in (generation, failures_generation(self.index, generation)):
            self.request("DELETE", f"/{name}", params={"ignore_unavailable": "true"})


def _writable(*aliases: str) -> dict[str, Any]:
    return {alias: {"is_write_index": True} for alias in aliases}
