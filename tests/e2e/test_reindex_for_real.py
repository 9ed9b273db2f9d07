"""The acceptance of `reindex`: real encoders, with searches and new files all along."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from es_imgsearch import ImageSearch
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.embed.protocol import Encoder
from es_imgsearch.manage.reindex import go_back, reindex
from es_imgsearch.settings import Settings
from tests.e2e.test_reindex import Keeper
from tests.support.house import House, paint, until
from tests.support.reindexing import ids_on_disk, ids_served

PHOTOGRAPHS = ("chelsea.png", "coffee.png", "astronaut.png")


@contextmanager
def repeated(step: Callable[[int], None], pause_seconds: float) -> Iterator[list[str]]:
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
    real_store: Store,
    settings: Settings,
    starter: Encoder,
    lite0: Path,
    photographs: Path,
    tmp_path: Path,
):
    settings = settings.model_copy(update={"poll_seconds": 0.5, "models_dir": lite0.parent})
    real_store.generations.create(new_meta(seal_of(starter), "balanced", "cosine"))
    house = House(real_store, settings, tmp_path)
    for name in PHOTOGRAPHS:
        shutil.copy(photographs / name, house.folder)
    house.pictures(12)
    searches: list[str] = []

    def search(n: int) -> None:
        name = PHOTOGRAPHS[n % len(PHOTOGRAPHS)]
        hit = client.search_image(house.folder / name, k=1)[0]
        assert hit.relative_path == name
        assert hit.score == pytest.approx(1.0, abs=1e-3)
        searches.append(name)

    def change(n: int) -> None:
        path = house.folder / f"new-{n:03}.png"
        paint(path, 1000 + n)
        if n % 4 == 1:
            path.rename(house.folder / f"moved-{n:03}.png")
        elif n % 4 == 3:
            path.unlink()

    keeper = Keeper(house)
    try:
        until(lambda: len(ids_served(house)) == 15, 120)
        with (
            ImageSearch(settings=settings) as client,
            repeated(search, 0.05) as failed,
            repeated(change, 0.3) as unwritten,
        ):
            until(lambda: searches, 120)
            timm = settings.model_copy(
                update={"encoder": "timm:tf_efficientnet_lite0@efficientnet_lite0.pth"}
            )
            there = reindex(real_store, timm)
            until(lambda: len(keeper.generations) == 2 or keeper.error, 120)
            so_far = len(searches)
            until(lambda: len(searches) > so_far + 3, 120)
            back = go_back(real_store, settings)
            until(lambda: len(keeper.generations) == 3 or keeper.error, 120)
            so_far = len(searches)
            until(lambda: len(searches) > so_far + 3, 120)
        until(lambda: ids_served(house) == ids_on_disk(house), 120)
    finally:
        keeper.stop()
    assert (failed, unwritten) == ([], [])
    for done in (there, back):
        assert (done.switched, done.missing) == (True, ())
    assert real_store.info().meta.seal.fits(seal_of(starter))
    print(f"{len(searches)} searches, none failed; there: {there}; back: {back}")
