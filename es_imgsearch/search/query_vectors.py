"""Turn queries into vectors: stored pictures by lookup, others by the model.

    terms ──QueryVectorizer──▶ PartVectors: for every part one vector a term
                │
                ├── stored pictures: one request for their vectors
                ├── texts and pictures: `QueryEncoder`, in one call
                └── colours: computed from the picture

A part is one of the vectors that pictures are stored with (`PARTS`), by the name that `weights`
uses.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np

from es_imgsearch.elastic import queries
from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.requests import checked_hits, search_request, vectors_by_id
from es_imgsearch.embed.index_encoder import sealed_encoder
from es_imgsearch.embed.protocol import embed_queries
from es_imgsearch.errors import ImageMissing, TextUnsupported, UsageError, did_you_mean
from es_imgsearch.records import unit
from es_imgsearch.search.query import (
    QueryBox,
    QueryPicture,
    StoredPicture,
    Term,
    Vector,
    as_query_picture,
    is_vector,
    normalize_query_vector,
    open_query_picture,
)
from es_imgsearch.search.reduced import ReducedVectors, original_key
from es_imgsearch.search.request_flow import Encoding, RequestFlow, Work
from es_imgsearch.settings import Settings

if TYPE_CHECKING:
    from PIL import Image

    from es_imgsearch.elastic.meta import Seal
    from es_imgsearch.embed.protocol import Encoder


# Parts: the vectors of a picture.


@dataclass(frozen=True, slots=True)
class VectorPart:
    """One vector field; without `from_picture` the encoder computes its vectors."""

    name: str
    field: str
    from_picture: Callable[[Image.Image], Vector] | None = None


def _colour_vector(image: Image.Image) -> Vector:
    from es_imgsearch.describe.layout import colour_vector

    return colour_vector(image)


CONTENT: Final = VectorPart("content", VECTOR_FIELD)
PARTS: Final = {
    part.name: part for part in (CONTENT, VectorPart("colour", "colour_embedding", _colour_vector))
}


def weighted_parts(
    weights: Mapping[str, float] | None, properties: Mapping[str, Any], index: str
) -> list[tuple[VectorPart, float]]:
    """Choose the parts to search by, with weights that sum to 1.

    Without `weights` only the content; a weight of 0 leaves a part out.  Raises UsageError for an
    unknown part, a part without a field in the index's mapping (`properties`), or a weight that
    is no number from 0 on.
    """
    if weights is None:
        return [(CONTENT, 1.0)]
    chosen = []
    for name, weight in weights.items():
        part = PARTS.get(name)
        if part is None:
            raise UsageError(
                f"There is no part {name!r} to weigh; there are {', '.join(sorted(PARTS))}."
                f"{did_you_mean(name, PARTS)}"
            )
        try:
            number = float(weight)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not (math.isfinite(number) and number >= 0):
            raise UsageError(f"The weight of {name!r} must be a number from 0 on, not {weight!r}.")
        if number > 0 and part.field not in properties:
            raise UsageError(
                f"Index {index!r} has no field {part.field!r}, by which {name!r} is compared: add"
                f" it with `es-imgsearch init --index {index}`, then store the pictures anew."
            )
        if number > 0:
            chosen.append((part, number))
    if not chosen:
        raise UsageError("No part has a weight above 0: such as content=0.7, colour=0.3.")
    total = sum(number for _, number in chosen)
    return [(part, number / total) for part, number in chosen]


# The model.


class QueryVectors(NamedTuple):
    """The encoder's unit vectors of texts and of pictures, each of shape (n, dims).

    `truncated` is true for each text that was longer than the model reads.
    """

    texts: Vector
    pictures: Vector
    truncated: Sequence[bool]


class QueryEncoder(Protocol):
    """The interface between a search and a model; may be called from any thread."""

    def embed(
        self, info: IndexInfo, texts: Sequence[str], pictures: Sequence[Image.Image]
    ) -> QueryVectors:
        """Embed texts and upright RGB pictures for this index.

        Raises EncoderMismatch, ModelUnavailable, EmbedFailed, or TextUnsupported if there are
        texts and the encoder knows pictures only.
        """

    def forget(self) -> None:
        """Check the encoder again before the next use: the index may be sealed to another."""


class LocalQueryEncoder:
    """The index's encoder in this process; loads with the first query that needs it."""

    def __init__(self, index: str, settings: Settings, encoder: Encoder | None = None) -> None:
        """Load nothing yet; `encoder` is used instead of the one that the index names."""
        self._index = index
        self._settings = settings
        self._preset = encoder
        self._encoder: Encoder | None = None
        self._seal: Seal | None = None
        self._lock = threading.RLock()

    def encoder(self, info: IndexInfo) -> Encoder:
        """Return the encoder, checked against the index's seal."""
        with self._lock:
            # The alias may have been switched to a generation with another encoder.
            if self._encoder is None or self._seal != info.meta.seal:
                self._encoder = sealed_encoder(info, self._index, self._settings, self._preset)
                self._seal = info.meta.seal
            return self._encoder

    def embed(
        self, info: IndexInfo, texts: Sequence[str], pictures: Sequence[Image.Image]
    ) -> QueryVectors:
        """Embed texts and pictures; see `QueryEncoder.embed`."""
        encoder = self.encoder(info)
        if texts and not encoder.supports_text:
            raise TextUnsupported(
                f"Encoder {encoder.name!r} of index {self._index!r} knows pictures only: search"
                " with a picture, or use mode 'text' to search the stored words."
            )
        pixels = [encoder.preparation.apply(picture) for picture in pictures]
        nothing = np.empty((0, encoder.dims), dtype=np.float32)
        # An encoder need not be thread-safe.
        with self._lock:
            return QueryVectors(
                embed_queries(encoder, encoder.embed_texts, list(texts)) if texts else nothing,
                embed_queries(encoder, encoder.embed_images, np.stack(pixels))
                if pixels
                else nothing,
                truncated_texts(encoder, texts),
            )

    def forget(self) -> None:
        """Check the encoder against the seal again; see `QueryEncoder.forget`."""
        with self._lock:
            self._encoder = None


def truncated_texts(encoder: Encoder, texts: Sequence[str]) -> list[bool]:
    """Return for each text if it is longer than the model reads."""
    # The method `truncated(texts) -> list[bool]` is optional for encoders of plug-ins.
    truncated = getattr(encoder, "truncated", None)
    return list(truncated(list(texts))) if texts and truncated else [False] * len(texts)


class PartVectors(NamedTuple):
    """Vectors by part name, one a term, of shape (dims of the part,); and notes.

    `are_whole` is false if a vector was expanded from the bytes of a reduced index.
    """

    by_part: Mapping[str, Sequence[Vector]]
    notes: Sequence[str]
    are_whole: bool


class QueryVectorizer:
    """Computes the vectors of the queries of one index."""

    def __init__(self, index: str, settings: Settings, model: QueryEncoder) -> None:
        self._index = index
        self._settings = settings
        self._model = model

    def cut(self, terms: Sequence[Term], box: QueryBox) -> RequestFlow[Sequence[Term]]:
        """Cut every picture among the terms to the box."""
        cut: Sequence[Term] = yield Work(partial(self._cut, terms, box))
        return cut

    def _cut(self, terms: Sequence[Term], box: QueryBox) -> list[Term]:
        return [
            each
            if (picture := as_query_picture(each.query)) is None
            else Term(
                open_query_picture(picture, box, max_pixels=self._settings.max_pixels),
                each.weight,
            )
            for each in terms
        ]

    def vectorize(
        self,
        terms: Sequence[Term],
        parts: Sequence[VectorPart],
        info: IndexInfo,
        reduced: ReducedVectors | None = None,
    ) -> RequestFlow[PartVectors]:
        """Compute the vectors of all terms.

        Stored vectors of a `reduced` index are expanded, or replaced by their originals.
        Raises UsageError for words or vectors in a part that only pictures have.
        """
        for part in parts:
            for query, _ in terms if part.from_picture else ():
                if isinstance(query, str) or is_vector(query):
                    subject = "Words have" if isinstance(query, str) else "A vector has"
                    raise UsageError(
                        f"{subject} no {part.name}: search with a picture, or leave the weight of"
                        f" {part.name!r} out."
                    )
        vectors: dict[str, list[Vector]] = {part.name: [None] * len(terms) for part in parts}  # type: ignore[list-item]
        are_whole = yield from self._read_stored(terms, parts, info, vectors, reduced)
        notes: list[str] = []
        others = [n for n, (query, _) in enumerate(terms) if not isinstance(query, StoredPicture)]
        if others:
            notes = yield from self._compute(terms, others, parts, info, vectors)
        return PartVectors(vectors, notes, are_whole)

    def _read_stored(
        self,
        terms: Sequence[Term],
        parts: Sequence[VectorPart],
        info: IndexInfo,
        vectors: Mapping[str, list[Vector]],
        reduced: ReducedVectors | None,
    ) -> RequestFlow[bool]:
        """Fill in vectors of stored pictures in one request; false if one is not whole."""
        image_ids = {
            n: query.image_id
            for n, (query, _) in enumerate(terms)
            if isinstance(query, StoredPicture)
        }
        if not image_ids:
            return True
        body = queries.stored_vectors_body(
            sorted(set(image_ids.values())), [part.field for part in parts]
        )
        if reduced is not None:
            body["_source"] = ["content_id"]
        answer = yield search_request(self._index, queries.to_json(body))
        stored = vectors_by_id(answer)
        fields = {hit["_id"]: hit.get("_source", {}) for hit in checked_hits(answer, info.name)}
        are_whole = True
        for n, image_id in image_ids.items():
            if image_id not in stored:
                raise ImageMissing(f"No picture has the image_id {image_id!r}.")
            for part in parts:
                if part.field not in stored[image_id]:
                    raise ImageMissing(
                        f"The picture {image_id!r} has no vector of its {part.name}: refresh it"
                        f" with `es-imgsearch describe --index {self._index}`, or leave the"
                        " weight out."
                    )
                vector = stored[image_id][part.field]
                if reduced is not None and part is CONTENT:
                    key = original_key(image_id, fields[image_id])
                    vector, is_whole = yield Work(partial(reduced.restore, vector, key))
                    are_whole = are_whole and is_whole
                vectors[part.name][n] = unit(vector)
        return are_whole

    def _compute(
        self,
        terms: Sequence[Term],
        numbers: Sequence[int],
        parts: Sequence[VectorPart],
        info: IndexInfo,
        vectors: Mapping[str, list[Vector]],
    ) -> RequestFlow[list[str]]:
        """Fill in the vectors of the terms with these numbers; return notes."""
        pictures: dict[int, Any] = {
            n: each for n in numbers if (each := as_query_picture(terms[n].query)) is not None
        }
        if pictures:
            pictures = yield Work(partial(self._opened, pictures))
        notes: list[str] = []
        for part in parts:
            rows = vectors[part.name]
            if part.from_picture is not None:
                for n, image in pictures.items():
                    rows[n] = yield Work(partial(part.from_picture, image))
                continue
            texts = {n: str(q).strip() for n in numbers if isinstance(q := terms[n].query, str)}
            for n in numbers:
                if is_vector(query := terms[n].query):
                    rows[n] = normalize_query_vector(query, info.meta.seal.dims)
            if not texts and not pictures:
                continue
            given = list(texts.values()), list(pictures.values())
            encoded = yield Encoding(self._model.embed, info, *given)
            for n, vector in zip(texts, encoded.texts, strict=True):
                rows[n] = vector
            for n, vector in zip(pictures, encoded.pictures, strict=True):
                rows[n] = vector
            notes += [
                f"The end of a long text was not read: {text[:40]!r} and so on."
                for text, is_cut in zip(texts.values(), encoded.truncated, strict=True)
                if is_cut
            ]
        return notes

    def _opened(self, pictures: Mapping[int, QueryPicture]) -> dict[int, Image.Image]:
        opened = partial(open_query_picture, max_pixels=self._settings.max_pixels)
        return {n: opened(each) for n, each in pictures.items()}
