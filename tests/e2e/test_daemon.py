"""The daemon on a real folder and a real Elasticsearch.

The promise: when the folder has been quiet for a short while, the index holds exactly what the
folder holds.  Every test ends with that comparison.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from es_imgsearch.elastic.client import Connection
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.leases import now_iso
from es_imgsearch.elastic.state import daemon_id, pause_id
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import AlreadyRunning
from es_imgsearch.manage.status import index_status
from es_imgsearch.pipeline.daemon import Daemon
from es_imgsearch.pipeline.sync import sync
from es_imgsearch.records import image_id
from es_imgsearch.settings import Settings
from es_imgsearch.watch.roots import release_root
from tests.support.house import (
    PATIENCE_SECONDS,
    House,
    Proxy,
    Running,
    compare_again,
    paint,
    pixels,
    until,
)

QUICK = {"poll_seconds": 0.3}
MakeHouse = Callable[..., House]


@pytest.fixture
def make_house(real_store: Store, settings: Settings, tmp_path: Path) -> MakeHouse:
    def make(*roots: str) -> House:
        return House(real_store, settings.model_copy(update=QUICK), tmp_path, *roots)

    return make


@pytest.fixture
def house(make_house: MakeHouse) -> House:
    return make_house()


@pytest.fixture
def daemon(house: House) -> Iterator[Running]:
    with house.watched() as running:
        yield running


def synced(house: House, **given) -> tuple:
    indexer = house.indexer(**given)
    try:
        return sync(indexer), indexer
    finally:
        indexer.pipeline.close()


# -- files -----------------------------------------------------------------------------------


def test_what_was_there_before_the_start_is_indexed(house: House):
    house.pictures(10)
    house.picture("a/b/c/deep.png", 100)
    (house.folder / "notes.txt").write_text("words")
    (house.folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    with house.watched() as running:
        house.settle()
        assert running.indexer.counts.embedded == 11
        assert running.indexer.counts.failed == 1
        assert running.stop()
    with house.watched() as again:
        house.settle()
        assert again.stop()
        assert again.indexer.counts.stored == 0
        assert again.indexer.counts.failed == 0


def test_new_changed_and_deleted_files(house: House, daemon: Running):
    house.pictures(30)
    house.settle()
    house.picture("000.png", 50)
    for n in range(1, 4):
        (house.folder / f"{n:03}.png").unlink()
    house.settle()
    assert daemon.indexer.counts.embedded == 31
    assert daemon.indexer.counts.deleted == 3


def test_a_document_that_somebody_else_removed_is_put_back(house: House, daemon: Running):
    house.pictures(3)
    house.settle()
    house.store.documents.write([Write(image_id("r", "001.png"))])
    daemon.daemon._watched[0].request_comparison()  # as every reconcile_minutes
    house.settle()
    assert house.encoder.pictures_embedded == 3, "the vector was still at hand"


def test_a_file_changed_in_place_to_the_same_size(house: House, daemon: Running):
    path = house.folder / "a.bmp"
    paint(path, 1, "bmp")
    house.settle()
    size = path.stat().st_size
    paint(path, 2, "bmp")
    assert path.stat().st_size == size
    house.settle()
    other = house.folder / ".b.bmp"
    paint(other, 3, "bmp")
    os.utime(other, ns=(0, path.stat().st_mtime_ns))
    other.rename(path)  # same size, same time, other picture
    house.settle()
    assert house.encoder.pictures_embedded == 3


def test_a_renamed_file_is_not_embedded_again(house: House, daemon: Running):
    paths = house.pictures(25)
    house.settle()
    for path in paths:
        path.rename(path.with_name(f"new-{path.name}"))
    paths[0].with_name("new-000.png").rename(house.folder / "NEW-000.PNG")
    house.settle()
    assert house.encoder.pictures_embedded == 25
    assert house.paused() is None


def test_two_files_that_change_places(house: House, daemon: Running):
    house.pictures(2)
    house.settle()
    (house.folder / "000.png").rename(house.folder / "x.png")
    (house.folder / "001.png").rename(house.folder / "000.png")
    (house.folder / "x.png").rename(house.folder / "001.png")
    house.settle()
    assert house.encoder.pictures_embedded == 2


def test_a_hundred_copies_are_embedded_once(house: House, daemon: Running):
    original = house.picture("original.png", 1)
    for n in range(100):
        shutil.copyfile(original, house.folder / f"copy-{n}.png")
    house.settle()
    assert house.encoder.pictures_embedded == 1


def test_broken_repaired_and_turned_into_text(house: House, daemon: Running):
    path = house.picture("a.png", 1)
    house.picture("b.png", 2)
    house.settle()
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    house.settle()
    assert len(house.failed()) == 1
    path.write_bytes(good)
    house.settle()
    assert not house.failed()
    path.write_bytes(good[: len(good) // 2])
    house.settle()
    path.rename(path.with_name("a.txt"))
    path.with_name("a.txt").write_text("only words")
    house.settle()
    # Words over a picture: it is no picture any more, and no failure.
    house.picture("c", 3)
    until(lambda: ("r", "c") in house.indexed())
    (house.folder / "c").write_text("words")
    until(lambda: ("r", "c") not in house.indexed())
    assert not house.failed()


def test_text_files_leave_no_trace(house: House, daemon: Running):
    for n in range(20):
        (house.folder / f"{n}.txt").write_text(f"words {n}")
    house.picture("last.png", 1)
    house.settle()
    until(lambda: daemon.indexer.counts.not_pictures == 20)
    assert house.encoder.pictures_embedded == 1
    (root,) = daemon.indexer.roots
    again = daemon.indexer.reconcile(root)
    assert (again.new, again.changed) == (0, 0)


def test_nothing_goes_on_when_nothing_happens(
    house: House, daemon: Running, monkeypatch: pytest.MonkeyPatch
):
    """What was deleted or is no picture must not be looked at again and again."""
    for path in house.pictures(25)[:3]:
        path.unlink()
    (house.folder / "words.txt").write_text("words")
    house.settle()
    last_request = time.monotonic()
    ask = Connection.request

    def listen(self, method: str, path: str, *arguments, **named):
        nonlocal last_request
        # Whether the index was switched, or codes were trained, is looked for all the time.
        if method != "GET" and "-state/_mget" not in path:
            last_request = time.monotonic()
        return ask(self, method, path, *arguments, **named)

    monkeypatch.setattr(Connection, "request", listen)
    until(lambda: time.monotonic() - last_request > 1.5)


def test_a_file_written_in_pieces_is_indexed_once_and_complete(house: House):
    # Longer than a loaded machine keeps this test from writing; closing ends the wait.
    with house.watched(settle_seconds=15.0) as daemon:
        raw = _picture_bytes(1)
        pause = threading.Event()
        with (house.folder / "slow.png").open("wb") as file:
            for start in range(0, len(raw), len(raw) // 8 + 1):
                file.write(raw[start : start + len(raw) // 8 + 1])
                file.flush()
                pause.wait(0.2)
            assert not house.indexed()
        house.settle()
        assert daemon.indexer.counts.embedded == 1
        assert daemon.indexer.counts.failed == 0


def test_a_file_that_stays_open_is_indexed_when_it_stops_growing(house: House, daemon: Running):
    with (house.folder / "open.png").open("wb") as file:
        file.write(_picture_bytes(1))
        file.flush()
        house.settle()
    house.settle()
    assert daemon.indexer.counts.embedded == 1


def _picture_bytes(seed: int) -> bytes:
    import io

    stream = io.BytesIO()
    Image.fromarray(pixels(seed)).save(stream, "png")
    return stream.getvalue()


def test_names_of_every_kind(house: House, daemon: Running):
    folder = os.fsencode(house.folder)
    names = [
        "plain.png", "with space.png", "Straße äöü.png", "日本語.png", "a%20b.png", "#.png",
        "a\\xffb.png", "line\nbreak.png", "*?[].png", "-rf.png", "c" * 200 + ".png",
    ]  # fmt: skip
    for n, name in enumerate([*(os.fsencode(name) for name in names), b"latin-\xe9.png"]):
        paint(folder + b"/" + name, n)
    os.mkdir(folder + b"/ordner-\xfc")
    paint(folder + b"/ordner-\xfc/bild-\xe4.png", 50)
    house.settle()
    os.rename(folder + b"/ordner-\xfc", folder + b"/ordner-\xfd")
    os.rename(folder + b"/latin-\xe9.png", folder + b"/latin-\xea.png")
    house.settle()
    assert house.encoder.pictures_embedded == 13
    shutil.rmtree(folder + b"/ordner-\xfd")
    house.settle()


def test_only_the_case_of_a_name_changes(house: House, daemon: Running):
    house.picture("Photo.PNG", 1)
    house.picture("Album/x.png", 2)
    house.settle()
    (house.folder / "Photo.PNG").rename(house.folder / "photo.png")
    (house.folder / "Album").rename(house.folder / "album")
    house.settle()
    assert house.encoder.pictures_embedded == 2


def test_hard_links_and_symbolic_links(house: House, daemon: Running, tmp_path: Path):
    path = house.picture("a.png", 1)
    outside = tmp_path / "outside"
    outside.mkdir()
    paint(outside / "o.png", 2)
    os.link(path, house.folder / "hard.png")
    (house.folder / "soft.png").symlink_to(path)
    (house.folder / "far.png").symlink_to(outside / "o.png")
    (house.folder / "broken-link.png").symlink_to(tmp_path / "nothing")
    (house.folder / "loop.png").symlink_to("loop.png")
    (house.folder / "folder-link").symlink_to(outside)
    house.settle()
    assert len(house.indexed()) == 4
    assert house.encoder.pictures_embedded == 2
    (house.folder / "soft.png").unlink()
    house.settle()


def test_a_folder_replaced_by_a_link_to_it_is_not_looked_into(
    house: House, daemon: Running, tmp_path: Path
):
    house.pictures(3, "album")
    house.pictures(25, "rest")
    house.settle()
    (house.folder / "album").rename(tmp_path / "elsewhere")
    (house.folder / "album").symlink_to(tmp_path / "elsewhere")
    house.settle()
    assert len(house.indexed()) == 25


def test_excluded_names(house: House, daemon: Running):
    house.picture(".hidden/a.png", 1)
    house.picture("@eaDir/a.png", 2)
    unfinished = house.picture("download.png.part", 3)
    unfinished = unfinished.rename(unfinished.with_name("download.tmp"))
    house.picture("seen.png", 4)
    house.settle()
    assert house.encoder.pictures_embedded == 1
    unfinished.rename(house.folder / "download.png")
    (house.folder / ".hidden").rename(house.folder / "shown")
    house.settle()
    (house.folder / "shown").rename(house.folder / ".hidden")
    (house.folder / "download.png").rename(house.folder / "download.png~")
    house.settle()


def test_what_is_newly_excluded_goes_and_stays_away(house: House):
    house.pictures(25)
    house.picture("raw/1.png", 100)
    with house.watched():
        house.settle()
    with house.watched(exclude=("raw/",)) as daemon:
        until(lambda: len(house.indexed()) == 25)
        until(lambda: not any(daemon.indexer._pending.values()) and not len(daemon.indexer.settler))
        assert daemon.indexer.counts.stored == 0


# -- folders ---------------------------------------------------------------------------------


def test_a_tree_copied_in(house: House, daemon: Running, tmp_path: Path):
    tree = _tree(tmp_path / "tree")
    shutil.copytree(tree, house.folder / "copied")
    house.settle()
    assert len(house.indexed()) == 27
    assert house.encoder.pictures_embedded == 27


def test_trees_moved_in_renamed_and_moved_out(house: House, daemon: Running, tmp_path: Path):
    house.pictures(120)
    _tree(tmp_path / "tree").rename(house.folder / "in")
    house.settle()
    (house.folder / "in").rename(house.folder / "renamed")
    (house.folder / "renamed" / "1").rename(house.folder / "one")
    house.settle()
    embedded = house.encoder.pictures_embedded
    assert embedded == 120
    (house.folder / "one").rename(tmp_path / "out")
    shutil.rmtree(house.folder / "renamed" / "2")
    house.settle()
    assert house.encoder.pictures_embedded == embedded
    assert len(house.indexed()) == 120 + 9


def _tree(top: Path) -> Path:
    """27 pictures in nine folders; old ones, as in a tree that is moved here."""
    for n in range(27):
        path = top / str(n // 9) / str(n // 3 % 3) / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        paint(path, n)
        os.utime(path, (1_600_000_000, 1_600_000_000 + n))
    return top


def test_folders_made_and_written_into_at_once(house: House, daemon: Running):
    for n in range(30):
        house.picture(f"{n}/a/b/c/{n}.png", n)
    house.settle()
    assert house.encoder.pictures_embedded == 30


def test_a_folder_renamed_while_its_files_are_embedded(house: House, daemon: Running):
    entered, go_on = threading.Event(), threading.Event()

    def hold(_pixels: object) -> None:
        entered.set()
        assert go_on.wait(30)

    house.encoder.before_batch = hold
    house.pictures(40, "outer/inner")
    assert entered.wait(30)
    (house.folder / "outer/inner").rename(house.folder / "outer/other")
    (house.folder / "outer").rename(house.folder / "moved")
    go_on.set()
    house.settle()
    assert house.encoder.pictures_embedded == 40


def test_two_roots(make_house: MakeHouse):
    house = make_house("one", "two")
    with house.watched():
        for n in range(25):
            paint(house.folders[0] / f"{n}.png", n)
        paint(house.folders[1] / "0.png", 100)
        house.settle()
        (house.folders[0] / "0.png").rename(house.folders[1] / "from-one.png")
        house.settle()
        assert house.encoder.pictures_embedded == 26


@contextmanager
def quiet_poll(running: Running) -> Iterator[None]:
    """Meanwhile the daemon does not look whether another process ended its pauses."""
    running.indexer.resume_ended_pauses = lambda *_: []  # type: ignore[method-assign]
    try:
        yield
    finally:
        del running.indexer.resume_ended_pauses


def test_a_second_daemon_on_a_root_is_refused(house: House, daemon: Running):
    second = house.indexer()
    refused = rf"Process {os.getpid()} on .* is watching 'r' into index .* stop that one"
    try:
        with pytest.raises(AlreadyRunning, match=refused):
            Daemon(second, house.settings).run()
    finally:
        second.pipeline.close()
    house.pictures(40)
    house.settle()
    for n in range(5):
        (house.folder / f"{n:03}.png").unlink()
    (house.folder / "010.png").rename(house.folder / "new.png")
    house.settle()
    assert house.paused() is None
    assert daemon.error is None


def test_a_daemon_whose_root_was_taken_over_ends(house: House):
    indexer = house.indexer()

    def take_over() -> None:
        house.store.state.update(
            daemon_id("r"),
            lambda lease: {**(lease or {}), "token": "another's", "host": "another"},
        )

    with pytest.raises(AlreadyRunning, match="on another took over watching 'r'"):
        Daemon(indexer, house.settings, on_ready=take_over).run()


def test_a_pause_that_another_process_ends_stays_ended(
    house: House, daemon: Running, caplog: pytest.LogCaptureFixture
):
    """Also where one more picture went meanwhile, so that the daemon has something new to enter."""
    caplog.set_level(logging.INFO)
    paths = house.pictures(60)
    house.settle()
    for path in paths[:40]:
        path.unlink()
    until(house.paused)
    with quiet_poll(daemon):
        house.store.state.update(
            pause_id("r"), lambda pause: {**(pause or {}), "ended_at": now_iso()}
        )
        paths[40].unlink()
        until(lambda: compare_again(daemon) or daemon.indexer.paused["r"].pictures == 41)
        assert house.paused() is None
    # Taken up, and what is missing is judged afresh.
    until(lambda: "Deletions in 'r' are no longer paused." in caplog.messages)
    until(house.paused)


# -- the guard -------------------------------------------------------------------------------


def test_an_emptied_root_deletes_nothing_until_somebody_says_so(
    house: House, daemon: Running, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    house.pictures(60, "album")
    house.settle()
    (house.folder / "album").rename(tmp_path / "out")  # all at once
    until(house.paused)
    assert house.paused()["pictures"] == 60
    assert "empty" in house.paused()["reason"]
    found = index_status(house.store)["roots"]["r"]
    assert found["pictures"] == 60
    assert found["deletions_paused"]["reason"] == house.paused()["reason"]
    compare_again(daemon)
    until(lambda: not any(daemon.indexer._pending.values()))
    assert sum("are paused" in record.message for record in caplog.records) == 1
    _, told = synced(house)
    assert told.paused
    assert len(house.indexed()) == 60
    _, allowed = synced(house, allow_deletes=True)
    assert not allowed.paused
    house.settle()
    assert house.paused() is None
    until(lambda: not daemon.indexer.paused)
    house.pictures(3)
    house.settle()


@pytest.mark.parametrize("seconds", [0.0, 0.03])
def test_a_part_of_a_root_may_go_but_not_too_much_at_once(
    house: House, daemon: Running, seconds: float
):
    paths = house.pictures(30)
    house.settle()
    # As many as may: even if the next one is judged alone, it is too many.
    for path in paths[:6]:
        path.unlink()
    house.settle()
    for path in paths[6:20]:
        path.unlink()
        threading.Event().wait(seconds)
    until(house.paused)
    assert "max_delete_share" in house.paused()["reason"]
    assert len(house.indexed()) == 24
    # One more does not open the door for the rest.
    paths[20].unlink()
    compare_again(daemon)
    until(lambda: not any(daemon.indexer._pending.values()))
    assert len(house.indexed()) == 24
    for n in range(6, 21):
        house.picture(f"{n:03}.png", n)
    house.settle()
    daemon.daemon._watched[0].request_comparison()
    until(lambda: house.paused() is None)
    assert house.encoder.pictures_embedded == 30


def test_pictures_overwritten_with_words_are_gone_like_others(house: House, daemon: Running):
    """Files without a suffix, which only a look tells from pictures."""
    names = [f"{n:03}" for n in range(30)]
    for n, name in enumerate(names):
        house.picture(name, n)
    house.settle()
    for name in names:
        (house.folder / name).write_text(f"words of {name}")
    until(house.paused)
    compare_again(daemon)
    until(lambda: not any(daemon.indexer._pending.values()))
    daemon.turn()
    assert house.paused()
    assert len(house.indexed()) == 30

    # All but one come back; nothing of that one stays.
    for n, name in enumerate(names[1:], start=1):
        house.picture(name, n)
    until(lambda: compare_again(daemon) or house.paused() is None)
    until(lambda: len(house.indexed()) == 29)
    assert not house.failed()
    assert house.encoder.pictures_embedded == 30


def test_few_pictures_may_all_go_but_the_last(house: House, daemon: Running):
    paths = house.pictures(5)
    house.settle()
    for path in paths[:4]:
        path.unlink()
    house.settle()
    paths[4].unlink()
    until(house.paused)
    assert len(house.indexed()) == 1


def test_a_root_that_disappears_and_returns(
    house: House, daemon: Running, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    house.pictures(8)
    for n in range(10, 32):
        house.picture(f"sub/{n}.png", n)
    house.settle()
    house.folder.rename(tmp_path / "away")
    until(house.paused)
    assert len(house.indexed()) == 30
    paint(tmp_path / "away" / "new.png", 100)
    (tmp_path / "away" / "000.png").unlink()
    (tmp_path / "away").rename(house.folder)
    house.settle()
    until(lambda: house.paused() is None)
    house.picture("newer.png", 101)
    house.settle()
    assert house.encoder.pictures_embedded == 32
    assert sum("is not there" in record.message for record in caplog.records) == 1


def test_a_large_move_is_no_deletion(house: House):
    house.pictures(200, "old")
    with house.watched() as daemon:
        house.settle()
        # Slower than the deletions' patience, and from a model that forgets.
        until(lambda: daemon.indexer.pipeline.in_flight == 0)
        daemon.indexer.pipeline._embedding._source._recent._entries.clear()
        write = daemon.indexer._store.documents.write

        def slow(writes, **_):
            threading.Event().wait(0.4)
            return write(writes)

        daemon.indexer._store.documents.write = slow  # type: ignore[method-assign]
        (house.folder / "new").mkdir()
        for path in sorted((house.folder / "old").iterdir()):
            path.rename(house.folder / "new" / path.name)
        house.settle()
        (house.folder / "new").rename(house.folder / "newest")
        house.settle()
        assert house.encoder.pictures_embedded == 200
        assert house.paused() is None
        assert not daemon.indexer.paused


# -- Elasticsearch away ----------------------------------------------------------------------


def test_a_picture_that_comes_alone_is_searchable_at_once(house: House):
    connection = house.store.connection
    connection.request("PUT", f"/{connection.pictures}/_settings", {"refresh_interval": "-1"})
    found = {"query": {"ids": {"values": [image_id("r", "late.png")]}}, "_source": False}
    with house.watched():
        house.picture("late.png", 1)
        until(lambda: house.store.searches.search(found)["hits"].get("hits"))


@pytest.mark.parametrize("how", ["refused", "held"])
def test_nothing_is_lost_while_elasticsearch_is_away(
    house: House, proxy: Proxy, caplog: pytest.LogCaptureFixture, how: str
):
    caplog.set_level(logging.WARNING, logger="es_imgsearch")
    house.pictures(30, "before")
    with house.watched(
        url=f"http://127.0.0.1:{proxy.port}", request_timeout_seconds=5.0, queue_size=20
    ) as daemon:
        house.settle()
        house.pictures(15)
        (proxy.refuse if how == "refused" else proxy.hold)()
        house.pictures(50)
        house.picture("sub/new.png", 100)
        (house.folder / "before/000.png").unlink()
        until(lambda: daemon.indexer.outage.seconds > 3)
        (proxy.accept_again if how == "refused" else proxy.let_go)()
        house.settle()
        until(lambda: daemon.indexer.outage.seconds == 0)
        # A picture that is painted anew in place may be read while it is empty: another line.
        ours = [r.message for r in caplog.records if r.name == "es_imgsearch.elastic.retry"]
        assert sum("Waiting for it" in message for message in ours) == 1
        assert sum("works again" in message for message in ours) == 1
        assert len(ours) == 2, ours


@pytest.mark.parametrize("waits_with", ["additions", "deletions"])
def test_stopping_while_elasticsearch_is_away(house: House, proxy: Proxy, waits_with: str):
    house.pictures(25)
    with house.watched(
        url=f"http://127.0.0.1:{proxy.port}", queue_size=5, shutdown_seconds=1.0
    ) as daemon:
        house.settle()
        # The first comparison asks what may be deleted; the loop would wait with that.
        until(lambda: not any(daemon.indexer._pending.values()))
        daemon.turn()
        proxy.refuse()
        if waits_with == "additions":
            for n in range(30):
                house.picture(f"new-{n}.png", 100 + n)
            # On a busy machine the loop may meet the outage before it has filled every place.
            until(lambda: daemon.indexer.pipeline.in_flight > 0)
        for n in range(3):
            (house.folder / f"{n:03}.png").unlink()
        until(lambda: daemon.indexer.outage.seconds > 1)
        # What is in flight is left for the next start; deletions are never in flight.
        assert daemon.stop() == (waits_with == "deletions")
    with house.watched():
        house.settle()


def test_stopping_in_the_middle_leaves_the_rest_for_the_next_start(house: House):
    house.pictures(200)
    stopping = threading.Event()

    def hold(_pixels: object) -> None:
        if house.encoder.pictures_embedded > 20:
            assert stopping.wait(PATIENCE_SECONDS)

    house.encoder.before_batch = hold
    running = Running(house.indexer(batch_size=4, queue_size=16))
    until(lambda: running.indexer.counts.embedded > 20)
    running.daemon.stop()
    until(running.indexer.pipeline.closing.is_set)
    stopping.set()
    assert running.stop()  # what was in flight was finished
    assert 20 < len(house.indexed()) < 200
    house.encoder.before_batch = lambda _: None
    with house.watched():
        house.settle()
    assert house.encoder.pictures_embedded == 200


def test_a_pause_that_another_writer_erased_is_no_permission(house: House, daemon: Running):
    house.pictures(60)
    house.settle()
    for path in house.folder.iterdir():
        path.unlink()
    until(house.paused)

    assert house.store.state.delete(pause_id("r"))
    until(house.paused)
    compare_again(daemon)
    assert len(house.indexed()) == 60


def test_a_root_that_is_released_under_a_daemon_does_not_end_it(house: House, daemon: Running):
    house.pictures(30)
    house.settle()
    shutil.rmtree(house.folder)
    until(house.paused)
    release_root(house.store, daemon.indexer.roots[0], house.settings.host)
    compare_again(daemon)
    until(lambda: not any(daemon.indexer._pending.values()))
    assert daemon.error is None
    assert house.indexed() == {}


# -- sync ------------------------------------------------------------------------------------


def test_sync_waits_for_files_that_were_just_written(house: House):
    house.pictures(10)
    synced(house, settle_seconds=0.5)
    assert house.differing() == []
    house.picture("000.png", 50)
    (house.folder / "001.png").unlink()
    (house.folder / "002.png").rename(house.folder / "x.png")
    passes, indexer = synced(house)
    assert house.differing() == []
    assert (passes[0].new, passes[0].changed, passes[0].lost) == (1, 1, 2)
    assert (indexer.counts.embedded, indexer.counts.reused) == (1, 1)


def test_a_shuffled_stream_of_changes(house: House, daemon: Running):
    """Many changes to few names, faster than they can be followed."""
    order = random.Random(7)
    names = [f"{n}.png" for n in range(40)]
    for n, name in enumerate(names):
        house.picture(name, n)
    for n in range(300):
        path = house.folder / order.choice(names)
        what = order.random()
        if what < 0.5:
            paint(path, 1000 + n)
        elif what < 0.7 and path.exists():
            path.rename(house.folder / order.choice(names))
        elif what < 0.75:
            path.unlink(missing_ok=True)
    for name in names:
        if not (house.folder / name).exists():
            house.picture(name, 5000)
    house.settle()
