"""File systems that are unmounted below a root, and links whose targets go with them.

What is not there now is unknown, not gone: its documents stay.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from es_imgsearch.elastic.store import Store
from es_imgsearch.manage.status import index_status
from es_imgsearch.settings import Settings
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
