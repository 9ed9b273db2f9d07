"""Files that are no pictures are read once, however many there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from es_imgsearch.elastic.store import Store
from es_imgsearch.pipeline import acknowledge_stage, in_flight
from es_imgsearch.settings import Settings
from tests.support.house import House

LIMIT = 50
FILES = 60


def test_a_comparison_reads_only_those_beyond_the_limit(
    real_store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(in_flight, "REMEMBERED_FILES", LIMIT)
    # Each reading counts, also of a file that was read before.
    monkeypatch.setattr(acknowledge_stage, "MOST_NO_PICTURES", 0)
    house = House(real_store, settings.model_copy(update={"settle_seconds": 0.0}), tmp_path)
    for n in range(FILES):
        (house.folder / f"{n:02}.txt").write_text("words")
    indexer = house.indexer()
    counts = indexer.counts

    def read_by_comparison() -> int:
        before = counts.not_pictures
        indexer.reconcile(indexer.roots[0])
        assert indexer.pipeline.wait_idle(60)
        return counts.not_pictures - before

    try:
        assert read_by_comparison() == FILES
        for _ in range(3):
            assert read_by_comparison() == FILES - LIMIT
        # Files that are gone make room.
        for n in range(FILES - LIMIT):
            (house.folder / f"{n:02}.txt").unlink()
        reads = [read_by_comparison() for _ in range(4)]
        assert reads[0] <= FILES - LIMIT
        assert reads[2:] == [0, 0]
    finally:
        indexer.pipeline.close()
