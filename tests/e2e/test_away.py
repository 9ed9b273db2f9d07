"""A real Elasticsearch that is stopped, blocked or too busy while the daemon goes on.

It is a server of its own, which these tests may stop; its queue for writing holds two entries,
so that it really refuses some of what it is given.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from port_for import get_port

from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.mapping import index_body, new_meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import ImgSearchError, StoreBusy
from es_imgsearch.settings import Settings, load_settings
from es_imgsearch.testing import FakeEncoder
from tests.support.house import PATIENCE_SECONDS, House, compare_again, described, until
from tests.support.server_process import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.process]

START_SECONDS = 180.0
AWAY_SECONDS = 30.0
RECOVERY_SECONDS = 120.0
QUEUE_SIZE = 20
SHARDS = 6


class Server(ServerProcess):
    """An Elasticsearch that can be stopped and comes back with its data, at the same address."""

    def __init__(self, folder: Path, **given: object) -> None:
        super().__init__(folder)
        self._given = given
        self.port = get_port(None)
        self._transport_port = get_port(None, exclude_ports=[self.port])
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        given = {
            "http.port": self.port,
            "transport.port": self._transport_port,
            "thread_pool.write.size": 1,
            "thread_pool.write.queue_size": 2,
            # With its disk thresholds off (dev/elasticsearch.yml) a server lifts the blocks of a
            # full disk once by itself: at its first regular look at it, 30 s after the start.
            "cluster.info.update.interval": "1h",
            **self._given,
        }
        self.launch(given, {**os.environ, "ES_JAVA_OPTS": "-Xms512m -Xmx512m"})
        until(self._answers, START_SECONDS)

    def _answers(self) -> bool:
        self.check_running()
        try:
            Store(
                connect(load_settings({"es_url": self.url}, environment={})), "none"
            ).connection.version()
        except ImgSearchError:
            return False
        return True


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def settings(server: Server, index_name: str) -> Settings:
    return load_settings(
        {
            "es_url": server.url,
            "index": index_name,
            "read_workers": 1,
            "settle_seconds": 0.1,
            "batch_wait_ms": 5.0,
            "poll_seconds": 0.3,
            "queue_size": QUEUE_SIZE,
        },
        environment={},
    )


@pytest.fixture
def house(real_store: Store, settings: Settings, tmp_path: Path) -> House:
    return House(real_store, settings, tmp_path)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What the log says while a test runs, but for the files that are no pictures."""
    heard: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.addFilter(lambda record: not record.getMessage().startswith("Cannot be indexed: "))
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("es_imgsearch")
    logger.addHandler(handler)
    yield heard
    logger.removeHandler(handler)


def assert_told_once(told: list[str]) -> None:
    assert ["Waiting for it" in each for each in told] == [True, False], told
    assert "works again" in told[1], told


def embedded_by(house: House) -> list[bytes]:
    """The pixels of every picture that its encoder is given from now on."""
    seen: list[bytes] = []
    house.encoder.before_batch = lambda pictures: seen.extend(map(np.ndarray.tobytes, pictures))
    return seen


# -- away ------------------------------------------------------------------------------------


def test_the_server_is_away_for_half_a_minute(server: Server, house: House, told: list[str]):
    seen = embedded_by(house)
    house.pictures(40, "before")
    with house.watched(request_timeout_seconds=5.0) as daemon:
        house.settle()
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        # While it goes down, too.
        for n in range(100, 130):
            house.picture(f"during/{n}.png", n)
        stopping.join()
        (house.folder / "before/000.png").rename(house.folder / "moved.png")
        (house.folder / "before").rename(house.folder / "renamed")
        (house.folder / "renamed/001.png").unlink()
        (house.folder / "during/100.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
        for n in range(200, 240):
            house.picture(f"later/{n}.png", n)
        most = 0

        def is_half_a_minute_away() -> bool:
            nonlocal most
            most = max(most, daemon.indexer.pipeline.in_flight)
            return daemon.indexer.outage.seconds > AWAY_SECONDS

        until(is_half_a_minute_away, AWAY_SECONDS + PATIENCE_SECONDS)
        assert 1 <= most <= QUEUE_SIZE
        starting = threading.Thread(target=server.start)
        starting.start()
        # While it comes up, too.
        (house.folder / "renamed").rename(house.folder / "again")
        (house.folder / "later/200.png").rename(house.folder / "during/200.png")
        house.picture("during/101.png", 300)
        starting.join()
        house.picture("after.png", 301)
        until(lambda: daemon.indexer.outage.seconds == 0, RECOVERY_SECONDS)
        house.settle(RECOVERY_SECONDS)
        (house.folder / "after.png").unlink()
        house.settle()
        assert house.paused() is None
        assert daemon.stop()
    assert_told_once(told)
    assert len(seen) == len(set(seen)), "each content was embedded once"


def test_what_cannot_be_looked_for_is_not_taken_for_absent(real_store: Store):
    """A multi-get succeeds as a whole while a shard is nowhere."""
    for name in (real_store.index, real_store.connection.failures):
        nowhere = {
            "settings": {"routing.allocation.require._name": "nobody"},
            "aliases": {name: {}},
        }
        now = {"wait_for_active_shards": "0"}
        real_store.connection.request("PUT", f"/{name}-000001", nowhere, params=now)
    for look in (real_store.documents.content_ids, real_store.documents.attempts):
        with pytest.raises(StoreBusy, match="cannot read now"):
            look(["1"])
    anywhere = {"index.routing.allocation.require._name": None}
    names = f"{real_store.index},{real_store.connection.failures}"
    real_store.connection.request("PUT", f"/{names}/_settings", anywhere)
    health = {"wait_for_status": "yellow", "timeout": "60s"}
    real_store.connection.request("GET", f"/_cluster/health/{names}", params=health)
    assert real_store.documents.content_ids(["1"]) == real_store.documents.attempts(["1"]) == {}


# -- blocked ---------------------------------------------------------------------------------


@pytest.mark.parametrize("block", ["read_only_allow_delete", "write"])
def test_nothing_may_be_written_for_a_while(house: House, told: list[str], block: str):
    seen = embedded_by(house)
    paths = house.pictures(40)
    with house.watched() as daemon:
        house.settle()
        set_block(house.store, block, True)
        for n in range(100, 100 + 2 * QUEUE_SIZE):
            house.picture(f"new/{n}.png", n)
        house.picture("000.png", 200)
        (house.folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
        paths[1].rename(house.folder / "moved.png")
        for path in paths[2:5]:
            path.unlink()
        until(lambda: daemon.indexer.pipeline.in_flight == QUEUE_SIZE)
        # Searching works all the time; it must not be taken for the end.
        until(lambda: daemon.indexer.outage.seconds > 4)
        assert house.indexed().keys() == {("r", f"{n:03}.png") for n in range(40)}
        assert daemon.indexer.counts.deleted == 0
        set_block(house.store, block, None)
        house.settle()
        until(lambda: daemon.indexer.outage.seconds == 0)
        assert house.paused() is None
    assert_told_once(told)
    assert len(seen) == len(set(seen)), "each content was embedded once"
    written = versions(house.store)
    assert {name: times for name, times in written.items() if times > 1} == {"000.png": 2}


@pytest.mark.parametrize("block", ["read_only_allow_delete", "write"])
def test_nothing_may_be_deleted_for_a_while(house: House, told: list[str], block: str):
    paths = house.pictures(40)
    with house.watched() as daemon:
        house.settle()
        set_block(house.store, block, True)
        for path in paths[:5]:
            path.unlink()
        until(lambda: daemon.indexer.outage.seconds > 2)
        # Comparing goes on meanwhile, and what comes back is not deleted.
        house.picture("000.png", 0)
        compare_again(daemon)
        assert len(house.indexed()) == 40
        set_block(house.store, block, None)
        house.settle()
        until(lambda: daemon.indexer.outage.seconds == 0)
        assert daemon.indexer.counts.deleted == 4
    assert_told_once(told)


def test_a_failure_of_which_half_was_refused_is_counted_once(house: House):
    """Pictures may not be written, failures may: the one half passes, the other does not."""
    path = house.picture("a.png", 1)
    house.pictures(3, "more")
    with house.watched() as daemon:
        house.settle()
        set_block(house.store, "write", True, house.store.index)
        path.write_bytes(b"\x89PNG\r\n\x1a\nno more")
        until(lambda: daemon.indexer.outage.seconds > 2)
        set_block(house.store, "write", None, house.store.index)
        house.settle()
    (failure,) = house.store.listings.failures()
    assert failure["attempts"] == 1


def set_block(store: Store, block: str, value: bool | None, names: str = "") -> None:
    """As the server does when its disk is nearly full, or an operator."""
    names = names or f"{store.index},{store.connection.failures}"
    store.connection.request("PUT", f"/{names}/_settings", {f"index.blocks.{block}": value})


def versions(store: Store) -> dict[str, int]:
    """How often the document of each path was written."""
    store.refresh()
    body = {"size": 10_000, "_source": ["relative_path"], "version": True}
    answer = store.connection.request("POST", f"/{store.index}/_search", body)
    return {hit["_source"]["relative_path"]: hit["_version"] for hit in answer["hits"]["hits"]}


# -- too busy --------------------------------------------------------------------------------


def test_a_part_of_a_bulk_is_refused(real_store: Store, settings: Settings, tmp_path: Path):
    """Each shard's part has to find a place in the queue, which has two."""
    body = index_body(new_meta(seal_of(FakeEncoder()), "exact", "cosine"), described())
    body["settings"]["number_of_shards"] = SHARDS
    body["aliases"] = {real_store.index: {"is_write_index": True}}
    real_store.connection.request("PUT", f"/{real_store.index}-000001", body)
    house = House(real_store, settings, tmp_path)
    seen = embedded_by(house)
    before = refused(real_store)
    parts = []
    with house.watched(queue_size=200) as daemon:
        write = daemon.indexer._store.documents.write

        def listen(writes, **_):
            results = write(writes)
            busy = sum(isinstance(each, StoreBusy) for each in results.values())
            parts.append((busy, len(results)))
            return results

        daemon.indexer._store.documents.write = listen  # type: ignore[method-assign]
        house.pictures(400)
        house.settle(RECOVERY_SECONDS)
        assert daemon.indexer.counts.embedded == 400
    assert refused(real_store) > before
    assert any(0 < busy < all_of_it for busy, all_of_it in parts), parts
    assert sum(all_of_it - busy for busy, all_of_it in parts) == 400
    assert set(versions(real_store).values()) == {1}, "nothing was written twice"
    assert len(seen) == 400


def refused(store: Store) -> int:
    stats = store.connection.request("GET", "/_nodes/stats/thread_pool")["nodes"]
    return sum(node["thread_pool"]["write"]["rejected"] for node in stats.values())
