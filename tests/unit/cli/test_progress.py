"""Progress in words: totals that do not grow, rate, time left, and what costs."""

from __future__ import annotations

from collections import Counter

import pytest

from es_imgsearch.cli.printing.progress import (
    Pace,
    WorkDone,
    costs_in_words,
    expensive_describer,
    in_time,
    in_words,
)
from es_imgsearch.records import FileState
from es_imgsearch.watch.reconcile import DifferenceKind, FileDifference, ListedFiles
from es_imgsearch.write.activity import Costs


@pytest.mark.parametrize(
    ("work", "rate", "words"),
    [
        (WorkDone(0, 1), 0.0, "0 of 1 file"),
        (WorkDone(1_234, 5_000), 56.0, "1,234 of 5,000 files, 56/s, 1 min left"),
        (WorkDone(3, 10), 0.5, "3 of 10 files, 0.5/s, 14 s left"),
        (WorkDone(10, 10), 2.0, "10 of 10 files, 2.0/s"),
        (
            WorkDone(256, 100_000, is_whole=False),
            10.0,
            "256 of at least 100,000 files, 10/s, at least 2 h 46 min left",
        ),
        (WorkDone(1), 0.0, "1 file"),
        (WorkDone(12_345), 1234.5, "12,345 files, 1,234/s"),
        (WorkDone(0, 0, is_whole=False), 0.0, "Comparing the folder with the index"),
        (
            WorkDone(0, 1, is_whole=False),
            0.0,
            "Comparing the folder with the index, 1 file to read so far",
        ),
        (
            WorkDone(2, 4, notes=("1 failed",), folder="/photos/2024"),
            0.0,
            "2 of 4 files, 1 failed, in /photos/2024",
        ),
    ],
)
def test_progress_in_words(work: WorkDone, rate: float, words: str):
    assert in_words(work, "files", rate) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (59.4, "59 s"), (60, "1 min"), (3540, "59 min"), (3600, "1 h 0 min")],
)
def test_durations(seconds: float, words: str):
    assert in_time(seconds) == words


def test_the_rate_is_of_the_last_minute_and_begins_with_the_first_file():
    now = [0.0]
    pace = Pace(lambda: now[0])
    assert pace.note(0) == 0.0
    now[0] = 30.0  # the model is loaded
    assert pace.note(0) == 0.0
    now[0] = 40.0
    assert pace.note(20) == 2.0
    for second in range(41, 200):
        now[0] = float(second)
        rate = pace.note(20 + 10 * (second - 40))
    assert rate == pytest.approx(10.0)


def costs(**describers: float) -> Costs:
    return Costs(10, 40.0, Counter(describers))


def test_what_costs_most_is_named():
    assert expensive_describer(costs(text_in_image=30.0, exif=1.0)) == ("text_in_image", 0.75)
    assert expensive_describer(costs(exif=1.0)) is None
    assert expensive_describer(Costs()) is None
    assert costs_in_words(costs(text_in_image=30.0, exif=0.01)) == (
        "Reading 10 pictures took 40.0 s in all reading processes, of it text_in_image 30.0 s."
    )


def new(number: int) -> list[FileDifference]:
    return [FileDifference(DifferenceKind.NEW, f"{n}.png", FileState(1, n)) for n in range(number)]


def test_all_files_are_counted_before_the_first_is_read():
    listing = ListedFiles(1)
    found = [*new(3), FileDifference(DifferenceKind.LOST, "gone.png")]
    worked_off = listing.of_root(iter(found))
    next(worked_off)
    assert (listing.files, listing.is_whole) == (3, True)
    assert len(list(worked_off)) == 3


def test_of_a_large_folder_the_number_is_a_lower_bound():
    listing = ListedFiles(1, limit=10)
    worked_off = listing.of_root(iter(new(25)))
    next(worked_off)
    assert (listing.files, listing.is_whole) == (10, False)
    assert len(list(worked_off)) == 24
    assert (listing.files, listing.is_whole) == (25, True)


def test_of_two_folders_the_number_is_a_lower_bound_until_both_are_listed():
    listing = ListedFiles(2)
    list(listing.of_root(iter(new(2))))
    assert (listing.files, listing.is_whole) == (2, False)
    list(listing.of_root(iter(new(3))))
    assert (listing.files, listing.is_whole) == (5, True)
