"""Somebody deletes the index, or moves its alias, under a running daemon."""

from __future__ import annotations

import pytest

from es_imgsearch.elastic.mapping import Companion, new_meta
from es_imgsearch.elastic.naming import failures_generation
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import ImgSearchError
from es_imgsearch.testing import FakeEncoder, remove_index
from tests.support.house import House, Running, described, until
from tests.support.reindexing import run

# The daemon of a test is a thread.
ends = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")

SAID = {
    "equal seal": "made again, or its alias moved, while this ran.* Start this again",
    "other encoder": "made again, or its alias moved, while this ran.* Start this again",
    "other schema": "has schema 99, newer than this program's",
    "not ours": "was not made by es_imgsearch",
}


def indices(store: Store) -> set[str]:
    return set(store.connection.request("GET", f"/{store.index}*"))


def move_alias(store: Store, source: str, target: str) -> None:
    actions = [
        {"remove": {"index": source, "alias": store.index}},
        {"add": {"index": target, "alias": store.index, "is_write_index": True}},
    ]
    store.connection.request("POST", "/_aliases", {"actions": actions})


@ends
@pytest.mark.parametrize("which", ["pictures", "failures", "state"])
def test_a_deleted_index_ends_the_daemon_with_what_to_do_and_is_not_made_by_a_bulk(
    house: House, which: str
):
    house.pictures(3)
    name = house.store.info().name
    of = {
        "pictures": name,
        "failures": failures_generation(house.store.index, name),
        "state": f"{Companion.STATE.alias(house.store.index)}-000001",
    }[which]
    daemon = Running(house.indexer())
    house.settle()
    before = indices(house.store)
    house.store.connection.request("DELETE", f"/{of}")
    house.picture("new.png", 50)
    (house.folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    until(lambda: daemon.error)
    with pytest.raises(ImgSearchError, match="make it with `es-imgsearch init"):
        daemon.stop()
    assert indices(house.store) == before - {of}
    # As it says; then it goes on.
    run(house, "init", "--encoder", "fake")
    if which == "state":
        # The index holds pictures of a folder that it has forgotten.
        release = ["sync", f"r={house.folder}", "--allow-deletes"]
        run(house, *release, code=0)
    with house.watched():
        house.settle()
    assert len(house.indexed()) == 4
    assert len(house.failed()) == 1


@ends
@pytest.mark.parametrize("kind", SAID)
def test_an_alias_moved_to_another_index_is_not_followed_blindly(
    house: House, encoders: dict[str, FakeEncoder], kind: str
):
    """Nothing is written into that one by the daemon of before, and nothing deleted."""
    house.pictures(3)
    name = house.store.info().name
    other = Store(house.store.connection.client, f"{house.store.index}-two")
    target = f"{other.index}-000001"
    if kind == "not ours":
        body = {"mappings": {"properties": {"title": {"type": "text"}}}}
        other.connection.request("PUT", f"/{target}", body)
    else:
        seal = seal_of(encoders["twin" if kind == "other encoder" else "fake"])
        other.generations.create(new_meta(seal, "exact", "cosine"), described())
        target = other.info().name
    if kind == "other schema":
        answer = other.connection.request("GET", f"/{target}/_mapping")
        meta = answer[target]["mappings"]["_meta"]
        version = {**meta, "schema_version": 99}
        other.connection.request("PUT", f"/{target}/_mapping", {"_meta": version})
    mapping = other.connection.request("GET", f"/{target}/_mapping")
    try:
        daemon = Running(house.indexer())
        house.settle()
        move_alias(house.store, name, target)
        house.picture("new.png", 50)
        (house.folder / "000.png").unlink()
        until(lambda: daemon.error)
        with pytest.raises(ImgSearchError, match=SAID[kind]):
            daemon.stop()
        other.connection.request("POST", f"/{target}/_refresh")
        assert other.connection.request("GET", f"/{target}/_count")["count"] == 0
        assert other.connection.request("GET", f"/{target}/_mapping") == mapping
        move_alias(house.store, target, name)
        with house.watched():
            house.settle()
        assert len(house.indexed()) == 3
    finally:
        other.connection.request("DELETE", f"/{target}")
        remove_index(other)
