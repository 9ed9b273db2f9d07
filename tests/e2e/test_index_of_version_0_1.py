"""An index that version 0.1 made is opened, searched, watched and reindexed by this version.

The dump has 200 pictures in two roots, 6 failures, what `tune`, `calibrate`, `tags train` and
`codes train` stored, a root whose deletions are paused, a daemon that was killed, and a reindex to
another encoder that was killed when it had 60 pictures.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from elasticsearch import Elasticsearch

from es_imgsearch import ImageSearch
from es_imgsearch.cli import main
from tests.support import version_0_1 as old
from tests.support.house import until

COMMAND = str(Path(sys.executable).with_name("es-imgsearch"))
LEFT = old.ALBUM + old.TRAVELS - old.REMOVED
CARRIED = 60
# The index keeps regions 2x2+centre.
TILES = 5


class Restored:
    """The index, the folders as they were when it was dumped, and commands on both."""

    def __init__(self, url: str, client: Elasticsearch, home: Path) -> None:
        self.index = f"t-{uuid.uuid4().hex[:12]}"
        self.url, self.client, self.home = url, client, home
        self.album, self.travels = (str(home / root) for root in old.ROOTS)
        self.log = home / "embedded.txt"
        old.write_folders(home)
        old.restore(client, self.index, home)

    def run(self, *arguments: str, code: int = 0) -> Result:
        where = ["--index", self.index, "--es-url", self.url]
        environment = {"EMBEDDED_LOG": str(self.log)}
        result = CliRunner().invoke(main, [arguments[0], *where, *arguments[1:]], env=environment)
        assert result.exit_code == code, (result.output, result.stderr, result.exception)
        return result

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code).stdout)

    def status(self) -> dict[str, Any]:
        return self.json("status")

    def pictures(self) -> dict[str, int]:
        """How many pictures the index holds, by root."""
        return {name: root["pictures"] for name, root in self.status()["roots"].items()}

    def embedded(self) -> list[str]:
        """The encoder's name for each picture or tile that a command embedded."""
        return self.log.read_text().split() if self.log.exists() else []

    def search(self) -> ImageSearch:
        return ImageSearch(self.url, index=self.index)

    def first(self, picture: str) -> tuple[str, float]:
        """Path and score of the first hit for a file of the folders."""
        with self.search() as client:
            hit = client.search_image(self.home / picture, k=1)[0]
        return f"{hit.root}/{hit.relative_path}", hit.score


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    """What version 0.1 answered."""
    answers: dict[str, Any] = json.loads(old.EXPECTED.read_text(encoding="utf-8"))
    return answers


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[None]:
    """The encoders that the index is sealed to, found by name; the host that it was made on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(old.PLUGIN))
        # For readers and daemons, which are processes of their own.
        patch.setenv("PYTHONPATH", str(old.PLUGIN))
        patch.setenv("ES_IMGSEARCH_HOST", old.HOST)
        patch.setenv("ES_IMGSEARCH_READ_WORKERS", "1")
        yield


@contextmanager
def restored(url: str, home: Path) -> Iterator[Restored]:
    client = Elasticsearch(url, request_timeout=60)
    try:
        made = Restored(url, client, home)
        try:
            yield made
        finally:
            old.remove(client, made.index)
    finally:
        client.close()


@pytest.fixture(scope="module")
def untouched(es_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restored]:
    """One index for the tests that change nothing in it."""
    with restored(es_url, tmp_path_factory.mktemp("untouched")) as made:
        yield made


@pytest.fixture
def changing(es_url: str, tmp_path: Path) -> Iterator[Restored]:
    with restored(es_url, tmp_path) as made:
        yield made


# -- opened and searched -------------------------------------------------------------------------


def test_status_shows_all_that_was_noted(untouched: Restored, expected: dict):
    then, now = expected["status"], untouched.status()
    for same in ("encoder", "profile", "similarity", "tuning", "pictures", "failures", "codes"):
        assert now[same] == then[same], same
    assert (now["pictures"], now["failures"], now["tune_again"]) == (200, 6, False)
    assert now["writes_held_back"] is False
    assert (now["next"]["encoder"], now["next"]["pictures"]) == ("grid-24", CARRIED)
    assert now["next"]["builder"]["is_alive"] is False
    assert now["before"] is None
    for name, root in now["roots"].items():
        before = then["roots"][name]
        assert root["path"] == before["path"].replace("{home}", str(untouched.home))
        for same in ("host", "pictures", "failures", "deletions_paused", "last_reconcile"):
            assert root[same] == before[same], same
        # The daemon was killed long ago.
        assert root["queue"] is None
        assert root["watched_by"]["process_id"] == before["watched_by"]["process_id"]
        assert root["watched_by"]["is_alive"] is False
    assert now["roots"]["travels"]["deletions_paused"]["pictures"] == old.REMOVED
    words = untouched.run("status").stdout
    assert "12 of its 40 pictures are gone" in words
    assert f"{untouched.index}-000002 is begun and not finished" in words


def test_searches_find_what_they_found(untouched: Restored, expected: dict):
    with untouched.search() as client:
        for asked in expected["searches"]:
            kind, _, question = asked["question"].partition(" ")
            if kind == "text":
                hits = client.search_text(question, k=5, mode="vector")
            elif (picture := untouched.home / question).exists():
                hits = client.search_image(picture, k=5)
            else:
                continue  # one of those that were removed
            assert len(hits) == len(asked["hits"]) == 5
            # An approximate search may leave out another one on another server.
            first, then = hits[0], asked["hits"][0]
            assert f"{first.root}/{first.relative_path}" == then["path"]
            assert first.path == untouched.home / then["path"]
            before = {each["path"]: each for each in asked["hits"]}
            both = [each for each in hits if f"{each.root}/{each.relative_path}" in before]
            assert len(both) >= 4
            for hit in both:
                then = before[f"{hit.root}/{hit.relative_path}"]
                assert hit.score == pytest.approx(then["score"], abs=1e-5)
                # Of `calibrate`, with the sample of vectors that it drew.
                assert hit.relevance == pytest.approx(then["relevance"], abs=1e-3)
                # Of `tags train`.
                assert sorted(hit.fields["tags"]) == then["tags"]


def test_commands_search_it(untouched: Restored):
    first = untouched.run("search", "blue", "-k", "1", "--mode", "vector").stdout
    assert first.startswith(" 1.000  ")
    assert first.endswith("album/blue-002.bmp\n")
    # By its name as well, which the analysers of then have cut into words.
    named = untouched.run("search", "blue", "-k", "1").stdout
    assert named.endswith("album/blue-002.bmp\n")
    assert untouched.run("search", "blue-002", "-k", "1").stdout.endswith("album/blue-002.bmp\n")
    picture = str(untouched.home / "album/red-100.bmp")
    for options in ([], ["--codes"], ["--exact"], ["--regions"]):
        said = untouched.run("search", "--image", picture, "-k", "3", *options).stdout
        assert "album/red-100.bmp" in said.splitlines()[0], options
    words = untouched.run("search", "orange 033", "--mode", "text", "-k", "1").stdout
    assert "album/year 2000/orange-033.bmp" in words
    tagged = untouched.run("search", "red", "-k", "100", "--filter", "tags=blue").stdout
    assert len(tagged.splitlines()) >= 30
    # A piece of a picture is found by the vectors of its tiles.
    box = ["--image", picture, "--box", "0,0,16,16", "--regions", "-k", "1"]
    assert "album/red-100.bmp" in untouched.run("search", *box).stdout
    with untouched.search() as client:
        itself, nearest = client.search_image(picture, k=2)
    like_it = untouched.run("similar", itself.image_id, "-k", "3").stdout
    assert nearest.relative_path in like_it.splitlines()[0]


def test_failures_are_listed(untouched: Restored, expected: dict):
    now = {(each["root"], each["relative_path"]): each for each in untouched.json("failures")}
    then = {(each["root"], each["relative_path"]): each for each in expected["failures"]}
    assert {f"{root}/{path}" for root, path in now} == old.broken_files().keys()
    for key, each in then.items():
        for same in ("error_class", "message", "size_bytes", "mtime_ns", "attempts"):
            assert now[key][same] == each[same], (key, same)


def test_verify_finds_what_was_removed_and_nothing_else(untouched: Restored):
    assert untouched.json("verify", untouched.album) == []
    lacking = untouched.json("verify", untouched.travels, code=1)
    found = sorted(f"{each['root']}/{each['relative_path']}" for each in lacking)
    assert found == sorted(old.removed_paths())


# -- kept ----------------------------------------------------------------------------------------


def test_sync_deletes_only_when_allowed_and_the_reindex_goes_on(changing: Restored, expected: dict):
    folders = [changing.album, changing.travels]
    changing.run("sync", *folders, code=1)
    assert changing.pictures() == {"album": old.ALBUM, "travels": old.TRAVELS}
    paused = changing.status()["roots"]["travels"]["deletions_paused"]
    before = expected["status"]["roots"]["travels"]["deletions_paused"]
    assert paused == before | {"kind": "share"}
    changing.run("sync", *folders, "--allow-deletes")
    assert changing.embedded() == []
    status = changing.status()
    assert {name: root["pictures"] for name, root in status["roots"].items()} == {
        "album": old.ALBUM,
        "travels": old.TRAVELS - old.REMOVED,
    }
    assert all(root["deletions_paused"] is None for root in status["roots"].values())
    assert (status["failures"], status["tuning"]) == (6, expected["status"]["tuning"])
    assert changing.json("verify", *folders) == []
    # The pause stays ended.
    changing.run("sync", *folders)
    assert changing.embedded() == []

    # And the reindex goes on where it was killed.
    changing.run("reindex")
    assert changing.embedded() == ["grid-24"] * ((LEFT - CARRIED) * (1 + TILES))
    status = changing.status()
    assert (status["encoder"]["name"], status["pictures"], status["failures"]) == (
        "grid-24",
        LEFT,
        6,
    )
    assert status["next"] is None
    for picture in ("album/red-100.bmp", old.path_of(7), old.path_of(165)):
        assert changing.first(picture) == (picture, pytest.approx(1.0, abs=1e-5))
    assert "album/blue-002.bmp" in changing.run("search", "blue", "-k", "1").stdout
    changing.run("sync", *folders)
    assert changing.json("verify", *folders) == []
    assert len(changing.embedded()) == (LEFT - CARRIED) * (1 + TILES)

    # The generation of version 0.1 is gone back to, with all that was learned of it.
    changing.run("reindex", "--back")
    status = changing.status()
    assert (status["encoder"], status["tuning"], status["codes"]) == tuple(
        expected["status"][name] for name in ("encoder", "tuning", "codes")
    )
    assert status["pictures"] == LEFT
    assert changing.first("album/red-100.bmp") == ("album/red-100.bmp", pytest.approx(1.0))


def test_a_reindex_is_given_up(changing: Restored, expected: dict):
    changing.run("reindex", "--cancel")
    status = changing.status()
    assert (status["next"], status["pictures"]) == (None, 200)
    assert status["tuning"] == expected["status"]["tuning"]
    assert changing.first("album/red-100.bmp") == ("album/red-100.bmp", pytest.approx(1.0))
    changing.run("failures", "retry", code=1)
    assert changing.status()["failures"] == 6


def test_a_daemon_keeps_it(changing: Restored):
    with watched(changing) as process:
        new = "album/new/blue-900.bmp"
        old.write_picture(changing.home / new, 902)
        until(lambda: process.poll() is None and changing.pictures()["album"] == old.ALBUM + 1)
        assert changing.first(new) == (new, pytest.approx(1.0, abs=1e-5))
        status = changing.status()
        assert status["roots"]["album"]["watched_by"]["process_id"] == process.pid
        # Codes and tags as those of the pictures before.
        assert status["codes"]["missing"] == 0
        with changing.search() as client:
            hit = client.search_image(changing.home / new, k=1, codes=True)[0]
        assert (hit.relative_path, hit.fields["tags"]) == ("new/blue-900.bmp", ["blue"])
        # What was paused waits for somebody.
        assert status["roots"]["travels"]["pictures"] == old.TRAVELS
        assert status["roots"]["travels"]["deletions_paused"]["pictures"] == old.REMOVED
        # A running daemon hears that it is meant.
        changing.run("sync", changing.travels, "--allow-deletes")
    assert changing.pictures() == {"album": old.ALBUM + 1, "travels": old.TRAVELS - old.REMOVED}
    # The picture and its tiles, and what a daemon warms up with.
    assert changing.embedded() in (["grid-48"] * (1 + TILES + warm_up) for warm_up in (0, 1))


@contextmanager
def watched(changing: Restored) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon that is ready on both roots, and ends in order."""
    errors = changing.home / "stderr.txt"
    environment = {
        **os.environ,
        "ES_URL": changing.url,
        "ES_IMGSEARCH_INDEX": changing.index,
        "EMBEDDED_LOG": str(changing.log),
    }
    with errors.open("wb") as file:
        process = subprocess.Popen(
            [COMMAND, "watch", changing.album, changing.travels], env=environment, stderr=file
        )
    try:
        until(lambda: process.poll() is not None or "Watching " in errors.read_text(), 90)
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=40) == 0, errors.read_text()
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(timeout=30)
