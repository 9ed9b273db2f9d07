"""Read a period in words: `last summer`, `june 2023`, `last 30 days`.

Days are those of the camera's own clock, as in `filtering.dates`; today is the day on the clock of
this machine.  Weeks begin on Monday.  Seasons are the meteorological ones of the northern
hemisphere: spring is March to May, winter December to February.  `last` is the latest that has
ended, `this` the latest that has begun, since there are no pictures of the future.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Iterable, Mapping
from datetime import date, timedelta
from typing import Final, NamedTuple

from es_imgsearch.errors import UsageError, shown_value

_SEASONS: Final = {"spring": 3, "summer": 6, "autumn": 9, "fall": 9, "winter": 12}
_NAMES: Final = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september",
    "october", "november", "december",
)  # fmt: skip
_MONTHS: Final[Mapping[str, int]] = {
    **{name: number for number, name in enumerate(_NAMES, 1)},
    **{name[:3]: number for number, name in enumerate(_NAMES, 1)},
    "sept": 9,
}
_FORMS: Final = (
    "today, yesterday, this week, last month, last year, last summer, summer 2019, winter 2019/20,"
    " last june, june 2023, 3 may 2024, 2010s, 2024, 2024-05, 2024-05-03, last 30 days,"
    " 2019 to june 2021"
)
_MOST_CHARACTERS: Final = 100


class Period(NamedTuple):
    """The first and the last day."""

    first: date
    last: date


def parse_period(text: str, today: date) -> Period:
    """Read a period in words, in any case.

        parse_period("last summer", date(2026, 11, 28))  # 2026-06-01 to 2026-08-31

    Raises UsageError, which lists what can be written.
    """
    plain = " ".join(re.sub(r",|\b(?:the|of)\b|^\s*in\b", " ", text.lower()).split())
    try:
        if len(text) > _MOST_CHARACTERS:
            raise ValueError
        first, *more = (_single(each.strip(), today) for each in re.split(r" to |\.\.", plain))
        if len(more) > 1:
            raise ValueError
    except (ValueError, OverflowError):
        raise UsageError(f"{shown_value(text)} says no dates: write {_FORMS}.") from None
    period = Period(first.first, (more or [first])[-1].last)
    if period.first > period.last:
        raise UsageError(f"{shown_value(text)} ends before it begins: turn it round.")
    return period


def _single(text: str, today: date) -> Period:
    """Read one period.  Raises ValueError and OverflowError."""
    for pattern, read in _READERS.items():
        if match := re.fullmatch(pattern, text):
            return read(today, *match.groups())
    raise ValueError(text)


def _day(day: date) -> Period:
    return Period(day, day)


def _months(year: int, month: int, count: int = 1) -> Period:
    """Return whole months from the first day of one of them on."""
    years, index = divmod(month - 1 + count - 1, 12)
    last = (year + years, index + 1)
    return Period(date(year, month, 1), date(*last, monthrange(*last)[1]))


def _years(first: int, last: int) -> Period:
    return Period(date(first, 1, 1), date(last, 12, 31))


def _relative(today: date, which: str, unit: str) -> Period:
    """Return the week, month or year of today, or the one before it."""
    is_last = which != "this"
    if unit == "week":
        monday = today - timedelta(days=today.weekday() + 7 * is_last)
        return Period(monday, monday + timedelta(days=6))
    if unit == "year":
        return _years(today.year - is_last, today.year - is_last)
    months = 12 * today.year + today.month - 1 - is_last
    return _months(months // 12, months % 12 + 1)


def _latest(today: date, which: str, name: str) -> Period:
    """Return the latest season or month that has begun (`this`) or ended (`last`)."""
    month, count = (_SEASONS[name], 3) if name in _SEASONS else (_MONTHS[name], 1)
    year = today.year
    while True:
        period = _months(year, month, count)
        if (period.first if which == "this" else period.last + timedelta(days=1)) <= today:
            return period
        year -= 1


def _season(_: date, name: str, year: str) -> Period:
    if name == "winter":
        raise UsageError(
            f"A winter is of two years: write winter {int(year) - 1}/{year[2:]} or winter"
            f" {year}/{(int(year) + 1) % 100:02}."
        )
    return _months(int(year), _SEASONS[name], 3)


def _winter(_: date, year: str, following: str) -> Period:
    if int(following) != (int(year) + 1) % 10 ** len(following):
        raise ValueError(following)
    return _months(int(year), 12, 3)


def _count(today: date, number: str, unit: str) -> Period:
    """Return so many days, weeks, months or years up to today."""
    count = int(number)
    if not count:
        raise ValueError(number)
    if unit in {"day", "week"}:
        return Period(today - timedelta(days=count * (7 if unit == "week" else 1) - 1), today)
    months = 12 * today.year + today.month - 1 - count * (12 if unit == "year" else 1)
    year, month = months // 12, months % 12 + 1
    day = min(today.day, monthrange(year, month)[1])
    return Period(date(year, month, day) + timedelta(days=1), today)


def _name(words: Iterable[str]) -> str:
    return f"({'|'.join(sorted(words, key=len, reverse=True))})"


_YEAR: Final = "([0-9]{4})"
_LAST: Final = "(this|last|past)"
_READERS: Final[Mapping[str, Callable[..., Period]]] = {
    "today": _day,
    "yesterday": lambda today: _day(today - timedelta(days=1)),
    f"{_LAST} (week|month|year)": _relative,
    f"{_LAST} {_name([*_SEASONS, *_MONTHS])}": _latest,
    "(?:last|past) ([0-9]{1,5}) (day|week|month|year)s?": _count,
    f"{_name(_SEASONS)} {_YEAR}": _season,
    f"winter {_YEAR} ?[/-] ?([0-9]{{2}}|[0-9]{{4}})": _winter,
    f"{_name(_MONTHS)} {_YEAR}": lambda _, name, year: _months(int(year), _MONTHS[name]),
    rf"([0-9]{{1,2}})(?:st|nd|rd|th|\.)? {_name(_MONTHS)} {_YEAR}": lambda _, day, name, year: _day(
        date(int(year), _MONTHS[name], int(day))
    ),
    rf"{_name(_MONTHS)} ([0-9]{{1,2}})(?:st|nd|rd|th)? {_YEAR}": lambda _, name, day, year: _day(
        date(int(year), _MONTHS[name], int(day))
    ),
    "([0-9]{3})0s": lambda _, decade: _years(int(decade) * 10, int(decade) * 10 + 9),
    _YEAR: lambda _, year: _years(int(year), int(year)),
    f"{_YEAR}-([0-9]{{2}})": lambda _, year, month: _months(int(year), int(month)),
    f"{_YEAR}-([0-9]{{2}})-([0-9]{{2}})": lambda _, *parts: _day(date(*map(int, parts))),
}
