"""What tests of `reindex` share: steps in a house whose encoders are found by name."""

from __future__ import annotations

from typing import Any

from click.testing import CliRunner, Result

from es_imgsearch import ImageSearch
from es_imgsearch.cli import main
from es_imgsearch.elastic.store import Store
from es_imgsearch.manage.reindex import reindex
from es_imgsearch.manage.reindex.run import ReindexResult
from es_imgsearch.manage.reindex.target import ReindexOptions
from es_imgsearch.pipeline.sync import sync
from es_imgsearch.records import image_id
from tests.support.house import House


class Killed(BaseException):
    """As if the process ended here."""


def numbered(name: str) -> str:
    """The name of a generation without the random digits at its end."""
    return name.rpartition("-")[0]


def synced(house: House) -> None:
    indexer = house.indexer()
    try:
        sync(indexer)
    finally:
        indexer.pipeline.close()


def to(house: House, encoder: str | None = None, **wanted: Any) -> ReindexResult:
    given = house.settings.model_copy(update={"encoder": encoder})
    return reindex(house.store, given, ReindexOptions(**wanted))


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
    hits = store.searches.search(
        {"query": {"exists": {"field": "image_embedding"}}, "size": 10_000}
    )
    return {hit["_id"] for hit in hits.get("hits", {}).get("hits", ())}


def run(house: House, *arguments: str, code: int = 0) -> Result:
    where = ["--index", house.settings.index, "--es-url", str(house.settings.es_url)]
    result = CliRunner().invoke(main, [arguments[0], *where, *arguments[1:]])
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    return result
