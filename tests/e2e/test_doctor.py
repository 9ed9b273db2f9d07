"""`doctor`: each finding is made for real, and what it advises ends it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from es_imgsearch.cli import main
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.store import Store
from es_imgsearch.manage.doctor.diagnosis import CHECKS
from es_imgsearch.manage.doctor.machine import watches
from es_imgsearch.manage.doctor.setup import Finding, SetUp
from es_imgsearch.settings import Settings, load_settings
from tests.support.house import House, paint, until
from tests.support.server_process import started


def run(house: House, *arguments: str) -> Result:
    given = house.settings
    environment = {"ES_URL": given.es_url, "IMGSEARCH_HOST": given.host}
    return CliRunner(env=environment).invoke(
        main, [*arguments, "--index", given.index], catch_exceptions=False
    )


def findings(house: House, check: str) -> list[Finding]:
    return list(CHECKS[check](SetUp(house.store, house.settings)))


def carry_out(store: Store, request: str) -> None:
    """Send a request as Kibana's console would."""
    method, path, body = request.split(" ", 2)
    store.connection.request(method, path, json.loads(body))


def test_a_watched_index_has_no_faults(house: House):
    house.pictures(3)
    with house.watched():
        house.settle()
        done = run(house, "doctor")
    assert done.exit_code == 0
    assert done.output == f"Nothing is wrong, by {len(CHECKS)} checks.\n"


def test_an_index_that_is_missing_is_made_and_filled_as_it_says(
    real_store: Store, settings: Settings, tmp_path: Path
):
    runner, index = CliRunner(env={"ES_URL": settings.es_url}), ["--index", settings.index]
    done = runner.invoke(main, ["doctor", *index])
    assert done.exit_code == 1
    assert done.output.startswith(f"- There is no index '{settings.index}'")
    assert runner.invoke(main, ["init", "--encoder", "starter", *index]).exit_code == 0
    done = runner.invoke(main, ["doctor", "--json", *index])
    assert done.exit_code == 1
    (found,) = json.loads(done.output)["findings"]
    assert found == {
        "check": "state",
        "text": "Nothing is indexed yet: index a folder of pictures.",
        "command": f"es-imgsearch sync DIR {shlex.join(index)}",
    }
    paint(tmp_path / "a.png", 1)
    command = found["command"].replace("DIR", shlex.quote(str(tmp_path)))
    assert runner.invoke(main, shlex.split(command)[1:]).exit_code == 0
    done = runner.invoke(main, ["doctor", *index])
    assert "Nothing is indexed" not in done.output
    assert "no daemon notices new and changed files" in done.output


def test_a_server_that_is_away_is_an_error_and_no_finding():
    done = CliRunner(env={"ES_URL": "http://127.0.0.1:9"}).invoke(main, ["doctor"])
    assert done.exit_code == 3
    assert done.output.startswith("Error: ")


@pytest.mark.parametrize("block", ["read_only_allow_delete", "read_only"])
def test_a_read_only_index_is_written_again(house: House, block: str):
    name = house.store.info().name
    house.store.connection.request("PUT", f"/{name}/_settings", {f"index.blocks.{block}": True})
    (found,) = findings(house, "blocks")
    assert found.text.startswith(f"{name} is read-only: ")
    assert "blocks" in run(house, "doctor", "--json").output
    carry_out(house.store, found.command)
    assert not findings(house, "blocks")


def test_copies_that_no_node_takes_are_given_up(house: House):
    name = house.store.info().name
    settings = {"index.auto_expand_replicas": False, "index.number_of_replicas": 2}
    house.store.connection.request("PUT", f"/{name}/_settings", settings)
    (found,) = findings(house, "copies")
    assert found.text == (
        f"{name} shall have 3 copies of each shard, and 1 data node holds at most one each:"
        " add nodes, or:"
    )
    carry_out(house.store, found.command)
    assert not findings(house, "copies")


def test_a_missing_shard_is_found(house: House):
    name = f"{house.settings.index}-searches-000001"
    where = {"index.routing.allocation.require._name": "no such node", "number_of_replicas": 0}
    house.store.connection.request(
        "PUT",
        f"/{name}?wait_for_active_shards=0",
        {"settings": where, "aliases": {f"{house.settings.index}-searches": {}}},
    )
    (found,) = findings(house, "copies")
    assert found.text.startswith(f"{name}: 1 of 1 shards are missing")
    house.store.connection.request(
        "PUT", f"/{name}/_settings", {"index.routing.allocation.require._name": None}
    )
    until(lambda: not findings(house, "copies"))


def test_relevance_is_calibrated_as_it_says(house: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("es_imgsearch.manage.doctor.diagnosis._CALIBRATED_FROM", 60)
    house.pictures(59)
    house.synced()
    assert not findings(house, "relevance")
    house.picture("one more.png", 60)
    house.synced()
    (found,) = findings(house, "relevance")
    done = run(house, *shlex.split(found.command)[1:-2])
    assert done.exit_code == 0, done.output
    assert not findings(house, "relevance")


def test_vectors_that_the_page_cache_does_not_hold_are_made_smaller_as_it_says(house: House):
    house.pictures(100)
    house.synced()
    # 48 dims: 19,200 bytes as floats (profile exact), 9,200 in four bits with their graph.
    node = {
        "os": {"mem": {"adjusted_total_in_bytes": 12_000}},
        "jvm": {"mem": {"heap_max_in_bytes": 0}},
    }

    def of_small_nodes() -> SetUp:
        setup = SetUp(house.store, house.settings)
        setup.__dict__["nodes"] = [node]
        return setup

    (found,) = CHECKS["memory"](of_small_nodes())
    assert "reindex --profile compact" in found.text
    done = run(house, "reindex", "--profile", "compact")
    assert done.exit_code == 0, done.output
    assert not list(CHECKS["memory"](of_small_nodes()))


def test_more_folders_than_the_kernel_watches(house: House, tmp_path: Path):
    for n in range(4):
        house.picture(f"{n}/a.png", n)
    house.synced()
    limit = tmp_path / "fs" / "inotify" / "max_user_watches"
    limit.parent.mkdir(parents=True)
    limit.write_text("7\n")
    setup = SetUp(house.store, house.settings, proc=tmp_path)
    (found,) = watches(setup)
    assert "lie in 4 folders, and the kernel watches at most 7" in found.text
    _, value = shlex.split(found.command)[-1].split("=")
    limit.write_text(f"{value}\n")
    assert not list(watches(setup))


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Elasticsearch of this module, whose settings of the cluster a test may change."""
    with started(tmp_path_factory.mktemp("server"), "8", {}) as url:
        yield url


@pytest.mark.slow
@pytest.mark.parametrize("mark", ["low", "high", "flood_stage"])
def test_a_disk_below_a_watermark(own_server: str, mark: str):
    settings = load_settings({"es_url": own_server}, environment={})
    with connect(settings) as client:
        setting = "cluster.routing.allocation.disk.watermark"
        every = {f"{setting}.{each}": "1b" for each in ("low", "high", "flood_stage")}
        marks = ["low", "high", "flood_stage"]
        raised = {f"{setting}.{each}": "900tb" for each in marks[: marks.index(mark) + 1]}
        client.cluster.put_settings(persistent={**every, **raised})
        try:
            (found,) = CHECKS["disks"](SetUp(Store(client, "images"), settings))
            assert f"less than its {mark.replace('_', ' ')} watermark of" in found.text
            # As if there were more space.
            client.cluster.put_settings(persistent=every)
            assert not list(CHECKS["disks"](SetUp(Store(client, "images"), settings)))
        finally:
            client.cluster.put_settings(persistent=dict.fromkeys(every))
