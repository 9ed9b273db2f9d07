"""What `status` knows of a daemon that runs somewhere else."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from es_imgsearch.cli import main
from es_imgsearch.elastic.mapping import Companion
from es_imgsearch.elastic.meta_entries import Tuning
from es_imgsearch.elastic.state import daemon_id
from es_imgsearch.elastic.store import Store
from es_imgsearch.manage.status import index_status
from es_imgsearch.pipeline.heartbeat import Heartbeat
from es_imgsearch.pipeline.sync import sync
from es_imgsearch.settings import Settings
from tests.support.house import House, Proxy, until


@pytest.fixture
def house(real_store: Store, settings: Settings, tmp_path: Path) -> House:
    return House(real_store, settings, tmp_path)


def root(house: House) -> dict:
    return index_status(house.store)["roots"]["r"]


def test_a_daemon_and_its_last_comparison_are_told(house: House):
    assert index_status(house.store)["roots"] == {}
    house.pictures(6)
    with house.watched():
        until(lambda: root(house)["last_reconcile"])
        found = root(house)
        assert found["last_reconcile"] | {"seconds": 0, "ended_at": ""} == {
            "new": 6, "changed": 0, "lost": 0, "unknown": 0, "unreadable": 0, "seconds": 0,
            "ended_at": "", "left_out": {}, "left_out_by": {},
        }  # fmt: skip
        assert found["watched_by"]["process_id"] == os.getpid()
        assert found["watched_by"]["host"] == house.settings.host
        house.settle()
        lag = root(house)["lag_ms"]
        assert lag["pictures"] == 6
        assert 0 <= lag["p50"] <= lag["p95"] < 60_000
        assert root(house)["last_indexed_at"] is not None
    after = root(house)
    assert after["watched_by"] is None
    assert after["queue"] is None
    assert after["last_reconcile"]["new"] == 6


def test_files_on_their_way_are_the_queue(house: House):
    embedding = threading.Event()
    house.encoder.before_batch = lambda _: embedding.wait()
    house.pictures(9)
    try:
        with house.watched():
            until(lambda: (root(house)["queue"] or 0) > 0)
            assert root(house)["queue"] <= 9
            embedding.set()
            house.settle()
    finally:
        embedding.set()


def test_sync_tells_what_it_compared(house: House):
    house.pictures(3)
    indexer = house.indexer()
    try:
        sync(indexer)
    finally:
        indexer.pipeline.close()
    found = root(house)
    assert found["last_reconcile"]["new"] == 3
    assert found["watched_by"] is None


def heartbeat(house: House) -> Heartbeat:
    indexer = house.indexer()
    indexer.pipeline.close()
    return indexer.heartbeat()


def test_a_daemon_that_takes_over_is_not_sent_away(house: House):
    state = house.store.state
    first = heartbeat(house)
    first._closing.clear()
    first.start()
    state.update(
        daemon_id("r"), lambda lease: {**(lease or {}), "token": "another's", "process_id": -1}
    )
    first.release()
    first.join(30.0)
    assert root(house)["watched_by"]["process_id"] == -1
    state.delete(daemon_id("r"))
    assert root(house)["watched_by"] is None


def test_telling_waits_for_nobody(house: House, es_url: str):
    proxy = Proxy(int(es_url.rpartition(":")[2]))
    house.pictures(2)
    try:
        with house.watched(url=f"http://127.0.0.1:{proxy.port}", shutdown_seconds=1.0) as daemon:
            house.settle()
            proxy.hold()
            assert daemon.stop(seconds=30.0)
    finally:
        proxy.close()
    # It could not say that it left; the time it was seen last tells.
    assert root(house)["watched_by"]["seen_at"]


def test_status_in_words(house: House):
    house.pictures(2)
    with house.watched():
        house.settle()
        until(lambda: root(house)["last_reconcile"])
        given = ["--index", house.settings.index, "--es-url", house.settings.es_url]
        told = CliRunner().invoke(main, ["status", *given]).stdout
        as_json = json.loads(CliRunner().invoke(main, ["status", *given, "--json"]).stdout)
    assert f"watched by process {os.getpid()} on {house.settings.host}" in told
    assert "2 new, 0 changed, 0 gone" in told
    assert "(median)" in told
    assert as_json["roots"]["r"]["last_reconcile"]["new"] == 2


@pytest.mark.parametrize(("tuned_among", "again"), [(2, True), (3, False)])
def test_an_index_that_has_outgrown_its_tuning_says_so(house: House, tuned_among: int, again: bool):
    house.pictures(10)
    with house.watched():
        house.settle()
    given = ["--index", house.settings.index, "--es-url", house.settings.es_url]
    assert "not tuned to these pictures" in CliRunner().invoke(main, ["status", *given]).stdout
    tuning = Tuning(
        num_candidates=70, pictures=tuned_among, target_recall=0.95, tuned_at="2026-01-01T00:00"
    )
    house.store.generations.update_meta(lambda meta: replace(meta, tuning=tuning))
    assert index_status(house.store)["tune_again"] is again
    told = CliRunner().invoke(main, ["status", *given]).stdout
    assert f"weigh 70 candidates, tuned among {tuned_among} pictures for a recall of 0.95" in told
    assert ("tune again" in told) is again


def test_a_daemon_that_was_killed_is_not_shown_as_alive(house: House):
    first = heartbeat(house)
    first._closing.clear()
    first.start()
    assert root(house)["watched_by"]["is_alive"]
    assert root(house)["queue"] == 0
    with first._lease._claim._lock:
        first._lease._claim._held.clear()  # so that nothing is released
    first.release()
    first.join(30.0)
    house.store.state.update(
        daemon_id("r"), lambda lease: {**(lease or {}), "seen_at": "2020-01-01T00:00:00+00:00"}
    )
    found = root(house)
    assert not found["watched_by"]["is_alive"]
    assert found["queue"] is None
    assert found["watched_by"]["queue"] == 0


def test_sync_does_not_fail_for_what_status_would_show(
    house: House, caplog: pytest.LogCaptureFixture
):
    house.pictures(2)
    indexer = house.indexer()
    try:
        sync(indexer)
        block = {"index.blocks.write": True}
        house.store.connection.request(
            "PUT", f"/{Companion.STATE.alias(house.store.index)}/_settings", block
        )
        try:
            sync(indexer)
        finally:
            block = {"index.blocks.write": None}
            house.store.connection.request(
                "PUT", f"/{Companion.STATE.alias(house.store.index)}/_settings", block
            )
    finally:
        indexer.pipeline.close()
    assert "so `status` does not show them" in caplog.text
