"""Requests on indices: create, delete, mappings, settings, blocks, templates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from tests.simulation.elastic.aliases import ALIAS_OPTIONS, Aliases
from tests.simulation.elastic.indices import SimulatedIndex, flat_settings, nested_settings
from tests.simulation.elastic.mapping import IndexMapping
from tests.simulation.elastic.names import Names
from tests.simulation.elastic.refusals import Refusal, illegal_argument
from tests.simulation.elastic.writes import Answer

_ACKNOWLEDGED = {"acknowledged": True}


class Admin:
    """Requests on indices and templates."""

    def __init__(self, names: Names) -> None:
        self._names, self._aliases = names, Aliases(names)
        self._templates: dict[str, Mapping[str, Any]] = {}
        self._created = 0

    # -- indices -----------------------------------------------------------------------------

    def create(self, name: str, body: Mapping[str, Any]) -> Answer:
        """Create an index, with the template that matches its name."""
        self._check_name(name)
        mappings, settings, aliases = self._with_template(name, body)
        if settings.get("index.number_of_shards", "1") != "1":
            raise NotImplementedError(f"{settings['index.number_of_shards']} shards")
        for alias in aliases:
            self._aliases.check_name(alias)
        if name in aliases:
            raise illegal_argument(f"alias name [{name}] self-conflicts with index name")
        self._created += 1
        # The length of the server's; the same in every run.
        uuid = f"simulated{self._created:013}"
        index = SimulatedIndex(name, uuid, IndexMapping(mappings), settings)
        for alias, options in aliases.items():
            index.aliases[alias] = dict(options)
        self._aliases.check_write_indices({**self._names.indices, name: index}, aliases)
        self._names.indices[name] = index
        return 200, {**_ACKNOWLEDGED, "shards_acknowledged": True, "index": name}

    def _check_name(self, name: str) -> None:
        if (existing := self._names.indices.get(name)) is not None:
            raise Refusal(
                400,
                "resource_already_exists_exception",
                f"index [{name}/{existing.uuid}] already exists",
                index_uuid=existing.uuid,
                index=name,
            )
        if self._names.behind(name):
            raise Refusal(
                400,
                "invalid_index_name_exception",
                f"Invalid index name [{name}], already exists as alias",
                index_uuid="_na_",
                index=name,
            )
        if name != name.lower() or name[:1] in "-_+" or set(name) & set(' "*\\<|,>/?#:'):
            raise NotImplementedError(f"an index named {name!r}")

    def _with_template(
        self, name: str, body: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if unknown := body.keys() - {"mappings", "settings", "aliases"}:
            raise NotImplementedError(f"an index made with {sorted(unknown)}")
        matching = [
            each
            for each in self._templates.values()
            if any(fnmatchcase(name, pattern) for pattern in each["index_patterns"])
        ]
        template = max(matching, key=lambda each: int(each.get("priority", 0)), default={})
        base = template.get("template", {})
        settings = {
            **flat_settings(base.get("settings", {})),
            **flat_settings(body.get("settings", {})),
        }
        aliases = {**base.get("aliases", {}), **body.get("aliases", {})}
        for alias, options in aliases.items():
            if options.keys() - ALIAS_OPTIONS:
                raise NotImplementedError(f"the alias {alias} {options}")
        defaults = {"index.number_of_shards": "1", "index.number_of_replicas": "0"}
        return (
            _merged(base.get("mappings", {}), body.get("mappings", {})),
            {**defaults, **settings},
            aliases,
        )

    def describe(self, expression: str, params: Mapping[str, str]) -> Answer:
        """Describe indices with their aliases, mappings and settings."""
        ignore = params.get("ignore_unavailable") == "true"
        found = self._names.resolve(expression, ignore_unavailable=ignore)
        return 200, {each.name: each.described() for each in found}

    def delete(self, expression: str, params: Mapping[str, str]) -> Answer:
        """Delete indices, which must be named, not their aliases."""
        ignore = params.get("ignore_unavailable") == "true"
        parts = expression.split(",")
        if any("*" in each for each in parts):
            raise illegal_argument("Wildcard expressions or all indices are not allowed")
        for each in parts:
            if self._names.behind(each) and not ignore:
                raise illegal_argument(
                    f"The provided expression [{each}] matches an alias, specify the corresponding"
                    " concrete indices instead."
                )
            # Names are checked in their order: the first that is wrong is reported.
            self._names.resolve(each, ignore_unavailable=ignore, aliases=False)
        found = self._names.resolve(expression, ignore_unavailable=ignore, aliases=False)
        for index in found:
            index.check_changeable()
        for index in found:
            del self._names.indices[index.name]
        return 200, dict(_ACKNOWLEDGED)

    def refresh(self, expression: str) -> Answer:
        """Make everything searchable."""
        found = self._names.resolve(expression)
        for index in found:
            index.check_open()
        for index in found:
            index.refresh()
        count = len(found)
        return 200, {"_shards": {"total": count, "successful": count, "failed": 0}}

    def statistics(self, expression: str) -> Answer:
        """Sequence numbers by shard (`_stats` with level=shards, these parts only)."""
        numbers = ("max_seq_no", "local_checkpoint", "global_checkpoint")
        found = self._names.resolve(expression)
        for index in found:
            index.check_open()
        return 200, {
            "indices": {
                each.name: {
                    "shards": {
                        "0": [
                            {
                                "routing": {"primary": True},
                                "seq_no": dict.fromkeys(numbers, each.max_seq_no),
                            }
                        ]
                    }
                }
                for each in found
            }
        }

    # -- mappings, settings, blocks ------------------------------------------------------------

    def put_mapping(self, expression: str, body: Mapping[str, Any]) -> Answer:
        """Change the mappings of all that the expression means, or of none."""
        found = self._names.resolve(expression)
        for index in found:
            index.check_changeable()
            IndexMapping(index.mapping.body).update(body)
        for index in found:
            index.mapping.update(body)
        return 200, dict(_ACKNOWLEDGED)

    def put_settings(self, expression: str, body: Mapping[str, Any]) -> Answer:
        """Change settings."""
        for index in self._names.resolve(expression):
            index.change_settings(flat_settings(body))
        return 200, dict(_ACKNOWLEDGED)

    def get_settings(self, expression: str, name: str) -> Answer:
        """Show one setting, of the indices that have it."""
        return 200, {
            each.name: {"settings": nested_settings({name: each.settings[name]})}
            for each in self._names.resolve(expression)
            if name in each.settings
        }

    def block(self, expression: str, block: str) -> Answer:
        """Add a block."""
        found = self._names.resolve(expression)
        for index in found:
            if block != "write":
                raise NotImplementedError(f"_block/{block}")
            index.check_changeable()
        blocked = [{"name": each.name, "blocked": True} for each in found if each.block_writes()]
        return 200, {**_ACKNOWLEDGED, "shards_acknowledged": bool(blocked), "indices": blocked}

    def set_closed(self, expression: str, *, closed: bool) -> Answer:
        """Close or open indices."""
        found = self._names.resolve(expression)
        changed = [index for index in found if index.is_closed != closed]
        for index in changed:
            index.set_closed(closed)
        if not closed:
            return 200, {**_ACKNOWLEDGED, "shards_acknowledged": True}
        names = {each.name: {"closed": True} for each in changed}
        return 200, {**_ACKNOWLEDGED, "shards_acknowledged": bool(names), "indices": names}

    # -- templates ---------------------------------------------------------------------------

    def put_template(self, name: str, body: Mapping[str, Any]) -> Answer:
        """Store an index template."""
        known = {"index_patterns", "priority", "template", "_meta"}
        if body.keys() - known or any("*" in each for each in body["index_patterns"]):
            raise NotImplementedError(f"the template {sorted(body)}")
        IndexMapping(body.get("template", {}).get("mappings", {}))
        for other in self._overlapping(name, body):
            raise illegal_argument(
                f"index template [{name}] has index patterns {body['index_patterns']} matching"
                f" patterns from existing templates [{other}] with the same priority"
            )
        self._templates[name] = body
        return 200, dict(_ACKNOWLEDGED)

    def _overlapping(self, name: str, body: Mapping[str, Any]) -> Iterator[str]:
        for other, stored in self._templates.items():
            if (
                other != name
                and stored.get("priority", 0) == body.get("priority", 0)
                and set(stored["index_patterns"]) & set(body["index_patterns"])
            ):
                yield other

    def delete_template(self, name: str) -> Answer:
        """Delete an index template."""
        if self._templates.pop(name, None) is None:
            kind = "index_template_missing_exception"
            raise Refusal(404, kind, f"index_template [{name}] missing")
        return 200, dict(_ACKNOWLEDGED)


def _merged(base: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings of a template, with those of a request over them; a field is replaced whole."""
    merged = {**base, **body}
    if "properties" in base or "properties" in body:
        merged["properties"] = {**base.get("properties", {}), **body.get("properties", {})}
    if "_meta" in base and "_meta" in body:
        merged["_meta"] = _deep(base["_meta"], body["_meta"])
    return merged


def _deep(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**base, **over}
    for name in base.keys() & over.keys():
        if isinstance(base[name], Mapping) and isinstance(over[name], Mapping):
            merged[name] = _deep(base[name], over[name])
    return merged
