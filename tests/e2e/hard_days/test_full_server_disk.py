"""The disk of Elasticsearch becomes full while pictures come, and is freed again."""

from __future__ import annotations

import json
import logging
import re

import pytest
from click.testing import CliRunner, Result

from es_imgsearch import ImageSearch
from es_imgsearch.cli import main
from es_imgsearch.manage.doctor.diagnosis import CHECKS
from es_imgsearch.manage.doctor.setup import SetUp
from tests.e2e.hard_days.conftest import OwnServer
from tests.support.house import House, until

pytestmark = pytest.mark.slow

# Elasticsearch looks at its disks every 10 s.
NOTICED_SECONDS = 60.0


@pytest.fixture
def es_url(own_server: OwnServer) -> str:
    return own_server.url


def run(house: House, *arguments: str, index: str = "") -> Result:
    given = house.settings
    environment = {"ES_URL": given.es_url, "IMGSEARCH_HOST": given.host}
    return CliRunner(env=environment).invoke(
        main, [*arguments, "--index", index or given.index], catch_exceptions=False
    )


def test_a_full_disk_is_waited_for_and_said_and_nothing_is_lost(
    house: House,
    own_server: OwnServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    caplog.set_level(logging.WARNING, "es_imgsearch")
    other = f"{house.settings.index}-other"
    generation = house.store.info().name
    house.pictures(5)
    with house.watched() as daemon:
        house.settle()
        own_server.fill_disk()
        until(lambda: house.store.info().blocks, NOTICED_SECONDS)
        house.picture("more/new.png", 50)
        (house.folder / "000.png").unlink()
        house.picture("001.png", 51)
        (house.folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
        until(lambda: "Waiting for it" in caplog.text)

        said = [each.getMessage() for each in caplog.records]
        (waiting,) = [each for each in said if "Waiting for it" in each]
        assert waiting.startswith("A disk of Elasticsearch is full, so that ")
        assert "free space there or add a node" in waiting
        assert "\n" not in waiting
        with ImageSearch(settings=house.settings, encoder=house.encoder) as search:
            assert len(search.search_text("a cat")) == 5
        assert "read-only" in run(house, "status").output
        done = run(house, "doctor", "--json")
        found = {each["check"]: each for each in json.loads(done.output)["findings"]}
        assert "flood stage watermark" in found["disks"]["text"]
        assert re.search(r"Free another [\d.]+ [MT]B there, or add a node", found["disks"]["text"])
        # To end the block by hand would help for seconds only.
        assert found["blocks"]["command"] == ""
        monkeypatch.setattr("es_imgsearch.elastic.client._SHARDS_WAIT", "2s")
        made = run(house, "init", "--encoder", "fake", index=other)
        assert made.exit_code == 3
        assert "Error: No node takes the shards of " in made.output
        assert daemon.error is None

        own_server.free_disk()
        house.settle(2 * NOTICED_SECONDS)
        assert "works again" in caplog.text
        assert daemon.error is None
    assert len(house.indexed()) == 5
    assert len(house.failed()) == 1
    assert house.store.info().name == generation
    assert "read-only" not in run(house, "status").output
    checks = {
        each["check"] for each in json.loads(run(house, "doctor", "--json").output)["findings"]
    }
    assert not checks & {"disks", "blocks"}
    try:
        assert run(house, "init", "--encoder", "fake", index=other).exit_code == 0
    finally:
        assert run(house, "drop", "--yes", index=other).exit_code == 0


def send(house: House, said: str) -> None:
    """Send the request that a message or a finding names, as Kibana's console would."""
    method, path, body = said[said.index("PUT ") :].split(" ", 2)
    house.store.connection.request(method, path, json.loads(body))


@pytest.mark.parametrize(
    "block",
    [
        "index.blocks.read_only",
        "index.blocks.write",
        "cluster.blocks.read_only",
    ],
)
def test_what_somebody_blocked_is_said_and_ended_as_it_says(
    house: House, own_server: OwnServer, block: str, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.WARNING, "es_imgsearch")
    generation = house.store.info().name
    house.pictures(2)
    with house.watched() as daemon:
        house.settle()
        whole = block.startswith("cluster")
        body = {"persistent": {block: True}} if whole else {block: True}
        path = "/_cluster/settings" if whole else f"/{generation}/_settings"
        house.store.connection.request("PUT", path, body)
        house.picture("new.png", 50)
        until(lambda: "Waiting for it" in caplog.text)
        (said,) = [each.getMessage() for each in caplog.records if "Waiting" in each.getMessage()]
        send(house, said.removesuffix(" Waiting for it; nothing is dropped."))
        house.settle(NOTICED_SECONDS)
        assert daemon.error is None


@pytest.mark.parametrize(
    ("check", "block"),
    [
        ("blocks", "index.blocks.read_only"),
        ("blocks", "index.blocks.read_only_allow_delete"),
        ("blocks", "index.blocks.read"),
        ("cluster", "cluster.blocks.read_only"),
        ("cluster", "cluster.blocks.read_only_allow_delete"),
    ],
)
def test_doctor_finds_what_somebody_blocked_and_its_advice_ends_it(
    house: House, check: str, block: str
):
    name = house.store.info().name
    body = {block: True} if check == "blocks" else {"persistent": {block: True}}
    path = f"/{name}/_settings" if check == "blocks" else "/_cluster/settings"
    house.store.connection.request("PUT", path, body)
    (found,) = CHECKS[check](SetUp(house.store, house.settings))
    send(house, found.command)
    assert not list(CHECKS[check](SetUp(house.store, house.settings)))
