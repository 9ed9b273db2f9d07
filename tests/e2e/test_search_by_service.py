"""`search` and `similar` ask a `serve` that runs on this machine, with the same output."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from es_imgsearch.cli import main
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.store import Store
from es_imgsearch.records import image_id
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import remove_index
from tests.support.house import until

pytestmark = [pytest.mark.es, pytest.mark.process]

PICTURES = ("chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")
COFFEE = image_id("photos", "coffee.png")


class Place(NamedTuple):
    """An index, the environment of its commands, and pictures outside of it."""

    environment: dict[str, str]
    announcements: Path
    pictures: Path


@pytest.fixture(scope="module")
def place(
    es_url: str, photographs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("by-service")
    (folder / "photos" / "sub").mkdir(parents=True)
    for name in PICTURES:
        shutil.copy(photographs / name, folder / "photos")
    for number in range(28):
        content = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(content.repeat(16, 0).repeat(16, 1)).save(
            folder / "photos" / "sub" / f"plain {number}.png"
        )
    (folder / "run").mkdir(mode=0o700)
    index = f"by-service-{uuid.uuid4().hex[:12]}"
    environment = {
        "ES_URL": es_url, "ES_IMGSEARCH_INDEX": index, "ES_IMGSEARCH_READ_WORKERS": "1",
        "ES_IMGSEARCH_SETTLE_SECONDS": "0.1", "XDG_RUNTIME_DIR": str(folder / "run"),
    }  # fmt: skip
    run = CliRunner(env=environment).invoke
    assert run(main, ["init", "--encoder", "starter"]).exit_code == 0
    assert run(main, ["sync", str(folder / "photos")]).exit_code == 0
    Image.open(photographs / "coffee.png").resize((3000, 2000)).save(folder / "large.jpg")
    yield Place(environment, folder / "run" / "es-imgsearch", folder)
    settings = load_settings({"es_url": es_url, "index": index})
    remove_index(Store(connect(settings), index))


class Serve:
    """A `serve` process, and what it was asked, by its access log."""

    def __init__(self, place: Place, *options: str) -> None:
        self.log = place.pictures / f"log-{uuid.uuid4().hex}"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "es_imgsearch.cli", "serve", "--port", "0", "--access-log",
                 *options],
                env={**os.environ, **place.environment}, stderr=log, stdout=log,
            )  # fmt: skip
        self._folder = place.announcements
        until(lambda: self.announcement is not None or self.process.poll() is not None)
        assert self.process.poll() is None, self.log.read_text()

    @property
    def announcement(self) -> Path | None:
        for path in self._folder.glob("serve-*.json"):
            text = path.read_text()
            if text and json.loads(text)["pid"] == self.process.pid:
                return path
        return None

    def asked(self) -> int:
        """How many searches it has answered."""
        return len(re.findall(r"search-by-examples", self.log.read_text()))

    def end(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(30)


@pytest.fixture(scope="module")
def serve(place: Place) -> Iterator[Serve]:
    running = Serve(place)
    yield running
    running.end()
    assert not list(place.announcements.glob("*"))


@pytest.fixture
def run(place: Place) -> Callable[..., Result]:
    def search(*words: str, **given: object) -> Result:
        return CliRunner(env=place.environment).invoke(main, words, **given)

    return search


def settled(output: str) -> str:
    return re.sub(r'"took_ms": \d+', '"took_ms": 0', output)


SEARCHES: Sequence[Sequence[str]] = [
    ("search", "a", "cup", "of", "coffee"),
    ("search", "a cat", "--json"),
    ("search", "a cat", "--json-hits", "-k", "3"),
    ("search", "a cat", "--paths"),
    ("search", "a cat", "-0"),
    ("search", "a cat", "--ids", "--explain"),
    ("search", "plain 3", "--mode", "hybrid", "--explain"),
    ("search", "coffee", "--mode", "text", "--json"),
    ("search", "nothing such", "--mode", "text"),
    ("search", "a cat", "--not", "coffee", "--not", "a road", "-k", "20"),
    ("search", "a cat", "--filter", "folder=sub", "--filter", "format=png"),
    ("search", "a cat", "--filter", "width=100..9999", "--facets", "format,year"),
    ("search", "a cat", "--since", "2001", "--until", "2090-05"),
    ("search", "a cat", "--when", "2001 to 2030", "--filter", "format!=jpeg"),
    ("search", "a cat", "--offset", "2", "--size", "3", "--exact"),
    ("search", "a cat", "--min-relevance", "0.9", "--collapse"),
    ("search", "a cat", "--num-candidates", "40", "--weights", "content=1"),
    ("search", "--image", "large.jpg", "--json"),
    ("search", "large.jpg", "--box", "100,200,1500,1500", "--explain"),
    ("search", "large.jpg", "a", "road", "--not", "a cup"),
    ("similar", COFFEE),
    ("similar", COFFEE, "-k", "3", "--json", "--filter", "folder=."),
    ("search", "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "--json"),
]


@pytest.mark.parametrize("words", SEARCHES, ids=" ".join)
def test_the_output_is_the_same(
    words: Sequence[str], serve: Serve, place: Place, run: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(place.pictures)
    local = run(*words, "--service", "none")
    before = serve.asked()
    found = run(*words)
    named = run(*words, "--service", json.loads(serve.announcement.read_text())["url"])
    until(lambda: serve.asked() == before + 2)
    assert local.exit_code == 0, local.output
    for each in (found, named):
        assert settled(each.stdout) == settled(local.stdout)
        assert each.stderr == local.stderr
        assert each.exit_code == local.exit_code


@pytest.mark.parametrize(
    "words",
    [
        ("search", "a cat", "--filter", "nothing=1"),
        ("search", "a cat", "--facets", "nothing"),
        ("search", "a cat", "--since", "someday"),
        ("search", "a cat", "-k", "0"),
        ("search", "a cat", "--regions"),
        ("search", "a cat", "--codes"),
        ("search", "a cat", "--min-relevance", "3"),
        ("search", "a cat", "--weights", "sound=1"),
        ("search", "--image", "missing.png"),
        ("search", " "),
        ("similar", "0" * 32),
        ("similar", "nothing"),
    ],
    ids=" ".join,
)
def test_errors_are_the_same(
    words: Sequence[str], serve: Serve, run: Callable[..., Result]
) -> None:
    local, found = run(*words, "--service", "none"), run(*words)
    assert (found.stderr, found.exit_code) == (local.stderr, local.exit_code)
    assert found.exit_code == 2


def test_colours_of_a_picture_are_compared_here(
    serve: Serve, place: Place, run: Callable[..., Result]
) -> None:
    words = ("search", str(place.pictures / "large.jpg"), "--weights", "colour=1", "--json")
    before = serve.asked()
    found = run(*words)
    assert settled(found.stdout) == settled(run(*words, "--service", "none").stdout)
    assert serve.asked() == before


def test_little_is_imported(serve: Serve, place: Place) -> None:
    """NumPy alone takes 90 ms of CPU, Elasticsearch's client 200."""
    program = """
import sys
from es_imgsearch.cli import main
try:
    main(["search", "a cup of coffee", "-k", "1", "--filter", "format=png", "--json"])
except SystemExit as end:
    assert not end.code, end
heavy = {"torch", "numpy", "PIL", "elasticsearch", "elastic_transport", "fastapi", "rich"}
print(*sorted(heavy & sys.modules.keys()), "loaded")
"""
    before = serve.asked()
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env={**os.environ, **place.environment},
    )  # fmt: skip
    assert "coffee.png" in done.stdout
    assert done.stdout.splitlines()[-1].strip() == "loaded"
    until(lambda: serve.asked() == before + 1)


def test_a_service_of_another_index_or_server_is_not_asked(
    serve: Serve, run: Callable[..., Result], es_url: str
) -> None:
    before = serve.asked()
    other = run("search", "a cat", "--index", "by-service-other")
    assert "by-service-other" in other.stderr
    assert run("search", "a cat", "--es-url", "http://127.0.0.1:1").exit_code == 3
    assert run("search", "a cat", "--service", "none").exit_code == 0
    assert serve.asked() == before


def test_a_service_that_is_named_is_the_only_one_asked(run: Callable[..., Result]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    answer = run("search", "a cat", "--service", url)
    assert answer.exit_code == 3
    assert f"No service answers at {url}" in answer.stderr
    wrong = run("search", "a cat", "--service", "somewhere")
    assert wrong.exit_code == 2
    assert "http://HOST:PORT" in wrong.stderr


class Listener:
    """An announced port that notes whether anybody connects to it."""

    def __init__(self, serve: Serve, folder: Path, **changed: object) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.port = self.socket.getsockname()[1]
        content = json.loads(serve.announcement.read_text())
        content |= {"url": f"http://127.0.0.1:{self.port}", **changed}
        # Sorted before the other one, whose port has five digits, too.
        self.path = folder / f"serve-{self.port:05}.json"
        self.path.write_text(json.dumps(content))
        self.path.chmod(0o600)

    @property
    def was_asked(self) -> bool:
        try:
            self.socket.accept()
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self.socket.close()
        self.path.unlink()


@pytest.mark.parametrize("is_held", [True, False])
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"url": "http://192.0.2.1:80"},
        {"url": "http://127.0.0.1.example:80"},
        {"url": "http://127.0.0.1:1@192.0.2.1:80"},
        {"url": 7},
        {"needs_token": True},
        {"version": "0.0.1"},
        {"host": "elsewhere"},
        {"es_url": "http://other:9200"},
        {"index": None},
    ],
    ids=str,
)
def test_what_is_announced_and_not_asked(
    changed: dict[str, object], is_held: bool, serve: Serve, place: Place,
    run: Callable[..., Result],
) -> None:  # fmt: skip
    """A file that nobody holds is stale; of those that are held, only what fits is asked."""
    announced = serve.announcement
    away = announced.with_suffix(".away")
    listener = Listener(serve, place.announcements, **changed)
    announced.rename(away)
    try:
        with open(listener.path) as held:
            if is_held:
                fcntl.flock(held, fcntl.LOCK_EX)
            answer = run("search", "a cat", "-k", "1")
            assert answer.exit_code == 0
            assert "chelsea.png" in answer.stdout
            assert listener.was_asked == (is_held and not changed)
    finally:
        away.rename(announced)
        listener.close()


def test_a_file_that_others_can_write_is_not_believed(
    serve: Serve, place: Place, run: Callable[..., Result]
) -> None:
    path, before = serve.announcement, serve.asked()
    assert path.stat().st_mode & 0o777 == 0o600
    assert place.announcements.stat().st_mode & 0o777 == 0o700
    path.chmod(0o622)
    try:
        assert run("search", "a cat").exit_code == 0
    finally:
        path.chmod(0o600)
    assert serve.asked() == before


def test_a_killed_one_is_not_asked_and_its_port_is_announced_again(
    place: Place, run: Callable[..., Result]
) -> None:
    killed = Serve(place)
    left = killed.announcement
    killed.end(signal.SIGKILL)
    assert left.exists()
    assert run("search", "a cat", "-k", "1").exit_code == 0
    left.unlink()


def test_a_stopped_one_is_not_waited_for(place: Place, run: Callable[..., Result]) -> None:
    stopped = Serve(place)
    others = [each for each in place.announcements.glob("*") if each != stopped.announcement]
    for each in others:
        each.rename(each.with_suffix(".away"))
    stopped.process.send_signal(signal.SIGSTOP)
    try:
        answer = run("search", "a cat", "-k", "1", catch_exceptions=False)
        assert "chelsea.png" in answer.stdout
    finally:
        stopped.process.send_signal(signal.SIGCONT)
        stopped.end()
        for each in others:
            each.with_suffix(".away").rename(each)


def test_one_with_tokens_is_asked_with_one(
    place: Place, run: Callable[..., Result], tmp_path: Path
) -> None:
    hashes, token = tmp_path / "hashes", tmp_path / "token"
    made = run("serve", "--new-token", "--token-file", str(hashes))
    token.write_text(made.stdout)
    guarded = Serve(place, "--token-file", str(hashes))
    others = [each for each in place.announcements.glob("*") if each != guarded.announcement]
    for each in others:
        each.rename(each.with_suffix(".away"))
    try:
        assert made.stdout.strip() not in guarded.announcement.read_text()
        local = run("search", "a cat")
        assert guarded.asked() == 0
        asked = run("search", "a cat", "--service-token-file", str(token))
        until(lambda: guarded.asked() == 1)
        assert asked.stdout == local.stdout
        token.write_text("another")
        assert run("search", "a cat", "--service-token-file", str(token)).stdout == local.stdout
        url = json.loads(guarded.announcement.read_text())["url"]
        refused = run("search", "a cat", "--service", url, "--service-token-file", str(token))
        assert refused.exit_code == 2
        assert "refuses the token" in refused.stderr
        assert "another" not in refused.stderr
    finally:
        guarded.end()
        for each in others:
            each.with_suffix(".away").rename(each)
    missing = run("search", "a cat", "--service-token-file", str(tmp_path / "missing"))
    assert missing.exit_code == 2
    assert "cannot be read: No such file" in missing.stderr
