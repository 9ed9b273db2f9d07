"""Circuit breakers of a real server answer 429, in every place, until there is memory again."""

from __future__ import annotations

import json
import logging

import pytest
from click.testing import CliRunner

from es_imgsearch import ImageSearch
from es_imgsearch.cli import main
from es_imgsearch.errors import StoreBusy
from tests.e2e.hard_days.conftest import OwnServer
from tests.support.house import House, until

pytestmark = pytest.mark.slow

WORDS = "too little memory for this now (circuit breaker '{}' with a limit of {}): give its nodes"


@pytest.fixture
def es_url(own_server: OwnServer) -> str:
    return own_server.url


def test_a_daemon_waits_for_memory_and_goes_on_by_itself(
    house: House, own_server: OwnServer, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.WARNING, "es_imgsearch")
    house.pictures(3)
    with house.watched() as daemon:
        house.settle()
        with own_server.having(indices__breaker__total__limit="1mb"):
            house.picture("new.png", 50)
            (house.folder / "000.png").unlink()
            until(lambda: "Waiting for it" in caplog.text)
            done = CliRunner(env={"ES_URL": own_server.url}).invoke(
                main, ["doctor", "--json", "--index", house.settings.index]
            )
        house.settle()
        assert daemon.error is None
    assert WORDS.format("parent", "1mb") in caplog.text
    assert caplog.text.count("Waiting for it") == 1
    # It said that nothing was wrong.
    assert done.exit_code in {1, 3}
    assert WORDS.format("parent", "1mb") in (
        done.output if done.exit_code == 3 else json.loads(done.stdout)["findings"][0]["text"]
    )


@pytest.mark.parametrize("mode", ["auto", "hybrid", "text"])
def test_a_search_without_memory_is_busy_and_not_wrong(
    house: House, own_server: OwnServer, mode: str
):
    """Within a multi-search it was "rejected", as if the query was wrong."""
    house.pictures(3)
    house.synced()
    with ImageSearch(settings=house.settings, encoder=house.encoder) as search:
        with (
            own_server.having(indices__breaker__request__limit="0.0002%"),
            pytest.raises(StoreBusy) as error,
        ):
            search.search_text("a cat", mode=mode)
        assert WORDS.format("request", "1kb") in str(error.value)
        assert len(search.search_text("a cat", mode="vector")) == 3
