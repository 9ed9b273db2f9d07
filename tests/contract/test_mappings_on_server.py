"""Mappings as the real Elasticsearch takes them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from es_imgsearch.describe.colours import Colours
from es_imgsearch.describe.exif import Exif
from es_imgsearch.describe.sidecar import Sidecar
from es_imgsearch.elastic import queries
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import (
    SIMILARITIES,
    VECTOR_FIELD,
    failures_body,
    index_body,
    load_json,
    new_meta,
    profile_names,
)
from es_imgsearch.elastic.meta import Meta, Seal
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import ImageMissing, StoreRejected
from es_imgsearch.manage import init as creation
from es_imgsearch.settings import Settings
from es_imgsearch.testing import remove_index

DIMS = 64
PICTURES = 50
SEAL = Seal(name="fake", revision="1", dims=DIMS, fingerprint="f")


def vectors(count: int, dims: int = DIMS) -> np.ndarray:
    """Clustered, as those of pictures are."""
    random = np.random.default_rng(3)
    found = (
        random.normal(size=(count, dims))
        + 1.5 * random.normal(size=(8, dims))[np.arange(count) % 8]
    )
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def document(number: int, vector: np.ndarray, **fields: Any) -> dict[str, Any]:
    return {
        "image_id": str(number),
        "root": "photos",
        "relative_path": f"{number}.jpg",
        "content_id": f"c{number}",
        "size_bytes": 1,
        "mtime_ns": 1,
        VECTOR_FIELD: vector,
        **fields,
    }


def without_ids(meta: Meta) -> Meta:
    """Without those that an index gets when it is created."""
    assert meta.index_id
    assert meta.generation_id
    return replace(meta, index_id="", generation_id="")


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("profile", [each for each in profile_names() if each != "reduced"])
def test_each_profile_and_similarity_finds_what_comparing_all_finds(
    real_store: Store, profile: str, similarity: str
):
    meta = new_meta(SEAL, profile, similarity)
    real_store.generations.create(meta)
    assert without_ids(real_store.info().meta) == meta
    stored = vectors(PICTURES)
    writes = [Write(str(n), document=document(n, each)) for n, each in enumerate(stored)]
    assert set(real_store.documents.write(writes).values()) == {None}
    real_store.refresh()
    for query in stored[::10]:
        near = real_store.searches.search(queries.knn_body(query, 5, meta.tuning))["hits"]["hits"]
        exact = real_store.searches.search(queries.exact_body(query, 5, similarity))["hits"]["hits"]
        ids = [int(hit["_id"]) for hit in exact]
        cosines = stored @ query
        assert ids == np.argsort(-cosines)[:5].tolist()
        assert [int(hit["_id"]) for hit in near] == ids
        for hit in (*near, *exact):
            told = queries.score_to_cosine(hit["_score"], similarity)
            # 1-bit and 4-bit scores that were not compared again would be far off this.
            assert told == pytest.approx(float(cosines[int(hit["_id"])]), abs=2e-3)


@pytest.fixture
def new_index(real_store: Store) -> Iterator[str]:
    name = f"t-{uuid.uuid4().hex[:12]}"
    yield name
    real_store.connection.client.indices.delete(index=name, ignore_unavailable=True)


@pytest.mark.parametrize("profile", profile_names())
def test_the_files_in_mappings_can_be_pasted_as_they_are(
    real_store: Store, new_index: str, profile: str
):
    """PUT my-index with common.json, then PUT my-index/_mapping with a profile."""
    real_store.connection.request("PUT", f"/{new_index}", load_json("mappings", "common.json"))
    profile_body = load_json("mappings", f"{profile}.json")
    real_store.connection.request("PUT", f"/{new_index}/_mapping", profile_body)
    found = real_store.connection.request("GET", f"/{new_index}")[new_index]["mappings"]
    kept = found["properties"][VECTOR_FIELD]
    for name, value in profile_body["properties"][VECTOR_FIELD].items():
        assert kept[name] == value or (
            name == "index_options" and value.items() <= kept[name].items()
        ), name
    assert found["_meta"] == profile_body["_meta"]


def test_the_failures_file_can_be_pasted_as_it_is(real_store: Store, new_index: str):
    real_store.connection.request("PUT", f"/{new_index}", load_json("mappings", "failures.json"))


def test_what_was_asked_for_is_what_the_server_has(real_store: Store):
    real_store.generations.create(new_meta(SEAL, "exact", "cosine"))
    answer = real_store.connection.request("GET", f"/{real_store.index}")
    ((_, body),) = answer.items()
    wanted = index_body(new_meta(SEAL, "exact", "cosine"))["mappings"]
    assert body["mappings"]["dynamic"] == "strict"
    assert body["mappings"]["_source"] == wanted["_source"]
    assert body["mappings"]["properties"].keys() == wanted["properties"].keys()
    assert wanted["_meta"].items() <= body["mappings"]["_meta"].items()
    assert body["settings"]["index"]["sort"]["field"] == ["root", "relative_path"]


def test_a_field_without_a_mapping_is_refused(real_store: Store):
    real_store.generations.create(new_meta(SEAL, "exact", "cosine"))
    (vector,) = vectors(1)
    outcome = real_store.documents.write([Write("0", document=document(0, vector, colour="red"))])
    assert isinstance(outcome["0"], StoreRejected)
    assert "colour" in str(outcome["0"])


def test_a_mapping_that_cannot_be_is_told_with_its_field(real_store: Store):
    """The server says why in the last of several causes."""
    with pytest.raises(StoreRejected, match=r"\[nonesuch\] declared on field \[mood\]"):
        real_store.generations.create(
            new_meta(SEAL, "exact", "cosine"), [{"mood": {"type": "nonesuch"}}]
        )


@pytest.mark.parametrize("profile", profile_names())
def test_the_files_can_be_pasted_into_a_console(real_store: Store, profile: str):
    """As docs/reference/fields.md says: an index of the common fields, then a profile's."""
    name = f"{real_store.index}-{profile}"
    try:
        real_store.connection.request("PUT", f"/{name}", load_json("mappings", "common.json"))
        told = load_json("mappings", f"{profile}.json")
        real_store.connection.request("PUT", f"/{name}/_mapping", told)
        found = real_store.connection.client.indices.get_mapping(index=name)[name]["mappings"]
        kind = told["properties"][VECTOR_FIELD]["index_options"]["type"]
        assert found["properties"][VECTOR_FIELD]["index_options"]["type"] == kind
        assert found["_meta"]["profile"] == profile
    finally:
        real_store.connection.client.indices.delete(index=name, ignore_unavailable=True)


def test_the_vector_is_not_in_the_source(real_store: Store):
    real_store.generations.create(new_meta(SEAL, "exact", "cosine"))
    (vector,) = vectors(1)
    real_store.documents.write([Write("0", document=document(0, vector))])
    assert VECTOR_FIELD not in real_store.documents.get("0")


def test_a_stray_index_of_that_name_gets_our_mapping_and_no_guessed_one(real_store: Store):
    """As if somebody deleted alias and index while a foreign tool went on writing."""
    real_store.generations.create(new_meta(SEAL, "exact", "cosine"))
    client = real_store.connection.client
    client.indices.delete(
        index=[
            alias + real_store.info().name.removeprefix(real_store.index)
            for alias in (real_store.index, real_store.connection.failures)
        ]
    )
    (vector,) = vectors(1)
    plain = document(0, vector) | {VECTOR_FIELD: [float(part) for part in vector]}
    try:
        for name in (real_store.index, real_store.connection.failures):
            with pytest.raises(StoreRejected, match="strict_dynamic"):
                real_store.connection.request("PUT", f"/{name}/_doc/1", {"colour": "red"})
        real_store.connection.request("PUT", f"/{real_store.index}/_doc/0", plain)
        found = client.indices.get_mapping(index=real_store.index)[real_store.index]["mappings"]
        assert found["properties"][VECTOR_FIELD]["type"] == "dense_vector"
        wanted = failures_body()["mappings"]["properties"].keys()
        failures = client.indices.get_mapping(index=real_store.connection.failures)[
            real_store.connection.failures
        ]
        assert failures["mappings"]["properties"].keys() == wanted
    finally:
        client.indices.delete(
            index=[real_store.index, real_store.connection.failures], ignore_unavailable=True
        )


def test_the_neighbour_of_an_alias_is_not_covered_by_its_template(
    real_store: Store, new_index: str
):
    real_store.generations.create(new_meta(SEAL, "exact", "cosine"))
    neighbour = f"{real_store.index}2"
    try:
        real_store.connection.request("PUT", f"/{neighbour}/_doc/1", {"colour": "red"})
    finally:
        real_store.connection.client.indices.delete(index=neighbour, ignore_unavailable=True)


def test_names_that_begin_alike_do_not_clash(real_store: Store):
    real_store.generations.create(new_meta(SEAL, "exact", "cosine"))
    other = Store(real_store.connection.client, f"{real_store.index}-01")
    try:
        other.generations.create(new_meta(SEAL, "exact", "cosine"))
        assert other.info().name.startswith(f"{other.index}-000001-")
    finally:
        remove_index(other)


def test_fields_that_came_later_are_added_in_place(
    real_store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    real_store.generations.create(new_meta(SEAL, "exact", "cosine"))
    (vector,) = vectors(1)

    class Mood:
        name = "mood"
        mapping = {"mood": {"type": "keyword"}}  # noqa: RUF012

    monkeypatch.setattr(creation, "describer_mappings", lambda: [Mood.mapping])
    assert "added the field mood." in creation.create_index(real_store, settings)
    assert "added" not in creation.create_index(real_store, settings)
    real_store.connection.request(
        "PUT", f"/{real_store.index}/_doc/0", document(0, vector, mood="calm")
    )
    info = real_store.info()
    assert info.properties["mood"] == {"type": "keyword"}
    assert without_ids(info.meta) == new_meta(SEAL, "exact", "cosine")


@pytest.mark.parametrize(
    "fields",
    [
        {"taken_at": "1826-01-01T00:00:00"},
        {"taken_at": "9999-12-31T23:59:59"},
        {"taken_at": "2024-05-31T18:00:05+14:00"},
        {"taken_at": "2024-05-31T18:00:05-14:00"},
        {"taken_at": "2024-05-31T18:00:05+00:00"},
        {"camera": "x" * 256},
        {"camera": "\U0010ffff" * 256},
        {"location": {"lat": -90.0, "lon": -180.0}},
        {"location": {"lat": 90.0, "lon": 180.0}},
        {"location": {"lat": -0.0, "lon": 1e-07}},
        {"modified_at": "0001-01-01T00:00:00.000+00:00"},
        {"modified_at": "9999-12-31T23:59:59.999+00:00"},
        {"modified_at": None},
        {"describe_errors": ["x" * 500] * 3},
        {"keywords": [f"{n}".ljust(1024, "\U0010ffff") for n in range(1000)]},
        {"creator": "\U0010ffff" * 1024, "title": "x" * 100_000, "rating": -1},
        {"product_id": "\U0010ffff" * 1024, "source_url": "\U0010ffff" * 4096},
        {
            "attributes": {"n" * 200: {"n" * 200: ["\U0010ffff" * 1024]}},
            "colour_shares": {"red": 1},
        },
        {"iso": 100_000_000, "exposure_seconds": 1e-30, "f_number": 1e3, "focal_length_mm": 1e5},
    ],
    ids=str,
)
def test_the_extremes_of_what_is_read_from_a_file_are_accepted(
    real_store: Store, fields: dict[str, Any]
):
    """test_exif.py, test_iptc.py and test_sidecar.py show that describers give nothing beyond."""
    described = [Exif.mapping, Sidecar.mapping, Colours.mapping]
    real_store.generations.create(new_meta(SEAL, "exact", "cosine"), described)
    (vector,) = vectors(1)
    outcome = real_store.documents.write([Write("0", document=document(0, vector, **fields))])
    assert outcome == {"0": None}


@pytest.mark.parametrize("image_id", ["a/b", "../_search", "_search", "a?b#c", "é ü", "%2F"])
def test_an_id_of_any_form_is_just_unknown(real_store: Store, image_id: str):
    real_store.generations.create(new_meta(SEAL, "exact", "cosine"))
    for ask in (real_store.documents.get, real_store.documents.vector):
        with pytest.raises(ImageMissing, match="No picture has"):
            ask(image_id)
