"""What pipeline and reconcile rely on, of the store in memory and of Elasticsearch alike."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from es_imgsearch.elastic.bulk import BulkWriter
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.retry import Outage
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import IndexMissing, StoreRejected
from es_imgsearch.records import FileState
from es_imgsearch.testing import FakeEncoder, MemoryStore

AnyStore = MemoryStore | Store


def unit_vector(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=FakeEncoder.dims)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def document(image_id: str, path: str | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "image_id": image_id,
        "root": "photos",
        "relative_path": path or f"{image_id}.jpg",
        "content_id": f"content-{image_id}",
        "size_bytes": 10,
        # Larger than 2**53: a float on the way would change it.
        "mtime_ns": 1_763_800_000_123_456_789,
        "image_embedding": unit_vector(hash(image_id) % 1000),
        **fields,
    }


def failure(image_id: str, **fields: Any) -> dict[str, Any]:
    return {
        "image_id": image_id,
        "root": "photos",
        "relative_path": f"{image_id}.jpg",
        "size_bytes": 10,
        "mtime_ns": 5,
        "error_class": "corrupt",
        "message": "x",
        **fields,
    }


def paths(store: AnyStore, root: str = "photos", folder: str = "", *, failures: bool = False):
    store.refresh()
    return [each.stored_path for each in store.listings.stored(root, folder, failures=failures)]


def test_a_written_document_is_listed_with_its_exact_state_after_a_refresh(any_store: AnyStore):
    assert any_store.documents.write([Write("a", document=document("a"))]) == {"a": None}
    any_store.refresh()
    (stored,) = any_store.listings.stored("photos")
    assert stored == ("a.jpg", FileState(10, 1_763_800_000_123_456_789), None, None)


def test_a_listing_is_in_the_order_of_the_paths_bytes(any_store: AnyStore):
    names = ["b.jpg", "a/b.jpg", "a b.jpg", "a.jpg", "é.jpg", "\U0001f600.jpg", "Z.jpg", "￿.jpg"]
    any_store.documents.write(
        [Write(str(n), document=document(str(n), name)) for n, name in enumerate(names)]
    )
    assert paths(any_store) == sorted(names, key=str.encode)


def test_a_listing_of_a_folder_holds_what_lies_below_it_and_no_neighbour(any_store: AnyStore):
    for n, name in enumerate(["a/1.jpg", "a/b/2.jpg", "ab/3.jpg", "a.jpg", "a b/4.jpg"]):
        any_store.documents.write([Write(str(n), document=document(str(n), name))])
    assert paths(any_store, folder="a") == ["a/1.jpg", "a/b/2.jpg"]


def test_roots_are_listed_and_counted_apart(any_store: AnyStore):
    any_store.documents.write(
        [
            Write("a", document=document("a")),
            Write("b", document=document("b", root="scans")),
            Write("c", failure=failure("c", root="scans")),
        ]
    )
    assert paths(any_store, "scans") == ["b.jpg"]
    assert any_store.listings.counts_by_root() == {"photos": 1, "scans": 1}
    assert any_store.listings.counts_by_root(failures=True) == {"scans": 1}
    assert any_store.listings.count() == 2
    assert any_store.listings.count("photos") == 1


def test_an_id_stands_in_one_place_only(any_store: AnyStore):
    any_store.documents.write([Write("a", document=document("a"))])
    any_store.documents.write([Write("a", failure=failure("a"))])
    assert (paths(any_store), paths(any_store, failures=True)) == ([], ["a.jpg"])
    any_store.documents.write([Write("a", document=document("a"))])
    assert (paths(any_store), paths(any_store, failures=True)) == (["a.jpg"], [])
    any_store.documents.write([Write("a")])
    assert (paths(any_store), paths(any_store, failures=True)) == ([], [])


def test_attempts_are_counted_until_the_file_is_good(any_store: AnyStore):
    for _ in range(3):
        any_store.documents.write([Write("a", failure=failure("a"))])
    assert any_store.documents.attempts(["a", "b"]) == {"a": 3}
    any_store.documents.write([Write("a", document=document("a"))])
    any_store.documents.write([Write("a", failure=failure("a"))])
    assert any_store.documents.attempts(["a"]) == {"a": 1}


def test_vectors_come_back_bit_for_bit_by_content(any_store: AnyStore):
    vector = unit_vector(1)
    written = document("a", content_id="c", image_embedding=vector)
    any_store.documents.write([Write("a", document=written), Write("b", document=document("b"))])
    assert any_store.documents.embedded_by_content(["c"]) == {}, "not refreshed yet"
    any_store.refresh()
    found = any_store.documents.embedded_by_content(["c", "unknown"])
    assert list(found) == ["c"]
    assert found["c"].vector.dtype == np.float32
    assert (found["c"].vector == vector).all()
    assert found["c"].fields == {}


def test_fields_of_the_encoder_come_back_with_the_vector(any_store: AnyStore):
    written = document("a", content_id="c", caption=["a cat", "a dog"], title="theirs")
    any_store.documents.write([Write("a", document=written), Write("b", document=document("b"))])
    any_store.refresh()
    found = any_store.documents.embedded_by_content(["c", document("b")["content_id"]], ["caption"])
    assert found["c"].fields == {"caption": ["a cat", "a dog"]}
    assert [each.fields for name, each in found.items() if name != "c"] == [{}]


def test_contents_and_their_holders(any_store: AnyStore):
    for image_id in ("a", "b"):
        any_store.documents.write([Write(image_id, document=document(image_id, content_id="same"))])
    any_store.refresh()
    assert any_store.documents.content_ids(["a", "x"]) == {"a": "same"}
    assert sorted(any_store.listings.ids_by_content(["same", "other"])) == [
        ("same", "a"),
        ("same", "b"),
    ]


def test_deleting_what_is_not_there_is_no_error(any_store: AnyStore):
    assert any_store.documents.write([Write("nothing")]) == {"nothing": None}


@pytest.mark.parametrize("blocks", [{"write": True}, {"read_only_allow_delete": True}])
@pytest.mark.parametrize("failures", [False, True])
def test_it_is_known_whether_something_small_can_be_written_and_nothing_is_stored(
    real_store: Store, blocks: dict[str, bool], failures: bool
):
    documents = real_store.documents
    assert not documents.is_writable("a")
    real_store.generations.create(new_meta(seal_of(FakeEncoder()), "exact", "cosine"))
    documents.write([Write(each, document=document(each)) for each in ("a", "absent2")])
    assert documents.is_writable("a")
    index = f"{real_store.index}-failures" if failures else real_store.index
    client = real_store.connection.client
    client.indices.put_settings(index=index, settings={"index.blocks": blocks})
    assert not documents.is_writable("a")
    client.indices.put_settings(index=index, settings={"index.blocks": dict.fromkeys(blocks)})
    assert documents.is_writable("a")
    real_store.refresh()
    assert real_store.listings.count() == 2


def test_one_rejected_document_does_not_harm_the_others(any_store: AnyStore):
    if isinstance(any_store, MemoryStore):
        any_store.reject = lambda each: "strict" if "unmapped" in each else None
    bad = document("b", unmapped=1)
    outcome = any_store.documents.write(
        [Write("a", document=document("a")), Write("b", document=bad)]
    )
    assert outcome["a"] is None
    assert isinstance(outcome["b"], StoreRejected)
    assert not outcome["b"].transient
    assert paths(any_store) == ["a.jpg"]


def test_a_stored_document_comes_without_its_vector(any_store: AnyStore):
    any_store.documents.write([Write("a", document=document("a"))])
    fields = any_store.documents.get("a")
    assert fields["relative_path"] == "a.jpg"
    assert "image_embedding" not in fields


def test_meta_is_merged_not_replaced(any_store: AnyStore):
    any_store.generations.update_meta(
        lambda meta: meta.with_root("one", {"path": "/1", "host": "h"})
    )
    any_store.generations.update_meta(
        lambda meta: meta.with_root("two", {"path": "/2", "host": "h"})
    )
    meta = any_store.info().meta
    assert sorted(meta.roots) == ["one", "two"]
    assert meta.seal.name == "fake"
    any_store.generations.update_meta(lambda meta: replace(meta, roots={}))
    assert not any_store.info().meta.roots


def test_creating_twice_changes_nothing(any_store: AnyStore):
    meta = any_store.info().meta
    any_store.documents.write([Write("a", document=document("a"))])
    any_store.generations.create(replace(meta, profile="compact"))
    assert any_store.info().meta.profile == meta.profile
    assert paths(any_store) == ["a.jpg"]


@pytest.mark.parametrize("real_only", ["elasticsearch"])
def test_the_server_itself_refuses_a_write_past_the_alias(real_store: Store, real_only: str):
    """A bulk to a missing index would make one with the vectors as plain floats."""
    with pytest.raises(IndexMissing, match="es-imgsearch init"):
        real_store.documents.write([Write("a", document=document("a"))])


def test_a_document_that_cannot_be_sent_or_taken_costs_no_other(real_store: Store):
    """The server cuts its preview of a long value within a letter: no reader of JSON took it."""
    real_store.generations.create(new_meta(seal_of(FakeEncoder()), "exact", "cosine"))
    odd = ["\U0001f4f7" * 8191, "\U0001f4f7" * 4000, "x\udcff", 2**70, {1: 2}, {"a": object()}, {1}]
    odd_writes = [Write(f"{n}", document=document("b", width=each)) for n, each in enumerate(odd)]
    writes = [Write("a", document=document("a")), *odd_writes, Write("c", document=document("c"))]
    writer = BulkWriter(
        real_store.documents.write_each,
        is_writable=lambda _write: False,
        outage=Outage(),
        stopping=threading.Event(),
        patience_seconds=0,
    )
    outcome = {write.image_id: error for write, error in writer.write(writes)}
    assert (outcome.pop("a"), outcome.pop("c")) == (None, None)
    assert {type(error) for error in outcome.values()} == {StoreRejected}
    assert len(outcome) == len(odd)
