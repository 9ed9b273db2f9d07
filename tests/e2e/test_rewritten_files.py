"""A file that is rewritten faster than it is indexed holds up no other file and no command."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from es_imgsearch.elastic.store import Store
from es_imgsearch.pipeline import sync as sync_module
from es_imgsearch.pipeline.sync import sync
from es_imgsearch.settings import Settings
from tests.support.house import House, paint, until

# A camera writes no more after so many rounds, so that a test that fails ends.
MOST_ROUNDS = 400


class Camera:
    """Rewrites its still whenever the still is being embedded."""

    def __init__(self, house: House) -> None:
        self.rounds = 0
        self.still = house.folder / "still.png"
        self._seeds = count(1000)
        paint(self.still, next(self._seeds))
        house.encoder.before_batch = self._rewrite

    def _rewrite(self, _pixels: object) -> None:
        if self.rounds < MOST_ROUNDS:
            self.rounds += 1
            paint(self.still, next(self._seeds))


@pytest.fixture
def house(real_store: Store, settings: Settings, tmp_path: Path) -> House:
    return House(real_store, settings, tmp_path, "camera", "album")


def test_deletions_of_every_root_go_on(house: House):
    album = house.folders[1]
    for n in range(5):
        paint(album / f"{n}.png", n)
    with house.watched() as daemon:
        house.settle()
        camera = Camera(house)
        until(lambda: camera.rounds > 2)
        before = camera.rounds
        (album / "0.png").unlink()
        until(lambda: ("album", "0.png") not in house.indexed())
        assert camera.rounds < MOST_ROUNDS
        assert camera.rounds > before
        assert daemon.error is None
    house.encoder.before_batch = lambda _pixels: None
    with house.watched():
        house.settle()


def test_sync_ends_and_leaves_the_file_to_the_next_run(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(sync_module, "_UNSETTLED_SECONDS", 1.0)
    camera = Camera(house)
    paint(house.folders[1] / "0.png", 0)
    indexer = house.indexer()
    try:
        sync(indexer)
    finally:
        indexer.pipeline.close()
    assert 0 < camera.rounds < MOST_ROUNDS
    assert "1 file is still being written: run `sync` again later." in caplog.text
    assert house.indexed().keys() >= {("album", "0.png")}
    house.encoder.before_batch = lambda _pixels: None
    with house.watched():
        house.settle()
