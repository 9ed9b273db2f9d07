"""A cluster of three nodes loses some while pictures come and searches run."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from es_imgsearch import ImageSearch
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.meta_entries import ShardLayout
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import ImgSearchError
from es_imgsearch.manage.doctor.diagnosis import CHECKS
from es_imgsearch.manage.doctor.setup import Finding, SetUp
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import FakeEncoder
from tests.support.cluster import NAMES, Cluster
from tests.support.house import House, described, until

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 180.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def house(cluster: Cluster, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[House]:
    given = {
        "es_url": cluster.url,
        "es_ca_certs": cluster.ca,
        # One for each test.
        "index": f"photos{len(request.node.name)}",
        "read_workers": 1,
        "settle_seconds": 0.1,
        "request_timeout_seconds": 10,
        "describers": ["-text_in_image"],
    }
    settings = load_settings(given, environment={})
    store = Store(connect(settings), settings.index)
    meta = new_meta(seal_of(FakeEncoder()), "exact", "cosine")
    store.generations.create(meta, described(), layout=ShardLayout(shards=3))
    yield House(store, settings, tmp_path)
    store.connection.client.close()


class Beside:
    """What is done again and again in a thread, with a pause between."""

    pause_seconds: float

    def __init__(self) -> None:
        self.number = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @contextmanager
    def running(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self.end()
            self._thread.join()

    def end(self) -> None:
        """Begin nothing more."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(self.pause_seconds):
            self.act()
            self.number += 1

    def act(self) -> None:
        raise NotImplementedError


class Searching(Beside):
    """Searches one after another; how many failed, and the longest time until an answer."""

    pause_seconds = 0.05

    def __init__(self, search: ImageSearch) -> None:
        super().__init__()
        self.longest_seconds = 0.0
        self.failures: list[str] = []
        self._search = search

    def act(self) -> None:
        began = time.monotonic()
        try:
            hits = self._search.search_text("red", k=5)
        except ImgSearchError as error:
            self.failures.append(str(error))
        else:
            if len(hits) != 5:
                self.failures.append(f"{len(hits)} hits")
        self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)


class Arriving(Beside):
    """Pictures that arrive, ten a second."""

    pause_seconds = 0.1

    def __init__(self, house: House) -> None:
        super().__init__()
        self._house = house

    def act(self) -> None:
        self._house.picture(f"{self.number:05}.png", self.number)


def is_whole(cluster: Cluster) -> bool:
    health = cluster.health()
    return health["number_of_nodes"] == len(NAMES) and health["status"] == "green"


def test_nothing_is_lost_and_no_search_fails_while_nodes_go_and_come_back(
    cluster: Cluster, house: House, record_property
):
    house.pictures(20, "first")
    house.synced()
    until(lambda: is_whole(cluster), PATIENCE_SECONDS)
    layout = house.store.info().layout
    assert layout == ShardLayout(shards=3)
    assert not list(CHECKS["copies"](SetUp(house.store, house.settings)))
    search = ImageSearch(settings=house.settings, encoder=FakeEncoder())
    searching, arriving = Searching(search), Arriving(house)
    with search, house.watched(), searching.running(), arriving.running():
        # The master loses power, and comes back.
        master = cluster.master()
        cluster.kill(master)
        seen = arriving.number
        until(lambda: arriving.number > seen + 50)
        until(lambda: cluster.health()["number_of_nodes"] == 2, PATIENCE_SECONDS)
        cluster.start_node(master)
        until(lambda: is_whole(cluster), PATIENCE_SECONDS)
        # Each node in turn is stopped and started again.
        for name in NAMES:
            cluster.stop_node(name)
            # Until the others agree on a master, they answer with what was before.
            until(lambda: cluster.health()["number_of_nodes"] == 2, PATIENCE_SECONDS)
            cluster.start_node(name)
            until(lambda: is_whole(cluster), PATIENCE_SECONDS)
        arriving.end()
        house.settle(PATIENCE_SECONDS)
    figures = {
        "searches": searching.number,
        "failed": len(searching.failures),
        "longest_seconds": round(searching.longest_seconds, 1),
        "pictures": arriving.number + 20,
    }
    print(figures)
    record_property("figures", figures)
    assert searching.failures == []
    assert house.differing() == []
    assert house.store.listings.count() == arriving.number + 20


def findings(house: House) -> list[Finding]:
    """What `doctor` finds wrong with copies of the pictures themselves."""
    name = house.store.info().name
    found = CHECKS["copies"](SetUp(house.store, house.settings))
    return [each for each in found if each.text.startswith((f"{name} ", f"{name}:"))]


def carry_out(house: House, command: str) -> None:
    """Send a request that a finding advises, as in Kibana's console."""
    method, path, body = command.split(" ", 2)
    house.store.connection.request(method, path, json.loads(body))


def test_doctor_sees_copies_that_are_missing_and_its_advice_ends_it(cluster: Cluster, house: House):
    house.pictures(10)
    house.synced()
    name = house.store.info().name
    until(lambda: is_whole(cluster), PATIENCE_SECONDS)
    assert findings(house) == []

    def replicas(number: int) -> None:
        settings = {"index.auto_expand_replicas": False, "index.number_of_replicas": number}
        house.store.connection.request("PUT", f"/{name}/_settings", settings)

    for number, words in ((0, "the loss of a node loses pictures"), (3, "3 data nodes hold")):
        replicas(number)
        (finding,) = findings(house)
        assert words in finding.text
        carry_out(house, finding.command)
        until(lambda: not findings(house), PATIENCE_SECONDS)
    replicas(1)
    until(lambda: is_whole(cluster), PATIENCE_SECONDS)
    (gone, *_) = [each for each in NAMES if each != cluster.master()]
    cluster.kill(gone)
    until(lambda: cluster.health()["number_of_nodes"] == 2, PATIENCE_SECONDS)
    until(lambda: findings(house), PATIENCE_SECONDS)
    (finding,) = findings(house)
    assert "copies of shards are on no node" in finding.text
    method, path = finding.command.split()
    assert "explanation" in json.dumps(house.store.connection.request(method, path))
    cluster.start_node(gone)
    until(lambda: is_whole(cluster) and not findings(house), PATIENCE_SECONDS)
    # Without copies, a node that is gone takes pictures with it, and brings them back.
    replicas(0)
    shards = house.store.connection.request("GET", f"/_cat/shards/{name}?format=json")
    (holder, *_) = [each["node"] for each in shards if each["node"] != cluster.master()]
    cluster.kill(holder)
    until(lambda: any("are missing" in each.text for each in findings(house)), PATIENCE_SECONDS)
    cluster.start_node(holder)
    until(lambda: not any("missing" in each.text for each in findings(house)), PATIENCE_SECONDS)
    assert house.store.listings.count() == 10
