"""`<index>-background`: the sample of pictures that a query's cosines are held against.

It is a sample of the index itself: whatever is asked for, almost all of its pictures are foreign
to the query.  For texts it makes no difference which pictures are taken; for pictures others were
no better to rely on (`benchmarks/relevance.py`, Brier score held out: the index itself .141,
photographs .135, other drawings .149, noise .151, hits without any relevance .153), and a sample
of the index needs no pictures from elsewhere, for any encoder.

`calibrate` stores the sample, so that relevance stays the same while the index grows, and a
client reads it once.  Where there is none, a client draws the same sample from the index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson

from es_imgsearch.errors import IndexConflict, IndexMissing, StoreDenied
from es_imgsearch.mapping import VECTOR_FIELD, Meta, Seal, background_alias, background_body
from es_imgsearch.queries import unit_vector_of
from es_imgsearch.relevance import (
    BACKGROUND_SIZE,
    MIN_BACKGROUND,
    Floats,
    Relevance,
    shipped_curves,
)
from es_imgsearch.store import Store
from es_imgsearch.talk import NDJSON, Talk, info_request, search_request

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


def relevance_of(index: str, meta: Meta) -> Talk[Relevance | None]:
    """What gives hits of this index their relevance; None where it cannot be told.

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


def background_of(index: str, meta: Meta, dims: int) -> Talk[Floats]:
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


def sample(index: str, size: int = BACKGROUND_SIZE) -> Talk[Sampled]:
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


def _stored(index: str, seal: Seal) -> Talk[Sampled | None]:
    """What `<index>-background` holds, if there is one of this encoder."""
    alias = background_alias(index)
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


def store_background(store: Store, seal: Seal, sampled: Sampled) -> None:
    """Put the sample behind `<index>-background`, in place of the one before.

    It is filled before the alias shows it, so no client reads half of it.  Raises IndexConflict
    where the name is taken by an index.
    """
    alias = background_alias(store.index)
    before = _behind(store, alias)
    if alias in before:
        raise IndexConflict(
            f"{alias!r} is an index, not an alias of ours: remove it, or use another --index."
        )
    numbers = [int(name.rpartition("-")[2]) for name in before]
    name = f"{alias}-{max(numbers, default=0) + 1:06}"
    # What an interrupted calibration left behind no alias.
    store.request("DELETE", f"/{name}", params={"ignore_unavailable": "true"})
    store.request("PUT", f"/{name}", background_body(seal))
    rows = zip(sampled.image_ids, sampled.content_ids, sampled.vectors, strict=True)
    lines = [line for row in rows for line in _lines(name, *row)]
    results = store.request(
        "POST",
        "/_bulk",
        b"".join(lines),
        params={"refresh": "true", "filter_path": "errors"},
        headers=NDJSON,
    )
    if results["errors"]:
        raise IndexConflict(f"Some of the background was refused by {name!r}: calibrate again.")
    actions: list[dict[str, Any]] = [{"add": {"index": name, "alias": alias}}]
    actions += [{"remove_index": {"index": each}} for each in before]
    store.request("POST", "/_aliases", {"actions": actions})


def _behind(store: Store, alias: str) -> list[str]:
    try:
        return list(store.send(info_request(alias)))
    except IndexMissing:
        return []


def _is_of(encoder: Mapping[str, Any], seal: Seal) -> bool:
    parts = ("dims", "revision", "fingerprint")
    return all(encoder.get(part) == getattr(seal, part) for part in parts)


def _sampled(answer: Mapping[str, Any]) -> Sampled:
    hits = answer.get("hits", {}).get("hits", ())
    fields = [hit["fields"] for hit in hits]
    rows = [unit_vector_of(each[VECTOR_FIELD]) for each in fields]
    return Sampled(
        image_ids=[hit["_id"] for hit in hits],
        # Pictures that were imported may have none; their ids are hashes, too.
        content_ids=[
            each.get("content_id", [hit["_id"]])[0] for hit, each in zip(hits, fields, strict=True)
        ],
        vectors=np.stack(rows) if rows else np.zeros((0, 0), dtype=np.float32),
    )


def _lines(index: str, image_id: str, content_id: str, vector: Floats) -> tuple[bytes, bytes]:
    document = {"image_id": image_id, "content_id": content_id, VECTOR_FIELD: vector}
    return (
        orjson.dumps({"index": {"_index": index, "_id": image_id}}) + b"\n",
        orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n",
    )
