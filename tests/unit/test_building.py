"""Whether a process builds a generation: seen, seen to be gone, or known by its mark only."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from es_imgsearch.elastic.meta_entries import Builder
from es_imgsearch.manage.reindex import lock as process_identity
from es_imgsearch.manage.reindex.lock import (
    STALE_SECONDS,
    is_alive,
    process_space,
    process_start,
    runs,
)

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    ) as process:
        yield process
        process.kill()


def builder(process_id: int, silent_seconds: float = 0.0) -> Builder:
    seen_at = datetime.now(tz=UTC) - timedelta(seconds=silent_seconds)
    return Builder(
        host="here",
        process_id=process_id,
        process_space=process_space(),
        process_start=process_start(process_id),
        token="its token",
        since=seen_at.isoformat(),
        seen_at=seen_at.isoformat(),
    )


def test_a_process_that_is_seen_needs_no_mark(other: subprocess.Popen[bytes]):
    mark = builder(other.pid, silent_seconds=10 * STALE_SECONDS)
    assert runs(other.pid, mark.process_start)
    assert is_alive(mark)
    # Its number was given to another process.
    assert runs(other.pid, 1) is False
    other.kill()
    # Ended, and not yet waited for: it keeps its number.
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(mark)
    other.wait()
    assert not is_alive(mark)


def test_a_process_that_is_hidden_is_known_by_its_mark(
    other: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    said, silent = builder(other.pid), builder(other.pid, silent_seconds=STALE_SECONDS + 1)
    # As with hidepid=2; the signal reaches it, or is refused for another user's.
    monkeypatch.setattr(process_identity, "_PROC", tmp_path)
    assert runs(other.pid, said.process_start) is None
    assert is_alive(said)
    assert not is_alive(silent)

    def refuse(_process_id: int, _signal: int) -> None:
        raise PermissionError

    with monkeypatch.context() as patched:
        patched.setattr(process_identity.os, "kill", refuse)
        assert is_alive(said)
    other.kill()
    other.wait()
    # No process has the number any more, which nothing hides.
    assert not is_alive(said)
