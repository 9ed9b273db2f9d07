"""Compare the modes vector, hybrid and auto, with labels in the names of files and without.

    pip install --no-deps wordllama
    ES_URL=... python benchmarks/words.py STAMPS [--json FILE]

STAMPS is the folder `usr/share/tuxpaint/stamps` of the Debian package tuxpaint-stamps-default (see
starter_quality.py).  labels/stamps.csv names what is on 212 of its animals and food; every one of
its 151 words is a query, as people type it.  The pictures are indexed with their tags under

    their own names     animals/birds/pelican.png: the word is in about half of the names
    neutral names       a hash: no word of anybody helps
    wrong names         the names of other pictures: every word that is met misleads

Two encoders: `starter`, and the same classifier mixing the word vectors of WordLlama (256 dims, in
its package) in place of MiniLM's sentences.  No other encoder of pictures and texts has weights in
a package.

Prints recall@10 with its standard error over the queries, and its difference from mode vector,
paired, with the standard error of that.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from report import arguments, report

from es_imgsearch.describe.registry import describer_mappings
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed import starter
from es_imgsearch.embed.context import open_context
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.embed.registry import load_encoder
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.pipeline.sync import sync
from es_imgsearch.quality.evaluate import evaluate
from es_imgsearch.quality.labels import Labels, queries_by_label, read_labels
from es_imgsearch.records import unit
from es_imgsearch.search.client import ImageSearch
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import remove_index
from es_imgsearch.watch.roots import parse_roots, register_roots

LABELS: Final = Path(__file__).parent / "labels" / "stamps.csv"
MODES: Final = ("vector", "hybrid", "auto")


class WordVectorStarter(starter.Starter):
    """`starter` with the mean of WordLlama's word vectors in place of MiniLM's sentences."""

    name = "starter with word vectors"
    dims = 256

    def __init__(self) -> None:
        super().__init__(device="cpu")
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        # Only its files are used, so its own dependencies need not be there.
        package = importlib.util.find_spec("wordllama")
        if package is None or package.origin is None:
            sys.exit("Install it first: pip install --no-deps wordllama")
        folder = Path(package.origin).parent
        (weights,) = load_file(folder / "weights" / "l2_supercat_256.safetensors").values()
        file = folder / "tokenizers" / "l2_supercat_tokenizer_config.json"
        self._vectors, self._tokenizer = weights.astype(np.float32), Tokenizer.from_file(str(file))
        forms = zip(*starter.class_sentences(), strict=True)
        classes = unit(np.mean([self._encode(form) for form in forms], axis=0))
        self._mean = classes.mean(axis=0)
        self._mixed = classes - self._mean

    @property
    def revision(self) -> str:
        return f"{super().revision} WordLlama"

    def _encode(self, texts: Any) -> Any:
        encoded = (each.ids for each in self._tokenizer.encode_batch(list(texts)))
        return unit(np.stack([self._vectors[ids].mean(axis=0) for ids in encoded]))

    def embed_images(self, pictures: Any) -> Any:
        if not len(pictures):
            return np.zeros((0, self.dims), np.float32)
        logits = self.class_logits(pictures) / starter.TEMPERATURE
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return unit(weights @ self._mixed).astype(np.float32)

    def embed_texts(self, texts: Any) -> Any:
        if not len(texts):
            return np.zeros((0, self.dims), np.float32)
        return unit(self._encode(texts) - self._mean).astype(np.float32)

    def truncated(self, texts: Any) -> list[bool]:
        return [False] * len(texts)


def neutral(paths: list[str]) -> list[str]:
    return [f"{hashlib.blake2b(path.encode(), digest_size=8).hexdigest()}.png" for path in paths]


def wrong(paths: list[str]) -> list[str]:
    order = np.random.default_rng(0).permutation(len(paths))
    return [paths[n] for n in np.roll(order, 1)[np.argsort(order)]]


NAMES: Final[dict[str, Callable[[list[str]], list[str]]]] = {
    "own": lambda paths: paths,
    "neutral": neutral,
    "wrong": wrong,
}


def recalls(encoder: Any, files: dict[str, Path], labels: Labels) -> dict[str, Any]:
    """Index the files, named by their keys; return the recall@10 of each query by mode."""
    index = f"bench-words-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory() as home:
        for name, file in files.items():
            target = Path(home, "s", name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
        given = {"index": index, "describers": ("-text_in_image",)}
        settings = load_settings(given)
        store = Store(connect(settings), index)
        try:
            meta = new_meta(seal_of(encoder), "exact", "cosine")
            store.generations.create(meta, describer_mappings())
            roots = parse_roots([str(Path(home, "s"))])
            register_roots(store, roots, settings.host)
            context = open_context(store.pinned(), settings, encoder)
            indexer = Indexer(replace(context, store=store.pinned()), roots, settings)
            sync(indexer)
            indexer.pipeline.close()
            store.refresh()
            search = ImageSearch(settings=settings, encoder=encoder)
            return {
                mode: np.array(evaluate(search, labels, mode=mode).values()["recall@10"])
                for mode in MODES
            }
        finally:
            remove_index(store)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("stamps", type=Path)
    given = parser.parse_args()
    labelled = read_labels(LABELS).pictures
    paths = list(labelled)
    rows = []
    for encoder in (load_encoder("starter", device="cpu"), WordVectorStarter()):
        for names, named in NAMES.items():
            new = dict(zip(paths, named(paths), strict=True))
            pictures = {new[path]: words for path, words in labelled.items()}
            labels = Labels(queries_by_label(pictures), pictures)
            files = {new[path]: given.stamps / path for path in paths}
            found = recalls(encoder, files, labels)
            for mode, values in found.items():
                change = values - found["vector"]
                n = len(values) ** 0.5
                rows.append(
                    {
                        "encoder": encoder.name,
                        "names": names,
                        "mode": mode,
                        "recall@10": f"{values.mean():.3f}",
                        "se": f"{values.std(ddof=1) / n:.3f}",
                        "change": f"{change.mean():+.3f}",
                        "se of change": f"{change.std(ddof=1) / n:.3f}",
                    }
                )
    report(f"{len(paths)} pictures", rows, given.json)


if __name__ == "__main__":
    main()
