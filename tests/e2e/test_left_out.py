"""What is left out is said and counted, links are followed on request."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from es_imgsearch.cli import main
from es_imgsearch.errors import AlreadyRunning
from es_imgsearch.manage.status import index_status
from tests.support.house import House, compare_again, until


def run(house: House, command: str, *options: str, code: int = 0) -> Result:
    where = ["--index", house.settings.index, "--es-url", str(house.settings.es_url)]
    result = CliRunner().invoke(main, [command, *options, *where])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def mixed(house: House, tmp_path: Path) -> House:
    """A folder with one picture, and one thing to leave out for each reason."""
    names = ["a.png", "b.psd", "raw/c.png", ".cache/d.png", "x.lrdata/e.png", "f.png_original"]
    for n, name in enumerate([*names, "P.photoslibrary/g.png"]):
        house.picture(name, n) if name.endswith(".png") else (house.folder / name).touch()
    (house.folder / "notes.txt").write_text("no picture")
    outside = tmp_path / "outside"
    outside.mkdir()
    (house.folder / "link").symlink_to(outside)
    (house.folder / "nothing").symlink_to(tmp_path / "away")
    os.mkfifo(house.folder / "pipe")
    return house


REASONS = {"pattern": 2, "hidden": 1, "usual": 2, "library": 1, "link to a folder": 1,
           "link to nothing": 1, "no file": 1, "no picture": 1}  # fmt: skip
PATTERNS = {"*.psd": 1, "raw/": 1, "*.tif": 0}
OPTIONS = [word for pattern in PATTERNS for word in ("--exclude", pattern)]
SAID = (
    "Left out of 'r': 1 hidden; 1 library of a program (--exclude '!*.photoslibrary' takes the"
    " originals of Apple Photos in); 1 link to a folder (--follow-links follows them); 1 link to"
    " nothing; 1 device, pipe or socket; 1 file that is no picture; 2 by --exclude; 2 by the usual"
    " excludes; of the patterns '*.psd' 1, 'raw/' 1, '*.tif' 0."
)


def test_sync_verify_and_status_count_what_was_left_out_by_reason(mixed: House):
    folder = str(mixed.folder)
    result = run(mixed, "sync", folder, *OPTIONS, "--json")
    assert SAID in result.stderr
    assert json.loads(result.stdout)["left_out"] == {"r": REASONS}
    assert {path for _, path in mixed.indexed()} == {"a.png"}
    compared = index_status(mixed.store)["roots"]["r"]["last_reconcile"]
    assert (compared["left_out"], compared["left_out_by"]) == (REASONS, PATTERNS)
    assert "left out: 1 hidden; 1 libraries of programs" in run(mixed, "status").stdout
    result = run(mixed, "verify", folder, *OPTIONS)
    assert SAID in result.stderr
    assert json.loads(run(mixed, "verify", folder, *OPTIONS, "--json").stdout) == []


def test_a_daemon_counts_what_is_left_out(mixed: House):
    def left_out():
        status = index_status(mixed.store)["roots"]["r"]["last_reconcile"] or {}
        return status.get("left_out"), status.get("left_out_by")

    with mixed.watched(exclude=tuple(PATTERNS)) as daemon:
        until(lambda: left_out() == (REASONS, PATTERNS))
        (mixed.folder / "more.txt").write_text("no picture either")
        until(lambda: left_out() == ({**REASONS, "no picture": 2}, PATTERNS))
        compare_again(daemon)
        until(lambda: left_out() == ({**REASONS, "no picture": 2}, PATTERNS))


def test_verify_says_that_it_compared_no_contents(house: House):
    path = house.picture("a.bmp.png", 1)
    run(house, "sync", str(house.folder))
    status = path.stat()
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + b"\0")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    said = run(house, "verify", str(house.folder), "--exclude", "*.psd").stderr
    assert "No differences." in said
    command = said.partition("not what is in the files: `")[2].partition("`")[0]
    program, *words = shlex.split(command)
    assert (program, words[0], words[-3]) == ("es-imgsearch", "verify", "--content")
    assert words[2:4] == ["--exclude", "*.psd"]
    result = run(house, *words[:-2], code=1)
    assert "other content" in result.stdout
    assert "not what is in the files" not in result.stderr
    run(house, "sync", str(house.folder), "--content")
    run(house, "verify", str(house.folder), "--content")


# -- links to folders ------------------------------------------------------------------------


@pytest.fixture
def linked(house: House, tmp_path: Path) -> tuple[House, Path]:
    """A root with a picture, and a link to a folder outside with ten."""
    house.pictures(80)
    outside = tmp_path / "outside"
    for n in range(10):
        house.picture(f"../outside/sub/{n}.png", 100 + n)
    (house.folder / "link").symlink_to(outside)
    return house, outside


def below_link(house: House) -> int:
    return sum(path.startswith("link/") for _, path in house.indexed())


def test_links_are_followed_and_nothing_is_deleted_when_a_target_goes(
    linked: tuple[House, Path], caplog: pytest.LogCaptureFixture
):
    house, outside = linked
    (outside / "back").symlink_to(house.folder)
    house.synced()
    assert below_link(house) == 0
    house.synced(follow_links=True)
    assert below_link(house) == 10
    outside.rename(outside.with_name("away"))
    for _ in range(2):
        assert house.synced(follow_links=True).last_comparisons["r"].unknown == 1
    assert below_link(house) == 10
    assert f"{house.folder}/link is a link to nothing: the documents below it stay" in caplog.text
    # What it says to do works.
    outside.with_name("away").rename(outside)
    assert house.synced(follow_links=True).last_comparisons["r"].unknown == 0
    (house.folder / "link").unlink()
    assert house.synced(follow_links=True).counts.deleted == 10
    assert below_link(house) == 0


def test_a_picture_that_is_surely_gone_is_deleted(linked: tuple[House, Path]):
    house, outside = linked
    house.synced(follow_links=True)
    (outside / "sub/3.png").unlink()
    assert house.synced(follow_links=True).counts.deleted == 1
    assert below_link(house) == 9


def test_a_daemon_watches_what_links_lead_to(linked: tuple[House, Path]):
    house, outside = linked
    with house.watched(follow_links=True, poll_seconds=0.3) as daemon:
        until(lambda: below_link(house) == 10)
        house.picture("../outside/sub/new.png", 200)
        until(lambda: below_link(house) == 11)
        (outside / "sub/0.png").unlink()
        until(lambda: below_link(house) == 10)
        # The target goes and comes back.
        outside.rename(outside.with_name("away"))
        compare_again(daemon)
        until(lambda: not any(daemon.indexer._pending.values()))
        assert below_link(house) == 10
        outside.with_name("away").rename(outside)
        house.picture("../outside/sub/back.png", 201)
        until(lambda: below_link(house) == 11)
        # The link goes, another comes.
        (house.folder / "link").unlink()
        until(lambda: below_link(house) == 0)
        (house.folder / "link").symlink_to(outside)
        until(lambda: below_link(house) == 11)
        house.picture("../outside/sub/newer.png", 202)
        until(lambda: below_link(house) == 12)
        assert daemon.error is None


def test_sync_that_follows_no_links_of_a_daemon_that_does_is_refused(linked: tuple[House, Path]):
    house, _ = linked
    with house.watched(follow_links=True):
        until(lambda: below_link(house) == 10)
        said = (
            "is watching 'r' with no --exclude and --follow-links, and this run has no --exclude"
            " and no --follow-links: .* Run it with no --exclude and --follow-links"
        )
        with pytest.raises(AlreadyRunning, match=said):
            house.synced()
        house.synced(follow_links=True)
        assert below_link(house) == 10


def test_commands_follow_links(linked: tuple[House, Path]):
    house, _ = linked
    run(house, "sync", str(house.folder), "--follow-links")
    assert below_link(house) == 10
    assert "No differences" in run(house, "verify", str(house.folder), "--follow-links").stderr
    result = run(house, "verify", str(house.folder), code=1)
    assert "gone: 10 documents" in result.stderr
