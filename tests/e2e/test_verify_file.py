"""`verify FILE` says why a picture is missing, or since when it is indexed."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from es_imgsearch.cli import main
from tests.support.house import House, until
from tests.support.reindexing import run


def verify(house: House, *arguments: str | Path, code: int) -> Result:
    where = ["--index", house.settings.index, "--es-url", str(house.settings.es_url)]
    result = CliRunner().invoke(main, ["verify", *map(os.fspath, arguments), *where])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def answer(house: House, path: Path, *options: str, code: int = 1) -> tuple[str, str]:
    found: list[dict[str, Any]] = json.loads(
        verify(house, path, "--json", *options, code=code).stdout
    )
    (one,) = found
    assert one["path"] == str(path)
    return one["what"], one["detail"]


@pytest.fixture
def synced(house: House) -> House:
    house.picture("a.png", 1)
    house.picture("sub/b.png", 2)
    (house.folder / "broken.jpg").write_bytes(b"no picture at all")
    (house.folder / "notes.txt").write_text("words")
    house.synced()
    return house


def old(path: Path) -> Path:
    os.utime(path, (time.time() - 100, time.time() - 100))
    return path


def test_what_is_so_of_a_file(synced: House, tmp_path: Path):
    folder = synced.folder
    what, detail = answer(synced, folder / "sub/b.png", code=0)
    assert what == "indexed"
    assert detail.startswith("id ")
    assert ", indexed at 20" in detail
    (what, detail) = answer(synced, folder / "broken.jpg")
    assert what == "failed"
    assert " It failed at 20" in detail
    assert answer(synced, old(folder / "notes.txt"))[0] == "no picture"
    assert answer(synced, old(synced.picture("new.png", 3)))[0] == "missing"
    outside = tmp_path / "outside.png"
    outside.write_bytes(b"")
    assert answer(synced, outside) == ("not watched", "it is in no folder that the index knows")
    assert answer(synced, folder / "never.png")[0] == "no such file"
    (folder / "a.png").write_bytes(b"other")
    assert answer(synced, old(folder / "a.png"))[0] == "changed"
    (folder / "a.png").unlink()
    what, detail = answer(synced, folder / "a.png")
    assert what == "gone"
    assert "the index still has it; `es-imgsearch sync r=" in detail
    now = synced.picture("now.png", 4)
    os.utime(now, (time.time() - 0.001, time.time() - 0.001))
    long = ["--config", str(tmp_path / "settings.toml")]
    Path(long[1]).write_text("settle_seconds = 60")
    assert answer(synced, now, *long)[0] == "still being written"


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        (".hidden.png", (), "it is hidden"),
        (".private/a.png", (), "its folder .private is left out: its name begins with a dot"),
        ("@eaDir/a.png", (), "its folder @eaDir is left out: by the usual excludes"),
        ("a.png.part", (), "by the usual excludes"),
        ("x.photoslibrary/a.png", (), "it is a library of another program"),
        ("raw/a.png", ("--exclude", "raw/"), "its folder raw is left out: by the pattern 'raw/'"),
        ("a.psd", ("--exclude", "*.psd"), "by the pattern '*.psd'"),
        ("raw/x/a.png", ("--exclude", "/raw/*"), "folder raw/x is left out: by the pattern"),
        ("raw", ("--exclude", "raw"), "by the pattern 'raw'"),
    ],
)
def test_why_a_file_is_left_out(synced: House, name: str, options: tuple[str, ...], why: str):
    what, detail = answer(synced, synced.picture(name, 5), *options)
    assert what == "left out"
    assert why in detail


def test_links(synced: House, tmp_path: Path):
    (tmp_path / "other").mkdir()
    synced.picture("../other/a.png", 6)
    (synced.folder / "link").symlink_to(tmp_path / "other")
    (synced.folder / "nothing.png").symlink_to(tmp_path / "nothing")
    assert answer(synced, synced.folder / "nothing.png") == ("left out", "it is a link to nothing")
    what, detail = answer(synced, synced.folder / "link/a.png")
    assert (what, "links are not followed" in detail) == ("left out", True)
    # The same folder under another name.
    (tmp_path / "way").symlink_to(synced.folder)
    assert answer(synced, tmp_path / "way/sub/b.png", code=0)[0] == "indexed"


def test_the_patterns_of_the_daemon_and_its_pause(synced: House):
    synced.pictures(30)
    synced.settings = synced.settings.model_copy(update={"exclude": ["*.psd"]})
    with synced.watched():
        synced.settle()
        assert "'*.psd'" in answer(synced, synced.picture("a.psd", 5))[1]
        for path in synced.folder.glob("0*.png"):
            path.unlink()
        until(synced.paused)
        what, detail = answer(synced, synced.folder / "000.png")
    assert what == "gone"
    assert "the index still has it: deletions in 'r' are paused since 20" in detail


def test_several_files_in_plain_words_and_what_they_say_to_do(synced: House):
    new = old(synced.picture("new.png", 3))
    lines = verify(synced, synced.folder / "sub/b.png", new, code=1).stdout.splitlines()
    assert lines[0].startswith(f"indexed         {synced.folder}/sub/b.png (id ")
    (command,) = re.findall(r"`es-imgsearch (.*?)`", lines[1])
    run(synced, *command.partition(" --index")[0].split())
    verify(synced, new, code=0)
    mixed = verify(synced, new, synced.folder, code=2)
    assert "Give files alone, or folders" in mixed.stderr


def test_the_failures_are_mentioned_with_the_command_that_lists_them(synced: House):
    said = verify(synced, synced.folder, code=0).stderr
    command = f"es-imgsearch failures --index {synced.settings.index}"
    assert f"1 file cannot be read or stored: `{command}`." in said
    where = ["--es-url", str(synced.settings.es_url)]
    listed = CliRunner().invoke(main, [*command.split()[1:], *where])
    assert "broken.jpg" in listed.stdout


@pytest.mark.parametrize("given", ["r={}", "r={}/", "{}", "{}/.", "."])
def test_a_root_given_by_name_is_no_file_where_the_working_folder_is_watched(
    synced: House, monkeypatch: pytest.MonkeyPatch, given: str
):
    monkeypatch.chdir(synced.folder)
    (synced.folder / "broken.jpg").unlink()
    synced.synced()
    words = [given.format(synced.folder)]
    assert "No differences" in verify(synced, *words, "--content", code=0).stderr
    assert "No differences" in verify(synced, *words, code=0).stderr


def test_a_missing_root_given_by_name_is_no_file_either(
    synced: House, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(synced.folder)
    said = verify(synced, f"nas={tmp_path / 'not-there'}", code=2).stderr
    assert "the index knows no 'nas'" in said


@pytest.mark.parametrize("name", ["a=b.png", "x=/a.png", "r=a"])
def test_a_file_with_an_equals_sign_is_one(
    synced: House, monkeypatch: pytest.MonkeyPatch, name: str
):
    """Also one that is not there, where what follows the sign is no absolute path."""
    monkeypatch.chdir(synced.folder)
    is_there = name.endswith(".png")
    if is_there:
        synced.picture(name, 9)
        synced.synced()
    (found,) = json.loads(verify(synced, name, "--json", code=not is_there).stdout)
    assert found["what"] == ("indexed" if is_there else "no such file")
