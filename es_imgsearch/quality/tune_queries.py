"""Sample picture and text queries for tuning, each with its exact neighbours.

A stored vector is not a fair query, even if it does not count as its own neighbour: it is a node of
the searched graph, and linked to its nearest.  So a query v + a - b is made from each sampled
vector v, where a and b are two of its 50 nearest.  It differs from v as pictures near v differ from
each other.  It is nearer to v and a than a new vector is to any, so v, a and their copies do not
count as neighbours.  Recall@10 with num_candidates 10, 15 and 20 (hnswlib, m 16, 512 dims, 300
queries):

                       15,000 synthetic vectors    11,700 of photographs
    new vectors            .914  .962  .984           .980  .990  .994
    stored vectors         .970  .988  .996           .994  .997  .998
    v + a - b              .938  .968  .986           .977  .987  .994
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from es_imgsearch.embed.reduced_encoder import check_output
from es_imgsearch.quality.recall import ScoredId
from es_imgsearch.search.relevance import unrelated_texts

if TYPE_CHECKING:
    from es_imgsearch.elastic.generations import IndexInfo
    from es_imgsearch.elastic.store import Store
    from es_imgsearch.embed.protocol import Encoder


PICTURE, TEXT = "picture", "text"

_NEIGHBOURS = 50
_VECTORS_PER_REQUEST = 500

# A query fetches its own pictures in addition to its neighbours, and a server considers at most
# 10,000 candidates.
_MAX_COPIES = MAX_NUM_CANDIDATES // 10

_WORD_FIELDS = ("caption", "title", "tags", "image_name", "content_id")
# Names that cameras and programs give to pictures say nothing about their content.
_CAMERA_WORDS = {"copy", "dsc", "dscn", "dscf", "image", "img", "mvi", "pic", "pxl", "screenshot"}
_WORDS = re.compile(r"[^\W\d_]{3,}")


@dataclass(frozen=True, slots=True, eq=False)
class SampledQuery:
    """A query vector of shape (dims,), and its exact neighbours, best first.

    `own` are the stored pictures it was made from and their copies, which do not count as
    neighbours; `exact_ms` is the round trip of the exact search.
    """

    kind: str
    vector: npt.NDArray[np.float32]
    own: frozenset[str]
    exact: tuple[ScoredId, ...]
    exact_ms: float


def sample_pictures(store: Store, count: int, seed: int) -> list[Mapping[str, Any]]:
    """Sample hits with vector and text fields at random, one for each content."""
    hits = store.searches.sample(count, seed, _WORD_FIELDS)
    contents = {hit.get("_source", {}).get("content_id", hit["_id"]): hit for hit in hits}
    return list(contents.values())


def sample_queries(
    store: Store,
    info: IndexInfo,
    pictures: Sequence[Mapping[str, Any]],
    k: int,
    seed: int,
    texts: npt.NDArray[np.float32] | None = None,
) -> Iterator[SampledQuery]:
    """Yield queries with their exact k neighbours, from comparing all stored vectors.

    `texts` are vectors of texts, of shape (n, dims).  Pictures without two different neighbours,
    and those stored more than 1,000 times, are left out.
    """
    queries = [(PICTURE, *each) for each in _perturbed_vectors(store, info, pictures, seed)]
    queries += [(TEXT, each, frozenset()) for each in (() if texts is None else texts)]
    for kind, vector, own in queries:
        if len(own) > _MAX_COPIES:
            continue
        others = [{"bool": {"must_not": [{"ids": {"values": sorted(own)}}]}}] if own else []
        body = exact_body(vector, k, info.meta.similarity, filters=others, source=False)
        neighbours, _, wall_ms = timed_search(store, body)
        if neighbours:
            yield SampledQuery(kind, vector, own, tuple(neighbours), wall_ms)


def _perturbed_vectors(
    store: Store, info: IndexInfo, pictures: Sequence[Mapping[str, Any]], seed: int
) -> Iterator[tuple[npt.NDArray[np.float32], frozenset[str]]]:
    random = np.random.default_rng(seed)
    triples: list[tuple[Mapping[str, Any], _Neighbour, _Neighbour]] = []
    for picture in pictures:
        near = _neighbours(store, info, picture)
        if len(near) > 1:
            one, other = random.permutation(len(near))[:2]
            triples.append((picture, near[one], near[other]))
    stored = _vectors(store, [each.image_id for _, *pair in triples for each in pair])
    contents = [_content(picture) for picture, *_ in triples] + [a.content for _, a, _ in triples]
    copies = _copies(store, [each for each in contents if each is not None])
    is_integer = info.properties[VECTOR_FIELD].get("element_type") == "byte"
    for picture, a, b in triples:
        # A picture may have been deleted in between.
        if a.image_id in stored and b.image_id in stored:
            offset = stored[a.image_id] - stored[b.image_id]
            vector = _shift(_vector(picture), offset, is_integer=is_integer)
            own = {picture["_id"], a.image_id}
            own |= copies.get(_content(picture), set()) | copies.get(a.content, set())
            yield vector, frozenset(own)


class _Neighbour(NamedTuple):
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
    for start in range(0, len(ids), _VECTORS_PER_REQUEST):
        body = stored_vectors_body(ids[start : start + _VECTORS_PER_REQUEST], [VECTOR_FIELD])
        vectors = vectors_by_id(store.searches.search(body))
        stored.update({image_id: fields[VECTOR_FIELD] for image_id, fields in vectors.items()})
    return stored


def _copies(store: Store, contents: Iterable[str]) -> dict[str | None, set[str]]:
    """Return the image ids of each content."""
    ids: dict[str | None, set[str]] = defaultdict(set)
    distinct = sorted(set(contents))
    for content, image_id in store.listings.ids_by_content(distinct) if distinct else ():
        ids[content].add(image_id)
    return ids


def _shift(
    vector: npt.NDArray[np.float32], offset: npt.NDArray[np.float32], *, is_integer: bool
) -> npt.NDArray[np.float32]:
    """Add an offset and rescale to the vector's length; round for an index of bytes."""
    shifted = vector + offset
    length = float(np.linalg.norm(shifted))
    # Opposite vectors cancel out.
    if length < 1e-6:
        return vector
    shifted = shifted * (float(np.linalg.norm(vector)) / length)
    if is_integer:
        shifted = np.clip(np.rint(shifted), -128, 127)
    return shifted.astype(np.float32)


def _neighbours(store: Store, info: IndexInfo, picture: Mapping[str, Any]) -> list[_Neighbour]:
    """Search for other pictures near this one, one for each content.

    Approximately, since any near one will do; if copies fill the hits, by comparing all.
    """
    content, vector = _content(picture), _vector(picture)
    body = knn_body(vector, _NEIGHBOURS, info.meta.tuning, source=["content_id"])
    by_content = {_content(hit) or hit["_id"]: hit for hit in store.searches.hits(body)}
    by_content.pop(content or picture["_id"], None)
    if len(by_content) > 1:
        return [_Neighbour(hit["_id"], _content(hit)) for hit in by_content.values()]
    field, value = ("image_id", picture["_id"]) if content is None else ("content_id", content)
    others = [{"bool": {"must_not": [{"term": {field: value}}]}}]
    similarity = info.meta.similarity
    body = exact_body(vector, _NEIGHBOURS, similarity, filters=others, source=["content_id"])
    hits = store.searches.hits({**body, "collapse": {"field": field}})
    return [_Neighbour(hit["_id"], _content(hit)) for hit in hits]


def timed_search(store: Store, body: Mapping[str, Any]) -> tuple[list[ScoredId], int, float]:
    """Search; return the hits, the server's own time and the round trip in ms."""
    started = perf_counter()
    answer = store.searches.search(body)
    wall_ms = (perf_counter() - started) * 1000
    hits = answer.get("hits", {}).get("hits", ())
    return [ScoredId(hit["_id"], hit["_score"]) for hit in hits], int(answer["took"]), wall_ms


def collect_texts(pictures: Iterable[Mapping[str, Any]], count: int) -> list[str]:
    """Collect up to `count` different texts that users might search for.

    One per picture of its caption, title, tags and the words of its name; if these are not
    enough, everyday words.
    """
    texts: dict[str, None] = {}
    for candidates in (_texts_of_picture(each.get("_source", {})) for each in pictures):
        texts.update(dict.fromkeys(islice((each for each in candidates if each not in texts), 1)))
    texts.update(dict.fromkeys(unrelated_texts()))
    return list(texts)[:count]


def _texts_of_picture(source: Mapping[str, Any]) -> Iterator[str]:
    for field in ("caption", "title"):
        if text := str(source.get(field) or "").strip():
            yield text
    tags = source.get("tags") or []
    yield from [tags] if isinstance(tags, str) else tags
    words = _WORDS.findall(str(source.get("image_name", "")).rpartition(".")[0])
    if words := [word for word in words if word.lower() not in _CAMERA_WORDS]:
        yield " ".join(words)


def embed_distinct_texts(encoder: Encoder, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Embed texts; return each distinct vector once, in shape (n, dims)."""
    vectors = check_output(encoder.embed_texts(texts), len(texts), encoder)
    unique: npt.NDArray[np.float32] = np.unique(vectors, axis=0)
    # `unique` sorts, and the order decides which half of the queries is tuned on.
    return np.random.default_rng(0).permutation(unique)
