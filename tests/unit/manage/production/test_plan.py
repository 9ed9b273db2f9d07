"""Plans: what is assumed, what an index says, the commands and warnings of each profile."""

from __future__ import annotations

import json

import pytest

from es_imgsearch.elastic.mapping import profile_names
from es_imgsearch.errors import UsageError
from es_imgsearch.manage.production.plan import KNOWN_DIMS, Measured, Plan, make_plan

INDEX = Measured("siglip2", 768, "balanced", 900.0, 4000.0, 20.0, 50_000)


def plan(pictures: int = 1_000_000, **given: object) -> Plan:
    return make_plan(pictures, index="photos", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("pictures", [1, 10_000, 10**6, 10**9, 10**12])
def test_every_profile_side_by_side(pictures: int):
    made = plan(pictures)
    assert [each.profile for each in made.profiles] == list(profile_names())
    assert (made.encoder, made.dims, made.nodes, made.replicas) == ("clip", 512, 1, 0)
    for each in made.profiles:
        init = each.commands[0]
        assert init.startswith("es-imgsearch init --index photos --encoder clip --profile ")
        assert (f"--shards {each.sizes.shards}" in init) is (each.sizes.shards > 1)
        assert "--replicas" not in init
    json.dumps(made.to_dict())


@pytest.mark.parametrize(
    ("pictures", "is_merged"), [(99_999, False), (100_000, True), (10**9, True)]
)
def test_a_large_load_is_merged_before_the_search_is_tuned(pictures: int, is_merged: bool):
    for each in plan(pictures).profiles:
        tune = [command for command in each.commands if " tune " in command]
        assert len(tune) == (each.profile != "exact")
        assert all(("--merge" in command) is is_merged for command in tune)


@pytest.mark.parametrize(
    ("given", "hours"),
    [
        ({}, 24.44), ({"machines": 2}, 12.22), ({"encoder_speed": 100}, 2.78),
        ({"encoder_speed": 100, "machines": 10}, 0.278), ({"encoder_speed": 0.5}, 555.6),
        # One node writes 4,000 a second, whatever embeds; two with a replica no more than that.
        ({"encoder_speed": 10**6}, 0.0694), ({"encoder_speed": 10**6, "nodes": 2}, 0.0694),
        ({"encoder_speed": 10**6, "nodes": 2, "replicas": 0}, 0.0347),
        ({"encoder_speed": 10**6, "nodes": 10, "machines": 9}, 0.0139),
    ],
)  # fmt: skip
def test_hours_of_a_first_sync(given: dict[str, object], hours: float):
    made = plan(**given)
    assert made.ingest_hours == pytest.approx(hours, rel=0.01)
    assert any("as given" in each for each in made.basis) is ("encoder_speed" in given)


@pytest.mark.parametrize(
    ("heap_gb", "is_warned"), [(1, True), (2, True), (4, True), (5, False), (31, False)]
)
def test_a_heap_that_is_given(heap_gb: int, is_warned: bool):
    (only,) = plan(10**9, nodes=24, profile="binary", heap_gb=heap_gb).profiles
    assert only.sizes.heap_per_node_bytes == heap_gb * 10**9
    assert only.settings["jvm.options"] == f"-Xms{heap_gb}g -Xmx{heap_gb}g"
    assert any("merges the graph" in each for each in only.warnings) is is_warned


def test_documents_of_starter_have_tags():
    assert plan(encoder="starter").document_bytes > plan(encoder="clip").document_bytes
    assert plan(encoder="starter", measured=INDEX).document_bytes == 900


def test_two_nodes_have_a_replica():
    made = plan(nodes=2)
    assert made.replicas == 1
    assert all(" --replicas 1" in each.commands[0] for each in made.profiles)
    assert plan(nodes=2, replicas=0).replicas == 0


@pytest.mark.parametrize(("nodes", "replicas"), [(1, 1), (2, 2), (3, 3), (1, 5)])
def test_replicas_need_nodes(nodes: int, replicas: int):
    with pytest.raises(UsageError, match=f"--nodes {replicas + 1}"):
        plan(nodes=nodes, replicas=replicas)


def test_an_index_is_measured_for_its_own_encoder():
    made = plan(measured=INDEX)
    assert (made.encoder, made.dims, made.embed_ms, made.document_bytes) == (
        "siglip2",
        768,
        20,
        900,
    )
    balanced = next(each for each in made.profiles if each.profile == "balanced")
    assert balanced.sizes.copy_bytes == 4_900_000_000
    other = plan(measured=INDEX, encoder="clip")
    assert (other.dims, other.embed_ms, other.document_bytes) == (512, 88, 900)
    assert any("assumed: CLIP" in each for each in other.basis)


def test_dims_in_place_of_an_encoder():
    made = plan(dims=1024)
    assert (made.encoder, made.dims) == (None, 1024)
    assert "--encoder NAME " in made.profiles[0].commands[0]
    assert plan(dims=768, measured=INDEX).encoder == "siglip2"


def test_an_encoder_whose_dims_are_not_known():
    with pytest.raises(UsageError, match="give --dims N"):
        plan(encoder="ORGANISATION/MODEL")
    assert plan(encoder="ORGANISATION/MODEL", dims=300).dims == 300


def test_dims_of_known_encoders(starter: object):
    assert KNOWN_DIMS["starter"] == starter.dims  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("pictures", "profile", "dims", "nodes", "said"),
    [
        (10_001, "exact", 512, 1, "compares every picture"),
        (10, "binary", 32, 1, "at least 64 dims"),
        (10, "compact", 33, 1, "even number of dims"),
        (1000, "balanced", 512, 5, "leaves 3 nodes without a copy"),
    ],
)
def test_what_speaks_against_a_profile(
    pictures: int, profile: str, dims: int, nodes: int, said: str
):
    (only,) = plan(pictures, profile=profile, dims=dims, nodes=nodes).profiles
    assert any(said in each for each in only.warnings)


def test_an_unknown_profile():
    with pytest.raises(UsageError, match="There is no profile 'balansed'"):
        plan(profile="balansed")
