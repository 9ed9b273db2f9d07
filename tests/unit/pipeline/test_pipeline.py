"""Run the pipeline on the store in memory: what is written, once, and after errors."""

from __future__ import annotations

import gc
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from es_imgsearch.describe.registry import chosen_describers
from es_imgsearch.elastic import retry
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.retry import Outage, persist
from es_imgsearch.embed import in_process as encoders
from es_imgsearch.embed.context import IndexContext
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import (
    EncodersFailed,
    ImageMissing,
    IndexMissing,
    ReadError,
    ReadersFailed,
    StoreBusy,
    StoreDenied,
    StoreRejected,
    StoreUnreachable,
)
from es_imgsearch.pipeline.engines import intake as pipeline
from es_imgsearch.pipeline.engines.local import Pipeline
from es_imgsearch.read.file import Skipped
from es_imgsearch.read.preparation import Preparation
from es_imgsearch.records import Change, FileState, Grid, Picture, Root, image_id
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import FakeEncoder, MemoryStore
from es_imgsearch.write.unreadable import with_retries

pytestmark = pytest.mark.process

PATIENCE_SECONDS = 30.0
BIG = Preparation(width=512, height=512, mode="squash")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def context_of(store: MemoryStore, encoder: FakeEncoder) -> IndexContext:
    names = tuple(each.name for each in chosen_describers())
    return IndexContext(store, store.info(), encoder, names, None)  # type: ignore[arg-type]


class Bench:
    """A pipeline on one folder, with everything it reports."""

    def __init__(
        self,
        folder: Path,
        preparation: Preparation | None = None,
        store: MemoryStore | None = None,
        **settings: object,
    ) -> None:
        self.root = Root("r", folder)
        self.store = store or MemoryStore()
        self.encoder = FakeEncoder()
        self.began_at = time.monotonic()
        self.encoder.preparation = preparation or self.encoder.preparation
        if store is None:
            self.store.generations.create(new_meta(seal_of(self.encoder), "exact", "cosine"))
        self.gone: list[str] = []
        self.unsettled: list[str] = []
        given = {"read_workers": 1, "batch_wait_ms": 20.0, "read_timeout_seconds": 20.0}
        self.pipeline = Pipeline(
            context_of(self.store, self.encoder),
            load_settings({**given, **settings}, environment={}),
            emit=self._remains,
        )

    def _remains(self, change: Change, reason: Skipped) -> None:
        paths = self.unsettled if reason is Skipped.CHANGING else self.gone
        paths.append(change.relative_path)

    def picture(self, name: str, colour: str = "red", size: int = 40) -> Path:
        path = self.root.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (size, size), colour).save(path)
        return path

    def submit(self, *names: str) -> None:
        """Submit files whose events happened before any of them was read."""
        for name in names:
            self.pipeline.submit(Change(self.root, name, time.time(), self.began_at))

    def run(self, *names: str) -> None:
        self.submit(*names)
        assert self.pipeline.wait_idle(PATIENCE_SECONDS)

    def document(self, name: str):
        return self.store.documents.get(image_id("r", name))

    def failure(self, name: str):
        return self.store.failure(image_id("r", name))


@pytest.fixture
def make_bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**settings: object) -> Bench:
        folder = tmp_path / f"root{len(made)}"
        folder.mkdir()
        made.append(Bench(folder, **settings))
        return made[-1]

    yield make
    for bench in made:
        bench.pipeline.close()


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench()


def test_a_picture_becomes_a_document_with_every_field(bench: Bench):
    bench.picture("2024/italy/sea.png", "blue", 48)
    bench.run("2024/italy/sea.png")
    document = bench.document("2024/italy/sea.png")
    status = (bench.root.path / "2024/italy/sea.png").stat()
    assert document["image_id"] == image_id("r", "2024/italy/sea.png")
    assert document["image_name"] == "sea.png"
    assert document["folder"] == "2024/italy"
    assert (document["width"], document["height"]) == (48, 48)
    assert document["orientation"] == "square"
    assert document["format"] == "png"
    assert document["size_bytes"] == status.st_size
    assert document["mtime_ns"] == status.st_mtime_ns
    modified = datetime.fromisoformat(document["modified_at"]).timestamp()
    assert modified == pytest.approx(status.st_mtime, abs=0.002)
    assert document["ingest_lag_ms"] >= 0
    assert document["embed_ms"] > 0
    assert bench.pipeline.counts.embedded == 1


def test_a_file_in_the_root_itself_has_a_folder_too(bench: Bench):
    bench.picture("a.png")
    bench.run("a.png")
    assert bench.document("a.png")["folder"] == "."


def test_copies_are_embedded_once_and_a_known_content_never_again(bench: Bench):
    first = bench.picture("0.png")
    names = [f"{n}.png" for n in range(100)]
    for name in names[1:]:
        shutil.copyfile(first, bench.root.path / name)
    bench.run(*names)
    assert bench.encoder.pictures_embedded == 1
    assert (bench.pipeline.counts.embedded, bench.pipeline.counts.reused) == (1, 99)
    assert len({bench.document(name)["content_id"] for name in names}) == 1


def test_a_vector_is_taken_from_the_index_after_a_restart(make_bench: Callable[..., Bench]):
    before = make_bench()
    path = before.picture("old.png")
    before.run("old.png")
    before.store.refresh()
    after = make_bench(store=before.store)
    shutil.copyfile(path, after.root.path / "new.png")
    after.run("new.png")
    assert after.encoder.pictures_embedded == 0
    assert after.pipeline.counts.reused == 1


def test_the_same_state_is_not_read_twice_and_a_new_one_is(bench: Bench):
    bench.picture("a.png", "red")
    bench.run("a.png")
    bench.run("a.png")
    assert len(bench.store.bulks) == 1
    bench.picture("a.png", "green")
    bench.run("a.png")
    assert bench.encoder.pictures_embedded == 2


def test_an_event_after_the_read_began_has_the_file_read_again(bench: Bench):
    bench.picture("a.png")
    bench.run("a.png")
    bench.pipeline.submit(Change(bench.root, "a.png", time.time()))
    assert bench.pipeline.wait_idle(PATIENCE_SECONDS)
    assert len(bench.store.bulks) == 2
    assert bench.encoder.pictures_embedded == 1


def test_a_document_that_another_process_removed_is_written_again(bench: Bench):
    bench.picture("a.png")
    bench.run("a.png")
    bench.store.documents.write([Write(image_id("r", "a.png"))])
    listed_at = time.monotonic()
    bench.run("a.png")
    with pytest.raises(KeyError):
        bench.document("a.png")
    bench.pipeline.submit(Change(bench.root, "a.png", time.time()), listed_at=listed_at)
    assert bench.pipeline.wait_idle(PATIENCE_SECONDS)
    assert bench.document("a.png")
    assert bench.encoder.pictures_embedded == 1
    # Listed before that write was acknowledged: it is there.
    bulks = len(bench.store.bulks)
    bench.pipeline.submit(Change(bench.root, "a.png", time.time()), listed_at=listed_at)
    assert bench.pipeline.wait_idle(PATIENCE_SECONDS)
    assert len(bench.store.bulks) == bulks


def test_credentials_that_may_not_write_end_the_pipeline(bench: Bench):
    bench.picture("a.png")
    bench.store.documents.write = lambda writes, **_: {  # type: ignore[method-assign]
        each.image_id: StoreDenied("Elasticsearch does not allow writing.") for each in writes
    }
    bench.submit("a.png")
    with pytest.raises(StoreDenied):
        bench.pipeline.wait_idle(PATIENCE_SECONDS)


def test_a_replaced_file_of_the_same_size_and_time_is_seen(bench: Bench):
    old = bench.picture("a.bmp", "red")
    bench.run("a.bmp")
    before = bench.document("a.bmp")
    new = bench.picture("b.bmp", "blue")
    os.utime(new, ns=(old.stat().st_atime_ns, old.stat().st_mtime_ns))
    assert new.stat().st_size == old.stat().st_size
    new.rename(old)
    bench.run("a.bmp")
    assert bench.document("a.bmp")["content_id"] != before["content_id"]


def test_a_broken_picture_becomes_a_failure_and_a_repaired_one_a_document(bench: Bench):
    path = bench.picture("a.png")
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    bench.run("a.png")
    failure = bench.failure("a.png")
    assert failure["error_class"] in {"truncated", "corrupt"}
    assert failure["attempts"] == 1
    assert failure["size_bytes"] == len(good) // 2
    path.write_bytes(good)
    bench.run("a.png")
    assert bench.document("a.png")["format"] == "png"
    with pytest.raises(KeyError):
        bench.failure("a.png")


def test_a_good_file_overwritten_by_a_broken_one_is_left_to_the_deletion_guard(bench: Bench):
    path = bench.picture("a.png")
    bench.run("a.png")
    path.write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    bench.run("a.png")
    assert bench.document("a.png")
    assert bench.gone == ["a.png"]
    change = Change(bench.root, "a.png", time.time())
    assert bench.pipeline.holds_no_picture(change.image_id, FileState.of(path.stat()))
    # The guard permits it.
    bench.store.documents.delete([image_id("r", "a.png")])
    bench.pipeline.forget(change)
    bench.run("a.png")
    assert bench.failure("a.png")["error_class"] in {"truncated", "corrupt", "unidentified"}
    with pytest.raises(KeyError):
        bench.document("a.png")


def test_what_is_no_picture_is_counted_and_not_read_again(bench: Bench):
    (bench.root.path / "notes.txt").write_text("words")
    bench.run("notes.txt")
    compared = Change(bench.root, "notes.txt", time.time())
    bench.pipeline.submit(compared, listed_at=time.monotonic())
    assert bench.pipeline.wait_idle(PATIENCE_SECONDS)
    assert bench.pipeline.counts.not_pictures == 1
    assert bench.store.bulks == []
    # Somebody may have put words over a picture: its document has to go.
    assert bench.gone == ["notes.txt"]
    state = FileState.of((bench.root.path / "notes.txt").stat())
    assert bench.pipeline.is_non_picture(image_id("r", "notes.txt"), state)


def test_a_path_that_is_not_there_is_reported_gone(bench: Bench):
    bench.run("never.png")
    assert bench.gone == ["never.png"]


def test_an_outage_delays_and_drops_nothing(bench: Bench):
    names = [f"{n}.png" for n in range(5)]
    for n, name in enumerate(names):
        bench.picture(name, f"rgb({n * 40},0,0)")
    bench.store.fail_next = [StoreUnreachable("away"), StoreBusy("429"), StoreUnreachable("away")]
    bench.run(*names)
    assert bench.pipeline.counts.embedded == 5
    assert bench.pipeline.outage.seconds == 0


def test_an_outage_is_over_when_the_last_who_met_it_succeeds(caplog: pytest.LogCaptureFixture):
    outage = Outage()
    outage.begin(StoreUnreachable("Away."), "write")
    outage.begin(StoreUnreachable("Away."), "embed")
    outage.end("embed")
    outage.end("somebody else")
    outage.begin(StoreBusy("Busy."), "write")
    assert outage.seconds > 0
    assert [record.message for record in caplog.records] == [
        "Away. Waiting for it; nothing is dropped."
    ]
    outage.end("write")
    assert outage.seconds == 0
    assert "works again" in caplog.records[-1].message
    outage.end("write")
    assert len(caplog.records) == 2


def test_where_only_writing_is_refused_it_is_logged_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
):
    """Looking up vectors goes on working meanwhile, and says nothing of writing."""
    write, refused = bench.store.documents.write, 0

    def blocked(writes, **_):
        nonlocal refused
        if refused < 3:
            refused += 1
            return {each.image_id: StoreBusy("Read-only.") for each in writes}
        return write(writes)

    bench.store.documents.write = blocked  # type: ignore[method-assign]
    for n in range(4):
        bench.picture(f"{n}.png", f"rgb({n * 40},0,0)")
        bench.submit(f"{n}.png")
    assert bench.pipeline.wait_idle(PATIENCE_SECONDS)
    # The end of the outage is logged after the last document was acknowledged.
    bench.pipeline.close(within_seconds=PATIENCE_SECONDS)
    messages = [record.message for record in caplog.records]
    assert ["Waiting for it" in each for each in messages] == [True, False], messages
    assert bench.pipeline.counts.embedded == 4


def test_only_what_was_refused_is_written_again(bench: Bench, caplog: pytest.LogCaptureFixture):
    write, refused = bench.store.documents.write, []

    def pressed(writes, **_):
        if refused:
            return write(writes)
        refused.extend(each.image_id for each in writes[1:])
        return write(writes[:1]) | {each: StoreBusy("429") for each in refused}

    bench.store.documents.write = pressed  # type: ignore[method-assign]
    names = [f"{n}.png" for n in range(4)]
    for n, name in enumerate(names):
        bench.picture(name, f"rgb({n * 40},0,0)")
    held = threading.Event()
    bench.encoder.before_batch = lambda _: held.wait(PATIENCE_SECONDS)
    bench.submit(*names)
    held.set()
    assert bench.pipeline.wait_idle(PATIENCE_SECONDS)
    written = [each.image_id for bulk in bench.store.bulks for each in bulk]
    assert sorted(written) == sorted(image_id("r", name) for name in names)
    assert not caplog.records, "it goes on, only slower: no outage"


def test_a_document_that_is_refused_alone_for_ever_keeps_no_slot(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    """Deletions of every root wait for its ticket, and `sync` for its job."""
    monkeypatch.setattr(retry, "LONGEST_WAIT_SECONDS", 0.01)
    culprit, write = image_id("r", "1.png"), bench.store.documents.write

    def small(writes, **_):
        refused = {
            each.image_id: StoreBusy("429")
            for each in writes
            if each.image_id == culprit and each.document is not None
        }
        return write([each for each in writes if each.image_id not in refused]) | refused

    bench.store.documents.write = small  # type: ignore[method-assign]
    for n in range(4):
        bench.picture(f"{n}.png", f"rgb({n * 40},0,0)")
    bench.submit("0.png", "1.png", "2.png")
    assert bench.pipeline.wait_idle(PATIENCE_SECONDS)
    failure = bench.failure("1.png")
    assert failure["error_class"] == "rejected"
    assert "429" in failure["message"]
    # What is tried again is found by the next comparison.
    due_at = time.time() + 301
    (listed,) = with_retries([{**failure, "relative_path": "1.png"}], due_at)
    assert listed.state == FileState.stored({})
    bench.store.documents.write = write  # type: ignore[method-assign]
    bench.run("1.png", "3.png")
    assert bench.document("3.png")


def test_pictures_that_others_wrote_meanwhile_are_looked_up_again_together(bench: Bench):
    """One by one, with three requests each, they held up `sync` beside another for minutes."""
    store, looked_up, seen = bench.store, list[list[str]](), set[str]()
    write, sources = store.write, store.sources

    def raced(writes, **_):
        first = [each for each in writes if each.image_id not in seen]
        if not seen:  # when all others wait, what is looked up from now on follows a conflict
            until(lambda: bench.pipeline._writing._queue.qsize() == len(names) - len(writes))
        seen.update(each.image_id for each in first)
        conflict = StoreRejected("version_conflict_engine_exception")
        return {
            **write([each for each in writes if each not in first]),
            **dict.fromkeys((each.image_id for each in first), conflict),
        }

    def counted(ids):
        if ids and seen:
            looked_up.append(list(ids))
        return sources(ids)

    store.write, store.sources = raced, counted  # type: ignore[method-assign]
    names = [f"{n}.png" for n in range(8)]
    for n, name in enumerate(names):
        bench.picture(name, f"rgb({n * 30},0,0)")
    bench.submit(*names)
    assert bench.pipeline.wait_idle(PATIENCE_SECONDS)
    assert sorted(each for ids in looked_up for each in ids) == sorted(seen)
    assert len(looked_up) <= 2  # of the first bulk, and of all that waited
    assert all(bench.document(name) for name in names)


def test_readers_that_cannot_work_end_the_pipeline_and_blame_no_file(bench: Bench):
    bench.picture("a.png")
    bench.pipeline._reading._workers._failed = ReadersFailed("readers_failed", "They all end.")
    bench.submit("a.png")
    with pytest.raises(ReadersFailed):
        bench.pipeline.wait_idle(PATIENCE_SECONDS)
    assert not bench.store.bulks


def test_a_document_rejected_for_good_becomes_a_failure_and_harms_no_other(bench: Bench):
    bench.store.reject = lambda d: "mapper_parsing" if d["image_name"] == "bad.png" else None
    bench.picture("bad.png", "red")
    bench.picture("good.png", "blue")
    bench.run("bad.png", "good.png")
    assert bench.failure("bad.png")["error_class"] == "rejected"
    assert bench.document("good.png")


@pytest.mark.parametrize("error", [StoreRejected("413"), StoreRejected("400")])
def test_a_bulk_refused_as_a_whole_is_halved_until_the_culprit_is_alone(
    bench: Bench, error: Exception
):
    culprit = image_id("r", "3.png")
    write = bench.store.documents.write

    def picky(writes, **_):
        if any(each.image_id == culprit and each.document is not None for each in writes):
            raise error
        return write(writes)

    bench.store.documents.write = picky  # type: ignore[method-assign]
    names = [f"{n}.png" for n in range(8)]
    for n, name in enumerate(names):
        bench.picture(name, f"rgb({n * 30},0,0)")
    bench.run(*names)
    assert bench.failure("3.png")["error_class"] == "rejected"
    assert all(bench.document(name) for name in names if name != "3.png")


def test_a_batch_the_encoder_cannot_take_is_halved_too(bench: Bench):
    def refuse_green(pixels: np.ndarray) -> None:
        if (pixels.reshape(len(pixels), -1, 3).mean(axis=1)[:, 1] > 100).any():
            raise RuntimeError("green")

    bench.encoder.before_batch = refuse_green
    for name, colour in (("a.png", "red"), ("b.png", "green"), ("c.png", "blue")):
        bench.picture(name, colour)
    bench.run("a.png", "b.png", "c.png")
    assert bench.failure("b.png")["error_class"] == "embed_failed"
    assert bench.document("a.png")
    assert bench.document("c.png")


def test_an_encoder_that_embeds_nothing_any_more_blames_no_picture(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
):
    def short_of_memory(_pixels: np.ndarray) -> None:
        raise MemoryError

    def overflown(pixels: np.ndarray) -> np.ndarray:
        return np.full((len(pixels), FakeEncoder.dims), np.nan, np.float32)

    for name, broken, words in (
        ("before_batch", short_of_memory, r"can embed no picture \(MemoryError"),
        ("_vectors", overflown, r"gives no picture a vector of finite numbers"),
    ):
        bench = make_bench()
        bench.picture("a.png", "red")
        bench.run("a.png")
        monkeypatch.setattr(bench.encoder, name, broken)
        for each, colour in (("b.png", "green"), ("c.png", "blue")):
            bench.picture(each, colour)
        with pytest.raises(EncodersFailed, match=words):
            bench.run("b.png", "c.png")
        assert bench.document("a.png")
        for each in ("b.png", "c.png"):
            for stored in (bench.document, bench.failure):
                with pytest.raises(KeyError):
                    stored(each)


def brightness(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(len(pixels), -1).mean(axis=1)


def test_a_picture_without_a_direction_is_blamed_even_if_it_comes_first(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    """Colours divided by their length: black has none."""
    monkeypatch.setattr(
        bench.encoder,
        "embed_images",
        lambda pixels: (
            FakeEncoder().embed_images(pixels)
            * np.where(brightness(pixels) == 0, np.nan, 1)[:, np.newaxis]
        ),
    )
    bench.picture("black.png", "black")
    bench.run("black.png")
    assert bench.failure("black.png")["error_class"] == "embed_failed"
    bench.picture("red.png", "red")
    bench.run("red.png")
    assert bench.document("red.png")


def test_an_encoder_says_itself_of_which_pictures_it_has_no_vector(bench: Bench):
    def only_dark(pixels: np.ndarray) -> None:
        if (brightness(pixels) > 5).any():
            raise ReadError("no_face", "There is no face.")

    bench.encoder.before_batch = only_dark
    names = ("red.png", "black.png", "green.png")
    for name in names:
        bench.picture(name, name.partition(".")[0])
        bench.run(name)
    assert bench.document("black.png")
    for name in ("red.png", "green.png"):
        assert bench.failure(name)["error_class"] == "no_face"


@pytest.mark.parametrize(
    "spoilt",
    [lambda vectors: vectors[:-1], lambda vectors: vectors[:, 1:], lambda vectors: None],
    ids=["one less", "a dim less", "nothing"],
)
def test_an_encoder_that_gives_something_else_costs_its_pictures_and_ends_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, spoilt: Callable[[np.ndarray], object]
):
    embed = bench.encoder.embed_images

    def spoil(pixels: np.ndarray) -> object:
        is_green = pixels.reshape(len(pixels), -1, 3).mean(axis=1)[:, 1] > 100
        return spoilt(embed(pixels)) if is_green.any() else embed(pixels)

    monkeypatch.setattr(bench.encoder, "embed_images", spoil)
    for name, colour in (("a.png", "red"), ("b.png", "lime"), ("c.png", "blue")):
        bench.picture(name, colour)
    bench.run("a.png", "b.png", "c.png")
    assert bench.failure("b.png")["error_class"] == "embed_failed"
    assert "Encoder 'fake' gave" in bench.failure("b.png")["message"]
    assert bench.document("a.png")
    assert bench.document("c.png")


def test_a_change_while_a_file_is_on_its_way_is_not_lost(bench: Bench):
    path = bench.picture("a.png", "red")
    entered, go_on = threading.Event(), threading.Event()

    def hold(_pixels: object) -> None:
        entered.set()
        assert go_on.wait(PATIENCE_SECONDS)

    bench.encoder.before_batch = hold
    bench.submit("a.png")
    assert entered.wait(PATIENCE_SECONDS)
    bench.picture("a.png", "blue")
    state = path.stat()
    bench.submit("a.png")
    go_on.set()
    assert bench.pipeline.wait_idle(PATIENCE_SECONDS)
    assert bench.document("a.png")["mtime_ns"] == state.st_mtime_ns
    assert bench.encoder.pictures_embedded == 2


def test_a_file_deleted_while_on_its_way_is_reported_gone(bench: Bench):
    path = bench.picture("a.png")
    entered, go_on = threading.Event(), threading.Event()

    def hold(_pixels: object) -> None:
        entered.set()
        assert go_on.wait(PATIENCE_SECONDS)

    bench.encoder.before_batch = hold
    bench.submit("a.png")
    assert entered.wait(PATIENCE_SECONDS)
    path.unlink()
    go_on.set()
    assert bench.pipeline.wait_idle(PATIENCE_SECONDS)
    assert bench.gone == ["a.png"]


def test_leftovers_are_passed_on_before_the_pipeline_is_idle(bench: Bench):
    """A `sync` that waits for an idle pipeline would leave them to the next run."""
    in_flight: list[int] = []

    class Noting(list[str]):
        def append(self, path: str) -> None:
            in_flight.append(bench.pipeline.in_flight)
            super().append(path)

    bench.gone, bench.unsettled = Noting(), Noting()
    (bench.root.path / "notes.txt").write_text("words")
    bench.run("notes.txt")
    path = bench.picture("a.png")
    bench.encoder.before_batch = lambda _pixels: path.unlink()
    bench.run("a.png")
    bench.picture("b.png", "green")
    bench.encoder.before_batch = lambda _pixels: bench.picture("b.png", "blue")
    bench.run("b.png")
    assert (bench.gone, bench.unsettled) == (["notes.txt", "a.png"], ["b.png"])
    assert in_flight == [1, 1, 1]


def test_a_missing_index_ends_the_pipeline_with_its_own_words(bench: Bench):
    bench.picture("a.png")
    bench.store.fail_next = [IndexMissing("There is no index.")]
    bench.submit("a.png")
    with pytest.raises(IndexMissing):
        bench.pipeline.wait_idle(PATIENCE_SECONDS)
    with pytest.raises(IndexMissing):
        bench.submit("a.png")


def test_only_so_many_files_are_on_their_way_at_once(make_bench: Callable[..., Bench]):
    bench = make_bench(queue_size=3, batch_size=1)
    most = 0

    def note(_pixels: object) -> None:
        nonlocal most
        most = max(most, bench.pipeline.in_flight)

    bench.encoder.before_batch = note
    names = [f"{n}.png" for n in range(12)]
    for n, name in enumerate(names):
        bench.picture(name, f"rgb(0,0,{n * 20})")
    bench.run(*names)
    assert 1 <= most <= 3
    assert bench.pipeline.counts.embedded == 12


def test_decoded_pictures_on_their_way_stay_within_the_memory_given(
    make_bench: Callable[..., Bench],
):
    """Counted is what exists, wherever in the pipeline it is, while the encoder is held."""
    # 512 x 512 pixels are 768 kB: 40 of them are 30 MB.
    bench = make_bench(preparation=BIG, queue_memory_mb=6, batch_size=4)
    names = [f"{n}.png" for n in range(40)]
    for n, name in enumerate(names):
        bench.picture(name, f"rgb(0,0,{n * 6})")
    most_bytes, most_at_once = 0, 0

    def note(_pixels: object) -> None:
        nonlocal most_bytes, most_at_once
        # The readers go on until nothing more fits.
        until(lambda: bench.pipeline.in_flight == 8 or len(bench.store.bulks) > 0)
        until(lambda: bench.pipeline._in_flight.is_all_read())
        pictures = [each for each in gc.get_objects() if type(each) is Picture]
        # Other tests leave smaller ones.
        alive = [each for each in pictures if len(each.pixels) == BIG.height]
        most_bytes = max(most_bytes, sum(each.pixels.nbytes for each in alive))
        most_at_once = max(most_at_once, len(alive))

    bench.encoder.before_batch = note
    bench.run(*names)
    assert 4 < most_at_once <= 8
    assert most_bytes <= 6 * 2**20
    assert bench.pipeline.counts.embedded == 40


@pytest.mark.parametrize(
    ("memory_mb", "queue_size", "grid", "expected"),
    [
        (6, 256, None, 8),
        (6, 5, None, 5),
        (6, 256, Grid(2, 2, has_centre=True), 1),  # six arrays of 768 kB a picture
        (60, 256, Grid(2, 2, has_centre=True), 13),
        (1, 256, Grid(3, 3), 1),  # one picture is always allowed
    ],
)
def test_tiles_count_as_pictures_do(
    memory_mb: int, queue_size: int, grid: Grid | None, expected: int
):
    encoder = FakeEncoder()
    encoder.preparation = BIG
    settings = load_settings(
        {"queue_memory_mb": memory_mb, "queue_size": queue_size}, environment={}
    )
    assert pipeline.max_files_in_flight(settings, encoder, grid) == expected


def test_the_encoder_finds_its_next_batches_waiting_and_writing_holds_nothing_up(
    make_bench: Callable[..., Bench],
):
    """While one batch is embedded the others are read and looked up; while one is written, too."""
    bench = make_bench(batch_size=4, batch_wait_ms=5_000.0)
    names = [f"{n:02}.png" for n in range(16)]
    for n, name in enumerate(names):
        bench.picture(name, f"rgb(0,0,{n * 15})")
    looked_up: set[str] = set()
    look_up, write = bench.store.documents.embedded_by_content, bench.store.documents.write

    def noted(content_ids, *given, **named):
        looked_up.update(content_ids)
        return look_up(content_ids, *given, **named)

    embedded_while_writing: list[int] = []

    def slow_write(writes, **_):
        until(lambda: bench.encoder.pictures_embedded == len(names))
        embedded_while_writing.append(bench.encoder.pictures_embedded)
        return write(writes)

    bench.store.documents.embedded_by_content = noted  # type: ignore[method-assign]
    bench.store.documents.write = slow_write  # type: ignore[method-assign]
    bench.encoder.before_batch = lambda _: until(lambda: len(looked_up) == len(names))
    bench.run(*names)
    assert bench.encoder.batches == [4, 4, 4, 4]
    assert embedded_while_writing[0] == len(names)


def test_an_incomplete_batch_goes_out_when_nothing_more_is_read(make_bench: Callable[..., Bench]):
    bench = make_bench(batch_wait_ms=1_000 * 2 * PATIENCE_SECONDS)
    bench.picture("a.png")
    bench.run("a.png")
    assert bench.encoder.batches == [1]


def test_an_incomplete_batch_does_not_wait_for_a_file_that_takes_long(
    make_bench: Callable[..., Bench],
):
    bench = make_bench(batch_size=8, batch_wait_ms=100.0)
    bench.picture("a.png")
    bench.pipeline._in_flight.reading += 1  # another one that is still being read
    bench.run("a.png")
    assert bench.encoder.batches == [1]


def test_a_content_that_is_being_embedded_is_waited_for(bench: Bench):
    first = bench.picture("0.png")
    entered, go_on = threading.Event(), threading.Event()

    def hold(_pixels: object) -> None:
        entered.set()
        assert go_on.wait(PATIENCE_SECONDS)

    bench.encoder.before_batch = hold
    bench.submit("0.png")
    assert entered.wait(PATIENCE_SECONDS)
    names = [f"{n}.png" for n in range(1, 20)]
    for name in names:
        shutil.copyfile(first, bench.root.path / name)
    bench.submit(*names)
    until(lambda: bench.pipeline._in_flight.is_all_read())
    go_on.set()
    assert bench.pipeline.wait_idle(PATIENCE_SECONDS)
    assert bench.encoder.batches == [1]
    assert (bench.pipeline.counts.embedded, bench.pipeline.counts.reused) == (1, 19)


def test_closing_finishes_what_is_in_flight(bench: Bench):
    for n in range(6):
        bench.picture(f"{n}.png", f"rgb(0,{n * 40},0)")
    bench.submit(*(f"{n}.png" for n in range(6)))
    assert bench.pipeline.close(within_seconds=PATIENCE_SECONDS)
    assert bench.pipeline.counts.embedded == 6


def test_closing_waits_for_the_model_itself(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    """A thread in the middle of a model when the interpreter ends takes the process down."""
    monkeypatch.setattr(pipeline, "_END_SECONDS", 0.05)
    entered = threading.Event()

    def embed(_pixels: object) -> None:
        entered.set()
        assert bench.pipeline.stopping.wait(PATIENCE_SECONDS)
        threading.Event().wait(0.5)

    bench.encoder.before_batch = embed
    bench.picture("a.png")
    bench.submit("a.png")
    assert entered.wait(PATIENCE_SECONDS)
    assert not bench.pipeline.close()
    assert bench.encoder.pictures_embedded == 1


def test_closing_waits_for_no_answer_that_describers_wait_for(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pipeline, "_END_SECONDS", 0.05)
    asked, answered = threading.Event(), threading.Event()

    real_info, opened = MemoryStore.info, threading.Event()

    def info(store: MemoryStore) -> IndexInfo:
        if not opened.is_set():  # the test's own, before there is a pipeline
            opened.set()
            return real_info(store)
        asked.set()
        assert answered.wait(PATIENCE_SECONDS)
        raise StoreUnreachable("away")

    monkeypatch.setattr(MemoryStore, "info", info)
    bench = make_bench()
    assert asked.wait(PATIENCE_SECONDS)
    started = time.monotonic()
    bench.pipeline.close()
    assert time.monotonic() - started < encoders._MODEL_SECONDS / 2
    answered.set()


def test_closing_in_an_outage_ends_and_says_that_something_was_left(
    make_bench: Callable[..., Bench],
):
    bench = make_bench()
    bench.picture("a.png")
    bench.store.fail_next = [StoreUnreachable("away") for _ in range(1000)]
    bench.submit("a.png")
    assert not bench.pipeline.close(within_seconds=0.5)


def test_an_answer_that_is_an_error_ends_an_outage():
    outage = Outage()
    errors = [StoreUnreachable("away"), ImageMissing("not there")]

    def ask() -> None:
        raise errors.pop(0)

    with pytest.raises(ImageMissing):
        persist(ask, threading.Event(), outage)
    assert outage.seconds == 0
