"""Refresh is off during a first sync and an import, and on again whatever ended them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from es_imgsearch.cli import main
from es_imgsearch.elastic.state import REFRESH_OFF
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import StoreUnreachable
from es_imgsearch.manage.production import refreshing
from es_imgsearch.manage.production.refreshing import left_off, refresh_off, restore_refresh
from es_imgsearch.manage.transfer.export import export_pictures
from es_imgsearch.manage.transfer.importing import ImportOptions, import_pictures
from es_imgsearch.settings import Settings
from tests.support.house import House, paint, until


def interval(store: Store) -> str | None:
    """What is set now."""
    (body,) = store.connection.request("GET", f"/{store.index}/_settings").values()
    found: str | None = body["settings"]["index"].get("refresh_interval")
    return found


def set_interval(store: Store, value: str | None) -> None:
    body = {"index": {"refresh_interval": value}}
    store.connection.request("PUT", f"/{store.index}/_settings", body)


def run(settings: Settings, *arguments: str) -> Result:
    runner = CliRunner(env={"ES_URL": settings.es_url})
    return runner.invoke(main, [*arguments, "--index", settings.index])


def ignore(_text: str) -> None:
    pass


@pytest.fixture
def seen(house: House, monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The interval at each bulk of pictures."""
    found: list[str | None] = []
    embed = house.encoder.embed_images

    def looking(pixels: Any) -> Any:
        found.append(interval(house.store))
        return embed(pixels)

    monkeypatch.setattr(house.encoder, "embed_images", looking)
    return found


def test_a_first_sync_switches_it_off_and_the_next_does_not(house: House, seen: list[str | None]):
    house.pictures(3)
    done = run(house.settings, "sync", str(house.folder))
    assert done.exit_code == 0, done.output
    assert set(seen) == {"-1"}
    assert interval(house.store) == "1s"
    assert house.store.state.read(REFRESH_OFF) is None
    assert house.store.listings.count() == 3
    seen.clear()
    house.picture("more.png", 50)
    assert run(house.settings, "sync", str(house.folder)).exit_code == 0
    assert set(seen) == {"1s"}


@pytest.mark.parametrize("before", ["1s", "5s", "250ms", "1m", None])
def test_what_was_set_is_set_again(house: House, before: str | None):
    set_interval(house.store, before)
    with refresh_off(house.store, house.settings, ignore):
        assert interval(house.store) == "-1"
        assert not house.store.info().is_loading
    assert interval(house.store) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit, StoreUnreachable])
def test_an_error_ends_it_too(house: House, error: type[BaseException]):
    with pytest.raises(error), refresh_off(house.store, house.settings, ignore):
        raise error("now")
    assert interval(house.store) == "1s"
    assert house.store.state.read(REFRESH_OFF) is None


def test_what_somebody_set_meanwhile_stays(house: House):
    with refresh_off(house.store, house.settings, ignore):
        set_interval(house.store, "7s")
    assert interval(house.store) == "7s"


def test_who_switched_it_off_for_good_is_left_alone(house: House):
    set_interval(house.store, "-1")
    with refresh_off(house.store, house.settings, ignore):
        assert house.store.state.read(REFRESH_OFF) is None
    assert interval(house.store) == "-1"


def test_of_two_loads_the_first_restores_it(house: House):
    with refresh_off(house.store, house.settings, ignore):
        with refresh_off(house.store, house.settings, ignore):
            assert interval(house.store) == "-1"
        assert interval(house.store) == "-1"
        assert not restore_refresh(house.store)
    assert interval(house.store) == "1s"


def test_searches_see_new_pictures_meanwhile_and_it_is_said(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(refreshing, "REFRESH_SECONDS", 0.1)
    monkeypatch.setattr(refreshing, "_POLL_SECONDS", 0.05)
    monkeypatch.setattr(refreshing, "_NOTE_SECONDS", 0.0)
    notes: list[str] = []
    with refresh_off(house.store, house.settings, notes.append):
        house.pictures(2)
        house.synced()
        until(lambda: house.store.listings.count() == 2)
        until(lambda: notes)
    assert len(notes) == 1
    assert "searches see new pictures every" in notes[0]


def test_an_outage_at_its_end_is_mended_by_the_next(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    with monkeypatch.context() as patched, refresh_off(house.store, house.settings, ignore):

        def refuse(*_: object) -> None:
            raise StoreUnreachable("away")

        patched.setattr(refreshing, "_put_interval", refuse)
    assert interval(house.store) == "-1"
    assert "init --index" in caplog.text
    stored = house.store.state.read(REFRESH_OFF)
    assert stored is not None
    # As if its process had ended.
    expired = {**stored.document, "seen_at": "2020-01-01T00:00:00.000+00:00"}
    house.store.state.replace(REFRESH_OFF, expired, stored.version)
    assert restore_refresh(house.store)
    assert interval(house.store) == "1s"


def test_an_import_into_an_index_that_is_there(house: House, tmp_path: Path):
    house.pictures(4)
    house.synced()
    path = tmp_path / "x.parquet"
    export_pictures(house.store, path)
    found: list[str | None] = []
    done = import_pictures(
        house.store,
        house.settings,
        path,
        ImportOptions(),
        on_progress=lambda *_: found.append(interval(house.store)),
    )
    assert done.stored == 4
    assert set(found) == {"-1"}
    assert interval(house.store) == "1s"
    assert not house.store.info().is_loading


# -- killed processes --------------------------------------------------------------------------

LOAD = """
import sys, time
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.store import Store
from es_imgsearch.manage.production.refreshing import refresh_off
from es_imgsearch.manage.transfer.importing import ImportOptions, import_pictures
from es_imgsearch.settings import load_settings
from pathlib import Path
settings = load_settings({"es_url": sys.argv[1], "index": sys.argv[2], "lease_seconds": 2.0})
store = Store(connect(settings), settings.index)
def wait(*_):
    print("loading", flush=True)
    time.sleep(600)
import_pictures(store, settings, Path(sys.argv[3]), ImportOptions(), on_progress=wait)
"""


@pytest.fixture
def killed(house: House, tmp_path: Path) -> Iterator[Callable[[int], None]]:
    """Begins an import in a process, and ends it by a signal."""
    house.pictures(4)
    house.synced()
    path = tmp_path / "x.parquet"
    export_pictures(house.store, path)
    started: list[subprocess.Popen[str]] = []

    def kill(number: int) -> None:
        arguments = [sys.executable, "-c", LOAD, house.settings.es_url, house.settings.index]
        process = subprocess.Popen([*arguments, str(path)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        assert interval(house.store) == "-1"
        os.kill(process.pid, number)
        process.wait(30)

    yield kill
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


@pytest.mark.process
def test_ctrl_c_switches_it_on_again(house: House, killed: Callable[[int], None]):
    killed(signal.SIGINT)
    assert interval(house.store) == "1s"
    assert not left_off(house.store)


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_first_sync_that_is_stopped(
    real_store: Store, settings: Settings, tmp_path: Path, number: int
):
    """The command itself; the next one goes on, and all is found."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(300):
        paint(folder / f"{seed}.png", seed)
    assert run(settings, "init", "--encoder", "starter").exit_code == 0
    command = [str(Path(sys.executable).with_name("es-imgsearch")), "sync", str(folder)]
    environment = {**os.environ, "ES_URL": settings.es_url, "ES_IMGSEARCH_LEASE_SECONDS": "2"}
    process = subprocess.Popen(
        [*command, "--index", settings.index],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: interval(real_store) == "-1" or process.poll() is not None, 120)
        assert process.poll() is None
        process.send_signal(number)
        process.wait(60)
    finally:
        process.kill()
        process.wait()
    assert interval(real_store) == ("-1" if number == signal.SIGKILL else "1s")
    until(lambda: left_off(real_store) == (number == signal.SIGKILL))
    assert run(settings, "sync", str(folder)).exit_code == 0
    assert interval(real_store) == "1s"
    assert real_store.listings.count() == 300


@pytest.mark.process
@pytest.mark.parametrize("command", ["sync", "import", "init", "reindex"])
def test_after_a_kill_it_is_reported_and_the_next_command_mends_it(
    house: House, killed: Callable[[int], None], tmp_path: Path, command: str
):
    killed(signal.SIGKILL)
    assert interval(house.store) == "-1"
    until(lambda: left_off(house.store))
    # It is no import into a new index, which only that import completes.
    assert not house.store.info().is_loading
    shown = run(house.settings, "status")
    assert "left refresh off" in shown.output
    found = run(house.settings, "doctor")
    assert f"es-imgsearch init --index {house.settings.index}" in found.output
    assert run(house.settings, "search", "x", "--mode", "text").exit_code == 0
    given = {
        "sync": [str(house.folder)],
        "import": [str(tmp_path / "x.parquet")],
        "reindex": ["--profile", "balanced"],
    }
    done = run(house.settings, command, *given.get(command, []))
    assert done.exit_code == 0, done.output
    assert interval(house.store) == "1s"
    assert house.store.state.read(REFRESH_OFF) is None
    assert house.store.listings.count() == 4
    assert "left refresh off" not in run(house.settings, "status").output
