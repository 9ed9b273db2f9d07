"""Filter by dates: the day of the camera's own clock, or a moment.

A date without an offset from UTC is what the camera's clock showed, `taken_local`: a picture of
Tokyo, 1 January 00:30, is one of 1 January wherever the search runs.  Documents of earlier versions
that lack the field are compared by `taken_at`, in UTC.  A time with an offset is a moment, compared
with `taken_at`.  In every other field of dates, such as `modified_at`, a date without an offset is
one of the clock of this machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Final, TypeAlias

from es_imgsearch.describe.dates import whole_day
from es_imgsearch.errors import FilterInvalid

Clause: TypeAlias = dict[str, Any]

# When a picture was taken by the camera's clock or as a moment, or else its file changed.
DATE_FIELDS: Final = ("taken_local", "taken_at", "modified_at")
TAKEN_FIELDS: Final = frozenset({"taken_at", "taken_local"})

_DATE = re.compile(r"[0-9]{4}(-[0-9]{2}){0,2}")
_DATE_AND_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{3,6})?)?"
    r"(Z|[+-][0-9]{2}:[0-9]{2})?"
)
_OFFSET = re.compile(r"T.*(Z|[+-][0-9]{2}:[0-9]{2}(:[0-9]{2})?)$")


def date_range(field: str, low: Any, high: Any) -> Clause:
    """Build a range of a date field, by this machine's clock.  Raises FilterInvalid."""
    return _machine_range(field, *_ends(field, low, high))


def taken_clause(field: str, low: Any, high: Any) -> Clause:
    """Build a range of the date on which pictures were taken.  Raises FilterInvalid."""
    return _each_kind(_ends(field, low, high), _local_clause, _at_clause)


def since_until_clause(since: Any, until: Any) -> Clause:
    """Build a range of the date taken, or else modified.  Raises FilterInvalid."""
    ends = _ends("taken_at", since, until)
    return _each_kind(
        ends,
        lambda low, high: _any_of(
            _range("taken_local", low, high),
            _without(("taken_local",), _range("taken_at", low, high)),
            _without(TAKEN_FIELDS, _machine_range("modified_at", low, high)),
        ),
        lambda low, high: _any_of(
            _range("taken_at", low, high),
            _without(TAKEN_FIELDS, _range("modified_at", low, high)),
        ),
    )


def date_of(document: Mapping[str, Any]) -> str:
    """Return when a picture was taken, or else its file changed; "" if unknown."""
    return next((str(document[each]) for each in DATE_FIELDS if document.get(each)), "")


def local_year(document: Mapping[str, Any]) -> str | None:
    """Return the year that `since_until_clause` compares; None without one."""
    if local := document.get("taken_local") or document.get("taken_at"):
        # What stands before the offset is the camera's own date.
        return str(local)[:4]
    modified = document.get("modified_at")
    if modified is None:
        return None
    try:
        return f"{datetime.fromisoformat(modified).astimezone().year:04}"
    except (ValueError, OverflowError):
        return str(modified)[:4]


def _each_kind(ends: tuple[str | None, str | None], by_local: Any, by_moment: Any) -> Clause:
    """Compare ends without an offset by the one, ends with an offset by the other."""
    moments = [each if each and _OFFSET.search(each) else None for each in ends]
    local = [None if moment else each for each, moment in zip(ends, moments, strict=True)]
    clauses = [
        build(*given) for build, given in ((by_local, local), (by_moment, moments)) if any(given)
    ]
    return clauses[0] if len(clauses) == 1 else {"bool": {"filter": clauses}}


def _local_clause(low: str | None, high: str | None) -> Clause:
    earlier = _without(("taken_local",), _range("taken_at", low, high))
    return _any_of(_range("taken_local", low, high), earlier)


def _at_clause(low: str | None, high: str | None) -> Clause:
    return _range("taken_at", low, high)


def _machine_range(field: str, low: str | None, high: str | None) -> Clause:
    zones = [_zone(each) if each else "" for each in (low, high)]
    if low and high and zones[0] != zones[1]:
        # Of summer and of winter.
        ends = ((low, None), (None, high))
        return {"bool": {"filter": [_machine_range(field, *each) for each in ends]}}
    clause = _range(field, low, high)
    if zone := zones[0] or zones[1]:
        clause["range"][field]["time_zone"] = zone
    return clause


def _zone(text: str) -> str:
    """Return the offset of this machine's clock at a date; empty for UTC."""
    try:
        moment = datetime.fromisoformat(whole_day(text))
        offset = "" if moment.tzinfo else moment.astimezone().strftime("%z")
    except (ValueError, OverflowError, OSError):
        return ""
    return "" if offset[1:] in {"", "0000"} else f"{offset[:3]}:{offset[3:5]}"


def _range(field: str, low: str | None, high: str | None) -> Clause:
    bounds = {"gte": _rounded(low), "lte": _rounded(high)}
    return {"range": {field: {name: end for name, end in bounds.items() if end is not None}}}


def _rounded(text: str | None) -> str | None:
    # 2024 or 2024-05 as an upper end includes the whole year or month: `lte` is rounded up.
    unit = {4: "y", 7: "M", 10: "d"}.get(len(text or ""))
    return f"{text}||/{unit}" if unit else text


def _any_of(*clauses: Clause) -> Clause:
    return {"bool": {"should": list(clauses), "minimum_should_match": 1}}


def _without(fields: Any, clause: Clause) -> Clause:
    lacks = [{"exists": {"field": field}} for field in sorted(fields)]
    return {"bool": {"filter": [clause], "must_not": lacks}}


def _ends(field: str, low: Any, high: Any) -> tuple[str | None, str | None]:
    if low is None and high is None:
        raise FilterInvalid(f"A range of {field!r} needs a low or a high end.")
    start = None if low is None else _text(field, low)
    end = None if high is None else _text(field, high)
    if start and end and not (_OFFSET.search(start) or _OFFSET.search(end)):
        # The end is a whole year, month, day or second.
        length = min(len(start), len(end))
        if start[:length] > end[:length]:
            raise FilterInvalid(f"{start} is later than {end}: nothing lies between them.")
    return start, end


def _text(field: str, value: Any) -> str:
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    text = str(value).strip()
    if _DATE_AND_TIME.fullmatch(text):
        # Elasticsearch requires the T.
        text = text.replace(" ", "T")
    try:
        # Elasticsearch reads other ISO forms (20240531, 2024-W22) differently than Python.
        if not (_DATE.fullmatch(text) or _DATE_AND_TIME.fullmatch(text)):
            raise ValueError
        datetime.fromisoformat(whole_day(text))
    except ValueError:
        if _DATE.fullmatch(text) or _DATE_AND_TIME.fullmatch(text):
            raise FilterInvalid(f"There is no date {text}.") from None
        raise FilterInvalid(
            f"Field {field!r} holds dates such as 2024, 2024-05-31 or 2024-05-31T18:00, not"
            f" {text!r}."
        ) from None
    return text
