"""`drop` deletes everything of one index, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from es_imgsearch.cli import main
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import AlreadyRunning, IndexMissing
from es_imgsearch.manage.drop import belongings, drop_index
from es_imgsearch.search.search_log import create_searches_index
from es_imgsearch.settings import Settings
from es_imgsearch.testing import remove_index
from tests.support.house import House


def run(store: Store, settings: Settings, *arguments: str) -> Result:
    environment = {"ES_URL": settings.es_url, "ES_IMGSEARCH_INDEX": store.index}
    return CliRunner(env=environment).invoke(main, list(arguments))


def names(store: Store, pattern: str) -> set[str]:
    client = store.connection.client
    indices = set(client.indices.get(index=pattern, expand_wildcards="all"))
    templates = client.indices.get_index_template()["index_templates"]
    start = pattern.rstrip("*")
    return indices | {each["name"] for each in templates if each["name"].startswith(start)}


@pytest.fixture
def house(real_store: Store, settings: Settings, tmp_path: Path) -> House:
    house = House(real_store, settings, tmp_path)
    house.pictures(3)
    house.synced()
    return house


def test_everything_of_the_index_goes_and_the_files_stay(house: House):
    store = house.store
    create_searches_index(store)
    listed = belongings(store)
    assert sum(each.documents for each in listed) >= 3
    assert all(each.size_bytes > 0 for each in listed)
    done = run(store, house.settings, "drop", "--yes")
    assert done.exit_code == 0, done.output
    for each in listed:
        assert f"{each.name}: " in done.stderr
    assert names(store, f"{store.index}*") == set()
    assert len(list(house.folder.iterdir())) == 3
    again = run(store, house.settings, "drop", "--yes")
    assert again.exit_code == 2
    assert "nothing was deleted" in again.stderr


def test_an_index_of_a_name_that_begins_alike_stays(house: House, settings: Settings):
    longer = settings.model_copy(update={"index": f"{settings.index}-codes2"})
    other = Store(connect(longer), longer.index)
    home = house.folder.parent / "other"
    home.mkdir()
    foreign = f"{settings.index}-000009"
    client = other.connection.client
    try:
        neighbour = House(other, longer, home)
        neighbour.pictures(2)
        neighbour.synced()
        client.indices.create(index=foreign)
        drop_index(house.store)
        assert len(neighbour.indexed()) == 2
        assert client.indices.exists(index=foreign)
    finally:
        client.indices.delete(index=foreign, ignore_unavailable=True)
        remove_index(other)
        client.close()


def test_it_asks_first(house: House):
    done = run(house.store, house.settings, "drop")
    assert done.exit_code == 2
    assert "Add --yes" in done.stderr
    assert len(house.indexed()) == 3
    assert run(house.store, house.settings, "drop", "--yes").exit_code == 0


def test_a_running_daemon_is_in_the_way(house: House):
    with house.watched():
        house.settle()
        with pytest.raises(AlreadyRunning, match="stop it"):
            drop_index(house.store)
    assert len(house.indexed()) == 3
    drop_index(house.store)


def test_what_an_interrupted_drop_left_is_deleted(house: House):
    store = house.store
    (serving,) = [each.name for each in belongings(store) if each.documents == 3]
    store.connection.client.indices.delete(index=serving)
    left = belongings(store)
    assert left
    assert drop_index(store) == left
    with pytest.raises(IndexMissing):
        drop_index(store)


def test_an_index_without_its_templates_is_deleted(house: House):
    """As of a restore that was refused before it made them."""
    client, index = house.store.connection.client, house.store.index
    for each in names(house.store, f"{index}*"):
        if client.indices.exists_index_template(name=each):
            client.indices.delete_index_template(name=each)
    done = run(house.store, house.settings, "drop", "--yes")
    assert done.exit_code == 0, done.output
    assert names(house.store, f"{index}*") == set()
