"""Messages on wrong values: a plain sentence, the value meant, and nothing of pydantic's."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from es_imgsearch.cli import main
from es_imgsearch.errors import SettingsError, did_you_mean
from es_imgsearch.settings import Settings, load_settings

PYDANTIC = ("Input should", "Value error", "unable to", "Field required", "validation error")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("read_workers", "many", "it is a whole number, not 'many'."),
        ("read_workers", "2.5", "it is a whole number, not '2.5'."),
        ("read_workers", "-1", "it is a whole number, at least 1, not '-1'."),
        ("batch_size", "0", "it is a whole number, at least 1, not '0'."),
        ("batch_size", "5000", "it is a whole number of at most 1024, not '5000'."),
        ("max_delete_share", "2", "it is a number of at most 1, not '2'."),
        ("max_delete_share", "half", "it is a number, not 'half'."),
        ("settle_seconds", "-3", "it is a number, at least 0, not '-3'."),
        ("metrics_port", "99999999", "it is a whole number of at most 65535, not '99999999'."),
        ("log_format", "txt", "it is one of 'text' or 'ecs', not 'txt'. Did you mean 'text'?"),
        ("dtype", "flot32", "Did you mean 'float32'?"),
        ("backend", "tourch", "Did you mean 'torch'?"),
        ("log_searches", "perhaps", "it is true or false, not 'perhaps'."),
        ("thumbnail_pixels", "4", "it is a whole number, at least 16, not '4'."),
        ("es_url", "example:9200", "must begin with http:// or https://"),
        ("es_url", "ftp://example", "must begin with http:// or https://"),
        ("index", "Bad Name", "index (from"),
    ],
)
@pytest.mark.parametrize("source", ["environment", "file", "arguments"])
def test_a_wrong_value_is_told_in_a_plain_sentence(
    name: str, value: str, said: str, source: str, tmp_path: Path
):
    config = tmp_path / "es-imgsearch.toml"
    config.write_text(f'{name} = "{value}"\n' if source == "file" else "")
    names = {"es_url": "ES_URL"}
    environment = {names.get(name, f"ES_IMGSEARCH_{name.upper()}"): value}
    with pytest.raises(SettingsError) as caught:
        load_settings(
            {name: value} if source == "arguments" else {},
            config=config,
            environment=environment if source == "environment" else {},
        )
    message = str(caught.value)
    assert said in message
    assert message.startswith(f"{name} (from ")
    assert message.endswith((".", "?"))
    assert not any(words in message for words in PYDANTIC)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("read_worker", "read_workers"), ("bach_size", "batch_size"), ("es_ur", "es_url"),
     ("exlude", "exclude"), ("Index", "index")],
)  # fmt: skip
def test_an_unknown_setting_of_the_file_names_the_nearest(tmp_path: Path, typed: str, meant: str):
    config = tmp_path / "settings.toml"
    config.write_text(f"{typed} = 1\n")
    with pytest.raises(SettingsError, match=f"Did you mean '{meant}'"):
        load_settings({}, config=config, environment={})


def test_an_unknown_variable_names_the_nearest(caplog: pytest.LogCaptureFixture):
    load_settings({}, environment={"ES_IMGSEARCH_READ_WORKER": "3"})
    assert "Did you mean 'ES_IMGSEARCH_READ_WORKERS'?" in caplog.text


def test_the_value_of_a_key_is_not_repeated():
    with pytest.raises(SettingsError) as caught:
        load_settings({"es_api_key": "sécret"}, environment={})
    assert "sécret" not in str(caught.value)


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        (["search", "cat", "--mode", "hybird"], "hybrid"),
        (["search", "cat", "--mode", "vectr"], "vector"),
        (["evaluate", "x.csv", "--by", "imge"], "image"),
        (["duplicates", "--level", "simlar"], "similar"),
        (["codes", "trian"], "train"),
        (["failures", "rety"], "retry"),
    ],
)
def test_a_misspelt_choice_names_the_nearest(command: list[str], meant: str):
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    assert f"Did you mean '{meant}'?" in done.stderr


@pytest.mark.parametrize(
    ("word", "known", "said"),
    [
        ("fromat", ["format", "folder"], " Did you mean 'format'?"),
        ("COSINE", ["cosine"], " Did you mean 'cosine'?"),
        ("zzz", ["cosine"], ""),
        (None, ["cosine"], ""),
        ("x", [], ""),
    ],
)
def test_only_a_near_word_is_offered(word: object, known: list[str], said: str):
    assert did_you_mean(word, known) == said


def test_every_setting_has_a_name_that_is_offered():
    for name in Settings.model_fields:
        assert did_you_mean(f"{name}x", Settings.model_fields) == f" Did you mean {name!r}?"
