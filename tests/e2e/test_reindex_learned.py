"""What is learned of vectors, while the generation that has them is exchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from es_imgsearch.codes.storage import load_coder
from es_imgsearch.elastic.mapping import VECTOR_FIELD, Companion
from es_imgsearch.elastic.meta_entries import CODE_FIELD, CodesEntry, Curve
from es_imgsearch.elastic.queries import parse_vector
from es_imgsearch.elastic.requests import info_request
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import GenerationSwitched, IndexConflict, IndexMissing
from es_imgsearch.manage.reindex import go_back, reindex
from es_imgsearch.manage.reindex.run import ReindexResult
from es_imgsearch.manage.reindex.target import ReindexOptions
from es_imgsearch.manage.status import index_status
from es_imgsearch.quality.calibrate import calibrate
from es_imgsearch.quality.code_training import train_codes
from es_imgsearch.quality.tune import tune
from es_imgsearch.search.relevance import IMAGE
from es_imgsearch.testing import remove_index
from tests.support.house import House
from tests.support.reindexing import client, synced, to

# -- codes, and what else is learned of vectors --------------------------------------------------


def wrong_codes(store: Store) -> list[str]:
    """Ids of pictures without the code that the index's coder makes of their vector."""
    store.refresh()
    coder = load_coder(store, store.info().meta)
    assert coder is not None
    pages = store.listings.pages(
        [], fields=["image_id", CODE_FIELD], vectors=[VECTOR_FIELD], size=1000
    )
    return [
        hit["_source"]["image_id"]
        for hits in pages
        for hit in hits
        if hit["_source"].get(CODE_FIELD) != coder.code(parse_vector(hit["fields"][VECTOR_FIELD]))
    ]


@pytest.fixture
def with_codes(house: House) -> Iterator[House]:
    house.pictures(24)
    synced(house)
    yield house
    remove_index(house.store, Companion.CODES.alias(house.store.index))


def test_the_way_back_gives_new_pictures_codes(with_codes: House, encoders: dict):
    house = with_codes
    trained = train_codes(client(house), "lsh", bits=48).entry
    to(house, "twin")
    # Codes of other vectors are of no use.
    assert house.store.info().meta.codes is None
    house.encoder = encoders["twin"]
    house.picture("new.png", 500)
    synced(house)
    go_back(house.store, house.settings)
    assert house.store.info().meta.codes == trained
    assert wrong_codes(house.store) == []
    assert index_status(house.store)["codes"]["missing"] == 0


def test_codes_trained_meanwhile_are_carried_to_the_same_vectors(with_codes: House):
    house = with_codes
    trained: list[CodesEntry] = []

    def train(text: str) -> None:
        if "pictures are in" in text:
            trained.append(train_codes(client(house), "lsh", bits=48).entry)

    assert reindex(
        house.store, house.settings, ReindexOptions(profile="compact"), note=train
    ).switched
    assert house.store.info().meta.codes == trained[0].elsewhere()
    assert wrong_codes(house.store) == []
    # Of the one before it was known that it has none; now they are those.
    house.picture("new.png", 500)
    synced(house)
    again = train_codes(client(house), "lsh", bits=48).entry
    go_back(house.store, house.settings)
    assert house.store.info().meta.codes == again.elsewhere()
    assert wrong_codes(house.store) == []


def test_a_lost_coder_stops_no_reindex(with_codes: House, caplog: pytest.LogCaptureFixture):
    store = with_codes.store
    entry = train_codes(client(with_codes), "lsh", bits=48).entry
    place = f"/{Companion.CODES.alias(store.index)}/_doc/{entry.hash}"
    store.connection.request("DELETE", place, params={"refresh": "true"})
    assert to(with_codes, profile="compact").switched
    assert "train its codes anew" in caplog.text
    assert index_status(store)["codes"]["missing"] == 24


def test_a_coder_for_other_vectors_is_refused(with_codes: House):
    store = with_codes.store
    train_codes(client(with_codes), "lsh", bits=48)
    meta = store.info().meta
    for_others = replace(meta, seal=replace(meta.seal, dims=64))
    with pytest.raises(IndexConflict, match=r"vectors of 48 dims.* has 64: train"):
        load_coder(store, for_others)


# -- what takes long stays in one generation -----------------------------------------------------


def tuned(house: House, switch: Callable[[], None]) -> None:
    tune(house.store, queries=10, on_point=lambda _point: switch())


def calibrated(house: House, switch: Callable[[], None]) -> None:
    def curves(*_given: object) -> dict[str, Curve]:
        switch()
        return {IMAGE: Curve(0.0, 1.0, 0.0)}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("es_imgsearch.quality.calibrate._derive_curves", curves)
        calibrate(client(house))


def trained(house: House, switch: Callable[[], None]) -> None:
    train_codes(client(house), "lsh", on_page=lambda _seen, _changed: switch())


@pytest.mark.parametrize("work", [tuned, calibrated, trained])
def test_a_switch_while_it_runs_is_told_and_writes_nothing_of_it(
    house: House, encoders: dict, work: Callable[[House, Callable[[], None]], None]
):
    house.pictures(32)
    synced(house)
    done: list[ReindexResult] = []

    def switch() -> None:
        if not done:
            done.append(to(house, "twin"))

    try:
        with pytest.raises(GenerationSwitched, match=r"switched to another .* ran: run it again"):
            work(house, switch)
        assert done
        assert done[0].switched
        meta = house.store.info().meta
        assert (meta.seal.name, meta.tuning.tuned_at) == ("twin", None)
        assert (dict(meta.relevance), meta.codes) == ({}, None)
        with pytest.raises(IndexMissing):
            house.store.send(info_request(Companion.BACKGROUND.alias(house.store.index)))
    finally:
        remove_index(house.store, Companion.CODES.alias(house.store.index))
