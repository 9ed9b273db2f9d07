"""Where settings come from, which of them wins, and that no secret is told."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from es_imgsearch.elastic.client import connect
from es_imgsearch.errors import SettingsError
from es_imgsearch.settings import (
    CONFIG_NAME,
    ENVIRONMENT_PREFIX,
    Settings,
    available_cores,
    changed_settings,
    default_read_workers,
    load_settings,
    without_password,
)

SECRET = "c2VjcmV0OmtleQ=="
PASSWORD = "hunter2-äöü"


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def config(folder: Path, text: str, name: str = CONFIG_NAME) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def load(
    given: dict[str, Any] | None = None, environment: dict[str, str] | None = None, **rest: Any
) -> Settings:
    return load_settings(given, environment=environment or {}, **rest)


def refused(*given: Any, **options: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        load(*given, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# -- precedence ----------------------------------------------------------------------------


def test_nothing_set_gives_the_defaults():
    settings = load()
    assert (settings.index, settings.es_url) == ("images", "http://127.0.0.1:9200")
    assert settings.es_api_key is None
    assert settings.read_workers == default_read_workers(available_cores())
    assert [default_read_workers(cores) for cores in (1, 2, 8, 16, 24, 64)] == [1, 2, 8, 8, 8, 21]
    assert settings.workers == 1
    assert settings.host


def test_the_first_source_that_names_a_setting_wins(tmp_path: Path):
    config(tmp_path, 'index = "from-file"\nbatch_size = 3\nqueue_size = 4\n')
    environment = {"ES_IMGSEARCH_INDEX": "from-environment", "ES_IMGSEARCH_BATCH_SIZE": "5"}
    settings = load({"index": "from-command-line"}, environment)
    assert (settings.index, settings.batch_size, settings.queue_size) == ("from-command-line", 5, 4)
    assert load({"index": None}, environment).index == "from-environment"
    assert load().index == "from-file"


def test_every_setting_can_come_from_the_environment():
    values = {
        "es_url": "https://es:9200", "es_api_key": SECRET, "es_ca_certs": "/ca.pem",
        "index": "photos", "exclude": "a:*.b", "max_pixels": "17", "settle_seconds": "0",
        "device": "cpu", "host": "me",
    }  # fmt: skip
    found = load(environment={ENVIRONMENT_PREFIX + k.upper(): v for k, v in values.items()})
    assert found.exclude == ("a", "*.b")
    assert found.max_pixels == 17
    assert found.es_ca_certs == Path("/ca.pem")
    assert found.es_api_key == SecretStr(SECRET)


def test_only_variables_in_capitals_are_settings(caplog: pytest.LogCaptureFixture):
    # pydantic-settings by itself would take them in any case, and HOST is a variable of shells.
    environment = {"es_url": "https://es:9200", "HOST": "x", "ES_IMGSEARCH_Index": "photos"}
    assert load(environment=environment) == load()
    assert "ES_IMGSEARCH_Index is no setting" in caplog.text


def test_settings_made_from_arguments_read_no_other_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config(tmp_path, "batch_size = 3\n")
    monkeypatch.setenv("ES_URL", "https://es:9200")
    empty = config(tmp_path, "", "empty.toml")
    assert Settings(queue_size=5) == load({"queue_size": 5}, config=empty)
    assert changed_settings(Settings(), queue_size=5) == Settings(queue_size=5)


def test_names_shared_with_other_tools_win_over_ours():
    settings = load(
        environment={
            "ES_URL": "https://shared:9200",
            "ES_IMGSEARCH_ES_URL": "https://ours:9200",
            "ES_API_KEY": SECRET,
            "ES_CA_CERTS": "/ca.pem",
        }
    )
    assert settings.es_url == "https://shared:9200"
    assert settings.es_api_key == SecretStr(SECRET)
    assert settings.es_ca_certs == Path("/ca.pem")


def test_an_empty_variable_is_as_good_as_none():
    assert load(environment={"ES_API_KEY": "", "ES_IMGSEARCH_INDEX": ""}) == load()


def test_a_file_that_is_named_is_read_and_must_be_there(tmp_path: Path):
    path = config(tmp_path, 'index = "named"\nexclude = ["a", "b"]\n', "other.toml")
    settings = load(config=path)
    assert (settings.index, settings.exclude) == ("named", ("a", "b"))
    assert load().index == "images"
    assert "none.toml cannot be read" in refused(config=tmp_path / "none.toml")


# -- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("index", "Images"), ("index", "a b"), ("index", "_a"), ("index", "a,b"), ("index", ".."),
        ("index", "x" * 201), ("es_url", "127.0.0.1:9200"), ("es_url", "ftp://x"),
        ("batch_size", "0"), ("batch_size", "many"), ("max_delete_share", "1.5"),
        ("read_memory_mb", "1"), ("settle_seconds", "-1"), ("request_timeout_seconds", "nan"),
    ],
)  # fmt: skip
def test_a_bad_value_is_told_with_its_setting_and_its_source(
    setting: str, value: str, tmp_path: Path
):
    told = refused(environment={ENVIRONMENT_PREFIX + setting.upper(): value})
    assert told.startswith(f"{setting} (from the environment): ")
    assert refused({setting: value}).startswith(f"{setting} (from the command line): ")
    config(tmp_path, f'{setting} = "{value}"\n')
    assert refused().startswith(f"{setting} (from the settings file): ")


def test_a_number_is_not_taken_for_true(tmp_path: Path):
    # It would be a share of 1, with which deletions never pause.
    config(tmp_path, "max_delete_share = true\n")
    assert refused().startswith("max_delete_share (from the settings file): ")
    config(tmp_path, "log_searches = true\n")
    assert load_settings(environment={}).log_searches


def test_a_setting_that_does_not_exist_is_told_with_those_that_do(tmp_path: Path):
    config(tmp_path, "batch = 3\n")
    told = refused()
    assert told.startswith("batch (from the settings file): no setting has that name")
    assert "batch_size" in told


@pytest.mark.parametrize("name", ["_env_file", "_cli_parse_args", "es_imgsearch_es_url"])
def test_a_file_cannot_reach_what_the_library_takes_besides_settings(name: str, tmp_path: Path):
    config(tmp_path, f"{name} = true\n")
    assert refused().startswith(f"{name} (from the settings file): no setting has that name")


@pytest.mark.parametrize("content", [b"index = ", b"\xff\xfe", b"[index\n"])
def test_a_malformed_file_is_told_with_its_name(content: bytes, tmp_path: Path):
    (tmp_path / CONFIG_NAME).write_bytes(content)
    assert f"{CONFIG_NAME} cannot be read" in refused()


def test_settings_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        load().index = "other"


# -- secrets -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "show", [repr, str, lambda settings: f"{settings}"], ids=["repr", "str", "format"]
)
@pytest.mark.parametrize("password", [PASSWORD, "a@b@c", "%2Fx"])
def test_settings_show_neither_key_nor_password(show: Any, password: str):
    settings = load({"es_url": f"https://elastic:{password}@es:9200/x", "es_api_key": SECRET})
    shown = show(settings)
    assert SECRET not in shown
    assert password not in shown
    assert "elastic" not in shown
    assert "https://es:9200/x" in shown


@pytest.mark.parametrize(
    "bad",
    [
        {"es_url": f"elastic:{PASSWORD}@es:9200"},
        {"es_url": ["x", f"https://elastic:{PASSWORD}@es"]},
        {"es_api_key": [SECRET]},
        {"es_api_key": {"id": SECRET}},
        {"es_url": f"https://elastic:{PASSWORD}@es", "es_api_key": SECRET, "index": "_"},
    ],
    ids=str,
)
def test_no_error_repeats_a_secret(bad: dict[str, Any]):
    told = refused(bad)
    assert SECRET not in told
    assert PASSWORD not in told


@pytest.mark.parametrize("inside", ["\n", "\r", " ", "\0", "é", "\udce9", "\x7f"], ids=repr)
def test_a_key_that_cannot_be_sent_is_refused_and_not_repeated(inside: str):
    key = f"c2VjcmV0{inside}OmtleQ=="
    told = refused(environment={"ES_API_KEY": key})
    assert told.startswith("es_api_key (from the environment): an API key is of printable ASCII")
    assert "c2VjcmV0" not in told
    with pytest.raises(ValueError, match="printable ASCII") as caught:
        Settings(es_api_key=key)
    assert "c2VjcmV0" not in str(caught.value)


def test_white_space_around_a_key_does_not_count():
    key = load(environment={"ES_API_KEY": f" {SECRET}\r\n"}).es_api_key
    assert key == SecretStr(SECRET)
    assert load(environment={"ES_API_KEY": "\n"}).es_api_key is None


def test_changed_settings_are_checked_like_new_ones():
    settings = load({"es_api_key": SECRET, "batch_size": 3})
    changed = changed_settings(settings, index="other", es_url=None)
    assert changed == load({"es_api_key": SECRET, "batch_size": 3, "index": "other"})
    with pytest.raises(SettingsError, match=r"index \(from the arguments\): 'A B'"):
        changed_settings(settings, index="A B")


@pytest.mark.parametrize(
    "url",
    [
        f"https://elastic:{PASSWORD}/more@es:9200",
        f"https://elastic:{PASSWORD}#more@es:9200",
        f"https://elastic:{PASSWORD}@es:port",
        f"https://elastic:{PASSWORD}@[es",
        f"https://elastic:{PASSWORD}@",
    ],
)
def test_an_address_that_cannot_be_used_is_not_repeated(url: str):
    with pytest.raises(SettingsError, match="es_url cannot be used") as caught:
        connect(load({"es_url": url}))
    assert PASSWORD not in str(caught.value)
    # Nor does a traceback show it.
    assert caught.value.__suppress_context__


def test_the_clients_own_words_show_no_password():
    client = connect(load({"es_url": f"https://elastic:{PASSWORD}@es:9200"}))
    assert PASSWORD not in repr(client)
    client.close()


def test_any_letter_may_stand_in_a_password():
    client = connect(load({"es_url": "https://elastic:h%C3%A4ns%2F@es:9200"}))
    sent = client._headers["authorization"]
    client.close()
    assert b64decode(sent.removeprefix("Basic ")).decode() == "elastic:häns/"


def test_a_missing_certificate_file_is_told_before_anything_is_sent():
    with pytest.raises(SettingsError, match=r"es_ca_certs: .* '/none/ca\.pem'"):
        connect(load({"es_url": "https://es:9200", "es_ca_certs": "/none/ca.pem"}))


def test_a_misspelt_variable_is_told(caplog: pytest.LogCaptureFixture):
    load(environment={"ES_IMGSEARCH_BATCHSIZE": "5", "ES_IMGSEARCH_ES_HOME": "/opt/es"})
    assert [record.message for record in caplog.records] == [
        (
            "ES_IMGSEARCH_BATCHSIZE is no setting and has no effect."
            " Did you mean 'ES_IMGSEARCH_BATCH_SIZE'?"
        )
    ]


@pytest.mark.parametrize("setting", ["es_url", "kibana_url", "service_url"])
@pytest.mark.parametrize(
    "address",
    [
        "http://localhost..:9200",
        "http://.localhost:9200",
        f"http://{'a' * 64}:9200",
        f"https://{'a' * 64}.example.com",
        "https://reader:hidden@a..b:9200/path",
        "http://..",
        f"http://{'ü' * 60}",
    ],
)
def test_an_address_whose_host_no_host_can_have(setting: str, address: str) -> None:
    with pytest.raises(SettingsError, match="host") as refused:
        load_settings({setting: address}, environment={})
    message = str(refused.value)
    assert message.startswith(f"{setting} (from the command line): ")
    assert "between two dots" in message
    assert "hidden" not in message


@pytest.mark.parametrize(
    "address",
    ["http://localhost.:9200", "http://[::1]:9200", "http://bücher.example", f"http://{'a' * 63}"],
)
def test_an_address_whose_host_may_be(address: str) -> None:
    assert load_settings({"es_url": address}, environment={}).es_url == address


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@a:9200", "https://a:9200"),
        ("https://u:p@a:9200,https://u:p@b:9200", "https://a:9200,https://b:9200"),
        ("https://u:p@a, http://b", "https://a,http://b"),
        ("https://u:p,q@a,https://b", "https://a,https://b"),
        ("https://u:p,https://q@a", "https://a"),
        ("http://a,http://b", "http://a,http://b"),
    ],
)
def test_no_password_is_left_in_addresses(url: str, shown: str):
    assert without_password(url) == shown
