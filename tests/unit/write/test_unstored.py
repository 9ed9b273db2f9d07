"""What is remembered of files that can't be stored, through an outage and beyond a limit."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from es_imgsearch.elastic.state import unstored_id
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import StoreUnreachable
from es_imgsearch.records import Change, FileState, Root
from es_imgsearch.testing import MemoryStore
from es_imgsearch.write import unstored
from es_imgsearch.write.unstored import UnstoredFiles, unstored_files

ROOT = Root("r", Path("/pictures"))
FIRST, SECOND = FileState(1, 1), FileState(2, 2)


def change(name: str) -> Change:
    return Change(ROOT, name, 0.0)


def saved(store: MemoryStore | Store) -> dict[str, FileState]:
    read = store.state.read(unstored_id("r"))
    return unstored_files(None if read is None else read.document)


def test_an_outage_loses_nothing(any_store: MemoryStore | Store, monkeypatch: pytest.MonkeyPatch):
    files = UnstoredFiles(any_store.state)
    files.put(change("a"), FIRST, "why")

    def refused(*_: Any) -> None:
        raise StoreUnreachable("away")

    with monkeypatch.context() as outage:
        outage.setattr(any_store.state, "update", refused)
        with pytest.raises(StoreUnreachable):
            files.save()
    files.save()
    assert saved(any_store) == {"a": FIRST}


def test_what_changes_during_a_save_is_saved_by_the_next(
    any_store: MemoryStore | Store, monkeypatch: pytest.MonkeyPatch
):
    files = UnstoredFiles(any_store.state)
    files.put(change("a"), FIRST, "why")
    update = any_store.state.update

    def slow(*given: Any) -> Any:
        other = threading.Thread(target=files.put, args=(change("b"), FIRST, "why"))
        other.start()
        other.join()
        return update(*given)

    with monkeypatch.context() as during:
        during.setattr(any_store.state, "update", slow)
        files.save()
    files.save()
    assert saved(any_store) == {"a": FIRST, "b": FIRST}


def test_a_known_file_gets_its_new_state_where_no_more_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(unstored, "_MOST_FILES", 1)
    files = UnstoredFiles()
    files.put(change("a"), FIRST, "why")
    files.put(change("b"), FIRST, "why")
    files.put(change("a"), SECOND, "why")
    assert files.is_known(change("a"), SECOND)
    assert not files.is_known(change("b"), FIRST)
    assert files.count() == 1
