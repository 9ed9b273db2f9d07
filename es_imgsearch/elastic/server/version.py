"""Versions of Elasticsearch that are supported, and what depends on them.

The one place that compares versions.  The client is that of 8.19: servers of 9 answer it
(`compatible-with=8`), while a client of 9 is refused by servers of 8 (elasticsearch-py #2927).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from es_imgsearch.errors import StoreRejected

Numbers: TypeAlias = tuple[int, int, int]

SUPPORTED: Final = "8.18 to 9.x"
# rescore_vector came with 8.18.
_OLDEST: Final = (8, 18, 0)
_NEWEST_MAJOR: Final = 9


class _Fault(NamedTuple):
    """A known fault of the versions `first` to `last`."""

    first: Numbers
    last: Numbers
    description: str


_FAULTS: Final = (
    _Fault(
        first=(9, 1, 0),
        last=(9, 1, 0),
        description="reads the whole vectors past the page cache, so that searches of the profile"
        " binary can take ten times as long: update it to 9.1.1 or later",
    ),
    # elasticsearch #158212
    _Fault(
        first=(9, 5, 0),
        last=(9, 5, 2),
        description="can store documents of a bulk in a shard and not in its replicas when memory"
        " for indexing runs out, so that searches answer differently: update it to 9.5.3 or later",
    ),
)

# Since 9.2 a new index leaves vectors out of `_source` unless this says otherwise
# (elasticsearch #131907); 8.x and 9.0 refuse the setting.
_VECTORS_LEFT_OUT_SINCE: Final = (9, 2, 0)
_VECTORS_IN_SOURCE: Final = {"index.mapping.exclude_source_vectors": False}


def parse(version: str) -> Numbers:
    """Parse a version such as `9.4.3` or `9.5.0-SNAPSHOT`.  Raises StoreRejected."""
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?(?![\d.])", version, re.ASCII)
    if found is None:
        raise StoreRejected(f"The version of Elasticsearch cannot be parsed: {version}.")
    major, minor, patch = (int(part or 0) for part in found.groups())
    return major, minor, patch


def check(version: str) -> str | None:
    """Check that a version is supported; return a warning of a known fault, or None.

    Raises StoreRejected.
    """
    numbers = parse(version)
    if numbers < _OLDEST or numbers[0] > _NEWEST_MAJOR:
        raise StoreRejected(
            f"Elasticsearch {version} is not supported: use a server of version {SUPPORTED}."
        )
    for fault in _FAULTS:
        if fault.first <= numbers <= fault.last:
            return f"Elasticsearch {version} {fault.description}."
    return None


def with_vectors_in_source(version: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Let the mapping of an index or a template alone decide what is in `_source`.

    A server that does not know the setting is not sent it.
    """
    if "template" in body:
        return {**body, "template": with_vectors_in_source(version, body["template"])}
    if parse(version) < _VECTORS_LEFT_OUT_SINCE:
        return dict(body)
    return {**body, "settings": {**body["settings"], **_VECTORS_IN_SOURCE}}


def holds_vectors(mapping: Mapping[str, Any]) -> bool:
    """Tell whether a mapping, or a field of it, is a vector."""
    return mapping.get("type") == "dense_vector" or any(
        holds_vectors(each) for each in mapping.get("properties", {}).values()
    )
