"""Switch the alias to another generation, and block writes.

Also guards work that a switch spoils.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from es_imgsearch.elastic.client import Connection
from es_imgsearch.elastic.generations import Generations
from es_imgsearch.elastic.mapping import failures_body, index_body, template_body
from es_imgsearch.elastic.naming import (
    before_alias,
    failures_alias,
    failures_generation,
    next_alias,
)
from es_imgsearch.errors import GenerationSwitched, IndexMissing, IndexReplaced, StoreBusy


class Switching:
    """Switches generations and blocks writes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._index = connection.index
        self._generations = Generations(connection)

    def check_serving(self) -> None:
        """Raise GenerationSwitched if this store's generation no longer serves.

        Raises IndexReplaced if the index was deleted and made again, IndexMissing if deleted.
        """
        held = self._connection.generation
        if held is None or (serving := self._generations.roles().serving) == held:
            return
        index_id = self._connection.index_id
        now = Generations(replace(self._connection, generation=None)).sealed()
        if index_id is not None and now.meta.index_id != index_id:
            raise IndexReplaced(
                f"Index {self._index!r} was deleted and made again, or its alias moved, while this"
                " ran, perhaps for another encoder: nothing is written to the new one. Start this"
                " again to use it."
            )
        raise GenerationSwitched(
            f"Index {self._index!r} is {serving} now and was {held}, perhaps of another"
            " encoder: begin again."
        )

    def has_switched(self) -> bool:
        """Check if another generation serves.  Raises IndexReplaced, IndexMissing."""
        try:
            self.check_serving()
        except GenerationSwitched:
            return True
        return False

    @contextmanager
    def while_serving(self, what: str) -> Iterator[None]:
        """Context for work that is lost if its generation stops serving meanwhile.

        Raises GenerationSwitched in that case, also in place of the error of a late write.
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
                f"Index {self._index!r} was switched to another generation while {what} ran: run it"
                " again."
            ) from error

    def block_writes(self) -> None:
        """Block writes; return when running ones have ended.

        Writers get `errors.StoreBusy` and wait; searches still work.
        """
        for alias in (self._connection.pictures, self._connection.failures):
            self._connection.request("PUT", f"/{alias}/_block/write")

    def allow_writes(self) -> None:
        """Undo `block_writes`."""
        for alias in (self._connection.pictures, self._connection.failures):
            self._connection.request(
                "PUT", f"/{alias}/_settings", {"index": {"blocks": {"write": None}}}
            )

    def is_blocked(self) -> bool:
        """Return True if any process has called `block_writes`."""
        answer = self._connection.request(
            "GET",
            f"/{self._connection.pictures}/_settings/index.blocks.write",
            params={"filter_path": "*.settings.index.blocks.write"},
        )
        return any(
            str(each["settings"]["index"]["blocks"]["write"]) == "true" for each in answer.values()
        )

    def switch_to(
        self, generation: str, describer_fields: Iterable[Mapping[str, Any]] = ()
    ) -> None:
        """Switch to this generation and keep the present one, in one atomic step."""
        serving = self._generations.roles().serving
        names, failed = self._index, failures_alias(self._index)
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
        self._connection.request("POST", "/_aliases", {"actions": actions})
        # A stray write to a missing alias must not make an index of guessed mappings.
        bodies = {
            names: index_body(
                Generations(self._connection.at(generation)).sealed().meta, describer_fields
            ),
            failed: failures_body(),
        }
        for alias, body in bodies.items():
            behind = alias + generation.removeprefix(names)
            template = template_body(alias, body, behind)
            self._connection.define(f"/_index_template/{alias}", template)
