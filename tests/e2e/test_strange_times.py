"""Files whose times neither 64 bits of nanoseconds nor a date can hold, as CIFS and NTFS give."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from es_imgsearch.elastic.store import Store
from es_imgsearch.settings import Settings
from tests.support.house import House, compare_again, until

SECOND = 10**9
# Seconds since 1970.  NTFS counts from 1601; 30828 is the last year of its signed 64 bits.
# Between 2262 and 2554 the nanoseconds have 64 bits without a sign: JSON can hold them,
# Elasticsearch's `long` cannot.
TIMES = {
    "1601": -11_644_473_600,
    "1677": -9_300_000_000,
    "2300": 10_413_792_000,
    "2500": 16_725_225_600,
    "2600": 19_880_899_200,
    "30828": 910_692_730_085,
    "year 0": -62_167_219_201,
}
MEMORY = Path("/dev/shm")  # a tmpfs, which stores any time; ext4 ends in 2446


@pytest.fixture
def home() -> Iterator[Path]:
    if not MEMORY.is_dir():
        pytest.skip("needs a tmpfs")
    home = Path(tempfile.mkdtemp(prefix="es-imgsearch-times-", dir=MEMORY))
    try:
        probe = home / "probe"
        probe.touch()
        os.utime(probe, (0, TIMES["30828"]))
        if probe.stat().st_mtime != TIMES["30828"]:
            pytest.skip("needs a file system that stores the year 30828")
        probe.unlink()
        yield home
    finally:
        shutil.rmtree(home)


@pytest.fixture
def house(real_store: Store, settings: Settings, home: Path) -> House:
    return House(real_store, settings, home)


def test_strange_times_are_stored_once(house: House):
    """Every file is indexed or a failure, and the next comparison reads none again."""
    house.picture("plain.png", 0)
    for seed, (name, seconds) in enumerate(TIMES.items(), start=1):
        path = house.picture(f"{name}.png", seed)
        os.utime(path, ns=(0, seconds * SECOND + 7))
        broken = house.folder / f"{name}.jpg"
        broken.write_bytes(b"\xff\xd8\xff\xe0 broken")
        os.utime(broken, ns=(0, seconds * SECOND + 7))

    with house.watched() as daemon:
        until(lambda: daemon.indexer.pipeline.in_flight == 0)
        counts = daemon.indexer.counts
        assert (counts.stored, counts.failed) == (1 + len(TIMES), len(TIMES))
    pictures = {path for _, path in house.indexed()}
    failures = {path for _, path in house.failed()}
    assert pictures == {"plain.png", *(f"{name}.png" for name in TIMES)}
    assert failures == {f"{name}.jpg" for name in TIMES}

    with house.watched() as daemon:
        compare_again(daemon)
        until(lambda: daemon.indexer.pipeline.in_flight == 0)
        assert daemon.indexer.counts.stored == daemon.indexer.counts.failed == 0
        # A change is still noticed.
        os.utime(house.folder / "30828.png", (0, 1_000_000_000))
        until(lambda: _modified(house, "30828.png") == 1_000_000_000 * SECOND)


def _modified(house: House, name: str) -> int:
    return dict(house.indexed())["r", name][1]
