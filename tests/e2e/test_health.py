"""/healthz of a running daemon: what it says is so, and soon."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.pipeline.reporting.metrics import MetricsServer
from tests.support.house import House, Proxy, until

pytestmark = pytest.mark.process

Health = Callable[[], tuple[int, dict[str, Any]]]


@contextmanager
def health_of(indexer: Indexer) -> Iterator[Health]:
    server = MetricsServer(indexer, 0)

    def health() -> tuple[int, dict[str, Any]]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/healthz") as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    try:
        yield health
    finally:
        server.close()


@pytest.mark.parametrize("how", ["refused", "held"])
def test_an_outage_shows_while_nothing_is_to_be_stored(house: House, proxy: Proxy, how: str):
    """Within 15 seconds; it took 60 after the next poll, and up to 60 more for no answer."""
    house.pictures(3)
    url = f"http://127.0.0.1:{proxy.port}"
    with (
        house.watched(url=url, poll_seconds=600.0) as daemon,
        health_of(daemon.indexer) as health,
    ):
        house.settle()
        status, body = health()
        assert (status, body["status"], body["outage_seconds"]) == (200, "ok", 0.0)
        (proxy.refuse if how == "refused" else proxy.hold)()
        began = time.monotonic()
        # Not at once: a busy server does not answer for some seconds.
        assert health()[0] == 200
        until(lambda: health()[0] == 503, 15)
        assert time.monotonic() - began > 5
        assert health()[1]["outage_seconds"] >= 10
        (proxy.accept_again if how == "refused" else proxy.let_go)()
        until(lambda: health()[0] == 200, 15)
        assert health()[1]["outage_seconds"] == 0.0


def test_a_pause_that_was_lifted_elsewhere_is_gone_from_it(house: House):
    """Within seconds, not at the next poll."""
    paths = house.pictures(40)
    with house.watched(poll_seconds=600.0) as daemon, health_of(daemon.indexer) as health:
        house.settle()
        for path in paths[:30]:
            path.unlink()
        until(house.paused)
        until(lambda: health()[1]["deletions_paused"] == ["r"])
        assert not house.synced(allow_deletes=True).paused
        until(lambda: health()[1]["deletions_paused"] == [], 15)
        house.settle()
        assert len(house.indexed()) == 10
