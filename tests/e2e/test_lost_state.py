"""The index of state documents was deleted, or restored from another snapshot."""

from __future__ import annotations

from pathlib import Path

import pytest

from es_imgsearch.errors import RootError
from es_imgsearch.records import Root
from es_imgsearch.watch.roots import register_roots
from tests.support.house import House
from tests.support.old_schemas import remove_state
from tests.support.reindexing import run, synced


@pytest.fixture
def two_roots(house: House) -> House:
    """Pictures of the roots `r` and `other`."""
    house.pictures(3)
    other = house.folder.with_name("other")
    other.mkdir()
    house.folders.append(other)
    (other / "000.png").write_bytes((house.folder / "000.png").read_bytes())
    synced(house)
    house.store.refresh()
    return house


@pytest.mark.parametrize("is_deleted", [True, False], ids=["index deleted", "document missing"])
def test_a_name_whose_folder_is_forgotten_is_not_taken_without_a_word(
    two_roots: House, tmp_path: Path, is_deleted: bool
):
    store, folder = two_roots.store, two_roots.folder
    if is_deleted:
        remove_state(store)
        assert "init" in run(two_roots, "sync", str(folder), code=2).stderr
        run(two_roots, "init")
    else:
        store.state.delete(store.info().meta.roots_document)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with pytest.raises(RootError, match=r"holds 3 pictures of 'r'"):
        register_roots(store, [Root("r", elsewhere)], "third")
    for _ in range(2):
        refused = run(two_roots, "sync", str(folder), code=2).stderr
        assert f"es-imgsearch sync r={folder} --allow-deletes" in refused
    assert store.listings.count() == 4
    # As the message says; the document of the roots is there again then.
    run(two_roots, "sync", f"r={folder}", "--allow-deletes")
    assert store.info().meta.roots.keys() == {"r"}
    with pytest.raises(RootError, match="belongs to"):
        register_roots(store, [Root("r", elsewhere)], "third")
    with pytest.raises(RootError, match=r"holds 1 pictures? of 'other'"):
        register_roots(store, [Root("other", elsewhere)], "third")
    run(two_roots, "sync", f"other={two_roots.folders[1]}", "--allow-deletes")
    store.refresh()
    assert store.listings.counts_by_root() == {"r": 3, "other": 1}
    run(two_roots, "sync", str(folder))
