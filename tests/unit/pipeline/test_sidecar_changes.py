"""Which sidecars a comparison of a folder finds changed."""

from __future__ import annotations

from pathlib import Path

from es_imgsearch.pipeline.sidecar_changes import SidecarComparison, _ComparisonHistory
from es_imgsearch.records import FileState, Root

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
