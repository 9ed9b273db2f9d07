"""A secret is printed nowhere, in whatever way it was given and whatever is wrong with it."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from es_imgsearch.cli import main

# Nobody listens on this port.
AWAY = "127.0.0.1:9"
SECRETS = ["hush", "aHVzaDpodXNo"]
URLS = [
    f"http://elastic:hush@{AWAY}",
    f"https://elastic:hush@{AWAY}",
    f"http://elastic:hush@{AWAY},http://elastic:hush@127.0.0.1:10",
    f"http://elastic:h%40:hush@{AWAY}",
    f"http://elastic:a@hush@{AWAY}",
    f"http://elastic:a/hush@{AWAY}",
    f"http://elastic:a#hush@{AWAY}",
    f"http://elastic:a?hush@{AWAY}",
    f"http://hush@{AWAY}",
    "http://elastic:hush@127.0.0.1:99999999",
    "http://elastic:hush@127.0.0.1:port",
    "http://elastic:hush@[::1",
    "http://elastic:hush@",
    "http://elastic:hush@nosuch.invalid:9200",
    "elastic:hush@127.0.0.1",
    "ftp://elastic:hush@127.0.0.1",
    f"http://elastic:hush@{'x' * 70}.example",
]
COMMANDS = ["status", "search red --service none", "sync {photos}", "find red {photos}",
            "import {file}", "keys list", "doctor", "watch {photos}", "serve --port 0"]  # fmt: skip


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "photos").mkdir()
    (tmp_path / "file.parquet").write_bytes(b"PAR1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ES_IMGSEARCH_REQUEST_TIMEOUT_SECONDS", "2")
    return tmp_path


def check(
    files: Path,
    command: str,
    caplog: pytest.LogCaptureFixture,
    *options: str,
    **environment: str,
) -> Result:
    """Run a command; it ends with a line, and none of what it says has a secret."""
    caplog.set_level(logging.DEBUG)
    words = [
        each.format(photos=files / "photos", file=files / "file.parquet")
        for each in command.split()
    ]
    env = {"ES_URL": f"http://{AWAY}", "ES_API_KEY": "", "ES_CA_CERTS": "", **environment}
    ran = CliRunner(env=env).invoke(main, [*words, *options, "-v"])
    said = ran.output + caplog.text + repr(ran.exception)
    if ran.exception is not None:
        said += "".join(traceback.format_exception(ran.exception))
    assert ran.exit_code in {1, 2, 3}, said
    assert isinstance(ran.exception, SystemExit), said
    for secret in SECRETS:
        assert secret not in said.replace(str(options), "")
    caplog.clear()
    return ran


@pytest.mark.parametrize("url", URLS)
def test_a_password_of_the_address(url: str, files: Path, caplog: pytest.LogCaptureFixture):
    """In the environment, in a file that is named, in one that is found, on the command line."""
    check(files, "status", caplog, ES_URL=url)
    file = files / "given.toml"
    file.write_text(f'es_url = "{url}"\n')
    check(files, "status", caplog, "--config", str(file), ES_URL="")
    file.rename(files / "es-imgsearch.toml")
    check(files, "status", caplog, ES_URL="")
    (files / "es-imgsearch.toml").unlink()
    ran = check(files, "status", caplog, "--es-url", url)
    assert "sees the password in --es-url" in ran.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_with_a_password_and_a_key(
    command: str, files: Path, caplog: pytest.LogCaptureFixture
):
    check(files, command, caplog, ES_URL=URLS[0])
    check(files, command, caplog, ES_API_KEY="aHVzaDpodXNo")
    check(files, command, caplog, ES_API_KEY="a key with hush")
    (files / "es-imgsearch.toml").write_text('es_api_key = "aHVzaDpodXNo"\nnot_a_setting = 1\n')
    check(files, command, caplog)
    (files / "es-imgsearch.toml").write_text('es_api_key = "aHVzaDpodXNo\n')
    check(files, command, caplog)
    (files / "es-imgsearch.toml").write_text('es_api_key = ["aHVzaDpodXNo"]\n')
    check(files, command, caplog)


def test_other_secrets_on_the_command_line(files: Path, caplog: pytest.LogCaptureFixture):
    url = f"http://elastic:hush@{AWAY}"
    ran = check(files, "kibana import", caplog, "--kibana-url", url)
    assert "sees the password in --kibana-url: set KIBANA_URL instead." in ran.stderr
    refused = check(files, "search red", caplog, "--service", url)
    assert "has no user or password" in refused.stderr
