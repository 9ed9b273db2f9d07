"""File systems that are unmounted below a root, and links whose targets go with them.

What is not there now is unknown, not gone: its documents stay.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from es_imgsearch.elastic.store import Store
from es_imgsearch.manage.status import index_status
from es_imgsearch.manage.verify import verify
from es_imgsearch.settings import Settings
from es_imgsearch.watch.roots import parse_roots
from tests.support.house import House, compare_again, until

PLAIN, ON_DISK = 65, 15


@pytest.fixture
def house(real_store: Store, settings: Settings, tmp_path: Path) -> House:
    return House(real_store, settings.model_copy(update={"poll_seconds": 0.3}), tmp_path)


class Disk:
    """A file system that is mounted below a root."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        if os.geteuid() or self._mount().returncode:
            pytest.skip("mounts take root")

    def _mount(self) -> subprocess.CompletedProcess[bytes]:
        command = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(self.path)]
        return subprocess.run(command, capture_output=True, check=False)

    def unmount(self) -> None:
        if os.path.ismount(self.path):
            subprocess.run(["umount", str(self.path)], check=True)


@pytest.fixture
def disk(house: House) -> Iterator[Disk]:
    """65 pictures in a root, 15 more on a disk below it: a fifth, which may be deleted."""
    made = Disk(house.folder / "disk")
    for n in range(ON_DISK):
        house.picture(f"disk/album/{n:03}.png", 1000 + n)
    house.pictures(PLAIN)
    yield made
    made.unmount()


def test_an_unmounted_disk_deletes_nothing(
    house: House, disk: Disk, caplog: pytest.LogCaptureFixture
):
    with house.watched() as daemon:
        house.settle()
        disk.unmount()
        (house.folder / "000.png").unlink()
        until(lambda: len(house.indexed()) < PLAIN + ON_DISK)
        for _ in range(2):
            compare_again(daemon)
            until(lambda: not any(daemon.indexer._pending.values()))
        assert len(house.indexed()) == PLAIN - 1 + ON_DISK
        assert not daemon.indexer.paused
        told = [each for each in caplog.messages if "is not mounted any more" in each]
        assert len(told) == 1
        assert str(disk.path) in told[0]
        assert "--allow-deletes" in told[0]
        until(lambda: (index_status(house.store)["roots"]["r"]["last_reconcile"] or {})["unknown"])


def test_a_sync_of_its_own_deletes_nothing_after_an_unmount_until_that_is_permitted(
    house: House, disk: Disk
):
    house.synced()
    disk.unmount()
    assert house.synced().last_comparisons["r"].unknown == 1
    # Some remove the folder as well, others write into it what was meant for the disk.
    disk.path.rmdir()
    assert house.synced().last_comparisons["r"].unknown == 1
    house.picture("disk/new.png", 5000)
    assert house.synced().last_comparisons["r"].unknown == 1
    assert len(house.indexed()) == PLAIN + ON_DISK + 1
    house.synced(allow_deletes=True)
    assert house.differing() == []
    assert house.synced().last_comparisons["r"].unknown == 0


def test_a_link_to_nothing_keeps_its_document(
    house: House, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    paths = house.pictures(6)
    target = tmp_path / "nas"
    target.mkdir()
    for path in paths[:3]:
        path.rename(target / path.name)
        path.symlink_to(target / path.name)
    (house.folder / "never.png").symlink_to(tmp_path / "nothing")
    house.synced()
    target.rename(tmp_path / "away")
    assert house.synced().last_comparisons["r"].unknown == 3
    told = [each for each in caplog.messages if "is a link to nothing" in each]
    assert len(told) == 3
    assert len(house.indexed()) == 6
    with house.watched() as daemon:
        os.utime(paths[0], follow_symlinks=False)  # an event of the link
        compare_again(daemon)
        until(lambda: not any(daemon.indexer._pending.values()))
        assert len(house.indexed()) == 6
        (tmp_path / "away").rename(target)
        paths[0].unlink()
        house.settle()
    assert house.encoder.pictures_embedded == 6


# -- a link to a folder on another file system -----------------------------------------------


@pytest.fixture
def nas(house: House) -> Iterator[Path]:
    """65 pictures in a root, and a link in it to 15 more on another file system."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == house.folder.stat().st_dev:
        pytest.skip("takes another file system")
    house.pictures(PLAIN)
    target = Path(tempfile.mkdtemp(dir=memory))
    for n in range(ON_DISK):
        house.picture(f"{target}/album/{n:03}.png", 1000 + n)
    (house.folder / "sub").mkdir()
    (house.folder / "sub/nas").symlink_to(target)
    house.synced(follow_links=True)
    assert len(house.indexed()) == PLAIN + ON_DISK
    yield target
    shutil.rmtree(target, ignore_errors=True)


def verified(house: House) -> set[str]:
    roots = parse_roots([str(house.folder)], follow_links=True)
    settings = house.settings.model_copy(update={"follow_links": True})
    return {each.what for each in verify(house.store, roots, settings)}


@pytest.mark.parametrize("how", ["link", "folder", "folder instead", "file instead"])
def test_a_link_to_a_disk_that_was_removed_deletes_what_is_below_it(
    house: House, nas: Path, how: str
):
    link = house.folder / "sub/nas"
    link.unlink()
    if how == "folder":
        link.parent.rmdir()
    elif how == "folder instead":
        house.picture("sub/nas/own.png", 3000)
    elif how == "file instead":
        link.write_text("no picture")
    found = verified(house)
    assert "gone" in found
    assert not found & {"not mounted", "unknown"}
    indexer = house.synced(follow_links=True)
    assert indexer.counts.deleted == ON_DISK
    assert indexer.last_comparisons["r"].unknown == 0
    assert not verified(house)
    # It may come back.
    if how == "link":
        link.symlink_to(nas)
        assert house.synced(follow_links=True).last_comparisons["r"].unknown == 0
        assert len(house.indexed()) == PLAIN + ON_DISK


def test_a_link_to_a_disk_that_is_away_deletes_nothing(house: House, nas: Path):
    away = nas.with_name(f"{nas.name}-away")
    nas.rename(away)
    try:
        assert verified(house) == {"unknown"}
        assert house.synced(follow_links=True).last_comparisons["r"].unknown == 1
        assert len(house.indexed()) == PLAIN + ON_DISK
    finally:
        away.rename(nas)


def test_many_pictures_below_a_removed_link_wait_for_permission(house: House, nas: Path):
    (house.folder / "sub/nas").unlink()
    indexer = house.synced(follow_links=True, max_delete_share=0.1)
    assert indexer.paused["r"].pictures == ON_DISK
    assert len(house.indexed()) == PLAIN + ON_DISK
    house.synced(follow_links=True, max_delete_share=0.1, allow_deletes=True)
    assert len(house.indexed()) == PLAIN


def test_a_daemon_deletes_what_is_below_a_removed_link_to_a_disk(house: House, nas: Path):
    with house.watched(follow_links=True) as daemon:
        (house.folder / "sub/nas").unlink()
        until(lambda: len(house.indexed()) == PLAIN)
        assert daemon.error is None


def test_a_disk_below_a_removed_link_goes_with_it(house: House, tmp_path: Path):
    house.pictures(PLAIN)
    outside = tmp_path / "outside"
    outside.mkdir()
    disk = Disk(outside / "disk")
    try:
        for n in range(ON_DISK):
            house.picture(f"../outside/disk/{n:03}.png", 1000 + n)
        (house.folder / "link").symlink_to(outside)
        house.synced(follow_links=True)
        disk.unmount()
        assert house.synced(follow_links=True).last_comparisons["r"].unknown == 1
        disk.path.rmdir()
        assert house.synced(follow_links=True).last_comparisons["r"].unknown == 1
        assert len(house.indexed()) == PLAIN + ON_DISK
        (house.folder / "link").unlink()
        assert house.synced(follow_links=True).counts.deleted == ON_DISK
    finally:
        disk.unmount()


def test_a_link_on_an_unmounted_disk_is_unknown(house: House, disk: Disk, tmp_path: Path):
    other = Disk(tmp_path / "other")
    try:
        house.picture("../other/a.png", 4000)
        (disk.path / "nas").symlink_to(other.path)
        house.synced(follow_links=True)
        assert len(house.indexed()) == PLAIN + ON_DISK + 1
        disk.unmount()
        for _ in range(2):
            assert house.synced(follow_links=True).last_comparisons["r"].unknown == 1
        assert len(house.indexed()) == PLAIN + ON_DISK + 1
    finally:
        other.unmount()
