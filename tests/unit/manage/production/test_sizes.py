"""Formulas of sizes: the figures of the documentation, and what holds for every number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from es_imgsearch.elastic.mapping import profile_names
from es_imgsearch.manage.production.plan import vector_kind
from es_imgsearch.manage.production.sizes import (
    GB,
    Load,
    Sizes,
    VectorKind,
    ingest_hours,
    shard_count,
    sizes_of,
)

TEN_MILLION = 10_000_000
numbers = st.integers(1, 10**12)
loads = st.builds(
    Load,
    pictures=numbers,
    nodes=st.integers(2, 500),
    replicas=st.integers(0, 1),
    document_bytes=st.floats(50, 20_000),
)
kinds = st.builds(vector_kind, st.sampled_from(profile_names()), st.integers(64, 4096))


@pytest.mark.parametrize(
    ("profile", "quantised", "cached"),
    [
        # Bytes of 512 dims: float 2048; int8 516; int4 260; bbq 78; the graph 64.
        ("exact", 0, 2048), ("balanced", 516, 580), ("compact", 260, 324), ("binary", 78, 142),
        ("reduced", 0, 160),
    ],
)  # fmt: skip
def test_bytes_of_a_vector(profile: str, quantised: int, cached: int):
    kind = vector_kind(profile, 512)
    assert kind.quantised_bytes == quantised
    assert kind.cached_bytes == cached
    assert kind.whole_bytes == (96 if profile == "reduced" else 2048)
    assert kind.stored_bytes == kind.whole_bytes + quantised + (0 if profile == "exact" else 64)


def test_ten_million_of_512_dims_as_the_documentation_computes_them():
    sizes = {
        name: sizes_of(Load(TEN_MILLION, 1, 0, 0), vector_kind(name, 512)).page_cache_bytes / GB
        for name in ("exact", "balanced", "binary")
    }
    graph = 0.64
    assert sizes["exact"] == pytest.approx(20.48)
    assert sizes["balanced"] - graph == pytest.approx(5.16)
    assert sizes["binary"] - graph == pytest.approx(0.78)


def of(load: Load, pictures: int, kind: VectorKind) -> Sizes:
    return sizes_of(Load(pictures, load.nodes, load.replicas, load.document_bytes), kind)


@given(load=loads, kind=kinds, more=numbers)
def test_more_pictures_never_take_less(load: Load, kind: VectorKind, more: int):
    few, many = of(load, load.pictures, kind), of(load, load.pictures + more, kind)
    for name in ("copy_bytes", "disk_bytes", "page_cache_bytes", "shards"):
        assert getattr(few, name) <= getattr(many, name), name
    assert ingest_hours(load.pictures, 88, 4000) <= ingest_hours(load.pictures + more, 88, 4000)


@given(load=loads, kind=kinds)
def test_the_nodes_hold_everything(load: Load, kind: VectorKind):
    sizes = sizes_of(load, kind)
    assert sizes.disk_per_node_bytes * load.nodes >= sizes.disk_bytes
    assert sizes.page_cache_per_node_bytes * load.nodes >= sizes.page_cache_bytes
    assert sizes.memory_per_node_bytes > sizes.page_cache_per_node_bytes
    assert GB <= sizes.heap_per_node_bytes <= 31 * GB


@given(pictures=numbers, copy_bytes=st.integers(1, 10**16), nodes=st.integers(1, 1000))
def test_a_shard_has_10_to_50_gigabytes(pictures: int, copy_bytes: int, nodes: int):
    shards = shard_count(pictures, copy_bytes, nodes)
    assert copy_bytes / shards <= 40 * GB
    assert pictures / shards <= 200_000_000
    if shards > 1 and pictures <= 200_000_000:
        assert copy_bytes / shards >= 10 * GB


@pytest.mark.parametrize(
    ("gigabytes", "nodes", "shards"),
    [(1, 1, 1), (1, 3, 1), (32, 1, 1), (32, 3, 3), (41, 1, 2), (41, 3, 3), (25, 3, 2), (41, 10, 4)],
)
def test_shards_are_spread_over_the_nodes_while_they_stay_large(
    gigabytes: int, nodes: int, shards: int
):
    assert shard_count(1_000_000, gigabytes * GB, nodes) == shards


def test_a_replica_doubles_disk_and_cache():
    kind = vector_kind("balanced", 512)
    one, two = (sizes_of(Load(TEN_MILLION, 2, replicas, 600), kind) for replicas in (0, 1))
    assert two.disk_bytes == 2 * one.disk_bytes
    assert two.page_cache_bytes == 2 * one.page_cache_bytes
    assert two.copy_bytes == one.copy_bytes


def test_what_is_measured_takes_the_place_of_the_formula():
    kind, load = vector_kind("balanced", 512), Load(1000, 1, 0, 100)
    assert sizes_of(load, kind, vector_bytes=900).copy_bytes == 1_000_000


def test_a_bound_of_embedding_and_one_of_writing():
    assert ingest_hours(3600, 1000, 4000) == 1
    assert ingest_hours(3600 * 4000, 0.01, 4000) == 1
