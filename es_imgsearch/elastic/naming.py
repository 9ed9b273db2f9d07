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
