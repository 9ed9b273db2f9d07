"""Evaluate zero-shot and trained tags on labelled pictures.

    python benchmarks/tags.py STAMPS [--plot FILE] [--json FILE]

STAMPS is the folder `usr/share/tuxpaint/stamps` of the Debian package tuxpaint-stamps-default (see
starter_quality.py).  labels/stamps.csv names what is on 212 of its animals and food, 151 different
words.  The encoder is `starter`, and everything runs in memory, with the code that the index is
tagged by.

1. How a cosine is standardised before it is compared with a threshold: average precision (mean over
   the words), and precision and recall of all pairs at the cut of best F1.
2. Tags by the vocabulary that ships, with the background and without, of all labels above their
   threshold and of those that stand out: pictures that get a tag, and how often what they get is
   right; also of 20 birds alone.  A tag that is none of the 151 words is not counted; one that
   is and that the picture lacks is wrong.
3. Labels of five pictures and more: zero-shot, and a head in cross-validation, as `tags evaluate`,
   with their confusion matrices, which --plot draws (PNG).
4. `identify`: the vote of the ten nearest other pictures, at several thresholds of relevance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from relevance import LABELS, arrays
from report import arguments, report
from sklearn.metrics import average_precision_score
from starter_quality import opened

from es_imgsearch.embed.protocol import Vectors
from es_imgsearch.embed.registry import load_encoder
from es_imgsearch.quality.labels import queries_by_label, read_labels
from es_imgsearch.search.relevance import (
    IMAGE,
    background_moments,
    derived_curve,
    null_moments,
)
from es_imgsearch.tags.confusion_plot import plot_confusion
from es_imgsearch.tags.fitting import group_by_facet, train_facets
from es_imgsearch.tags.train import (
    NONE_OF_THEM,
    TRAINED,
    ZERO_SHOT,
    extend_vocabulary,
    measure_facet,
)
from es_imgsearch.tags.vocabulary import ONE, default_vocabulary
from es_imgsearch.tags.zero_shot import FacetScores, ZeroShot, empirical_null

NEIGHBOURS = 10


def at_best_f1(scores: Vectors, right: Any) -> tuple[float, float, float]:
    """Compute F1, precision and recall at the best common threshold."""
    order = np.argsort(-scores.ravel(), kind="stable")
    hits = right.ravel()[order].cumsum()
    given = np.arange(1, len(order) + 1)
    best = int((2 * hits / (given + right.sum())).argmax())
    precision, recall = hits[best] / given[best], hits[best] / right.sum()
    return 2 * precision * recall / (precision + recall), float(precision), float(recall)


def standardised(pictures: Vectors, texts: Vectors, words: Vectors) -> dict[str, Vectors]:
    cosines = pictures @ texts.T
    of_all = pictures @ np.vstack([words, texts]).T
    median, deviation = empirical_null(cosines)
    among_words = (cosines - of_all.mean(1, keepdims=True)) / of_all.std(1, keepdims=True)
    among_pictures = (cosines - median) / deviation
    return {
        "cosine": cosines,
        "z-norm, mean and deviation": (cosines - cosines.mean(0)) / cosines.std(0),
        "z-norm, empirical null": among_pictures,
        "t-norm, among words": among_words,
        "both": (among_words + among_pictures) / 2,
    }


def counted(
    facets: list[FacetScores], way: str, labels: list[Any], asked: set[str]
) -> dict[str, Any]:
    """Count the tags that one of two ways chooses, and how many are right."""
    tags: list[list[str]] = [[] for _ in labels]
    for facet in facets:
        is_one = facet.answers == ONE or way == "standing out"
        holds = facet.holds if is_one else facet.scores >= facet.thresholds
        for row, column in np.argwhere(holds):
            tags[row].append(facet.labels[column])
    known = [[tag for tag in each if tag in asked] for each in tags]
    hits = sum(len(set(each) & set(has)) for each, has in zip(known, labels, strict=True))
    findable = sum(label in default_vocabulary().facet_of for has in labels for label in has)
    return {
        "a picture": sum(map(len, tags)) / len(tags),
        "most": max(map(len, tags)),
        "pictures with a tag": sum(map(bool, tags)) / len(tags),
        "swan": sum("swan" in each for each in tags),
        "among the 151": sum(map(len, known)),
        "precision": hits / max(1, sum(map(len, known))),
        "recall of the words it has": hits / findable,
    }


def by_vocabulary(
    pictures: Vectors, words: Vectors, labelled: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    vocabulary, labels = default_vocabulary(), list(labelled.values())
    asked = {question.name for question in queries_by_label(labelled)}
    birds = [n for n, has in enumerate(labels) if "bird" in has][:20]
    rows = []
    for name, chosen, background in (
        ("with background", range(len(labels)), pictures),
        ("words alone", range(len(labels)), pictures[:0]),
        ("20 birds, words alone", birds, pictures[:0]),
    ):
        model = ZeroShot.of(vocabulary, words, background)
        assert model is not None
        facets = model.scores(pictures[list(chosen)])
        for way in ("above the threshold", "standing out"):
            shown = counted(facets, way, [labels[n] for n in chosen], asked)
            rows.append({"tags": f"{name}, {way}", **shown})
    return rows


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("stamps", type=Path)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the confusion matrices")
    given = parser.parse_args()
    json_of = given.json.with_suffix if given.json else lambda _suffix: None

    encoder = load_encoder("starter", device="cpu")
    labelled = read_labels(LABELS).pictures
    labels = list(labelled.values())
    images = [opened(given.stamps / path) for path in labelled]
    pictures, texts, of_words = arrays(encoder, images, labels)
    right = of_words.T
    vocabulary = default_vocabulary()
    words = encoder.embed_texts(vocabulary.texts)

    rows = []
    for name, scores in standardised(pictures, texts, words).items():
        f1, precision, recall = at_best_f1(scores, right)
        average = [
            average_precision_score(has, said) for has, said in zip(right.T, scores.T, strict=True)
        ]
        rows.append({"cosines": name, "mean AP": float(np.mean(average)), "F1": f1,
                     "precision": precision, "recall": recall})  # fmt: skip
    report("1. Cosines of 151 words, standardised", rows, json_of(".standardised.json"))

    rows = by_vocabulary(pictures, words, labelled)
    report("2. Tags by the vocabulary that ships", rows, json_of(".vocabulary.json"))

    facets = [each.trainable() for each in group_by_facet(labels, vocabulary)]
    facets = [each for each in facets if each.labels]
    trained = train_facets(pictures, facets)
    extended = extend_vocabulary(vocabulary, facets)
    model = ZeroShot.of(extended, encoder.embed_texts(extended.texts), pictures)
    assert model is not None
    by_facet = {each.facet: each for each in model.scores(pictures)}
    reports = []
    for facet, held_out in zip(facets, trained.held_out, strict=True):
        said = by_facet[facet.facet]
        at = [list(said.labels).index(label) for label in facet.labels]
        reports += [
            measure_facet(facet, ZERO_SHOT, said.scores[:, at], said.holds[:, at]),
            measure_facet(facet, TRAINED, held_out.probabilities, held_out.holds),
        ]
    rows = []
    for found in reports:
        rows += [
            {"way": found.way, "label": each.label, "pictures": each.pictures,
             "AP": each.average_precision,
             "precision": "-" if each.precision is None else each.precision,
             "recall": each.recall}
            for each in found.labels
        ]  # fmt: skip
        rows.append(
            {"way": found.way, "label": f"mean of {found.facet}", "pictures": found.pictures,
             "AP": found.mean_average_precision, "precision": "-", "recall": "-"}
        )  # fmt: skip
    report("3. Labels of five pictures and more", rows, json_of(".labels.json"))
    for found in reports:
        names = [each.label for each in found.labels]
        rows = [
            {"right": name, **dict(zip([*names, NONE_OF_THEM], counts.tolist(), strict=True))}
            for name, counts in zip(names, found.confusion, strict=True)
        ]
        title = f"Given, of the pictures that have a label of {found.facet}: {found.way}"
        report(title, rows, json_of(f".{found.facet}.{found.way}.json"))
    if given.plot is not None:
        plot_confusion(reports, given.plot)

    curve = derived_curve(IMAGE, null_moments(pictures, pictures), len(pictures))
    answers = []
    for n, vector in enumerate(pictures):
        cosines = pictures @ vector
        mean, deviation = background_moments(cosines)
        cosines[n] = -1.0
        nearest = np.argsort(-cosines)[:NEIGHBOURS]
        relevance = curve.probability((cosines[nearest] - mean) / deviation, cosines[nearest])
        votes: dict[str, float] = {}
        best: dict[str, float] = {}
        for other, weight in zip(nearest, relevance, strict=True):
            for label in labels[other]:
                votes[label] = votes.get(label, 0.0) + weight
                best[label] = max(best.get(label, 0.0), weight)
        name = max(votes, key=lambda label: votes[label])
        answers.append((best[name], name in labels[n]))
    said = np.array([each[0] for each in answers])
    hit = np.array([each[1] for each in answers])
    rows = [
        {"min_relevance": least, "answered": float((said >= least).mean()),
         "right of these": float(hit[said >= least].mean()) if (said >= least).any() else "-"}
        for least in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7)
    ]  # fmt: skip
    report("4. identify: the vote of the ten nearest", rows, json_of(".identify.json"))


if __name__ == "__main__":
    main()
