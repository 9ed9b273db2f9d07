"""An index of an earlier schema: its `_meta`, and fields that documents lacked."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from es_imgsearch.cli import main
from es_imgsearch.elastic import generations
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import VECTOR_FIELD, Companion, index_body
from es_imgsearch.elastic.meta import SCHEMA_VERSION, Meta
from es_imgsearch.elastic.meta_entries import CodesEntry, CopyCheckpoint, Curve, Tuning
from es_imgsearch.elastic.state import REINDEX_LOCK, daemon_id, pause_id
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import AlreadyRunning, IndexConflict, IndexMissing
from es_imgsearch.manage.redescribe import redescribe_pictures
from es_imgsearch.manage.reindex import cancel
from es_imgsearch.manage.status import index_status
from es_imgsearch.manage.upgrade import upgrade
from es_imgsearch.records import image_id, unit
from es_imgsearch.search.filters import filter_clauses
from es_imgsearch.settings import Settings
from es_imgsearch.testing import FakeEncoder
from tests.support.house import House, until
from tests.support.old_schemas import as_schema, put_meta, remove_state
from tests.support.reindexing import run, synced, to

PAUSE = {"reason": "its folder is empty", "pictures": 3, "since": "2026-01-01T00:00:00+00:00"}
COMPARED = {
    "new": 3, "changed": 0, "lost": 0, "unknown": 0, "seconds": 0.1,
    "ended_at": "2026-01-01T00:00:00+00:00",
}  # fmt: skip


def now(seconds_ago: float = 0.0) -> str:
    return (datetime.now(tz=UTC) - timedelta(seconds=seconds_ago)).isoformat(timespec="seconds")


def as_before(store: Store, **entries: Any) -> None:
    """Make the index one of schema 1, with these entries of the root `r`; it had no state."""
    store.generations.update_meta(lambda meta: meta.with_root("r", {**meta.roots["r"], **entries}))
    as_schema(store, 1)
    remove_state(store)


def watched_by(seen_at: str) -> dict[str, Any]:
    return {"host": "old", "process_id": 4711, "since": now(60), "queue": 5, "seen_at": seen_at}


def raw_meta(store: Store) -> dict[str, Any]:
    (index,) = store.connection.request("GET", f"/{store.connection.pictures}").values()
    return dict(index["mappings"]["_meta"])


@pytest.fixture
def old(house: House) -> House:
    """Three pictures, paused, compared, and a daemon that is silent for an hour."""
    house.pictures(3)
    synced(house)
    as_before(
        house.store,
        deletions_paused=PAUSE, deletions_allowed=2, last_reconcile=COMPARED,
        watched_by=watched_by(now(3600)),
    )  # fmt: skip
    return house


def test_reading_changes_nothing(old: House):
    found = index_status(old.store)["roots"]["r"]
    assert found["deletions_paused"] == PAUSE
    assert found["last_reconcile"] == COMPARED
    assert found["watched_by"]["process_id"] == 4711
    assert not found["watched_by"]["is_alive"]
    assert "3 pictures" in run(old, "status").stdout
    assert old.store.info().meta.schema_version == 1
    with pytest.raises(IndexMissing):
        old.store.connection.request("GET", f"/{Companion.STATE.alias(old.store.index)}")


def root_status(old: House) -> dict[str, Any]:
    """The status of the root without the time since its daemon was seen, which passes."""
    status: dict[str, Any] = index_status(old.store)["roots"]["r"]
    status["watched_by"].pop("seen_seconds_ago")
    return status


def test_what_meta_held_is_the_state_once_upgraded(old: House):
    before = root_status(old)
    meta_before = raw_meta(old.store)
    upgrade(old.store)
    meta = old.store.info().meta
    assert meta.schema_version == SCHEMA_VERSION
    assert meta.roots["r"].keys() == {"path", "host"}
    assert root_status(old) == before
    put_meta(old.store, meta_before)
    # Interrupted or done by two at once: what is there already is not written over.
    upgrade(old.store)
    assert root_status(old) == before


@pytest.mark.parametrize("command", ["init", "sync"])
def test_the_first_writer_upgrades(old: House, command: str):
    run(old, command, *([str(old.folder)] if command == "sync" else []))
    assert old.store.info().meta.schema_version == SCHEMA_VERSION
    assert run(old, "verify", str(old.folder)).exit_code == 0
    paused = index_status(old.store)["roots"]["r"]["deletions_paused"]
    # A comparison of the whole root that finds nothing missing ends the pause.
    assert paused == (PAUSE if command == "init" else None)


def test_a_pause_of_before_is_ended_by_the_same_command(old: House):
    for path in old.folder.iterdir():
        path.unlink()
    run(old, "sync", str(old.folder), code=1)
    assert len(old.indexed()) == 3
    run(old, "sync", str(old.folder), "--allow-deletes")
    assert old.indexed() == {}
    assert old.paused() is None


def test_an_unfinished_reindex_of_before_is_gone_on_with(house: House, encoders: dict):
    house.pictures(6)
    synced(house)
    encoders["twin"].before_batch = lambda _: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        to(house, "twin")
    encoders["twin"].before_batch = lambda _: None
    unfinished = house.store.at(str(house.store.generations.roles().next))

    def mark(seen_at: str) -> None:
        builder = {
            "host": "old", "process_id": 4711, "process_space": None, "process_start": None,
            "token": "t", "since": now(900), "seen_at": seen_at,
        }  # fmt: skip
        put_meta(unfinished, raw_meta(unfinished) | {"builder": builder})

    as_schema(unfinished, 1)
    as_before(house.store)
    mark(now())
    assert index_status(house.store)["next"]["builder"]["is_alive"]
    for refused in (lambda: to(house, "twin"), lambda: cancel(house.store)):
        with pytest.raises(AlreadyRunning, match=r"4711 on old, of an earlier version.* run from"):
            refused()
    assert house.store.info().meta.schema_version == 1
    mark(now(181))
    assert not index_status(house.store)["next"]["builder"]["is_alive"]
    assert to(house, "twin").switched
    assert house.store.info().meta.schema_version == SCHEMA_VERSION
    assert house.store.info().meta.builder is None


def test_a_daemon_watches_an_index_of_before(old: House):
    given = ["--index", old.settings.index, "--es-url", str(old.settings.es_url)]
    assert CliRunner().invoke(main, ["init", *given]).exit_code == 0
    with old.watched():
        old.picture("new.png", 50)
        old.settle()
        until(lambda: index_status(old.store)["roots"]["r"]["watched_by"]["is_alive"])
        watched = index_status(old.store)["roots"]["r"]["watched_by"]
        assert watched["process_id"] == os.getpid()


def test_folder_of_another_under_an_old_name_is_not_paused(old: House, tmp_path: Path):
    """The state of a root that was released is not that of the next one of its name."""
    upgrade(old.store)
    for path in old.folder.iterdir():
        path.unlink()
    old.folder.rmdir()
    run(old, "sync", str(old.folder), "--allow-deletes")
    (tmp_path / "new").mkdir()
    run(old, "sync", f"r={tmp_path / 'new'}")
    found = index_status(old.store)["roots"]["r"]
    assert found["deletions_paused"] is None
    assert found["last_reconcile"]["new"] == 0


# -- schema 2 ------------------------------------------------------------------------------------

CURVES = {"text": Curve(1.0, 2.0, 3.0)}
CODES = CodesEntry("hash", "lsh", 64, "2026-01-01T00:00:00+00:00")
TUNED = Tuning(77, None, target_recall=0.95, pictures=3, tuned_at="2026-01-01T00:00:00+00:00")
CHECKPOINT = CopyCheckpoint("images-000002", {"0": 41})


@pytest.fixture
def learned(house: House) -> House:
    """Schema 2 with all that was learned, an imported root, and a pause in the state index."""
    house.pictures(3)
    synced(house)
    house.store.state.create(
        pause_id("r"), {"kind": "pause", "root": "r", "since": PAUSE["since"], "body": {}}
    )
    house.store.generations.update_meta(
        lambda meta: replace(
            meta.with_root("bought.parquet", {"path": "/b.parquet", "host": "(imported)"}),
            tuning=TUNED, relevance=CURVES, codes=CODES, copy_checkpoint=CHECKPOINT,
        )
    )  # fmt: skip
    as_schema(house.store, 2)
    return house


def values(meta: Meta) -> dict[str, Any]:
    """What is known of an index, but for where it is stored."""
    return asdict(replace(meta, schema_version=0))


def test_an_index_of_schema_2_is_upgraded_whole(learned: House):
    store = learned.store
    before, status = store.info().meta, index_status(store)
    assert (before.schema_version, before.codes, before.tuning) == (2, CODES, TUNED)
    assert before.roots.keys() == {"r", "bought.parquet"}
    upgrade(store)
    after = store.info().meta
    assert values(after) == values(before)
    assert after.schema_version == SCHEMA_VERSION
    assert index_status(store) == status
    assert store.state.read(pause_id("r")) is not None
    assert raw_meta(store).keys() == {
        "created_by", "schema_version", "index_id", "generation_id", "encoder", "profile",
        "similarity", "tuning",
    }  # fmt: skip
    upgrade(store)
    assert store.info().meta == after


def test_a_second_process_that_upgrades_undoes_nothing(learned: House):
    store, before = learned.store, raw_meta(learned.store)
    upgrade(store)
    store.generations.update_meta(
        lambda meta: replace(
            meta.with_root("new", {"path": "/new", "host": "h"}), tuning=Tuning(99)
        )
    )
    put_meta(store, before)
    upgrade(store)
    meta = store.info().meta
    assert meta.tuning == Tuning(99)
    assert meta.roots.keys() == {"r", "bought.parquet", "new"}


def test_init_upgrades_schema_2(learned: House):
    before = learned.store.info().meta
    with pytest.raises(IndexConflict, match="of schema 2: run `es-imgsearch init"):
        learned.store.generations.update_meta(lambda meta: replace(meta, tuning=Tuning(1)))
    run(learned, "init")
    after = learned.store.info().meta
    assert after.schema_version == SCHEMA_VERSION
    assert values(after) == values(before)


def test_a_reindex_of_before_is_waited_for(learned: House):
    store = learned.store
    lease = {"kind": "lock", "host": "old", "process_id": 4711, "token": "t", "since": now(900),
             "lease_seconds": 20.0, "body": {"generation": None}}  # fmt: skip
    store.state.create(REINDEX_LOCK, {**lease, "seen_at": now()})
    with pytest.raises(AlreadyRunning, match=r"4711 on old, of an earlier version.* 80 s later"):
        upgrade(store)
    store.state.delete(REINDEX_LOCK)
    store.state.create(REINDEX_LOCK, {**lease, "seen_at": now(81)})
    upgrade(store)
    assert store.info().meta.schema_version == SCHEMA_VERSION


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_daemon_of_before_is_waited_for(house: House, version: int):
    """It would write the whole `_meta` back when it registers or tunes."""
    house.pictures(3)
    synced(house)
    store = house.store
    as_schema(store, version)
    before = raw_meta(store)
    if version == 1:
        remove_state(store)

    def seen(at: str) -> None:
        if version == 1:
            body = {**before["roots"]["r"], "watched_by": watched_by(at)}
            put_meta(store, before | {"roots": {"r": body}})
            return
        store.state.delete(daemon_id("r"))
        lease = {"kind": "daemon", "root": "r", "host": "old", "process_id": 4711, "token": "t",
                 "since": now(900), "lease_seconds": 20.0, "body": {"queue": 0}}  # fmt: skip
        store.state.create(daemon_id("r"), {**lease, "seen_at": at})

    seen(now())
    for command in (["init"], ["watch", str(house.folder)], ["sync", str(house.folder)]):
        refused = run(house, *command, code=2).stderr
        assert "Process 4711 on old, of an earlier version" in refused
        assert "stop it" in refused
    assert store.info().meta.schema_version == version
    seen(now(81))
    upgrade(store)
    assert store.info().meta.schema_version == SCHEMA_VERSION


def test_the_lease_of_a_daemon_of_this_process_is_in_no_way(house: House):
    house.pictures(1)
    with house.watched():
        until(lambda: house.store.state.read(daemon_id("r")))
        as_schema(house.store, 2)
        upgrade(house.store)
    assert house.store.info().meta.schema_version == SCHEMA_VERSION


# -- schema 3 ------------------------------------------------------------------------------------

TAKEN = {
    # Tokyo and New York, half past midnight of New Year by their own clocks, and no offset.
    "tokyo": ("2024-01-01T00:30:00+09:00", "2024-01-01T00:30:00"),
    "new york": ("2023-12-31T23:30:00-05:00", "2023-12-31T23:30:00"),
    "none": ("2024-01-01T12:00:00", "2024-01-01T12:00:00"),
    "millis": ("2024-01-01T00:00:00.250Z", "2024-01-01T00:00:00.250"),
    "year": ("2024", "2024-01-01T00:00:00"),
    "epoch": ("1704112200000", "2024-01-01T12:30:00"),
}


@pytest.fixture
def undated(
    real_store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> House:
    """Schema 3: pictures with `taken_at`, and no mapping of `taken_local`."""

    def body_of_before(*given: Any) -> dict[str, Any]:
        body = index_body(*given)
        for name in ("taken_local", "taken_from"):
            body["mappings"]["properties"].pop(name)
        return body

    with monkeypatch.context() as patch:
        patch.setattr(generations, "index_body", body_of_before)
        house = House(real_store, settings, tmp_path)
    vectors = unit(np.random.default_rng(0).normal(size=(len(TAKEN) + 1, FakeEncoder.dims)))
    writes = []
    for (name, (at, _)), vector in zip([*TAKEN.items(), ("plain", ("", ""))], vectors, strict=True):
        key = image_id("r", name)
        document = {"image_id": key, "image_name": name, "root": "r", "folder": ".",
                    "relative_path": name, "modified_at": "2020-01-01T00:00:00",
                    "size_bytes": 1, "mtime_ns": 1, "content_id": name,
                    VECTOR_FIELD: vector, **({"taken_at": at} if at else {})}  # fmt: skip
        writes.append(Write(key, document=document))
    assert set(real_store.documents.write(writes).values()) == {None}
    real_store.refresh()
    as_schema(real_store, 3)
    return house


def found(store: Store, **days: str) -> set[str]:
    clauses = filter_clauses(None, store.info().properties, **days)
    pages = store.listings.pages(clauses, fields=("relative_path",), vectors=(), size=10)
    return {hit["_source"]["relative_path"] for hits in pages for hit in hits}


def test_documents_of_schema_3_get_the_date_of_the_camera(undated: House):
    store = undated.store
    before = undated.indexed()
    # Without the field they are found by what they have, which is UTC.
    assert found(store, since="2024-01-01", until="2024-01-01") == {
        "new york", "none", "millis", "year", "epoch",
    }  # fmt: skip
    upgrade(store)
    assert store.info().meta.schema_version == SCHEMA_VERSION
    for name, (at, local) in TAKEN.items():
        document = store.documents.get(image_id("r", name))
        assert (document["taken_at"], document["taken_local"]) == (at, local)
    assert "taken_local" not in store.documents.get(image_id("r", "plain"))
    for name, row in undated.indexed().items():
        np.testing.assert_array_equal(row[-1], before[name][-1])
    assert found(store, since="2024-01-01", until="2024-01-01") == {
        "tokyo", "none", "millis", "year", "epoch",
    }  # fmt: skip
    assert found(store, until="2023-12-31") == {"new york", "plain"}
    versions = store.documents.sources([image_id("r", name) for name in TAKEN])
    upgrade(store)
    assert store.documents.sources([image_id("r", name) for name in TAKEN]) == versions


def test_a_daemon_of_schema_3_is_upgraded_by_its_first_start(undated: House):
    undated.picture("IMG_20240203_040506.png", 1)
    upgrade(undated.store)
    undated.synced(allow_deletes=True)
    document = undated.store.documents.get(image_id("r", "IMG_20240203_040506.png"))
    assert document["taken_local"] == "2024-02-03T04:05:06"
    assert document["taken_from"] == "name"


def test_describe_upgrades_first(undated: House):
    """Describers whose new fields it lacks would be left out, and their fields be lost."""
    done = redescribe_pictures(undated.store, undated.settings, encoder=undated.encoder)
    assert {"exif", "sidecar"} <= set(done.describers)
    assert undated.store.info().meta.schema_version == SCHEMA_VERSION
