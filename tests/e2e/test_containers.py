"""What the containers of docker/ run, in their order, on a real Elasticsearch with security on.

Each command has what its container has: its own key, the authority, its health check; `watch` runs
without torch, as in the image.  No container is made: see test_docker.py.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import socket
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from click.testing import CliRunner, Result
from fastapi.testclient import TestClient
from port_for import get_port

from es_imgsearch.cli import main
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import ImgSearchError, StoreDenied
from es_imgsearch.serve.app import create_app
from es_imgsearch.serve.service import SearchService
from es_imgsearch.serve.thumbnails import PictureFiles
from es_imgsearch.settings import load_settings
from tests.support.house import paint, until
from tests.support.old_schemas import as_schema
from tests.support.secured import CHECKOUT, PASSWORD, Secured

pytestmark = [pytest.mark.slow, pytest.mark.process]

DOCKER = CHECKOUT / "docker"
EXPORTS = Path(os.environ["ES_IMGSEARCH_CACHE_DIR"])
# What JSON, YAML and curl's configuration would change, if it was given them as it is.
KIBANA_PASSWORD = 'kibana "pass\\word\\'
ENCRYPTION_KEY = "0123456789abcdef" * 3
NAMES = ["chelsea.png", "coffee.png", "motorcycle_left.png"]

# Python runs this first: what an image without torch lacks cannot be imported.
WITHOUT_TORCH = """
import sys
sys.modules.update(dict.fromkeys({left_out}))
"""


@pytest.fixture(scope="module")
def server(secured: Secured) -> Secured:
    return secured


class Stack:
    """The service's containers: one command each, with the key of its role."""

    def __init__(self, server: Secured, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.photos = folder / "photos"
        self.cache = folder / "cache"
        self.port = get_port(None)
        self._environment = {
            "ES_URL": server.url,
            "ES_CA_CERTS": str(server.ca),
            "ES_IMGSEARCH_HOST": "compose",
            "ES_IMGSEARCH_CACHE_DIR": str(self.cache),
            "XDG_CACHE_HOME": str(self.cache),
            "ES_IMGSEARCH_READ_WORKERS": "1",
            "ES_IMGSEARCH_SETTLE_SECONDS": "0.1",
            "ES_IMGSEARCH_METRICS_PORT": str(self.port),
        }

    def run(self, role: str, *arguments: str, **environment: str) -> Result:
        """A command, in this process; es-imgsearch.toml is read from the working folder."""
        before = Path.cwd()
        os.chdir(self.server.keys / role)
        try:
            return CliRunner(env={**self._environment, **environment}).invoke(main, arguments)
        finally:
            os.chdir(before)

    def begin(self, role: str, *arguments: str) -> subprocess.Popen[str]:
        """A command in a process of its own, without torch."""
        left_out = (DOCKER / "without-torch.txt").read_text("utf-8").splitlines()
        names = [each.replace("-", "_") for each in left_out if not each.startswith("#")]
        # These are installed only with those.
        names += ["torchvision", "transformers", "sklearn", "scipy", "onnx_ir"]
        blocked = self.folder / "blocked"
        blocked.mkdir(exist_ok=True)
        (blocked / "sitecustomize.py").write_text(WITHOUT_TORCH.format(left_out=names))
        with (self.folder / f"{arguments[0]}.txt").open("ab") as log:
            return subprocess.Popen(
                [DOCKER / "entrypoint", *arguments],
                cwd=self.server.keys / role,
                env={
                    **os.environ,
                    **self._environment,
                    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                    "EXPORTS": str(EXPORTS),
                    "PYTHONPATH": str(blocked),
                },
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, text=True,
            )  # fmt: skip

    def said(self, command: str) -> str:
        return (self.folder / f"{command}.txt").read_text("utf-8")

    def is_well(self, port: int) -> bool:
        """What the health check of the image says, once something listens there."""
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
        command = [sys.executable, DOCKER / "healthcheck.py", str(port)]
        return subprocess.run(command, capture_output=True).returncode == 0

    def found(self, *arguments: str) -> list[dict[str, Any]]:
        done = self.run("read", "search", *arguments, "--json-hits")
        assert done.exit_code == 0, done.output
        hits: list[dict[str, Any]] = json.loads(done.stdout)
        return hits

    def paths(self, *, failures: bool = False) -> set[str]:
        """What the index, or the failures, hold."""
        store = self.store("read")
        store.refresh()
        return {each.stored_path for each in store.listings.stored("photos", failures=failures)}

    def status(self) -> dict[str, Any]:
        done = self.run("read", "status", "--json")
        assert done.exit_code == 0, done.output
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def store(self, role: str) -> Store:
        settings = {
            "es_url": self.server.url,
            "es_ca_certs": self.server.ca,
            "es_api_key": self.server.key(role),
        }
        return Store(connect(load_settings(settings, environment={})), "images")


@pytest.fixture(scope="module")
def stack(
    server: Secured, tmp_path_factory: pytest.TempPathFactory, photographs: Path
) -> Iterator[Stack]:
    """`access` and `init` have ended, `watch` has indexed what was there."""
    folder = tmp_path_factory.mktemp("stack")
    made = Stack(server, folder)
    made.photos.mkdir()
    for name in NAMES:
        shutil.copy(photographs / name, made.photos)
    # Where it is already, if another test of this session needed it.
    export = runpy.run_path(str(DOCKER / "export_starter.py"))["main"]
    export(EXPORTS)
    (folder / "kibana").mkdir()
    said = server.give_access(
        KIBANA_PASSWORD=KIBANA_PASSWORD,
        KIBANA_ENCRYPTION_KEY=ENCRYPTION_KEY,
        KIBANA_CONFIG=str(folder / "kibana"),
    )
    assert "password of kibana_system is set" in said
    secrets = [
        PASSWORD,
        KIBANA_PASSWORD,
        ENCRYPTION_KEY,
        *(server.key(role) for role in ("admin", "watch")),
    ]
    assert not [each for each in secrets if each in said]
    done = made.run("admin", "init", "--encoder", "starter")
    assert done.exit_code == 0, done.output
    everywhere = ["--metrics-address", "0.0.0.0"]
    process = made.begin("watch", "watch", f"photos={made.photos}", *everywhere)
    try:
        until(lambda: process.poll() is not None or made.is_well(made.port), 120)
        assert process.poll() is None, made.said("watch")
        until(lambda: made.paths() == set(NAMES), 60)
        yield made
        # The container is stopped: in order, long before it is killed.
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, made.said("watch")
    finally:
        process.kill()
        process.wait()
    said = made.said("watch")
    assert "ONNX Runtime" in said
    for word in ("security_exception", "refuse", "does not allow", "Traceback"):
        assert word not in said, said


def test_keys_are_read_by_their_owner_alone(server: Secured, stack: Stack):
    for role in ("admin", "read", "watch"):
        file = server.keys / role / "es-imgsearch.toml"
        assert stat.S_IMODE(file.stat().st_mode) == 0o400
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_the_password_of_kibana_is_set(server: Secured, stack: Stack):
    settings = {"es_url": server.url, "es_ca_certs": server.ca}
    password = f"kibana_system:{quote(KIBANA_PASSWORD, safe='')}@"
    settings["es_url"] = server.url.replace("https://", f"https://{password}")
    store = Store(connect(load_settings(settings, environment={})), "images")
    assert (
        store.connection.request("GET", "/_security/_authenticate")["username"] == "kibana_system"
    )


def test_kibana_is_given_its_secrets_in_a_file_of_its_own(stack: Stack):
    file = stack.folder / "kibana" / "kibana.yml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o400
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert yaml.safe_load(file.read_text("utf-8")) == {
        "elasticsearch.username": "kibana_system",
        "elasticsearch.password": KIBANA_PASSWORD,
        "xpack.security.encryptionKey": ENCRYPTION_KEY,
        "xpack.encryptedSavedObjects.encryptionKey": ENCRYPTION_KEY,
        "xpack.reporting.encryptionKey": ENCRYPTION_KEY,
    }
    assert list(file.parent.iterdir()) == [file]


def test_the_daemon_does_its_work_with_its_key(stack: Stack):
    assert stack.found("a cat")[0]["relative_path"] == "chelsea.png"
    paint(stack.photos / "new.png", 1)
    (stack.photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    until(lambda: "new.png" in stack.paths())
    until(lambda: stack.paths(failures=True) == {"broken.png"})
    (stack.photos / "new.png").rename(stack.photos / "moved.png")
    until(lambda: stack.paths() == {*NAMES, "moved.png"})
    (stack.photos / "moved.png").unlink()
    (stack.photos / "broken.png").unlink()
    until(lambda: stack.paths() == set(NAMES))
    until(lambda: not stack.paths(failures=True))
    assert stack.status()["roots"]["photos"]["watched_by"]["host"] == "compose"


@pytest.mark.parametrize(
    "arguments", [["verify"], ["failures"], ["failures", "retry"], ["describe"], ["status"]]
)
def test_commands_of_the_daemons_key(stack: Stack, arguments: list[str]):
    folders = [f"photos={stack.photos}"] if arguments == ["verify"] else []
    done = stack.run("watch", *arguments, *folders)
    assert done.exit_code == 0, done.output


def test_serve_gives_pictures_with_a_key_that_reads(stack: Stack):
    (hit, *_) = stack.found("a cat")
    port = get_port(None)
    process = stack.begin("read", "serve", "--port", str(port))
    try:
        until(lambda: process.poll() is not None or stack.is_well(port), 60)
        with urllib.request.urlopen(
            f"http://127.0.0.1:{port}/thumbnails/{hit['image_id']}"
        ) as answer:
            assert answer.headers["content-type"] == "image/jpeg"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, stack.said("serve")
    finally:
        process.kill()
        process.wait()


def test_page_and_api_need_nothing_but_the_key_that_reads(
    stack: Stack, caplog: pytest.LogCaptureFixture
):
    """It may write nothing, see `test_a_key_does_nothing_else`."""
    picture = stack.found("a cat")[0]["image_id"]
    store = stack.store("read")
    settings = load_settings(
        {
            "es_url": stack.server.url, "es_ca_certs": stack.server.ca, "host": "compose",
            "es_api_key": stack.server.key("read"), "read_workers": 1,
        },
        environment={},
    )  # fmt: skip
    pictures = PictureFiles(store, settings, stack.folder / "thumbnails")
    app = create_app(pictures, SearchService(settings, originals=pictures))
    upload = {"image": (stack.photos / "coffee.png").read_bytes()}
    caplog.clear()
    with TestClient(app, base_url="http://127.0.0.1:8080", follow_redirects=True) as client:
        until(lambda: client.get("/readyz").status_code == 200)
        answers = [
            client.get(path)
            for path in (
                "/", "/?q=a+cat", "/?q=a+cat&mode=hybrid&sort=newest", "/?filter=format:png",
                f"/?like={picture}", f"/?like={picture}&box=0,0,50,50", "/status", "/metrics",
                f"/pictures/{picture}", f"/pictures/{picture}?q=a+cat&n=1", f"/images/{picture}",
                f"/thumbnails/{picture}", f"/previews/{picture}", "/openapi.json",
                "/api/v1/search?q=a+cat&facets=format&explain=true", "/api/v1/status",
                "/api/v1/search?q=a+cat&exact=true&collapse=true", "/api/v1/failures",
                f"/api/v1/images/{picture}", f"/api/v1/images/{picture}/similar",
                "/api/v1/facets?fields=format&fields=year", "/api/v1/encoder",
            )
        ]  # fmt: skip
        answers += [
            client.post("/queries", files=upload),
            client.post("/api/v1/search", files=upload),
            client.post("/api/v1/searches", json={"searches": [{"q": "a cat"}]}),
            client.post("/api/v1/encode", json={"texts": ["a cat"]}),
            client.post("/api/v1/search-by-examples", json={"positive": [{"text": "a cat"}]}),
        ]
        for level in ("same", "near", "similar"):
            for path in ("/api/v1/duplicates", "/duplicates"):
                asked = f"{path}?level={level}"
                # Comparing goes on behind a 503 that says when to ask again.
                until(lambda asked=asked: client.get(asked).status_code != 503)
                answers.append(client.get(asked))
    wrong = [(str(each.url), each.text[:200]) for each in answers if each.status_code != 200]
    assert wrong == []
    warnings = [each for each in caplog.records if each.levelname in {"WARNING", "ERROR"}]
    assert [each.getMessage() for each in warnings] == []


def without_index(role: dict[str, Any], name: str) -> None:
    role["indices"] = [each for each in role["indices"] if name not in each["names"]]


def without_privileges(role: dict[str, Any], *kept: str) -> None:
    for each in role["indices"]:
        if "images" in each["names"]:
            each["privileges"] = list(kept)


@pytest.mark.parametrize(
    ("change", "privilege"),
    [
        (lambda role: without_index(role, "images"), "'view_index_metadata' on images"),
        (lambda role: without_privileges(role, "view_index_metadata"), "'read' on images"),
        (lambda role: without_privileges(role, "create_doc"), "'view_index_metadata' on images"),
        (lambda role: role.update(indices=[]), "'view_index_metadata' on images"),
        (None, "set ES_API_KEY"),
    ],
    ids=["no index", "no read", "no metadata", "nothing", "no key"],
)
def test_a_page_says_what_a_key_lacks(server: Secured, stack: Stack, change: Any, privilege: str):
    role = json.loads((DOCKER / "setup" / "roles" / "read.json").read_text("utf-8"))
    key = "bm9uZTprZXk="
    if change is not None:
        change(role)
        key = server.api_key("blind", role)
    settings = load_settings(
        {
            "es_url": server.url, "es_ca_certs": server.ca, "read_workers": 1, "es_api_key": key,
        },
        environment={},
    )  # fmt: skip
    pictures = PictureFiles(stack.store("read"), settings, stack.folder / "thumbnails")
    with TestClient(
        create_app(pictures, SearchService(settings)), base_url="http://127.0.0.1:8080",
        raise_server_exceptions=False,
    ) as client:  # fmt: skip
        searches = {"searches": [{"q": "a cat"}, {"q": "a dog", "mode": "hybrid"}]}
        answers = [
            client.get("/?q=a+cat", headers={"accept": "text/html"}),
            client.get("/api/v1/search?q=a+cat"),
            client.get("/api/v1/facets?fields=format"),
            client.post("/api/v1/searches", json=searches),
        ]
        for each in answers:
            assert each.status_code == 503, each.text
            assert "retry-after" not in each.headers
            assert privilege in unescape(each.text), each.text
            assert key not in each.text
        assert answers[0].headers["content-type"].startswith("text/html")
        for each in answers[1:]:
            assert each.headers["content-type"] == "application/problem+json"
            assert each.headers["es-imgsearch-error"] == "StoreDenied"
        for path in ("/status", "/api/v1/status"):
            assert client.get(path).status_code in {200, 503}, path


def test_the_key_that_reads_finds_alike_pictures_too(stack: Stack):
    (hit, *_) = stack.found("a cat")
    for arguments in (["similar", hit["image_id"]], ["duplicates", "--level", "near"]):
        done = stack.run("read", *arguments)
        assert done.exit_code == 0, done.output


WRITES: list[tuple[str, str, Any]] = [
    ("PUT", "/images/_doc/1?require_alias=true", {}),
    ("POST", "/images/_delete_by_query", {"query": {"match_all": {}}}),
    ("PUT", "/images-000001/_mapping", {"_meta": {}}),
    ("PUT", "/images-state/_doc/a?require_alias=true", {"kind": "a"}),
    ("DELETE", "/images-state/_doc/pause:photos", None),
]
MANAGES: list[tuple[str, str, Any]] = [
    ("DELETE", "/images-000001", None),
    ("DELETE", "/images-failures-000001", None),
    ("DELETE", "/images-state-000001", None),
    ("PUT", "/images-state-000002", {}),
    ("POST", "/images/_close", None),
    ("PUT", "/images/_settings", {"index.blocks.write": True}),
    ("PUT", "/images-000002", {}),
    ("POST", "/_aliases", {"actions": [{"add": {"index": "images-000001", "alias": "mine"}}]}),
    ("PUT", "/images-tags/_doc/vocabulary", {}),
    ("PUT", "/_index_template/images", {"index_patterns": ["images"]}),
]
OF_OTHERS: list[tuple[str, str, Any]] = [
    ("GET", "/images-of-others/_search", None),
    ("PUT", "/images-of-others/_doc/1", {}),
    ("DELETE", "/images-of-others", None),
    ("GET", "/_security/user", None),
    ("POST", "/_security/api_key", {"name": "another"}),
]


@pytest.mark.parametrize("role", ["watch", "read", "admin"])
def test_a_key_does_nothing_else(server: Secured, stack: Stack, role: str):
    forbidden = {
        "watch": MANAGES + OF_OTHERS,
        "read": WRITES + MANAGES + OF_OTHERS,
        "admin": OF_OTHERS,
    }[role]
    url = server.url.replace("https://", f"https://elastic:{quote(PASSWORD, safe='')}@")
    elastic = load_settings({"es_url": url, "es_ca_certs": server.ca}, environment={})
    Store(connect(elastic), "images").connection.request(
        "PUT", "/images-of-others/_doc/1", {"a": 1}
    )
    store = stack.store(role)
    allowed = []
    for method, path, body in forbidden:
        try:
            store.connection.request(method, path, body)
        except StoreDenied:
            continue
        except ImgSearchError as error:
            allowed.append((method, path, str(error)))
        else:
            allowed.append((method, path, "done"))
    assert allowed == []


def test_a_search_is_noted_by_the_key_that_reads_which_sees_no_notes(
    stack: Stack, caplog: pytest.LogCaptureFixture
):
    switched_on = {"ES_IMGSEARCH_LOG_SEARCHES": "true"}
    done = stack.run("admin", "init", "--encoder", "starter", **switched_on)
    assert done.exit_code == 0, done.output
    done = stack.run("read", "search", "a cat", "-k", "1", **switched_on)
    assert done.exit_code == 0, done.output
    assert not [each for each in caplog.messages if "cannot be logged" in each]
    noting, admin = stack.store("read"), stack.store("admin")
    assert admin.connection.request("POST", "/images-searches/_refresh")["_shards"]["failed"] == 0
    (note,) = admin.connection.request("GET", "/images-searches/_search")["hits"]["hits"]
    assert note["_source"]["text"] == "a cat"
    for method, path, body in (
        ("GET", "/images-searches/_search", None),
        ("GET", f"/images-searches/_doc/{note['_id']}", None),
        ("PUT", f"/images-searches/_doc/{note['_id']}", note["_source"]),
        ("POST", f"/images-searches/_update/{note['_id']}", {"doc": {"text": "a dog"}}),
        ("DELETE", f"/images-searches/_doc/{note['_id']}", None),
        ("POST", "/images-searches/_delete_by_query", {"query": {"match_all": {}}}),
        ("DELETE", "/images-searches-000001", None),
    ):
        with pytest.raises(StoreDenied):
            noting.connection.request(method, path, body)


def test_a_key_that_may_not_note_searches_searches_all_the_same(
    stack: Stack, caplog: pytest.LogCaptureFixture
):
    done = stack.run("watch", "search", "a cat", "-k", "1", ES_IMGSEARCH_LOG_SEARCHES="true")
    assert done.exit_code == 0, done.output
    assert "chelsea.png" in done.stdout
    (warning,) = [each for each in caplog.messages if "cannot be logged" in each]
    assert "privilege create_doc on it" in warning


def test_keys_stay_and_a_lost_one_is_made_anew(server: Secured, stack: Stack):
    before = {role: server.key(role) for role in ("admin", "read", "watch")}
    said = server.give_access()
    assert said.count("stays") == 3
    assert before == {role: server.key(role) for role in before}
    server.forget_key("read")
    server.give_access()
    assert server.key("read") != before["read"]
    assert stack.found("a cat")
    old = load_settings(
        {"es_url": server.url, "es_ca_certs": server.ca, "es_api_key": before["read"]},
        environment={},
    )
    with pytest.raises(StoreDenied):
        Store(connect(old), "images").info()


def test_a_later_init_and_what_else_its_container_is_for(stack: Stack):
    for arguments in (
        ["init", "--encoder", "starter"],
        ["kibana", "build"],
        # `watch` goes on in the next generation, with its key.
        ["reindex", "--profile", "exact"],
    ):
        done = stack.run("admin", *arguments)
        assert done.exit_code == 0, done.output
    (stack.photos / "coffee.png").rename(stack.photos / "cup.png")
    until(lambda: "cup.png" in stack.paths(), 60)
    assert stack.status()["generation"].startswith("images-000002-")
    (stack.photos / "cup.png").rename(stack.photos / "coffee.png")
    until(lambda: stack.paths() == set(NAMES), 60)


def test_a_key_that_lacks_a_right_on_the_state_is_told_which(server: Secured, stack: Stack):
    role = json.loads((DOCKER / "setup" / "roles" / "watch.json").read_text("utf-8"))
    role["indices"] = [each for each in role["indices"] if each["names"] != ["images-state"]]
    key = server.api_key("stateless", role)
    for arguments in (["sync", f"photos={stack.photos}"], ["status"]):
        done = stack.run("watch", *arguments, ES_API_KEY=key)
        assert done.exit_code == 2, done.output
        assert "On 'images-state'" in done.stderr
        assert "watch, sync and reindex take read, index and delete" in done.stderr
        assert "Traceback" not in done.stderr


def test_an_index_of_schema_1_is_brought_up_to_date_by_the_key_that_makes_indices(stack: Stack):
    admin = stack.store("admin")
    before = admin.generations.roles().before
    # A generation that an earlier test kept was made by the same version.
    for generation in (admin, *([admin.at(before)] if before else [])):
        as_schema(generation, 1)
    admin.connection.request("DELETE", "/images-state-000001")
    try:
        assert stack.status()["pictures"] == 3
        done = stack.run("watch", "sync", f"photos={stack.photos}")
        assert done.exit_code == 2, done.output
        assert "made by an earlier version and lacks 'images-state'" in done.stderr
        assert "run `es-imgsearch init --index images` once" in done.stderr
    finally:
        done = stack.run("admin", "init")
    assert done.exit_code == 0, done.output
    done = stack.run("watch", "sync", f"photos={stack.photos}")
    assert done.exit_code == 0, done.output
    assert stack.status()["pictures"] == 3


def test_nobody_gets_in_without_a_key(server: Secured):
    settings = load_settings({"es_url": server.url, "es_ca_certs": server.ca}, environment={})
    with pytest.raises(StoreDenied, match="set ES_API_KEY"):
        Store(connect(settings), "images").connection.version()
