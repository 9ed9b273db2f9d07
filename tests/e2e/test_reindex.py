"""`reindex` on the real Elasticsearch: another encoder or profile while the index is used."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from es_imgsearch import ImageSearch
from es_imgsearch.cli.watch import in_each_generation
from es_imgsearch.elastic.client import Connection, connect
from es_imgsearch.elastic.documents import Documents, Write
from es_imgsearch.elastic.mapping import Companion, new_meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.elastic.switching import Switching
from es_imgsearch.embed.context import open_context
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import (
    GenerationSwitched,
    IndexMissing,
    StoreBusy,
    StoreRejected,
    StoreUnreachable,
    TextUnsupported,
    UsageError,
)
from es_imgsearch.manage.reindex import cancel, drop_before, go_back, reindex
from es_imgsearch.manage.reindex.target import ReindexOptions
from es_imgsearch.manage.status import index_status
from es_imgsearch.pipeline.daemon import Daemon
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.pipeline.sync import sync
from es_imgsearch.records import Grid, image_id
from es_imgsearch.settings import Settings
from es_imgsearch.testing import FakeEncoder, remove_index
from es_imgsearch.watch.roots import parse_roots, register_roots
from tests.support.house import House, described, paint, pixels, until
from tests.support.reindexing import (
    Killed,
    client,
    ids_in,
    ids_on_disk,
    ids_served,
    numbered,
    run,
    synced,
    to,
)

pytestmark = pytest.mark.usefixtures("encoders")


def test_another_encoder_and_back_with_every_field(house: House, encoders: dict):
    house.pictures(30)
    synced(house)
    ids = sorted(ids_on_disk(house))
    house.store.rewrites.rewrite(
        ids[:5], lambda each: {**each, "title": "theirs", "tags": ["kept"]}
    )
    house.store.refresh()
    before = {each: house.store.documents.get(each) for each in ids}
    done = to(house, "other")
    assert done.switched
    assert (done.pictures, done.missing, done.embedded) == (30, (), 30)
    assert numbered(done.serving) == f"{house.store.index}-000002"
    info = house.store.info()
    assert (info.name, info.meta.seal) == (done.serving, seal_of(encoders["other"]))
    assert "r" in info.meta.roots
    after = {each: house.store.documents.get(each) for each in ids}
    for each in ids:
        assert after[each].keys() == before[each].keys() - {"embed_ms"}
        assert all(after[each][name] == before[each][name] for name in after[each])
    vector = house.store.documents.vector(ids[3])
    assert vector.shape == (24,)
    # The colours of the picture are those that it was copied with.
    assert client(house).search_image(house.folder / "007.png", k=1)[0].relative_path == "007.png"
    assert encoders["fake"].pictures_embedded == 30

    back = go_back(house.store, house.settings)
    assert back.switched
    assert (numbered(back.serving), back.embedded) == (f"{house.store.index}-000001", 0)
    assert {each: house.store.documents.get(each) for each in ids} == before
    house.encoder = encoders["fake"]
    assert house.differing() == []
    assert drop_before(house.store) == done.serving
    with pytest.raises(UsageError, match="no generation"):
        go_back(house.store, house.settings)


# -- under use ---------------------------------------------------------------------------------


class Keeper:
    """A daemon that begins again with the next generation, as `watch` does."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.generations: list[str] = []
        self.error: BaseException | None = None
        self._stopping = threading.Event()
        self._daemon: Daemon | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        until(lambda: self.generations or self.error)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                with suppress(GenerationSwitched):
                    self._keep()
        except BaseException as error:
            self.error = error
            raise

    def _keep(self) -> None:
        house = self._house
        store = Store(connect(house.settings), house.settings.index).pinned()
        roots = parse_roots([str(house.folder)])
        register_roots(store, roots, house.settings.host)
        indexer = Indexer(open_context(store, house.settings), roots, house.settings)
        self._daemon = Daemon(
            indexer,
            house.settings,
            on_ready=lambda: self.generations.append(str(store.generation)),
        )
        try:
            self._daemon.run()
        finally:
            indexer.pipeline.close()

    def stop(self) -> None:
        self._stopping.set()
        if self._daemon is not None:
            self._daemon.stop()
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error


class Searchers:
    """Threads that search without a pause; every picture has to find itself."""

    def __init__(self, house: House, names: list[str], threads: int = 2) -> None:
        self.searches = 0
        self.wrong: list[str] = []
        self._house, self._names = house, names
        self._stopping = threading.Event()
        shared = client(house)
        self._threads = [
            threading.Thread(target=self._run, args=(shared, n), daemon=True)
            for n in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, search: ImageSearch, n: int) -> None:
        while not self._stopping.is_set():
            n += 1
            name = self._names[n % len(self._names)]
            try:
                hit = search.search_image(self._house.folder / name, k=1)[0]
                if len(search.search_text("red", k=3)) < 3:
                    self.wrong.append("too few are red")
                if len(search.similar(image_id("r", name), k=3)) < 3:
                    self.wrong.append(f"nothing is similar to {name}")
            except Exception as error:  # noqa: BLE001 - that is what is counted
                self.wrong.append(f"{type(error).__name__}: {error}")
                continue
            if (hit.relative_path, round(float(hit.score), 3)) != (name, 1.0):
                self.wrong.append(f"{name} found {hit.relative_path} by {hit.score}")
            self.searches += 1

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)


class Changes:
    """A thread that adds, repaints, renames and deletes files as long as it runs."""

    def __init__(self, house: House) -> None:
        self.made = 0
        self._house = house
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.wait(0.1):
            n = self.made
            path = self._house.picture(f"new-{n:03}.png", 1000 + n)
            if n % 5 == 2:
                path.rename(path.with_name(f"renamed-{n:03}.png"))
            elif n % 5 == 3:
                paint(path, 2000 + n)
            elif n % 5 == 4:
                path.unlink()
            self.made += 1

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(30)


def test_no_search_fails_and_no_picture_is_lost(house: House, encoders: dict):
    names = [path.name for path in house.pictures(40)]
    synced(house)
    # Slow enough that files come while it is built.
    encoders["twin"].before_batch = lambda _pixels: time.sleep(0.15)
    keeper, searchers, changes = Keeper(house), Searchers(house, names), Changes(house)
    try:
        done = to(house, "twin")
        until(lambda: len(keeper.generations) == 2 or keeper.error)
        made_by_then = changes.made
        until(lambda: changes.made >= made_by_then + 5)
        back = go_back(house.store, house.settings)
        until(lambda: len(keeper.generations) == 3 or keeper.error)
    finally:
        changes.stop()
        searchers.stop()
    try:
        until(lambda: ids_served(house) == ids_on_disk(house))
        house.settle()
    finally:
        keeper.stop()
    assert (done.switched, back.switched) == (True, True)
    index = house.store.index
    served = [numbered(each) for each in keeper.generations]
    assert served == [f"{index}-000001", f"{index}-000002", f"{index}-000001"]
    assert searchers.wrong == []
    assert searchers.searches > 20
    assert changes.made > 10


def test_a_file_that_goes_at_the_end_waits_for_its_daemon(house: House, encoders: dict):
    """One of 13 pictures lacks, which is too many, until the daemon has deleted it."""
    house.pictures(12)
    synced(house)
    # What is gone is deleted a second later at the earliest: a pass comes before that.
    house.settings = house.settings.model_copy(update={"settle_seconds": 1.0, "encoder": None})
    late: list[str] = []

    def come_and_go(text: str) -> None:
        if "pictures are in" in text:
            path = house.picture("late.png", 99)
            until(lambda: image_id("r", path.name) in ids_served(house))
            path.unlink()
            late.append(path.name)

    keeper = Keeper(house)
    try:
        given = house.settings.model_copy(update={"encoder": "twin"})
        done = reindex(house.store, given, note=come_and_go)
    finally:
        keeper.stop()
    assert late
    assert (done.switched, done.missing, done.pictures) == (True, (), 12)
    assert ids_served(house) == ids_on_disk(house)


def test_a_search_that_meets_a_switch_there_and_back(house: House, encoders: dict):
    house.pictures(12)
    synced(house)
    picture = house.folder / "007.png"
    with client(house) as search:
        search.search_image(picture, k=1)
        send, met = search.store.send, []

        def between(request: Any) -> Any:
            if "_search" not in request.path or met:
                return send(request)
            to(house, "twin")
            answer = send(request)
            met.append(answer["hits"]["hits"][0]["_index"])
            go_back(house.store, house.settings)
            return answer

        search.store.send = between
        hit = search.search_image(picture, k=1)[0]
    assert [numbered(each) for each in met] == [f"{house.store.index}-000002"]
    assert (hit.relative_path, hit.score) == ("007.png", pytest.approx(1.0, abs=1e-5))


def test_a_search_in_another_space_is_noticed_at_once(house: House, encoders: dict):
    """A client that knows the old generation asks the new one, of as many dims, of fewer, without
    text, and with it again."""
    house.pictures(12)
    synced(house)
    search = client(house)
    name, picture = "007.png", house.folder / "007.png"
    assert search.search_image(picture, k=1)[0].relative_path == name
    for encoder in ("twin", None, "other", None):
        if encoder is None:
            go_back(house.store, house.settings)
            drop_before(house.store)
        else:
            to(house, encoder)
        hit = search.search_image(picture, k=1)[0]
        assert (hit.relative_path, hit.score) == (name, pytest.approx(1.0, abs=1e-5))
        if encoder == "other":
            with pytest.raises(TextUnsupported):
                search.search_text("red", mode="vector")
        else:
            # The first question after the way back is one that the other encoder refuses.
            assert len(search.search_text("red", k=3, mode="vector")) == 3
        assert len(search.similar(image_id("r", name), k=3)) == 3
        assert search.similarity(picture, picture) == pytest.approx(1.0)


def test_whoever_writes_to_the_old_generation_is_refused_and_told(house: House, encoders: dict):
    house.pictures(3)
    indexer = house.indexer()
    sync(indexer)
    late = house.store.pinned()
    assert to(house, "twin").switched
    house.picture("late.png", 99)
    try:
        with pytest.raises(GenerationSwitched, match=r"000002-\w+ now and was .*000001"):
            sync(indexer)
    finally:
        indexer.pipeline.close()
    (error,) = late.documents.write([Write("x", document={"image_id": "x"})]).values()
    assert isinstance(error, StoreBusy)
    assert ids_served(house) == {image_id("r", f"{n:03}.png") for n in range(3)}


def test_watch_and_sync_begin_again_with_the_next_generation(house: House, encoders: dict):
    house.pictures(2)
    synced(house)
    begun: list[str] = []

    def keep() -> str:
        begun.append(house.store.generations.roles().serving)
        if len(begun) == 1:
            to(house, "twin")
            raise GenerationSwitched("it is another one")
        if len(begun) == 2:
            go_back(house.store, house.settings)
            drop_before(house.store)
            raise IndexMissing("what was kept is deleted")
        return "kept"

    assert in_each_generation(house.settings, keep) == "kept"
    assert [numbered(name)[-6:] for name in begun] == ["000001", "000002", "000001"]

    def gone() -> None:
        raise IndexMissing("the index is gone")

    with pytest.raises(IndexMissing):
        in_each_generation(house.settings, gone)


# -- interrupted ---------------------------------------------------------------------------------


def test_what_was_killed_goes_on_where_it_was(house: House, encoders: dict):
    house.pictures(40)
    synced(house)
    twin = encoders["twin"]

    def kill(_pixels: object) -> None:
        if len(twin.batches) == 2:
            raise Killed

    twin.before_batch = kill
    # Whole batches of five.
    given = {"batch_size": 5, "queue_size": 10, "batch_wait_ms": 2_000.0}
    house.settings = house.settings.model_copy(update=given)
    with pytest.raises(Killed):
        to(house, "twin")
    assert numbered(house.store.info().name).endswith("-000001")
    told = index_status(house.store)
    assert (told["next"]["encoder"], told["pictures"], told["before"]) == ("twin", 40, None)
    embedded, kept = twin.pictures_embedded, ids_in(house.store.at(told["next"]["generation"]))
    assert 5 <= len(kept) <= embedded <= 10
    open_ids = ids_on_disk(house) - kept - {image_id("r", "000.png"), image_id("r", "001.png")}
    twin.before_batch = lambda _pixels: None
    # Meanwhile: a picture is gone, one is new, one has another title, one another content.
    (house.folder / "000.png").unlink()
    house.picture("new.png", 500)
    house.picture("001.png", 501)
    synced(house)
    house.store.rewrites.rewrite(
        [image_id("r", "002.png")], lambda each: {**each, "title": "later"}
    )
    with pytest.raises(UsageError, match="begun and not finished, with encoder 'twin'"):
        to(house, "other")
    # Without a name it is the one that was begun.
    done = to(house)
    assert done.switched
    assert ids_served(house) == ids_on_disk(house)
    assert house.store.documents.get(image_id("r", "002.png"))["title"] == "later"
    # Besides the new one and the one of another content nothing was embedded twice.
    assert twin.pictures_embedded == embedded + len(open_ids) + 2
    hit = client(house).search_image(house.folder / "001.png", k=1)[0]
    assert (hit.relative_path, hit.score) == ("001.png", pytest.approx(1.0, abs=1e-5))


def test_an_outage_costs_no_picture(house: House, encoders: dict, monkeypatch: pytest.MonkeyPatch):
    """Some answers of Elasticsearch fail, in the middle of batches and between them."""
    house.pictures(30)
    synced(house)
    house.settings = house.settings.model_copy(update={"batch_size": 4, "queue_size": 8})
    write, calls = Documents.write, []

    def failing(documents: Documents, writes: list[Write]) -> dict:
        calls.append(len(writes))
        if len(calls) in {2, 5}:
            raise StoreUnreachable("gone")
        results = write(documents, writes)
        if len(calls) == 8:
            return results | {writes[0].image_id: StoreBusy("full")}
        return results

    monkeypatch.setattr(Documents, "write", failing)
    done = to(house, "twin")
    assert len(calls) > 8
    assert (done.switched, done.pictures, done.missing) == (True, 30, ())
    assert ids_served(house) == ids_on_disk(house)


def test_a_bulk_that_is_too_large_is_halved(
    house: House, encoders: dict, monkeypatch: pytest.MonkeyPatch
):
    house.pictures(12)
    synced(house)
    write, sizes = Documents.write, []

    def small_ones(documents: Documents, writes: list[Write]) -> dict:
        sizes.append(len(writes))
        if len(writes) > 3:
            raise StoreRejected("413")
        return write(documents, writes)

    monkeypatch.setattr(Documents, "write", small_ones)
    done = reindex(house.store, house.settings, ReindexOptions(profile="compact"))
    assert (done.switched, done.carried, done.missing) == (True, 12, ())
    assert max(sizes) == 12
    assert ids_served(house) == ids_on_disk(house)


def test_an_outage_costs_no_failure(house: House, encoders: dict, monkeypatch: pytest.MonkeyPatch):
    """What cannot be read any more is told, copies of the same content too."""
    house.pictures(12)
    shutil.copy(house.folder / "003.png", house.folder / "copy.png")
    synced(house)
    for name in ("003.png", "copy.png"):
        (house.folder / name).write_bytes(b"\x89PNG\r\n\x1a\nno more")
    house.settings = house.settings.model_copy(update={"batch_size": 1, "encoder": "twin"})
    write, failed = Documents.write, []

    def failing(documents: Documents, writes: list[Write]) -> dict:
        failed.append(any(each.failure for each in writes))
        if failed.count(True) == 1 and failed[-1]:
            raise StoreUnreachable("gone")
        return write(documents, writes)

    monkeypatch.setattr(Documents, "write", failing)
    done = reindex(house.store, house.settings, max_missing_share=0.5)
    assert failed.count(True) == 3
    assert (done.switched, done.missing_pictures) == (True, 2)
    assert {each["relative_path"] for each in house.store.listings.failures()} == {
        "003.png",
        "copy.png",
    }


def test_killed_while_writing_is_held_back(
    house: House, encoders: dict, monkeypatch: pytest.MonkeyPatch
):
    house.pictures(5)
    synced(house)
    allow, begun = Switching.allow_writes, []

    def kill(*_: object) -> None:
        raise Killed

    def kill_at_the_end(switching: Switching) -> None:
        if begun:
            raise Killed
        # The first is what one before may have left held back.
        begun.append(allow(switching))

    monkeypatch.setattr(Switching, "switch_to", kill)
    monkeypatch.setattr(Switching, "allow_writes", kill_at_the_end)
    with pytest.raises(Killed):
        to(house, "twin")
    monkeypatch.setattr(Switching, "allow_writes", allow)
    assert index_status(house.store)["writes_held_back"]
    house.picture("late.png", 99)
    keeper = Keeper(house)
    try:
        monkeypatch.undo()
        assert numbered(cancel(house.store)).endswith("-000002")
        until(lambda: ids_served(house) == ids_on_disk(house))
    finally:
        keeper.stop()
    told = index_status(house.store)
    assert (told["writes_held_back"], told["next"]) == (False, None)


# -- what can and cannot be carried --------------------------------------------------------------


def test_a_model_that_was_exchanged_is_embedded_with_anew(house: House, encoders: dict):
    house.pictures(3)
    synced(house)
    encoders["fake"] = FakeEncoder(revision="exchanged")
    done = to(house)
    assert (done.switched, done.embedded) == (True, 3)


def test_another_profile_of_the_same_encoder_embeds_nothing(house: House, encoders: dict):
    house.pictures(30)
    synced(house)
    ids = sorted(ids_on_disk(house))
    vectors = {each: house.store.documents.vector(each) for each in ids}
    (house.folder / "003.png").unlink()  # its original is not needed
    # As the page says it is done.
    page = Path(__file__).parents[2] / "docs" / "how-to" / "change-the-encoder.md"
    (code,) = re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"store": house.store, "settings": house.settings}
    exec(code, names)
    done = names["done"]
    assert (done.switched, done.embedded, done.pictures) == (True, 0, 30)
    assert encoders["fake"].pictures_embedded == 30
    assert house.store.info().meta.profile == "compact"
    assert all(np.array_equal(house.store.documents.vector(each), vectors[each]) for each in ids)
    assert done.agreement.overlap > 0.95
    drop_before(house.store)
    with pytest.raises(UsageError, match="already"):
        to(house, profile="compact")
    # The reduction is fitted on the index's own vectors.
    assert to(house, profile="reduced", dims_kept=12).switched
    assert house.store.info().meta.stored_dims == 12
    hit = client(house).search_image(house.folder / "007.png", k=1)[0]
    assert hit.relative_path == "007.png"
    remove_index(house.store, Companion.REDUCTION.alias(house.store.index))


def test_regions_are_made_anew_or_carried(real_store: Store, settings: Settings, tmp_path: Path):
    encoder = FakeEncoder()
    grid = Grid.parse("2x2+centre")
    real_store.generations.create(
        new_meta(seal_of(encoder), "exact", "cosine", grid=grid), described()
    )
    folder = tmp_path / "photos"
    folder.mkdir()
    colours = np.random.default_rng(1).integers(0, 256, (6, 16, 16, 3), np.uint8)
    for n, each in enumerate(colours):
        Image.fromarray(each.repeat(8, axis=0).repeat(8, axis=1)).save(folder / f"{n}.png")
    roots = parse_roots([str(folder)])
    store = real_store.pinned()
    register_roots(store, roots, settings.host)
    indexer = Indexer(open_context(store, settings, encoder), roots, settings)
    sync(indexer)
    indexer.pipeline.close()
    crop = Image.open(folder / "4.png").crop((0, 0, 64, 64))
    search = ImageSearch(settings=settings)
    for wanted in ({"profile": "balanced"}, {"encoder": "twin"}):
        given = settings.model_copy(update={"encoder": wanted.pop("encoder", None)})
        assert reindex(real_store, given, ReindexOptions(**wanted)).switched
        hit = search.search_image(crop, k=1, regions=True)[0]
        assert (hit.relative_path, hit.matched_box) == ("4.png", (0, 0, 64, 64))
        assert hit.score == pytest.approx(1.0, abs=1e-2)
        drop_before(real_store)


def test_many_failures_are_looked_up_in_parts(house: House, encoders: dict, monkeypatch):
    """As with hundreds of thousands: a request has 1,000 ids at most."""
    house.pictures(3)
    synced(house)
    names = [f"broken-{n:04}.png" for n in range(2_300)]
    house.store.documents.write_failures(
        [
            {
                "image_id": image_id("r", name), "root": "r", "relative_path": name,
                "image_name": name, "size_bytes": n, "mtime_ns": n, "attempts": 1,
                "error_class": "decode", "message": "it is broken",
                "failed_at": "2026-01-01T00:00:00+00:00",
            }
            for n, name in enumerate(names)
        ]
    )  # fmt: skip
    house.store.refresh()
    asked: list[int] = []
    request = Connection.request

    def count(self: Connection, method: str, path: str, body: Any = None, **given: Any) -> Any:
        if path.endswith("/_mget") and isinstance(body, dict):
            asked.append(len(body["ids"]))
        return request(self, method, path, body, **given)

    monkeypatch.setattr(Connection, "request", count)
    assert to(house, "twin").switched
    house.store.refresh()
    assert house.store.listings.count(failures=True) == len(names)
    assert sum(asked) >= len(names)
    assert max(asked) <= 1_000


def test_pictures_that_cannot_be_embedded_are_failures_of_the_new_generation(
    house: House, encoders: dict
):
    house.pictures(20)
    (house.folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    synced(house)
    bad = pixels(7).mean()

    def refuse(pictures: np.ndarray) -> None:
        if any(abs(each.mean() - bad) < 1e-6 for each in pictures):
            raise ValueError("too dark")

    encoders["twin"].before_batch = refuse
    done = to(house, "twin")
    assert not done.switched
    assert done.missing == (("r", "cannot be read or embedded", 1),)
    assert ids_served(house) == ids_on_disk(house) - {image_id("r", "broken.png")}
    given = house.settings.model_copy(update={"encoder": "twin"})
    done = reindex(house.store, given, max_missing_share=0.06)
    assert (done.switched, done.missing_pictures) == (True, 1)
    failed = {each["relative_path"]: each for each in house.store.listings.failures()}
    assert set(failed) == {"broken.png", "007.png"}
    assert failed["007.png"]["error_class"] == "embed_failed"
    assert image_id("r", "007.png") not in ids_served(house)
    # The way back has it again, and its failure is gone.
    assert go_back(house.store, house.settings).switched
    assert {each["relative_path"] for each in house.store.listings.failures()} == {"broken.png"}
    assert house.differing() == []


def test_originals_that_are_not_here_stop_the_switch(house: House, encoders: dict):
    house.pictures(4)
    synced(house)
    moved = house.folder.rename(house.folder.with_name("unmounted"))
    done = to(house, "twin")
    assert not done.switched
    assert done.missing == (("r", "original is not there", 4),)
    moved.rename(house.folder)
    house.settings = house.settings.model_copy(update={"host": "another"})
    done = to(house, "twin")
    assert done.missing == (("r", "original is not on this machine", 4),)
    assert len(ids_served(house)) == 4
    assert numbered(cancel(house.store)).endswith("-000002")


# -- the command ---------------------------------------------------------------------------------


def test_the_command(house: House, encoders: dict):
    house.pictures(6)
    synced(house)
    assert "reindex --encoder twin" in run(house, "init", "--encoder", "twin", code=2).stderr
    assert "already" in run(house, "reindex", code=2).stderr
    assert "go alone" in run(house, "reindex", "--back", "--drop-old", code=2).stderr
    assert "go alone" in run(house, "reindex", "--encoder", "twin", "--cancel", code=2).stderr
    assert "no generation" in run(house, "reindex", "--back", code=2).stderr
    assert "keeps no generation" in run(house, "reindex", "--drop-old", code=2).stderr
    told = json.loads(run(house, "reindex", "--encoder", "twin", "--json").stdout)
    assert (told["switched"], told["pictures"], told["missing"]) == (True, 6, [])
    assert told["agreement"]["k"] == 10
    status = json.loads(run(house, "status", "--json").stdout)
    assert status["encoder"]["name"] == "twin"
    assert status["before"]["encoder"] == "fake"
    said = run(house, "status").stdout
    assert re.search(r"-000001-\w+ served before: encoder fake", said)
    assert "not tuned to these pictures" in said
    assert "return to it" in run(house, "reindex", "--encoder", "fake", code=2).stderr
    assert "delete it first" in run(house, "reindex", "--encoder", "other", code=2).stderr
    assert run(house, "verify", str(house.folder)).stdout == ""
    assert "Switched to" in run(house, "reindex", "--back").stderr
    assert re.search(r"-000002-\w+ is deleted", run(house, "reindex", "--drop-old").stderr)
    # Numbers are not used twice while one of them is left.
    (house.folder / "000.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    told = run(house, "reindex", "--encoder", "twin", "--json", code=1)
    assert json.loads(told.stdout)["switched"] is False
    assert "Not switched: 1 picture" in told.stderr
    assert re.search(r"-000002-\w+ is deleted", run(house, "reindex", "--cancel").stderr)
