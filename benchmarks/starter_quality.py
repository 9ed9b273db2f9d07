"""Measure how well captions find pictures with `starter`, plain and shipped.

    python benchmarks/starter_quality.py STAMPS [--json FILE]

STAMPS is the folder `usr/share/tuxpaint/stamps` of the Debian package tuxpaint-stamps-default
(`apt-get download tuxpaint-stamps-default`, `dpkg -x` into a folder; nothing is installed).  Its
`animals` and `food` hold 213 drawings and photographs with a caption each, none of them from
ImageNet.  Every caption is a query; its own picture is the one right answer, even where another
stamp has the same caption (19 have), so 1.0 cannot be reached.

The first rows take one decision back at a time.  One standard error of a recall of .25 is .03 on
213 queries: smaller differences between rows mean nothing, and the decisions were made on the
sense of each, on the scores of unrelated pictures, and on scikit-image's photographs.

The rows that begin with "tried" are what was not taken.  Of them only a picture padded to a square
is better by more than a standard error (recall@1/5/10 .28/.47/.57 against .24/.44/.53), and it is
so for these stamps: they are cut out and lie on white, so the padding continues their background,
and a crop loses their heads and tails.  A photograph has no such background.  Other temperatures,
more names of a class and its mirror image change nothing that 213 queries could show.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from es_imgsearch.embed import starter
from es_imgsearch.embed.minilm import MiniLM
from es_imgsearch.embed.registry import load_encoder
from es_imgsearch.read.preparation import Preparation
from es_imgsearch.records import unit

FOLDERS = ("animals", "food")
QUERIES = {
    "a cat": {"chelsea.png"},
    "coffee": {"coffee.png"},
    "a rocket": {"rocket.jpg"},
    "motorcycle": {"motorcycle_left.png", "motorcycle_right.png"},
    "coins": {"coins.png"},
}
IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


def opened(file: Path) -> Image.Image:
    """Open a picture on white, as es_imgsearch reads transparent ones."""
    with Image.open(file) as image:
        whole = image.convert("RGBA")
    white = Image.new("RGBA", whole.size, "white")
    return Image.alpha_composite(white, whole).convert("RGB")


def stamps(folder: Path) -> tuple[list[Image.Image], list[str]]:
    files = sorted(
        file
        for name in FOLDERS
        for file in (folder / name).rglob("*.png")
        if file.with_suffix(".txt").exists()
    )
    texts = [file.with_suffix(".txt").read_text("utf-8", "replace") for file in files]
    return [opened(file) for file in files], [text.splitlines()[0].strip() for text in texts]


def photographs() -> tuple[list[Image.Image], list[str]]:
    import skimage

    files = [
        file
        for file in sorted((Path(skimage.__file__).parent / "data").iterdir())
        # Pillow does not read the second of the two multi-page files.
        if file.suffix in {".png", ".jpg", ".gif", ".tif"} and file.name != "multipage_rgb.tif"
    ]
    return [opened(file) for file in files], [file.name for file in files]


class Variant:
    """`starter` with some decisions undone; probabilities of views are averaged."""

    def __init__(
        self, *views: dict[str, Any], classes: Any, temperature: float = 2.0, centred: bool = True
    ):
        self._classes = classes
        self._mean = classes.mean(axis=0) if centred else np.zeros_like(classes[0])
        self._temperature = temperature
        self._views = views

    def pictures(self, which: str) -> Any:
        views = [self._probabilities(logits[which]) for logits in self._views]
        return unit(np.mean(views, axis=0) @ (self._classes - self._mean))

    def _probabilities(self, logits: Any) -> Any:
        scaled = logits / self._temperature
        weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)

    def texts(self, sentences: Any) -> Any:
        return unit(sentences - self._mean)


def measured(name: str, variant: Variant, captions: Any, queries: Any, names: list[str]) -> Any:
    scores = variant.texts(captions) @ variant.pictures("stamps").T
    own = np.diag(scores)
    # Ties count against the picture.
    ranks = (scores >= own[:, None]).sum(axis=1)
    unrelated = scores[~np.eye(len(scores), dtype=bool)]
    found = variant.texts(queries) @ variant.pictures("photographs").T
    places = {}
    for (query, right), row in zip(QUERIES.items(), found, strict=True):
        order = [names[at] for at in np.argsort(-row)]
        places[query] = 1 + min(order.index(one) for one in right)
    return {
        "variant": name,
        **{f"recall@{k}": round(float((ranks <= k).mean()), 3) for k in (1, 5, 10)},
        "mrr": round(float((1 / ranks).mean()), 3),
        "unrelated_mean": round(float(unrelated.mean()), 3),
        "photographs": places,
    }


def logits(images: list[Image.Image], preparation: Preparation, norm: Any = None) -> Any:
    encoder = starter.create("", device="cpu")
    pixels = np.stack([preparation.apply(image) for image in images])
    if norm is None:
        return encoder.class_logits(pixels)
    # Pixels that the encoder's own normalising turns into those of `norm`.
    mean, deviation = (np.asarray(one, dtype=np.float32) for one in norm)
    moved = (pixels - mean) / deviation * starter.DEVIATION + starter.MEAN
    return encoder.class_logits(moved.astype(np.float32))


def padded(image: Image.Image) -> Image.Image:
    """Pad a picture to a white square."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def all_names() -> list[str]:
    """List every lemma of each class's synset."""
    from timm.data import ImageNetInfo

    texts = ImageNetInfo("imagenet-1k").label_descriptions(detailed=True)
    return [text.partition(": ")[0] for text in texts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stamps", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    drawn, captions = stamps(arguments.stamps)
    shown, names = photographs()
    if not drawn:
        parser.error(f"no captioned pictures in {arguments.stamps}/animals and food")
    model = MiniLM(starter.sentences_folder())
    texts, queries = model.encode(captions), model.encode(list(QUERIES))
    forms = starter.class_sentences()
    plain_names = model.encode([form[0] for form in forms])
    both = np.load(starter.CLASS_VECTORS).astype(np.float32)

    every_name = unit((both + model.encode(all_names())) / 2)

    def outputs(preparation: Preparation, norm: Any = None, change: Any = None) -> dict[str, Any]:
        sets = {"stamps": drawn, "photographs": shown}
        return {
            name: logits([change(each) for each in images] if change else images, preparation, norm)
            for name, images in sets.items()
        }

    source = outputs(starter.PREPARATION)
    hot = starter.TEMPERATURE
    imagenet = outputs(starter.PREPARATION, IMAGENET)
    whole_side = outputs(Preparation(resize=224))
    squashed = outputs(Preparation(mode="squash"))
    mirrored = outputs(starter.PREPARATION, change=ImageOps.mirror)
    on_white = outputs(Preparation(resize=224), change=padded)
    variants = {
        "plain: names, probabilities": Variant(
            source, classes=plain_names, temperature=1, centred=False
        ),
        "names and definitions": Variant(source, classes=both, temperature=1, centred=False),
        "names and definitions, centred": Variant(source, classes=both, temperature=1),
        "shipped: and temperature 2": Variant(source, classes=both, temperature=hot),
        "shipped, names only": Variant(source, classes=plain_names),
        "shipped, not centred": Variant(source, classes=both, centred=False),
        "shipped, ImageNet mean": Variant(imagenet, classes=both),
        "shipped, shorter side at 224": Variant(whole_side, classes=both),
        "tried: every name of a class": Variant(source, classes=every_name),
        "tried: temperature 1.5": Variant(source, classes=both, temperature=1.5),
        "tried: temperature 3": Variant(source, classes=both, temperature=3),
        "tried: and mirrored": Variant(source, mirrored, classes=both),
        "tried: squashed to a square": Variant(squashed, classes=both),
        "tried: and squashed": Variant(source, squashed, classes=both),
        "tried: padded to a square": Variant(on_white, classes=both),
        "tried: and padded": Variant(source, on_white, classes=both),
    }
    rows = [measured(name, variant, texts, queries, names) for name, variant in variants.items()]

    # The table has to be about what users get.
    encoder = load_encoder("starter", device="cpu")
    pixels = np.stack([encoder.preparation.apply(image) for image in shown])
    assert np.allclose(
        encoder.embed_images(pixels),
        variants["shipped: and temperature 2"].pictures("photographs"),
        atol=1e-4,
    )

    print(f"{len(captions)} captions, {len(set(captions))} of them different")
    print(f"{'':32}   @1   @5  @10  MRR  unrelated  place of {', '.join(QUERIES)}")
    for row in rows:
        recalls = " ".join(f"{row[f'recall@{k}']:.2f}" for k in (1, 5, 10))
        places = " ".join(str(place) for place in row["photographs"].values())
        unrelated = f"{row['unrelated_mean']:10.2f}"
        print(f"{row['variant']:32} {recalls} {row['mrr']:.2f} {unrelated}  {places}")
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"captions": len(captions), "rows": rows}, indent=2) + "\n", "utf-8"
        )


if __name__ == "__main__":
    main()
