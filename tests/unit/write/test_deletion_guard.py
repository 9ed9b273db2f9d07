"""Run the deletion guard on a store in memory and a real folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import StoreBusy
from es_imgsearch.records import FileState, Root, image_id
from es_imgsearch.testing import FakeEncoder, MemoryStore
from es_imgsearch.watch.mounts import KnownMounts
from es_imgsearch.write.deletion_guard import DeletionGuard, DeletionResult
from es_imgsearch.write.deletion_pauses import Pause, PauseKind
from es_imgsearch.write.pending_deletions import WholeRoot
from tests.support.ignored_case import ignore_case


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Folder:
    """A root, the documents of its files, and the guard over them."""

    def __init__(self, path: Path, **options: Any) -> None:
        path.mkdir(exist_ok=True)
        self.root = Root("photos", path)
        self.store = MemoryStore()
        self.store.generations.create(new_meta(seal_of(FakeEncoder()), "exact", "cosine"))
        self.clock = Clock()
        self.guard = self.new_guard(**options)

    def new_guard(self, **options: Any) -> DeletionGuard:
        values = {"max_delete_share": 0.2, "clock": self.clock, **options}
        return DeletionGuard(
            self.store,
            lambda _root: lambda name, _folder, _is_folder: name.startswith("."),
            **values,
        )

    def add(
        self,
        names: list[str],
        contents: str = "{}",
        *,
        on_disk: bool = True,
        indexed_at: float | None = None,
    ) -> None:
        for name in names:
            if on_disk:
                (self.root.path / name).parent.mkdir(parents=True, exist_ok=True)
                (self.root.path / name).write_bytes(b"x")
            document = {
                "image_id": image_id("photos", name),
                "root": "photos",
                "relative_path": name,
                "content_id": contents.format(name),
                "size_bytes": 1,
                "mtime_ns": 1,
                "image_embedding": np.ones(FakeEncoder.dims, np.float32),
            }
            if indexed_at is not None:
                document["indexed_at"] = datetime.fromtimestamp(indexed_at, UTC).isoformat()
            self.store.documents.write([Write(document["image_id"], document=document)])

    def note_whole(self) -> None:
        self.guard.note_whole(self.root, WholeRoot(self.held, self.clock.now))

    def remove(self, names: list[str]) -> None:
        for name in names:
            (self.root.path / name).unlink()

    def run(
        self, names: list[str], non_pictures: dict[str, FileState] | None = None
    ) -> DeletionResult:
        known = non_pictures or {}
        return self.guard.delete(self.root, names, lambda name, state: known.get(name) == state)

    @property
    def held(self) -> int:
        self.store.refresh()
        return self.store.listings.count("photos")


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Folder]:
    return lambda **options: Folder(tmp_path / "photos", **options)


def names(count: int, start: int = 0) -> list[str]:
    return [f"{number}.jpg" for number in range(start, start + count)]


def assert_paused(found: DeletionResult, kind: PauseKind) -> str:
    assert found.pause is not None
    assert found.pause.kind is kind
    assert found.pictures == 0
    return found.pause.reason


# -- the plain case ------------------------------------------------------------------------


def test_what_is_gone_is_deleted_and_what_is_there_is_not(folder):
    photos = folder()
    photos.add(names(10))
    photos.remove(["3.jpg"])
    found = photos.run(["3.jpg", "4.jpg"])
    assert (found.pictures, list(found.paths), found.pause) == (1, ["3.jpg"], None)
    assert photos.held == 9


def test_a_file_that_is_back_is_not_deleted(folder):
    photos = folder()
    photos.add(names(5))
    photos.remove(["1.jpg"])
    (photos.root.path / "1.jpg").write_bytes(b"again")
    assert photos.run(["1.jpg"]) == DeletionResult()
    assert photos.held == 5


def test_nothing_to_delete_asks_the_store_nothing(folder):
    photos = folder()
    photos.add(names(2))
    photos.store.fail_next = [StoreBusy("no request was expected")]
    assert photos.run([]) == photos.run(["1.jpg"]) == DeletionResult()


def test_failures_are_deleted_too_and_count_as_no_picture(folder):
    photos = folder()
    photos.add(names(5))
    bad = image_id("photos", "bad.jpg")
    failure = {"root": "photos", "relative_path": "bad.jpg", "size_bytes": 1, "mtime_ns": 1}
    photos.store.documents.write([Write(bad, failure=failure)])
    assert photos.run(["bad.jpg"]).pictures == 0
    assert photos.store.documents.attempts([bad]) == {}


def test_a_file_that_became_a_folder_is_gone_and_a_link_to_nothing_unknown(folder):
    photos = folder()
    photos.add(names(6))
    photos.remove(["1.jpg", "2.jpg", "3.jpg"])
    (photos.root.path / "1.jpg").mkdir()
    (photos.root.path / "2.jpg").symlink_to("nowhere")
    (photos.root.path / "3.jpg").symlink_to("3.jpg")
    assert photos.run(["1.jpg", "2.jpg", "3.jpg"]).paths == ["1.jpg"]
    photos.remove(["2.jpg"])
    assert photos.run(["2.jpg", "3.jpg"]).paths == ["2.jpg"]


def test_what_was_on_a_file_system_that_is_not_mounted_any_more_is_unknown(folder):
    """Here none ever was; the document says so."""
    photos = folder()
    photos.add(["disk/1.jpg", "disk/2.jpg", "disk2.jpg", "media/usb/3.jpg", *names(30)])
    mounts = KnownMounts(photos.store.state)
    for each in ("disk", "media/usb"):
        mounts.add(photos.root, each)
    photos.guard = photos.new_guard(mounts=mounts)
    photos.remove(["disk/1.jpg", "disk2.jpg"])
    shutil.rmtree(photos.root.path / "media")
    gone = ["disk/1.jpg", "disk/2.jpg", "disk2.jpg", "media/usb/3.jpg"]
    assert photos.run(gone).paths == ["disk2.jpg"]
    # What stands under the mount point now says nothing of the file of that name on the disk.
    (photos.root.path / "disk/1.jpg").write_text("no picture")
    written = FileState.of((photos.root.path / "disk/1.jpg").stat())
    known = {image_id("photos", "disk/1.jpg"): written}
    assert photos.run(["disk/1.jpg"], known) == DeletionResult()
    (photos.root.path / "disk/1.jpg").unlink()
    mounts.forget(photos.root)
    assert sorted(photos.run(gone).paths) == ["disk/1.jpg", "media/usb/3.jpg"]


def test_a_file_that_is_no_picture_any_more_is_deleted_in_that_state_only(folder):
    photos = folder()
    photos.add(names(3))
    path = photos.root.path / "1.jpg"
    seen = {image_id("photos", "1.jpg"): FileState.of(os.stat(path))}
    path.write_bytes(b"written since then")
    assert photos.run(["1.jpg"], seen) == DeletionResult()
    seen = {image_id("photos", "1.jpg"): FileState.of(os.stat(path))}
    assert photos.run(["1.jpg"], seen).pictures == 1


def test_an_error_is_no_absence(folder, monkeypatch: pytest.MonkeyPatch):
    photos = folder()
    photos.add(names(3))
    photos.remove(["1.jpg"])
    real = os.stat

    def stat(path: Any, **options: Any) -> os.stat_result:
        if str(path).endswith("1.jpg"):
            raise PermissionError(13, "Permission denied")
        return real(path, **options)

    monkeypatch.setattr(os, "stat", stat)
    assert photos.run(["1.jpg"]) == DeletionResult()
    monkeypatch.undo()
    assert photos.run(["1.jpg"]).pictures == 1


def test_a_name_in_another_case_is_another_file(folder, monkeypatch: pytest.MonkeyPatch):
    photos = folder()
    photos.add(["Photo.JPG", "Album/1.jpg", "Album/2.jpg", *names(20)])
    (photos.root.path / "Photo.JPG").rename(photos.root.path / "photo.jpg")
    (photos.root.path / "Album").rename(photos.root.path / "album")
    photos.add(["photo.jpg"], "Photo.JPG")
    ignore_case(monkeypatch, photos.root.path)
    assert os.stat(photos.root.path / "Photo.JPG") == os.stat(photos.root.path / "photo.jpg")
    found = photos.run(["Photo.JPG", "Album/1.jpg", "photo.jpg", "1.jpg"])
    assert sorted(found.paths) == ["Album/1.jpg", "Photo.JPG"]
    assert photos.run(["Photo.JPG", "Album/1.jpg", "photo.jpg", "1.jpg"]).paths == ()


# -- folders that say nothing --------------------------------------------------------------


@pytest.mark.parametrize("allow", [False, True])
def test_a_missing_root_pauses_whatever_is_allowed(folder, allow: bool):
    photos = folder(allow=allow)
    photos.add(names(3))
    shutil.rmtree(photos.root.path)
    reason = assert_paused(photos.run(names(3)), PauseKind.UNLISTABLE)
    assert "cannot be listed" in reason
    assert photos.held == 3


@pytest.mark.parametrize("allow", [False, True])
def test_an_unlistable_root_pauses_whatever_is_allowed(
    folder, allow: bool, monkeypatch: pytest.MonkeyPatch
):
    photos = folder(allow=allow)
    photos.add(names(3))
    photos.remove(names(3))

    def scandir(_path: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", scandir)
    found = photos.run(names(3))
    assert "Permission denied" in assert_paused(found, PauseKind.UNLISTABLE)
    assert found.pause is not None
    message = found.pause.message(photos.root, "images")
    assert message.endswith("the pause ends when the folder can be listed.")
    assert "--allow-deletes" not in message
    assert photos.held == 3


@pytest.mark.parametrize("count", [1, 3, 60])
def test_an_emptied_root_pauses_however_few_it_held(folder, count: int):
    photos = folder()
    photos.add(names(count))
    photos.remove(names(count))
    # Without a refresh: what was acknowledged a moment ago counts as well.
    reason = assert_paused(photos.run(names(count)), PauseKind.EMPTY)
    assert f"holds {count} of it" in reason
    assert photos.held == count


def test_a_root_with_nothing_but_left_out_files_counts_as_empty(folder):
    photos = folder()
    photos.add(names(3))
    photos.remove(names(3))
    (photos.root.path / ".lost+found").mkdir()
    assert_paused(photos.run(names(3)), PauseKind.EMPTY)


def test_another_device_pauses_until_it_is_permitted(folder, monkeypatch: pytest.MonkeyPatch):
    photos = folder()
    photos.add(names(30))
    photos.guard.remember_device(photos.root)
    photos.remove(["1.jpg"])
    real = os.stat

    def stat(path: Any, **options: Any) -> Any:
        status = real(path, **options)
        if os.fspath(path) == os.fspath(photos.root.path):
            return SimpleNamespace(st_dev=status.st_dev + 1, st_mode=status.st_mode)
        return status

    monkeypatch.setattr(os, "stat", stat)
    assert "another file system" in assert_paused(photos.run(["1.jpg"]), PauseKind.OTHER_DEVICE)
    photos.guard.resume(photos.root)
    assert photos.run(["1.jpg"]).pictures == 1


def test_what_is_allowed_is_deleted_from_an_emptied_root(folder):
    photos = folder(allow=True)
    photos.add(names(60))
    photos.remove(names(60))
    assert photos.run(names(60)).pictures == 60
    assert photos.held == 0


# -- the share -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "gone", "paused"),
    [(20, 4, False), (20, 5, True), (19, 18, False), (100, 20, False), (100, 21, True),
     (20, 19, True)],
)  # fmt: skip
def test_the_share_counts_from_twenty_pictures_on(folder, total: int, gone: int, paused: bool):
    photos = folder()
    photos.add(names(total))
    photos.remove(names(gone))
    found = photos.run(names(gone))
    if paused:
        assert f"{gone} of its {total} pictures" in assert_paused(found, PauseKind.SHARE)
        assert photos.held == total
    else:
        assert found.pictures == gone
        assert photos.held == total - gone


def test_a_share_of_one_never_pauses_and_one_of_zero_always(folder):
    photos = folder(max_delete_share=1.0)
    photos.add(names(30))
    photos.remove(names(29))
    assert photos.run(names(29)).pictures == 29
    photos.guard = photos.new_guard(max_delete_share=0.0)
    photos.add(names(30))
    photos.remove(["1.jpg"])
    assert_paused(photos.run(["1.jpg"]), PauseKind.SHARE)


def test_a_large_move_is_no_loss(folder):
    photos = folder()
    before = names(50)
    photos.add(before, "content of {}")
    for name in before:
        photos.add([f"moved/{name}"], f"content of {name}")
    photos.remove(before)
    assert photos.run(before).pictures == 50
    assert photos.held == 50


def test_copies_that_are_all_deleted_are_a_loss(folder):
    """Each is the other's copy, but none stays."""
    photos = folder()
    photos.add(names(30), "same")
    photos.add(names(10, 30))
    photos.remove(names(30))
    assert_paused(photos.run(names(30)), PauseKind.SHARE)


def test_small_deletions_within_two_days_are_judged_together(folder):
    photos = folder()
    photos.add(names(100))
    deleted = 0
    for name in names(25):
        photos.remove([name])
        photos.clock.now += 3600
        found = photos.run([name])
        if found.pause is not None:
            break
        deleted += found.pictures
    assert_paused(found, PauseKind.SHARE)
    assert deleted == 20
    assert photos.held == 80


def test_the_same_deletions_over_five_days_are_not(folder):
    photos = folder()
    photos.add(names(100))
    for name in names(25):
        photos.remove([name])
        photos.clock.now += 5 * 3600
        assert photos.run([name]).pictures == 1
        photos.guard = photos.new_guard()  # another process
    assert photos.held == 75


def test_what_a_root_holds_is_what_it_held_when_it_was_last_whole(folder):
    photos = folder()
    photos.add(names(100))
    photos.note_whole()
    photos.add(names(400, 100))
    photos.remove(names(21))
    reason = assert_paused(photos.run(names(21)), PauseKind.SHARE)
    assert "21 of its 100 pictures, new ones not counted, are gone (21%, more than" in reason
    photos.guard = photos.new_guard()
    assert_paused(photos.run(names(21)), PauseKind.SHARE)
    photos.note_whole()  # as if they had come back
    assert photos.run(names(21)).pictures == 21


@pytest.mark.parametrize(("first", "is_paused"), [(19, False), (20, True), (24, True)])
def test_what_an_ended_first_run_stored_is_no_small_share_of_another_disk(
    folder, first: int, is_paused: bool
):
    """The history began with an empty index; 120 pictures of another disk make it 17 %."""
    photos = folder()
    photos.guard.begin_comparison(photos.root)
    photos.add(names(first), indexed_at=photos.clock.now + 1)
    photos.clock.now += 60
    photos.guard = photos.new_guard()
    photos.guard.begin_comparison(photos.root)
    photos.add(names(120, 100), indexed_at=photos.clock.now + 1)
    photos.remove(names(first))
    found = photos.run(names(first))
    assert (found.pause is not None, found.pictures) == (is_paused, 0 if is_paused else first)
    # Nor is it one of what both runs stored, once that has paused.
    photos.guard = photos.new_guard()
    photos.guard.begin_comparison(photos.root)
    assert (photos.run(names(first)).pause is not None) == is_paused


def test_new_pictures_may_go_again(folder):
    """A card is copied into a small folder and weeded out before the next comparison."""
    photos = folder()
    photos.add(names(30))
    photos.note_whole()
    photos.clock.now += 100
    photos.add(names(100, 30), indexed_at=photos.clock.now)
    photos.remove(names(20, 30))
    assert photos.run(names(20, 30)).pictures == 20
    photos.remove(["1.jpg"])
    assert photos.run(["1.jpg"]).pictures == 1
    # New ones are held, too: against all that there is.
    photos.remove(names(30, 50))
    assert_paused(photos.run(names(30, 50)), PauseKind.SHARE)


def test_pictures_that_are_none_any_more_count_as_deleted(folder):
    """One after the other; their files are there."""
    photos = folder()
    photos.add(names(60))
    photos.note_whole()
    photos.clock.now += 10

    def lose(lost: list[str], guard: DeletionGuard = photos.guard) -> Pause | None:
        return guard.delete(photos.root, lost, lambda _name, _state: True).pause

    lost = 0
    while (pause := lose([f"{lost}.jpg"])) is None:
        lost += 1
    assert lost == 12
    assert (pause.kind, pause.deleted) == (PauseKind.SHARE, 12)
    # What has no document, or has a copy, is no loss.
    assert lose(names(12)) is None
    photos.add(["copy.jpg"], "59.jpg")
    assert lose(["59.jpg"]) is None
    photos.remove(names(2, 20))
    assert_paused(photos.run(names(2, 20)), PauseKind.SHARE)
    assert lose(names(48, 12), photos.new_guard(allow=True)) is None


def test_waiting_does_not_end_a_pause_but_allowing_does(folder):
    photos = folder()
    photos.add(names(40))
    photos.remove(names(8))
    assert photos.run(names(8)).pictures == 8
    photos.remove(["9.jpg"])
    assert_paused(photos.run(["9.jpg"]), PauseKind.SHARE)
    photos.clock.now += 86_400
    assert_paused(photos.run(["9.jpg"]), PauseKind.SHARE)
    photos.guard.resume(photos.root)
    assert photos.run(["9.jpg"]).pictures == 1


def test_what_could_not_be_deleted_is_not_counted_twice(folder, monkeypatch: pytest.MonkeyPatch):
    photos = folder()
    photos.add(names(40))
    photos.remove(names(5))
    write = photos.store.documents.write

    def busy(writes: Any) -> Any:
        return dict.fromkeys((each.image_id for each in writes), StoreBusy("not now"))

    monkeypatch.setattr(photos.store, "write", busy)
    for _ in range(3):
        with pytest.raises(StoreBusy):
            photos.run(names(5))
    monkeypatch.setattr(photos.store, "write", write)
    assert photos.run(names(5)).pictures == 5


def test_what_was_deleted_before_a_later_chunk_failed_counts_and_is_reported(
    folder, monkeypatch: pytest.MonkeyPatch
):
    photos = folder()
    photos.add(names(100))
    photos.remove(names(15))
    write = photos.store.documents.write

    def half(writes: Any) -> Any:
        passed = writes[:8]
        return write(passed) | {each.image_id: StoreBusy("not now") for each in writes[8:]}

    monkeypatch.setattr(photos.store, "write", half)
    with pytest.raises(StoreBusy):
        photos.run(names(15))
    monkeypatch.setattr(photos.store, "write", write)
    assert photos.held == 92
    found = photos.run(names(15))
    assert found.pictures == 15
    assert sorted(found.paths) == sorted(names(15))
    assert photos.held == 85
    # 15 of the hundred went, so six more are too many.
    photos.remove(names(6, 15))
    assert_paused(photos.run(names(6, 15)), PauseKind.SHARE)
    assert photos.run([]) == DeletionResult()


def test_what_was_deleted_before_a_pause_is_reported_with_it(
    folder, monkeypatch: pytest.MonkeyPatch
):
    photos = folder()
    photos.add(names(40))
    photos.remove(names(5))
    write = photos.store.documents.write

    def half(writes: Any) -> Any:
        return write(writes[:2]) | {each.image_id: StoreBusy("not now") for each in writes[2:]}

    monkeypatch.setattr(photos.store, "write", half)
    with pytest.raises(StoreBusy):
        photos.run(names(5))
    monkeypatch.setattr(photos.store, "write", write)
    shutil.rmtree(photos.root.path)
    found = photos.run(names(5))
    assert found.pause is not None
    assert (found.pictures, len(found.paths)) == (2, 2)


def test_imported_documents_without_a_content_id_are_deleted(folder):
    photos = folder()
    photos.add(names(3))
    for name in names(2):
        document = {
            "image_id": image_id("photos", name),
            "root": "photos",
            "relative_path": name,
            "title": "imported",
        }
        photos.store.documents.write([Write(document["image_id"], document=document)])
    photos.remove(names(2))
    assert photos.run(names(2)).pictures == 2
    assert photos.held == 1
