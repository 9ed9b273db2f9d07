"""`Rewrites.rewrite` on the real Elasticsearch: no profile, similarity or field loses a vector."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import (
    SIMILARITIES,
    VECTOR_FIELD,
    Companion,
    failures_body,
    index_body,
    new_meta,
    profile_names,
)
from es_imgsearch.elastic.meta import Seal
from es_imgsearch.elastic.naming import pinned_alias
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.reduction import Reduction, fit, store_reduction
from es_imgsearch.errors import IndexConflict, StoreBusy
from es_imgsearch.records import Grid
from es_imgsearch.testing import remove_index

DIMS, COUNT = 64, 40
SEAL = Seal(name="fake", revision="1", dims=DIMS, fingerprint="f")
GRID = Grid.parse("2x2+centre")
# As a describer brings it: a vector that `_source` keeps, like the perceptual hash.
NEW_FIELDS = [{"face_embedding": {"type": "dense_vector", "dims": 8, "similarity": "cosine"}}]


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def made(number: int, vector: np.ndarray, *, regions: bool) -> dict[str, Any]:
    random = np.random.default_rng(number)
    document: dict[str, Any] = {
        "image_id": f"{number:03}",
        "image_name": f"{number}.jpg",
        "root": "photos",
        "relative_path": f"a/{number:03}.jpg",
        "folder": "a",
        "content_id": f"c{number}",
        "size_bytes": number,
        # Larger than 2**53: a float on the way would change it.
        "mtime_ns": 1_763_800_000_123_456_789 + number,
        "tags": ["sea", "cat"],
        "tag_scores": {"sea": 0.5},
        "attributes": {"price": 3},
        "title": "a “title”",
        "location": {"lat": 1.25, "lon": -7.5},
        VECTOR_FIELD: vector,
    }
    if number % 4:
        document["perceptual_hash"] = f"{int(random.integers(2**63)):016x}"
        document["colour_embedding"] = unit(random.random((1, 108)))[0]
        document["face_embedding"] = unit(random.normal(size=(1, 8)))[0]
    if regions and number % 3:
        tiles = unit(random.normal(size=(5, DIMS)))
        document["regions"] = [
            {"box": [n, 0, 20, 30], "embedding": tile} for n, tile in enumerate(tiles)
        ]
    return document


def plain(value: Any) -> Any:
    """What may be compared: of vectors the bits."""
    if isinstance(value, np.ndarray):
        return value.astype(np.float32).tobytes()
    if isinstance(value, dict):
        return {name: plain(each) for name, each in sorted(value.items())}
    if isinstance(value, list):
        # A vector that `_source` keeps comes as the numbers that were sent.
        if value and all(isinstance(each, float) for each in value):
            return np.asarray(value, np.float32).tobytes()
        return [plain(each) for each in value]
    return value


def seen(store: Store) -> dict[str, Any]:
    """Every document as a change sees it, by id."""
    found: dict[str, Any] = {}

    def look(document: dict[str, Any]) -> None:
        found[document["image_id"]] = plain(document)

    store.rewrites.rewrite([f"{n:03}" for n in range(COUNT)], look)
    return found


def filled(store: Store, documents: list[dict[str, Any]]) -> None:
    results = store.documents.write([Write(each["image_id"], document=each) for each in documents])
    assert set(results.values()) == {None}


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("profile", [each for each in profile_names() if each != "reduced"])
def test_every_profile_keeps_every_vector_bit_for_bit(
    real_store: Store, profile: str, similarity: str
):
    real_store.generations.create(new_meta(SEAL, profile, similarity, grid=GRID), NEW_FIELDS)
    vectors = unit(np.random.default_rng(5).normal(size=(COUNT, DIMS)))
    documents = [made(n, vector, regions=True) for n, vector in enumerate(vectors)]
    filled(real_store, documents)
    for turn in range(3):
        done = real_store.rewrites.rewrite(
            [each["image_id"] for each in documents],
            lambda document, turn=turn: {**document, "caption": f"turn {turn}"},
        )
        assert sorted(done.written) == [each["image_id"] for each in documents]
        assert (done.unchanged, done.missing, done.refused) == ([], [], {})
    wanted = {each["image_id"]: plain({**each, "caption": "turn 2"}) for each in documents}
    assert seen(real_store) == wanted
    # And searches know them as before: by the graph, by every vector, by their tiles.
    real_store.refresh()
    hits = real_store.searches.search({"query": {"exists": {"field": VECTOR_FIELD}}, "size": COUNT})
    assert len(hits["hits"]["hits"]) == COUNT
    assert np.array_equal(real_store.documents.vector("007"), vectors[7])


def test_the_bytes_of_a_reduced_index_stay_too(real_store: Store):
    vectors = unit(np.random.default_rng(5).normal(size=(200, DIMS)))
    reduction: Reduction = fit(vectors, 16)
    try:
        store_reduction(real_store, reduction)
        real_store.generations.create(
            new_meta(SEAL, "reduced", "cosine", reduction.entry()), NEW_FIELDS
        )
        reduced = reduction.reduce(vectors[:COUNT])
        documents = [made(n, vector, regions=False) for n, vector in enumerate(reduced)]
        filled(real_store, documents)
        ids = [each["image_id"] for each in documents]
        assert (
            len(real_store.rewrites.rewrite(ids, lambda each: {**each, "caption": "x"}).written)
            == COUNT
        )
        assert seen(real_store) == {
            each["image_id"]: plain({**each, "caption": "x"}) for each in documents
        }
    finally:
        remove_index(real_store, Companion.REDUCTION.alias(real_store.index))


def test_vectors_of_any_length_keep_their_direction_and_length(real_store: Store):
    """Imported vectors need not be of unit length; the server stores them apart from it."""
    real_store.generations.create(new_meta(SEAL, "balanced", "cosine"), NEW_FIELDS)
    random = np.random.default_rng(5)
    vectors = (random.normal(size=(COUNT, DIMS)) * 37).astype(np.float32)
    filled(real_store, [made(n, vector, regions=False) for n, vector in enumerate(vectors)])
    ids = [f"{n:03}" for n in range(COUNT)]
    for _ in range(3):
        assert (
            len(real_store.rewrites.rewrite(ids, lambda each: {**each, "caption": "x"}).written)
            == COUNT
        )
    real_store.refresh()
    for n in (0, 7, 39):
        assert real_store.documents.vector(f"{n:03}") == pytest.approx(vectors[n], rel=1e-6)


def small(store: Store) -> list[str]:
    store.generations.create(new_meta(SEAL, "exact", "cosine"), NEW_FIELDS)
    vectors = unit(np.random.default_rng(5).normal(size=(3, DIMS)))
    filled(store, [made(n, vector, regions=False) for n, vector in enumerate(vectors)])
    return ["000", "001", "002"]


def test_what_was_written_a_moment_ago_is_seen_and_what_is_not_there_is_told(real_store: Store):
    ids = small(real_store)
    done = real_store.rewrites.rewrite(
        [*ids, "nobody", "001"], lambda each: None if each["image_id"] == "002" else each
    )
    assert sorted(done.written) == ["000", "001"]
    assert (list(done.unchanged), list(done.missing), done.refused) == (["002"], ["nobody"], {})


def test_what_somebody_else_writes_meanwhile_is_changed_and_not_undone(real_store: Store):
    ids = small(real_store)
    real_store.refresh()
    other = Store(real_store.connection.client, real_store.index)
    calls: list[str] = []

    def change(document: dict[str, Any]) -> dict[str, Any] | None:
        calls.append(document["image_id"])
        if len(calls) == 1:
            # Between reading and writing: one is written by somebody else, one deleted.
            theirs = made(1, document[VECTOR_FIELD], regions=False) | {"title": "theirs"}
            assert (
                other.documents.write([Write("001", document=theirs), Write("002")])["001"] is None
            )
        return {**document, "caption": "ours"}

    done = real_store.rewrites.rewrite(ids, change)
    assert sorted(done.written) == ["000", "001"]
    assert (list(done.missing), done.refused) == (["002"], {})
    assert calls.count("001") == 2
    stored = real_store.documents.get("001")
    assert (stored["title"], stored["caption"]) == ("theirs", "ours")


def test_a_document_that_is_written_all_the_time_is_given_up(real_store: Store):
    ids = small(real_store)
    other = Store(real_store.connection.client, real_store.index)

    def change(document: dict[str, Any]) -> dict[str, Any]:
        theirs = made(0, document[VECTOR_FIELD], regions=False)
        assert other.documents.write([Write("000", document=theirs)])["000"] is None
        return {**document, "caption": "ours"}

    done = real_store.rewrites.rewrite(ids[:1], change)
    assert isinstance(done.refused["000"], StoreBusy)
    assert "caption" not in real_store.documents.get("000")


def test_many_writers_lose_no_change(real_store: Store):
    """Four threads append their names to the same three documents, at the same time."""
    ids = small(real_store)
    real_store.refresh()
    names = [f"writer {n}" for n in range(4)]
    left: dict[str, set[str]] = {}

    def append(name: str) -> None:
        store, waiting = Store(real_store.connection.client, real_store.index), set(ids)
        for _ in range(20):
            done = store.rewrites.rewrite(
                sorted(waiting), lambda each: {**each, "tags": [*each["tags"], name]}
            )
            waiting -= set(done.written)
            if not waiting:
                break
        left[name] = waiting

    threads = [threading.Thread(target=append, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert left == {name: set() for name in names}
    for image_id in ids:
        assert sorted(real_store.documents.get(image_id)["tags"]) == sorted(["cat", "sea", *names])


def test_one_document_the_mapping_refuses_does_not_harm_the_others(real_store: Store):
    ids = small(real_store)
    done = real_store.rewrites.rewrite(
        ids, lambda each: {**each, **({"unmapped": 1} if each["image_id"] == "001" else {})}
    )
    assert sorted(done.written) == ["000", "002"]
    assert "strict" in str(done.refused["001"])
    real_store.refresh()
    assert real_store.documents.vector("001").shape == (DIMS,)


def test_a_change_cannot_take_the_vector_away(real_store: Store):
    ids = small(real_store)
    with pytest.raises(ValueError, match=VECTOR_FIELD):
        real_store.rewrites.rewrite(ids, lambda each: {"image_id": each["image_id"]})
    real_store.refresh()
    assert real_store.documents.vector("001").shape == (DIMS,)


def test_a_field_that_cannot_be_read_back_stops_it(real_store: Store):
    body = index_body(new_meta(SEAL, "exact", "cosine"), NEW_FIELDS)
    body["mappings"]["_source"]["excludes"].append("title")
    real_store.generations.make_generation(real_store.connection.failures, failures_body())
    real_store.generations.make_generation(real_store.index, body)
    filled(real_store, [made(0, np.eye(DIMS, dtype=np.float32)[0], regions=False)])
    with pytest.raises(IndexConflict, match="title"):
        real_store.rewrites.rewrite(["000"], lambda each: each)


def test_it_stays_in_the_generation_that_it_read(real_store: Store):
    """The alias moves between reading and writing to an index of the same dims and sequence."""
    ids = small(real_store)
    real_store.refresh()
    client, index = real_store.connection.client, real_store.index
    before = real_store.info().name
    twin = f"{index}-000002"
    body = index_body(new_meta(SEAL, "exact", "cosine"), NEW_FIELDS)
    client.indices.create(index=twin, mappings=body["mappings"], settings=body["settings"])
    try:
        other = unit(np.random.default_rng(6).normal(size=(3, DIMS)))
        for n, vector in enumerate(other):
            client.index(index=twin, id=ids[n], document=made(n, vector.tolist(), regions=False))

        def change(document: dict[str, Any]) -> dict[str, Any]:
            client.indices.update_aliases(
                actions=[
                    {"remove": {"index": before, "alias": index}},
                    {"add": {"index": twin, "alias": index, "is_write_index": True}},
                ]
            )
            return {**document, "caption": "ours"}

        assert real_store.rewrites.rewrite(ids[:1], change).written == ["000"]
        real_store.refresh()
        client.indices.refresh(index=twin)
        assert np.array_equal(real_store.documents.vector("000"), other[0])
        assert "caption" not in real_store.documents.get("000")
        pinned = client.get(index=pinned_alias(before), id="000")
        assert pinned["_source"]["caption"] == "ours"
    finally:
        client.indices.delete(index=twin)
