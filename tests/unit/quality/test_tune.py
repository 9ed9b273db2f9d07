"""Choosing a setting, without a server: what climbs when, and what is made of it."""

from __future__ import annotations

import json
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from es_imgsearch.elastic.meta_entries import TunedK, Tuning
from es_imgsearch.elastic.queries import knn_body
from es_imgsearch.errors import LibraryMissing, UsageError
from es_imgsearch.quality.plots import plot_curve
from es_imgsearch.quality.recall import ScoredId, TuningPoint, knn_recall, recall_lower_bound
from es_imgsearch.quality.tune import OVERSAMPLES, KnnSetting, candidate_steps, find_setting
from es_imgsearch.quality.tune_queries import collect_texts, embed_distinct_texts
from es_imgsearch.testing import FakeEncoder

TUNED = Tuning(
    num_candidates=60,
    oversample=2.0,
    per_k=(TunedK(1, 5, 1.0, 0.97), TunedK(10, 60, 2.0, 0.96), TunedK(100, 300, 1.0, 0.95)),
    target_recall=0.95,
    pictures=1000,
    queries_tuned_on=200,
    queries_held_back=200,
    tuned_at="2026-01-01T00:00:00+00:00",
)


def scored(*pairs: tuple[str, float]) -> list[ScoredId]:
    return [ScoredId(*pair) for pair in pairs]


# -- recall --------------------------------------------------------------------------------

EXACT = scored(("a", 0.9), ("b", 0.8), ("c", 0.7), ("d", 0.7), ("e", 0.6))


@pytest.mark.parametrize(
    ("k", "found", "recall"),
    [
        (1, scored(("a", 0.9)), 1.0),
        (1, scored(("b", 0.8)), 0.0),
        (2, scored(("a", 0.9), ("c", 0.7)), 0.5),
        # c and d are equally near: either is the third.
        (3, scored(("a", 0.9), ("b", 0.8), ("d", 0.7)), 1.0),
        # So is a picture that the exact search had no room for.
        (3, scored(("a", 0.9), ("b", 0.8), ("x", 0.7 - 2e-7)), 1.0),
        (3, scored(("a", 0.9), ("b", 0.8), ("x", 0.7 - 1e-5)), 2 / 3),
        # More is asked for than there is.
        (10, scored(("a", 0.9), ("b", 0.8), ("c", 0.7), ("d", 0.7), ("e", 0.6)), 1.0),
        (10, scored(("a", 0.9)), 0.2),
        (2, [], 0.0),
        # What comes after the k-th place does not count.
        (1, scored(("b", 0.8), ("a", 0.9)), 0.0),
    ],
)
def test_recall_counts_pictures_as_near_as_the_kth(k, found, recall):
    assert knn_recall(k, found, EXACT) == pytest.approx(recall)


def test_scores_of_quantised_vectors_are_not_compared():
    found = scored(("x", 0.95), ("b", 0.5))
    assert knn_recall(2, found, EXACT, scores_are_exact=False) == 0.5


def test_recall_is_one_if_no_neighbour_exists():
    assert knn_recall(10, [], []) == 1.0


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 30))
def test_many_equal_vectors_are_never_missed(seed: int, k: int, size: int):
    """Any k of those that NumPy finds nearest, ties in any order."""
    random = np.random.default_rng(seed)
    scores = random.integers(0, 4, size) / 4
    order = np.argsort(-scores, kind="stable")
    exact = [ScoredId(str(n), float(scores[n])) for n in order]
    other = np.lexsort((random.random(size), -scores))
    found = [ScoredId(str(n), float(scores[n])) for n in other[:k]]
    assert knn_recall(k, found, exact[:k]) == 1.0


def test_the_lower_bound_holds_in_95_percent_of_samples():
    random = np.random.default_rng(0)
    population = random.binomial(10, 0.94, 100_000) / 10
    bounds = [recall_lower_bound(random.choice(population, 200)) for _ in range(1000)]
    above = np.mean([bound <= population.mean() for bound in bounds])
    assert 0.92 < above < 0.98
    assert np.mean(bounds) > population.mean() - 0.015


@pytest.mark.parametrize(("recalls", "bound"), [([1.0] * 5, 1.0), ([1.0], 1.0), ([0.9], 0.0)])
def test_the_lower_bound_of_a_few_queries(recalls: list[float], bound: float):
    assert recall_lower_bound(np.array(recalls)) == bound


# -- climbing ------------------------------------------------------------------------------


class Server:
    """Recall as of a graph over quantised vectors: a ceiling a level, approached by halves."""

    def __init__(self, *ceilings: float, k: int = 10) -> None:
        self.ceilings, self.k = ceilings, k
        self.asked: list[KnnSetting] = []

    def __call__(self, setting: KnnSetting) -> TuningPoint:
        self.asked.append(setting)
        recall = self.ceilings[setting.level] * (1 - 0.5 ** (setting.num_candidates / self.k))
        return TuningPoint(
            self.k, setting.num_candidates, OVERSAMPLES[setting.level], {"picture": recall},
            recall, 1.0, 2.0,
        )  # fmt: skip

    def climb(self, target: float, *, most: int = 10_000, start: KnnSetting | None = None):
        start = start or KnnSetting(self.k, 0)
        levels = len(self.ceilings)
        return find_setting(
            self, lambda p: p.recall >= target, levels=levels, most=most, start=start
        )


def test_candidates_climb_until_the_target_is_reached():
    server = Server(1.0, 1.0)
    setting, point = server.climb(0.95)
    assert setting == (50, 0)
    assert point.recall >= 0.95
    assert [each.num_candidates for each in server.asked] == [10, 15, 20, 30, 50]


def test_a_plateau_below_the_target_raises_the_oversample():
    server = Server(0.9, 0.93, 0.99)
    setting, _ = server.climb(0.95)
    assert setting.level == 2
    # Candidates were not climbed to their end before.
    assert max(each.num_candidates for each in server.asked if each.level < 2) <= 150
    assert setting.num_candidates <= 70


def test_on_the_last_level_candidates_climb_to_their_end():
    server = Server(0.9)
    setting, point = server.climb(0.95, most=1234)
    assert server.asked[-1] == (1234, 0)
    assert point.recall == pytest.approx(0.9)
    assert setting.num_candidates <= 1234


def test_the_best_setting_is_returned_if_none_reaches_the_target():
    server = Server(0.9, 0.6)
    setting, point = server.climb(0.95)
    assert setting.level == 0
    assert point.recall == max(server(each).recall for each in list(server.asked))


def test_a_confirmation_never_goes_below_the_chosen_setting():
    server = Server(0.9, 0.93, 0.99)
    server.climb(0.95, start=KnnSetting(30, 1))
    assert server.asked[0] == (30, 1)
    assert all(each.num_candidates >= 30 and each.level >= 1 for each in server.asked)


@given(st.integers(1, 200), st.integers(1, 10_000))
def test_steps_rise_to_the_most_and_never_by_more_than_two(first: int, most: int):
    most = max(first, most)
    taken = list(candidate_steps(first, most))
    assert taken[0] == first
    assert taken[-1] == most
    assert all(low < high <= 2 * low for low, high in pairwise(taken))


# -- what is stored ------------------------------------------------------------------------


def test_a_tuning_comes_back_from_meta_as_it_was():
    for tuning in (TUNED, Tuning(), Tuning(100, 2.0)):
        assert Tuning.from_body(json.loads(json.dumps(tuning.to_body()))) == tuning


def test_meta_stores_the_setting_for_ten_at_the_top_level():
    body = TUNED.to_body()
    assert (body["num_candidates"], body["oversample"]) == (60, 2.0)
    # As of an index that was never tuned.
    assert Tuning().to_body() == {"num_candidates": 50, "oversample": None}


def test_an_index_that_was_tuned_by_hand_still_loads():
    assert Tuning.from_body({"num_candidates": 70, "oversample": 3}).for_k(10) == (70, 3)


@pytest.mark.parametrize(
    ("k", "candidates", "oversample"),
    [(1, 5, 1.0), (2, 60, 2.0), (9, 60, 2.0), (10, 60, 2.0), (100, 300, 1.0), (200, 600, 1.0),
     (1000, 3000, 1.0)],
)  # fmt: skip
def test_a_search_takes_what_was_tuned_for_its_k(k: int, candidates: int, oversample: float):
    knn = knn_body([1.0], k, TUNED)["knn"]
    assert knn["num_candidates"] == candidates
    assert knn["rescore_vector"] == {"oversample": oversample}


@given(st.integers(11, 99))
def test_between_ten_and_a_hundred_candidates_rise(k: int):
    candidates, oversample = TUNED.for_k(k)
    assert 60 < candidates <= 300
    assert candidates >= 60 + (k - 10) / 90 * 240
    assert oversample == 2.0


@given(
    st.lists(st.tuples(st.integers(1, 10_000), st.sampled_from(OVERSAMPLES)), min_size=3,
             max_size=3),
    st.integers(1, 10_000),
)  # fmt: skip
def test_every_tuning_gives_a_search_within_server_limits(measured, k):
    per_k = tuple(
        TunedK(each, max(each, candidates), oversample, 1.0)
        for each, (candidates, oversample) in zip((1, 10, 100), measured, strict=True)
    )
    knn = knn_body([1.0], k, Tuning(per_k=per_k))["knn"]
    assert k <= knn["num_candidates"] <= 10_000


def test_an_explicit_num_candidates_overrides_the_tuned_one():
    assert knn_body([1.0], 10, TUNED, num_candidates=11)["knn"]["num_candidates"] == 11
    with pytest.raises(UsageError, match="at least k"):
        knn_body([1.0], 10, TUNED, num_candidates=9)


# -- texts ---------------------------------------------------------------------------------


def test_texts_come_from_metadata_and_then_everyday_words():
    pictures = [
        {"_source": {"caption": "A cat on a mat", "image_name": "x.jpg"}},
        {"_source": {"tags": ["dog", "lawn"], "image_name": "IMG_1234.jpg"}},
        {"_source": {"tags": "sea"}},
        {"_source": {"image_name": "Blue_bicycle 07.jpg"}},
        {"_source": {"image_name": "DSC_0001.JPG"}},
        {"_source": {"title": "A cat on a mat", "caption": ""}},
        {},
    ]
    texts = collect_texts(pictures, 40)
    assert texts[:4] == ["A cat on a mat", "dog", "sea", "Blue bicycle"]
    assert len(texts) == len(set(texts)) == 40


def test_texts_with_equal_vectors_count_once():
    texts = ["red", "blue", "a word it does not know", "another", "#ff0000"]
    assert embed_distinct_texts(FakeEncoder(), texts).shape == (3, FakeEncoder.dims)


# -- the plot ------------------------------------------------------------------------------


def test_the_curve_is_drawn(tmp_path):
    points = [Server(0.9, 0.99)(KnnSetting(n, level)) for level in (0, 1) for n in (10, 20, 50)]
    file = tmp_path / "curve.png"
    plot_curve(points, file, target_recall=0.95, exact_ms=7.0, chosen=[(10, 50)])
    assert file.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match="There is no folder"):
        plot_curve(points, tmp_path / "no" / "x.png", target_recall=0.95, exact_ms=7.0, chosen=[])


def test_without_matplotlib_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(LibraryMissing, match=r"es-imgsearch\[plot\]"):
        plot_curve([], tmp_path / "x.png", target_recall=0.9, exact_ms=1.0, chosen=[])
