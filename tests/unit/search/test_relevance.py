"""Relevance without labels: curves derived from cosines alone, and hits that have the words."""

from __future__ import annotations

import numpy as np
import pytest

from es_imgsearch.search.relevance import (
    IMAGE,
    NAMED_RELEVANCE,
    TEXT,
    RelevanceModel,
    derived_curve,
    load_text_vectors,
    named_relevance,
    null_moments,
    unrelated_texts,
)


def units(generator: np.random.Generator, number: int, dims: int) -> np.ndarray:
    vectors = generator.normal(size=(number, dims))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


# -- derived curves -------------------------------------------------------------------------


def test_the_everyday_texts_are_a_hundred_different_ones():
    assert len(set(unrelated_texts())) == len(unrelated_texts()) == 100


@pytest.mark.parametrize("kind", [TEXT, IMAGE])
@pytest.mark.parametrize(("moved", "stretched"), [(0.2, 0.1), (-0.3, 0.5), (0.0, 1.0)])
def test_a_derived_curve_is_the_same_wherever_an_encoders_cosines_lie(
    kind: str, moved: float, stretched: float
):
    mean, deviation = 0.04, 0.15
    plain = derived_curve(kind, (mean, deviation), 200)
    other = derived_curve(kind, (moved + stretched * mean, stretched * deviation), 200)
    for z, cosine in ((0.0, 0.0), (2.0, 0.3), (4.0, 0.7)):
        expected = plain.probability(z, cosine)
        assert other.probability(z, moved + stretched * cosine) == pytest.approx(expected, abs=2e-3)


def test_the_fewer_pictures_the_likelier_the_same_hit():
    found = [
        float(derived_curve(TEXT, (0.0, 0.1), size).probability(3.0, 0.3))
        for size in (30, 60, 240, 500)
    ]
    assert found == sorted(found, reverse=True)
    # The background is a sample of 500, however large the index.
    assert derived_curve(TEXT, (0.0, 0.1), 10_000) == derived_curve(TEXT, (0.0, 0.1), 500)


def test_pictures_are_not_compared_with_themselves():
    background = units(np.random.default_rng(0), 50, 400)
    mean, deviation = null_moments(background, background)
    others = (background @ background.T)[~np.eye(50, dtype=bool)]
    assert mean == pytest.approx(float(others.mean()), abs=1e-6)
    assert deviation == pytest.approx(float(others.std()), abs=1e-6)


def test_equal_pictures_give_finite_relevance():
    background = np.repeat(units(np.random.default_rng(1), 1, 16), 40, axis=0)
    model = RelevanceModel({}, background).with_derived(IMAGE, background)
    relevance = model.for_query(background[0], IMAGE)
    assert relevance is not None
    assert 0.0 <= relevance.probability(1.0) <= 1.0


def test_a_fitted_curve_of_another_kind_stays():
    background = units(np.random.default_rng(2), 40, 16)
    fitted = derived_curve(TEXT, (0.0, 0.2), 40)
    model = RelevanceModel({TEXT: fitted}, background).with_derived(IMAGE, background)
    assert model.curves[TEXT] == fitted
    assert set(model.curves) == {TEXT, IMAGE}


def test_texts_are_embedded_once_for_each_encoder():
    calls: list[int] = []

    def embed(texts):
        calls.append(len(texts))
        return np.ones((len(texts), 3), np.float32)

    texts = [f"text {n}" for n in range(70)]
    key = ["test of the cache", "1"]
    first = load_text_vectors(key, texts, embed)
    assert first.shape == (70, 3)
    assert sum(calls) == 70
    np.testing.assert_array_equal(load_text_vectors(key, texts, embed), first)
    assert sum(calls) == 70
    load_text_vectors([*key, "other"], texts, embed)
    assert sum(calls) == 140


# -- words -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("a penguin", {"image_name": "little-penguin.png"}),
        ("penguins", {"image_name": "Penguin_02.jpg"}),
        ("the red apple", {"image_name": "apple_red.png"}),
        ("Polar Bear", {"image_name": "PolarBear12.JPG"}),
        ("café", {"image_name": "cafe.jpg"}),
        ("tour eiffel", {"title": "La Tour Eiffel", "image_name": "IMG_1.jpg"}),
        ("dog", {"tags": ["dog", "lawn"], "image_name": "x.jpg"}),
        ("dog", {"tags": "Dogs", "image_name": "x.jpg"}),
        ("red car", {"tags": ["car", "red"], "image_name": "x.jpg"}),
        ("猫", {"image_name": "黑猫.jpg"}),
        ("A-1", {"image_name": "a1.png"}),
        ("penguin", {"relative_path": "birds/penguin.png"}),
    ],
)
def test_a_hit_that_has_the_words_is_named(text: str, source: dict):
    assert named_relevance([text], source) == NAMED_RELEVANCE


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("a penguin", {"image_name": "pengwin.png"}),
        ("a cat", {"image_name": "catalogue.png"}),
        ("a red apple", {"image_name": "apple_green.png"}),
        ("red car", {"image_name": "red.png", "tags": ["car"]}),
        ("", {"image_name": "x.png"}),
        ("A-1", {"image_name": "photo 1.png"}),
        ("penguin", {"image_name": "x.png", "relative_path": "penguin/x.png"}),
        ("penguin", {}),
    ],
)
def test_a_hit_that_has_not_all_the_words_is_not_named(text: str, source: dict):
    assert named_relevance([text], source) is None


def test_a_tag_made_from_the_vector_says_no_more_than_the_vector():
    source = {"image_name": "x.png", "tags": ["swan"], "tag_scores": {"swan": 0.62}}
    assert named_relevance(["a swan"], source) is None
    assert named_relevance(["a swan"], {**source, "tags": ["swan"], "tag_scores": {}}) is not None
