"""Evaluate `relevance` on unseen pictures and words.

    python benchmarks/relevance.py STAMPS [--json FILE]

STAMPS is the folder `usr/share/tuxpaint/stamps` of the Debian package tuxpaint-stamps-default (see
starter_quality.py).  labels/stamps.csv names what is on 212 of its animals and food, 151 different
words.  Every word is a query with the encoder `starter`, and every picture is one.  Right is what
has the word, or shares one with the picture.

Everything is cross-validated: five folds of the words (of the pictures), and what is tested on was
not fitted on.  Half of the searches are for what is not there: the word's own pictures are taken
out.  Hits are the first ten of each search.

1. The background: the same curve, with pictures of different origin as the foreign ones.
2. What goes into the curve: z-score, cosine, both.
3. Cut-offs and reliability of curves fitted on labels.
4. Carried over: the fitted curve on other pictures, which nothing was fitted on: the stamps of
   vehicles, household, clothes and so on, asked for by the last noun of their captions.

The curves that need no labels are measured by belief.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from report import arguments, report
from starter_quality import opened, photographs

from es_imgsearch.elastic.meta_entries import Curve
from es_imgsearch.embed.registry import load_encoder
from es_imgsearch.quality.curve_fitting import (
    CalibrationQuality,
    JudgedHits,
    cross_validate,
    fit_curve,
    judge_hits,
    measure_quality,
)
from es_imgsearch.quality.labels import queries_by_label, read_labels
from es_imgsearch.search.relevance import IMAGE, TEXT

LABELS = Path(__file__).parent / "labels" / "stamps.csv"
ELSEWHERE = ("vehicles", "household", "clothes", "town", "hobbies", "plants", "sports")
Arrays = tuple[Any, Any, Any]


def embedded(encoder: Any, images: list[Image.Image]) -> Any:
    return encoder.embed_images(np.stack([encoder.preparation.apply(each) for each in images]))


def crops(images: list[Image.Image], each: int) -> list[Image.Image]:
    generator = np.random.default_rng(0)
    found = []
    for image in images:
        for _ in range(each):
            share = generator.uniform(0.3, 0.8)
            width, height = (max(8, int(side * share)) for side in image.size)
            x = generator.integers(0, image.width - width + 1)
            y = generator.integers(0, image.height - height + 1)
            found.append(image.crop((x, y, x + width, y + height)))
    return found


def textures(number: int) -> list[Image.Image]:
    """Make coloured noise of different smoothness."""
    generator = np.random.default_rng(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(224), np.fft.fftfreq(224)))
    frequency[0, 0] = 1
    found = []
    for _ in range(number):
        falls = frequency ** generator.uniform(0.3, 2.5)
        planes = [
            np.fft.ifft2(np.fft.fft2(generator.normal(size=(224, 224))) / falls).real
            for _ in range(3)
        ]
        whole = np.stack([(plane - plane.mean()) / plane.std() for plane in planes], axis=-1)
        whole = whole @ generator.normal(size=(3, 3)) * 40 + generator.uniform(40, 215, 3)
        found.append(Image.fromarray(np.clip(whole, 0, 255).astype(np.uint8)))
    return found


def noun(file: Path) -> str | None:
    """Guess the last noun of a stamp's English caption."""
    text = file.with_suffix(".txt").read_text("utf-8", "replace").splitlines()[0].lower()
    words = re.findall("[a-z]+", re.split(r"[,(—.!]|\b(?:with|for|of the|to|in) ", text)[0])
    return words[-1] if words and len(words) <= 4 else None


def arrays(encoder: Any, images: list[Image.Image], labels: list[tuple[str, ...]]) -> Arrays:
    """Vectors of pictures and texts, and which picture has which text."""
    by_place = {str(place): each for place, each in enumerate(labels)}
    queries = queries_by_label(by_place)
    right = np.zeros((len(queries), len(images)), dtype=bool)
    for row, query in zip(right, queries, strict=True):
        row[[int(place) for place in query.relevant]] = True
    texts = encoder.embed_texts([query.text for query in queries])
    return embedded(encoder, images), texts, right


def queries_of(kind: str, data: Arrays) -> tuple[Any, Any, Any]:
    """Return queries, pictures and correct pairs for this kind of query."""
    pictures, texts, right = data
    if kind == TEXT:
        return texts, pictures, right
    return pictures, pictures, right.T.astype(int) @ right.astype(int) > 0


def judged(kind: str, data: Arrays, background: Any) -> JudgedHits:
    queries, pictures, right = queries_of(kind, data)
    itself = np.arange(len(pictures)) if kind == IMAGE else None
    return judge_hits(queries, pictures, right, background, own_picture=itself)


def line(kind: str, name: str, found: CalibrationQuality) -> dict[str, Any]:
    half = next(cut for cut in found.cut_offs if cut.at_least == 0.5)
    return {
        "query": kind,
        "what": name,
        "brier": found.brier,
        "brier of share": found.brier_of_share,
        "calibration error": found.calibration_error,
        "precision at .5": "-" if half.precision is None else half.precision,
        "right hits kept": half.recall,
        "false acceptances": half.false_acceptances,
    }


def details(kind: str, found: CalibrationQuality) -> list[dict[str, Any]]:
    return [
        {
            "query": kind,
            "at least": cut.at_least,
            "hits": cut.hits,
            "precision": "-" if cut.precision is None else cut.precision,
            "right hits kept": cut.recall,
            "false acceptances": cut.false_acceptances,
        }
        for cut in found.cut_offs
    ]


def reliability(kind: str, found: CalibrationQuality) -> list[dict[str, Any]]:
    return [
        {
            "query": kind,
            "relevance": f"{each.low:.1f} to {each.low + 0.1:.1f}",
            "hits": each.hits,
            "said": each.mean_relevance,
            "right": each.share_right,
        }
        for each in found.bins
    ]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("stamps", type=Path)
    given = parser.parse_args()

    encoder = load_encoder("starter", device="cpu")
    labelled = read_labels(LABELS).pictures
    stamps = arrays(
        encoder, [opened(given.stamps / path) for path in labelled], list(labelled.values())
    )
    files = [
        file
        for name in ELSEWHERE
        for file in sorted((given.stamps / name).rglob("*.png"))
        if file.with_suffix(".txt").exists() and noun(file)
    ]
    others = arrays(
        encoder, [opened(file) for file in files], [(noun(file) or "",) for file in files]
    )
    shown, _ = photographs()
    photos = embedded(encoder, shown)
    own = stamps[0]
    backgrounds = {
        "the index itself": own,
        "50 of the index": own[np.random.default_rng(0).permutation(len(own))[:50]],
        "the index and other stamps": np.vstack([own, others[0]]),
        "other stamps": others[0],
        "photographs and crops": np.vstack([photos, embedded(encoder, crops(shown, 10))]),
        "textures": embedded(encoder, textures(300)),
    }
    rows = []
    for kind in (TEXT, IMAGE):
        for name, background in backgrounds.items():
            found = validated(kind, stamps, background)
            rows.append(line(kind, name, found))
    json_of = given.json.with_suffix if given.json else lambda _suffix: None
    report("1. The background (pictures)", rows, json_of(".background.json"))

    rows, cuts, said = [], [], []
    curves: dict[str, Curve] = {}
    for kind in (TEXT, IMAGE):
        for name, used in (
            ("z-score", {"use_cosine": False}),
            ("cosine", {"use_z": False}),
            ("both", {}),
        ):
            found = validated(kind, stamps, own, **used)
            rows.append(line(kind, name, found))
        cuts += details(kind, found)
        said += reliability(kind, found)
        curves[kind] = fit_curve(judged(kind, stamps, own))
    report("2. What goes into the curve", rows, json_of(".terms.json"))
    report("3a. Cut-offs, held out", cuts, json_of(".json"))
    report("3b. Reliability, held out", said, json_of(".reliability.json"))

    rows, said = [], []
    for kind, curve in curves.items():
        hits = judged(kind, others, others[0])
        found = measure_quality(hits, curve.probability(hits.z, hits.cosine))
        rows += details(kind, found)
        said += reliability(kind, found)
    title = f"4. Carried over to {len(files)} other stamps, asked for by {len(others[1])} nouns"
    report(title, rows, json_of(".elsewhere.json"))
    report("4b. Its reliability", said, json_of(".elsewhere_reliability.json"))

    print(f"\n{curves}")


def validated(kind: str, data: Arrays, background: Any, **used: bool) -> CalibrationQuality:
    queries, pictures, right = queries_of(kind, data)
    return cross_validate(queries, pictures, right, background, are_pictures=kind == IMAGE, **used)


if __name__ == "__main__":
    main()
