"""Searches with regions on the real Elasticsearch find what NumPy finds among the same vectors."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import numpy as np
import pytest
from elasticsearch import Elasticsearch

from es_imgsearch import ImageSearch
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import UsageError
from es_imgsearch.records import Grid
from es_imgsearch.search.hits import Hits
from es_imgsearch.settings import Settings, load_settings
from es_imgsearch.testing import FakeEncoder, remove_index

COUNT, TILES = 200, 5
RANDOM = np.random.default_rng(11)
QUERIES = RANDOM.normal(size=(12, FakeEncoder.dims))


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


WHOLE = unit(RANDOM.normal(size=(COUNT, FakeEncoder.dims)))
REGIONS = unit(RANDOM.normal(size=(COUNT, TILES, FakeEncoder.dims)))
# Every third picture was too small for tiles.
HAS_REGIONS = np.arange(COUNT) % 3 != 0
# Pairs of files with the same content.
WHOLE[1::10], REGIONS[1::10] = WHOLE[0::10], REGIONS[0::10]
HAS_REGIONS[1::10] = HAS_REGIONS[0::10]
FOLDERS = np.array(["home" if n % 4 == 0 else "away" for n in range(COUNT)])
CONTENTS = np.array([n - 1 if n % 10 == 1 else n for n in range(COUNT)])
BOXES = [[n * 10, n, 20, 30] for n in range(TILES)]


def document(n: int) -> dict:
    made = {
        "image_id": f"{n:03}",
        "image_name": f"{n}.jpg",
        "root": "photos",
        "folder": FOLDERS[n],
        "relative_path": f"{FOLDERS[n]}/{n:03}.jpg",
        "content_id": f"c{CONTENTS[n]}",
        "size_bytes": 1000 + n,
        "mtime_ns": n,
        "caption": "a cat" if n % 5 == 0 else "the sea",
        "image_embedding": WHOLE[n],
    }
    if HAS_REGIONS[n]:
        made["regions"] = [
            {"box": box, "embedding": vector} for box, vector in zip(BOXES, REGIONS[n], strict=True)
        ]
    return made


def filled(es_url: str, profile: str) -> Iterator[ImageSearch]:
    settings: Settings = load_settings(
        {"es_url": es_url, "index": f"t-{uuid.uuid4().hex[:12]}"}, environment={}
    )
    store, encoder = Store(connect(settings), settings.index), FakeEncoder()
    store.generations.create(
        new_meta(seal_of(encoder), profile, "cosine", grid=Grid.parse("2x2+centre"))
    )
    writes = [Write(f"{n:03}", document=document(n)) for n in range(COUNT)]
    assert set(store.documents.write(writes).values()) == {None}
    store.refresh()
    with ImageSearch(settings=settings, encoder=encoder) as client:
        yield client
    remove_index(store)
    store.connection.client.close()


@pytest.fixture(scope="module")
def client(es_url: str) -> Iterator[ImageSearch]:
    yield from filled(es_url, "exact")


@pytest.fixture(scope="module")
def quantised(es_url: str) -> Iterator[ImageSearch]:
    yield from filled(es_url, "balanced")


def cosines(query: np.ndarray) -> tuple[np.ndarray, list[tuple[int, ...] | None]]:
    """Of every picture the best cosine, and the box it comes from, None for the whole."""
    vector = unit(query)
    by_region = np.where(HAS_REGIONS[:, None], REGIONS @ vector, -2.0)
    whole = WHOLE @ vector
    best = by_region.argmax(axis=1)
    is_region = by_region.max(axis=1) > whole
    boxes = [tuple(BOXES[best[n]]) if is_region[n] else None for n in range(COUNT)]
    return np.maximum(whole, by_region.max(axis=1)), boxes


def agree(hits: Hits, query: np.ndarray, among: np.ndarray | None = None) -> None:
    scores, boxes = cosines(query)
    possible = np.where(np.ones(COUNT, bool) if among is None else among, scores, -9.0)
    wanted = np.sort(possible)[::-1][: len(hits)]
    assert [hit.score for hit in hits] == pytest.approx(wanted.tolist(), abs=2e-6)
    assert len({hit.image_id for hit in hits}) == len(hits)
    for hit in hits:
        n = int(hit.image_id)
        assert possible[n] == pytest.approx(hit.score, abs=2e-6)
        assert hit.matched_box == boxes[n]
        assert hit.cosine == hit.score
        assert hit.relevance is None


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("k", [1, 10, COUNT + 5])
def test_each_picture_counts_by_its_best_part(client: ImageSearch, exact: bool, k: int):
    for query in QUERIES:
        hits = client.search(query, k=k, regions=True, exact=exact)
        assert len(hits) == min(k, COUNT)
        agree(hits, query)
    if k > 1:
        assert {hit.matched_box is None for hit in hits} == {True, False}


def test_quantised_vectors_compared_again(quantised: ImageSearch):
    for query in QUERIES:
        agree(quantised.search(query, k=5, regions=True, num_candidates=150), query)


@pytest.mark.parametrize("exact", [False, True])
def test_filters_hold_for_regions(client: ImageSearch, exact: bool):
    for query in QUERIES:
        hits = client.search(query, k=60, regions=True, exact=exact, filters={"folder": "home"})
        assert len(hits) == (FOLDERS == "home").sum()
        agree(hits, query, FOLDERS == "home")


def test_a_region_of_a_stored_picture_finds_it_and_its_copy(client: ImageSearch):
    hits = client.search(REGIONS[11, 3], k=2, regions=True)
    assert {hit.image_id for hit in hits} == {"010", "011"}
    assert {hit.matched_box for hit in hits} == {tuple(BOXES[3])}
    assert hits[0].to_dict()["matched_box"] == BOXES[3]
    without = client.search(REGIONS[11, 3], k=2)
    assert without[0].score < 0.9
    assert without[0].matched_box is None
    assert "matched_box" not in without[0].to_dict()


def test_similar_leaves_the_picture_itself_out(client: ImageSearch):
    hits = client.similar("042", k=20, regions=True)
    agree(hits, WHOLE[42], np.arange(COUNT) != 42)


def test_pages_copies_and_facets(client: ImageSearch):
    query = QUERIES[0]
    everything = client.search(query, k=30, regions=True)
    page = client.search(query, k=30, regions=True, offset=7, size=6, fields=["caption"])
    assert [hit.image_id for hit in page] == [hit.image_id for hit in everything[7:13]]
    assert [hit.matched_box for hit in page] == [hit.matched_box for hit in everything[7:13]]
    assert set(page[0].fields) == {"root", "relative_path", "caption"}

    collapsed = client.search(query, k=150, regions=True, collapse=True, facets=["folder"])
    contents = [hit.fields["content_id"] for hit in collapsed]
    assert len(set(contents)) == len(contents) == 150
    best: dict[int, float] = {}
    for n, score in enumerate(cosines(query)[0]):
        best[CONTENTS[n]] = max(score, best.get(CONTENTS[n], -9.0))
    wanted = sorted(best.values(), reverse=True)[:150]
    assert [hit.score for hit in collapsed] == pytest.approx(wanted, abs=2e-6)
    assert sum(collapsed.facets["folder"].values()) == 150


def test_hybrid_ranks_by_the_joined_ranking(client: ImageSearch):
    hits = client.search(["red"], k=10, mode="hybrid", regions=True, explain=True)
    assert len(hits) == 10
    vector = client.encoder.embed_texts(["red"])[0]
    scores, boxes = cosines(vector)
    order = {int(n): rank for rank, n in enumerate(np.argsort(-scores, kind="stable"), start=1)}
    for hit in hits:
        rank = hit.explanation["ranks"]["vector"]
        if rank is not None:
            n = int(hit.image_id)
            assert scores[n] == pytest.approx(np.sort(scores)[-rank], abs=2e-6)
            assert hit.matched_box == boxes[n]
            assert order[n] - rank in (-1, 0, 1)  # copies have equal scores


def test_what_is_stored_shows_boxes_and_no_vectors(client: ImageSearch):
    assert client.get("004")["regions"] == [{"box": box} for box in BOXES]
    hit = client.search(QUERIES[0], k=1, regions=True)[0]
    assert all(set(each) == {"box"} for each in hit.fields.get("regions", ()))


def test_reused_regions_are_those_that_were_written(client: ImageSearch, quantised: ImageSearch):
    for each in (client, quantised):
        store = each.store
        found = store.documents.embedded_by_content(
            ["c10", "c12", "c13", "nothing"], ["caption"], with_regions=True
        )
        assert found.keys() == {"c10", "c12", "c13"}
        assert found["c12"].regions == []
        for n in (10, 13):
            regions = found[f"c{n}"].regions
            assert [list(region.box) for region in regions] == BOXES
            assert all(region.vector.dtype == np.float32 for region in regions)
            got = np.stack([region.vector for region in regions])
            # cosine is stored as direction and length
            assert np.abs(got - REGIONS[n]).max() <= 6e-8
            assert found[f"c{n}"].fields == {"caption": document(n)["caption"]}
        assert store.documents.embedded_by_content(["c10"])["c10"].regions == []


def test_counting_counts_pictures(client: ImageSearch):
    store = client.store
    assert store.listings.count() == COUNT
    assert store.listings.counts_by_root() == {"photos": COUNT}


def test_an_index_without_regions_says_so(es_url: str, real_store: Store, settings: Settings):
    encoder = FakeEncoder()
    real_store.generations.create(new_meta(seal_of(encoder), "exact", "cosine"))
    with ImageSearch(Elasticsearch(es_url), settings.index, encoder=encoder) as client:
        with pytest.raises(UsageError, match=r"keeps no regions: .*init --regions"):
            client.search_text("red", regions=True)
        assert list(client.search_text("red", regions=False)) == []
