"""Files that Elasticsearch takes neither as pictures nor as failures: seen, and tried once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from es_imgsearch.cli import main
from es_imgsearch.elastic.store import Store
from es_imgsearch.manage.status import index_status
from es_imgsearch.pipeline.sync import retried_indexer
from es_imgsearch.settings import Settings
from tests.support.house import House, compare_again, paint, until


@pytest.fixture
def house(real_store: Store, settings: Settings, tmp_path: Path) -> House:
    house = House(real_store, settings, tmp_path)
    house.pictures(2)
    (house.folder / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")
    return house


def failures_with(house: House, **properties: Any) -> None:
    """The index of failures as somebody made it anew, with other types."""
    name = house.store.connection.failures
    client = house.store.connection.client
    (index,) = client.indices.get_alias(name=name)
    aliases = client.indices.get_alias(index=index)[index]["aliases"]
    mapping = client.indices.get_mapping(index=index)[index]["mappings"]
    client.indices.delete(index=index)
    mapping["properties"] |= properties
    client.indices.create(index=index, mappings=mapping, aliases=aliases)


def counts(house: House) -> dict[str, Any]:
    found = index_status(house.store)
    return {"unstored": found["unstored"], "failures": found["failures"], **found["roots"]["r"]}


def test_a_failure_that_is_refused_is_stored_in_short(house: House):
    failures_with(house, folder={"type": "integer"})
    indexer = house.synced()
    assert (indexer.counts.stored, indexer.counts.failed) == (2, 1)
    house.store.refresh()
    (failure,) = house.store.listings.failures()
    assert failure["relative_path"] == "bad.jpg"
    assert failure["error_class"] == "truncated"
    assert failure["message"].startswith("What is known of its failure was refused. ")
    assert "[folder] of type [integer]" in failure["message"]
    assert house.synced().counts.failed == 0


def test_what_cannot_even_be_stored_as_a_failure_is_seen_and_not_tried_again(
    house: House, caplog: pytest.LogCaptureFixture
):
    failures_with(house, error_class={"type": "integer"})
    with house.watched() as daemon:
        until(lambda: daemon.indexer.counts.failed == 1)
        assert "bad.jpg in 'r' can be stored neither as a picture nor as a failure" in caplog.text
        for _ in range(2):
            compare_again(daemon)
            until(lambda: daemon.indexer.pipeline.in_flight == 0)
        assert daemon.indexer.counts.failed == 1
        until(lambda: counts(house)["unstored"] == 1)
    shown = counts(house)
    assert shown["unstored_example"] == "bad.jpg"
    assert "[error_class] of type [integer]" in shown["unstored_reason"]
    assert shown["failures"] == 0

    # Another process knows it from Elasticsearch.
    caplog.clear()
    indexer = house.synced()
    assert (indexer.counts.failed, indexer.unstored.count()) == (0, 1)
    assert "bad.jpg" not in caplog.text
    assert counts(house)["last_reconcile"]["new"] == 0

    # It changed: it is read again.
    (house.folder / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken otherwise")
    indexer = house.synced()
    assert (indexer.counts.failed, indexer.unstored.count()) == (1, 1)
    paint(house.folder / "bad.jpg", 7)
    indexer = house.synced()
    assert (indexer.counts.stored, indexer.unstored.count()) == (1, 0)
    assert counts(house)["unstored"] == 0


def test_what_could_not_be_stored_is_tried_again_on_request(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    # As `failures retry` does, which loads the encoder by its name.
    monkeypatch.setattr(
        "es_imgsearch.embed.index_encoder.load_encoder", lambda *_, **__: house.encoder
    )
    failures_with(house, error_class={"type": "integer"})
    assert house.synced().unstored.count() == 1
    failures_with(house, error_class={"type": "keyword"})
    assert house.synced().counts.failed == 0
    with retried_indexer(house.store, house.settings) as indexer:
        assert indexer.counts.failed == 1
        assert indexer.unstored.count() == 0
    house.store.refresh()
    (failure,) = house.store.listings.failures()
    assert failure["error_class"] == "truncated"
    assert counts(house)["unstored"] == 0


def test_the_commands_say_so(house: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "es_imgsearch.embed.index_encoder.load_encoder", lambda *_, **__: house.encoder
    )
    failures_with(house, error_class={"type": "integer"})
    given = ["--es-url", house.settings.es_url, "--index", house.settings.index]
    for failed in (1, 0):
        done = CliRunner().invoke(main, ["sync", str(house.folder), *given, "--json"])
        # A difference is left each time, however often it runs.
        assert done.exit_code == 1
        told = json.loads(done.stdout)
        assert (told["failed"], told["unstored"]) == (failed, 1)
    shown = CliRunner().invoke(main, ["status", *given]).stdout
    assert "1 file is neither indexed nor among the failures until changed" in shown
    assert "such as bad.jpg: Elasticsearch rejected the document" in shown
    failures_with(house, error_class={"type": "keyword"})
    CliRunner().invoke(main, ["failures", "retry", *given])
    assert "neither indexed" not in CliRunner().invoke(main, ["status", *given]).stdout
    assert CliRunner().invoke(main, ["sync", str(house.folder), *given]).exit_code == 0


def test_what_is_gone_is_not_counted_any_more(house: House):
    failures_with(house, error_class={"type": "integer"})
    assert house.synced().unstored.count() == 1
    (house.folder / "bad.jpg").unlink()
    assert house.synced().unstored.count() == 0
    assert counts(house)["unstored"] == 0
