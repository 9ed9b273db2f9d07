"""A root that lies in the folder given now goes once that folder holds all that it held."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from es_imgsearch.pipeline import sync as sync_module
from es_imgsearch.records import image_id
from tests.e2e.test_advice import Shell
from tests.support.house import House
from tests.support.open_errors import OpenErrors

pytestmark = pytest.mark.process

INNER, OUTER = image_id("sub", "a.png"), image_id("r", "sub/a.png")


@pytest.fixture
def shell(house: House) -> Shell:
    """Commands of which the first has indexed the inner folder."""
    house.store.generations.map_fields({"shelf": {"type": "keyword"}})
    house.picture("sub/a.png", 1)
    made = Shell(house)
    made.type("sync", str(house.folder / "sub"))
    return made


def give(house: House, key: str, shelf: str) -> None:
    result = house.store.rewrites.rewrite([key], lambda document: {**document, "shelf": shelf})
    assert result.written == [key]


def shelves(house: House) -> dict[str, str | None]:
    found = house.store.documents.sources([INNER, OUTER])
    return {key: each.source.get("shelf") for key, each in found.items()}


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_it_stays_while_its_files_cannot_be_read(
    house: House, shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
):
    errors = OpenErrors(monkeypatch, tmp_path)
    errors.set(number)
    for _ in range(2):
        # The second time the failure waits to be tried again.
        kept = shell.type("sync", str(house.folder), "--allow-deletes", code=1)
        assert "Not taken in yet: 'sub'. Of the folder given now 1 could not be read" in kept.stderr
        assert shelves(house).keys() == {INNER}
    assert "sub" in house.store.info().meta.roots
    errors.set(None)
    (house.folder / "sub/a.png").chmod(0o600)
    assert "'sub' is taken in: its 1 picture" in shell.follow(kept.stderr).stderr
    assert shelves(house).keys() == {OUTER}
    assert house.differing() == []


def test_it_stays_while_a_file_is_being_written(
    house: House, shell: Shell, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sync_module, "_UNSETTLED_SECONDS", 0.5)
    os.utime(house.folder / "sub/a.png")
    shell.environment["ES_IMGSEARCH_SETTLE_SECONDS"] = "600"
    kept = shell.type("sync", str(house.folder), "--allow-deletes", code=1)
    assert "Of the folder given now 1 still being written" in kept.stderr
    assert shelves(house).keys() == {INNER}
    shell.environment["ES_IMGSEARCH_SETTLE_SECONDS"] = "0.1"
    shell.follow(kept.stderr)
    assert shelves(house).keys() == {OUTER}


def test_a_picture_that_is_broken_by_now_does_not_keep_it(house: House, shell: Shell):
    (house.folder / "sub/a.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    taken = shell.type("sync", str(house.folder), "--allow-deletes", code=1)
    assert "'sub' is taken in" in taken.stderr
    assert shelves(house) == {}


def test_imported_fields_go_over(house: House, shell: Shell):
    house.store.connection.request(
        "PUT", f"/{house.store.index}/_settings", {"index.refresh_interval": "600s"}
    )
    give(house, INNER, "A")
    shell.type("sync", str(house.folder), "--allow-deletes")
    assert shelves(house) == {OUTER: "A"}


def test_fields_imported_after_the_outer_folder_was_indexed_go_over(
    house: House, shell: Shell, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sync_module, "_UNSETTLED_SECONDS", 0.5)
    still = house.picture("still.png", 2)
    shell.environment["ES_IMGSEARCH_SETTLE_SECONDS"] = "600"
    os.utime(house.folder / "sub/a.png", (1, 1))
    os.utime(still)
    shell.type("sync", str(house.folder), "--allow-deletes", code=1)
    assert shelves(house) == {INNER: None, OUTER: None}
    give(house, INNER, "A")
    shell.environment["ES_IMGSEARCH_SETTLE_SECONDS"] = "0.1"
    shell.type("sync", str(house.folder), "--allow-deletes")
    assert shelves(house) == {OUTER: "A"}


def test_fields_of_a_released_folder_come_back_with_its_files(house: House, shell: Shell):
    give(house, INNER, "A")
    inner = house.folder / "sub"
    inner.rename(house.folder / "other")
    released = shell.type("sync", f"sub={inner}", "--allow-deletes")
    assert "'sub' is released: 1 picture removed" in released.stderr
    assert shelves(house) == {}
    shell.type("sync", str(house.folder))
    moved = image_id("r", "other/a.png")
    assert house.store.documents.get(moved).get("shelf") == "A"
