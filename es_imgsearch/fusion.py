"""Several rankings become one; what is found is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from es_imgsearch.errors import UsageError

Key = TypeVar("Key", bound=Hashable)

# Cormack, Clarke and Büttcher 2009, "Reciprocal Rank Fusion outperforms Condorcet and individual
# Rank Learning Methods": fixed at 60 in a pilot study, and not critical.
RANK_CONSTANT = 60

# Lists shorter than this leave the end of a small k to chance: of ten hits from two lists of ten,
# those far down in both are never seen in either.
LEAST_DEPTH = 50

# Facets that are no field of their own.
_YEAR = "year"
_COUNTED = {"keyword", "boolean", "integer", "short", "byte", "long"}


def reciprocal_ranks(rankings: Sequence[Sequence[Key]]) -> dict[Key, float]:
    """Every key of any ranking with the sum of 1 / (60 + rank), ranks from 1; best first.

    Keys of equal score stay in the order in which they first occur, list after list.
    """
    scores: dict[Key, float] = {}
    for ranking in rankings:
        for rank, key in enumerate(ranking, start=1):
            scores[key] = scores.get(key, 0.0) + share_of(rank)
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


def share_of(rank: int | None) -> float:
    """What a rank, from 1, adds to the fused score; None is in no list."""
    return 0.0 if rank is None else 1.0 / (RANK_CONSTANT + rank)


def check_facets(names: Sequence[str], properties: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises UsageError for a facet that cannot be counted in an index of these fields."""
    if not names:
        return
    countable = {name for name, each in properties.items() if each.get("type") in _COUNTED}
    for name in names:
        if name != _YEAR and name not in countable:
            raise UsageError(
                f"There is no facet {name!r}; there are {', '.join(sorted(countable | {_YEAR}))}."
            )


def facet_fields(names: Iterable[str]) -> set[str]:
    """The stored fields that counting needs."""
    return {
        field
        for name in names
        for field in (("taken_at", "modified_at") if name == _YEAR else (name,))
    }


def count_facets(
    found: Iterable[Mapping[str, Any]], names: Sequence[str]
) -> dict[str, dict[str, int]]:
    """How many of the documents have each value of each facet, the most frequent first.

    `year` is that of the day a picture was taken, or last modified where the camera wrote no
    date, in UTC as the filters `since` and `until` see it.
    """
    counters: dict[str, Counter[str]] = {name: Counter() for name in names}
    for fields in found:
        for name, counter in counters.items():
            value = _year(fields) if name == _YEAR else fields.get(name)
            values = value if isinstance(value, list) else [value]
            counter.update({str(each) for each in values if each is not None})
    return {
        name: dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))
        for name, counter in counters.items()
    }


def _year(fields: Mapping[str, Any]) -> str | None:
    moment = fields.get("taken_at") or fields.get("modified_at")
    if moment is None:
        return None
    try:
        parsed = datetime.fromisoformat(moment)
    except ValueError:
        return str(moment)[:4]
    # Without an offset it is UTC to Elasticsearch.
    aware = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return f"{aware.astimezone(UTC).year:04}"
