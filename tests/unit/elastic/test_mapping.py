"""Index bodies: a profile and the common fields become one, and `_meta` survives."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from es_imgsearch.describe.exif import Exif
from es_imgsearch.elastic.mapping import (
    DEFAULT_PROFILE,
    DEFAULT_SIMILARITY,
    SIMILARITIES,
    VECTOR_FIELD,
    Companion,
    failures_body,
    folder,
    index_body,
    load_json,
    load_profile,
    new_meta,
    profile_names,
    template_body,
)
from es_imgsearch.elastic.meta import SCHEMA_VERSION, Meta, Seal
from es_imgsearch.elastic.meta_entries import CodesEntry, CopyCheckpoint, Curve, Tuning
from es_imgsearch.elastic.naming import failures_alias, first_generation
from es_imgsearch.errors import EncoderMismatch, IndexConflict, UsageError

SEAL = Seal(name="fake", revision="r1", dims=128, fingerprint="f00d", supports_text=True)


# Those that keep the encoder's own vectors; tests/unit/test_reduction.py is about the other.
WHOLE = [name for name in profile_names() if name != "reduced"]


def meta_of(profile: str = "exact", similarity: str = "cosine", **seal: Any) -> Meta:
    return new_meta(replace(SEAL, **seal), profile, similarity)


# -- profiles ------------------------------------------------------------------------------


def test_the_profiles_are_the_files_that_are_there():
    assert profile_names() == tuple(
        sorted(
            entry.name.removesuffix(".json")
            for entry in folder("mappings").iterdir()
            if entry.name.endswith(".json")
            and entry.name
            not in {
                "background.json",
                "codes.json",
                "common.json",
                "failures.json",
                "reduction.json",
                "searches.json",
                "state.json",
                "tags.json",
            }
        )
    )
    assert {"exact", "balanced", "compact", "binary", "reduced"} <= set(profile_names())
    assert DEFAULT_PROFILE in profile_names()
    assert DEFAULT_SIMILARITY in SIMILARITIES


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("profile", WHOLE)
def test_each_profile_composes_with_the_common_fields(profile: str, similarity: str):
    body = index_body(meta_of(profile, similarity))
    vector = body["mappings"]["properties"][VECTOR_FIELD]
    own = load_json("mappings", f"{profile}.json")["properties"][VECTOR_FIELD]
    assert vector == {**own, "dims": SEAL.dims, "similarity": similarity}
    assert vector["index_options"] == own["index_options"]
    common = load_json("mappings", "common.json")
    assert body["settings"] == common["settings"]
    others = {k: v for k, v in body["mappings"]["properties"].items() if k != VECTOR_FIELD}
    assert others == common["mappings"]["properties"]
    json.dumps(body)


@pytest.mark.parametrize("profile", profile_names())
def test_each_profile_says_what_it_is_and_how_it_is_searched(profile: str):
    described = load_profile(profile)["_meta"]
    assert described["profile"] == profile
    assert described["about"]
    tuning = Tuning(**described["tuning"])
    assert tuning.num_candidates >= 10
    quantised = load_profile(profile)["properties"][VECTOR_FIELD]["index_options"]["type"]
    # What was never quantised has nothing to compare again.
    assert (tuning.oversample is None) == (quantised in {"flat", "hnsw"})
    if profile in WHOLE:
        assert meta_of(profile).tuning == tuning


def test_the_index_is_strict_sorted_and_keeps_the_vector_out_of_the_source():
    body = index_body(meta_of())
    assert body["mappings"]["dynamic"] == "strict"
    assert body["mappings"]["_source"] == {"excludes": [VECTOR_FIELD, "colour_embedding"]}
    for each in (body, failures_body()):
        assert each["settings"]["index.sort.field"] == ["root", "relative_path"]
        assert each["settings"]["refresh_interval"] == "1s"
        assert each["mappings"]["dynamic"] == "strict"
        assert each["mappings"]["properties"]["mtime_ns"] == {"type": "long"}


def test_a_body_is_the_callers_own():
    index_body(meta_of())["mappings"]["properties"].clear()
    load_profile("exact").clear()
    assert index_body(meta_of())["mappings"]["properties"]
    assert load_profile("exact")


def test_an_unknown_profile_or_similarity_is_told_with_the_known_ones():
    with pytest.raises(UsageError, match=r"'huge'.*balanced.*exact"):
        meta_of("huge")
    with pytest.raises(UsageError):
        meta_of("common")
    with pytest.raises(UsageError, match=r"'dot'.*cosine, dot_product, l2_norm"):
        meta_of("exact", "dot")


def test_dims_that_a_profile_cannot_hold_are_told_with_a_way_out():
    with pytest.raises(UsageError, match=r"at least 64 dims.*'fake' has 63.*compact"):
        meta_of("binary", dims=63)
    assert meta_of("binary", dims=64)
    with pytest.raises(UsageError, match=r"even number of dims.*'fake' has 127.*balanced"):
        meta_of("compact", dims=127)


# -- described fields ----------------------------------------------------------------------


def test_described_fields_are_added():
    extra = {"sharpness": {"type": "float"}}
    body = index_body(meta_of(), [Exif.mapping, extra])
    assert body["mappings"]["properties"]["sharpness"] == {"type": "float"}
    assert body["mappings"]["properties"]["taken_at"] == Exif.mapping["taken_at"]


def test_what_two_describers_agree_on_is_no_conflict():
    extra = {"sharpness": {"type": "float"}}
    assert index_body(meta_of(), [extra, dict(extra)])


@pytest.mark.parametrize(
    "described",
    [
        [{"sharpness": {"type": "float"}}, {"sharpness": {"type": "long"}}],
        [{"taken_at": {"type": "keyword"}}],
        [{VECTOR_FIELD: {"type": "dense_vector", "dims": 3}}],
    ],
    ids=["each other", "a common field", "the vector"],
)
def test_conflicts_of_described_fields_are_told(described: list[dict[str, Any]]):
    (name,) = described[-1]
    with pytest.raises(IndexConflict, match=name):
        index_body(meta_of(), described)


# -- _meta ---------------------------------------------------------------------------------

floats = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec="utf-8"), max_size=20)
metas = st.builds(
    Meta,
    seal=st.builds(
        Seal, texts, texts, dims=st.integers(1, 4096), fingerprint=texts,
        supports_text=st.booleans(),
    ),
    profile=texts,
    similarity=st.sampled_from(SIMILARITIES),
    tuning=st.builds(Tuning, st.integers(1, 10_000), st.none() | st.floats(1, 10)),
    roots=st.dictionaries(texts, st.fixed_dictionaries({"path": texts, "host": texts})),
    relevance=st.dictionaries(st.sampled_from(["text", "image"]), st.builds(Curve, *3 * [floats])),
    codes=st.none() | st.builds(CodesEntry, texts, texts, st.integers(8, 64), texts),
    copy_checkpoint=st.none()
    | st.builds(CopyCheckpoint, texts, st.dictionaries(texts, st.integers(0))),
    index_id=st.uuids().map(str),
    generation_id=st.uuids().map(str),
)  # fmt: skip


@given(metas)
def test_meta_comes_back_as_it_was(meta: Meta):
    body, documents = json.loads(json.dumps([meta.to_body(), meta.to_documents()]))
    assert Meta.from_body(body, "images").with_documents(documents) == meta


def test_the_body_carries_only_the_seal():
    """What changes is in documents, which have compare-and-set."""
    meta = meta_of("balanced", "dot_product").with_root("photos", {"path": "/p", "host": "h"})
    meta = replace(meta, index_id="i", generation_id="g", relevance={"text": Curve(1, 2, 3)})
    written = index_body(meta)["mappings"]["_meta"]
    assert written.keys() == {
        "created_by", "schema_version", "index_id", "generation_id", "encoder", "profile",
        "similarity", "tuning",
    }  # fmt: skip
    assert meta.document_ids == ("roots:i", "learned:g")


def test_an_index_made_without_ids_has_the_uuid_of_elasticsearch():
    meta = Meta.from_body(meta_of().to_body(), "images", "uuid")
    assert (meta.index_id, meta.generation_id) == ("uuid", "uuid")


def test_a_damaged_document_is_told():
    meta = replace(meta_of(), index_id="i", generation_id="g")
    with pytest.raises(IndexConflict, match="roots:i is damaged"):
        meta.with_documents({"roots:i": {"body": {}}})


def test_adding_a_root_leaves_the_others_and_the_original():
    one = meta_of().with_root("a", {"path": "/a"})
    two = one.with_root("b", {"path": "/b"})
    assert sorted(two.roots) == ["a", "b"]
    assert sorted(one.roots) == ["a"]


def test_a_newer_schema_is_refused_even_if_its_meta_has_other_parts():
    body = meta_of().to_body() | {"schema_version": SCHEMA_VERSION + 1}
    body["encoder"]["instruction"] = "new in that schema"
    with pytest.raises(IndexConflict, match=rf"schema {SCHEMA_VERSION + 1}, newer .* update"):
        Meta.from_body(body, "images")


@pytest.mark.parametrize(
    "body",
    [{}, {"anything": 1}, {"schema_version": 1}, {"created_by": "beats", "schema_version": 1},
     {"created_by": "es_imgsearch", "schema_version": "one"}],
)  # fmt: skip
def test_a_foreign_index_is_refused_in_a_clear_sentence(body: dict[str, Any]):
    with pytest.raises(IndexConflict) as caught:
        Meta.from_body(body, "logs")
    assert str(caught.value) == (
        "Index 'logs' was not made by es_imgsearch: choose another --index."
    )


@pytest.mark.parametrize(
    "damage",
    [{"encoder": None}, {"encoder": "starter"}, {"encoder": {}}, {"tuning": {"a": 1}},
     {"tuning": []}],
)  # fmt: skip
def test_a_damaged_meta_is_told(damage: dict[str, Any]):
    with pytest.raises(IndexConflict, match=r"_meta of index 'images' is damaged"):
        Meta.from_body(meta_of().to_body() | damage, "images")


def test_what_a_later_program_notes_of_the_encoder_is_left_alone():
    body = meta_of().to_body()
    body["encoder"] = {**body["encoder"], "licence": "Apache-2.0"}
    assert Meta.from_body(body, "images").seal == SEAL
    with pytest.raises(TypeError):
        Seal.from_body("starter")  # type: ignore[arg-type]


@pytest.mark.parametrize("part", ["encoder", "profile", "similarity", "tuning"])
def test_a_meta_without_one_of_its_parts_is_damaged(part: str):
    body = meta_of().to_body()
    del body[part]
    with pytest.raises(IndexConflict, match=part):
        Meta.from_body(body, "images")


# -- the seal ------------------------------------------------------------------------------


@pytest.mark.parametrize("changed", [{"name": "elsewhere"}, {"supports_text": False}, {}])
def test_the_same_weights_fit_wherever_they_come_from(changed: dict[str, Any]):
    SEAL.check(replace(SEAL, **changed), "images")


@pytest.mark.parametrize(
    "changed", [{"dims": 64}, {"revision": "r2"}, {"fingerprint": "beef"}], ids=str
)
def test_another_encoder_is_refused_with_what_differs(changed: dict[str, Any]):
    other = replace(SEAL, name="other", **changed)
    ((part, value),) = changed.items()
    with pytest.raises(EncoderMismatch) as caught:
        SEAL.check(other, "images")
    for word in ("'images'", "'fake'", "'other'", part, str(value), str(getattr(SEAL, part))):
        assert word in str(caught.value)


@pytest.mark.parametrize("kind", ["failures", *Companion])
def test_a_companion_index_is_refused_with_the_name_of_its_index(kind: str):
    """It was called an index of failures, and `images-state` was named as the one to choose."""
    body = failures_body() if kind == "failures" else Companion(kind).body()
    with pytest.raises(IndexConflict, match=r"'my-photos': choose .* --index my-photos\."):
        Meta.from_body(body["mappings"]["_meta"], f"my-photos-{kind}")


# -- names and templates -------------------------------------------------------------------


def test_names_of_what_stands_behind_an_alias():
    assert failures_alias("images") == "images-failures"
    assert first_generation("images") == "images-000001"


def test_a_template_covers_the_alias_and_its_generations_and_no_neighbour():
    template = template_body("images", index_body(meta_of()))
    patterns = template["index_patterns"]

    def covered(name: str) -> bool:
        return any(
            name.startswith(each[:-1]) if each.endswith("*") else name == each for each in patterns
        )

    assert covered("images")
    assert covered(first_generation("images"))
    assert not covered("images-failures")
    assert not covered("images2")
    # Two templates whose patterns overlap are refused by the server.
    assert not any("*" in each for each in patterns)
    assert template["template"] == index_body(meta_of())
