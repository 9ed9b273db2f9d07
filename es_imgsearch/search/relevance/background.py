"""The background: pictures of the index that a query's hits are compared with.

It is a sample of the index itself: almost all of its pictures are unrelated to any query.  Other
samples were no better (`benchmarks/relevance.py`, held-out Brier score for picture queries: the
index .141, photographs .135, other drawings .149, noise .151, no relevance .153; no difference for
texts), and this one needs no other pictures, for any encoder.  `calibrate` stores it in
`<index>-background`, so that relevance stays the same while the index grows; a client reads it
once.  If there is none, a client draws the same sample from the index.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import orjson

from es_imgsearch.elastic.mapping import VECTOR_FIELD, Companion
from es_imgsearch.elastic.meta import Meta, Seal
from es_imgsearch.elastic.queries import parse_vector
from es_imgsearch.elastic.requests import info_request, search_request
from es_imgsearch.elastic.store import Send, Store
from es_imgsearch.errors import IndexMissing, StoreDenied
from es_imgsearch.records import unit
from es_imgsearch.search.relevance.model import Floats, background_moments
from es_imgsearch.search.request_flow import RequestFlow, run_flow

logger = logging.getLogger(__name__)

# The relative error of a deviation of n cosines is 1 / sqrt(2n): 13 % for 30, 3 % for 500.
MIN_BACKGROUND: Final = 30
BACKGROUND_SIZE: Final = 500

_BY_CONTENT: Mapping[str, Any] = {
    "_source": False,
    "docvalue_fields": ["content_id", VECTOR_FIELD],
    "sort": [{"content_id": "asc"}],
    "track_total_hits": False,
}


class BackgroundSample(NamedTuple):
    """Pictures of a background; `vectors` has shape (n, dims)."""

    image_ids: Sequence[str]
    content_ids: Sequence[str]
    vectors: Floats


def read_background(index: str, meta: Meta, dims: int) -> RequestFlow[Floats]:
    """Read the stored background, or draw one: unit vectors of shape (n, dims).

    Reduced vectors cannot be compared with whole ones, so a sample of other dims is not used; n is
    0 if there is no other.
    """
    background = yield from _read_stored(index, meta)
    if background is None or background.vectors.shape[1] != dims:
        background = yield from sample_background(index)
    if background.vectors.shape[1] != dims:
        return np.zeros((0, dims), np.float32)
    return background.vectors


def sample_background(index: str, size: int = BACKGROUND_SIZE) -> RequestFlow[BackgroundSample]:
    """Draw the pictures with the smallest content ids, each content once.

    Content ids are hashes, so the sample is random, and every client draws the same one; an added
    picture replaces another with the probability that a random sample requires.
    """
    body = {
        **_BY_CONTENT,
        "size": size,
        "query": {"bool": {"filter": [{"exists": {"field": VECTOR_FIELD}}]}},
        "collapse": {"field": "content_id"},
    }
    by_content = _parse_sample((yield search_request(index, orjson.dumps(body))))
    if len(by_content.vectors) >= MIN_BACKGROUND:
        return by_content
    # Imported pictures may have no content_id; collapsing takes all of them for one content.
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
    others = _parse_sample((yield search_request(index, orjson.dumps(anonymous))))
    return others if len(others.vectors) > len(by_content.vectors) else by_content


def _read_stored(index: str, meta: Meta) -> RequestFlow[BackgroundSample | None]:
    """Read `<index>-background`; None if it is missing or of another encoder."""
    alias = Companion.BACKGROUND.alias(index)
    try:
        answer = yield info_request(alias)
        metas = [body["mappings"].get("_meta", {}) for body in answer.values()]
        if len(metas) != 1 or not _is_sealed_by(metas[0].get("encoder", {}), meta.seal):
            return None
        body = {**_BY_CONTENT, "size": BACKGROUND_SIZE}
        return _parse_sample((yield search_request(alias, orjson.dumps(body))))
    except IndexMissing:
        return None
    except StoreDenied as error:
        # Searching must not need more privileges than reading the pictures' index.
        if meta.relevance:
            logger.warning(
                "%r cannot be read, so relevance is that of other pictures than `calibrate` took:"
                " give this key the rights `read` and `view_index_metadata` on it. %s",
                alias, error,
            )  # fmt: skip
        return None


def average_cut_off(index: str, query: Floats) -> RequestFlow[float]:
    """Compute a cosine that unrelated pictures seldom have, without relevance.

    It is a standard deviation above the mean of the cosines between the query, of shape (dims,),
    and a sample of the index: about a sixth of unrelated pictures are nearer.  -1 for no pictures.
    """
    vectors = (yield from sample_background(index)).vectors
    if not len(vectors):
        return -1.0
    mean, deviation = background_moments(vectors @ unit(query))
    return min(mean + deviation, 1.0)


def load_background(index: str, meta: Meta, dims: int, send: Send) -> Floats:
    """Read or draw the background with blocking requests; see `read_background`."""
    return run_flow(read_background(index, meta, dims), send)


def draw_sample(index: str, send: Send) -> BackgroundSample:
    """Draw a background with blocking requests; see `sample_background`."""
    return run_flow(sample_background(index), send)


def store_background(store: Store, seal: Seal, background: BackgroundSample) -> None:
    """Store the sample in `<index>-background`, in place of the previous one.

    Raises IndexConflict if an index has this name.
    """
    rows = zip(background.image_ids, background.content_ids, background.vectors, strict=True)
    store.companions.replace_all(
        Companion.BACKGROUND,
        seal,
        (
            (image_id, {"image_id": image_id, "content_id": content_id, VECTOR_FIELD: vector})
            for image_id, content_id, vector in rows
        ),
    )


def _is_sealed_by(encoder: Mapping[str, Any], seal: Seal) -> bool:
    parts = ("dims", "revision", "fingerprint")
    return all(encoder.get(part) == getattr(seal, part) for part in parts)


def _parse_sample(answer: Mapping[str, Any]) -> BackgroundSample:
    hits = answer.get("hits", {}).get("hits", ())
    fields = [hit["fields"] for hit in hits]
    rows = [unit(parse_vector(each[VECTOR_FIELD])) for each in fields]
    return BackgroundSample(
        image_ids=[hit["_id"] for hit in hits],
        # Imported pictures may have no content_id; their image_id is a hash as well.
        content_ids=[
            each.get("content_id", [hit["_id"]])[0] for hit, each in zip(hits, fields, strict=True)
        ],
        vectors=np.stack(rows) if rows else np.zeros((0, 0), dtype=np.float32),
    )
