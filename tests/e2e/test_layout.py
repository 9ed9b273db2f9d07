"""Shards and replicas, chosen by `init` and changed afterwards."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from click.testing import CliRunner, Result

from es_imgsearch.cli import main
from es_imgsearch.elastic.meta_entries import ShardLayout
from es_imgsearch.elastic.store import Store
from es_imgsearch.settings import Settings
from tests.support.house import House


def run(settings: Settings, *arguments: str) -> Result:
    runner = CliRunner(env={"ES_URL": settings.es_url})
    return runner.invoke(main, [*arguments, "--index", settings.index])


def index_settings(store: Store, alias: str) -> dict[str, Any]:
    (body,) = store.connection.request("GET", f"/{alias}/_settings").values()
    return body["settings"]["index"]


@pytest.mark.parametrize(
    ("options", "shards", "copies"),
    [
        ([], "1", ("0-1", "0")),
        (["--shards", "3"], "3", ("0-1", "0")),
        (["--replicas", "2"], "1", ("false", "2")),
        (["--shards", "2", "--replicas", "0"], "2", ("false", "0")),
    ],
)
def test_init_makes_as_many_as_given(
    real_store: Store, settings: Settings, options: list[str], shards: str, copies: tuple[str, str]
):
    done = run(settings, "init", "--encoder", "starter", *options)
    assert done.exit_code == 0, done.output
    for alias in ("", "-failures", "-state"):
        found = index_settings(real_store, settings.index + alias)
        assert (found["auto_expand_replicas"], found["number_of_replicas"]) == copies
    assert index_settings(real_store, settings.index)["number_of_shards"] == shards


@pytest.mark.parametrize("option", [["--shards", "0"], ["--replicas", "-1"], ["--shards", "two"]])
def test_numbers_that_cannot_be(settings: Settings, option: list[str]):
    done = run(settings, "init", *option)
    assert done.exit_code == 2
    assert option[0] in done.output


def test_replicas_change_at_once(real_store: Store, settings: Settings):
    assert run(settings, "init", "--encoder", "starter").exit_code == 0
    assert run(settings, "init", "--replicas", "1").exit_code == 0
    assert index_settings(real_store, settings.index)["number_of_replicas"] == "1"
    # Repeated without, it stays as it is.
    assert run(settings, "init").exit_code == 0
    assert index_settings(real_store, settings.index)["number_of_replicas"] == "1"


def test_other_shards_are_made_by_a_reindex(house: House):
    house.pictures(5)
    house.synced()
    refused = run(house.settings, "init", "--shards", "2")
    assert refused.exit_code == 2
    (command,) = re.findall("`(.*?)`", refused.output)
    done = run(house.settings, *shlex.split(command)[1:-2])
    assert done.exit_code == 0, done.output
    assert index_settings(house.store, house.settings.index)["number_of_shards"] == "2"
    assert house.store.listings.count() == 5
    assert run(house.settings, "init", "--shards", "2").exit_code == 0
    # The same again would change nothing.
    assert run(house.settings, "reindex", "--shards", "2").exit_code == 2


def test_a_reindex_keeps_shards_and_replicas(house: House):
    house.store.set_copies(ShardLayout(replicas=2))
    house.pictures(2)
    house.synced()
    done = run(house.settings, "reindex", "--profile", "compact", "--shards", "2")
    assert done.exit_code == 0, done.output
    found = index_settings(house.store, house.settings.index)
    assert (found["number_of_shards"], found["number_of_replicas"]) == ("2", "2")
    run(house.settings, "reindex", "--drop-old")
    done = run(house.settings, "reindex", "--profile", "exact")
    assert done.exit_code == 0, done.output
    found = index_settings(house.store, house.settings.index)
    assert (found["number_of_shards"], found["number_of_replicas"]) == ("2", "2")
