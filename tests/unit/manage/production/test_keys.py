"""How long a key lives, and that its secret is not in what describes it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from es_imgsearch.errors import UsageError
from es_imgsearch.manage.production.keys import KeyInfo, NewKey, parse_lifetime

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30m", 1800), ("12h", 43_200), ("90d", 7_776_000), ("2w", 1_209_600), ("1y", 31_536_000),
        (" 90D ", 7_776_000), ("never", None), ("Never", None), ("2026-11-28", 43_200),
        ("2026-11-29", 129_600), ("100y", 3_153_600_000),
    ],
)  # fmt: skip
def test_a_lifetime(text: str, seconds: int | None):
    assert parse_lifetime(text, NOW) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "0d", "-1d", "90", "d", "1s", "1.5d", "2026-11-27", "2020-01-01", "2026-02-30", "101y",
     "999999999y", "tomorrow", "9999-12-31", "90 d", "P90D"],
)  # fmt: skip
def test_no_lifetime(text: str):
    with pytest.raises(UsageError, match="such as 90d"):
        parse_lifetime(text, NOW)


def test_a_new_key_is_shown_without_its_secret():
    info = KeyInfo("wall", "read", "id", "active", "2026-11-28T12:00:00Z", None)
    assert "c2VjcmV0" not in repr(NewKey(info, "c2VjcmV0"))
