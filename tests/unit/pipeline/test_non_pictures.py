"""Which files are remembered as no pictures, and which are dropped first."""

from __future__ import annotations

import tracemalloc

from es_imgsearch.pipeline.non_pictures import NonPictures
from es_imgsearch.records import FileState, image_id

STATE = FileState(10, 1_700_000_000_123_456_789)


def ids(start: int, stop: int) -> list[str]:
    return [image_id("r", f"{n}.xmp") for n in range(start, stop)]


def remembered(memory: NonPictures, image_ids: list[str]) -> int:
    return sum(each in memory for each in ((name, STATE) for name in image_ids))


def filled(limit: int, image_ids: list[str]) -> NonPictures:
    memory = NonPictures(limit)
    for each in image_ids:
        memory.put(each, STATE)
    return memory


def test_only_the_state_that_was_read_counts():
    memory = filled(10, ["a"])
    assert ("a", STATE) in memory
    assert ("a", STATE._replace(size_bytes=11)) not in memory
    assert ("b", STATE) not in memory
    memory.put("a", STATE._replace(size_bytes=11))
    assert ("a", STATE) not in memory
    memory.forget("a")
    assert ("a", STATE._replace(size_bytes=11)) not in memory
    assert len(memory) == 0


def test_a_file_is_forgotten_in_every_round():
    memory = filled(10, ["a"])
    memory.end_round()
    memory.put("a", STATE._replace(size_bytes=11))
    assert ("a", STATE) not in memory
    memory.forget("a")
    assert len(memory) == 0


def test_two_hundred_thousand_files_take_little_memory():
    names = ids(0, 200_000)
    tracemalloc.start()
    try:
        memory = filled(1_000_000, names)
        bytes_per_file = tracemalloc.get_traced_memory()[0] / len(names)
    finally:
        tracemalloc.stop()
    assert remembered(memory, names) == 200_000
    assert bytes_per_file < 130


def test_of_too_many_files_as_many_as_possible_stay():
    """The least recently used would leave none: files are compared in the same order again."""
    names = ids(0, 60)
    memory = filled(50, names)
    for _ in range(4):
        assert remembered(memory, names) == 50
        for each in names:
            if (each, STATE) not in memory:
                memory.put(each, STATE)
        memory.end_round()


def test_files_that_a_round_of_comparisons_has_not_met_are_dropped():
    memory = filled(50, ids(0, 50))
    memory.end_round()  # they were read in this round
    assert remembered(memory, ids(0, 20)) == 20
    memory.end_round()
    assert len(memory) == 20
    for each in ids(50, 100):
        memory.put(each, STATE)
    assert len(memory) == 50
