"""Of which document a moved file takes the fields that nothing computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from es_imgsearch.records import Change, Root
from es_imgsearch.testing import MemoryState
from es_imgsearch.watch.presence import RootFiles
from es_imgsearch.watch.root_disk import RootDisk
from es_imgsearch.write import field_memory
from es_imgsearch.write.carried_fields import _Moves
from es_imgsearch.write.field_memory import Copy, FieldMemory


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root("r", tmp_path)


def document(path: str, root: str = "r", **fields: Any) -> dict[str, Any]:
    return {"image_id": path, "root": root, "relative_path": path, "content_id": "c", **fields}


def stored(root: Root, path: str) -> dict[str, Any]:
    """Make a file and return its document."""
    (root.path / path).write_bytes(b"x")
    status = (root.path / path).stat()
    return document(path, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)


def origin(
    root: Root, *candidates: dict[str, Any], gone: dict[str, Any] | None = None, mounts: str = ""
) -> str | None:
    moves = _Moves(
        lambda each: RootFiles(
            each, lambda *_: False, dict.fromkeys(mounts.split(), ""), RootDisk()
        )
    )
    found, _ = moves.origin(Change(root, "new/p.png", 0.0), candidates, gone)
    return None if found is None else found["relative_path"]


def test_a_file_that_is_gone_comes_before_one_that_is_there(root: Root):
    assert origin(root, stored(root, "p.png"), document("q.png")) == "q.png"
    assert origin(root) is None


def test_a_file_on_a_file_system_that_is_not_mounted_has_not_moved(root: Root):
    for candidates in ([document("M/p.png"), document("u.png")], [document("M/p.png", x=1)]):
        expected = candidates[-1]["relative_path"]
        assert origin(root, *candidates, mounts="M") == expected


def test_a_file_of_another_root_has_not_moved(root: Root):
    assert origin(root, document("p.png", "other"), document("u.png")) == "u.png"


def test_a_path_that_holds_another_file_by_now_was_left(root: Root):
    before = {**stored(root, "u.png"), "mtime_ns": 1}
    assert origin(root, stored(root, "p.png"), before) == "u.png"


def test_of_files_that_are_gone_the_namesake_comes_first_then_the_one_with_fields(root: Root):
    assert origin(root, document("u.png", shelf="A"), document("a/p.png")) == "a/p.png"
    assert origin(root, document("u.png"), document("v.png", shelf="A")) == "v.png"


def test_a_document_that_was_deleted_is_that_of_a_file_that_is_gone(root: Root):
    assert origin(root, stored(root, "p.png"), gone=document("u.png")) == "u.png"


def test_the_last_documents_that_went_are_remembered():
    memory = FieldMemory(limit=2)
    memory.put_gone(document(each, content_id=each) for each in "abc")
    assert [memory.gone(each) is not None for each in "abc"] == [False, True, True]


def memories(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> Callable[[], FieldMemory]:
    """Memories of processes that share a state."""
    monkeypatch.setattr(field_memory, "time", SimpleNamespace(time=lambda: clock[0]))
    state = MemoryState()

    def loaded() -> FieldMemory:
        memory = FieldMemory(state)
        memory.load()
        return memory

    return loaded


def test_fields_that_nothing_computes_are_known_to_other_processes_for_two_days(
    monkeypatch: pytest.MonkeyPatch,
):
    clock = [1_700_000_000.0]
    process = memories(clock, monkeypatch)
    process().put_gone(
        [
            document("a.png", content_id="a", shelf="A", width=3, colours=["red"], folder=""),
            document("b.png", content_id="b", width=3, taken_at="2020", taken_from="exif"),
            document("c.png", content_id="c", taken_at="2020", taken_from="import"),
            document("d.png", content_id="d", location={"lat": 1, "lon": 2}),
            document("e.png", shelf="of no content"),
        ]
    )
    assert process().gone("a") == document("a.png", content_id="a", shelf="A")
    assert process().gone("b") is None
    assert process().gone("c") is not None
    assert process().gone("d") is not None
    clock[0] += 86_400
    process().put_gone([document("a2.png", content_id="a", shelf="A2")])
    assert (process().gone("a") or {})["shelf"] == "A2"
    clock[0] += 86_400
    assert process().gone("c") is None
    assert process().gone("a") is not None
    clock[0] += 86_401
    assert process().gone("a") is None


def test_of_many_that_went_the_last_are_stored_up_to_1_mb(monkeypatch: pytest.MonkeyPatch):
    process = memories([1_700_000_000.0], monkeypatch)
    for start in (0, 500, 1_000):
        process().put_gone(
            document(f"{n}.png", content_id=f"{n}", shelf="x" * 2_000)
            for n in range(start, start + 500)
        )
    after = process()
    found = [n for n in range(1_500) if after.gone(f"{n}") is not None]
    assert found == list(range(found[0], 1_500))
    assert 400 < len(found) < 500


def test_one_document_over_1_mb_makes_no_room_by_pushing_out_the_others(
    monkeypatch: pytest.MonkeyPatch,
):
    process = memories([1_700_000_000.0], monkeypatch)
    process().put_gone([document("a.png", content_id="a", shelf="A")])
    process().put_gone([document("big.png", content_id="big", shelf="x" * 1_100_000)])
    process().put_gone([document("b.png", content_id="b", shelf="B")])
    after = process()
    assert [after.gone(each) is not None for each in ("a", "big", "b")] == [True, False, True]


def test_what_others_stored_is_read_once_while_nothing_changes(monkeypatch: pytest.MonkeyPatch):
    clock, reads = [1_700_000_000.0], list[str]()
    process = memories(clock, monkeypatch)
    ours, theirs = process(), process()
    state = ours._state
    assert state is not None
    read = state.read

    def counted(name: str) -> Any:
        reads.append(name)
        return read(name)

    monkeypatch.setattr(state, "read", counted)
    for times, content in enumerate("ab", start=1):
        theirs.put_gone([document(f"{content}.png", content_id=content, shelf="A")])
        for _ in range(3):
            ours.load()
            assert ours.gone(content) is not None
        assert len(reads) == times
    clock[0] += 2 * 86_400
    ours.load()
    assert ours.gone("a") is None


def test_what_changed_since_a_copy_is_told_once():
    memory = FieldMemory()
    before = document("u.png", shelf="A", size_bytes=1, note="x")
    memory.put_copied([Copy(before, "copy", has_moved=False)])
    after = document("u.png", shelf="B", size_bytes=2, title="t")
    later = memory.take_later(after)
    assert later is not None
    assert (later.copy_id, later.fields) == ("copy", {"shelf": "B", "note": None, "title": "t"})
    copy = document("copy", shelf="A", note="x")
    assert later.apply(copy) == document("copy", shelf="B", title="t")
    assert later.apply({**copy, "content_id": "other"}) is None
    assert memory.take_later(after) is None


def test_a_document_that_stayed_the_same_since_its_copy_changes_nothing():
    memory = FieldMemory()
    memory.put_copied([Copy(document("u.png", shelf="A"), "copy", has_moved=True)])
    assert memory.take_later(document("u.png", shelf="A", indexed_at="later")) is None


@pytest.mark.parametrize("is_copied_first", [True, False])
@pytest.mark.parametrize("is_other_process", [True, False])
def test_a_document_whose_file_was_found_comes_after_the_one_that_has_its_fields(
    monkeypatch: pytest.MonkeyPatch, is_copied_first: bool, is_other_process: bool
):
    process = memories([1_700_000_000.0], monkeypatch)
    memory = process()
    before = document("a.png", content_id="a", shelf="A")
    steps = [
        lambda: memory.put_copied([Copy(before, "new", has_moved=True)]),
        lambda: memory.put_gone([before]),
    ]
    for step in steps if is_copied_first else steps[::-1]:
        step()
        memory.load()
    if is_other_process:
        memory = process()
    assert memory.gone("a", {"new"}) is None
    assert (memory.gone("a", {"another"}) or {})["shelf"] == "A"


def test_a_document_of_which_there_was_a_copy_is_still_that_of_a_file_that_is_gone():
    memory = FieldMemory()
    before = document("a.png", content_id="a", shelf="A")
    memory.put_copied([Copy(before, "copy", has_moved=False)])
    memory.put_gone([before])
    assert memory.gone("a", {"copy"}) == before


def test_a_field_that_was_removed_after_a_move_stays_removed(monkeypatch: pytest.MonkeyPatch):
    memory = memories([1_700_000_000.0], monkeypatch)()
    before = document("a.png", content_id="a", shelf="A")
    memory.put_copied([Copy(before, "b.png", has_moved=True)])
    memory.put_gone([before])
    after = document("b.png", content_id="a")
    memory.put_gone([after])
    memory.load()
    assert memory.gone("a") == after
