"""Reciprocal rank fusion and the counting of facets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from es_imgsearch.errors import UsageError
from es_imgsearch.search.fusion import reciprocal_rank, reciprocal_rank_fusion
from es_imgsearch.search.results import check_facets, count_facets

RANKINGS = st.lists(st.lists(st.integers(0, 30), unique=True, max_size=20), max_size=3)


@given(RANKINGS)
def test_the_score_is_the_sum_of_reciprocal_ranks(rankings: list[list[int]]):
    fused = reciprocal_rank_fusion(rankings)
    assert fused.keys() == {key for ranking in rankings for key in ranking}
    for key, score in fused.items():
        ranks = [ranking.index(key) + 1 for ranking in rankings if key in ranking]
        assert score == pytest.approx(sum(1 / (60 + rank) for rank in ranks))
    assert list(fused.values()) == sorted(fused.values(), reverse=True)


def test_two_middling_ranks_beat_one_first():
    assert list(reciprocal_rank_fusion([["a", "b", "c"], ["d", "b"]])) == ["b", "a", "d", "c"]
    assert reciprocal_rank(1) == 1 / 61
    assert reciprocal_rank(None) == 0


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
