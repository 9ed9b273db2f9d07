"""Checks of a cluster that a test cannot have: large, of many nodes, with wrong clocks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from es_imgsearch.manage.doctor.cluster import clocks, copies, memory, searched_bytes, shards

NODE: dict[str, Any] = {
    "name": "n1", "timestamp": 1_000_000, "asked_at_ms": 1_000_000,
    "os": {"mem": {"adjusted_total_in_bytes": 16 * 10**9}},
    "jvm": {"mem": {"heap_max_in_bytes": 8 * 10**9}},
}  # fmt: skip
INDEX: dict[str, Any] = {
    "status": "green", "number_of_replicas": 1, "number_of_shards": 2, "active_primary_shards": 2,
    "unassigned_shards": 0, "initializing_shards": 0,
}  # fmt: skip


def texts(check: Any, **given: Any) -> list[str]:
    return [each.text for each in check(SimpleNamespace(**given))]


def health(nodes: int, **changes: Any) -> dict[str, Any]:
    return {
        "index_settings": {"p": {}},
        "health": {"number_of_data_nodes": nodes, "indices": {"p": {**INDEX, **changes}}},
    }


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("hnsw", 2112), ("flat", 2048), ("int8_hnsw", 580), ("int4_hnsw", 324), ("bbq_hnsw", 142)],
)
def test_what_searches_read_of_a_vector_of_512_dims(kind: str, expected: int):
    assert searched_bytes(kind, 1, 512) == expected
    assert searched_bytes(kind, 10_000_000, 512) == 10_000_000 * expected


@pytest.mark.parametrize(("replicas", "is_too_much"), [(0, False), (1, True)])
def test_vectors_that_the_page_cache_does_not_hold(replicas: int, is_too_much: bool):
    info = SimpleNamespace(
        name="p", properties={"image_embedding": {"index_options": {"type": "hnsw"}}},
        meta=SimpleNamespace(seal=SimpleNamespace(dims=512)),
    )  # fmt: skip
    found = texts(
        memory, info=info, status={"pictures": 2_500_000}, nodes=[NODE],
        index_settings={"p": {"number_of_replicas": str(replicas)}},
    )  # fmt: skip
    assert len(found) == is_too_much
    if found:
        assert "10.6 GB" in found[0]
        assert "8.0 GB" in found[0]


@pytest.mark.parametrize(
    ("seconds", "words"), [(4, None), (-4, None), (60, "60 s ahead of"), (-7200, "7,200 s behind")]
)
def test_a_clock_that_differs(seconds: int, words: str | None):
    node = {**NODE, "timestamp": NODE["timestamp"] + 1000 * seconds}
    found = texts(clocks, nodes=[node])
    assert len(found) == (words is not None)
    assert words is None or words in found[0]


def test_one_copy_though_there_are_nodes_for_two():
    assert not texts(copies, **health(3))
    (found,) = texts(copies, **health(3, number_of_replicas=0))
    assert "the loss of a node loses pictures" in found


def test_copies_on_no_node():
    assert not texts(copies, **health(3, unassigned_shards=2, initializing_shards=1))
    (found,) = texts(copies, **health(3, status="yellow", unassigned_shards=2))
    assert "2 copies of shards are on no node" in found


def test_shards_that_are_too_large():
    given = {"index_settings": {"p": {"number_of_shards": "2"}}}
    assert not texts(shards, primary_bytes=lambda: {"p": 99 * 10**9}, **given)
    (found,) = texts(shards, primary_bytes=lambda: {"p": 102 * 10**9}, **given)
    assert "its 2 shards have 51.0 GB each" in found
