"""Folders that are not there when a daemon starts, or go and come while it runs."""

from __future__ import annotations

import logging
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner

from es_imgsearch.cli import main
from es_imgsearch.cli.watch import _watch, in_each_generation
from es_imgsearch.elastic.store import Store
from es_imgsearch.manage.status import index_status
from es_imgsearch.pipeline.daemon import Daemon
from es_imgsearch.settings import Settings
from tests.support.house import House, paint, until
from tests.support.reindexing import to


@pytest.fixture
def houses(
    real_store: Store, settings: Settings, tmp_path: Path, encoders: dict
) -> Iterator[House]:
    """Roots `r`, which is there, and `late`, which is not."""
    made = House(
        real_store, settings.model_copy(update={"poll_seconds": 0.3}), tmp_path, "r", "late"
    )
    made.encoder = encoders["fake"]
    made.folders[1].rmdir()
    return made


def messages(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


def watch(house: House, *roots: str) -> tuple[int, str]:
    given = ["--index", house.settings.index, "--es-url", house.settings.es_url]
    result = CliRunner().invoke(main, ["watch", *roots, *given])
    return result.exit_code, result.output


def test_the_others_are_watched_and_it_is_taken_in_when_it_comes(
    houses: House, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, logger="es_imgsearch")
    houses.pictures(3)
    late = houses.folders[1]
    with houses.watched() as daemon:
        houses.settle()
        assert f"The folder of 'late' ({late}) is not there" in messages(caplog)
        assert "paused" not in messages(caplog)
        until(lambda: index_status(houses.store)["roots"]["late"]["folder_missing"])
        assert index_status(houses.store)["roots"]["r"]["folder_missing"] is False
        late.mkdir()
        paint(late / "first.png", 50)
        houses.settle()
        # By an event, not by the comparison of the folder's arrival.
        until(lambda: daemon.indexer.progress.comparisons.ended_until > 2)
        paint(late / "second.png", 51)
        houses.settle()
        until(lambda: index_status(houses.store)["roots"]["late"]["folder_missing"] is False)
    assert "The folder of 'late' is there again" in messages(caplog)


def test_none_is_there_but_the_index_knows_one(houses: House, caplog: pytest.LogCaptureFixture):
    houses.pictures(3)
    with houses.watched():
        houses.settle()
    away = houses.folder.rename(houses.folder.with_name("away"))
    with houses.watched():
        until(houses.paused)
        assert len(houses.indexed()) == 3
        away.rename(houses.folder)
        paint(houses.folder / "new.png", 60)
        houses.settle()
        until(lambda: houses.paused() is None)
    assert "Deletions in 'r' are paused: its folder cannot be listed" in messages(caplog)


def test_a_link_that_leads_nowhere_yet(houses: House, tmp_path: Path):
    """As to a share that is not mounted: afterwards the next run continues with its documents."""
    late, share = houses.folders[1], tmp_path / "mnt" / "share"
    late.symlink_to(share)
    with houses.watched():
        share.mkdir(parents=True)
        paint(share / "first.png", 50)
        until(lambda: len(houses.indexed()) == 1)
    with houses.watched():
        paint(share / "second.png", 51)
        until(lambda: len(houses.indexed()) == 2)


def test_a_folder_that_comes_as_a_link(houses: House, tmp_path: Path):
    late, share = houses.folders[1], tmp_path / "share"
    with houses.watched():
        share.mkdir()
        paint(share / "first.png", 50)
        late.symlink_to(share)
        until(lambda: len(houses.indexed()) == 1)
    with houses.watched():
        paint(share / "second.png", 51)
        until(lambda: len(houses.indexed()) == 2)


def test_another_disk_is_mounted_over_the_folder(houses: House, caplog: pytest.LogCaptureFixture):
    """No event tells of a mount: its files are found, and events of it are heard."""
    with houses.watched() as daemon:
        mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(houses.folder)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("mounts take root")
        try:
            until(lambda: "Another disk or folder is in the place of 'r'" in messages(caplog))
            paint(houses.folder / "first.png", 50)
            houses.settle()
            requested = daemon.indexer.progress.comparisons.begun
            paint(houses.folder / "second.png", 51)
            houses.settle()
            assert daemon.indexer.progress.comparisons.begun == requested
        finally:
            subprocess.run(["umount", "-l", str(houses.folder)], check=True)


def test_a_folder_that_is_away_while_reindex_switches(
    houses: House, encoders: dict, caplog: pytest.LogCaptureFixture
):
    """The daemon goes on with the next generation, and watches the folder when it comes."""
    caplog.set_level(logging.INFO, logger="es_imgsearch")
    houses.pictures(3)
    away, settings = houses.folder.with_name("away"), houses.settings
    roots = tuple(f"{each.name}={each}" for each in houses.folders)
    daemons: list[Daemon] = []
    signals = cast(Any, SimpleNamespace(attach=daemons.append))
    thread = threading.Thread(
        target=in_each_generation, args=(settings, lambda: _watch(settings, roots, False, signals))
    )
    thread.start()
    try:
        until(lambda: len(houses.indexed()) == 3 and "Watching r=" in messages(caplog))
        houses.folder.rename(away)
        until(houses.paused)
        assert len(houses.indexed()) == 3
        assert to(houses, profile="balanced").switched
        until(lambda: len(daemons) == 2 and messages(caplog).count("Watching r=") == 2)
        assert len(houses.indexed()) == 3
        away.rename(houses.folder)
        houses.picture("new.png", 60)
        until(lambda: len(houses.indexed()) == 4)
    finally:
        daemons[-1].stop()
        thread.join()
    assert "was switched to" in messages(caplog)


@pytest.mark.parametrize("number", [1, 2])
def test_names_that_nobody_knows_are_wrong_use(houses: House, tmp_path: Path, number: int):
    wrong = [str(tmp_path / f"wrong-{n}") for n in range(number)]
    code, output = watch(houses, *wrong)
    assert code == 2
    assert all(repr(each) in output for each in wrong)
    assert "has never held pictures of" in output
    assert index_status(houses.store)["roots"] == {}


@pytest.mark.parametrize("kind", ["file", "link to a file"])
def test_what_is_no_folder_is_wrong_use(houses: House, kind: str):
    file = houses.folder.with_name("notes")
    file.write_text("words")
    if kind == "link to a file":
        houses.folders[1].symlink_to(file)
        file = houses.folders[1]
    code, output = watch(houses, str(houses.folder), str(file))
    assert (code, "is not a folder" in output) == (2, True)
