"""Measure `relevance` without labels, and fit the weights that all encoders share.

    python benchmarks/belief.py STAMPS [--json FILE]

STAMPS is the folder `usr/share/tuxpaint/stamps` of the Debian package tuxpaint-stamps-default (see
starter_quality.py).  The first collection is its animals and food, labelled by labels/stamps.csv,
with scikit-image's photographs; PRESENT are queries whose answer it holds, ABSENT those whose
answer it does not.  The second is the stamps of other folders, asked for by words of their
captions, where the animals and food of PRESENT are absent.

1. What a search says with `starter`: of hits at 50 % or more the share that is right, of right hits
   at rank 1 the share that is kept by `--min-relevance 0.3`, of searches for what is absent the
   share that says "nothing fits well", and the same of searches for what is there.  Beside the
   weights in use: weights fitted on the other collection, which know nothing of the tested one, and
   the curve that was shipped before.
2. Reliability of the weights in use.
3. Small collections: random parts of the first one.

It prints the fitted weights; `es_imgsearch/search/relevance/unlabelled.py` has them, with a higher
intercept.  A hit of a search for what is absent counts a quarter in the fit, as in `calibrate`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from relevance import ELSEWHERE, IMAGE, LABELS, TEXT, embedded, noun
from report import arguments, report
from starter_quality import opened

from es_imgsearch.elastic.meta_entries import Curve
from es_imgsearch.embed.registry import load_encoder
from es_imgsearch.quality.curve_fitting import judge_hits
from es_imgsearch.quality.labels import read_labels
from es_imgsearch.search.relevance import (
    derived_curve,
    null_moments,
    unrelated_texts,
    z_scores,
)
from es_imgsearch.search.relevance.unlabelled import SIZE_WEIGHT

PRESENT = [
    "penguin", "parrot", "peacock", "owl", "flamingo", "pelican", "ostrich", "duck", "vulture",
    "toucan", "chicken", "frog", "lobster", "shrimp", "seahorse", "bee", "dragonfly",
    "butterfly", "grasshopper", "spider", "snail", "ladybug", "iguana", "elephant", "giraffe",
    "hedgehog", "hippopotamus", "pig", "rabbit", "rhino", "gorilla", "dolphin", "whale", "otter",
    "bear", "cow", "goat", "sheep", "camel", "lion", "tiger", "fox", "dog", "zebra", "horse",
    "beaver", "mouse", "squirrel", "kangaroo", "koala", "pizza", "strawberry", "apple", "banana",
    "lemon", "pineapple", "orange", "pomegranate", "mushroom", "broccoli", "cake", "cat",
    "coffee", "rocket", "motorcycle", "coin",
]  # fmt: skip
ABSENT = [
    "guitar", "piano", "violin", "trumpet", "drum", "aeroplane", "train", "sailing boat",
    "bicycle", "bus", "fire engine", "tractor", "helicopter", "church", "bridge", "lighthouse",
    "castle", "skyscraper", "mountain", "beach", "waterfall", "volcano", "laptop",
    "mobile phone", "television", "sofa", "bed", "lamp", "umbrella", "shoe", "hat",
    "wedding dress", "tie", "tennis racket", "golf ball", "traffic light", "hammer",
    "screwdriver", "pair of scissors", "pencil", "backpack", "toothbrush", "bathtub",
    "washing machine", "refrigerator", "candle", "cactus", "snowman", "robot", "hot air balloon",
    "crocodile", "snake", "turtle", "shark", "octopus", "panda", "hamburger", "ice cream",
    "wine bottle", "bowl of soup",
]  # fmt: skip
PRESENT_ELSEWHERE = [
    "airplane", "balloon", "basketball", "bassoon", "binoculars", "bus", "camera", "castle",
    "cathedral", "cello", "drum", "football", "glove", "guitar", "hammer", "helicopter",
    "helmet", "igloo", "jacket", "kettle", "key", "lightbulb", "locomotive", "mailbox",
    "paintbrush", "pinecone", "pliers", "pyramid", "racket", "rose", "sailboat", "saw", "scarf",
    "shirt", "shipwreck", "sock", "teapot", "tent", "tower", "tricycle", "truck", "trumpet",
    "violin", "volleyball", "windmill", "wrench",
]  # fmt: skip
# What the labels do not say: photographs, and kinds of a kind.
PHOTOGRAPHS = {
    "chelsea.png": "cat", "coffee.png": "coffee", "rocket.jpg": "rocket", "coins.png": "coin",
    "motorcycle_left.png": "motorcycle", "motorcycle_right.png": "motorcycle", "horse.png": "horse",
}  # fmt: skip
KINDS = {
    "rooster": "chicken", "hen": "chicken", "bull": "cow", "zebu": "cow", "ram": "sheep",
    "boar": "pig", "rat": "mouse", "dromedary": "camel", "dingo": "dog", "orca": "whale",
}  # fmt: skip
MASS = ("coffee", "broccoli")
# Curves of the encoder `starter` that were fitted on labels and shipped before.
BEFORE = {TEXT: Curve(-7.6692, 0.3944, 8.8884), IMAGE: Curve(-5.3386, 1.4236, 1.4801)}
ABSENT_WEIGHT = 0.25
HITS = 10


class Collection(NamedTuple):
    """Pictures (n, dims); queries that have an answer and their right ones; absent queries."""

    pictures: Any
    present: Any
    right: Any
    absent: Any


class Judged(NamedTuple):
    """The first hits of every query, each of shape (queries, hits)."""

    z: Any
    cosine: Any
    right: Any
    is_absent: Any

    def odds(self, weights: Sequence[float], moments: tuple[float, float], size: int) -> Any:
        standard = (self.cosine - moments[0]) / moments[1]
        return weights[0] - SIZE_WEIGHT * np.log(size) + weights[1] * self.z + weights[2] * standard


def phrase(word: str) -> str:
    return word if word in MASS else f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def first_collection(encoder: Any, stamps: Path) -> tuple[Any, list[set[str]]]:
    import skimage

    labelled = read_labels(LABELS).pictures
    folder = Path(skimage.__file__).parent / "data"
    photographs = [
        file
        for file in sorted(folder.iterdir())
        if file.suffix in {".png", ".jpg", ".gif", ".tif"} and file.name != "multipage_rgb.tif"
    ]
    files = [*(stamps / path for path in labelled), *photographs]
    labels = [{*words, *(KINDS[w] for w in words if w in KINDS)} for words in labelled.values()]
    labels += [{PHOTOGRAPHS[file.name]} & set(PRESENT) if file.name in PHOTOGRAPHS else set()
               for file in photographs]  # fmt: skip
    return embedded(encoder, [opened(file) for file in files]), labels


def right_of(words: Sequence[str], labels: Sequence[set[str]]) -> Any:
    return np.array([[word in each for each in labels] for word in words])


def judge_pictures(pictures: Any, words: Sequence[set[str]]) -> Judged:
    """Search by every picture twice: among all, and without those that share a word with it."""
    share = np.array([[bool(one & other) for other in words] for one in words])
    asked = np.flatnonzero(share.sum(axis=1) > 1)
    hits = judge_hits(pictures[asked], pictures, share[asked], pictures, own_picture=asked)
    each = (hits.z, hits.cosine, hits.right, hits.absent)
    return Judged(*(array.reshape(-1, HITS) for array in each))


def judge(data: Collection, background: Any) -> Judged:
    parts = []
    for queries, right, absent in (
        (data.present, data.right, False),
        (data.absent, np.zeros((len(data.absent), len(data.pictures)), bool), True),
    ):
        cosines = queries @ data.pictures.T
        z = z_scores(queries, cosines, background)
        order = np.argsort(-cosines, axis=1)[:, :HITS]
        row = np.arange(len(queries))[:, None]
        found = right[row, order]
        parts.append((z[row, order], cosines[row, order], found, np.full(found.shape, absent)))
    return Judged(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def fitted(parts: Sequence[tuple[Judged, tuple[float, float], int]]) -> tuple[float, ...]:
    """Fit intercept and both weights by Newton's method, absent searches at a quarter."""
    columns, right, weight = [], [], []
    for judged, moments, size in parts:
        standard = (judged.cosine - moments[0]) / moments[1]
        columns.append(np.stack([np.ones(judged.z.size), judged.z.ravel(), standard.ravel()], 1))
        right.append(judged.right.ravel())
        weight.append(np.where(judged.is_absent.ravel(), ABSENT_WEIGHT, 1.0) / len(parts))
        columns[-1] = np.column_stack([columns[-1], np.full(judged.z.size, np.log(size))])
    x, y, w = np.concatenate(columns), np.concatenate(right), np.concatenate(weight)
    offset, x = -SIZE_WEIGHT * x[:, 3], x[:, :3]
    found = np.zeros(3)
    for _ in range(50):
        p = 1 / (1 + np.exp(-(offset + x @ found)))
        hessian = (x * (w * p * (1 - p))[:, None]).T @ x + 1e-6 * np.eye(3)
        step = np.linalg.solve(hessian, x.T @ (w * (p - y)))
        # A full step from a flat place overshoots.
        found -= step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
    return tuple(round(float(each), 3) for each in found)


def line(collection: str, curve: str, judged: Judged, relevance: Any) -> dict[str, Any]:
    absent, first = judged.is_absent[:, 0], judged.right[:, 0]
    shown = relevance >= 0.5
    best = relevance[:, 0]
    return {
        "collection": collection,
        "curve": curve,
        "hits >= .5": int(shown.sum()),
        "right of them": float(judged.right[shown].mean()) if shown.any() else "-",
        "right at rank 1": int(first.sum()),
        "kept at .3": float((best[first] >= 0.3).mean()),
        "absent: nothing fits": float((best[absent] < 0.5).mean()),
        "present: nothing fits": float((best[~absent] < 0.5).mean()),
        "brier": float(((relevance - judged.right) ** 2).mean()),
    }


def reliability(judged: Judged, relevance: Any) -> list[dict[str, Any]]:
    rows = []
    for low, high in ((0, 0.1), (0.1, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 1.01)):
        inside = (relevance >= low) & (relevance < high)
        if inside.any():
            rows.append({
                "relevance": f"{low:.0%} to {min(high, 1):.0%}", "hits": int(inside.sum()),
                "said": float(relevance[inside].mean()),
                "right": float(judged.right[inside].mean()),
            })  # fmt: skip
    return rows


def probability(odds: Any) -> Any:
    return 1 / (1 + np.exp(-odds))


def by_curve(curve: Curve, judged: Judged) -> Any:
    return curve.probability(judged.z, judged.cosine)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("stamps", type=Path)
    given = parser.parse_args()
    encoder = load_encoder("starter", device="cpu")

    def texts(words: Sequence[str]) -> Any:
        return encoder.embed_texts([phrase(word) for word in words])

    pictures, labels = first_collection(encoder, given.stamps)
    first = Collection(pictures, texts(PRESENT), right_of(PRESENT, labels), texts(ABSENT))
    files = [
        file
        for name in ELSEWHERE
        for file in sorted((given.stamps / name).rglob("*.png"))
        if file.with_suffix(".txt").exists() and noun(file)
    ]
    nouns = [{noun(file) or ""} for file in files]
    elsewhere = Collection(
        embedded(encoder, [opened(file) for file in files]),
        texts(PRESENT_ELSEWHERE),
        right_of(PRESENT_ELSEWHERE, nouns),
        texts([word for word in PRESENT if word not in ("penguin", "duck")]),
    )
    unrelated = encoder.embed_texts(unrelated_texts())
    collections = {"animals, food, photographs": first, "other stamps": elsewhere}

    words_of = dict(zip(collections, (labels, nouns), strict=True))
    json_of = given.json.with_suffix if given.json else lambda _suffix: None
    rows, said, small = [], [], []
    for kind in (TEXT, IMAGE):
        parts = {}
        for name, data in collections.items():
            moments = null_moments(unrelated if kind == TEXT else data.pictures, data.pictures)
            judged = (
                judge(data, data.pictures)
                if kind == TEXT
                else judge_pictures(data.pictures, words_of[name])
            )
            parts[name] = judged, moments, len(data.pictures)
        print(f"\n{kind}: fitted on both {fitted(list(parts.values()))}")
        for name, (judged, moments, size) in parts.items():
            other = fitted([part for each, part in parts.items() if each != name])
            derived = by_curve(derived_curve(kind, moments, size), judged)
            for curve, relevance in (
                ("shipped before", by_curve(BEFORE[kind], judged)),
                (f"fitted on the other {other}", probability(judged.odds(other, moments, size))),
                ("in use", derived),
            ):
                rows.append({"query": kind, **line(name, curve, judged, relevance)})
            said += [
                {"query": kind, "collection": name, **each} for each in reliability(judged, derived)
            ]
    generator = np.random.default_rng(0)
    for size in (30, 60, 120):
        judgements, relevances = [], []
        for _ in range(20):
            part = generator.permutation(len(first.pictures))[:size]
            has = first.right[:, part].any(axis=1)
            sample = first.pictures[part]
            absent = generator.permutation(first.absent)[: max(1, int(has.sum()))]
            data = Collection(sample, first.present[has], first.right[has][:, part], absent)
            judged = judge(data, sample)
            curve = derived_curve(TEXT, null_moments(unrelated, sample), size)
            judgements.append(judged)
            relevances.append(by_curve(curve, judged))
        whole = Judged(*(np.concatenate(each) for each in zip(*judgements, strict=True)))
        small.append(line(f"{size} pictures", "in use", whole, np.concatenate(relevances)))
    report("1. What a search says", rows, json_of(".json"))
    report("2. Reliability", said, json_of(".reliability.json"))
    report("3. Small collections, words", small, json_of(".small.json"))
    hits = first.pictures @ first.present[0]
    order = np.argsort(-hits)[:5]
    model = derived_curve(TEXT, null_moments(unrelated, pictures), len(pictures))
    z = z_scores(first.present[:1], hits[None, :], pictures)[0]
    print(json.dumps({"a penguin": [round(float(model.probability(z[n], hits[n])), 3)
                                    for n in order]}))  # fmt: skip


if __name__ == "__main__":
    main()
