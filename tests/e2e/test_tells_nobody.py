"""Nobody learns of anyone's pictures: no name but Elasticsearch's is looked up, nothing is sent.

Everything runs in a network without a way out; files are written only to folders of our own.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest
from PIL import Image, ImageDraw

from es_imgsearch import TELLING_NOBODY
from es_imgsearch.elastic.store import Store
from tests.conftest import FOLDER
from tests.support import CHECKOUT
from tests.support.house import until
from tests.support.no_way_out import NAME, URL, NoWayOut, missing
from tests.support.tiny_models import make_clip_pair

pytestmark = pytest.mark.process

COMMAND = str(Path(sys.executable).parent / "es-imgsearch")
# Below the home folder; all else that a library leaves there is none of a user's business.
OURS = (".cache/es-imgsearch/", ".cache/es_imgsearch/")


class Machine:
    """A home folder, pictures and an index, in a network without a way out."""

    def __init__(self, folder: Path, index: str, network: NoWayOut) -> None:
        self.home = folder / "home"
        self.photos = self.home / "photos"
        self.temporary = folder / "temporary"
        for each in (self.photos, self.temporary):
            each.mkdir(parents=True)
        self.network = network
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "LANG": "C.UTF-8",
            "ES_URL": URL,
            "ES_IMGSEARCH_INDEX": index,
            "ES_IMGSEARCH_READ_WORKERS": "1",
            # Exports are made once for all tests.
            "ES_IMGSEARCH_CACHE_DIR": str(FOLDER / "models"),
        }

    def run(self, *arguments: str) -> str:
        return self.python_run(COMMAND, *arguments)

    def python_run(self, *command: str) -> str:
        return self.network.run(*command, environment=self.environment, cwd=self.home)

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        command = self.network.command(COMMAND, *arguments)
        process = subprocess.Popen(
            command, env=self.environment, cwd=self.home, stderr=subprocess.PIPE, text=True
        )
        try:
            yield process
            process.terminate()
            assert process.wait(40) == 0
        finally:
            process.kill()
            process.wait()

    def told(self) -> tuple[set[str], set[str], list[str]]:
        """Names looked up, addresses written to, and files left in places that are not ours."""
        files = [file for file in self.home.rglob("*") if not file.is_dir()]
        names = [str(file.relative_to(self.home)) for file in files]
        foreign = [name for name in names if not name.startswith(("photos/", *OURS))]
        foreign += [str(file) for file in self.temporary.rglob("*") if not file.is_dir()]
        return self.network.asked - {NAME}, self.network.sent, foreign


@pytest.fixture
def machine(es_url: str, real_store: Store, tmp_path: Path) -> Iterator[Machine]:
    if reason := missing():
        pytest.skip(reason)
    try:
        with NoWayOut(tmp_path / "network", es_url) as network:
            yield Machine(tmp_path, real_store.index, network)
    except PermissionError as error:
        pytest.skip(f"no network of one's own can be made here: {error}")


def test_the_main_job(machine: Machine, photographs: Path):
    shutil.copy(photographs / "chelsea.png", machine.photos)
    machine.run("init", "--encoder", "starter")
    root = f"photos={machine.photos}"
    with machine.running("watch", root), machine.running("serve", "--port", "8080"):
        until(lambda: json.loads(machine.run("status", "--json"))["pictures"] == 1, 60)
        # With writing in it, which the reading process reads.
        written = Image.new("RGB", (400, 100), "white")
        ImageDraw.Draw(written).text((20, 20), "HOLIDAYS 2024", "black", font_size=40)
        written.save(machine.photos / "written.png")
        until(lambda: json.loads(machine.run("status", "--json"))["pictures"] == 2, 60)
        (hit, *_) = json.loads(machine.run("search", "a cat", "--json-hits"))
        assert hit["relative_path"] == "chelsea.png"
        fetch = "import sys, urllib.request as r; print(len(r.urlopen(sys.argv[1]).read()))"
        address = f"http://127.0.0.1:8080/thumbnails/{hit['image_id']}"
        assert int(machine.python_run(sys.executable, "-c", fetch, address)) > 1000
        machine.run("similar", hit["image_id"])
    machine.run("sync", root)
    machine.run("verify", root)
    assert machine.network.asked >= {NAME}
    assert machine.told() == (set(), set(), [])


def test_a_model_in_torch(machine: Machine, photographs: Path, tmp_path: Path):
    shutil.copy(photographs / "chelsea.png", machine.photos)
    model = make_clip_pair(tmp_path / "models")
    machine.environment |= {"ES_IMGSEARCH_BACKEND": "torch", "ES_IMGSEARCH_MODELS_DIR": str(model)}
    machine.run("init", "--encoder", "clip")
    machine.run("sync", f"photos={machine.photos}")
    assert machine.told() == (set(), set(), [])


def test_what_would_be_told_is_noticed(machine: Machine):
    """The network notes names and addresses, and the home folder files of others."""
    machine.run("init", "--encoder", "starter")
    code = (
        "import socket, pathlib\n"
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))\n"
        "pathlib.Path('~/other').expanduser().write_text('')\n"
        "try: socket.getaddrinfo('telemetry.example', 443)\n"
        "except OSError: pass\n"
    )
    machine.python_run(sys.executable, "-c", code)
    until(lambda: machine.network.sent)
    assert machine.told() == ({"telemetry.example"}, {"192.0.2.1"}, ["other"])


@pytest.mark.parametrize("module", ["es_imgsearch", "es_imgsearch.read.worker_process",
                                    "es_imgsearch.embed.encoder_process", "es_imgsearch.testing",
                                    "es_imgsearch.cli.__main__"])  # fmt: skip
def test_switches_are_set_before_a_library_is_imported(module: str):
    code = (
        "import sys\n"
        "libraries = ('onnxruntime', 'huggingface_hub', 'transformers', 'rapidocr', 'torch')\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        import os\n"
        "        if name in libraries: assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'\n"
        "sys.meta_path.insert(0, Finder())\n"
        f"import {module}, es_imgsearch, os, json\n"
        "print(json.dumps({name: os.environ[name] for name in es_imgsearch.TELLING_NOBODY}))\n"
    )

    def said(**given: str) -> dict[str, str]:
        environment = {"PATH": os.environ["PATH"], **given}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        told: dict[str, str] = json.loads(done.stdout)
        return told

    off = TELLING_NOBODY
    assert said() == off
    # What somebody says is left, and an empty variable says nothing.
    assert said(ORT_DISABLE_TELEMETRY="0", DO_NOT_TRACK="") == off | {"ORT_DISABLE_TELEMETRY": "0"}


def test_onnxruntime_that_is_there_already_sends_nothing(monkeypatch: pytest.MonkeyPatch):
    class Onnxruntime(ModuleType):
        said: ClassVar[list[str]] = []

        def disable_telemetry_events(self) -> None:
            self.said.append("disabled")

    monkeypatch.setitem(sys.modules, "onnxruntime", Onnxruntime("onnxruntime"))
    runpy.run_path(str(CHECKOUT / "es_imgsearch" / "__init__.py"))
    assert Onnxruntime.said == ["disabled"]


@pytest.mark.parametrize("there", [None, ModuleType("onnxruntime"), object()])
def test_an_onnxruntime_that_is_blocked_or_half_imported_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, there: object
):
    monkeypatch.setitem(sys.modules, "onnxruntime", there)
    runpy.run_path(str(CHECKOUT / "es_imgsearch" / "__init__.py"))
