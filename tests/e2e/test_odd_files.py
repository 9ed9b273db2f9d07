"""Files whose names, metadata or sidecars are odd: none ends a run, or is read again for ever."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from es_imgsearch.elastic.store import Store
from es_imgsearch.records import stored_path
from es_imgsearch.settings import Settings
from tests.support.house import House, compare_again, paint, until

NAMES = [
    b"caf\xe9.png", b"\xff\xfe.png", b"a\x01\x7f\x1b.png", b"new\nline.png", b"\t .png", b" .png ",
    b"back\\slash.png", b"\\x00.png", b"\\xff.png", b"*?[a].png", b"\"quoted\".png", b"-rf.png",
    "\u202egnp.png".encode(), "e\u0301.png".encode(), "\U0001f4f7.png".encode(), b"%00.png",
    b"\xed\xa0\x80.png", b"x" * 251 + b".png", b"\xe9" * 251 + b".png", b"\\x41" * 60 + b".png",
    ("\U0001f4f7" * 62).encode() + b".png", b"a.b.c..png", b"\xf0\x9f.png", b"\xc0\x80.png",
]  # fmt: skip
LONG = "k" * 40_000


def nested(levels: int) -> object:
    return {"x": nested(levels - 1)} if levels else 1


SIDECARS = {
    "keywords": [LONG, "\0", "a\0b", "", 5, None, {"a": 1}, ["b"], *map(str, range(3000))],
    "creator": [LONG, {"name": "x"}, [[["y"]]]],
    "title": "\U0001f4f7" * 200_000,
    "description": {"en": "x"},
    "rating": 1e300,
    "product_id": LONG,
    "source_url": "x" * 100_000,
    "attributes": {
        "a.b": {"": 1, "c\0": 2}, LONG: LONG, "deep": [[[[[[[[[[[[1]]]]]]]]]]]], "n": 10**30,
        "x": nested(30),
        **{f"k{n}": n for n in range(5000)},
    },
    "root": 5, "relative_path": ["x"], "mtime_ns": "never", "image_embedding": [1], "_id": "x",
    "describe_errors": {"a": 1}, "taken_at": "30828-01-01", "location": [1e9, float("inf")],
}  # fmt: skip


@pytest.fixture
def house(real_store: Store, settings: Settings, tmp_path: Path) -> House:
    return House(real_store, settings, tmp_path)


def deep_folder(top: Path) -> str:
    """A folder whose path is longer than the 4,096 bytes that a path may have."""
    here = os.getcwd()
    try:
        os.chdir(top)
        for _ in range(20):
            os.mkdir("d" * 250)
            os.chdir("d" * 250)
            paint(Path("in.png"), 5)
    finally:
        os.chdir(here)
    return "d" * 250


def test_names_are_stored_once(house: House):
    wanted = set()
    for seed, name in enumerate(NAMES):
        path = os.fsencode(house.folder) + b"/" + name
        paint(path, seed)
        wanted.add(stored_path(os.fsdecode(name)))
    (house.folder / "plain.png").symlink_to("x" * 200)
    with house.watched() as daemon:
        until(lambda: daemon.indexer.pipeline.in_flight == 0)
        until(lambda: {path for _, path in house.indexed()} == wanted)
        compare_again(daemon)
        until(lambda: daemon.indexer.pipeline.in_flight == 0)
        assert daemon.indexer.counts.stored == len(NAMES)
        assert daemon.indexer.counts.failed == 0
    assert house.synced().counts.stored == 0


def test_a_path_that_is_too_long_is_unknown_and_ends_nothing(house: House):
    house.pictures(2)
    deep_folder(house.folder)
    indexer = house.synced()
    reached = indexer.counts.stored - 2
    assert 10 < reached < 20
    assert indexer.last_comparisons["r"].unknown >= 1
    with house.watched() as daemon:
        until(lambda: daemon.indexer.pipeline.in_flight == 0)
        house.picture("new.png", 77)
        until(lambda: ("r", "new.png") in house.indexed())
        assert daemon.indexer.counts.stored == 1


def test_sidecars_of_odd_values_cost_themselves(house: House):
    house.pictures(3)
    (house.folder / "000.json").write_text(json.dumps(SIDECARS).replace("Infinity", "1e308"))
    (house.folder / "001.json").write_text(json.dumps({"title": "\ud800 half", "n": [1, "\udfff"]}))
    indexer = house.synced()
    assert (indexer.counts.stored, indexer.counts.failed) == (3, 0)
    again = house.synced()
    assert (again.counts.stored, again.counts.failed) == (0, 0)
