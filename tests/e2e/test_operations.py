"""verify, failures, failures retry, metrics and health, on the real server."""

from __future__ import annotations

import json
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from es_imgsearch.cli import main
from es_imgsearch.cli.printing.lines import shown_path
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.context import open_context
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import RootError, SettingsError, StoreUnreachable
from es_imgsearch.manage.verify import verify
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.pipeline.reporting.metrics import MetricsServer
from es_imgsearch.pipeline.sync import sync
from es_imgsearch.records import Root, image_id
from es_imgsearch.settings import Settings
from es_imgsearch.testing import FakeEncoder
from es_imgsearch.watch.roots import parse_roots, register_roots, release_root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for n, name in enumerate(("a.png", "b.png", "sub/c.png")):
        Image.new("RGB", (40, 40), (80 * n, 10, 10)).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"no picture at all")
    (folder / "notes.txt").write_text("words")
    return folder


@pytest.fixture
def indexer(
    real_store: Store, settings: Settings, fake_encoder: FakeEncoder, folder: Path
) -> Iterator[Indexer]:
    real_store.generations.create(new_meta(seal_of(fake_encoder), "exact", "cosine"))
    root = Root("photos", folder)
    register_roots(real_store, [root], settings.host)
    indexer = Indexer(open_context(real_store, settings, fake_encoder), [root], settings)
    yield indexer
    indexer.pipeline.close()


def found(store: Store, folder: Path, settings: Settings) -> set[tuple[str, str]]:
    each = verify(store, [Root("photos", folder)], settings)
    return {(one.what, one.relative_path) for one in each}


def test_verify_names_every_kind_of_difference(
    indexer: Indexer, real_store: Store, settings: Settings, folder: Path
):
    everything = {("missing", name) for name in ("a.png", "b.png", "sub/c.png", "broken.jpg")}
    assert found(real_store, folder, settings) == everything
    sync(indexer)
    # The failure accounts for broken.jpg, nothing is owed to notes.txt.
    assert found(real_store, folder, settings) == set()
    (folder / "a.png").unlink()
    Image.new("RGB", (50, 50), "blue").save(folder / "b.png")
    Image.new("RGB", (50, 50), "green").save(folder / "new.png")
    document = dict(real_store.documents.get(image_id("photos", "sub/c.png")))
    real_store.documents.write([Write(document["image_id"], document=document)])
    assert found(real_store, folder, settings) == {
        ("gone", "a.png"),
        ("changed", "b.png"),
        ("missing", "new.png"),
        ("without vector", "sub/c.png"),
    }


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_verify_does_not_take_an_unlistable_folder_for_empty(
    indexer: Indexer, real_store: Store, settings: Settings, folder: Path
):
    sync(indexer)
    (folder / "sub").chmod(0)
    try:
        assert found(real_store, folder, settings) == {("unknown", "sub")}
    finally:
        (folder / "sub").chmod(0o755)


def test_verify_refuses_another_folder_of_the_same_name(
    indexer: Indexer, real_store: Store, settings: Settings, tmp_path: Path
):
    (tmp_path / "other" / "photos").mkdir(parents=True)
    with pytest.raises(RootError, match="belongs to"):
        found(real_store, tmp_path / "other" / "photos", settings)


def test_a_folder_that_is_gone_for_good_is_released(
    indexer: Indexer, real_store: Store, settings: Settings, folder: Path
):
    sync(indexer)
    folder.rename(folder.with_name("elsewhere"))
    (root,) = parse_roots([f"photos={folder}"], may_be_gone=True)
    with pytest.raises(RootError, match="does not exist"):
        parse_roots([f"photos={folder}"])
    with pytest.raises(RootError, match="knows no"):
        release_root(real_store, Root("nothing", folder), settings.host)
    assert release_root(real_store, root, settings.host) == 3
    assert real_store.listings.count() == real_store.listings.count(failures=True) == 0
    assert "photos" not in real_store.info().meta.roots


def test_a_folder_that_moved_may_keep_its_name_and_its_vectors(
    indexer: Indexer,
    real_store: Store,
    settings: Settings,
    fake_encoder: FakeEncoder,
    folder: Path,
):
    sync(indexer)
    moved = folder.with_name("moved")
    folder.rename(moved)
    root = Root("photos", moved)
    with pytest.raises(RootError, match="--allow-deletes"):
        register_roots(real_store, [root], settings.host)
    with pytest.raises(RootError, match="belongs to"):
        register_roots(real_store, [root], "another-host", replace_gone=True)
    register_roots(real_store, [root], settings.host, replace_gone=True)
    assert real_store.info().meta.roots["photos"]["path"] == str(moved)
    again = Indexer(open_context(real_store, settings, fake_encoder), [root], settings)
    try:
        sync(again)
        assert again.counts.stored == 0
    finally:
        again.pipeline.close()
    assert found(real_store, moved, settings) == set()


class Commands:
    def __init__(self, es_url: str, index: str) -> None:
        self._es_url, self._index = es_url, index

    def __call__(self, *arguments: str) -> Result:
        runner = CliRunner(env={"ES_URL": self._es_url})
        return runner.invoke(main, [*arguments, "--index", self._index])


@pytest.fixture
def commands(es_url: str, real_store: Store) -> Commands:
    return Commands(es_url, real_store.index)


def test_failures_are_listed_and_retried_from_the_command_line(commands: Commands, folder: Path):
    assert commands("init", "--encoder", "starter").exit_code == 0
    assert commands("failures").stderr == "No failures.\n"
    assert commands("sync", str(folder)).exit_code == 1
    assert commands("verify", str(folder)).exit_code == 0
    (failure,) = json.loads(commands("failures", "--json").stdout)
    assert failure["error_class"] == "unidentified"
    assert failure["relative_path"] == "broken.jpg"
    assert failure["attempts"] == 1
    assert failure["path"] == str(folder / "broken.jpg")
    listed = commands("failures")
    assert listed.stdout.startswith(f"unidentified       {folder}/broken.jpg: ")
    assert listed.stderr == "1 failure.\n"

    # An unchanged failure is not tried again by itself, but when asked for.
    assert commands("sync", str(folder)).exit_code == 0
    assert json.loads(commands("failures", "--json").stdout)[0]["attempts"] == 1
    retried = commands("failures", "retry", "--json")
    assert retried.exit_code == 1
    assert json.loads(retried.stdout)[0]["attempts"] == 2
    assert json.loads(commands("failures", "--json").stdout)[0]["attempts"] == 2

    state = (folder / "broken.jpg").stat()
    Image.new("RGB", (40, 40), "yellow").save(folder / "broken.jpg")
    os.utime(folder / "broken.jpg", ns=(state.st_atime_ns, state.st_mtime_ns))
    retried = commands("failures", "retry", "--json")
    assert retried.exit_code == 0, retried.output
    assert json.loads(retried.stdout) == []
    assert commands("verify", str(folder)).exit_code == 0

    (folder / "b.png").rename(folder / "new\nline \x1b[31m.png")
    assert commands("sync", str(folder)).exit_code == 0
    shown = "photos/new\\nline \\x1b[31m.png"
    for listed in (
        commands("search", "x"),
        commands("duplicates", "--level", "similar", "--threshold", "-1"),
        commands("verify", str(folder), "--exclude", "new*"),
    ):
        assert sum(line.endswith(shown) for line in listed.stdout.splitlines()) == 1
    (folder / "new\nline \x1b[31m.png").rename(folder / "b.png")
    assert commands("sync", str(folder)).exit_code == 0

    (folder / "a.png").unlink()
    verified = commands("verify", str(folder), "--json")
    assert verified.exit_code == 1
    (difference,) = json.loads(verified.stdout)
    expected = {"what": "gone", "root": "photos", "relative_path": "a.png"}
    assert difference.items() >= expected.items()


@pytest.mark.parametrize(
    "name",
    [
        "Screenshot 9.41\u202fAM.png",
        "\u5199\u771f\u3000\uff11.jpg",
        "👩\u200d💻.png",
        "a\xadb c.png",
    ],
)
def test_ordinary_names_are_shown_as_they_are(name: str):
    assert shown_path("photos", name) == f"photos/{name}"


@pytest.mark.parametrize("letter", "\x00\x1b\x85\u2028\u2029\ud800\u061c\u200e\u200f\u202e\u2069")
def test_what_would_change_a_terminal_is_escaped(letter: str):
    shown = shown_path("photos", f"a{letter}b.png")
    assert shown == f"photos/a{letter.encode('unicode_escape').decode()}b.png"
    assert shown.isascii()


def get(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{host}:{port}{path}") as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_metrics_are_for_this_machine_alone_unless_told_otherwise(indexer: Indexer):
    """127.0.0.2 is another address of Linux's loopback."""
    server = MetricsServer(indexer, 0)
    try:
        with pytest.raises(urllib.error.URLError, match="refused"):
            get(server.port, "/metrics", "127.0.0.2")
    finally:
        server.close()
    addresses = [("0.0.0.0", "127.0.0.2"), ("localhost", "localhost")]
    if _has_ipv6_loopback():
        addresses.append(("::1", "[::1]"))
    for bound, asked in addresses:
        server = MetricsServer(indexer, 0, bound)
        try:
            assert get(server.port, "/metrics", asked)[0] == 200
        finally:
            server.close()
    for bad in ("192.0.2.1", "no-such-host.invalid", "..", "127.0.0..1", "a" * 64):
        with pytest.raises(SettingsError, match=r"\(.+\): choose .* --metrics-address"):
            MetricsServer(indexer, 0, bad)


def _has_ipv6_loopback() -> bool:
    """Python may know IPv6 where the machine has it switched off, as in many a container."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_an_address_for_metrics_wants_a_port(tmp_path: Path):
    arguments = ["watch", str(tmp_path), "--metrics-address", "0.0.0.0"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "--metrics-port" in result.stderr


@pytest.mark.parametrize("way", ["file", "environment"])
def test_an_address_for_metrics_that_is_a_setting_waits_for_a_port(tmp_path: Path, way: str):
    (tmp_path / "picture.png").touch()
    arguments, environment = ["watch", str(tmp_path / "picture.png")], {}
    if way == "file":
        file = tmp_path / "es-imgsearch.toml"
        file.write_text('metrics_address = "0.0.0.0"\n')
        arguments += ["--config", str(file)]
    else:
        environment = {"ES_IMGSEARCH_METRICS_ADDRESS": "0.0.0.0"}
    result = CliRunner(env=environment).invoke(main, arguments)
    assert result.exit_code == 2
    assert "is not a folder" in result.stderr, "it comes as far as the folder"


def test_metrics_and_health_tell_what_the_daemon_does(indexer: Indexer, monkeypatch):
    sync(indexer)
    server = MetricsServer(indexer, 0)
    try:
        status, text = get(server.port, "/metrics")
        assert status == 200
        assert 'es_imgsearch_pictures_total{outcome="embedded"} 3.0' in text
        assert 'es_imgsearch_pictures_total{outcome="failed"} 1.0' in text
        assert 'es_imgsearch_deletions_paused{root="photos"} 0.0' in text
        status, text = get(server.port, "/healthz")
        assert (status, json.loads(text)["status"]) == (200, "ok")
        indexer.outage.begin(StoreUnreachable("away"))
        assert get(server.port, "/healthz")[0] == 200, "a short outage is waited out"
        monkeypatch.setattr("es_imgsearch.pipeline.reporting.metrics._UNHEALTHY_SECONDS", 0.0)
        status, text = get(server.port, "/healthz")
        assert (status, json.loads(text)["status"]) == (503, "failing")
        assert get(server.port, "/")[0] == 404
        with socket.create_connection(("127.0.0.1", server.port)):
            assert get(server.port, "/metrics")[0] == 200, "somebody connects and says nothing"
        with pytest.raises(SettingsError, match="--metrics-port"):
            MetricsServer(indexer, server.port)
    finally:
        server.close()
