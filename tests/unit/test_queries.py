"""Bodies of searches, word for word."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from es_imgsearch.errors import FilterInvalid, UsageError
from es_imgsearch.mapping import Tuning
from es_imgsearch.queries import (
    MAX_NUM_CANDIDATES,
    check_k,
    cosine_of,
    exact_body,
    filter_clauses,
    knn_body,
    parse_filters,
)
from es_imgsearch.resources import load_json

PROPERTIES: dict[str, Any] = {
    **load_json("mappings", "common.json")["mappings"]["properties"],
    "image_embedding": {"type": "dense_vector", "dims": 3},
    "regions": {"type": "nested", "properties": {"box": {"type": "integer"}}},
    "checked": {"type": "boolean"},
    # An object: the server leaves its type out.
    "owner": {"properties": {"name": {"type": "keyword"}}},
}
VECTOR = [0.6, 0.8]


def clause(field: str, value: Any) -> dict[str, Any]:
    (found,) = filter_clauses({field: value}, PROPERTIES)
    return found


# -- searches ------------------------------------------------------------------------------


def test_an_approximate_search_is_one_knn_with_the_indexs_tuning():
    assert knn_body(VECTOR, 10, Tuning(num_candidates=50)) == {
        "knn": {
            "field": "image_embedding", "query_vector": VECTOR, "k": 10, "num_candidates": 50,
        },
        "size": 10,
        "_source": True,
    }  # fmt: skip


def test_filters_rescoring_and_fields_are_passed_on():
    clauses = [{"term": {"root": "photos"}}]
    body = knn_body(VECTOR, 3, Tuning(50, 2.0), filters=clauses, source=("root", "title"))
    assert body == {
        "knn": {
            "field": "image_embedding", "query_vector": VECTOR, "k": 3, "num_candidates": 50,
            "rescore_vector": {"oversample": 2.0}, "filter": clauses,
        },
        "size": 3,
        "_source": ["root", "title"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("k", "tuned", "given_", "expected"),
    [(10, 50, None, 50), (40, 50, None, 80), (10_000, 50, None, 10_000), (10, 50, 10, 10),
     (10, 50, 20_000, 10_000)],
)  # fmt: skip
def test_candidates_are_as_tuned_but_twice_k_and_no_more_than_the_server_takes(
    k, tuned, given_, expected
):
    body = knn_body(VECTOR, k, Tuning(tuned), num_candidates=given_)
    assert body["knn"]["num_candidates"] == expected
    assert body["size"] == body["knn"]["k"] == k


def test_fewer_candidates_than_hits_are_refused():
    with pytest.raises(UsageError, match=r"num_candidates is 5 .* k, which is 10"):
        knn_body(VECTOR, 10, Tuning(), num_candidates=5)


@pytest.mark.parametrize("k", [0, -1, MAX_NUM_CANDIDATES + 1])
def test_a_k_the_server_refuses_is_refused_before(k: int):
    for ask in (lambda: check_k(k), lambda: knn_body(VECTOR, k, Tuning()),
                lambda: exact_body(VECTOR, k, "cosine")):  # fmt: skip
        with pytest.raises(UsageError, match=f"between 1 and 10000, not {k}"):
            ask()


@pytest.mark.parametrize(
    ("similarity", "script"),
    [
        ("cosine", "(1.0 + cosineSimilarity(params.query, 'image_embedding')) / 2.0"),
        ("dot_product", "(1.0 + dotProduct(params.query, 'image_embedding')) / 2.0"),
        (
            "l2_norm",
            "double d = l2norm(params.query, 'image_embedding'); return 1.0 / (1.0 + d * d)",
        ),
    ],
)
def test_an_exact_search_compares_every_picture_that_has_a_vector(similarity, script):
    clauses = [{"term": {"root": "photos"}}]
    having = {"exists": {"field": "image_embedding"}}
    assert exact_body(VECTOR, 4, similarity, filters=clauses, source=False) == {
        "query": {
            "script_score": {
                "query": {"bool": {"filter": [having, *clauses]}},
                "script": {"source": script, "params": {"query": VECTOR}},
            }
        },
        "size": 4,
        "_source": False,
    }


@given(st.integers(0, 2**32 - 1), st.integers(1, 64))
def test_the_cosine_is_found_in_the_score_of_each_similarity(seed: int, dims: int):
    one, other = np.random.default_rng(seed).normal(size=(2, dims))
    one, other = one / np.linalg.norm(one), other / np.linalg.norm(other)
    cosine = float(one @ other)
    for similarity in ("cosine", "dot_product"):
        assert cosine_of((1 + cosine) / 2, similarity) == pytest.approx(cosine, abs=1e-9)
    distance = float(np.linalg.norm(one - other))
    assert cosine_of(1 / (1 + distance**2), "l2_norm") == pytest.approx(cosine, abs=1e-9)


# -- filters -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        # keywords
        ("format", "jpeg", {"term": {"format": "jpeg"}}),
        ("camera", 'He said "5 cm" & é', {"term": {"camera": 'He said "5 cm" & é'}}),
        ("product_id", 17, {"term": {"product_id": "17"}}),
        ("creator", "a..b", {"term": {"creator": "a..b"}}),
        ("format", ("a", "c"), {"range": {"format": {"gte": "a", "lte": "c"}}}),
        ("tags", ["cat", "dog"], {"bool": {"should": [{"term": {"tags": "cat"}},
                                                      {"term": {"tags": "dog"}}],
                                           "minimum_should_match": 1}}),
        ("tags", ["cat"], {"term": {"tags": "cat"}}),
        ("tags", [], {"match_none": {}}),
        ("camera", None, {"bool": {"must_not": [{"exists": {"field": "camera"}}]}}),
        ("tags", ["cat", None], {"bool": {
            "should": [{"term": {"tags": "cat"}},
                       {"bool": {"must_not": [{"exists": {"field": "tags"}}]}}],
            "minimum_should_match": 1}}),
        # folders
        ("folder", "2024/May", {"term": {"folder.tree": "2024/May"}}),
        ("folder", "/2024/May/", {"term": {"folder.tree": "2024/May"}}),
        ("folder", ".", {"term": {"folder.tree": "."}}),
        ("folder", "", {"term": {"folder.tree": "."}}),
        ("folder", "/", {"term": {"folder.tree": "."}}),
        # A name that is not UTF-8, as the shell hands it over; and as a hit shows it.
        ("folder", "caf\udce9", {"term": {"folder.tree": "caf\\xe9"}}),
        ("folder", "caf\\xe9", {"term": {"folder.tree": "caf\\xe9"}}),
        ("relative_path", "caf\udce9/a", {"term": {"relative_path": "caf\\xe9/a"}}),
        ("image_name", "\udce9.jpg", {"term": {"image_name.keyword": "\\xe9.jpg"}}),
        # texts
        ("image_name", "IMG 1.jpg", {"term": {"image_name.keyword": "IMG 1.jpg"}}),
        ("caption", "a cat", {"match": {"caption": {"query": "a cat", "operator": "and"}}}),
        # flattened
        ("attributes.colour", "red", {"term": {"attributes.colour": "red"}}),
        ("attributes.a.b", "1..2", {"term": {"attributes.a.b": "1..2"}}),
        ("attributes", "red", {"term": {"attributes": "red"}}),
        ("attributes.colour", None,
         {"bool": {"must_not": [{"exists": {"field": "attributes.colour"}}]}}),
        # numbers
        ("embed_ms", "1e300", {"term": {"embed_ms": 1e300}}),
        ("mtime_ns", -(2**63), {"term": {"mtime_ns": -(2**63)}}),
        ("width", 640, {"term": {"width": 640}}),
        ("width", "640", {"term": {"width": 640}}),
        ("width", "640.0", {"term": {"width": 640}}),
        ("embed_ms", "1.5", {"term": {"embed_ms": 1.5}}),
        ("width", "100..200", {"range": {"width": {"gte": 100, "lte": 200}}}),
        ("width", "100..", {"range": {"width": {"gte": 100}}}),
        ("width", "..200", {"range": {"width": {"lte": 200}}}),
        ("embed_ms", "-0.5..1.5", {"range": {"embed_ms": {"gte": -0.5, "lte": 1.5}}}),
        ("width", (100, None), {"range": {"width": {"gte": 100}}}),
        ("width", (None, 2.5), {"range": {"width": {"lte": 2.5}}}),
        # A float on the way would change it.
        ("mtime_ns", 1763800000123456789, {"term": {"mtime_ns": 1763800000123456789}}),
        ("mtime_ns", "1763800000123456789..",
         {"range": {"mtime_ns": {"gte": 1763800000123456789}}}),
        # booleans
        ("checked", True, {"term": {"checked": True}}),
        ("checked", "true", {"term": {"checked": "true"}}),
        # dates
        ("taken_at", "2024", {"range": {"taken_at": {"gte": "2024||/y", "lte": "2024||/y"}}}),
        ("taken_at", 2024, {"range": {"taken_at": {"gte": "2024||/y", "lte": "2024||/y"}}}),
        ("taken_at", "2024-05",
         {"range": {"taken_at": {"gte": "2024-05||/M", "lte": "2024-05||/M"}}}),
        ("taken_at", date(2024, 5, 31),
         {"range": {"taken_at": {"gte": "2024-05-31||/d", "lte": "2024-05-31||/d"}}}),
        ("taken_at", "2024..2024-05",
         {"range": {"taken_at": {"gte": "2024||/y", "lte": "2024-05||/M"}}}),
        ("taken_at", "2024-05-31 18:00",
         {"range": {"taken_at": {"gte": "2024-05-31T18:00", "lte": "2024-05-31T18:00"}}}),
        ("taken_at", ("2024-05-31T18:00:00.500Z", None),
         {"range": {"taken_at": {"gte": "2024-05-31T18:00:00.500Z"}}}),
        ("taken_at", "2024-05-31T18:00:00.500..2024-06-01T00:00:00.250",
         {"range": {"taken_at": {"gte": "2024-05-31T18:00:00.500",
                                 "lte": "2024-06-01T00:00:00.250"}}}),
        ("taken_at", (datetime(2024, 5, 31, 18, tzinfo=UTC), None),
         {"range": {"taken_at": {"gte": "2024-05-31T18:00:00+00:00"}}}),
        ("taken_at", None, {"bool": {"must_not": [{"exists": {"field": "taken_at"}}]}}),
    ],
)  # fmt: skip
def test_each_kind_of_field_and_value(field: str, value: Any, expected: dict[str, Any]):
    assert clause(field, value) == expected


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("colour", "red", "no field 'colour'"),
        ("camera.keyword", "x", "no field 'camera.keyword'"),
        ("", "x", "no field ''"),
        ("image_embedding", "x", "dense_vector"),
        ("location", "1,2", "geo_point"),
        ("regions", "x", "nested"),
        ("owner", "x", "object"),
        ("width", "wide", "numbers, not 'wide'"),
        ("width", True, "numbers, not True"),
        ("width", "nan", "numbers, not 'nan'"),
        ("width", float("inf"), "numbers, not inf"),
        ("width", "1e999", "numbers"),
        ("mtime_ns", 2**63, "larger than 64 bits"),
        ("mtime_ns", f"-{2**63 + 1}", "larger than 64 bits"),
        ("mtime_ns", (None, 2**64), "larger than 64 bits"),
        ("width", 10**400, "larger than 64 bits"),
        ("width", "1" * 5000, "holds numbers"),
        ("camera", "caf\udce9", "'caf.udce9' .* not valid Unicode"),
        ("camera", ("a", "\udce9"), "not valid Unicode"),
        ("attributes.\udce9", "x", "not valid Unicode"),
        ("folder", "\ud800", "not valid Unicode"),
        ("width", "..", "low or a high end"),
        ("width", (None, None), "low or a high end"),
        ("width", (1, 2, 3), r"pair \(low, high\)"),
        ("caption", ("a", "b"), "text and has no ranges"),
        ("attributes.size", ("1", "2"), "flattened and has no ranges"),
        ("taken_at", "yesterday", "dates such as 2024"),
        ("taken_at", "2024-13", "dates"),
        ("taken_at", "2024-02-30", "dates"),
        # Python reads these, and Elasticsearch would take them for milliseconds since 1970.
        ("taken_at", "20240531", "dates"),
        ("taken_at", "2024-W22", "dates"),
        ("taken_at", "2024-W22-5", "dates"),
        ("taken_at", "", "dates"),
        ("taken_at", "٢٠٢٤", "dates"),
        ("taken_at", 1.5, "dates"),
        ("taken_at", "2024-05-31T25:00", "dates"),
    ],
)
def test_what_cannot_be_filtered_is_told(field: str, value: Any, words: str):
    with pytest.raises(FilterInvalid, match=words):
        clause(field, value)


def test_the_message_of_an_unknown_field_lists_those_there_are():
    with pytest.raises(FilterInvalid) as caught:
        clause("colour", "red")
    assert "camera" in str(caught.value)
    for hidden in ("image_embedding", "location", "perceptual_hash", "regions", "owner"):
        assert hidden not in str(caught.value)


def test_several_filters_are_all_met():
    assert filter_clauses({"root": "photos", "width": "100.."}, PROPERTIES) == [
        {"term": {"root": "photos"}},
        {"range": {"width": {"gte": 100}}},
    ]
    assert filter_clauses({}, PROPERTIES) == filter_clauses(None, PROPERTIES) == []


@pytest.mark.parametrize(
    ("since", "until", "bounds"),
    [
        ("2024", None, {"gte": "2024||/y"}),
        (None, date(2024, 5, 31), {"lte": "2024-05-31||/d"}),
        ("2024-05", "2024-06", {"gte": "2024-05||/M", "lte": "2024-06||/M"}),
    ],
)
def test_since_and_until_ask_for_the_day_taken_or_else_modified(since, until, bounds):
    (found,) = filter_clauses(None, PROPERTIES, since=since, until=until)
    untaken = {"bool": {"must_not": [{"exists": {"field": "taken_at"}}]}}
    assert found == {
        "bool": {
            "should": [
                {"range": {"taken_at": bounds}},
                {"bool": {"filter": [untaken, {"range": {"modified_at": bounds}}]}},
            ],
            "minimum_should_match": 1,
        }
    }


@pytest.mark.parametrize("k", [1.0, "10", None, True])
def test_a_k_that_is_no_whole_number_is_refused(k: Any):
    with pytest.raises(UsageError, match="k must be a whole number"):
        check_k(k)
    with pytest.raises(UsageError, match="num_candidates must be a whole number"):
        knn_body(VECTOR, 1, Tuning(), num_candidates="50" if k is None else k)
    check_k(np.int64(3))  # type: ignore[arg-type]


def test_filters_of_the_command_line():
    assert parse_filters(["root=photos", "tags=cat", "tags=dog", "title=a=b", " width = 1..2"]) == {
        "root": ["photos"],
        "tags": ["cat", "dog"],
        "title": ["a=b"],
        "width": [" 1..2"],
    }
    assert parse_filters([]) == {}


@pytest.mark.parametrize("text", ["root", "", "=photos", " =x"])
def test_a_filter_that_is_none_is_told(text: str):
    with pytest.raises(FilterInvalid, match="FIELD=VALUE"):
        parse_filters([text])
