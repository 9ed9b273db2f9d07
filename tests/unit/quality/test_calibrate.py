"""Relevance: its arithmetic against NumPy and scikit-learn, and what is held out is held out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.meta_entries import Curve, curves_from_body
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import IndexConflict, UsageError
from es_imgsearch.quality import curve_fitting
from es_imgsearch.quality.curve_fitting import (
    JudgedHits,
    cross_validate,
    fit_curve,
    judge_hits,
    measure_quality,
)
from es_imgsearch.search.options import SearchPlan
from es_imgsearch.search.relevance import IMAGE, TEXT, RelevanceModel, z_scores
from es_imgsearch.testing import FakeEncoder

WEIGHTS = st.floats(0, 50)
COSINES = st.floats(-1, 1)


def units(generator: np.random.Generator, number: int, dims: int = 16) -> np.ndarray:
    vectors = generator.normal(size=(number, dims))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def grouped(seed: int = 0, groups: int = 30, each: int = 6, spread: float = 0.6):
    """A query a group, near its group's pictures: queries, pictures, and which is right."""
    generator = np.random.default_rng(seed)
    centres = units(generator, groups)
    members = np.repeat(np.arange(groups), each)
    pictures = centres[members] + spread * units(generator, len(members))
    pictures /= np.linalg.norm(pictures, axis=1, keepdims=True)
    return centres, pictures.astype(np.float32), members[None, :] == np.arange(groups)[:, None]


def judged(z: np.ndarray, cosine: np.ndarray, right: np.ndarray) -> JudgedHits:
    return JudgedHits(z, cosine, right, np.zeros(len(z), bool), np.arange(len(z)) // 10)


# -- from cosines to probabilities -----------------------------------------------------------


def test_z_scores_equal_numpy():
    generator = np.random.default_rng(1)
    queries, pictures, background = (units(generator, n) for n in (5, 40, 200))
    cosines = queries @ pictures.T
    found = z_scores(queries, cosines, background)
    for query, row, scores in zip(queries, cosines, found, strict=True):
        foreign = [float(query @ each) for each in background]
        assert scores == pytest.approx((row - np.mean(foreign)) / np.std(foreign), abs=1e-3)


def test_a_query_that_is_in_the_background_does_not_count_there():
    background = units(np.random.default_rng(2), 50)
    query = background[7:8]
    cosines = query @ background.T
    without = np.delete(background, 7, axis=0)
    assert z_scores(query, cosines, background) == pytest.approx(
        z_scores(query, cosines, without), abs=1e-3
    )


def test_a_background_of_equal_pictures_gives_finite_scores():
    background = np.repeat(units(np.random.default_rng(3), 1), 40, axis=0)
    query = units(np.random.default_rng(4), 1)
    assert np.isfinite(z_scores(query, np.ones((1, 1), np.float32), background)).all()
    assert np.isfinite(z_scores(background[:1], np.ones((1, 1), np.float32), background)).all()


@given(WEIGHTS, WEIGHTS, st.floats(-20, 20), COSINES, COSINES, st.integers(0, 100))
def test_of_two_hits_of_a_query_the_nearer_has_no_less_relevance(
    z_weight: float, cosine_weight: float, intercept: float, one: float, other: float, seed: int
):
    generator = np.random.default_rng(seed)
    relevance = RelevanceModel(
        {TEXT: Curve(intercept, z_weight, cosine_weight)}, units(generator, 40)
    )
    rating = relevance.for_query(units(generator, 1)[0], TEXT)
    assert rating is not None
    low, high = sorted((one, other))
    assert 0 <= rating.probability(low) <= rating.probability(high) <= 1


def test_a_rating_is_the_curve_of_the_z_score():
    generator = np.random.default_rng(5)
    background, query = units(generator, 60), units(generator, 1)[0]
    foreign = background @ query
    z = (0.4 - foreign.mean()) / foreign.std()
    rating = RelevanceModel({IMAGE: Curve(-2.0, 0.7, 1.5)}, background).for_query(query, IMAGE)
    assert rating is not None
    wanted = 1 / (1 + np.exp(-(-2.0 + 0.7 * z + 1.5 * 0.4)))
    assert rating.probability(0.4) == pytest.approx(wanted, abs=1e-3)


def test_a_kind_without_a_curve_has_no_rating():
    background = units(np.random.default_rng(6), 40)
    assert (
        RelevanceModel({IMAGE: Curve(0, 1, 1)}, background).for_query(background[0], TEXT) is None
    )


# -- fitting ---------------------------------------------------------------------------------


def test_the_fit_equals_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    generator = np.random.default_rng(7)
    z = generator.normal(1, 1.5, 4000)
    cosine = 0.1 * z + generator.normal(0, 0.1, 4000)
    right = generator.random(4000) < 1 / (1 + np.exp(-(-3 + 1.2 * z + 2 * cosine)))
    curve = fit_curve(judged(z, cosine, right))
    # Platt's targets: every hit counts a little for the other side as well.
    n, m = right.sum(), (~right).sum()
    target = np.where(right, (n + 1) / (n + 2), 1 / (m + 2))
    both = np.stack([z, cosine], axis=1)
    model = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000).fit(
        np.concatenate([both, both]),
        np.repeat([1, 0], 4000),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    assert curve.intercept == pytest.approx(model.intercept_[0], abs=1e-2)
    assert [curve.z_weight, curve.cosine_weight] == pytest.approx(model.coef_[0], abs=1e-2)
    assert curve.z_weight == pytest.approx(1.2, abs=0.25)


def test_separable_hits_get_a_finite_curve():
    z = np.concatenate([np.full(50, 0.0), np.full(50, 5.0)])
    curve = fit_curve(judged(z, z / 10, z > 2))
    assert np.isfinite([curve.intercept, curve.z_weight, curve.cosine_weight]).all()
    assert curve.probability(5.0, 0.5) > 0.9
    assert curve.probability(0.0, 0.0) < 0.1


def test_no_weight_is_negative():
    generator = np.random.default_rng(8)
    z = generator.normal(size=1000)
    cosine = generator.normal(size=1000) / 10
    right = generator.random(1000) < 1 / (1 + np.exp(-(z - 8 * cosine)))
    curve = fit_curve(judged(z, cosine, right))
    assert curve.cosine_weight == 0
    assert curve.z_weight > 0.5


@pytest.mark.parametrize("right", [5, 0, 100])
def test_too_few_right_or_wrong_hits_are_refused(right: int):
    z = np.linspace(0, 1, 100)
    with pytest.raises(UsageError, match="too few to calibrate"):
        fit_curve(judged(z, z, np.arange(100) < right))


def test_hits_are_the_first_ten_with_the_right_pictures_and_without():
    queries, pictures, right = grouped()
    found = judge_hits(queries, pictures, right, pictures)
    cosines = queries @ pictures.T
    for at in range(len(queries)):
        mine = (found.query == at) & ~found.absent
        best = np.sort(cosines[at])[::-1][:10]
        assert found.cosine[mine] == pytest.approx(best, abs=1e-6)
        assert found.right[mine].sum() == right[at][np.argsort(-cosines[at])[:10]].sum()
        without = (found.query == at) & found.absent
        best = np.sort(cosines[at][~right[at]])[::-1][:10]
        assert found.cosine[without] == pytest.approx(best, abs=1e-6)
    assert not found.right[found.absent].any()


def test_a_picture_is_no_hit_of_itself():
    _, pictures, right = grouped()
    shares = right.T.astype(int) @ right.astype(int) > 0
    found = judge_hits(pictures, pictures, shares, pictures, own_picture=np.arange(len(pictures)))
    assert found.cosine.max() < 0.9999


@pytest.mark.parametrize("are_pictures", [False, True])
def test_held_out_probabilities_are_calibrated(are_pictures: bool):
    queries, pictures, right = grouped(groups=60)
    if are_pictures:
        queries, right = pictures, right.T.astype(int) @ right.astype(int) > 0
    found = cross_validate(queries, pictures, right, pictures, are_pictures=are_pictures)
    assert found.searches == 2 * len(queries)
    assert found.brier < 0.7 * found.brier_of_share
    assert found.calibration_error < 0.1
    precision = [cut.precision for cut in found.cut_offs if cut.hits > 50]
    assert precision == sorted(precision)
    kept = [cut.recall for cut in found.cut_offs]
    assert kept == sorted(kept, reverse=True)


def test_cross_validation_tests_on_what_it_did_not_fit_on(monkeypatch: pytest.MonkeyPatch):
    queries, pictures, right = grouped(groups=30)
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def watched(asked: np.ndarray, among: np.ndarray, *rest: object, **more: object) -> JudgedHits:
        seen.append((asked, among))
        return judge_hits(asked, among, *rest, **more)

    monkeypatch.setattr(curve_fitting, "judge_hits", watched)
    cross_validate(queries, pictures, right, pictures)
    place = {picture.tobytes(): at for at, picture in enumerate(pictures)}
    number = {query.tobytes(): at for at, query in enumerate(queries)}
    tested = []
    for (fitted, among), (held_out, _) in zip(seen[::2], seen[1::2], strict=True):
        asked = {number[query.tobytes()] for query in held_out}
        tested += asked
        assert not asked & {number[query.tobytes()] for query in fitted}
        assert not right[np.ix_(sorted(asked), [place[each.tobytes()] for each in among])].any()
    assert sorted(tested) == list(range(len(queries)))


def test_figures_of_quality_by_hand():
    hits = JudgedHits(
        z=np.zeros(6),
        cosine=np.zeros(6),
        right=np.array([1, 0, 1, 0, 0, 0], bool),
        absent=np.array([0, 0, 0, 1, 1, 1], bool),
        query=np.array([0, 0, 1, 0, 1, 1]),
    )
    found = measure_quality(hits, np.array([0.95, 0.55, 0.2, 0.6, 0.05, 0.3]))
    assert found.share_right == pytest.approx(1 / 3)
    assert found.brier == pytest.approx(
        (0.05**2 + 0.55**2 + 0.8**2 + 0.6**2 + 0.05**2 + 0.3**2) / 6
    )
    assert found.brier_of_share == pytest.approx(2 / 9)
    half = next(cut for cut in found.cut_offs if cut.at_least == 0.5)
    assert (half.hits, half.precision, half.recall) == (3, pytest.approx(1 / 3), 0.5)
    # Of the two searches for absent things one still shows a hit.
    assert half.false_acceptances == 0.5
    assert [(each.low, each.hits, each.share_right) for each in found.bins] == [
        (0.0, 1, 0), (0.2, 1, 1), (0.3, 1, 0), (0.5, 1, 0), (0.6, 1, 0), (0.9, 1, 1),
    ]  # fmt: skip


# -- asking for it --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_relevance": 1.5}, "from 0 to 1"),
        ({"min_relevance": -0.1}, "from 0 to 1"),
        ({"min_relevance": "0.5"}, "must be a number"),
        ({"min_relevance": float("nan")}, "from 0 to 1"),
        ({"min_relevance": 0.5, "mode": "text"}, "leave mode 'text' and weights out"),
        ({"min_relevance": 0.5, "weights": {"content": 1.0}}, "leave mode 'text' and weights out"),
    ],
)
def test_invalid_min_relevance_is_refused(options: dict, message: str):
    with pytest.raises(UsageError, match=message):
        SearchPlan.parse(10, options)


# -- where curves are kept -------------------------------------------------------------------


def test_curves_survive_the_meta_of_an_index():
    meta = new_meta(seal_of(FakeEncoder()), "exact", "cosine")
    assert "relevance" not in meta.to_documents()[meta.learned_document]["body"]
    assert Meta.from_body(meta.to_body(), "images").relevance == {}
    calibrated = replace(meta, relevance={TEXT: Curve(-7.5, 0.5, 9.0)})
    documents = calibrated.to_documents()
    curve = {"intercept": -7.5, "z_weight": 0.5, "cosine_weight": 9.0}
    assert documents[meta.learned_document]["body"]["relevance"] == {TEXT: curve}
    read = Meta.from_body(calibrated.to_body(), "images").with_documents(documents)
    assert read.relevance == calibrated.relevance
    # Schema 2 had them in `_meta`.
    before = meta.to_body() | {"schema_version": 2, "relevance": {TEXT: curve}}
    assert Meta.from_body(before, "images").relevance == calibrated.relevance


@pytest.mark.parametrize("value", [{TEXT: {}}, {TEXT: {"intercept": "x"}}, 3, {TEXT: None}])
def test_damaged_curves_raise_index_conflict(value: object):
    meta = new_meta(seal_of(FakeEncoder()), "exact", "cosine")
    with pytest.raises(IndexConflict, match="damaged"):
        Meta.from_body(meta.to_body() | {"relevance": value}, "images")


def test_a_coefficient_that_is_not_a_number_is_refused():
    with pytest.raises(ValueError, match="is not finite"):
        curves_from_body({TEXT: {"intercept": "nan", "z_weight": 1, "cosine_weight": 1}})
