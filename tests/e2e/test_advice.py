"""What a message advises works: each is produced for real and its advice carried out literally.

tests/checkout/test_advice.py lists every advising message of the package and the test of it.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from es_imgsearch.cli import main
from es_imgsearch.elastic.state import daemon_id
from es_imgsearch.errors import ImageMissing
from es_imgsearch.records import image_id
from es_imgsearch.serve.originals import state_of
from es_imgsearch.testing import remove_index
from tests.e2e.test_mounts import Disk
from tests.support.house import House, paint
from tests.support.old_schemas import remove_state

COMMAND = re.compile(r"`(es-imgsearch [^`]+)`")


class Shell:
    """Types commands as somebody does who reads nothing but the messages."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.environment = {
            "ES_URL": str(house.settings.es_url),
            "ES_IMGSEARCH_HOST": house.settings.host,
            "ES_IMGSEARCH_LEASE_SECONDS": "2",
            "ES_IMGSEARCH_SETTLE_SECONDS": "0.1",
        }

    def type(self, *words: str, code: int = 0) -> Result:
        """Run a command of the index."""
        return self.run([*words, "--index", self.house.settings.index], code)

    def run(self, words: list[str], code: int = 0) -> Result:
        result = CliRunner(env=self.environment).invoke(main, words)
        assert result.exit_code == code, (words, result.output, result.exception)
        return result

    def follow(self, text: str, number: int = 0, code: int = 0, **replaced: str) -> Result:
        """Carry out the command that a message gives, its placeholders replaced."""
        program, *words = shlex.split(COMMAND.findall(text)[number])
        assert program == "es-imgsearch"
        for old, new in replaced.items():
            words = [new if word == old else word for word in words]
        return self.run(words, code)


@pytest.fixture
def shell(house: House) -> Shell:
    return Shell(house)


def said(result: Result) -> str:
    return result.stderr + result.stdout


# -- roots and hosts -------------------------------------------------------------------------


def test_a_container_made_anew_goes_on(
    shell: Shell, house: House, caplog: pytest.LogCaptureFixture
):
    house.pictures(5)
    folder = str(house.folder)
    shell.type("sync", folder)
    shell.environment["ES_IMGSEARCH_HOST"] = "made-anew"
    for command in (["sync"], ["sync", "--allow-deletes"], ["watch"], ["verify"]):
        refused = shell.type(command[0], folder, *command[1:], code=2)
        assert "add --take-over to `sync` or `watch`" in refused.stderr
    again = shell.type("sync", folder, "--take-over")
    (message,) = (each for each in caplog.messages if "goes on as" in each)
    assert message.endswith(f"{house.settings.host!r}, goes on as {folder} on host 'made-anew'.")
    assert "0 embedded, 0 reused" in again.stderr
    assert house.store.info().meta.roots["r"]["host"] == "made-anew"
    shell.type("sync", folder)
    shell.type("verify", folder)
    # It is harmless where there is nothing to take over.
    shell.type("sync", folder, "--take-over")


def test_a_folder_that_moved_to_another_host_and_path_goes_on(shell: Shell, house: House):
    house.pictures(5)
    shell.type("sync", str(house.folder))
    moved = house.folder.with_name("elsewhere")
    house.folder.rename(moved)
    shell.environment["ES_IMGSEARCH_HOST"] = "another"
    shell.type("sync", f"r={moved}", code=2)
    shell.type("sync", f"r={moved}", "--take-over")
    assert house.encoder.pictures_embedded == 5
    assert house.store.info().meta.roots["r"] == {"path": str(moved), "host": "another"}


def test_a_folder_lost_with_its_host_is_released(shell: Shell, house: House):
    house.pictures(3)
    shell.type("sync", str(house.folder))
    shutil.rmtree(house.folder)
    shell.environment["ES_IMGSEARCH_HOST"] = "another"
    refused = shell.type("sync", str(house.folder), "--allow-deletes", code=2)
    assert f"with ES_IMGSEARCH_HOST={house.settings.host} in the environment" in refused.stderr
    assert "--take-over" not in refused.stderr
    shell.environment["ES_IMGSEARCH_HOST"] = house.settings.host
    shell.type("sync", str(house.folder), "--allow-deletes")
    assert house.indexed() == {}
    assert house.store.info().meta.roots == {}


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("sync", ()),
        ("sync", ("--allow-deletes",)),
        ("sync", ("--content",)),
        ("watch", ()),
        ("watch", ("--allow-deletes",)),
    ],
)
@pytest.mark.parametrize("where", ["gone", "a file", "another gone"])
def test_a_folder_that_is_not_there_is_not_taken_over(
    shell: Shell, house: House, command: str, options: tuple[str, ...], where: str
):
    """It may be a disk that is not mounted yet: its documents stay those of the other host."""
    house.pictures(3)
    shell.type("sync", str(house.folder))
    indexed, roots = set(house.indexed()), house.store.info().meta.roots
    shutil.rmtree(house.folder)
    if where == "a file":
        house.folder.write_text("x")
    folder = f"r={house.folder}-2" if where == "another gone" else str(house.folder)
    shell.environment["ES_IMGSEARCH_HOST"] = "another"
    refused = shell.type(command, folder, "--take-over", *options, code=2)
    assert "give the folder that holds the pictures" in refused.stderr
    assert house.store.info().meta.roots == roots
    assert set(house.indexed()) == indexed


def test_a_folder_that_is_watched_elsewhere_is_not_taken_over(shell: Shell, house: House):
    house.pictures(3)
    with house.watched():
        house.settle()
        shell.environment["ES_IMGSEARCH_HOST"] = "another"
        refused = shell.type("sync", str(house.folder), "--take-over", code=2)
        assert f"Process {os.getpid()} on {house.settings.host} " in refused.stderr
    # "stop it, or wait" works, also where it was killed.
    shell.type("sync", str(house.folder), "--take-over")
    assert house.store.info().meta.roots["r"]["host"] == "another"


def test_a_daemon_killed_on_the_other_host_is_waited_for(shell: Shell, house: House):
    house.pictures(3)
    indexer = house.indexer(host="other")
    heartbeat = indexer.heartbeat()
    heartbeat.start()
    read = house.store.state.read(daemon_id("r"))
    assert read is not None
    heartbeat.release()
    heartbeat.join(30.0)
    indexer.pipeline.close()
    left = {**read.document, "token": "of a process that was killed"}
    house.store.state.update(daemon_id("r"), lambda _document: left)
    shell.type("sync", str(house.folder), "--take-over")
    assert len(house.indexed()) == 3


def test_a_folder_that_moved_on_this_host_keeps_its_name(shell: Shell, house: House):
    house.pictures(5)
    shell.type("sync", str(house.folder))
    moved = house.folder.with_name("moved")
    house.folder.rename(moved)
    refused = shell.type("sync", f"r={moved}", code=2)
    assert "add --allow-deletes to `sync` or `watch`, which gives the name" in refused.stderr
    assert "removes from the index what is not in it (no file is touched)" in refused.stderr
    shell.type("sync", f"r={moved}", "--allow-deletes")
    assert house.encoder.pictures_embedded == 5


def test_a_name_whose_folder_is_there_is_given_to_no_other(shell: Shell, house: House):
    house.pictures(3)
    shell.type("sync", str(house.folder))
    other = house.folder.with_name("other")
    other.mkdir()
    for option in ((), ("--allow-deletes",), ("--take-over",)):
        refused = shell.type("sync", f"r={other}", *option, code=2)
        # Neither option would help, so neither is named.
        assert "--" not in refused.stderr
        assert f"call this folder something else, as NAME={other}." in refused.stderr
    shell.type("sync", f"NAME={other}")


def test_overlapping_folders(shell: Shell, house: House):
    house.picture("sub/a.png", 1)
    shell.type("sync", str(house.folder))
    refused = shell.type("sync", str(house.folder / "sub"), code=2)
    given = re.search(r"give that one, as (\S+),", refused.stderr)
    assert given is not None
    shell.type("sync", given[1])


@pytest.mark.parametrize("inner", [["sub"], ["sub", "b"], ["sub/deep"]])
def test_a_folder_is_widened(shell: Shell, house: House, inner: list[str]):
    """What was indexed of it keeps its vectors, and no file is touched."""
    for n, name in enumerate(("a", "sub/b", "sub/deep/c", "b/d")):
        house.picture(f"{name}.png", n)
    for each in inner:
        shell.type("sync", str(house.folder / each))
    before = house.encoder.pictures_embedded
    refused = shell.type("sync", str(house.folder), code=2)
    assert "which takes that one in" in refused.stderr
    done = shell.follow(refused.stderr)
    for each in inner:
        assert f"'{Path(each).name}' is taken in: " in done.stderr
    assert "no file was touched" in done.stderr
    assert {root for root, _ in house.indexed()} == {"r"}
    assert house.differing() == []
    assert house.encoder.pictures_embedded == 4
    assert 0 < before < 4
    shell.type("sync", str(house.folder))
    assert "No differences" in shell.type("verify", str(house.folder)).stderr
    # The other way round stays refused, without the option.
    assert "takes that one in" not in shell.type("sync", str(house.folder / "sub"), code=2).stderr


def test_a_folder_that_a_daemon_watches_is_not_taken_in(shell: Shell, house: House):
    house.picture("a.png", 1)
    with house.watched():
        refused = shell.type("sync", f"all={house.folder.parent}", "--allow-deletes", code=2)
    assert "is watching 'r': stop it, and watch the outer folder then." in refused.stderr
    shell.type("sync", f"all={house.folder.parent}", "--allow-deletes")
    assert {root for root, _ in house.indexed()} == {"all"}


@pytest.mark.parametrize("is_followed_at_once", [True, False])
@pytest.mark.parametrize("place", ["moved", "elsewhere/moved"])
def test_a_renamed_folder_is_noticed_before_it_is_indexed_twice(
    shell: Shell, house: House, caplog: pytest.LogCaptureFixture, place: str,
    is_followed_at_once: bool,
):  # fmt: skip
    house.pictures(5)
    shell.type("sync", str(house.folder))
    moved = house.folder.with_name("x") / place
    moved.parent.mkdir(parents=True)
    if place == "moved":
        moved = house.folder.with_name("moved")
    house.folder.rename(moved)
    shown = shell.type("status").stdout
    assert "its folder is not there: mount it or bring it back; if it is gone for good" in shown
    shell.type("sync", str(moved))
    (note,) = [each for each in caplog.messages if "is not there: if it is now" in each]
    assert note.startswith(f"The folder of 'r' ({house.folder}) is not there: if it is now {moved}")
    assert COMMAND.findall(note) == [
        f"es-imgsearch sync r={moved} --allow-deletes --index {house.settings.index}"
    ]
    if is_followed_at_once:
        shell.follow(note)
        assert {root for root, _ in house.indexed()} == {"r"}
        assert len(house.indexed()) == 5
        assert "its folder is not there" not in shell.type("status").stdout
    else:
        # It was no move: the other is released.
        assert "no file was touched" in shell.follow(shown, number=1).stderr
        assert {root for root, _ in house.indexed()} == {"moved"}
    assert house.encoder.pictures_embedded == 5


def test_another_new_folder_is_not_taken_for_a_renamed_one(
    shell: Shell, house: House, caplog: pytest.LogCaptureFixture
):
    house.pictures(5)
    shell.type("sync", str(house.folder))
    other = house.folder.parent / "x/other"
    other.mkdir(parents=True)
    house.picture("../x/other/000.png", 77)
    shell.type("sync", str(other))
    house.folder.rename(house.folder.with_name("away"))
    house.picture("../x/third/named otherwise.png", 78)
    shell.type("sync", str(house.folder.parent / "x/third"))
    assert "if it is now" not in caplog.text


@pytest.mark.parametrize(
    ("number", "gone", "permits"),
    [(30, 30, True), (30, 10, True), (5, 5, True), (30, 3, False), (5, 3, False)],
)
def test_verify_names_the_option_where_the_deletions_would_pause(
    shell: Shell, house: House, number: int, gone: int, permits: bool
):
    paths = house.pictures(number)
    shell.type("sync", str(house.folder))
    for path in paths[:gone]:
        path.unlink()
    text = shell.type("verify", str(house.folder), code=1).stderr
    assert ("--allow-deletes" in COMMAND.findall(text)[0]) == permits
    shell.follow(text)
    assert "No differences" in shell.type("verify", str(house.folder)).stderr


def test_an_index_that_forgot_its_folders(shell: Shell, house: House):
    house.pictures(3)
    shell.type("sync", str(house.folder))
    remove_state(house.store)
    shell.follow(shell.type("sync", str(house.folder), code=2).stderr)
    shell.follow(shell.type("sync", str(house.folder), code=2).stderr)
    assert "No differences" in shell.type("verify", str(house.folder)).stderr


# -- deletions -------------------------------------------------------------------------------


def test_paused_deletions(shell: Shell, house: House, caplog: pytest.LogCaptureFixture):
    paths = house.pictures(30)
    house.picture("it's raw/a.png", 100)
    outside = house.folder.parent / "outside"
    house.picture("../outside/b.png", 101)
    (house.folder / "link").symlink_to(outside)
    walked = ["--exclude", "it's raw/", "--follow-links"]
    shell.type("sync", str(house.folder), *walked)
    assert len(house.indexed()) == 31
    for path in paths[:20]:
        path.unlink()
    shell.type("sync", str(house.folder), *walked, code=1)
    (message,) = (each for each in caplog.messages if "are paused" in each)
    shell.follow(message)
    assert {path for _, path in house.indexed()} == {"link/b.png", *(p.name for p in paths[20:])}
    shell.type("sync", str(house.folder), *walked)


@pytest.mark.parametrize(
    "given",
    [
        b"k=v", b"=x", b"a=b=c", b"k=", b"-dash", b"--index", b"-a=b", b"it's $HOME `x` \\ \"",
        b"caf\xe9", b"\xff\xfe", b"-\xff=\xfe", b"N=r", b"caf\xe9=in/it's",
        "\u00e9t\u00e9".encode(), b"x=y/z=w",
    ],
)  # fmt: skip
def test_a_pause_of_a_folder_of_any_name(
    shell: Shell, house: House, tmp_path: Path, caplog: pytest.LogCaptureFixture, given: bytes
):
    folder = os.fsencode(tmp_path) + b"/in/" + given.removeprefix(b"N=")
    os.makedirs(folder)
    for n in range(20):
        paint(folder + b"/%d.png" % n, n)
    root = os.fsdecode((b"N=" if given.startswith(b"N=") else b"") + folder)
    shell.type("sync", root)
    assert len(house.indexed()) == 20
    for n in range(10):
        os.unlink(folder + b"/%d.png" % n)
    shell.type("sync", root, code=1)
    (message,) = (each for each in caplog.messages if "are paused" in each)
    (advised,) = re.findall(r"if they are meant, run `(es-imgsearch sync .*)`\.$", message)
    shell.run(taken_apart(advised))
    assert len(house.indexed()) == 10
    os.unlink(folder + b"/19.png")
    text = shell.type("verify", root, code=1).stderr
    (advised,) = re.findall(r"gone: 1 .*; run `(es-imgsearch sync .*)`", text)
    (compared,) = re.findall(r"not what is in the files: `(es-imgsearch verify .*)` reads", text)
    shell.run(taken_apart(advised))
    assert "No differences" in shell.run(taken_apart(compared)).stderr
    shutil.rmtree(folder)
    text = shell.type("verify", root, code=1).stderr
    (advised,) = re.findall(r"folder unavailable: 1 .*; .*, run `(es-imgsearch sync .*)`", text)
    shell.run(taken_apart(advised))
    assert not house.indexed()


def taken_apart(command: str) -> list[str]:
    """The words of a command line that was typed as it is shown, as a real shell has them."""
    program, _, rest = command.partition(" ")
    assert program == "es-imgsearch"
    assert command.isprintable()
    line = b"printf '%s\\0' " + rest.encode()
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=True, cwd="/")
    return [os.fsdecode(each) for each in done.stdout.split(b"\0")[:-1]]


def test_an_unmounted_disk(shell: Shell, house: House, caplog: pytest.LogCaptureFixture):
    house.pictures(20)
    disk = Disk(house.folder / "disk")
    try:
        house.picture("disk/a.png", 100)
        shell.type("sync", str(house.folder), "--exclude", "*.psd")
    finally:
        disk.unmount()
    shell.type("sync", str(house.folder), "--exclude", "*.psd")
    assert len(house.indexed()) == 21
    (message,) = (each for each in caplog.messages if "not mounted any more" in each)
    shell.follow(message)
    assert len(house.indexed()) == 20
    assert "No differences" in shell.type("verify", str(house.folder)).stderr


def test_a_disk_that_a_link_leads_to_is_unmounted(shell: Shell, house: House, tmp_path: Path):
    house.pictures(20)
    disk = Disk(tmp_path / "disk")
    try:
        house.picture("../disk/sub/a.png", 100)
        (house.folder / "whole").symlink_to(disk.path)
        (house.folder / "part").symlink_to(disk.path / "sub")
        shell.type("sync", str(house.folder), "--follow-links")
        assert len(house.indexed()) == 22
    finally:
        disk.unmount()
    for _ in range(2):
        shell.type("sync", str(house.folder), "--follow-links")
        assert len(house.indexed()) == 22
    found = shell.type("verify", str(house.folder), "--follow-links", code=1)
    assert "not mounted: 1" in found.stderr
    shell.follow(found.stderr.partition("not mounted: ")[2], code=0)
    assert len(house.indexed()) == 21  # the link to nothing keeps its own


# -- the index -------------------------------------------------------------------------------


def test_an_index_that_is_missing(shell: Shell, house: House, encoders: dict):
    remove_index(house.store)
    for command in (["sync", str(house.folder)], ["search", "a cat"], ["status"]):
        refused = shell.type(*command, code=2)
        init = f"es-imgsearch init --index {house.settings.index}"
        assert COMMAND.findall(refused.stderr) == [init, f"{init} --encoder starter"]
    shell.environment["ES_IMGSEARCH_ENCODER"] = "fake"
    shell.follow(refused.stderr)
    shell.type("status")
    remove_index(house.store)
    encoders["starter"] = encoders["fake"]
    shell.follow(shell.type("status", code=2).stderr, number=1)
    shell.type("status")


def test_a_server_elsewhere(shell: Shell, house: House):
    right = shell.environment["ES_URL"]
    wrong = {"http://127.0.0.1:9": 3, right.replace("http:", "https:"): 3}
    for url in wrong:
        shell.environment["ES_URL"] = url
        refused = CliRunner(env=shell.environment).invoke(main, ["status"])
        assert refused.exit_code in {2, 3}
        assert "ES_URL or --es-url" in refused.stderr
    shell.type("status", "--es-url", right)
    shell.environment["ES_URL"] = right
    shell.type("status")


@pytest.mark.parametrize("command", [["codes", "apply"], ["search", "--codes", "a cat"]])
def test_an_index_without_codes(shell: Shell, house: House, command: list[str]):
    house.pictures(20)
    shell.type("sync", str(house.folder))
    shell.follow(shell.type(*command, code=2).stderr)
    shell.type(*command)


def test_status_names_what_to_run(shell: Shell, house: House):
    house.pictures(40)
    shell.type("sync", str(house.folder))
    line = next(each for each in said(shell.type("status")).splitlines() if "not tuned" in each)
    shell.follow(line)
    assert "not tuned" not in shell.type("status").stdout


@pytest.mark.parametrize("command", ["tune", "calibrate"])
def test_too_few_pictures(shell: Shell, house: House, command: str):
    refused = shell.type(command, code=2)
    house.pictures(60)
    shell.follow(refused.stderr, DIR=str(house.folder))
    shell.type(command)


def test_searches_that_cannot_be_logged(
    shell: Shell, house: House, caplog: pytest.LogCaptureFixture
):
    house.pictures(3)
    shell.type("sync", str(house.folder))
    shell.environment["ES_IMGSEARCH_LOG_SEARCHES"] = "true"
    shell.type("search", "a cat")
    (message,) = (each for each in caplog.messages if "cannot be logged" in each)
    shell.follow(message)
    caplog.clear()
    shell.type("search", "a cat")
    assert "cannot be logged" not in caplog.text


def test_an_original_that_is_gone(shell: Shell, house: House):
    path = house.picture("a.png", 1)
    shell.type("sync", str(house.folder))
    path.unlink()
    with pytest.raises(ImageMissing) as gone:
        state_of(path, image_id("r", "a.png"))
    assert "run `es-imgsearch sync` on its folder" in str(gone.value)
    house.picture("b.png", 2)
    shell.type("sync", str(house.folder))
    assert {path for _, path in house.indexed()} == {"b.png"}


def test_another_encoder_of_an_index_that_exists(shell: Shell, house: House):
    house.pictures(5)
    shell.type("sync", str(house.folder))
    shell.follow(shell.type("init", "--encoder", "twin", code=2).stderr)
    assert house.store.info().meta.seal.name == "twin"


def test_status_names_what_to_do_with_generations(shell: Shell, house: House):
    house.pictures(20)
    shell.type("sync", str(house.folder))
    shell.type("reindex", "--profile", "compact")
    line = next(
        each for each in shell.type("status").stdout.splitlines() if "served before" in each
    )
    shell.follow(line)
    shell.run(shlex.split(COMMAND.findall(line)[0].replace("--back", "--drop-old"))[1:])


def test_another_profile_of_an_index_that_exists(shell: Shell, house: House):
    refused = shell.type("init", "--encoder", "fake", "--profile", "compact", code=2)
    shell.follow(refused.stderr)
    assert house.store.info().meta.profile == "compact"


@pytest.mark.parametrize("kept", ["other", "same"])
def test_a_generation_that_is_kept(shell: Shell, house: House, kept: str):
    house.pictures(5)
    shell.type("sync", str(house.folder))
    shell.type("reindex", "--profile", "compact")
    wanted = "exact" if kept == "same" else "balanced"
    refused = shell.type("reindex", "--profile", wanted, code=2)
    shell.follow(refused.stderr)
    if kept == "same":
        assert house.store.info().meta.profile == "exact"
    else:
        shell.type("reindex", "--profile", wanted)


@pytest.mark.parametrize("number", [0, 1])
def test_a_reindex_that_is_begun(shell: Shell, house: House, number: int):
    paths = house.pictures(20)
    shell.type("sync", str(house.folder))
    for path in paths:
        path.rename(path.with_suffix(".away"))
    shell.type("reindex", "--encoder", "twin", code=1)  # the originals are not here
    refused = shell.type("reindex", "--profile", "compact", code=2)
    for path in paths:
        path.with_suffix(".away").rename(path)
    shell.follow(refused.stderr, number)
    encoder = house.store.info().meta.seal.name
    assert encoder == ("twin" if number == 0 else "fake")
