"""Names of generations: the successive indices behind one alias.

    images ─────────▶ images-000001       serves: searched, watched, verified
    images-next ────▶ images-000002       is being built by `reindex`
    images-before ──▶ images-000000       served before, kept for `reindex --back`

Each has its own failures (`images-failures-000001`), which are switched with it, and an alias that
never moves (`images-000001-pinned`) for writers whose vectors fit it.  The roles are aliases, since
Elasticsearch moves several aliases atomically.
"""

from __future__ import annotations


def generation_name(alias: str, number: int) -> str:
    """Name of a generation, such as images-000002."""
    return f"{alias}-{number:06}"


def first_generation(alias: str) -> str:
    """Name of the generation that `init` creates."""
    return generation_name(alias, 1)


def generation_number(generation: str) -> int:
    """Parse the number of a generation.  Raises ValueError for another name."""
    return int(generation.rpartition("-")[2])


def failures_alias(index: str) -> str:
    """Alias of the failures."""
    return f"{index}-failures"


def failures_generation(index: str, generation: str) -> str:
    """Name of the index of failures of a generation of pictures."""
    return generation_name(failures_alias(index), generation_number(generation))


def pinned_alias(generation: str) -> str:
    """Alias that never leaves a generation."""
    return f"{generation}-pinned"


def next_alias(index: str) -> str:
    """Alias of the generation that is being built."""
    return f"{index}-next"


def before_alias(index: str) -> str:
    """Alias of the generation that served before."""
    return f"{index}-before"
