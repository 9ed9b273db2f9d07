"""What tests of `reindex` share: a house whose encoders are found by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from house import House
from other_encoders import LOADERS, encoders_by_name

from es_imgsearch import ImageSearch
from es_imgsearch.cli import main
from es_imgsearch.indexer import sync
from es_imgsearch.migration import Migrated, reindex
from es_imgsearch.migration.next_generation import Wanted
from es_imgsearch.records import image_id
from es_imgsearch.settings import Settings
from es_imgsearch.store import Store
from es_imgsearch.testing import FakeEncoder


class Killed(BaseException):
    """As if the process ended here."""


def named_encoders(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeEncoder]:
    """Found by name as installed ones are; one of each, so that tests can count."""
    made = encoders_by_name()

    def load(name: str, **_given: object) -> FakeEncoder:
        return made[name]

    for module in LOADERS:
        monkeypatch.setattr(f"es_imgsearch.{module}.load_encoder", load)
    return made


def house_of(
    encoders: dict[str, FakeEncoder], store: Store, settings: Settings, folder: Path
) -> House:
    given = settings.model_copy(update={"poll_seconds": 0.3, "queue_size": 32})
    made = House(store, given, folder)
    made.encoder = encoders["fake"]
    return made


def synced(house: House) -> None:
    indexer = house.indexer()
    try:
        sync(indexer)
    finally:
        indexer.pipeline.close()


def to(house: House, encoder: str | None = None, **wanted: Any) -> Migrated:
    given = house.settings.model_copy(update={"encoder": encoder})
    return reindex(house.store, given, Wanted(**wanted))


def client(house: House) -> ImageSearch:
    return ImageSearch(settings=house.settings)


def ids_on_disk(house: House) -> set[str]:
    return {
        image_id("r", str(path.relative_to(house.folder))) for path in house.folder.rglob("*.png")
    }


def ids_served(house: House) -> set[str]:
    return ids_in(house.store)


def ids_in(store: Store) -> set[str]:
    store.refresh()
    hits = store.search({"query": {"exists": {"field": "image_embedding"}}, "size": 10_000})
    return {hit["_id"] for hit in hits.get("hits", {}).get("hits", ())}


def run(house: House, *arguments: str, code: int = 0) -> Result:
    where = ["--index", house.settings.index, "--es-url", str(house.settings.es_url)]
    result = CliRunner().invoke(main, [arguments[0], *where, *arguments[1:]])
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    return result
