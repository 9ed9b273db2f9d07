"""An index that is deleted and made again under the same name, under processes that use it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from es_imgsearch import AsyncImageSearch, ImageSearch
from es_imgsearch.describe.registry import describer_mappings
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import VECTOR_FIELD, new_meta
from es_imgsearch.elastic.naming import failures_generation
from es_imgsearch.elastic.state import deletions_id
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import EncoderMismatch, ImgSearchError, IndexMissing, IndexReplaced
from es_imgsearch.manage.init import create_index
from es_imgsearch.testing import FakeEncoder
from tests.support.house import House, Running, until
from tests.support.reindexing import run, synced

pytestmark = [
    pytest.mark.es,
    # The thread of a daemon ends with its error.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]
PICTURES = 30


def remove(house: House) -> str:
    """Delete the index and its failures, as by hand; return the name of the index."""
    name = house.store.generations.roles().serving
    for each in (name, failures_generation(house.store.index, name)):
        house.store.connection.request("DELETE", f"/{each}")
    return name


def remake(house: House, encoder: FakeEncoder, *, fill: bool = False) -> str:
    """Make the index again, for another encoder of the same dims."""
    before = remove(house)
    house.encoder = encoder
    meta = new_meta(seal_of(encoder), "exact", "cosine")
    house.store.generations.create(meta, describer_mappings())
    if fill:
        synced(house)
    return before


def ended(running: Running) -> ImgSearchError:
    until(lambda: running.error is not None)
    assert isinstance(running.error, ImgSearchError)
    return running.error


def pictures_noted(house: House) -> int:
    read = house.store.state.read(deletions_id("r"))
    return 0 if read is None else read.document["body"]["pictures"]


@pytest.fixture
def running(house: House) -> Iterator[Running]:
    """A daemon that does not ask which generation serves while a test runs."""
    house.pictures(3)
    made = Running(house.indexer(poll_seconds=3600.0))
    try:
        made.wait_ready()
        house.settle()
        # The last request of the first comparison: a later one would find no index while a test
        # makes it again, and the daemon would end for that.
        until(lambda: pictures_noted(house) == 3)
        yield made
    finally:
        made.daemon.stop()
        made._thread.join(40)


def check_told(error: ImgSearchError, house: House) -> None:
    assert isinstance(error, IndexReplaced)
    assert "was deleted and made again" in str(error)
    assert "Start" in str(error)
    assert house.indexed() == {}
    assert house.failed() == {}


class TestDaemon:
    """A daemon of the index before ends, and nothing of it reaches the new one."""

    def test_no_vector_of_the_old_encoder_is_written(self, house, running, encoders):
        remake(house, encoders["twin"])
        house.picture("new.png", 50)
        check_told(ended(running), house)

    def test_no_failure_is_written(self, house, running, encoders):
        remake(house, encoders["twin"])
        (house.folder / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        check_told(ended(running), house)

    def test_a_comparison_notices_it(self, house, running, encoders):
        remake(house, encoders["twin"])
        running.daemon._watched[0].request_comparison()
        check_told(ended(running), house)

    def test_nothing_is_deleted(self, house, running, encoders):
        remake(house, encoders["twin"])
        # By another process, in the new index.
        synced(house)
        assert len(house.indexed()) == 3
        (house.folder / "000.png").unlink()
        error = ended(running)
        assert isinstance(error, IndexReplaced)
        assert len(house.indexed()) == 3

    def test_the_poll_notices_it(self, house, running, encoders):
        remake(house, encoders["twin"])
        with pytest.raises(IndexReplaced, match="was deleted and made again"):
            running.daemon._poll()


def test_an_index_that_is_gone_is_told_as_before(house, running):
    remove(house)
    house.picture("new.png", 50)
    error = ended(running)
    assert not isinstance(error, IndexReplaced)
    assert "init" in str(error)


def test_the_command_ends_with_what_to_do(house, encoders, monkeypatch, caplog):
    """`sync` does not begin again, as after a switch of `reindex`."""
    house.pictures(2)
    synced(house)
    house.picture("new.png", 50)
    real = FakeEncoder.embed_images

    def remade_meanwhile(encoder: FakeEncoder, pictures):
        monkeypatch.setattr(FakeEncoder, "embed_images", real)
        remake(house, encoders["twin"])
        return real(encoder, pictures)

    monkeypatch.setattr(FakeEncoder, "embed_images", remade_meanwhile)
    with caplog.at_level(logging.WARNING):
        done = run(house, "sync", str(house.folder), code=2)
    assert "was deleted and made again" in done.stderr
    assert "starting again" not in caplog.text
    assert house.indexed() == {}
    # What the message says works.
    run(house, "sync", str(house.folder))
    assert len(house.indexed()) == 3


def test_a_late_write_is_refused(house, encoders):
    house.pictures(1)
    synced(house)
    late = Store(connect(house.settings), house.settings.index).pinned()
    (image_id,) = [hit["_id"] for hit in late.searches.sample(1, seed=0)]
    remake(house, encoders["twin"])
    with pytest.raises(ImgSearchError):
        late.documents.write([Write(image_id, document={"image_id": image_id})])
    with pytest.raises(ImgSearchError):
        late.documents.delete([image_id])
    assert house.indexed() == {}


def test_what_was_learned_and_the_roots_of_before_are_not_those_of_the_new_index(house, encoders):
    house.pictures(1)
    synced(house)
    assert "r" in house.store.info().meta.roots
    remake(house, encoders["twin"])
    meta = house.store.info().meta
    assert meta.roots == {}
    assert meta.seal.revision == encoders["twin"].revision


# -- clients -------------------------------------------------------------------------------------


def right(house: House, search: ImageSearch) -> int:
    """How many pictures are the first hit for themselves."""
    hits = {path: search.search_image(path, k=1) for path in house.folder.iterdir()}
    return sum(bool(found) and found[0].path == path for path, found in hits.items())


def test_a_client_finds_what_it_should_with_the_new_encoder(house, encoders):
    house.pictures(PICTURES)
    synced(house)
    with ImageSearch(settings=house.settings) as search:
        assert right(house, search) == PICTURES
        remake(house, encoders["twin"], fill=True)
        assert right(house, search) == PICTURES


def test_a_client_with_an_encoder_of_its_own_refuses_the_new_index(house, encoders):
    house.pictures(2)
    synced(house)
    (path, *_) = house.folder.iterdir()
    with ImageSearch(settings=house.settings, encoder=encoders["fake"]) as search:
        assert search.search_image(path, k=1)[0].path == path
        remake(house, encoders["twin"], fill=True)
        for _ in range(2):
            with pytest.raises(EncoderMismatch):
                search.search_image(path, k=1)


def test_a_vector_of_before_is_not_compared_with_the_new_index_unseen(house, encoders):
    """A vector that `embed` computed within the time to live: the client knows no more of it."""
    house.pictures(2)
    synced(house)
    (path, *_) = house.folder.iterdir()
    with ImageSearch(settings=house.settings) as search:
        before = search.embed(Path(path))
        remake(house, encoders["twin"], fill=True)
        assert search.search_image(path, k=1)[0].path == path
        assert not (before == search.embed(Path(path))).all()


def test_an_async_client_finds_what_it_should(house, encoders):
    house.pictures(PICTURES)
    synced(house)

    async def compare() -> int:
        async with AsyncImageSearch(settings=house.settings) as search:
            paths = sorted(house.folder.iterdir())
            await search.search_image(paths[0], k=1)
            await asyncio.to_thread(remake, house, encoders["twin"], fill=True)
            found = [await search.search_image(path, k=1) for path in paths]
        return sum(hits[0].path == path for hits, path in zip(found, paths, strict=True))

    assert asyncio.run(compare()) == PICTURES


def test_a_client_reads_again_what_is_older_than_its_time_to_live(house, encoders, monkeypatch):
    house.pictures(2)
    synced(house)
    with ImageSearch(settings=house.settings) as search:
        before = search.info
        assert search.info is before
        house.store.generations.update_meta(
            lambda meta: meta.with_root("more", {"path": "/more", "host": "h"})
        )
        assert search.info is before
        monkeypatch.setattr("es_imgsearch.search.index_state._TIME_TO_LIVE_SECONDS", -1.0)
        assert "more" in search.info.meta.roots
        assert VECTOR_FIELD in search.info.properties


def test_init_makes_again_what_was_deleted_beside_the_pictures(house: House):
    """The message of `watch` and `sync` advises it."""
    house.pictures(3)
    synced(house)
    name = house.store.generations.roles().serving
    failures = failures_generation(house.store.index, name)
    house.store.connection.request("DELETE", f"/{failures}")
    with pytest.raises(IndexMissing, match="es-imgsearch init"):
        house.synced()
    create_index(house.store, house.settings)
    (house.folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    house.synced()
    assert house.differing() == []
    assert len(house.failed()) == 1
