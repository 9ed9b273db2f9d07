"""What `register_roots` does when another process registers a root at the same time."""

from __future__ import annotations

from pathlib import Path

import pytest

from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import RootError
from es_imgsearch.records import Root
from es_imgsearch.testing import FakeEncoder, MemoryStore
from es_imgsearch.watch import roots
from es_imgsearch.watch.roots import register_roots


@pytest.fixture
def store() -> MemoryStore:
    made = MemoryStore()
    made.generations.create(new_meta(seal_of(FakeEncoder()), "exact", "cosine"))
    return made


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of roots whose state is removed, as that of another folder of before."""
    names: list[str] = []
    monkeypatch.setattr(roots, "_forget", lambda _store, name: names.append(name))
    return names


def meanwhile(store: MemoryStore, name: str, path: Path, host: str) -> None:
    """Have another process register a root after the next change has seen that there is none."""
    update = store.generations.update_meta

    def late(change):
        change(store.info().meta)
        update(lambda meta: meta.with_root(name, {"path": str(path), "host": host}))
        return update(change)

    store.generations.update_meta = late  # type: ignore[method-assign]


def test_the_state_of_a_root_that_another_process_has_just_registered_stays(
    store: MemoryStore, tmp_path: Path, forgotten: list[str]
):
    root = Root("r", tmp_path)
    meanwhile(store, "r", tmp_path, "host")
    meta: Meta = register_roots(store, [root], "host")
    assert meta.roots["r"] == {"path": str(tmp_path), "host": "host"}
    assert forgotten == []


def test_the_state_of_a_root_of_before_goes_when_its_name_is_new(
    store: MemoryStore, tmp_path: Path, forgotten: list[str]
):
    register_roots(store, [Root("r", tmp_path)], "host")
    register_roots(store, [Root("r", tmp_path)], "host")
    assert forgotten == ["r"]


def test_a_name_that_another_host_has_just_taken_is_refused(store: MemoryStore, tmp_path: Path):
    meanwhile(store, "r", tmp_path, "other")
    with pytest.raises(RootError, match="belongs to"):
        register_roots(store, [Root("r", tmp_path)], "host")
    assert store.info().meta.roots["r"]["host"] == "other"


def test_of_several_roots_none_is_entered_if_one_is_refused(store: MemoryStore, tmp_path: Path):
    for name in "ab":
        (tmp_path / name).mkdir()
    meanwhile(store, "b", tmp_path / "elsewhere", "host")
    with pytest.raises(RootError):
        register_roots(store, [Root(each, tmp_path / each) for each in "ab"], "host")
    assert set(store.info().meta.roots) == {"b"}
