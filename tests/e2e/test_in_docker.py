"""`make up`, and everything after it, with a Docker engine: `make test-docker`.

Run where `docker info` answers.  Where the engine is elsewhere, IMGSEARCH_DOCKER is the command
that runs others beside it, and IMGSEARCH_DOCKER_FOLDER names a folder that both see, as HERE=THERE.
Project, ports and volumes are the test's own; the tag es-imgsearch:torch-none is built anew.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from port_for import get_port

from tests.support import CHECKOUT
from tests.support.house import until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]

PREFIX = shlex.split(os.environ.get("IMGSEARCH_DOCKER", ""))
PORTS = ("ES_PORT", "KIBANA_PORT", "SERVE_PORT", "METRICS_PORT")
BUILD_SECONDS = 1500.0
# What images are pulled and built for: nothing of a checkout that git does not know.
PARTS = ("docker", "Makefile", "pyproject.toml", "README.md", "LICENSE", "constraints.txt",
         "mappings", "kibana", "es_imgsearch", ".dockerignore")  # fmt: skip


def run(*command: str, seconds: float, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command beside the engine."""
    given = ["env", *(f"{name}={value}" for name, value in environment.items())]
    return subprocess.run(
        [*PREFIX, *given, *command],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds,
    )  # fmt: skip


def beside(*command: str, seconds: float = 120.0, **environment: str) -> str:
    """Run a command that has to end with 0; return its standard output."""
    done = run(*command, seconds=seconds, **environment)
    assert done.returncode == 0, f"{command}: {(done.stdout + done.stderr)[-3000:]}"
    return done.stdout


class Stack:
    """A copy of this checkout beside the engine, and a project of its own."""

    def __init__(self, folder: Path, there: PurePosixPath) -> None:
        self.photos, self.there = folder / "photos", there
        self.photos.mkdir(parents=True)
        for part in PARTS:
            source = CHECKOUT / part
            target = folder / "checkout" / part
            target.parent.mkdir(exist_ok=True)
            if source.is_dir():
                shutil.copytree(
                    source, target, ignore=shutil.ignore_patterns("__pycache__", ".env")
                )
            else:
                shutil.copy(source, target)
        self._project = f"es-imgsearch-test-{uuid.uuid4().hex[:8]}"
        self.port = {name: str(get_port(None)) for name in PORTS}

    def make(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Run a target of the Makefile; return its exit code and what it says."""
        done = run(
            "make", "-C", f"{self.there}/checkout", *arguments, seconds=BUILD_SECONDS,
            COMPOSE_PROJECT_NAME=self._project, **environment,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def compose(self, *arguments: str, seconds: float = 120.0) -> str:
        file = f"{self.there}/checkout/docker/compose.yaml"
        command = ["docker", "compose", "--file", file, *arguments]
        return beside(*command, seconds=seconds, COMPOSE_PROJECT_NAME=self._project)

    def run(self, service: str, *command: str) -> str:
        return self.compose("exec", "-T", service, *command)

    def hits(self, words: str) -> list[dict[str, Any]]:
        found = json.loads(self.run("serve", "es-imgsearch", "search", words, "--json-hits"))
        hits: list[dict[str, Any]] = found["hits"] if isinstance(found, dict) else found
        return hits

    def found(self, words: str) -> str:
        """The name of the picture that is found first, empty before there is any."""
        return next((hit["relative_path"] for hit in self.hits(words)), "")

    def state(self, service: str, form: str) -> str:
        container = self.compose("ps", "--all", "--quiet", service).strip()
        return beside("docker", "inspect", "--format", f"{{{{{form}}}}}", container).strip()

    def curl(self, port: str, path: str, *options: str, scheme: str = "http") -> str:
        """Headers, an empty line, and a body; without bytes that are no text."""
        url = f"{scheme}://localhost:{self.port[port]}{path}"
        return beside("curl", "--silent", "--show-error", "--include", *options, url)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> Iterator[Stack]:
    if not PREFIX and shutil.which("docker") is None:
        pytest.skip("there is no docker")
    if run("docker", "info", seconds=20).returncode != 0:
        pytest.skip("no Docker engine answers")
    if mapped := os.environ.get("IMGSEARCH_DOCKER_FOLDER"):
        here, _, there = mapped.partition("=")
        name = f"test-{uuid.uuid4().hex[:8]}"
        made = Stack(Path(here) / name, PurePosixPath(there) / name)
    else:
        folder = tmp_path_factory.mktemp("docker")
        made = Stack(folder, PurePosixPath(folder))
    for photograph in ("chelsea.png", "coffee.png"):
        shutil.copy(photographs / photograph, made.photos)
    try:
        code, said = made.make("up", IMAGES_DIR=f"{made.there}/photos", **made.port)
        assert code == 0, said[-4000:]
        until(lambda: made.found("a cat") == "chelsea.png", 120)
        yield made
    finally:
        made.compose("down", "--volumes", "--timeout", "20")
        shutil.rmtree(made.photos.parent, ignore_errors=True)


def test_a_picture_that_is_dropped_in_is_found(stack: Stack, photographs: Path):
    shutil.copy(photographs / "rocket.jpg", stack.photos)
    until(lambda: stack.found("a rocket") == "rocket.jpg", 60)


def test_elasticsearch_with_the_key_that_reads(stack: Stack):
    stack.compose("cp", "serve:/ca/ca.crt", f"{stack.there}/ca.crt")
    found = re.search(r'es_api_key = "(\S+)"', stack.run("serve", "cat", "es-imgsearch.toml"))
    assert found is not None
    trusting = ("--cacert", f"{stack.there}/ca.crt")
    key = ("--header", f"Authorization: ApiKey {found[1]}")
    counted = stack.curl("ES_PORT", "/images/_count", *trusting, *key, scheme="https")
    assert json.loads(counted.splitlines()[-1])["count"] >= 2
    assert " 401 " in stack.curl("ES_PORT", "/images/_count", *trusting, scheme="https")
    written = stack.curl(
        "ES_PORT", "/images", *trusting, *key, "--request", "DELETE", scheme="https"
    )
    assert " 403 " in written


def test_pictures_are_mounted_read_only(stack: Stack):
    for service in ("watch", "serve"):
        said = stack.run(service, "sh", "-c", "touch /photos/x /usr/x 2>&1 || true")
        assert said.count("Read-only file system") == 2


def test_the_service_gives_pictures(stack: Stack):
    address = f"/images/{stack.hits('a cat')[0]['image_id']}"
    head = stack.curl("SERVE_PORT", address, "--head").lower()
    for line in ("content-type: image/png", "x-content-type-options: nosniff", "sandbox"):
        assert line in head
    thumbnail = stack.curl(
        "SERVE_PORT", address.replace("images", "thumbnails"), "--output", "/dev/null",
        "--write-out", "%{http_code} %{content_type} %{size_download}",
    ).split()  # fmt: skip
    assert thumbnail[:2] == ["200", "image/jpeg"]
    assert int(thumbnail[2]) > 1000
    assert json.loads(stack.curl("METRICS_PORT", "/healthz").splitlines()[-1])["status"] == "ok"


def test_no_library_leaves_files_or_complains(stack: Stack):
    caches = stack.run("watch", "ls", "-A", "/var/cache/es-imgsearch", "/tmp").split()
    assert not {"Microsoft", ".ses", "huggingface"} & set(caches)
    said = stack.compose("logs", "--no-log-prefix", "certificates", "access", "init", "watch")
    for words in ("\tat java.", "UnknownHostException", "Traceback"):
        assert words not in said, said


def test_a_command_with_the_key_that_manages_leaves_the_others_alone(stack: Stack):
    services = ("certificates", "access", "elasticsearch", "watch")
    before = [stack.state(each, ".State.StartedAt") for each in services]
    said = stack.compose("run", "--rm", "--no-deps", "init", "status")
    assert "images" in said
    assert before == [stack.state(each, ".State.StartedAt") for each in services]


def test_saved_objects_are_imported(stack: Stack):
    code, said = stack.make("kibana")
    assert code == 0, said
    assert re.search(r"\d\d saved objects in Kibana", said)


def test_an_outage_shows_within_twenty_seconds(stack: Stack, photographs: Path):
    until(lambda: stack.state("watch", ".State.Health.Status") == "healthy", 150)
    for stop, start in (("pause", "unpause"), ("stop", "start")):
        stack.compose(stop, "elasticsearch")
        began = time.monotonic()
        until(lambda: stack.state("watch", ".State.Health.Status") == "unhealthy", 30)
        seconds = time.monotonic() - began
        print(f"unhealthy {seconds:.1f} s after {stop} elasticsearch")
        # Asking takes a second or two.
        assert seconds < 25
        if stop == "stop":
            shutil.copy(photographs / "astronaut.png", stack.photos)
        stack.compose(start, "elasticsearch")
        until(lambda: stack.state("watch", ".State.Health.Status") == "healthy", 240)
    until(lambda: stack.found("an astronaut") == "astronaut.png", 60)


def test_what_is_there_is_there_after_down_and_up(stack: Stack):
    code, said = stack.make("down")
    assert code == 0, said
    (stack.photos / "coffee.png").unlink()
    code, said = stack.make("up")
    assert code == 0, said
    until(lambda: stack.found("a cat") == "chelsea.png", 60)

    def pictures() -> Any:
        return json.loads(stack.run("serve", "es-imgsearch", "status", "--json"))["pictures"]

    until(lambda: pictures() == len(list(stack.photos.iterdir())), 60)


def test_up_repeats_why_the_engine_refuses_a_container(stack: Stack):
    """The last test: the port of Elasticsearch is taken, so `serve` is not started with it."""
    code, said = stack.make("up", SERVE_PORT=stack.port["ES_PORT"])
    assert code != 0
    assert re.search("(?m)^docker/stack: the engine did not start serve: .*port", said), said
    code, said = stack.make("up", SERVE_PORT=stack.port["SERVE_PORT"])
    assert code == 0, said
