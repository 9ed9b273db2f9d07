"""The acceptance of `reindex`: real encoders and processes, searches and new files all along."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from house import described, paint, until
from test_watch_command import COMMAND, START_SECONDS, Service

from es_imgsearch import ImageSearch
from es_imgsearch.embed.protocol import Encoder
from es_imgsearch.mapping import new_meta
from es_imgsearch.sealing import seal_of
from es_imgsearch.settings import Settings
from es_imgsearch.store import Store

PHOTOGRAPHS = ("chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "astronaut.png")


@contextmanager
def repeated(step, pause_seconds: float = 0.0) -> Iterator[list[str]]:
    """Run `step(n)` again and again in a thread; what it raised is in the list."""
    stopping, errors = threading.Event(), []

    def run() -> None:
        n = 0
        while not stopping.wait(pause_seconds):
            try:
                step(n)
            except Exception as error:  # noqa: BLE001 - that is what is counted
                errors.append(f"{type(error).__name__}: {error}")
            n += 1

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield errors
    finally:
        stopping.set()
        thread.join(60)


def test_starter_to_timm_and_back(
    es_url: str,
    real_store: Store,
    settings: Settings,
    starter: Encoder,
    lite0: Path,
    photographs: Path,
    tmp_path: Path,
):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in PHOTOGRAPHS:
        shutil.copy(photographs / name, folder)
    for n in range(40):
        paint(folder / f"old-{n:03}.png", n)
    real_store.create(new_meta(seal_of(starter), "balanced", "cosine"), described())
    service = Service(es_url, real_store, folder)
    service.environment["ES_IMGSEARCH_POLL_SECONDS"] = "1"
    service.environment["ES_IMGSEARCH_MODELS_DIR"] = str(lite0.parent)
    settings = settings.model_copy(update={"models_dir": lite0.parent})
    timm = f"timm:tf_efficientnet_lite0@{lite0.name}"
    searches = 0

    def on_disk() -> list[str]:
        return sorted(path.name for path in folder.iterdir())

    def search(n: int) -> None:
        nonlocal searches
        name = PHOTOGRAPHS[n % len(PHOTOGRAPHS)]
        hit = client.search_image(folder / name, k=1)[0]
        assert hit.relative_path == name
        assert hit.score == pytest.approx(1.0, abs=1e-3)
        searches += 1

    def change(n: int) -> None:
        paint(folder / f"new-{n:03}.png", 1000 + n)
        if n % 4 == 1:
            (folder / f"new-{n:03}.png").rename(folder / f"moved-{n:03}.png")
        if n % 4 == 3:
            (folder / f"new-{n:03}.png").unlink()

    def built() -> int:
        unfinished = real_store.roles().next
        if unfinished is None:
            return 0
        one = real_store.at(unfinished)
        one.refresh()
        return one.count()

    with service.watch(), ImageSearch(settings=settings) as client:
        until(lambda: service.indexed() == on_disk(), START_SECONDS)
        with repeated(search, 0.1) as failed, repeated(change, 1.0) as unwritten:
            command = [COMMAND, "reindex", "--encoder", timm]
            killed = subprocess.Popen(
                command, env=service.environment, stderr=subprocess.PIPE, start_new_session=True
            )
            until(lambda: built() > 0, START_SECONDS)
            os.killpg(killed.pid, signal.SIGKILL)
            killed.communicate(timeout=30)
            done = service.run("reindex", "--json")
            assert done.returncode == 0, done.stderr
            there = json.loads(done.stdout)
            assert (there["switched"], there["missing"]) == (True, [])
            assert "Going on with" in done.stderr
            until(lambda: service.said().count("Watching ") == 2, START_SECONDS)
            until(lambda: any(n.startswith("new-") for n in service.indexed()))
            done = service.run("reindex", "--back", "--json")
            assert done.returncode == 0, done.stderr
            back = json.loads(done.stdout)
            assert (back["switched"], back["missing"]) == (True, [])
            until(lambda: service.said().count("Watching ") == 3, START_SECONDS)
        until(lambda: service.indexed() == on_disk(), START_SECONDS)
        assert service.run("verify", str(folder)).stdout == ""
    assert (failed, unwritten) == ([], [])
    assert searches > 20
    assert service.said().count("beginning again") == 2
    assert "Traceback" not in service.said()
    print(f"{searches} searches; {there} {back}")
