"""Periods in words, seen from a day that is given."""

from __future__ import annotations

from datetime import date

import pytest

from es_imgsearch.errors import UsageError
from es_imgsearch.search.filtering.periods import parse_period

TODAY = date(2026, 11, 28)  # a Saturday


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("today", "2026-11-28", "2026-11-28"),
        (" YESTERDAY ", "2026-11-27", "2026-11-27"),
        ("this week", "2026-11-23", "2026-11-29"),
        ("last week", "2026-11-16", "2026-11-22"),
        ("this month", "2026-11-01", "2026-11-30"),
        ("last month", "2026-10-01", "2026-10-31"),
        ("past month", "2026-10-01", "2026-10-31"),
        ("this year", "2026-01-01", "2026-12-31"),
        ("Last  Year", "2025-01-01", "2025-12-31"),
        ("last summer", "2026-06-01", "2026-08-31"),
        ("this summer", "2026-06-01", "2026-08-31"),
        ("this autumn", "2026-09-01", "2026-11-30"),
        ("last fall", "2025-09-01", "2025-11-30"),
        ("last winter", "2025-12-01", "2026-02-28"),
        ("this winter", "2025-12-01", "2026-02-28"),
        ("last spring", "2026-03-01", "2026-05-31"),
        ("last june", "2026-06-01", "2026-06-30"),
        ("last november", "2025-11-01", "2025-11-30"),
        ("this november", "2026-11-01", "2026-11-30"),
        ("last december", "2025-12-01", "2025-12-31"),
        ("summer 2019", "2019-06-01", "2019-08-31"),
        ("in the summer of 2019", "2019-06-01", "2019-08-31"),
        ("winter 2019/20", "2019-12-01", "2020-02-29"),
        ("winter 2019-2020", "2019-12-01", "2020-02-29"),
        ("winter 1999/00", "1999-12-01", "2000-02-29"),
        ("june 2023", "2023-06-01", "2023-06-30"),
        ("Sept, 2023", "2023-09-01", "2023-09-30"),
        ("feb 2024", "2024-02-01", "2024-02-29"),
        ("3 may 2024", "2024-05-03", "2024-05-03"),
        ("3rd of May, 2024", "2024-05-03", "2024-05-03"),
        ("May 3, 2024", "2024-05-03", "2024-05-03"),
        ("24. dec 2023", "2023-12-24", "2023-12-24"),
        ("2010s", "2010-01-01", "2019-12-31"),
        ("the 1990s", "1990-01-01", "1999-12-31"),
        ("2024", "2024-01-01", "2024-12-31"),
        ("2024-05", "2024-05-01", "2024-05-31"),
        ("2024-02", "2024-02-01", "2024-02-29"),
        ("2024-05-03", "2024-05-03", "2024-05-03"),
        ("last 30 days", "2026-10-30", "2026-11-28"),
        ("last 1 day", "2026-11-28", "2026-11-28"),
        ("the last 2 weeks", "2026-11-15", "2026-11-28"),
        ("last 3 months", "2026-08-29", "2026-11-28"),
        ("past 9 months", "2026-03-01", "2026-11-28"),
        ("last 10 years", "2016-11-29", "2026-11-28"),
        ("2019 to 2021", "2019-01-01", "2021-12-31"),
        ("june 2023 to 2023-08-15", "2023-06-01", "2023-08-15"),
        ("2023-05..2023-06", "2023-05-01", "2023-06-30"),
        ("last summer to yesterday", "2026-06-01", "2026-11-27"),
    ],
)
def test_a_period_in_words(text: str, first: str, last: str) -> None:
    assert parse_period(text, TODAY) == (date.fromisoformat(first), date.fromisoformat(last))


@pytest.mark.parametrize(
    ("today", "text", "first", "last"),
    [
        ("2026-01-01", "yesterday", "2025-12-31", "2025-12-31"),
        ("2026-01-01", "last month", "2025-12-01", "2025-12-31"),
        ("2026-01-01", "this winter", "2025-12-01", "2026-02-28"),
        ("2026-01-01", "last winter", "2024-12-01", "2025-02-28"),
        ("2026-03-01", "last winter", "2025-12-01", "2026-02-28"),
        ("2026-02-28", "last winter", "2024-12-01", "2025-02-28"),
        ("2026-07-15", "this summer", "2026-06-01", "2026-08-31"),
        ("2026-07-15", "last summer", "2025-06-01", "2025-08-31"),
        ("2026-03-31", "last 1 month", "2026-03-01", "2026-03-31"),
        ("2024-02-29", "last 1 year", "2023-03-01", "2024-02-29"),
        ("2024-02-29", "this month", "2024-02-01", "2024-02-29"),
        ("2026-11-23", "this week", "2026-11-23", "2026-11-29"),
        ("2026-11-29", "this week", "2026-11-23", "2026-11-29"),
    ],
)
def test_a_period_of_another_day(today: str, text: str, first: str, last: str) -> None:
    found = parse_period(text, date.fromisoformat(today))
    assert found == (date.fromisoformat(first), date.fromisoformat(last))


@pytest.mark.parametrize(
    "text",
    ["", " ", "xmas", "christmas", "next week", "june", "summer", "0000", "2024-13", "2024-02-30",
     "30 feb 2024", "2024-W22", "last 0 days", "last 99999 years", "20240503", "05/03/2024",
     "winter 2019/21", "2019 to 2020 to 2021", "to 2020", "..", "last last year", "a" * 200,
     "last 30", "٢٠٢٤", "2024 to", "\0", "9999999"],
)  # fmt: skip
def test_what_says_no_dates_is_answered_with_what_does(text: str) -> None:
    with pytest.raises(UsageError, match=r"says no dates: write today, .*last 30 days") as raised:
        parse_period(text, TODAY)
    assert len(str(raised.value)) < 500


def test_the_forms_that_are_offered_can_be_written() -> None:
    with pytest.raises(UsageError) as raised:
        parse_period("xmas", TODAY)
    offered = str(raised.value).partition("write ")[2].rstrip(".").split(", ")
    assert len(offered) > 12
    for each in offered:
        assert parse_period(each, TODAY)


def test_a_winter_of_one_year_is_asked_back() -> None:
    with pytest.raises(UsageError, match="write winter 2018/19 or winter 2019/20"):
        parse_period("winter 2019", TODAY)
    with pytest.raises(UsageError, match="write winter 1998/99 or winter 1999/00"):
        parse_period("winter 1999", TODAY)


def test_a_period_that_ends_before_it_begins() -> None:
    with pytest.raises(UsageError, match="'2021 to 2019' ends before it begins"):
        parse_period("2021 to 2019", TODAY)
