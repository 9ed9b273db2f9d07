"""Snapshots of an 8.19 server under writes, restored into an empty 9.4 one: the work goes on."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner, Result

from es_imgsearch.cli import main
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.mapping import Companion
from es_imgsearch.elastic.store import Store
from es_imgsearch.manage.drop import belongings
from es_imgsearch.search.search_log import create_searches_index
from es_imgsearch.settings import Settings, load_settings
from es_imgsearch.testing import remove_index
from tests.support.house import House, until
from tests.support.server_process import started

pytestmark = [pytest.mark.es, pytest.mark.process, pytest.mark.slow]


class Servers(NamedTuple):
    """An 8.19 and a 9.4 that see one folder of backups."""

    old: str
    new: str
    backups: Path


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("servers")
    backups = folder / "backups"
    for each in ("old", "new", "backups"):
        (folder / each).mkdir()
    given = {"path.repo": backups}
    with started(folder / "old", "8", given) as old, started(folder / "new", "9", given) as new:
        yield Servers(old, new, backups)


def settings_at(url: str, index: str) -> Settings:
    given = {
        "es_url": url,
        "index": index,
        "read_workers": 1,
        "settle_seconds": 0.1,
        "batch_wait_ms": 5.0,
        "lease_seconds": 2.0,
        "describers": ["-text_in_image"],
    }
    return load_settings(given, environment={})


@pytest.fixture
def house(servers: Servers, index_name: str, tmp_path: Path) -> Iterator[House]:
    """A folder that is indexed on the old server."""
    settings = settings_at(servers.old, index_name)
    store = Store(connect(settings), index_name)
    yield House(store, settings, tmp_path)
    remove_index(store)
    remove_index(Store(connect(settings_at(servers.new, index_name)), index_name))


def moved(house: House, url: str) -> House:
    """The same folder, with the index of this name on another server."""
    settings = settings_at(url, house.settings.index)
    return House(Store(connect(settings), settings.index), settings, house.folder.parent)


def run(url: str, index: str, *arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [*arguments, "--index", index, "--es-url", url])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def register(url: str, index: str, servers: Servers, repository: str) -> tuple[str, str]:
    """Register the repository at a server; the option that names it."""
    option = ("--repository", repository)
    run(url, index, "snapshot", "repository", "--location", str(servers.backups / index), *option)
    return option


def verified(house: House) -> list[dict[str, str]]:
    where = ["--index", house.settings.index, "--es-url", house.settings.es_url]
    result = CliRunner().invoke(main, ["verify", str(house.folder), "--json", *where])
    differences: list[dict[str, str]] = json.loads(result.stdout)
    return differences


def test_an_index_of_8_goes_on_in_9_as_if_nothing_had_happened(
    house: House, servers: Servers
) -> None:
    index = house.settings.index
    house.pictures(20)
    (house.folder / "broken.jpg").write_bytes(b"no picture at all")
    house.synced()
    create_searches_index(house.store)
    # As a person has typed it: no picture tells it again.
    typed = {"stored_at": "2026-11-28T00:00:00Z", "body": {"cat": ["a cat"]}}
    house.store.companions.put(Companion.TAGS, "typed", typed)
    # Documents are counted as they can be searched.
    house.store.connection.request("POST", f"/{index}*/_refresh")
    held = {each.name: each.documents for each in belongings(house.store)}
    option = register(servers.old, index, servers, index)
    made = run(servers.old, index, "snapshot", "create", *option).stdout.strip()
    assert made.startswith(f"{index}-20")

    register(servers.new, index, servers, index)
    listed = json.loads(run(servers.new, index, "snapshot", "list", "--json", *option).stdout)
    assert [(each["name"], each["state"]) for each in listed] == [(made, "SUCCESS")]
    assert sorted(listed[0]["indices"]) == sorted(held)
    run(servers.new, index, "snapshot", "restore", *option)

    new = moved(house, servers.new)
    new.store.refresh()
    assert {each.name: each.documents for each in belongings(new.store)} == held
    assert new.differing() == []
    assert verified(new) == []
    assert new.store.companions.get(Companion.TAGS, "typed") == typed
    after = new.synced()
    assert (after.counts.stored, after.counts.deleted, after.counts.failed) == (0, 0, 0)
    assert new.encoder.pictures_embedded == 0
    with new.watched() as daemon:
        new.picture("later.png", 99)
        until(lambda: daemon.indexer.counts.embedded == 1)
        new.settle()
    # What keeps a stray write from guessing mappings is in no snapshot: it is made again.
    for server in (servers.old, servers.new):
        client = connect(settings_at(server, index))
        templates = client.indices.get_index_template(name=f"{index}*")["index_templates"]
        assert {each["name"] for each in templates} == {
            index, f"{index}-failures", f"{index}-searches", f"{index}-state", f"{index}-tags",
        }  # fmt: skip


def test_a_snapshot_under_writes_is_restored_and_sync_finds_the_rest(
    house: House, servers: Servers
) -> None:
    index = house.settings.index
    option = register(servers.old, index, servers, index)
    house.pictures(100)
    ended = threading.Event()

    def write() -> None:
        """Write until the snapshot is taken, and 20 pictures more."""
        numbers = itertools.count(100)
        while not ended.is_set():
            house.picture(f"{next(numbers):04}.png", next(numbers))
            time.sleep(0.005)
        for n in itertools.islice(numbers, 20):
            house.picture(f"{n:04}.png", n)

    with house.watched() as daemon:
        writer = threading.Thread(target=write)
        writer.start()
        try:
            until(lambda: daemon.indexer.counts.embedded > 110)
            made = run(servers.old, index, "snapshot", "create", "under-writes", *option)
        finally:
            ended.set()
            writer.join()
        assert made.stdout == "under-writes\n"
        house.settle()
    written = len(house.indexed())
    register(servers.new, index, servers, index)
    run(servers.new, index, "snapshot", "restore", "under-writes", *option)
    new = moved(house, servers.new)
    restored = len(new.indexed())
    assert 110 <= restored <= written - 20
    differences = verified(new)
    assert len(differences) == written - restored
    assert {each["what"] for each in differences} == {"missing"}
    assert new.synced().counts.stored == written - restored
    assert new.differing() == []
    assert verified(new) == []


def test_each_mistake_says_what_to_do(house: House, servers: Servers) -> None:
    index, url = house.settings.index, servers.old
    house.pictures(2)
    house.synced()
    missing = run(url, index, "snapshot", "create", "--repository", "nowhere", code=2)
    assert "no snapshot repository 'nowhere'" in missing.stderr
    for command in ("list", "restore"):
        assert run(url, index, "snapshot", command, "--repository", "nowhere", code=2).stderr == (
            missing.stderr
        )
    outside = run(url, index, "snapshot", "repository", "--location", "/elsewhere", code=1)
    assert "path.repo" in outside.stderr

    option = register(url, index, servers, index)
    empty = run(url, index, "snapshot", "restore", *option, code=2)
    assert "no complete snapshot" in empty.stderr
    assert "No snapshots" in run(url, index, "snapshot", "list", *option).stderr
    run(url, index, "snapshot", "create", "first", *option)
    twice = run(url, index, "snapshot", "create", "first", *option, code=2)
    assert "There is a snapshot 'first'" in twice.stderr
    second = run(url, index, "snapshot", "create", *option).stdout.strip()
    listed = run(url, index, "snapshot", "list", *option).stdout
    assert [line.split()[0] for line in listed.splitlines()] == ["first", second]
    other = run(url, index, "snapshot", "restore", "third", *option, code=2)
    assert f"choose one of first, {second}" in other.stderr

    there = run(url, index, "snapshot", "restore", *option, code=2)
    assert f"es-imgsearch drop --index {index}" in there.stderr
    run(url, index, "drop", "--yes")
    restored = run(url, index, "snapshot", "restore", *option)
    assert f"es-imgsearch sync --index {index} DIR..." in restored.stderr
    assert house.synced().counts.stored == 0
    assert house.differing() == []
    # Another index in the same repository has no snapshot there.
    assert run(url, f"{index}-b", "snapshot", "list", *option).stdout == ""
    none = run(url, f"{index}-b", "snapshot", "create", *option, code=2)
    assert f"no index '{index}-b'" in none.stderr
