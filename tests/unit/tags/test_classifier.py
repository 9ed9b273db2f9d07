"""Zero-shot scores and trained classifiers, against what NumPy and scikit-learn work out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.meta import Seal
from es_imgsearch.errors import EncoderMismatch, FileInvalid, IndexConflict
from es_imgsearch.tags.classifier import TagClassifier
from es_imgsearch.tags.describer import Tagger
from es_imgsearch.tags.fitting import (
    FOLDS,
    INVERSE_PENALTIES,
    best_threshold,
    group_by_facet,
    summed_loss,
    train_facets,
)
from es_imgsearch.tags.vocabulary import Facet, Vocabulary, default_vocabulary, parse_vocabulary
from es_imgsearch.tags.zero_shot import ZeroShot, standing_out

DIMS = 24
WORDS = parse_vocabulary(
    '[scene]\nanswers = "one"\nlabels = ["beach", "forest", "city"]\n'
    '[object]\nlabels = ["dog", "ball"]\n',
    "words",
)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def pictures(each: int = 30, noise: float = 0.15) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    """Vectors of pictures at one of three scenes, with a dog, a ball, both or neither."""
    generator = np.random.default_rng(1)
    axes = np.eye(DIMS)
    vectors, labels = [], []
    for number in range(3 * each):
        scene = number % 3
        has = generator.integers(0, 2, 2).astype(bool)
        vector = axes[scene] + has[0] * axes[3] + has[1] * axes[4]
        vectors.append(vector + generator.normal(0, noise, DIMS))
        names = [WORDS.facets[0].labels[scene]]
        names += [word for word, there in zip(("dog", "ball"), has, strict=True) if there]
        labels.append(tuple(names))
    return unit(np.asarray(vectors)), labels


def classifier_of(outputs: tuple, seal: Seal, reduction: str | None = None) -> TagClassifier:
    return TagClassifier(seal, reduction, outputs, 90, "2026-01-01T00:00:00+00:00", 1.0)


SEAL = Seal("fake", "1", DIMS, "f")


def test_zero_shot_scores_equal_the_formula():
    generator = np.random.default_rng(2)
    words = Vocabulary(
        (
            Facet("object", "many", tuple(f"o{n}" for n in range(30))),
            Facet("scene", "one", ("s0", "s1", "s2")),
        ),
        "",
    )
    texts = unit(generator.normal(size=(33, DIMS)))
    background = unit(generator.normal(size=(200, DIMS)))
    vectors = unit(texts[[0, 31]] + 0.1 * generator.normal(size=(2, DIMS)))
    model = ZeroShot.of(words, texts, background)
    cosines = vectors @ texts.T
    foreign = background @ texts.T
    for row in range(2):
        for label in range(33):
            median = np.median(foreign[:, label])
            below = foreign[:, label][foreign[:, label] < median]
            by_pictures = (cosines[row, label] - median) / np.sqrt(((below - median) ** 2).mean())
            by_words = (cosines[row, label] - cosines[row].mean()) / cosines[row].std()
            wanted = (by_pictures + by_words) / 2
            assert model.deviations(vectors)[row, label] == pytest.approx(wanted, abs=1e-3)
    objects, scenes = model.scores(vectors)
    odds = 1.1 * (model.deviations(vectors) - 4.0)
    assert objects.scores == pytest.approx(1 / (1 + np.exp(-odds[:, :30])), abs=1e-4)
    powers = np.exp(odds[:, 30:])
    assert scenes.scores == pytest.approx(powers / (1 + powers.sum(1, keepdims=True)), abs=1e-4)
    # A label holds from half on; of a facet of one answer only the best, and none if none is near.
    assert objects.holds.tolist() == (objects.scores >= 0.5).tolist()
    assert objects.holds[0, 0]
    assert not scenes.holds[0].any()
    assert scenes.holds[1].tolist() == [False, True, False]


def test_a_label_that_most_pictures_show_is_still_a_tag():
    """A plain z-score of the cosine would be near 0 for the dogs of a folder of dogs."""
    generator = np.random.default_rng(3)
    words = Vocabulary((Facet("object", "many", tuple(f"o{n}" for n in range(40))),), "")
    texts = unit(generator.normal(size=(40, 128)))
    dogs = unit(texts[0] + 0.06 * generator.normal(size=(90, 128)))
    others = unit(generator.normal(size=(110, 128)))
    model = ZeroShot.of(words, texts, np.concatenate([dogs, others]))
    holds = model.scores(dogs)[0].holds
    assert holds[:, 0].mean() > 0.9
    assert holds[:, 1:].mean() < 0.02
    cosines = np.concatenate([dogs, others]) @ texts[0]
    plain = (dogs @ texts[0] - cosines.mean()) / cosines.std()
    assert plain.max() < 2


def test_without_background_only_the_t_norm_is_used_and_few_words_have_no_scores():
    generator = np.random.default_rng(4)
    empty = np.zeros((0, 0), np.float32)
    assert ZeroShot.of(WORDS, unit(generator.normal(size=(5, DIMS))), empty) is None
    texts = unit(generator.normal(size=(len(default_vocabulary().labels), DIMS)))
    model = ZeroShot.of(default_vocabulary(), texts, empty)
    vectors = unit(generator.normal(size=(3, DIMS)))
    cosines = vectors @ texts.T
    wanted = (cosines - cosines.mean(1, keepdims=True)) / cosines.std(1, keepdims=True)
    assert model.deviations(vectors) == pytest.approx(wanted, abs=1e-4)


def test_each_facet_equals_scikit_learn_and_minimises_the_summed_loss():
    vectors, labels = pictures()
    objects, scenes = group_by_facet(labels, WORDS)
    trained = train_facets(vectors, [objects, scenes])
    c = trained.inverse_penalty
    assert c in INVERSE_PENALTIES
    of_objects, of_scenes = trained.classifiers
    for column, label in enumerate(of_objects.labels):
        model = LogisticRegression(C=c, max_iter=1000).fit(
            vectors[objects.known].astype(np.float64), objects.targets[objects.known, column]
        )
        assert label == objects.labels[column]
        assert of_objects.probabilities(vectors)[:, column] == pytest.approx(
            model.predict_proba(vectors)[:, 1], abs=1e-3
        )
    # The gradient of C times the summed losses, plus the penalty, vanishes in every weight.
    for facet, output in ((objects, of_objects), (scenes, of_scenes)):
        rows = facet.known
        excess = output.probabilities(vectors[rows]).astype(np.float64) - facet.targets[rows]
        gradient = c * excess.T @ vectors[rows] + output.weights
        start = c * (0.5 - facet.targets[rows]).T @ vectors[rows]
        assert np.abs(gradient).max() < 0.01 * np.abs(start).max()
        assert np.abs(excess.sum(axis=0)).max() < 0.05
    assert of_scenes.scores(vectors).holds.sum(axis=1).max() == 1


def test_two_classes_are_a_softmax_like_any_other():
    vectors, labels = pictures()
    two = [(each[0],) if each[0] != "city" else ("forest",) for each in labels]
    (facet,) = group_by_facet(two, WORDS)
    trained = train_facets(vectors, [facet])
    model = LogisticRegression(C=trained.inverse_penalty, max_iter=1000).fit(
        vectors.astype(np.float64), facet.targets.argmax(axis=1)
    )
    assert trained.classifiers[0].probabilities(vectors) == pytest.approx(
        model.predict_proba(vectors), abs=1e-3
    )


def test_held_out_predictions_are_independent_of_the_picture():
    """Labels drawn at random can be learned by heart, and not foretold."""
    generator = np.random.default_rng(5)
    vectors = unit(generator.normal(size=(100, 200)))
    labels = [("dog",) if each else ("ball",) for each in generator.integers(0, 2, 100)]
    (facet,) = group_by_facet(labels, WORDS)
    trained = train_facets(vectors, [facet])
    own = trained.classifiers[0].probabilities(vectors)[:, 0] > 0.5
    held_out = trained.held_out[0].probabilities[:, 0] > 0.5
    assert (own == facet.targets[:, 0]).mean() > 0.7
    assert (held_out == facet.targets[:, 0]).mean() < 0.65


def test_copies_of_a_picture_are_held_out_together():
    """Else a picture of random label would be known by its copy."""
    generator = np.random.default_rng(6)
    vectors = np.repeat(unit(generator.normal(size=(60, 200))), 2, axis=0)
    drawn = np.repeat(generator.integers(0, 2, 60), 2)
    (facet,) = group_by_facet([("dog",) if each else ("ball",) for each in drawn], WORDS)
    held_out = train_facets(vectors, [facet]).held_out[0].probabilities
    assert ((held_out[:, 0] > 0.5) == facet.targets[:, 0]).mean() < 0.65


def test_the_penalty_is_the_one_of_least_summed_loss_held_out():
    vectors, labels = pictures(each=12, noise=0.5)
    facets = group_by_facet(labels, WORDS)
    trained = train_facets(vectors, facets)
    everything = np.ones(len(vectors), dtype=bool)
    said = [each.probabilities for each in trained.held_out]
    by_hand = 0.0
    for facet, p in zip(facets, said, strict=True):
        rows = facet.known
        right = np.where(facet.targets[rows], p[rows], 1 - p[rows])
        if facet.answers == "one":
            right = np.where(facet.targets[rows], p[rows], 1.0)
        by_hand += -np.log(right).sum(axis=1).mean()
    assert summed_loss(facets, said, everything) == pytest.approx(by_hand, rel=1e-3)
    assert trained.inverse_penalty in INVERSE_PENALTIES
    assert FOLDS == 5


def test_the_best_threshold_has_the_largest_f1():
    generator = np.random.default_rng(7)
    for _ in range(20):
        said = generator.random(40).astype(np.float32).round(1)
        right = generator.random(40) < said
        if not right.any():
            continue

        def f1(threshold: float, said=said, right=right) -> float:
            given = said >= threshold
            return 2 * (given & right).sum() / (given.sum() + right.sum())

        found = best_threshold(said, right)
        best = max(f1(each) for each in np.arange(0.05, 0.951, 0.01))
        assert f1(found) == pytest.approx(best, abs=1e-9)


def test_labels_find_their_facet():
    labels = [("beach", "dog"), ("season:summer",), ("brand",), ("scene:cave",)]
    facets = group_by_facet(labels, WORDS, facet="product", one_of=["season"])
    assert {each.facet: (each.answers, each.labels) for each in facets} == {
        "object": ("many", ("dog",)),
        "product": ("many", ("brand",)),
        "scene": ("one", ("beach", "cave")),
        "season": ("one", ("summer",)),
    }
    scene = next(each for each in facets if each.facet == "scene")
    assert scene.known.tolist() == [True, False, False, True]


@pytest.mark.parametrize(
    ("labels", "one_of", "says"),
    [
        ([("beach", "city")], (), "two labels of the facet 'scene', which has one answer"),
        ([("dog",), ("scene:dog",)], (), "'dog' is labelled in the facets 'object' and 'scene'"),
        ([("dog",)], ("season",), "no labels of the facet 'season'"),
    ],
)
def test_contradictory_labels_are_refused(labels, one_of, says):
    with pytest.raises(FileInvalid, match=says):
        group_by_facet(labels, WORDS, one_of=one_of)


def test_a_classifier_is_stored_without_loss_and_refused_for_another_encoder():
    vectors, labels = pictures()
    classifier = classifier_of(
        train_facets(vectors, group_by_facet(labels, WORDS)).classifiers, SEAL
    )
    kept = TagClassifier.from_body(json.loads(json.dumps(classifier.to_body())), "images")
    for ours, theirs in zip(classifier.scores(vectors), kept.scores(vectors), strict=True):
        assert (ours.scores == theirs.scores).all()
        assert (ours.holds == theirs.holds).all()
    meta = new_meta(SEAL, "exact", "cosine")
    kept.check(meta, "images")
    for other in (Seal("other", "2", DIMS, "f"), Seal("fake", "1", DIMS, "g")):
        with pytest.raises(EncoderMismatch, match=r"train it again .* `es-imgsearch tags train"):
            kept.check(new_meta(other, "exact", "cosine"), "images")
    with pytest.raises(EncoderMismatch, match="another reduction"):
        classifier_of(classifier.facets, SEAL, "abc").check(meta, "images")
    with pytest.raises(IndexConflict, match="damaged"):
        TagClassifier.from_body({"encoder": {}}, "images")


def test_trained_labels_replace_equal_words():
    generator = np.random.default_rng(8)
    words = Vocabulary(
        (
            Facet("object", "many", ("dog", *(f"o{n}" for n in range(30)))),
            Facet("scene", "one", ("beach", "forest", "city", "cave")),
        ),
        "",
    )
    zero_shot = ZeroShot.of(words, unit(generator.normal(size=(35, DIMS))), np.zeros((0, 0)))
    vectors, labels = pictures()
    classifier = classifier_of(
        train_facets(vectors, group_by_facet(labels, WORDS)).classifiers, SEAL
    )
    found = Tagger(words, zero_shot, classifier).scores(vectors)
    assert [(each.facet, each.is_trained, len(each.labels)) for each in found] == [
        ("object", True, 2), ("scene", True, 3), ("object", False, 30),
    ]  # fmt: skip
    fields = Tagger(words, None, classifier).fields(vectors)
    right = [set(each["tags"]) == set(names) for each, names in zip(fields, labels, strict=True)]
    assert np.mean(right) > 0.8
    for each in fields:
        scores = [each["tag_scores"][tag] for tag in each["tags"]]
        assert scores == sorted(scores, reverse=True)
        assert min(each["tag_scores"].values()) >= 0.05


@pytest.mark.parametrize(
    ("one_of", "labels"),
    [
        # Everything that is labelled shows it: that teaches nothing of what does not.
        ((), [["dog"]] * 6),
        # With the rare answer left out there is but one.
        (("scene",), [["beach"]] * 9 + [["city"]] * 3),
    ],
)
def test_a_label_without_a_counter_example_is_not_trained(one_of, labels):
    (facet,) = group_by_facet(labels, WORDS, facet="scene" if one_of else "object", one_of=one_of)
    assert facet.trainable().labels == ()
    other = [["ball"]] * 6 if not one_of else [["forest"]] * 6
    (facet,) = group_by_facet(
        [*labels, *other], WORDS, facet="scene" if one_of else "object", one_of=one_of
    )
    assert len(facet.trainable().labels) == 2


def test_of_many_answers_only_those_that_stand_out_are_tags():
    log_odds = np.array(
        [
            # Near the best, and farther than the margin.
            [3.0, 2.5, 1.9, 0.1, -9.0],
            # Never more than three, the first of equal ones.
            [2.0, 2.0, 2.0, 2.0, 2.0],
            [-1.0, -2.0, 9.0, 1.0, 1.0],
            [-1.0, -1.0, -1.0, -1.0, -1.0],
        ],
        np.float32,
    )
    assert standing_out(log_odds, 0.7).tolist() == [
        [True, True, False, False, False],
        [True, True, True, False, False],
        [False, False, True, False, False],
        [True, True, True, False, False],
    ]
    assert standing_out(log_odds[:, :0], 0.7).shape == (4, 0)


def test_words_that_are_near_every_picture_of_a_kind_are_tags_of_few():
    """As `swan` was of 8 birds of 20: near what they share, and best for hardly any."""
    generator = np.random.default_rng(3)
    kind, *own = unit(generator.normal(size=(21, 64)))
    others = generator.normal(size=(300, 64))
    texts = unit(np.vstack([kind + np.array(own), [kind], others]))
    labels = (*(f"bird {n}" for n in range(20)), "swan", *(f"other {n}" for n in range(300)))
    pictures = unit(kind + np.array(own))
    model = ZeroShot.of(Vocabulary((Facet("object", "many", labels),), ""), texts, pictures[:0])
    assert model is not None
    (facet,) = model.scores(pictures)
    assert (facet.scores[:, labels.index("swan")] >= 0.5).sum() > 10
    assert facet.holds[:, labels.index("swan")].sum() <= 2
    assert facet.holds[np.arange(20), np.arange(20)].all()
    assert facet.holds.sum(axis=1).max() <= 3
