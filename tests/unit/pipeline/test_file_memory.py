"""Which files are remembered, and which are dropped first."""

from __future__ import annotations

import tracemalloc

from es_imgsearch.pipeline.file_memory import FileMemory, state_hash
from es_imgsearch.records import FileState, image_id

VALUE = state_hash(FileState(10, 1_700_000_000_123_456_789))


def ids(start: int, stop: int) -> list[str]:
    return [image_id("r", f"{n}.xmp") for n in range(start, stop)]


def remembered(memory: FileMemory, files: list[str]) -> int:
    return sum(memory.get(each) is not None for each in files)


def filled(limit: int, files: list[str]) -> FileMemory:
    memory = FileMemory(limit)
    for each in files:
        # No integer is shared.
        memory.put(each, VALUE + len(memory))
    return memory


def test_a_state_has_a_hash_of_60_bits():
    state = FileState(10, 1_700_000_000_123_456_789)
    assert state_hash(state) == VALUE < 2**60
    assert state_hash(state._replace(size_bytes=11)) != VALUE


def test_a_file_is_replaced_and_forgotten_in_every_round():
    memory = filled(1, ["a"])
    memory.put("b", 1)
    assert memory.get("b") is None
    memory.put("a", 2)
    assert memory.get("a") == 2
    memory.end_round()
    memory.put("a", 3)
    assert memory.get("a") == 3
    memory.end_round()
    memory.forget("a")
    assert memory.get("a") is None
    assert len(memory) == 0


def test_names_that_are_not_utf_8():
    assert filled(1, ["r/\udcff.xmp"]).get("r/\udcff.xmp") == VALUE


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
            if memory.get(each) is None:
                memory.put(each, VALUE)
        memory.end_round()


def test_files_that_a_round_of_comparisons_has_not_met_are_dropped():
    memory = filled(50, ids(0, 50))
    memory.end_round()  # they were read in this round
    assert remembered(memory, ids(0, 20)) == 20
    memory.end_round()
    assert len(memory) == 20
    for each in ids(50, 100):
        memory.put(each, VALUE)
    assert len(memory) == 50
