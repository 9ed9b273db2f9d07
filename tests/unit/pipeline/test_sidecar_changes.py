"""Which sidecars a comparison of a folder finds changed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from es_imgsearch.elastic.store import Store
from es_imgsearch.pipeline.sidecar_changes import (
    SidecarChanges,
    SidecarComparison,
    _ComparisonHistory,
)
from es_imgsearch.records import FileState, Root
from es_imgsearch.testing import MemoryStore

ROOT = Root("r", Path("/pictures"))


def changed(history: _ComparisonHistory, number: int, files: dict[str, int]) -> list[str]:
    comparison = SidecarComparison(ROOT, "", number, history)
    for path, size in files.items():
        comparison.add_file(path, FileState(size, 10**18))
    return [place.name for place in comparison.end()]


def test_added_changed_and_removed_sidecars():
    history = _ComparisonHistory()
    assert changed(history, 1, {"a.xmp": 1, "b.xmp": 1, "a.png": 1}) == ["a.xmp", "b.xmp"]
    assert changed(history, 2, {"a.xmp": 1, "b.xmp": 1}) == []
    assert changed(history, 3, {"a.xmp": 1, "b.xmp": 2, "c.xmp": 1}) == ["b.xmp", "c.xmp"]
    assert changed(history, 4, {"a.xmp": 1, "b.xmp": 2, "c.xmp": 1}) == []
    assert changed(history, 5, {"a.xmp": 1, "c.xmp": 1}) == [""]
    assert changed(history, 6, {"a.xmp": 1, "b.xmp": 2, "c.xmp": 1}) == ["b.xmp"]


def test_a_quarter_of_a_million_sidecars_are_read_once():
    """Of more than 200,000 the next comparison knew none, and read them all again."""
    history = _ComparisonHistory()
    files = {f"{n // 1000}/{n}.xmp": 1 for n in range(250_000)}
    assert len(changed(history, 1, files)) == 250_000
    assert changed(history, 2, files) == []


def test_many_tables_cost_one_refresh_and_no_search_where_nothing_is_below(
    any_store: MemoryStore | Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """There were a refresh and a search for each table at each start."""
    for name in ("a", "b", "c", "f/below", "g/below"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name[0] / "metadata.csv").write_text("file_name,title\nx.jpg,One\n")
    calls: Counter[str] = Counter()

    def counted(owner: Any, name: str) -> None:
        call = getattr(owner, name)

        def counting(*given: Any, **named: Any) -> Any:
            calls[name] += 1
            return call(*given, **named)

        monkeypatch.setattr(owner, name, counting)

    counted(any_store, "refresh")
    counted(any_store.listings, "having")
    root = Root("r", tmp_path)
    store: Any = any_store
    changes = SidecarChanges(store, ["sidecar"])
    for name in "abcfg":
        changes.record(root, f"{name}/metadata.csv", 1)
    assert list(changes.outdated(1)) == []
    assert calls == {"refresh": 1, "having": 2}
    assert not changes
