"""Sidecars that are slow to read hold up nothing else."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from es_imgsearch.elastic.store import Store
from es_imgsearch.pipeline import sidecar_changes
from es_imgsearch.settings import Settings
from tests.support.house import PATIENCE_SECONDS, House, until


def test_pictures_are_added_and_deleted_meanwhile(
    real_store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A sidecar on a share that does not answer: the daemon's loop read it itself."""
    house = House(real_store, settings, tmp_path)
    entered, go_on = threading.Event(), threading.Event()
    sidecar_fields = sidecar_changes.sidecar_fields

    def wait(path: str, **given: Any) -> dict[str, object]:
        entered.set()
        assert go_on.wait(PATIENCE_SECONDS)
        return dict(sidecar_fields(path, **given))

    monkeypatch.setattr(sidecar_changes, "sidecar_fields", wait)
    house.pictures(5)
    with house.watched() as daemon:
        house.settle()
        (house.folder / "000.json").write_text('{"title": "slow"}')
        try:
            assert entered.wait(PATIENCE_SECONDS)
            (house.folder / "001.png").unlink()
            house.picture("new.png", 100)
            until(lambda: ("r", "new.png") in house.indexed(), PATIENCE_SECONDS / 4)
            until(lambda: ("r", "001.png") not in house.indexed(), PATIENCE_SECONDS / 4)
        finally:
            go_on.set()
        until(lambda: daemon.indexer.counts.reused == 1)
        assert daemon.error is None
