"""What is the same on every supported version of Elasticsearch, on the one that runs."""

from __future__ import annotations

import pytest

from es_imgsearch.elastic.bulk import action_line, bulk_results, json_line
from es_imgsearch.elastic.mapping import VECTOR_FIELD, Companion, new_meta
from es_imgsearch.elastic.server.version import check
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import StoreRejected
from es_imgsearch.records import REGIONS_FIELD, Grid
from es_imgsearch.testing import FakeEncoder

DOCUMENT = {
    "image_id": "1",
    "root": "photos",
    "relative_path": "a.jpg",
    "perceptual_hash": "00ff00ff00ff00ff",
    "face": [0.6, 0.8],
}
FIELDS = [{"face": {"type": "dense_vector", "dims": 2, "similarity": "cosine"}}]


def test_this_version_is_supported(real_store: Store) -> None:
    assert check(real_store.connection.version()) is None


def test_the_mapping_decides_which_vectors_source_keeps(
    real_store: Store, fake_encoder: FakeEncoder
) -> None:
    """A 9.2 or later leaves every vector out of `_source` unless the index says otherwise."""
    grid = Grid.parse("2x2")
    meta = new_meta(seal_of(fake_encoder), "exact", "cosine", grid=grid)
    real_store.generations.create(meta, FIELDS)
    vector = [1.0, *[0.0] * (fake_encoder.dims - 1)]
    tiles = [{"box": [0, 0, 1, 1], "embedding": vector}]
    index = real_store.index
    body = action_line("index", index, "1") + json_line(
        {**DOCUMENT, VECTOR_FIELD: vector, REGIONS_FIELD: tiles}
    )
    assert [error for _, error in bulk_results(real_store.connection, body)] == [None]
    real_store.refresh()
    found = real_store.connection.request("POST", f"/{index}/_search", {})
    got = real_store.connection.request("GET", f"/{index}/_doc/1")
    for source in (found["hits"]["hits"][0]["_source"], got["_source"]):
        assert source == {**DOCUMENT, REGIONS_FIELD: [{"box": [0, 0, 1, 1]}]}


def test_generations_and_companions_say_the_same_of_vectors(
    real_store: Store, fake_encoder: FakeEncoder
) -> None:
    meta = new_meta(seal_of(fake_encoder), "exact", "cosine")
    real_store.generations.create(meta)
    name = real_store.generations.begin_next(meta)
    real_store.companions.create(Companion.BACKGROUND)
    background = Companion.BACKGROUND.alias(real_store.index)
    serving = real_store.generations.info().name
    answers = [
        real_store.connection.request("GET", f"/{each}/_settings")
        for each in (serving, name, background)
    ]
    values = [
        body["settings"]["index"].get("mapping", {})
        for answer in answers
        for body in answer.values()
    ]
    assert len(values) == 3
    assert all(each == values[0] for each in values)
    assert values[0] in ({}, {"exclude_source_vectors": "false"})


def test_a_server_that_does_not_know_this_client_says_which_one_is_needed(
    real_store: Store,
) -> None:
    """As 10 will refuse a client of 8."""
    unknown = "application/vnd.elasticsearch+json; compatible-with=10"
    headers = {"accept": unknown, "content-type": unknown}
    with pytest.raises(StoreRejected, match=r"use a server of version 8\.18 to 9\.x\.$"):
        real_store.connection.request("POST", "/_search", {}, headers=headers)
