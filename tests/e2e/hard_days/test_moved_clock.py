"""The clock of the day jumps by hours, to and fro, in a daemon that is a process."""

from __future__ import annotations

from pathlib import Path

import pytest

from es_imgsearch.elastic.state import daemon_id
from tests.support.house import House, until
from tests.support.watching import watching

pytestmark = [pytest.mark.process, pytest.mark.slow]

HOUR = 3600.0


def seen_at(house: House) -> str | None:
    read = house.store.state.read(daemon_id("r"))
    return None if read is None else str(read.document["seen_at"])


def test_a_daemon_goes_on_whatever_the_clock_says(house: House, tmp_path: Path):
    """Events, comparisons, leases and the guard of deletions go by the monotonic clock."""
    clock = tmp_path / "clock"
    clock.write_text("0")
    house.pictures(30)
    settings = {"lease_seconds": "2", "settle_seconds": "0.2", "read_workers": "1"}
    given = house.settings
    with watching(house.folder, given.es_url, given.index, clock=clock, **settings) as running:
        house.settle(120)
        for number, ahead in enumerate([5 * HOUR, -7 * HOUR, 0.0, 26 * HOUR]):
            clock.write_text(str(ahead))
            before = seen_at(house)
            house.picture(f"new-{number}.png", 100 + number)
            (house.folder / f"{number:03}.png").unlink()
            house.settle(120)
            until(lambda before=before: seen_at(house) != before)
            assert house.paused() is None
            assert running.process.poll() is None
        running.process.kill()
        running.process.wait()
    # Killed with a clock 26 hours ahead: the next one does not wait for those.
    house.picture("last.png", 200)
    with watching(house.folder, given.es_url, given.index, **settings) as running:
        house.settle(120)
        assert running.stop() == 0
    assert len(house.indexed()) == 31
