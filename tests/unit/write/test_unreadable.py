"""When a file that cannot be read is tried again, and when its document stays."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from es_imgsearch.records import FileState
from es_imgsearch.write.unreadable import keeps_document, wait_seconds, with_retries

STATE, OTHER, NEVER = FileState(1, 1), FileState(2, 2), FileState(-1, -1)
FAILED_AT = datetime(2026, 1, 1, tzinfo=UTC)
FAILURE = {"relative_path": "a", "size_bytes": 1, "mtime_ns": 1, "failed_at": FAILED_AT.isoformat()}


def test_waits_double_up_to_a_day():
    assert [wait_seconds(n) for n in (1, 2, 3)] == [300, 600, 1200]
    assert wait_seconds(20) == wait_seconds(10_000) == 86_400


@pytest.mark.parametrize(
    ("error_class", "attempts", "seconds", "state"),
    [
        ("io_error", 1, 299, STATE),
        ("io_error", 1, 301, NEVER),
        ("io_error", 2, 301, STATE),
        ("crashed", 2, 601, NEVER),
        ("rejected", 1, 301, NEVER),
        # A clock that was set back since.
        ("timeout", 1, -3600, NEVER),
        ("corrupt", 1, 10**6, STATE),
    ],
)
def test_a_failure_of_the_environment_is_tried_again(
    error_class: str, attempts: int, seconds: float, state: FileState
):
    failure = {**FAILURE, "error_class": error_class, "attempts": attempts}
    (listed,) = with_retries([failure], FAILED_AT.timestamp() + seconds)
    assert (listed.stored_path, listed.state) == ("a", state)
    is_final = error_class == "corrupt"
    assert listed.failed_at_ns == (None if is_final else FAILED_AT.timestamp() * 1e9)


@pytest.mark.parametrize(
    ("error_class", "state", "stays"),
    [
        ("permission_denied", OTHER, True),
        ("io_error", OTHER, True),
        ("timeout", OTHER, True),
        ("crashed", OTHER, False),
        ("crashed", STATE, True),
        ("out_of_memory", STATE, True),
        ("rejected", OTHER, False),
        ("rejected", STATE, True),
        ("corrupt", STATE, False),
    ],
)
def test_a_document_stays_where_its_file_may_be_the_same(
    error_class: str, state: FileState, stays: bool
):
    assert keeps_document(error_class, state, STATE) is stays
