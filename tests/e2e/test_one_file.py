"""What becomes of one file, or of many of a kind, on a real folder and a real Elasticsearch."""

from __future__ import annotations

import errno
import mmap
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from es_imgsearch.elastic.bulk import action_line, bulk_results, json_line
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.store import Store
from es_imgsearch.manage.status import index_status
from es_imgsearch.manage.upgrade import upgrade
from es_imgsearch.pipeline import in_flight
from es_imgsearch.pipeline.engines import intake
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.pipeline.jobs import UNKNOWN_SIGNATURE
from es_imgsearch.pipeline.sync import sync
from es_imgsearch.records import Change, FileSignature, FileState, image_id
from es_imgsearch.settings import Settings
from es_imgsearch.watch.watcher import Hint, HintKind
from tests.support.house import PATIENCE_SECONDS, House, compare_again, paint, until
from tests.support.open_errors import OpenErrors

pytestmark = pytest.mark.process

BROKEN = b"\x89PNG\r\n\x1a\nno more"


@pytest.fixture
def house(real_store: Store, settings: Settings, tmp_path: Path) -> House:
    return House(real_store, settings.model_copy(update={"poll_seconds": 0.3}), tmp_path)


@contextmanager
def synced(house: House, **given) -> Iterator[Indexer]:
    """An indexer that has run `sync`."""
    indexer = house.indexer(**given)
    try:
        sync(indexer)
        yield indexer
    finally:
        indexer.pipeline.close()


def put_by_hand(house: House, index: str, name: str, document: dict) -> None:
    """Write one action of a bulk, as if the process had ended before the others."""
    key = image_id("r", name)
    body = action_line("index", index, key) + json_line({**document, "image_id": key})
    ((_, error),) = bulk_results(house.store.connection, body)
    assert error is None
    house.store.refresh()


# -- two states of one path ----------------------------------------------------------------------


@pytest.mark.parametrize("is_good", [True, False])
def test_a_half_applied_bulk_leaves_no_second_state(house: House, is_good: bool):
    """The index action of a bulk was applied, its delete was not, and the process was killed."""
    house.picture("000.png", 0)
    broken = house.folder / "001.png"
    broken.write_bytes(BROKEN)
    with synced(house):
        assert house.differing() == []
    documents = {each["relative_path"]: each for each in house.store.listings.failures()}
    failure = documents["001.png"]
    good = house.store.documents.get(image_id("r", "000.png"))
    if is_good:
        # The file was repaired; its failure should have been deleted.
        state = {name: good[name] for name in ("size_bytes", "mtime_ns")}
        half = {**failure, "relative_path": "000.png", "image_name": "000.png", **state}
        put_by_hand(house, house.store.connection.failures, "000.png", half)
    else:
        # The file was overwritten; its document should have been deleted.
        state = {name: failure[name] for name in ("size_bytes", "mtime_ns")}
        vector = house.store.documents.vector(image_id("r", "000.png"))
        half = {**good, "relative_path": "001.png", "image_embedding": vector, **state}
        put_by_hand(house, house.store.index, "001.png", half)
    assert house.differing() != []
    with synced(house):
        assert house.differing() == []


# -- changes behind an equal size and time -------------------------------------------------------


def bitmap(house: House, name: str, seed: int, like: Path | None = None) -> Path:
    """Make an uncompressed picture: all have one size; with the time of the file `like`."""
    path = house.folder / name
    paint(path, seed, "bmp")
    if like is not None:
        os.utime(path, ns=(0, like.stat().st_mtime_ns))
    return path


def test_a_file_replaced_while_its_write_waited_ends_with_the_new_content(house: House):
    path = bitmap(house, "a.bmp", 1)
    indexer = house.indexer()
    waits, goes_on = threading.Event(), threading.Event()
    write = indexer._store.documents.write

    def held(writes, **_):
        waits.set()
        assert goes_on.wait(PATIENCE_SECONDS)
        return write(writes)

    indexer._store.documents.write = held  # type: ignore[method-assign]
    try:
        indexer.pipeline.submit(Change(indexer.roots[0], "a.bmp", time.time()))
        assert waits.wait(PATIENCE_SECONDS)
        bitmap(house, ".other.bmp", 2, like=path).rename(path)
        indexer.pipeline.submit(Change(indexer.roots[0], "a.bmp", time.time()))
        goes_on.set()
        assert indexer.pipeline.wait_idle(PATIENCE_SECONDS)
    finally:
        indexer.pipeline.close()
    assert house.differing() == []


def test_what_a_mapped_file_was_given_after_its_first_read_is_stored_when_it_is_closed(
    house: House,
):
    """The page is writable since before the read: the system notes no time of the second write."""
    other = bitmap(house, ".other.bmp", 2).read_bytes()
    with house.watched() as running:
        path = bitmap(house, "a.bmp", 1)
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            mapped[:] = mapped[:]
            house.settle()
            running.turn()
            assert running.indexer.pipeline.wait_idle(PATIENCE_SECONDS)
            mapped[:] = other
        # The house takes equal signatures for equal contents.
        house._expected.clear()
        house.settle()


def test_what_a_mapped_file_was_given_while_it_could_not_be_examined_is_stored(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    """Its event was dropped, and no comparison sees a difference."""
    other = bitmap(house, ".other.bmp", 2).read_bytes()
    with house.watched() as running:
        path = bitmap(house, "a.bmp", 1)
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            mapped[:] = mapped[:]
            house.settle()
            running.turn()
            assert running.indexer.pipeline.wait_idle(PATIENCE_SECONDS)
            mapped[:] = other
            asked = threading.Event()

            def unknown(_change: Change) -> FileSignature | None:
                asked.set()
                return UNKNOWN_SIGNATURE

            with monkeypatch.context() as patches:
                for module in (intake, in_flight):
                    patches.setattr(module, "read_signature", unknown)
                mapped.close()
                file.close()
                assert asked.wait(PATIENCE_SECONDS)
        house._expected.clear()
        compare_again(running)
        house.settle()


@pytest.mark.parametrize("step_seconds", [-3600.0, 3600.0])
def test_a_step_of_the_clock_hides_no_change_behind_an_equal_size_and_time(
    house: House, monkeypatch: pytest.MonkeyPatch, step_seconds: float
):
    other = bitmap(house, ".other.bmp", 2).read_bytes()
    indexer, real_time = house.indexer(), time.time
    try:
        with open(bitmap(house, "a.bmp", 1), "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            mapped[:] = mapped[:]
            indexer.offer(Hint(indexer.roots[0], "a.bmp", HintKind.WRITTEN))
            indexer.submit_settled()
            assert indexer.pipeline.wait_idle(PATIENCE_SECONDS)
            mapped[:] = other
        indexer.offer(Hint(indexer.roots[0], "a.bmp", HintKind.WRITTEN))
        monkeypatch.setattr(time, "time", lambda: real_time() + step_seconds)
        indexer.submit_settled()
        assert indexer.pipeline.wait_idle(PATIENCE_SECONDS)
    finally:
        indexer.pipeline.close()
    assert house.differing() == []
    lag_ms = house.store.documents.get(image_id("r", "a.bmp"))["ingest_lag_ms"]
    assert lag_ms < 60_000


# -- fields that nothing computes ----------------------------------------------------------------

GIVEN = {"shelf": "A3", "caption": "by hand", "title": "Sea", "attributes": {"sku": "17"}}


def give_fields(house: House, name: str, **fields: object) -> None:
    house.store.generations.map_fields({"shelf": {"type": "keyword"}})
    key = image_id("r", name)
    result = house.store.rewrites.rewrite([key], lambda document: {**document, **fields})
    assert result.written == [key]


def test_a_rewrite_between_look_up_and_write_is_kept(house: House):
    path = house.picture("a.png", 1)
    indexer = house.indexer()
    write, rewritten = indexer._store.documents.write, []

    def late(writes, **_):
        if not rewritten:
            rewritten.append(give_fields(house, "a.png", shelf="B7"))
        return write(writes)

    try:
        sync(indexer)
        give_fields(house, "a.png", shelf="A3")
        indexer._store.documents.write = late  # type: ignore[method-assign]
        os.utime(path, (0, 0))
        indexer.pipeline.submit(Change(indexer.roots[0], "a.png", time.time()))
        assert indexer.pipeline.wait_idle(PATIENCE_SECONDS)
    finally:
        indexer.pipeline.close()
    assert rewritten
    document = house.store.documents.get(image_id("r", "a.png"))
    assert (document["shelf"], document["mtime_ns"]) == ("B7", 0)


def given_fields(house: House, name: str) -> dict:
    document = house.store.documents.get(image_id("r", name))
    return {field: document[field] for field in GIVEN if field in document}


@pytest.mark.parametrize("change", ["chmod", "touch", "rename", "folder"])
def test_fields_that_nothing_computes_stay_with_their_content(house: House, change: str):
    path = house.picture("a/000.png", 0)
    name = "a/000.png"
    with synced(house):
        give_fields(house, name, **GIVEN)
    with house.watched() as running:
        running.turn()
        match change:
            case "chmod":
                before = house.store.documents.get(image_id("r", name))["indexed_at"]
                path.chmod(0o600)
                until(lambda: house.store.documents.get(image_id("r", name))["indexed_at"] > before)
            case "touch":
                os.utime(path)
            case "rename":
                name = "a/other.png"
                path.rename(house.folder / name)
            case "folder":
                name = "b/000.png"
                path.parent.rename(house.folder / "b")
        house.settle()
        assert running.indexer.counts.embedded == 0
    assert given_fields(house, name) == GIVEN


def test_fields_that_nothing_computes_go_with_their_content(house: House):
    path = house.picture("000.png", 0)
    with synced(house):
        give_fields(house, "000.png", **GIVEN)
    paint(path, 1)
    with synced(house):
        assert house.differing() == []
    assert given_fields(house, "000.png") == {}


def test_fields_of_a_sidecar_go_with_it_and_others_stay(house: House):
    house.picture("000.png", 0)
    sidecar = house.folder / "000.png.json"
    sidecar.write_text('{"title": "Sea"}')
    with synced(house):
        give_fields(house, "000.png", shelf="A3")
    assert given_fields(house, "000.png") == {"shelf": "A3", "title": "Sea"}
    sidecar.unlink()
    with synced(house):
        assert given_fields(house, "000.png") == {"shelf": "A3"}


def test_the_date_of_a_name_goes_with_the_name(house: House):
    path = house.picture("IMG_20240203_040506.png", 0)
    with synced(house):
        assert dates(house, path.name) == ("2024-02-03T04:05:06", "name")
    path.rename(house.folder / "sea.png")
    with synced(house) as indexer:
        assert indexer.counts.embedded == 0
        assert dates(house, "sea.png") == (None, None)


def test_an_imported_date_stays_where_the_file_has_none(house: House):
    path = house.picture("IMG_20240203_040506.png", 0)
    house.picture("sea.png", 1)
    imported = {"taken_at": "1999-01-01T00:00:00", "taken_local": "1999-01-01T00:00:00",
                "taken_from": "import"}  # fmt: skip
    (house.folder / "sea.json").write_text('{"title": "Sea"}')
    with synced(house):
        for name in (path.name, "sea.png"):
            house.store.rewrites.rewrite([image_id("r", name)], lambda each: {**each, **imported})
    for each in (path, house.folder / "sea.png"):
        os.utime(each, (1, 1))
    (house.folder / "sea.json").write_text('{"title": "Sea again"}')
    with synced(house):
        assert dates(house, path.name) == ("1999-01-01T00:00:00", "import")
        assert dates(house, "sea.png") == ("1999-01-01T00:00:00", "import")


def dates(house: House, name: str) -> tuple[str | None, str | None]:
    house.store.refresh()
    document = house.store.documents.get(image_id("r", name))
    return document.get("taken_local"), document.get("taken_from")


# -- files that cannot be opened, or not be decoded ----------------------------------------------

COUNT = 60


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> OpenErrors:
    return OpenErrors(monkeypatch, tmp_path)


def test_files_that_may_not_be_read_for_a_while_keep_their_documents(
    house: House, errors: OpenErrors
):
    paths = house.pictures(COUNT)
    with synced(house):
        assert house.differing() == []
    with house.watched() as running:
        errors.set(errno.EACCES)
        for path in paths:
            path.chmod(0)
        until(lambda: errors.tries >= COUNT)
        assert running.indexer.pipeline.wait_idle(PATIENCE_SECONDS)
        compare_again(running)
        assert running.indexer.pipeline.wait_idle(PATIENCE_SECONDS)
        assert house.differing() == []
        assert running.indexer.counts.unreadable == COUNT
        assert errors.tries == COUNT, "they are not tried again at once"
        assert running.stop()
        status = index_status(house.store)["roots"]["r"]
        assert status["last_reconcile"]["unreadable"] == COUNT
    errors.set(None)
    for path in paths:
        path.chmod(0o644)
    with synced(house) as indexer:
        assert house.differing() == []
        assert indexer.counts.reused == COUNT
    assert house.encoder.pictures_embedded == COUNT


@pytest.mark.parametrize("number", [errno.EIO, errno.ETIMEDOUT, errno.ESTALE, errno.EPERM])
def test_changed_files_that_cannot_be_read_keep_their_documents(
    house: House, errors: OpenErrors, number: int
):
    paths = house.pictures(COUNT)
    with synced(house):
        before = house.indexed().keys()
    for n, path in enumerate(paths):
        paint(path, 100 + n)
    errors.set(number)
    with synced(house) as indexer:
        assert house.indexed().keys() == before
        assert house.failed() == {}
        assert indexer.counts.unreadable == COUNT
        assert f"{COUNT} unreadable" in indexer.counts.in_words()
    errors.set(None)
    with synced(house):
        assert house.differing() == []


def test_a_new_file_that_cannot_be_read_is_a_failure_and_is_tried_again(
    house: House, errors: OpenErrors
):
    path = house.picture("000.png", 0)
    errors.set(errno.EACCES)
    with synced(house):
        (failure,) = house.store.listings.failures()
    assert (failure["error_class"], failure["attempts"]) == ("permission_denied", 1)
    errors.set(errno.EIO)
    with synced(house):
        assert errors.tries == 1, "not before some time has passed"
    path.chmod(0o600)
    with synced(house):
        assert errors.tries == 2, "its ctime is later than the failure"
    (failure,) = house.store.listings.failures()
    assert (failure["error_class"], failure["attempts"]) == ("io_error", 2)
    # Ten minutes later.
    earlier = {**failure, "failed_at": "2020-01-01T00:00:00Z"}
    house.store.documents.write_failures([earlier])
    errors.set(None)
    with synced(house):
        assert house.differing() == []


def test_pictures_overwritten_with_something_else_pause_and_stay(house: House):
    paths = house.pictures(COUNT)
    with synced(house):
        before = house.indexed().keys()
    for path in paths:
        path.write_bytes(BROKEN + path.name.encode())
    with synced(house) as indexer:
        assert house.indexed().keys() == before
        assert indexer.paused["r"].pictures == COUNT
        assert f"{COUNT} of its {COUNT} pictures are no pictures any" in indexer.paused["r"].reason
        assert house.paused() is not None
    paths[0].unlink()
    with synced(house) as indexer:
        assert "pictures are gone or no pictures any more (" in indexer.paused["r"].reason
    with synced(house, allow_deletes=True):
        assert house.differing() == []
    assert len(house.failed()) == COUNT - 1


def test_one_picture_overwritten_with_something_else_becomes_a_failure(house: House):
    paths = house.pictures(3)
    with house.watched() as running:
        house.settle()
        paths[0].write_bytes(BROKEN)
        house.settle()
        assert len(house.failed()) == 1
        assert running.stop()


# -- a changed ctime alone -----------------------------------------------------------------------


def test_a_change_behind_an_equal_size_and_time_is_found_without_events(house: House):
    path = bitmap(house, "a.bmp", 1)
    with synced(house):
        assert house.differing() == []
    status = path.stat()
    path.write_bytes(bitmap(house, ".other.bmp", 2).read_bytes())
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert FileState.of(path.stat()) == FileState.of(status)
    with synced(house) as indexer:
        assert house.differing() == []
        assert indexer.counts.embedded == 1


@pytest.mark.parametrize("compares", [True, False])
def test_a_changed_mode_alone_reads_and_never_embeds(house: House, compares: bool):
    paths = house.pictures(5)
    with synced(house):
        assert house.differing() == []
    for path in paths:
        path.chmod(0o600)
    for reused in (5 * compares, 0):
        with synced(house, compare_ctime=compares) as indexer:
            assert indexer.counts.stored == reused
            assert house.differing() == []
    assert house.encoder.pictures_embedded == 5


def test_documents_of_an_index_without_ctime_are_not_read_again(house: House):
    """An index of an earlier version: its mapping lacks the field, and so do its documents."""
    name = house.store.info().name
    house.pictures(3)
    with synced(house):
        assert house.differing() == []
    documents = [hit["_source"] for hit in house.store.searches.hits({"size": 10})]
    vectors = {
        each["image_id"]: house.store.documents.vector(each["image_id"]) for each in documents
    }
    info = house.store.connection.request("GET", f"/{name}")[name]
    house.store.connection.request("DELETE", f"/{name}")
    del info["mappings"]["properties"]["ctime_ns"]
    settings = {"index": {"refresh_interval": "1s"}}
    body = {"aliases": info["aliases"], "mappings": info["mappings"], "settings": settings}
    body["settings"]["analysis"] = info["settings"]["index"]["analysis"]
    house.store.connection.request("PUT", f"/{name}", body)
    for each in documents:
        del each["ctime_ns"]
        document = {**each, "image_embedding": vectors[each["image_id"]]}
        assert house.store.documents.write([Write(each["image_id"], document)]) == {
            each["image_id"]: None
        }
    upgrade(house.store)
    with synced(house) as indexer:
        assert indexer.counts.stored == 0
        path = house.folder / "000.png"
        paint(path, 10)
    with synced(house) as indexer:
        assert indexer.counts.embedded == 1
        assert house.differing() == []
    key = image_id("r", "000.png")
    assert house.store.documents.get(key)["ctime_ns"] == path.stat().st_ctime_ns
