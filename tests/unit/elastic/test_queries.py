"""Bodies of searches, word for word."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from es_imgsearch.elastic.meta_entries import Tuning
from es_imgsearch.elastic.queries import (
    MAX_NUM_CANDIDATES,
    PartQuery,
    check_k,
    exact_body,
    exact_weighted_body,
    knn_body,
    score_to_cosine,
    stored_vectors_body,
    to_json,
    to_msearch,
    weighted_body,
    with_page,
)
from es_imgsearch.errors import UsageError

VECTOR = [0.6, 0.8]


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
            "field": "image_embedding", "query_vector": VECTOR, "k": 50, "num_candidates": 50,
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
        ("cosine", "Math.max(0.0, 1.0 + cosineSimilarity(params.query, 'image_embedding')) / 2.0"),
        ("dot_product", "Math.max(0.0, 1.0 + dotProduct(params.query, 'image_embedding')) / 2.0"),
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
        assert score_to_cosine((1 + cosine) / 2, similarity) == pytest.approx(cosine, abs=1e-9)
    distance = float(np.linalg.norm(one - other))
    assert score_to_cosine(1 / (1 + distance**2), "l2_norm") == pytest.approx(cosine, abs=1e-9)


@pytest.mark.parametrize("k", [1.0, "10", None, True])
def test_a_k_that_is_no_whole_number_is_refused(k: Any):
    with pytest.raises(UsageError, match="k must be a whole number"):
        check_k(k)
    with pytest.raises(UsageError, match="num_candidates must be a whole number"):
        knn_body(VECTOR, 1, Tuning(), num_candidates="50" if k is None else k)
    check_k(np.int64(3))  # type: ignore[arg-type]


PARTS = [
    PartQuery("image_embedding", VECTOR, 0.75),
    PartQuery("colour_embedding", [1.0, 0.0, 0.0], 0.25),
]
MEAN = {
    "source": (
        "params.weights[0] * (doc['image_embedding'].size() == 0 ? 0.5"
        " : Math.max(0.0, 1.0 + cosineSimilarity(params.query0, 'image_embedding')) / 2.0)"
        " + params.weights[1] * (doc['colour_embedding'].size() == 0 ? 0.5"
        " : Math.max(0.0, 1.0 + cosineSimilarity(params.query1, 'colour_embedding')) / 2.0)"
    ),
    "params": {"weights": [0.75, 0.25], "query0": VECTOR, "query1": [1.0, 0.0, 0.0]},
}


def test_weighted_parts_are_one_boosted_knn_whose_candidates_are_compared_exactly():
    clauses = [{"term": {"root": "photos"}}]
    body = weighted_body(PARTS, 5, Tuning(60, 2.0), filters=clauses, source=["root"])
    assert body == {
        "knn": [
            {"field": "image_embedding", "query_vector": VECTOR, "k": 60, "num_candidates": 60,
             "boost": 0.75, "filter": clauses},
            {"field": "colour_embedding", "query_vector": [1.0, 0.0, 0.0], "k": 60,
             "num_candidates": 60, "boost": 0.25, "filter": clauses},
        ],
        "rescore": {
            "window_size": 120,
            "query": {
                "query_weight": 0,
                "rescore_query_weight": 1,
                "rescore_query": {"script_score": {"query": {"match_all": {}}, "script": MEAN}},
            },
        },
        "size": 5,
        "_source": ["root"],
    }  # fmt: skip
    assert "filter" not in weighted_body(PARTS, 5, Tuning())["knn"][0]
    assert weighted_body(PARTS, 5, Tuning(), num_candidates=7)["knn"][1]["k"] == 7
    assert weighted_body(PARTS, 9000, Tuning())["rescore"]["window_size"] == MAX_NUM_CANDIDATES
    few = weighted_body(PARTS, 5, Tuning(20, 2.0))
    assert {clause["num_candidates"] for clause in few["knn"]} == {50}
    assert {c["k"] for c in weighted_body(PARTS, 5, Tuning(20), num_candidates=9)["knn"]} == {9}


def test_weighted_parts_exactly():
    clauses = [{"term": {"root": "photos"}}]
    having = [{"exists": {"field": name}} for name in ("image_embedding", "colour_embedding")]
    assert exact_weighted_body(PARTS, 5, filters=clauses) == {
        "query": {
            "script_score": {
                "query": {"bool": {"filter": [{"bool": {"should": having}}, *clauses]}},
                "script": MEAN,
            }
        },
        "size": 5,
        "_source": True,
    }


def test_a_page_is_a_part_of_the_k_hits():
    body = knn_body(VECTOR, 100, Tuning())
    assert with_page(body, 20, 10) == {**body, "from": 20, "size": 10}
    assert with_page(body, 20, 10)["knn"]["k"] == 100


def test_stored_vectors_are_asked_for_by_id():
    assert stored_vectors_body(["a", "b"], ["image_embedding"]) == {
        "query": {"ids": {"values": ["a", "b"]}},
        "size": 2,
        "_source": False,
        "docvalue_fields": ["image_embedding"],
    }


def test_vectors_are_sent_as_they_are_and_come_back_the_same():
    vector = np.random.default_rng(0).normal(size=512).astype(np.float32)
    body = to_json(knn_body(vector, 10, Tuning()))
    sent = np.asarray(orjson.loads(body)["knn"]["query_vector"], dtype=np.float32)
    assert np.array_equal(sent, vector)
    assert len(body) < 13 * 512


def test_several_searches_are_lines_of_one_request():
    lines = to_msearch([{"size": 1}, {"size": 2}]).split(b"\n")
    assert [orjson.loads(line) for line in lines[:-1]] == [
        {"allow_partial_search_results": False},
        {"size": 1},
        {"allow_partial_search_results": False},
        {"size": 2},
    ]
    assert lines[-1] == b""
