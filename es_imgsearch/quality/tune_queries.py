"""Queries to measure a search with, each with its exact neighbours: pictures and texts.

A stored vector is no fair query, even if it does not count as its own neighbour: it is a node of
the graph that is searched, and linked to its nearest.  So a query is made of each sampled vector
v: v + a - b, where a and b are two of its 50 nearest.  It differs from v as pictures of its
surroundings differ from each other.  It lies nearer to v and a than a new one lies to anything, so
neither counts as a neighbour, nor do their copies.  What a walk as wide as 10, 15 and 20 found of
the true ten (hnswlib, m 16, 512 dims, 300 queries):

                       15,000 synthetic vectors    11,700 of photographs
    new vectors            .914  .962  .984           .980  .990  .994
    stored vectors         .970  .988  .996           .994  .997  .998
    v + a - b              .938  .968  .986           .977  .987  .994
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.queries import (
    MAX_NUM_CANDIDATES,
    exact_body,
    knn_body,
    parse_vector,
    stored_vectors_body,
)
from es_imgsearch.elastic.requests import vectors_by_id
from es_imgsearch.embed.reduction import checked

if TYPE_CHECKING:
    from es_imgsearch.elastic.generations import IndexInfo
    from es_imgsearch.elastic.store import Store
    from es_imgsearch.embed.protocol import Encoder


PICTURE, TEXT = "picture", "text"

_NEAREST = 50
_VECTORS_AT_ONCE = 500

# A query is asked for its own besides its neighbours, and a server weighs 10,000 at most.
_MOST_COPIES = MAX_NUM_CANDIDATES // 10

_WORD_FIELDS = ("caption", "title", "tags", "image_name", "content_id")
# What cameras and programs call pictures says nothing.
_CAMERA_WORDS = {"copy", "dsc", "dscn", "dscf", "image", "img", "mvi", "pic", "pxl", "screenshot"}
_WORDS = re.compile(r"[^\W\d_]{3,}")


@dataclass(frozen=True, slots=True, eq=False)
class SampledQuery:
    """A vector of shape (dims,) to search with, and its exact neighbours, best first.

    `own` are the stored pictures it was made of and their copies, which are no neighbours;
    `exact_ms` is how long finding the others took.
    """

    kind: str
    vector: npt.NDArray[np.float32]
    own: frozenset[str]
    exact: tuple[ScoredId, ...]
    exact_ms: float


def stored_pictures(store: Store, count: int, seed: int) -> list[Mapping[str, Any]]:
    """A random sample of hits with vector and words, one a content; see `Searches.sample`."""
    hits = store.searches.sample(count, seed, _WORD_FIELDS)
    contents = {hit.get("_source", {}).get("content_id", hit["_id"]): hit for hit in hits}
    return list(contents.values())


def sampled_queries(
    store: Store,
    info: IndexInfo,
    pictures: Sequence[Mapping[str, Any]],
    k: int,
    seed: int,
    texts: npt.NDArray[np.float32] | None = None,
) -> Iterator[SampledQuery]:
    """Every query with its exact k neighbours, found by comparing all stored vectors.

    `texts` are vectors of texts, of shape (n, dims).  Left out are pictures that have not two
    different ones beside them, and those stored more than 1,000 times.
    """
    made = [(PICTURE, *each) for each in _made_vectors(store, info, pictures, seed)]
    made += [(TEXT, each, frozenset()) for each in (() if texts is None else texts)]
    for kind, vector, own in made:
        if len(own) > _MOST_COPIES:
            continue
        others = [{"bool": {"must_not": [{"ids": {"values": sorted(own)}}]}}] if own else []
        body = exact_body(vector, k, info.meta.similarity, filters=others, source=False)
        found, _, wall_ms = timed_search(store, body)
        if found:
            yield SampledQuery(kind, vector, own, tuple(found), wall_ms)


def _made_vectors(
    store: Store, info: IndexInfo, pictures: Sequence[Mapping[str, Any]], seed: int
) -> Iterator[tuple[npt.NDArray[np.float32], frozenset[str]]]:
    random = np.random.default_rng(seed)
    triples: list[tuple[Mapping[str, Any], _Near, _Near]] = []
    for picture in pictures:
        near = _near(store, info, picture)
        if len(near) > 1:
            one, other = random.permutation(len(near))[:2]
            triples.append((picture, near[one], near[other]))
    stored = _vectors(store, [each.image_id for _, *pair in triples for each in pair])
    contents = [_content(picture) for picture, *_ in triples] + [a.content for _, a, _ in triples]
    copies = _copies(store, [each for each in contents if each is not None])
    whole_numbers = info.properties[VECTOR_FIELD].get("element_type") == "byte"
    for picture, a, b in triples:
        # What was deleted in between is left out.
        if a.image_id in stored and b.image_id in stored:
            by = stored[a.image_id] - stored[b.image_id]
            vector = moved(_vector(picture), by, whole_numbers=whole_numbers)
            own = {picture["_id"], a.image_id}
            own |= copies.get(_content(picture), set()) | copies.get(a.content, set())
            yield vector, frozenset(own)


class _Near(NamedTuple):
    image_id: str
    content: str | None


def _vector(picture: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    return parse_vector(picture["fields"][VECTOR_FIELD])


def _content(picture: Mapping[str, Any]) -> str | None:
    content: str | None = picture.get("_source", {}).get("content_id")
    return content


def _vectors(store: Store, image_ids: Iterable[str]) -> dict[str, npt.NDArray[np.float32]]:
    ids = sorted(set(image_ids))
    stored: dict[str, npt.NDArray[np.float32]] = {}
    for start in range(0, len(ids), _VECTORS_AT_ONCE):
        body = stored_vectors_body(ids[start : start + _VECTORS_AT_ONCE], [VECTOR_FIELD])
        found = vectors_by_id(store.searches.search(body))
        stored.update({image_id: fields[VECTOR_FIELD] for image_id, fields in found.items()})
    return stored


def _copies(store: Store, contents: Iterable[str]) -> dict[str | None, set[str]]:
    """Of every content the ids that hold it."""
    ids: dict[str | None, set[str]] = defaultdict(set)
    wanted = sorted(set(contents))
    for content, image_id in store.listings.ids_by_content(wanted) if wanted else ():
        ids[content].add(image_id)
    return ids


def moved(
    vector: npt.NDArray[np.float32], by: npt.NDArray[np.float32], *, whole_numbers: bool = False
) -> npt.NDArray[np.float32]:
    """The vector moved and brought back to its length; `whole_numbers` as an index of bytes has."""
    there = vector + by
    length = float(np.linalg.norm(there))
    # Nothing is left of opposite vectors.
    if length < 1e-6:
        return vector
    there = there * (float(np.linalg.norm(vector)) / length)
    if whole_numbers:
        there = np.clip(np.rint(there), -128, 127)
    return there.astype(np.float32)


def _near(store: Store, info: IndexInfo, picture: Mapping[str, Any]) -> list[_Near]:
    """Other pictures near this one, one a content.

    By approximate search, since any near one will do; where copies fill it, by comparing all.
    """
    content, vector = _content(picture), _vector(picture)
    body = knn_body(vector, _NEAREST, info.meta.tuning, source=["content_id"])
    found = {_content(hit) or hit["_id"]: hit for hit in store.searches.hits(body)}
    found.pop(content or picture["_id"], None)
    if len(found) > 1:
        return [_Near(hit["_id"], _content(hit)) for hit in found.values()]
    field, value = ("image_id", picture["_id"]) if content is None else ("content_id", content)
    others = [{"bool": {"must_not": [{"term": {field: value}}]}}]
    similarity = info.meta.similarity
    body = exact_body(vector, _NEAREST, similarity, filters=others, source=["content_id"])
    hits = store.searches.hits({**body, "collapse": {"field": field}})
    return [_Near(hit["_id"], _content(hit)) for hit in hits]


def timed_search(store: Store, body: Mapping[str, Any]) -> tuple[list[ScoredId], int, float]:
    """Hits, the server's own ms, and the ms of the whole round trip."""
    started = perf_counter()
    answer = store.searches.search(body)
    wall_ms = (perf_counter() - started) * 1000
    hits = answer.get("hits", {}).get("hits", ())
    return [ScoredId(hit["_id"], hit["_score"]) for hit in hits], int(answer["took"]), wall_ms


def words_of(pictures: Iterable[Mapping[str, Any]], count: int) -> list[str]:
    """Up to `count` different texts that somebody might search these pictures for.

    Their captions, titles, tags and the words of their names, one of each picture in turn;
    where that is not enough, everyday words.
    """
    texts: dict[str, None] = {}
    for found in (_words_of_one(each.get("_source", {})) for each in pictures):
        texts.update(dict.fromkeys(islice((each for each in found if each not in texts), 1)))
    everyday = files("es_imgsearch.quality") / "everyday_words.txt"
    texts.update(dict.fromkeys(everyday.read_text(encoding="utf-8").splitlines()))
    return list(texts)[:count]


def _words_of_one(source: Mapping[str, Any]) -> Iterator[str]:
    for field in ("caption", "title"):
        if text := str(source.get(field) or "").strip():
            yield text
    tags = source.get("tags") or []
    yield from [tags] if isinstance(tags, str) else tags
    words = _WORDS.findall(str(source.get("image_name", "")).rpartition(".")[0])
    if kept := [word for word in words if word.lower() not in _CAMERA_WORDS]:
        yield " ".join(kept)


def embedded_texts(encoder: Encoder, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Vectors of shape (n, dims), each once: texts that mean the same to the encoder count once."""
    vectors = checked(encoder.embed_texts(texts), len(texts), encoder)
    unique: npt.NDArray[np.float32] = np.unique(vectors, axis=0)
    # NumPy sorts them; their order must not decide which are tuned on.
    return np.random.default_rng(0).permutation(unique)


# How much of the exact answer an approximate search finds, and with what certainty.

# Scores are sums of float32 products in another order than the exact search adds them: of 512 dims
# they differ by about 1e-7.
_EQUAL_SCORES = 1e-6

# One-sided 95 % of the normal distribution.
_CONFIDENCE_Z = 1.645


class ScoredId(NamedTuple):
    image_id: str
    score: float


@dataclass(frozen=True, slots=True)
class Point:
    """One measured setting of a curve of recall against latency.

    `recall_by_kind` is the mean recall@k of picture and text queries; `took_ms` the mean of what
    the server says it took, in whole milliseconds each; `wall_ms` the median of the whole round
    trip.
    """

    k: int
    num_candidates: int
    oversample: float | None
    recall_by_kind: Mapping[str, float]
    lower_bound: float
    took_ms: float
    wall_ms: float
    held_back: bool = False

    @property
    def recall(self) -> float:
        """Of the kind of query that fares worst."""
        return min(self.recall_by_kind.values())


def recall_at(
    k: int, found: Sequence[ScoredId], exact: Sequence[ScoredId], *, scores_are_exact: bool = True
) -> float:
    """Share of the `k` nearest that were found, both lists best first.

    Pictures as near as the k-th are worth the same, whichever of them was found.  Where fewer
    than k exist, the share of those.  Scores that quantised vectors gave are not compared:
    `scores_are_exact=False`.
    """
    wanted = min(k, len(exact))
    if not wanted:
        return 1.0
    least = exact[wanted - 1].score - _EQUAL_SCORES
    right = {each.image_id for each in exact if each.score >= least}
    hits = sum(
        each.image_id in right or (scores_are_exact and each.score >= least) for each in found[:k]
    )
    return min(hits, wanted) / wanted


def lower_bound(recalls: npt.NDArray[np.float64]) -> float:
    """What the mean recall of all queries surpasses with 95 % probability, by this sample.

    Of 200 queries with a recall@10 of .95 it is about .94.  One query says nothing: 0, unless it
    found everything.
    """
    mean = float(recalls.mean())
    if len(recalls) < 2:
        return mean if mean == 1.0 else 0.0
    return mean - _CONFIDENCE_Z * float(recalls.std(ddof=1)) / math.sqrt(len(recalls))
