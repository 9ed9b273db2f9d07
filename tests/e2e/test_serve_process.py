"""The process of `serve`: a file system that cannot be written, and SIGTERM under load."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from es_imgsearch.cli import main
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.store import Store
from es_imgsearch.records import image_id
from es_imgsearch.settings import Settings, load_settings
from es_imgsearch.testing import remove_index
from tests.support.house import Proxy, paint, until
from tests.support.processes import gone

pytestmark = [pytest.mark.es, pytest.mark.process]

PATIENCE_SECONDS = 60
_READ_ONLY = (
    "for place in $(findmnt -rno TARGET | sort -r); do"
    ' mount -o bind,remount,ro "$place" 2>/dev/null; done; ! touch "$TRIED" 2>/dev/null'
)


class Served:
    """A running `serve`, what it says, and its address."""

    def __init__(self, settings: Settings, before: Sequence[str] = (), **environment: str) -> None:
        command = [*before, str(Path(sys.executable).parent / "es-imgsearch"), "serve"]
        command += ["--port", "0", "--index", settings.index]
        self.process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            env={
                "PATH": os.environ["PATH"],
                "ES_URL": settings.es_url,
                "ES_IMGSEARCH_READ_WORKERS": "1",
                **environment,
            },
        )
        self.said: list[str] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        try:
            until(lambda: self._addresses() or self.process.poll() is not None)
            assert self._addresses(), self.said
        except AssertionError:
            self.process.kill()
            raise
        (self.address,) = self._addresses()

    def _addresses(self) -> list[str]:
        return re.findall(r"Serving pictures of .* on (http://\S+)", "".join(self.said))

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/readyz") as answer:
                return bool(answer.status == 200)
        except URLError:
            return False

    def ended(self) -> int:
        """The exit code, once it has ended and all that it said was read."""
        code = self.process.wait(PATIENCE_SECONDS)
        self._reading.join(PATIENCE_SECONDS)
        return code


@contextmanager
def serving(settings: Settings, before: Sequence[str] = (), **environment: str) -> Iterator[Served]:
    served = Served(settings, before, **environment)
    try:
        until(served.is_ready)
        yield served
    finally:
        served.process.kill()
        served.ended()
        assert served.process.stderr is not None
        served.process.stderr.close()


@pytest.fixture(scope="module")
def settings(es_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Five pictures, indexed by `starter`."""
    folder = tmp_path_factory.mktemp("served") / "photos"
    folder.mkdir()
    for number in range(5):
        paint(folder / f"{number}.png", number)
    settings = load_settings({"es_url": es_url, "index": f"served-{os.getpid()}-{id(folder):x}"})
    run = CliRunner(env={"ES_URL": es_url, "ES_IMGSEARCH_INDEX": settings.index}).invoke
    assert run(main, ["init", "--encoder", "starter"]).exit_code == 0
    assert run(main, ["sync", str(folder)]).exit_code == 0
    yield settings
    remove_index(Store(connect(settings), settings.index))


def large_picture() -> bytes:
    """A PNG of more than a megabyte, which a form of 1 MB or more kept on disk."""
    stream = io.BytesIO()
    noise = np.random.default_rng(5).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "PNG")
    assert len(stream.getvalue()) > 1_200_000
    return stream.getvalue()


def check_all_works(served: Served) -> None:
    with httpx.Client(base_url=served.address, timeout=PATIENCE_SECONDS) as client:
        hits = client.get("/api/v1/search", params={"q": "a picture", "k": 5}).json()["hits"]
        assert len(hits) == 5
        for _ in range(2):
            for number in range(5):
                answer = client.get(f"/thumbnails/{image_id('photos', f'{number}.png')}")
                assert answer.status_code == 200
                assert answer.headers["content-type"] == "image/jpeg"
        picture = large_picture()
        sent = client.post("/api/v1/search", files={"image": ("p.png", picture)})
        assert sent.status_code == 200, sent.text
        assert len(sent.json()["hits"]) == 5
        encoded = client.post("/api/v1/encode", files=[("image", picture)])
        assert len(encoded.json()["vectors"]) == 1
        assert client.get("/?q=a+picture").status_code == 200


def check_said_once(served: Served) -> None:
    said = "".join(served.said)
    assert said.count("Thumbnails cannot be kept in") == 1, said
    assert "ES_IMGSEARCH_CACHE_DIR" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "environment",
    [
        {"HOME": "/proc/none", "TMPDIR": "/proc/none"},
        {"HOME": "/proc/none", "ES_IMGSEARCH_CACHE_DIR": "/proc/none"},
        {"HOME": "/proc/none", "XDG_CACHE_HOME": "/dev/null"},
        {"ES_IMGSEARCH_CACHE_DIR": "/sys/none"},
    ],
)
def test_no_folder_for_a_cache(
    settings: Settings, environment: Mapping[str, str], tmp_path: Path
) -> None:
    with serving(settings, **{"HOME": str(tmp_path), **environment}) as served:
        check_all_works(served)
        served.process.send_signal(signal.SIGTERM)
        assert served.ended() == 0
        check_said_once(served)


def test_another_cache_folder_as_the_warning_says(settings: Settings, tmp_path: Path) -> None:
    environment = {"HOME": "/proc/none", "ES_IMGSEARCH_CACHE_DIR": str(tmp_path)}
    with serving(settings, **environment) as served:
        check_all_works(served)
        assert len(list((tmp_path / "thumbnails").glob("??/*"))) == 5
        served.process.send_signal(signal.SIGTERM)
        assert served.ended() == 0
        assert "cannot be" not in "".join(served.said)


@pytest.mark.skipif(
    sys.platform != "linux" or not (shutil.which("unshare") and shutil.which("findmnt")),
    reason="needs mounts of its own",
)
def test_a_file_system_that_is_read_only(settings: Settings, tmp_path: Path) -> None:
    options = ["-rm"] if os.geteuid() else ["-m"]
    environment = {**os.environ, "TRIED": str(tmp_path / "tried")}
    tried = subprocess.run(["unshare", *options, "sh", "-c", _READ_ONLY], env=environment)
    if tried.returncode != 0:
        pytest.skip("mounts of its own are refused")
    before = ["unshare", *options, "sh", "-c", f'{_READ_ONLY}; exec "$0" "$@"']
    with serving(settings, before, HOME=str(tmp_path), TRIED=environment["TRIED"]) as served:
        check_all_works(served)
        served.process.send_signal(signal.SIGTERM)
        assert served.ended() == 0
        check_said_once(served)


# -- SIGTERM


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_requests_in_progress_are_answered(
    settings: Settings, tmp_path: Path, number: signal.Signals
) -> None:
    """16 clients ask, again and again; Elasticsearch holds their requests when it has to end."""
    proxy = Proxy(int(settings.es_url.rpartition(":")[2]))
    through = settings.model_copy(update={"es_url": f"http://127.0.0.1:{proxy.port}"})
    try:
        with (
            serving(through, HOME=str(tmp_path)) as served,
            ThreadPoolExecutor(17) as threads,
            httpx.Client(base_url=served.address, timeout=PATIENCE_SECONDS) as client,
        ):
            for _ in range(3):
                asked = [threads.submit(_search, client) for _ in range(16)]
                assert {each.result() for each in asked} == {200}
            proxy.hold()
            asked = [threads.submit(_search, client) for _ in range(16)]
            until(lambda: _in_progress(served) == 16)
            served.process.send_signal(number)
            until(lambda: not _accepts(served))
            assert served.process.poll() is None
            proxy.let_go()
            assert {each.result() for each in asked} == {200}
            assert served.ended() == 0
            assert len(served.said) == 1, served.said
    finally:
        proxy.close()


def test_it_does_not_wait_for_ever(settings: Settings, tmp_path: Path) -> None:
    """Elasticsearch answers nothing any more: after shutdown_seconds it ends all the same."""
    proxy = Proxy(int(settings.es_url.rpartition(":")[2]))
    through = settings.model_copy(update={"es_url": f"http://127.0.0.1:{proxy.port}"})
    environment = {"HOME": str(tmp_path), "ES_IMGSEARCH_SHUTDOWN_SECONDS": "1"}
    environment["ES_IMGSEARCH_REQUEST_TIMEOUT_SECONDS"] = "600"
    try:
        with (
            serving(through, **environment) as served,
            ThreadPoolExecutor(17) as threads,
            httpx.Client(base_url=served.address, timeout=PATIENCE_SECONDS) as client,
        ):
            assert _search(client) == 200
            # Both kinds of reading processes run.
            sent = {"image": ("p.png", large_picture())}
            assert client.post("/api/v1/search", files=sent).status_code == 200
            assert client.get(f"/thumbnails/{image_id('photos', '1.png')}").status_code == 200
            proxy.hold()
            asked = [threads.submit(_search, client) for _ in range(16)]
            until(lambda: _in_progress(served) == 16)
            children = _children(served.process.pid)
            assert children
            served.process.send_signal(signal.SIGTERM)
            assert served.ended() == 1
            assert "Requests in progress were not answered within 1 s" in served.said[1]
            assert len(served.said) == 2, served.said
            assert all(gone(each) for each in children)
            assert [each.result() for each in asked if each.exception() is None] == []
    finally:
        proxy.close()


def _search(client: httpx.Client) -> int:
    return client.get("/api/v1/search", params={"q": "a picture", "k": 3}).status_code


def _in_progress(served: Served) -> int:
    """Requests that are being answered, but the one that asks for their number."""
    with urllib.request.urlopen(f"{served.address}/metrics") as answer:
        (found,) = re.findall(
            r"(?m)^es_imgsearch_http_requests_in_progress (\S+)$", answer.read().decode()
        )
    return int(float(found)) - 1


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(each) for file in found for each in file.read_text().split()]


def _accepts(served: Served) -> bool:
    try:
        with urllib.request.urlopen(f"{served.address}/healthz"):
            return True
    except (URLError, OSError):
        return False
