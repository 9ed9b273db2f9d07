"""Binary codes compared: by sign, by random hyperplanes, and learned from labels.

    python benchmarks/binary_codes.py STAMPS [--crops N] [--json FILE]
    python benchmarks/binary_codes.py --vectors FILE.npy [--count N] [--json FILE]

STAMPS is the folder `usr/share/tuxpaint/stamps` of the Debian package tuxpaint-stamps-default (see
starter_quality.py); labels/stamps.csv names what is on 212 of its animals and food.  Each picture
and N crops of it (default 6) are embedded by the encoder `starter`.  Half of the pictures of each
label are known: coders are made of their vectors, and the learned one of their labels, too.  The
other half is new.  All are stored, and two more crops of each new picture are the queries:

    recall@10 of 50    of the true ten nearest, with 50 candidates by code put in order exactly
    recall@10 of 200   with 200, which is what a search for ten asks for
    mAP known          mean average precision among the first 100 hits, of the known pictures: right
                       is what shares a label with the query
    mAP new            the same of the new pictures, but for the query's own and its crops
    mAP ... by code    with the 100 nearest codes in the order of their Hamming distance
    p50 ms             the whole round trip of a search for ten, 200 candidates
    bytes a code       what is walked through; the full vectors are on disk in addition

`exact` compares every vector, `binary` is the search of that profile (1-bit codes made by
Elasticsearch, 50 candidates compared again), both without codes of ours.

With --vectors: vectors of your own without labels, so no learned codes and no mAP; there the codes
are searched through a graph (as an index does) and one by one (`flat`), too.

Needs an Elasticsearch (`make es-up`, or ES_URL); the indices it makes are removed.  On two busy
cores the stamps take 3 minutes, 50,000 vectors (crop_vectors.py makes some) 7.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from report import arguments, report
from starter_quality import opened
from vectors import Vectors, add_vector_options, load_dataset, nearest, recall

from es_imgsearch.codes.coder import Coder
from es_imgsearch.codes.fitting import fit_learned, fit_lsh, fit_sign, label_targets
from es_imgsearch.codes.queries import code_body
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import VECTOR_FIELD, new_meta
from es_imgsearch.elastic.meta import Seal
from es_imgsearch.elastic.meta_entries import CODE_FIELD, CodesEntry
from es_imgsearch.elastic.queries import exact_body, knn_body
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.registry import load_encoder
from es_imgsearch.quality.labels import read_labels
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import remove_index

LABELS = Path(__file__).parent / "labels" / "stamps.csv"
K, DEPTH = 10, 100
CANDIDATES = (50, 200)
QUERIES_A_PICTURE = 2
CHUNK = 500

Body = dict[str, Any]
# The query's vector, how many hits, under which filters.
Search = Callable[[Vectors, int, Sequence[Mapping[str, Any]]], Body]


class Collection(NamedTuple):
    """Stored vectors and queries; `pictures` numbers the source picture of each.

    `right` says of two pictures whether they share a label, `is_known` of one whether coders saw
    it; both are None without labels.
    """

    stored: Vectors
    stored_pictures: np.ndarray
    queries: Vectors
    query_pictures: np.ndarray
    right: np.ndarray | None = None
    is_known: np.ndarray | None = None


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("stamps", type=Path, nargs="?")
    parser.add_argument("--crops", type=int, default=6)
    add_vector_options(parser, count=100_000)
    given = parser.parse_args()
    if given.stamps is not None:
        title, rows = of_stamps(given)
    elif given.vectors is not None:
        title, rows = of_vectors(given)
    else:
        parser.error("give the folder of stamps, or --vectors")
    report(title, rows, given.json)


def of_stamps(given: argparse.Namespace) -> tuple[str, list[Body]]:
    collection, labels = embedded_stamps(given.stamps, given.crops)
    assert collection.is_known is not None
    known = collection.is_known[collection.stored_pictures]
    sample = collection.stored[known]
    targets, _ = label_targets([labels[n] for n in collection.stored_pictures[known]])
    coders = {
        "sign": fit_sign(sample),
        "lsh 48": fit_lsh(sample, 48),
        "lsh 128": fit_lsh(sample, 128),
        "learned 48": fit_learned(sample, targets, 48),
        "learned 128": fit_learned(sample, targets, 128),
    }
    rows = [*plain_rows(collection), *(coded_row(collection, *each) for each in coders.items())]
    count = len(collection.stored)
    return f"{count} vectors of {len(labels)} stamps, {len(collection.queries)} queries", rows


def of_vectors(given: argparse.Namespace) -> tuple[str, list[Body]]:
    data = load_dataset(given)
    numbers = np.arange(len(data.stored))
    collection = Collection(data.stored, numbers, data.queries, -1 - np.arange(len(data.queries)))
    sample = data.stored[:5000]
    rows = plain_rows(collection)
    for name, coder in {"sign": fit_sign(sample), "lsh 128": fit_lsh(sample, 128)}.items():
        rows += [coded_row(collection, name, coder), coded_row(collection, name, coder, flat=True)]
    return f"{len(data.stored)} {data.name} vectors, {len(data.queries)} queries", rows


# -- what is stored ----------------------------------------------------------------------------


def embedded_stamps(folder: Path, crops: int) -> tuple[Collection, list[tuple[str, ...]]]:
    """Embed the labelled stamps; half of each label's stamps are training data."""
    named = read_labels(LABELS).pictures
    paths = sorted(named, key=lambda path: (named[path], path))
    labels = [named[path] for path in paths]
    random = np.random.default_rng(0)
    images: list[Image.Image] = []
    pictures: list[int] = []
    for n, path in enumerate(paths):
        whole = opened(folder / path)
        images += [whole, *(crop(whole, random) for _ in range(crops + QUERIES_A_PICTURE))]
        pictures += [n] * (1 + crops + QUERIES_A_PICTURE)
    encoder = load_encoder("starter")
    vectors = np.concatenate(
        [
            encoder.embed_images(np.stack([encoder.preparation.apply(each) for each in part]))
            for part in (images[start : start + 32] for start in range(0, len(images), 32))
        ]
    )
    of = np.array(pictures)
    each = 1 + crops + QUERIES_A_PICTURE
    is_query = np.arange(len(of)) % each > crops
    # Sorted by label, so every other one is half of each.
    is_known = np.arange(len(paths)) % 2 == 0
    right = np.array([[bool(set(a) & set(b)) for b in labels] for a in labels])
    asked = is_query & ~is_known[of]
    stored = Collection(
        vectors[~is_query], of[~is_query], vectors[asked], of[asked], right, is_known
    )
    return stored, labels


def crop(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """Crop at random: half to nine tenths of each side."""
    share = random.uniform(0.5, 0.9)
    width, height = (max(8, int(side * share)) for side in image.size)
    left = int(random.integers(0, image.width - width + 1))
    top = int(random.integers(0, image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


@contextmanager
def filled(
    collection: Collection, profile: str, coder: Coder | None, flat: bool
) -> Iterator[Store]:
    """Fill an index with vectors and codes, in one segment; ids are positions."""
    name = f"bench-codes-{uuid.uuid4().hex[:8]}"
    store = Store(connect(load_settings({"index": name})), name)
    meta = new_meta(Seal("bench", "1", collection.stored.shape[1], "1"), profile, "cosine")
    extra: dict[str, Any] = {}
    if coder is not None:
        meta = replace(meta, codes=CodesEntry(coder.hash, coder.method, coder.bits, "2026-01-01"))
    if flat and coder is not None:
        meta = replace(meta, codes=None)
        kind = {"type": "dense_vector", "element_type": "bit", "dims": coder.bits}
        extra = {CODE_FIELD: {**kind, "index": True, "index_options": {"type": "flat"}}}
    try:
        store.generations.create(meta, [extra])
        codes = None if coder is None else coder.codes(collection.stored)
        known = collection.is_known
        for start in range(0, len(collection.stored), CHUNK):
            writes = []
            for n in range(start, min(start + CHUNK, len(collection.stored))):
                picture = int(collection.stored_pictures[n])
                document = {
                    "image_id": f"{n}",
                    "root": "known" if known is None or known[picture] else "new",
                    "relative_path": f"{n}",
                    "content_id": f"{picture}",
                    VECTOR_FIELD: collection.stored[n],
                    **({} if codes is None else {CODE_FIELD: codes[n]}),
                }
                writes.append(Write(f"{n}", document=document))
            assert not any(store.documents.write(writes).values())
        store.refresh()
        store.generations.merge(wait_seconds=600)
        store.refresh()
        yield store
    finally:
        remove_index(store)
        store.connection.client.close()


# -- what is measured --------------------------------------------------------------------------


def plain_rows(collection: Collection) -> list[Body]:
    dims = collection.stored.shape[1]
    rows = []
    for profile, size in (("exact", 4 * dims), ("binary", dims // 8)):
        with filled(collection, profile, None, flat=False) as store:
            tuning = store.info().meta.tuning

            def search(
                vector: Vectors, k: int, filters: Any, profile: Any = (profile, tuning)
            ) -> Body:
                if profile[0] == "exact":
                    return exact_body(vector, k, "cosine", filters=filters, source=False)
                return knn_body(vector, k, profile[1], filters=filters, source=False)

            found, ms = timed(store, collection, search)
            row = {"codes": profile, "bytes a code": size, "recall@10 of 50": "-"}
            row |= {"recall@10 of 200": found, **precisions(store, collection, search, None)}
            rows.append({**row, "p50 ms": ms})
    # Neither has candidates of ours: what it finds stands in one column.
    return rows


def coded_row(collection: Collection, name: str, coder: Coder, *, flat: bool = False) -> Body:
    with filled(collection, "exact", coder, flat) as store:

        def search(candidates: int) -> Search:
            def body(vector: Vectors, k: int, filters: Any) -> Body:
                # The share of candidates that is asked for ten.
                number = candidates * k // K
                code = coder.code(vector)
                return code_body(
                    code, vector, k, "cosine", num_candidates=number, filters=filters, source=False
                )

            return body

        def by_code(vector: Vectors, k: int, filters: Any) -> Body:
            knn = {"field": CODE_FIELD, "query_vector": coder.code(vector), "k": k}
            knn |= {"num_candidates": 10 * k, "filter": list(filters)}
            return {"knn": knn, "size": k, "_source": False}

        few, _ = timed(store, collection, search(CANDIDATES[0]))
        most, ms = timed(store, collection, search(CANDIDATES[1]))
        return {
            "codes": f"{name} flat" if flat else name,
            "bytes a code": coder.bits // 8,
            "recall@10 of 50": few,
            "recall@10 of 200": most,
            **precisions(store, collection, by_depth(coder), by_code),
            "p50 ms": ms,
        }


def by_depth(coder: Coder) -> Search:
    """Rank 200 candidates by their vectors; return the first 100."""

    def body(vector: Vectors, k: int, filters: Any) -> Body:
        code = coder.code(vector)
        return code_body(
            code, vector, k, "cosine", num_candidates=2 * k, filters=filters, source=False
        )

    return body


def timed(store: Store, collection: Collection, search: Search) -> tuple[float, float]:
    """Measure recall@10 and the median latency in ms."""
    truth = nearest(collection.stored, collection.queries, K)
    found, times = [], []
    for query in [*collection.queries[:20], *collection.queries]:
        started = time.perf_counter()
        hits = ids(store, search(query, K, ()))
        times.append((time.perf_counter() - started) * 1000)
        found.append(hits)
    return round(recall(found[20:], truth), 3), round(statistics.median(times[20:]), 2)


def precisions(
    store: Store, collection: Collection, search: Search, by_code: Search | None
) -> dict[str, Any]:
    """Compute mean average precision, by vectors and by codes alone."""
    if collection.is_known is None:
        return {}
    found: dict[str, Any] = {}
    for which in ("known", "new"):
        found[f"mAP {which}"] = mean_precision(store, collection, search, which)
        alone = "-" if by_code is None else mean_precision(store, collection, by_code, which)
        found[f"mAP {which} by code"] = alone
    return found


def mean_precision(store: Store, collection: Collection, search: Search, root: str) -> float:
    assert collection.right is not None
    assert collection.is_known is not None
    among = collection.is_known if root == "known" else ~collection.is_known
    values = []
    for query, picture in zip(collection.queries, collection.query_pictures, strict=True):
        right = collection.right[picture] & among
        right[picture] = False
        total = int(right[collection.stored_pictures].sum())
        if not total:
            continue
        own = {"bool": {"must_not": [{"term": {"content_id": f"{picture}"}}]}}
        hits = ids(store, search(query, DEPTH, [{"term": {"root": root}}, own]))
        is_right = right[collection.stored_pictures[hits]]
        places = np.flatnonzero(is_right) + 1
        precision = np.arange(1, len(places) + 1) / places
        values.append(float(precision.sum()) / min(total, DEPTH))
    return round(statistics.mean(values), 3)


def ids(store: Store, body: Body) -> list[int]:
    return [int(hit["_id"]) for hit in store.searches.search(body).get("hits", {}).get("hits", ())]


if __name__ == "__main__":
    main()
