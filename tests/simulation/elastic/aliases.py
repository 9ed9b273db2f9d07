"""Requests on aliases: show them, change several at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.simulation.elastic.indices import SimulatedIndex
from tests.simulation.elastic.names import Names
from tests.simulation.elastic.refusals import Refusal, illegal_argument, no_such_index
from tests.simulation.elastic.writes import Answer

ALIAS_OPTIONS = {"is_write_index"}


class Aliases:
    """The aliases of all indices."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def get(self, alias: str) -> Answer:
        """Show the indices behind an alias."""
        found = self._names.behind(alias)
        if not found:
            return 404, {"error": f"alias [{alias}] missing", "status": 404}
        return 200, {each.name: {"aliases": {alias: each.aliases[alias]}} for each in found}

    def change(self, body: Mapping[str, Any]) -> Answer:
        """Apply several changes of aliases, all or none."""
        actions = [next(iter(each.items())) for each in body["actions"]]
        before = dict(self._names.indices)
        aliases = {name: dict(each.aliases) for name, each in before.items()}
        try:
            # Indices and aliases are looked up, and indices removed, before anything else.
            targets = [self._target(kind, options) for kind, options in actions]
            found = [
                kind != "remove" or options["alias"] in index.aliases
                for (kind, options), index in zip(actions, targets, strict=True)
            ]
            absent = [
                options
                for (_, options), is_found in zip(actions, found, strict=True)
                if not is_found
            ]
            required = [each for each in absent if each.get("must_exist")]
            # If no action applies it is an error whatever `must_exist` says.
            if required or not any(found):
                raise _no_such_aliases([each["alias"] for each in required or absent])
            for (kind, _), index in zip(actions, targets, strict=True):
                if kind == "remove_index":
                    self._names.indices.pop(index.name, None)
            results = [
                self._apply(kind, options, index, is_found)
                for (kind, options), index, is_found in zip(actions, targets, found, strict=True)
            ]
            changed = {options.get("alias") for _, options in actions}
            self.check_write_indices(self._names.indices, [each for each in changed if each])
        except Refusal:
            self._names.indices.clear()
            self._names.indices.update(before)
            for name, index in before.items():
                index.aliases = aliases[name]
            raise
        errors = not all(found)
        answer = {"acknowledged": True, "errors": errors}
        return 200, {**answer, "action_results": results} if errors else answer

    def _target(self, kind: str, options: Mapping[str, Any]) -> SimulatedIndex:
        known = {
            "add": {"index", "alias", "is_write_index"},
            "remove": {"index", "alias", "must_exist"},
            "remove_index": {"index"},
        }
        if kind not in known or options.keys() - known[kind]:
            raise NotImplementedError(f"the action {kind} {options}")
        name = options["index"]
        if name not in self._names.indices:
            if self._names.behind(name):
                raise illegal_argument(
                    f"The provided expression [{name}] matches an alias, specify the corresponding"
                    " concrete indices instead."
                )
            raise no_such_index(name)
        index = self._names.indices[name]
        index.check_changeable()
        return index

    def _apply(
        self, kind: str, options: Mapping[str, Any], index: SimulatedIndex, is_found: bool
    ) -> dict[str, Any]:
        names = [options["alias"]] if "alias" in options else []
        action = {"type": kind, "indices": [index.name], "aliases": names}
        if not is_found:
            return {"action": action, "status": 404, "error": _no_such_aliases(names).error}
        if kind != "remove_index" and index.name not in self._names.indices:
            raise no_such_index(index.name)
        if kind == "add":
            self.check_name(options["alias"])
            index.aliases[options["alias"]] = {
                name: value for name, value in options.items() if name in ALIAS_OPTIONS
            }
        elif kind == "remove":
            index.aliases.pop(options["alias"], None)
        return {"action": action, "status": 200}

    def check_name(self, alias: str) -> None:
        """Raise Refusal for an alias that an index is named like."""
        if alias in self._names.indices:
            raise Refusal(
                400,
                "invalid_alias_name_exception",
                f"Invalid alias name [{alias}]: an index or data stream exists with the same name"
                " as the alias",
                index_uuid="_na_",
                index=alias,
            )

    def check_write_indices(
        self, indices: Mapping[str, SimulatedIndex], aliases: Sequence[str] | Mapping[str, Any]
    ) -> None:
        """Raise Refusal if an alias has two write indices."""
        for alias in aliases:
            writable = [
                each.name
                for each in indices.values()
                if each.aliases.get(alias, {}).get("is_write_index")
            ]
            if len(writable) > 1:
                raise Refusal(
                    500,
                    "illegal_state_exception",
                    f"alias [{alias}] has more than one write index [{','.join(writable)}]",
                )


def _no_such_aliases(names: Sequence[str]) -> Refusal:
    distinct = list(dict.fromkeys(names))
    details: dict[str, Any] = {"resource.type": "aliases", "resource.id": ",".join(distinct)}
    reason = f"aliases [{', '.join(distinct)}] missing"
    return Refusal(404, "aliases_not_found_exception", reason, **details)
