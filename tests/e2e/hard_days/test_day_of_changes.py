"""A day's worth of random changes in minutes: the index is like the folder, memory flat.

IMGSEARCH_TEST_DAY_SECONDS says how long it takes (20 by default; `make soak DAY=1200` is a day of
24 hours at 72 times its pace); one change in twelve is a burst of 25 files.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import pytest

from tests.support.house import House, paint
from tests.support.watching import Sample, watching

pytestmark = [pytest.mark.slow, pytest.mark.process]

SECONDS = float(os.environ.get("IMGSEARCH_TEST_DAY_SECONDS", "20"))
SEED = int(os.environ.get("IMGSEARCH_TEST_SEED", "0"))
# Of the mean memory of the second third and of the last one.
MOST_GROWTH = 1.1
FOLDERS = 12
PAUSE_SECONDS = 0.05


def change(folder: Path, chance: random.Random, number: int) -> None:
    """Add, replace, spoil, rename, copy or delete a file, or move or delete a whole folder."""
    place = folder / f"{chance.randrange(FOLDERS):02}"
    place.mkdir(exist_ok=True)
    names = sorted(place.iterdir())
    some = chance.choice(names) if names else None
    kind = chance.randrange(12)
    if kind < 4 or some is None:
        for n in range(chance.choice([1, 1, 1, 25])):
            paint(place / f"{number:06}-{n:02}.png", chance.randrange(500))
    elif kind < 6:
        paint(some, chance.randrange(500))
    elif kind == 6:
        some.write_bytes(b"\x89PNG\r\n\x1a\n no more %d" % number)
    elif kind == 7:
        some.rename(some.with_name(f"moved-{number:06}.png"))
    elif kind == 8:
        shutil.copyfile(some, some.with_name(f"copy-{number:06}.png"))
    elif kind == 9:
        other = folder / f"{chance.randrange(FOLDERS):02}"
        if not other.exists():
            place.rename(other)
    elif kind == 10 and len(names) > 40:
        shutil.rmtree(place)
    else:
        some.unlink()


def flat(samples: list[Sample]) -> bool:
    """Compare the memory of the second third with that of the last."""
    third = len(samples) // 3
    second, last = samples[third : 2 * third], samples[2 * third :]
    return mean(last) < MOST_GROWTH * mean(second)


def mean(samples: list[Sample]) -> float:
    return sum(each.megabytes for each in samples) / len(samples)


def test_after_a_day_of_changes_the_index_is_like_the_folder_and_memory_flat(house: House):
    chance, given = random.Random(SEED), house.settings
    house.picture("always.png", 999)
    settings = {"max_delete_share": "1.0", "settle_seconds": "0.2", "read_workers": "1"}
    with watching(house.folder, given.es_url, given.index, 0.5, **settings) as running:
        house.settle(120)
        begun, number = time.monotonic(), 0
        first = len(running.samples)
        while time.monotonic() < begun + SECONDS:
            change(house.folder, chance, number)
            number += 1
            time.sleep(chance.random() * PAUSE_SECONDS * 4 if number % 50 == 0 else PAUSE_SECONDS)
            assert running.process.poll() is None
        samples = running.samples[first:]
        house.settle(300)
        assert running.stop() == 0
    step = max(1, len(samples) // 10)
    print(f"{number} changes; MB: {[round(each.megabytes) for each in samples[::step]]}")
    assert flat(samples), [round(each.megabytes) for each in samples]
