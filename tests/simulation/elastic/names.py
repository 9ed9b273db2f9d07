"""Names: which indices a name, an alias, a list or a pattern of them means."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from tests.simulation.elastic.indices import SimulatedIndex
from tests.simulation.elastic.refusals import illegal_argument, no_such_index


class Names:
    """All indices by name, and the aliases that point to them."""

    def __init__(self) -> None:
        self.indices: dict[str, SimulatedIndex] = {}

    def behind(self, alias: str) -> list[SimulatedIndex]:
        """The indices that an alias points to, by name."""
        return [each for _, each in sorted(self.indices.items()) if alias in each.aliases]

    def resolve(
        self, expression: str, *, ignore_unavailable: bool = False, aliases: bool = True
    ) -> list[SimulatedIndex]:
        """List the indices that an expression means, in its order, each once.

        Raises Refusal for a name that nothing has; a pattern may match nothing.
        """
        found: dict[str, SimulatedIndex] = {}
        for part in expression.split(","):
            if "*" in part:
                matching = self._matching(part, aliases)
            elif part in self.indices:
                matching = [self.indices[part]]
            elif aliases and (behind := self.behind(part)):
                matching = behind
            elif ignore_unavailable:
                continue
            else:
                raise no_such_index(part)
            found.update((each.name, each) for each in matching)
        return list(found.values())

    def _matching(self, pattern: str, aliases: bool) -> list[SimulatedIndex]:
        if pattern.startswith("-"):
            raise NotImplementedError(f"the pattern {pattern!r}")
        return [
            each
            for name, each in sorted(self.indices.items())
            if fnmatchcase(name, pattern)
            or (aliases and any(fnmatchcase(alias, pattern) for alias in each.aliases))
        ]

    def one(self, name: str) -> SimulatedIndex:
        """The one index that a document is read from.  Raises Refusal."""
        found = self.resolve(name)
        if len(found) != 1:
            names = ", ".join(each.name for each in found)
            raise illegal_argument(
                f"alias [{name}] has more than one index associated with it [{names}], can't"
                " execute a single index op"
            )
        return found[0]

    def to_write(self, name: str, *, require_alias: bool = False) -> SimulatedIndex:
        """The index that a write to this name goes to.  Raises Refusal."""
        behind = self.behind(name)
        if require_alias and not behind:
            raise no_such_index(name, require_alias=True)
        if not behind:
            if name not in self.indices:
                raise no_such_index(name)
            return self.indices[name]
        writable = [each for each in behind if each.aliases[name].get("is_write_index")]
        if not writable and len(behind) == 1:
            options: Mapping[str, object] = behind[0].aliases[name]
            if options.get("is_write_index") is None:
                writable = behind
        if not writable:
            raise illegal_argument(
                f"no write index is defined for alias [{name}]. The write index may be explicitly"
                " disabled using is_write_index=false or the alias points to multiple indices"
                " without one being designated as a write index"
            )
        return writable[0]
