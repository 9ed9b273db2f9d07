"""`relevance`: the calibrated probability that a hit is right.

A cosine alone says little: 0.3 is much for a text and nothing for a picture, and some queries are
near to everything.  So a hit's cosine is also told in standard deviations above the cosines of
pictures that have nothing to do with the query (the background), and a logistic curve, fitted for
each encoder and kind of query on labelled pictures, makes a probability of both::

    z = (cosine - mean(background)) / deviation(background)
    relevance = 1 / (1 + exp(-(intercept + z_weight * z + cosine_weight * cosine)))

Standardising by a cohort of impostors is z-norm of speaker verification (Auckenthaler, Carey and
Lloyd-Thomas 2000, Digital Signal Processing 10); the curve is Platt's scaling (1999).  That the
cosine stays in besides its z-score is measured (`benchmarks/relevance.py`): with `starter`, z
alone is the worse for texts and the cosine alone for pictures, both together come near the better
of the two each time.

Neither weight is negative, so that of two hits of one query the nearer never has less relevance.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from es_imgsearch.elastic.mapping import VECTOR_FIELD, Companion
from es_imgsearch.elastic.meta import Meta, Seal
from es_imgsearch.elastic.meta_entries import Curve, curves_from_body
from es_imgsearch.elastic.queries import parse_vector
from es_imgsearch.elastic.requests import info_request, search_request
from es_imgsearch.elastic.store import Send, Store
from es_imgsearch.errors import IndexMissing, StoreDenied
from es_imgsearch.records import unit
from es_imgsearch.search.request_flow import RequestFlow, run_flow

Floats = npt.NDArray[np.float32]

TEXT: Final = "text"
IMAGE: Final = "image"

# The deviation of n cosines is known to 1 / sqrt(2n): 13 % of 30, 3 % of 500.
MIN_BACKGROUND: Final = 30
BACKGROUND_SIZE: Final = 500

# Cosines of a background of equal pictures would have no deviation to divide by.
_LEAST_DEVIATION = 1e-3

_ITSELF = 0.9999


@cache
def _shipped() -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    text = (resources.files("es_imgsearch.search") / "relevance_curves.json").read_text("utf-8")
    shipped: Mapping[str, Any] = json.loads(text)
    return shipped


def encoder_key(revision: str, fingerprint: str) -> str:
    """What the shipped curves are found by: weights and preprocessing, not the name."""
    return f"{revision} {fingerprint}"


def shipped_curves(revision: str, fingerprint: str) -> dict[str, Curve]:
    """Curves of an encoder that this package knows; empty for any other."""
    entry = _shipped().get(encoder_key(revision, fingerprint), {})
    return curves_from_body(entry.get("curves", {}))


def foreign_moments(near: Floats) -> tuple[float, float]:
    """Mean and standard deviation of one query's cosines to the background, of shape (m,).

    A picture of the background that is the query itself is not foreign to it and does not count.
    """
    if near.max() >= _ITSELF and near.min() < _ITSELF:
        near = near[near < _ITSELF]
    return float(near.mean()), max(float(near.std()), _LEAST_DEVIATION)


def z_scores(queries: Floats, cosines: Floats, background: Floats) -> Floats:
    """How many deviations above the background each cosine is.

    `queries` has shape (n, dims), `cosines` (n, any), `background` (m, dims); unit vectors.
    """
    moments = [foreign_moments(near) for near in queries @ background.T]
    mean, deviation = np.asarray(moments, dtype=np.float32).T
    z: Floats = (cosines - mean[:, None]) / deviation[:, None]
    return z


@dataclass(frozen=True, slots=True)
class Rating:
    """The relevance of one query's hits: its curve, and where its background lies."""

    curve: Curve
    mean: float
    deviation: float

    def of(self, cosine: float) -> float:
        """Relevance of a hit with this cosine, to four digits."""
        curve = self.curve
        z = (cosine - self.mean) / self.deviation
        odds = curve.intercept + curve.z_weight * z + curve.cosine_weight * cosine
        # One number at a time, `probability` would take 30 times as long.
        return round(1.0 / (1.0 + math.exp(-min(max(odds, -60.0), 60.0))), 4)


@dataclass(frozen=True, slots=True, eq=False)
class Relevance:
    """What turns the cosines of one index into probabilities; `background` of shape (m, dims)."""

    curves: Mapping[str, Curve]
    background: Floats

    def rating(self, query: Floats, kind: str) -> Rating | None:
        """For hits of a query vector of shape (dims,); None for a kind that has no curve.

        `kind` is ``text`` or ``image``.
        """
        if (curve := self.curves.get(kind)) is None:
            return None
        return Rating(curve, *foreign_moments(self.background @ query))


# `<index>-background`: the sample of pictures that a query's cosines are held against.
#
# It is a sample of the index itself: whatever is asked for, almost all of its pictures are foreign
# to the query.  For texts it makes no difference which pictures are taken; for pictures others
# were no better to rely on (`benchmarks/relevance.py`, Brier score held out: the index itself
# .141, photographs .135, other drawings .149, noise .151, hits without any relevance .153), and a
# sample of the index needs no pictures from elsewhere, for any encoder.
#
# `calibrate` stores the sample, so that relevance stays the same while the index grows, and a
# client reads it once.  Where there is none, a client draws the same sample from the index.

_BY_CONTENT: Mapping[str, Any] = {
    "_source": False,
    "docvalue_fields": ["content_id", VECTOR_FIELD],
    "sort": [{"content_id": "asc"}],
    "track_total_hits": False,
}


class Sampled(NamedTuple):
    """Pictures of a background; `vectors` of shape (n, dims)."""

    image_ids: Sequence[str]
    content_ids: Sequence[str]
    vectors: Floats


def relevance_of(index: str, meta: Meta) -> RequestFlow[Relevance | None]:
    """The relevance model of this index; None where there is none.

    That is so without curves, stored or shipped, and in an index of fewer than 30 pictures.
    """
    seal = meta.seal
    curves = meta.relevance or shipped_curves(seal.revision, seal.fingerprint)
    if not curves:
        return None
    vectors = yield from background_of(index, meta, seal.dims)
    if len(vectors) < MIN_BACKGROUND:
        return None
    return Relevance(curves, vectors)


def background_of(index: str, meta: Meta, dims: int) -> RequestFlow[Floats]:
    """Unit vectors of the sample, of shape (n, dims): the one that was stored, or drawn now.

    Vectors that were cut down for storing cannot be compared with whole ones, so a sample of
    another width is as good as none: n is 0 where there is no other.
    """
    sampled = yield from _stored(index, meta.seal)
    if sampled is None or sampled.vectors.shape[1] != dims:
        sampled = yield from sample(index)
    if sampled.vectors.shape[1] != dims:
        return np.zeros((0, dims), np.float32)
    return sampled.vectors


def sample(index: str, size: int = BACKGROUND_SIZE) -> RequestFlow[Sampled]:
    """The pictures with the smallest content ids, each content once.

    Those are hashes, so this is a random sample, and the same one whenever and by whomever it is
    drawn; a picture that is added takes the place of another only as likely as it should.
    """
    body = {
        **_BY_CONTENT,
        "size": size,
        "query": {"bool": {"filter": [{"exists": {"field": VECTOR_FIELD}}]}},
        "collapse": {"field": "content_id"},
    }
    found = _sampled((yield search_request(index, orjson.dumps(body))))
    if len(found.vectors) >= MIN_BACKGROUND:
        return found
    # Pictures that were imported may have no content_id: they would be one group.
    anonymous = {
        **_BY_CONTENT,
        "size": size,
        "query": {
            "bool": {
                "filter": [{"exists": {"field": VECTOR_FIELD}}],
                "must_not": [{"exists": {"field": "content_id"}}],
            }
        },
        "sort": [{"image_id": "asc"}],
    }
    others = _sampled((yield search_request(index, orjson.dumps(anonymous))))
    return others if len(others.vectors) > len(found.vectors) else found


def _stored(index: str, seal: Seal) -> RequestFlow[Sampled | None]:
    """What `<index>-background` holds, if there is one of this encoder."""
    alias = Companion.BACKGROUND.alias(index)
    try:
        answer = yield info_request(alias)
        metas = [body["mappings"].get("_meta", {}) for body in answer.values()]
        if len(metas) != 1 or not _is_of(metas[0].get("encoder", {}), seal):
            return None
        body = {**_BY_CONTENT, "size": BACKGROUND_SIZE}
        return _sampled((yield search_request(alias, orjson.dumps(body))))
    except (IndexMissing, StoreDenied):
        # A key may be good for the pictures' index alone, and searching must not need more.
        return None


def load_background(index: str, meta: Meta, dims: int, send: Send) -> Floats:
    """Run `background_of`."""
    return run_flow(background_of(index, meta, dims), send)


def draw_sample(index: str, send: Send) -> Sampled:
    """Run `sample`."""
    return run_flow(sample(index), send)


def store_background(store: Store, seal: Seal, sampled: Sampled) -> None:
    """Put the sample behind `<index>-background`, in place of the one before.

    Raises IndexConflict where the name is taken by an index.
    """
    rows = zip(sampled.image_ids, sampled.content_ids, sampled.vectors, strict=True)
    store.companions.replace_all(
        Companion.BACKGROUND,
        seal,
        (
            (image_id, {"image_id": image_id, "content_id": content_id, VECTOR_FIELD: vector})
            for image_id, content_id, vector in rows
        ),
    )


def _is_of(encoder: Mapping[str, Any], seal: Seal) -> bool:
    parts = ("dims", "revision", "fingerprint")
    return all(encoder.get(part) == getattr(seal, part) for part in parts)


def _sampled(answer: Mapping[str, Any]) -> Sampled:
    hits = answer.get("hits", {}).get("hits", ())
    fields = [hit["fields"] for hit in hits]
    rows = [unit(parse_vector(each[VECTOR_FIELD])) for each in fields]
    return Sampled(
        image_ids=[hit["_id"] for hit in hits],
        # Pictures that were imported may have none; their ids are hashes, too.
        content_ids=[
            each.get("content_id", [hit["_id"]])[0] for hit, each in zip(hits, fields, strict=True)
        ],
        vectors=np.stack(rows) if rows else np.zeros((0, 0), dtype=np.float32),
    )
