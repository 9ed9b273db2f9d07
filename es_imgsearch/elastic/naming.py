"""Names of generations: the successive indices behind one alias.

    images ─────────▶ images-000002-5f0c4e1b    serves: searched, watched, verified
    images-next ────▶ images-000003-a83d9672    is being built by `reindex`
    images-before ──▶ images-000001-07be11d4    served before, kept for `reindex --back`

A name is never used again: it ends with the first 8 digits of a random `generation_id` (schemas 1
and 2 had names without).  So a process that holds a name cannot take an index that was deleted and
made again for its own: its writes find no index, and hits of the new one have another `_index`.

Each has its own failures (`images-failures-000002-5f0c4e1b`), which are switched with it, and an
alias that never moves (`images-000002-5f0c4e1b-pinned`) for writers whose vectors fit it.  The
roles are aliases, since Elasticsearch moves several aliases atomically.
"""

from __future__ import annotations

import re

_ID_DIGITS = 8


def generation_name(index: str, number: int, generation_id: str) -> str:
    """Name of a generation, such as images-000002-5f0c4e1b."""
    return f"{index}-{number:06}-{generation_id[:_ID_DIGITS]}"


def first_generation(alias: str) -> str:
    """Name of the first index behind an alias of a companion."""
    return f"{alias}-{1:06}"


def generation_number(index: str, name: str) -> int | None:
    """Parse the number of a generation of `index`; None for another name."""
    found = re.fullmatch(rf"{re.escape(index)}-(\d{{6,}})(-[0-9a-f]{{{_ID_DIGITS}}})?", name)
    return None if found is None else int(found[1])


def failures_alias(index: str) -> str:
    """Alias of the failures."""
    return f"{index}-failures"


def failures_generation(index: str, generation: str) -> str:
    """Name of the index of failures of a generation of pictures."""
    return failures_alias(index) + generation.removeprefix(index)


def pinned_alias(generation: str) -> str:
    """Alias that never leaves a generation."""
    return f"{generation}-pinned"


def next_alias(index: str) -> str:
    """Alias of the generation that is being built."""
    return f"{index}-next"


def before_alias(index: str) -> str:
    """Alias of the generation that served before."""
    return f"{index}-before"


def no_index(index: str, address: str) -> str:
    """Say that there is no such index, and how to make it on any machine."""
    command = f"es-imgsearch init --index {index}"
    return (
        f"There is no index {index!r} at {address}: make it with `{command}`, or, without CLIP on"
        f" this machine and without a model hub, with `{command} --encoder starter`."
    )
