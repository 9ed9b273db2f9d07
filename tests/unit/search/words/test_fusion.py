"""Reciprocal rank fusion and the counting of facets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from es_imgsearch.errors import UsageError
from es_imgsearch.search.options import SearchPlan
from es_imgsearch.search.results import check_facets, count_facets
from es_imgsearch.search.words.fusion import fuse_rankings, reciprocal_rank

RANKINGS = st.lists(st.integers(0, 30), unique=True, max_size=20)


def hits(ids: Iterable[int | str], scores: Iterable[float] | None = None) -> list[dict[str, Any]]:
    """Raw hits, best first; by default of different scores."""
    ids = list(ids)
    scored = zip(ids, scores or range(len(ids), 0, -1), strict=True)
    return [{"_id": str(each), "_score": score, "_source": {}} for each, score in scored]


def fused(lists: dict[Any, Any], **options: Any) -> list[tuple[str, float]]:
    result = fuse_rankings(lists, SearchPlan(100, mode="hybrid", **options), 1)
    scores = [each.score for each in result.ranks or ()]
    return [(hit["_id"], score) for hit, score in zip(result.hits, scores, strict=True)]


@given(RANKINGS, RANKINGS)
def test_the_score_is_the_sum_of_reciprocal_ranks(vector: list[int], text: list[int]):
    found = fused({"vector": hits(vector), "text": hits(text), "exact": []})
    assert {key for key, _ in found} == {str(key) for key in {*vector, *text}}
    for key, score in found:
        ranks = [each.index(int(key)) + 1 for each in (vector, text) if int(key) in each]
        assert score == pytest.approx(sum(1 / (60 + rank) for rank in ranks))
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


def test_two_middling_ranks_beat_one_first():
    found = fused({"vector": hits("abc"), "text": hits("db"), "exact": []})
    assert [key for key, _ in found] == ["b", "a", "d", "c"]
    assert reciprocal_rank(1) == 1 / 61
    assert reciprocal_rank(None) == 0


def test_words_that_many_pictures_have_leave_the_order_to_the_vectors():
    lists = {"vector": hits("abcd"), "text": hits("dcbx", [2.0, 2.0, 2.0, 2.0]), "exact": []}
    assert [key for key, _ in fused(lists, is_auto=True)] == ["b", "c", "d", "x", "a"]
    assert [key for key, _ in fused(lists)] == ["d", "b", "c", "a", "x"]


def test_what_is_named_comes_first_unless_it_is_many():
    lists = {"vector": hits("abcd"), "text": hits("cd"), "exact": hits("xd", [2.0, 1.0])}
    found = fused(lists)
    assert [key for key, _ in found] == ["x", "d", "c", "a", "b"]
    assert found[0][1] == 2
    assert found[1][1] == pytest.approx(1 + 1 / 64 + 1 / 62)
    many = hits(range(50), [1.0] * 50)
    assert [key for key, _ in fused({**lists, "exact": many})] == ["c", "d", "a", "b"]


def test_of_files_with_one_content_the_one_that_is_named_is_shown():
    def copy(name: str, score: float) -> dict[str, Any]:
        return {"_id": name, "_score": score, "_source": {"content_id": "same"}}

    lists = {"vector": [copy("a", 0.9)], "text": [copy("a", 3.0)], "exact": [copy("b", 2.0)]}
    plan = SearchPlan(10, mode="hybrid", collapse=True)
    result = fuse_rankings(lists, plan, 1)  # type: ignore[arg-type]
    assert [hit["_id"] for hit in result.hits] == ["b"]
    assert fuse_rankings({**lists, "exact": []}, plan, 1).hits[0]["_id"] == "a"  # type: ignore[arg-type]


def test_without_words_auto_keeps_the_scores_of_the_vectors():
    lists = {"vector": hits("ab"), "text": [], "exact": []}
    plan = SearchPlan(1, mode="hybrid", is_auto=True)
    result = fuse_rankings(lists, plan, 7)  # type: ignore[arg-type]
    assert (result.hits, result.took_ms, result.ranks) == (lists["vector"][:1], 7, None)


@pytest.mark.parametrize(
    ("documents", "name", "counts"),
    [
        ([{"tags": ["cat", "dog"]}, {"tags": ["cat"]}, {}], "tags", {"cat": 2, "dog": 1}),
        ([{"tags": ["cat", "cat"]}], "tags", {"cat": 1}),
        ([{"folder": "b"}, {"folder": "a"}], "folder", {"a": 1, "b": 1}),
        ([{"width": 5}, {"width": 5}], "width", {"5": 2}),
        # The camera's own year, wherever that was.
        ([{"taken_at": "2013-01-01T00:30:00+02:00"}], "year", {"2013": 1}),
        (
            [{"taken_at": "2012-12-31T23:30:00+00:00", "taken_local": "2013-01-01T00:30:00"}],
            "year",
            {"2013": 1},
        ),
        (
            [{"taken_local": "2012-12-31T23:30:00", "modified_at": "2020-01-01"}],
            "year",
            {"2012": 1},
        ),
        ([{"taken_at": "2013-01-01", "modified_at": "2020-01-01"}], "year", {"2013": 1}),
        ([{"modified_at": "2020-12-31T23:59:59.999Z"}], "year", {"2020": 1}),
        ([{"taken_at": "2013"}, {}], "year", {"2013": 1}),
        ([], "year", {}),
    ],
)
def test_values_are_counted_most_frequent_first(
    documents: list[dict[str, Any]], name: str, counts: dict[str, int]
):
    facets = count_facets(documents, [name])
    assert facets == {name: counts}
    assert list(facets[name]) == list(counts)


def test_an_unknown_facet_is_refused():
    properties = {"tags": {"type": "keyword"}, "caption": {"type": "text"}}
    check_facets(["tags", "year"], properties)
    with pytest.raises(UsageError, match="no facet 'caption'; there are tags, year"):
        check_facets(["caption"], properties)
