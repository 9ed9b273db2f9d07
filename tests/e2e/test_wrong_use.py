"""Wrong input: one clear line, the right exit code, never a traceback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from es_imgsearch.cli import main
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.testing import FakeEncoder

pytestmark = pytest.mark.process

COMMAND = Path(sys.executable).with_name("es-imgsearch")


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(main, list(arguments))


def check(result: Result, exit_code: int, *words: str) -> None:
    assert result.exit_code == exit_code, (result.output, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    for word in words:
        assert word in line


@pytest.fixture
def index(real_store: Store, es_url: str) -> str:
    """An index that is sealed to `starter`'s name but to other weights."""
    encoder = FakeEncoder()
    encoder.name = "starter"
    real_store.generations.create(new_meta(seal_of(encoder), "exact", "cosine"))
    return real_store.index


@pytest.mark.parametrize("host", ["localhost..", ".localhost", "a" * 64])
def test_a_host_that_no_host_can_have(host: str):
    check(run("status", ES_URL=f"http://{host}:9200"), 2, "es_url (from the environment)", "dots")
    check(run("kibana", "import", KIBANA_URL=f"http://{host}:9200"), 2, "kibana_url", "dots")


def test_no_such_folder(es_url: str):
    result = run("sync", "/no/such/folder", "--es-url", es_url)
    check(result, 2, "'/no/such/folder'", "does not exist")


@pytest.mark.parametrize("text", ["", "photos=", "="])
def test_a_folder_that_is_not_named(es_url: str, text: str):
    check(run("sync", text, "--es-url", es_url), 2, "names no folder", "NAME=DIR")


def test_a_name_that_is_not_given(es_url: str, tmp_path: Path):
    check(run("sync", f"={tmp_path}", "--es-url", es_url), 2, "no usable name", "NAME=DIR")


def test_a_file_instead_of_a_folder(es_url: str, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("words")
    result = run("watch", str(tmp_path / "notes.txt"), "--es-url", es_url)
    check(result, 2, "is not a folder")


def test_overlapping_folders(es_url: str, tmp_path: Path):
    (tmp_path / "inner").mkdir()
    result = run("sync", str(tmp_path), str(tmp_path / "inner"), "--es-url", es_url)
    check(result, 2, "overlap")


def test_two_folders_of_one_name(es_url: str, tmp_path: Path):
    for name in ("a/photos", "b/photos"):
        (tmp_path / name).mkdir(parents=True)
    folders = [str(tmp_path / "a/photos"), str(tmp_path / "b/photos")]
    check(run("sync", *folders, "--es-url", es_url), 2, "NAME=DIR")


def test_a_name_that_another_folder_holds(
    es_url: str, index: str, real_store: Store, tmp_path: Path
):
    real_store.generations.update_meta(
        lambda m: m.with_root("photos", {"path": "/srv/p", "host": "nas"})
    )
    from es_imgsearch.errors import RootError
    from es_imgsearch.watch.roots import parse_roots, register_roots

    (tmp_path / "photos").mkdir()
    with pytest.raises(RootError, match="nas"):
        register_roots(real_store, parse_roots([str(tmp_path / "photos")]), "here")
    register_roots(real_store, parse_roots([f"mine={tmp_path / 'photos'}"]), "here")
    with pytest.raises(RootError, match="overlaps"):
        register_roots(real_store, parse_roots([f"all={tmp_path}"]), "here")


def test_a_text_file_as_query_picture(es_url: str, real_store: Store, tmp_path: Path):
    assert run("init", "--encoder", "starter", "--index", real_store.index, "--es-url", es_url)
    (tmp_path / "notes.txt").write_text("words")
    path = str(tmp_path / "notes.txt")
    result = run("search", "--image", path, "--index", real_store.index, "--es-url", es_url)
    check(result, 2, "notes.txt", "no picture format")
    path = str(tmp_path / "nothing.png")
    result = run("search", "--image", path, "--index", real_store.index, "--es-url", es_url)
    check(result, 2, "There is no file")
    (tmp_path / "empty.png").touch()
    path = str(tmp_path / "empty.png")
    result = run("search", "--image", path, "--index", real_store.index, "--es-url", es_url)
    check(result, 2, "empty.png", "is empty")


def test_an_unknown_profile_similarity_or_encoder(es_url: str, index_name: str):
    common = ("--index", index_name, "--es-url", es_url)
    result = run("init", "--encoder", "starter", "--profile", "fastest", *common)
    check(result, 2, "'fastest'", "balanced")
    result = run("init", "--encoder", "starter", "--similarity", "taste", *common)
    check(result, 2, "'taste'", "cosine")
    check(run("init", "--encoder", "nothing", *common), 2, "'nothing'", "starter")


def test_elasticsearch_absent(tmp_path: Path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://elastic:do-not-print@127.0.0.1:{unused.getsockname()[1]}"
    for arguments in (["status"], ["search", "x"], ["sync", str(tmp_path)], ["init"]):
        result = run(*arguments, ES_URL=address)
        check(result, 3, "does not answer", "ES_URL")
        assert "do-not-print" not in result.output
        typed = run(*arguments, "--es-url", address)
        assert typed.exit_code == 3
        assert "sees the password in --es-url" in typed.stderr
        assert "do-not-print" not in typed.output


def test_index_absent(es_url: str, index_name: str, tmp_path: Path):
    for arguments in (["status"], ["search", "x"], ["sync", str(tmp_path)]):
        result = run(*arguments, "--index", index_name, "--es-url", es_url)
        check(result, 2, index_name, "es-imgsearch init")


def test_an_index_of_another_encoder(es_url: str, index: str, tmp_path: Path):
    for arguments in (["search", "x"], ["sync", str(tmp_path)]):
        result = run(*arguments, "--index", index, "--es-url", es_url)
        check(result, 2, "sealed to encoder 'starter'")
    result = run("search", "x", "--index", index, "--es-url", es_url, ES_IMGSEARCH_ENCODER="clip")
    check(result, 2, "not 'clip'")
    result = run("init", "--encoder", "clip", "--index", index, "--es-url", es_url)
    check(result, 2, "not 'clip'")


def test_an_index_that_is_not_ours(es_url: str, real_store: Store, tmp_path: Path):
    name = f"{real_store.index}-000001"
    real_store.connection.client.indices.create(index=name)
    for arguments in (
        ["status"],
        ["search", "x"],
        ["sync", str(tmp_path)],
        ["watch", str(tmp_path)],
    ):
        result = run(*arguments, "--index", name, "--es-url", es_url)
        check(result, 2, "not an alias")


def test_settings_that_cannot_be(tmp_path: Path):
    check(run("status", "--index", "Upper Case"), 2, "index", "the command line")
    check(run("status", "--es-url", "localhost:9200"), 2, "es_url", "http://")
    check(run("status", ES_IMGSEARCH_BATCH_SIZE="many"), 2, "batch_size", "the environment")
    config = tmp_path / "es-imgsearch.toml"
    check(run("status", "--config", str(config)), 2, "cannot be read")
    config.write_text("colour = 1\n")
    check(run("status", "--config", str(config)), 2, "colour", "the settings file")
    config.write_text("colour = \n")
    check(run("status", "--config", str(config)), 2, "cannot be read")


def test_a_server_that_is_not_elasticsearch():
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        check(run("status", "--es-url", address), 3, address, "is not Elasticsearch 8", "ES_URL")
        server.shutdown()


def test_https_of_a_server_that_speaks_http(es_url: str):
    address = es_url.replace("http://", "https://")
    check(run("status", "--es-url", address), 3, "does not speak https", "http://")


def test_an_image_id_that_is_not_given(es_url: str, index: str):
    check(run("similar", "", "--index", index, "--es-url", es_url), 2, "No picture has")


def test_describers_that_are_not_named(es_url: str, index: str):
    result = run("describe", "--only", "", "--index", index, "--es-url", es_url)
    check(result, 2, "names no describer")


def test_files_that_cannot_be_read_or_written(es_url: str, index: str, tmp_path: Path):
    common = ("--index", index, "--es-url", es_url)
    nowhere = str(tmp_path / "nowhere" / "file.png")
    check(run("kibana", "check", nowhere, *common), 2, nowhere, "cannot be read")
    check(run("kibana", "import", str(tmp_path), *common), 2, str(tmp_path), "cannot be read")
    build = ("kibana", "build", "--no-searches", "--output", nowhere)
    check(run(*build, *common), 2, nowhere, "cannot be written")
    # Before anything is measured.
    for arguments in (["tune", "--plot"], ["tags", "evaluate", "--plot"]):
        check(run(*arguments, nowhere, *common), 2, "There is no folder")
        check(run(*arguments, str(tmp_path), *common), 2, "is a folder")


def test_an_option_of_commands_before_the_command():
    for group in ([], ["kibana"], ["tags"]):
        result = run(*group, "--index", "photos", "status")
        assert result.exit_code == 2
        assert "--index goes after the command" in result.stderr
    result = run("--colour", "red", "status")
    assert result.exit_code == 2
    assert "No such option" in result.stderr


def test_nothing_to_search_for():
    check(run("search"), 2, "words")
    check(run("search", "x", "--box", "1,2,3,4"), 2, "--image")
    check(run("search", "--image", "x.png", "--box", "1,2"), 2, "four numbers")
    check(run("search", "x", "--filter", "colour"), 2, "FIELD=VALUE")


def test_wrong_options_are_told_by_the_parser():
    assert run("sync").exit_code == 2
    assert run("nonsense").exit_code == 2
    assert run("search", "-k", "many").exit_code == 2


def test_credentials_that_elasticsearch_does_not_know_are_not_needed_without_security(es_url: str):
    result = run("status", "--es-url", es_url, ES_API_KEY="c2VjcmV0OnNlY3JldA==")
    assert "c2VjcmV0" not in result.output


def test_help_and_the_first_import_load_nothing_heavy():
    code = (
        "import sys, es_imgsearch, es_imgsearch.cli, click\n"
        "try: es_imgsearch.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'timm', 'transformers', 'sentence_transformers', 'numpy',\n"
        "         'elasticsearch', 'pydantic', 'PIL'} & set(sys.modules)\n"
        "sys.exit(f'loaded {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_command_explains_itself():
    for name, command in main.commands.items():
        result = run(name, "--help")
        assert result.exit_code == 0
        assert command.help, f"{name} has no help"
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} --{parameter.name} has no help"


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["lines", "json"])
def test_a_full_disk_behind_standard_output_is_told(es_url: str, index: str, options: list[str]):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [COMMAND, "status", "--index", index, "--es-url", es_url, *options],
            stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line == "Error: Standard output cannot be written: No space left on device."


def test_arguments_that_are_not_unicode(es_url: str, real_store: Store):
    common = ("--index", real_store.index, "--es-url", es_url)
    assert run("init", "--encoder", "starter", *common).exit_code == 0
    check(run("search", "caf\udce9", *common), 2, "not valid Unicode")
    check(run("search", "x", "--filter", "camera=\udce9", *common), 2, "not valid Unicode")
    check(run("similar", "\udce9", *common), 2, "No picture has the image_id")
    assert run("search", "x", "--filter", "folder=caf\udce9", *common).exit_code == 0


def test_a_closed_pipe_is_no_error(es_url: str):
    command = f"{COMMAND} --help | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=os.environ)
    assert done.stderr == ""
