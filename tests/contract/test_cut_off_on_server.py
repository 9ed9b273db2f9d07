"""A kNN query with a least relevance: the real server leaves out what is no longer near."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import numpy as np
import pytest

from es_imgsearch import ImageSearch
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.meta_entries import Curve
from es_imgsearch.elastic.queries import cosine_to_similarity
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import UsageError
from es_imgsearch.search.relevance import QueryRelevance, background_moments
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import FakeEncoder, remove_index

COUNT = 40
FEW = [*range(8), *range(COUNT - 15, COUNT)]
COLOURS = [f"rgb({6 * n}, 90, {250 - 6 * n})" for n in range(COUNT)]


@pytest.fixture(params=["cosine", "dot_product", "l2_norm"], scope="module")
def store(request: pytest.FixtureRequest, es_url: str) -> Iterator[Store]:
    settings = load_settings({"es_url": es_url, "index": f"t-{uuid.uuid4().hex[:12]}"})
    store = Store(connect(settings), settings.index)
    encoder = FakeEncoder()
    store.generations.create(new_meta(seal_of(encoder), "balanced", request.param))
    vectors = encoder.embed_texts(COLOURS)
    writes = [
        Write(
            f"{n:032x}",
            {
                "image_id": f"{n:032x}",
                "content_id": f"{n:064x}",
                "root": "r",
                "relative_path": f"{n}",
                "image_embedding": vectors[n],
            },
        )
        for n in range(COUNT)
    ]
    assert set(store.documents.write(writes).values()) == {None}
    store.refresh()
    yield store
    remove_index(store)


def test_only_what_is_relevant_enough_is_found(store: Store, es_url: str):
    settings = load_settings({"es_url": es_url, "index": store.index})
    with ImageSearch(settings=settings, encoder=FakeEncoder()) as client:
        kept = client.search_text(COLOURS[3], k=COUNT)
        at_least = kept[5].relevance
        assert at_least is not None
        cut = client.knn_query(COLOURS[3], k=COUNT, min_relevance=at_least - 1e-3)
    body = {"query": {"bool": {"must": [{"knn": cut}]}}, "size": COUNT}
    hits = store.connection.request("POST", f"/{store.index}/_search", body)["hits"]["hits"]
    expected = {hit.image_id for hit in kept if (hit.relevance or 0) >= at_least - 1e-3}
    assert {hit["_id"] for hit in hits} == expected
    assert 6 <= len(expected) < COUNT


def test_without_relevance_only_what_is_nearer_than_the_average_is_found(store: Store, es_url: str):
    # Fewer than 30 pictures have no relevance.
    store.documents.delete([f"{n:032x}" for n in range(COUNT) if n not in FEW])
    store.refresh()
    settings = load_settings({"es_url": es_url, "index": store.index})
    with ImageSearch(settings=settings, encoder=FakeEncoder()) as client:
        whole = client.knn_query(COLOURS[3], k=COUNT)
        assert "similarity" not in whole
        cut = client.knn_query(COLOURS[3], k=COUNT, min_relevance=0.1)
        query = client.embed(COLOURS[3])
        with pytest.raises(UsageError, match="from 0 to 1"):
            client.knn_query(COLOURS[3], min_relevance=10)
    body = {"query": {"bool": {"must": [{"knn": cut}]}}, "size": COUNT}
    hits = store.connection.request("POST", f"/{store.index}/_search", body)["hits"]["hits"]
    cosines = FakeEncoder().embed_texts(COLOURS) @ query
    cosines[[n for n in range(COUNT) if n not in FEW]] = np.nan
    least = sum(background_moments(cosines[FEW]))
    near = [n for n in np.argsort(-cosines, kind="stable") if cosines[n] >= least]
    assert 0 < len(near) < len(FEW) // 2
    assert {hit["_id"] for hit in hits} == {f"{n:032x}" for n in near}
    scores = [hit["_score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("probability", [0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99])
@pytest.mark.parametrize(
    "curve", [Curve(-7.7, 0.4, 8.9), Curve(-5.3, 1.4, 1.5), Curve(-2.0, 1.0, 0.0)]
)
def test_the_cosine_of_a_relevance_has_that_relevance(curve: Curve, probability: float):
    relevance = QueryRelevance(curve, 0.2, 0.3)
    cosine = relevance.cosine_of(probability)
    if -1 < cosine < 1:
        assert relevance.probability(cosine) == pytest.approx(probability, abs=1e-4)
    else:
        assert (relevance.probability(cosine) > probability) == (cosine < 0)


@pytest.mark.parametrize(
    ("curve", "probability", "cosine"),
    [
        (Curve(-1.0, 0.0, 0.0), 0.5, -1.0),
        (Curve(-1.0, 1.0, 1.0), 0.0, -1.0),
        (Curve(-1.0, 1.0, 1.0), 1.0, 1.0),
    ],
)
def test_the_cosine_of_a_relevance_that_no_cosine_has(
    curve: Curve, probability: float, cosine: float
):
    assert QueryRelevance(curve, 0.2, 0.3).cosine_of(probability) == cosine


def test_the_greatest_distance_of_a_cosine():
    assert cosine_to_similarity(1.0, "l2_norm") == 0.0
    assert cosine_to_similarity(0.0, "l2_norm") == pytest.approx(2**0.5)
    assert cosine_to_similarity(0.3, "cosine") == cosine_to_similarity(0.3, "dot_product") == 0.3
