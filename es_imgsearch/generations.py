"""Generations: the indices that stand behind one alias one after the other, and their names.

    images ─────────▶ images-000001       serves: searched, watched, verified
    images-next ────▶ images-000002       is being built by `reindex`
    images-before ──▶ images-000000       served before, kept to go back to

Each has its own failures (`images-failures-000001`), which are switched along, and an alias that
never moves (`images-000001-pinned`), by which those write to it whose vectors fit it.  The roles
are aliases, so that Elasticsearch exchanges all of them at one moment.

Pure values: nothing here talks to Elasticsearch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


def generation_name(alias: str, number: int) -> str:
    return f"{alias}-{number:06}"


def first_generation(alias: str) -> str:
    return generation_name(alias, 1)


def generation_number(generation: str) -> int:
    """Which one an index like `images-000002` is.  Raises ValueError for another name."""
    return int(generation.rpartition("-")[2])


def failures_alias(index: str) -> str:
    return f"{index}-failures"


def failures_generation(index: str, generation: str) -> str:
    """The index of failures that belongs to a generation of pictures."""
    return generation_name(failures_alias(index), generation_number(generation))


def pinned_alias(generation: str) -> str:
    """The alias that never leaves a generation."""
    return f"{generation}-pinned"


def next_alias(index: str) -> str:
    """The alias of the generation that is being built."""
    return f"{index}-next"


def before_alias(index: str) -> str:
    """The alias of the generation that served before."""
    return f"{index}-before"


@dataclass(frozen=True, slots=True)
class Carried:
    """How far a generation holds what another one holds, as its `_meta` tells.

    `until` are sequence numbers, by shard, of the generation `source`: what was written there
    later is not here yet, and nor is what could not be carried.
    """

    source: str
    until: Mapping[str, int] = field(default_factory=dict)

    def to_body(self) -> dict[str, Any]:
        return {"source": self.source, "until": dict(self.until)}

    @classmethod
    def from_body(cls, body: Mapping[str, Any] | None) -> Carried | None:
        """Raises KeyError or TypeError for what is not one."""
        return None if body is None else cls(body["source"], dict(body["until"]))


@dataclass(frozen=True, slots=True)
class Builder:
    """The process that builds a generation, as its `_meta` tells.

    `process_space` says where its number means anything, and `process_start` which process of that
    number it is, see `process_identity`; `token` is another for every time.  `since` and `seen_at`
    are ISO 8601, UTC.
    """

    host: str
    process_id: int
    process_space: str | None
    process_start: int | None
    token: str
    since: str
    seen_at: str

    def to_body(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_body(cls, body: Mapping[str, Any] | None) -> Builder | None:
        """Raises TypeError for what is not one."""
        return None if body is None else cls(**body)
