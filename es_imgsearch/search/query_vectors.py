"""From queries to vectors: those of stored pictures from the index, the others worked out."""

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
from es_imgsearch.embed.protocol import query_vectors
from es_imgsearch.errors import ImageMissing, TextUnsupported, UsageError
from es_imgsearch.records import unit
from es_imgsearch.search.query import (
    Box,
    StoredPicture,
    Term,
    Vector,
    given_vector,
    is_vector,
    open_query_picture,
    picture_of,
)
from es_imgsearch.search.reduced import ReducedVectors, key_of
from es_imgsearch.search.request_flow import RequestFlow, Work
from es_imgsearch.settings import Settings

if TYPE_CHECKING:
    from PIL import Image

    from es_imgsearch.elastic.meta import Seal
    from es_imgsearch.embed.protocol import Encoder


class Prepared(NamedTuple):
    """Of every part a vector a term, of shape (dims of the part,); and what is worth a note.

    `are_whole` is False where one was expanded from the bytes of a reduced index.
    """

    vectors: Mapping[str, Sequence[Vector]]
    notes: Sequence[str]
    are_whole: bool


class TermVectors:
    """Makes the vectors of one index's queries."""

    def __init__(self, index: str, settings: Settings, model: QueryEncoder) -> None:
        self._index = index
        self._settings = settings
        self._model = model

    def cut(self, terms: Sequence[Term], box: Box) -> RequestFlow[Sequence[Term]]:
        """The same terms, of every picture only the part in the box."""
        cut: Sequence[Term] = yield Work(partial(self._cut, terms, box))
        return cut

    def _cut(self, terms: Sequence[Term], box: Box) -> list[Term]:
        return [
            each
            if (picture := picture_of(each.query)) is None
            else Term(
                open_query_picture(picture, box, max_pixels=self._settings.max_pixels),
                each.weight,
            )
            for each in terms
        ]

    def prepared(
        self,
        terms: Sequence[Term],
        parts: Sequence[VectorPart],
        info: IndexInfo,
        reduced: ReducedVectors | None = None,
    ) -> RequestFlow[Prepared]:
        """Vectors of every term, of shape (dims of the part,), and what there is to note.

        `reduced` is what a reduced index is searched through; its vectors come as whole ones.
        """
        for part in parts:
            for query, _ in terms if part.of_picture else ():
                if isinstance(query, str) or is_vector(query):
                    what = "Words have" if isinstance(query, str) else "A vector has"
                    raise UsageError(
                        f"{what} no {part.name}: search with a picture, or leave the weight of"
                        f" {part.name!r} out."
                    )
        vectors: dict[str, list[Vector]] = {part.name: [None] * len(terms) for part in parts}  # type: ignore[list-item]
        are_whole = yield from self._from_index(terms, parts, info, vectors, reduced)
        notes: list[str] = []
        computed = [n for n, (query, _) in enumerate(terms) if not isinstance(query, StoredPicture)]
        if computed:
            notes = yield Work(partial(self._computed, terms, computed, parts, info, vectors))
        return Prepared(vectors, notes, are_whole)

    def _from_index(
        self,
        terms: Sequence[Term],
        parts: Sequence[VectorPart],
        info: IndexInfo,
        vectors: Mapping[str, list[Vector]],
        reduced: ReducedVectors | None,
    ) -> RequestFlow[bool]:
        """The vectors of stored pictures, in one request; whether all are whole."""
        wanted = {
            n: query.image_id
            for n, (query, _) in enumerate(terms)
            if isinstance(query, StoredPicture)
        }
        if not wanted:
            return True
        body = queries.stored_vectors_body(
            sorted(set(wanted.values())), [part.field for part in parts]
        )
        if reduced is not None:
            body["_source"] = ["content_id"]
        answer = yield search_request(self._index, queries.to_json(body))
        stored = vectors_by_id(answer)
        fields = {hit["_id"]: hit.get("_source", {}) for hit in checked_hits(answer, info.name)}
        are_whole = True
        for n, image_id in wanted.items():
            if image_id not in stored:
                raise ImageMissing(f"No picture has the image_id {image_id!r}.")
            for part in parts:
                if part.field not in stored[image_id]:
                    raise ImageMissing(
                        f"The picture {image_id!r} has no vector of its {part.name}: refresh it"
                        " with `es-imgsearch describe`, or leave the weight out."
                    )
                vector = stored[image_id][part.field]
                if reduced is not None and part is CONTENT:
                    key = key_of(image_id, fields[image_id])
                    vector, is_whole = yield Work(partial(reduced.whole, vector, key))
                    are_whole = are_whole and is_whole
                vectors[part.name][n] = unit(vector)
        return are_whole

    def _computed(
        self,
        terms: Sequence[Term],
        numbers: Sequence[int],
        parts: Sequence[VectorPart],
        info: IndexInfo,
        vectors: Mapping[str, list[Vector]],
    ) -> list[str]:
        """The vectors of everything else: every text and every picture in one batch each."""
        opened = {
            n: open_query_picture(picture, max_pixels=self._settings.max_pixels)
            for n in numbers
            if (picture := picture_of(terms[n].query)) is not None
        }
        notes: list[str] = []
        for part in parts:
            into = vectors[part.name]
            if part.of_picture is not None:
                for n, image in opened.items():
                    into[n] = part.of_picture(image)
                continue
            texts = {n: str(q).strip() for n in numbers if isinstance(q := terms[n].query, str)}
            for n in numbers:
                if is_vector(query := terms[n].query):
                    into[n] = given_vector(query, info.meta.seal.dims)
            if not texts and not opened:
                continue
            made = self._model.embed(info, list(texts.values()), list(opened.values()))
            for position, n in enumerate(texts):
                into[n] = made.texts[position]
            for position, n in enumerate(opened):
                into[n] = made.pictures[position]
            notes += [
                f"The end of a long text was not read: {text[:40]!r} and so on."
                for text, cut in zip(texts.values(), made.truncated, strict=True)
                if cut
            ]
        return notes


# The one seam between a search and a model: texts and pictures in, vectors out.
#
# The client asks a `QueryEncoder` and nothing else.  `ModelHere` runs the model in this process; a
# service that keeps one loaded would be another.


class QueryVectors(NamedTuple):
    """Vectors of shape (n, dims) of the texts and of the pictures, unit length.

    `truncated` says of each text whether its end was beyond what the model reads.
    """

    texts: Vector
    pictures: Vector
    truncated: Sequence[bool]


class QueryEncoder(Protocol):
    """Makes the vectors of queries; may be called from any thread."""

    def embed(
        self, info: IndexInfo, texts: Sequence[str], pictures: Sequence[Image.Image]
    ) -> QueryVectors:
        """The vectors, in the space of the index.

        Pictures are upright and RGB.  Raises EncoderMismatch, ModelUnavailable, EmbedFailed, or
        TextUnsupported where there are texts and the encoder knows pictures only.
        """

    def forget(self) -> None:
        """The index may be sealed to another encoder now."""


class ModelHere:
    """The index's own encoder in this process; loads once, with the first query that needs it."""

    def __init__(self, index: str, settings: Settings, given: Encoder | None = None) -> None:
        self._index = index
        self._settings = settings
        self._given = given
        self._encoder: Encoder | None = None
        self._seal: Seal | None = None
        self._lock = threading.RLock()

    def encoder(self, info: IndexInfo) -> Encoder:
        """The encoder, checked against the index's seal."""
        with self._lock:
            # The index may have been switched to a generation of another encoder.
            if self._encoder is None or self._seal != info.meta.seal:
                self._encoder = sealed_encoder(info, self._index, self._settings, self._given)
                self._seal = info.meta.seal
            return self._encoder

    def embed(
        self, info: IndexInfo, texts: Sequence[str], pictures: Sequence[Image.Image]
    ) -> QueryVectors:
        """See `QueryEncoder.embed`."""
        encoder = self.encoder(info)
        if texts and not encoder.supports_text:
            raise TextUnsupported(
                f"Encoder {encoder.name!r} of index {self._index!r} knows pictures only: search"
                " with a picture, or for the words stored with mode 'text'."
            )
        pixels = [encoder.preparation.apply(picture) for picture in pictures]
        nothing = np.empty((0, encoder.dims), dtype=np.float32)
        # An encoder need not be safe to use from two threads.
        with self._lock:
            return QueryVectors(
                query_vectors(encoder, encoder.embed_texts, list(texts)) if texts else nothing,
                query_vectors(encoder, encoder.embed_images, np.stack(pixels))
                if pixels
                else nothing,
                _truncated(encoder, texts),
            )

    def forget(self) -> None:
        """See `QueryEncoder.forget`."""
        with self._lock:
            self._encoder = None


def _truncated(encoder: Encoder, texts: Sequence[str]) -> list[bool]:
    # Optional, so that a plug-in need not have it: `truncated(texts) -> list[bool]`.
    told = getattr(encoder, "truncated", None)
    return list(told(list(texts))) if texts and told is not None else [False] * len(texts)


# The vectors a picture is stored with, by the names that `weights` calls them.
#
# Each part has a field of the index and its own way from a query to a vector; a new one is a line
# in `PARTS`.


@dataclass(frozen=True, slots=True)
class VectorPart:
    """One vector field; without `of_picture` its vectors are the encoder's, of texts too."""

    name: str
    field: str
    of_picture: Callable[[Image.Image], Vector] | None = None


def _colours(image: Image.Image) -> Vector:
    from es_imgsearch.describe.layout import colour_vector

    return colour_vector(image)


CONTENT: Final = VectorPart("content", VECTOR_FIELD)
PARTS: Final = {
    part.name: part for part in (CONTENT, VectorPart("colour", "colour_embedding", _colours))
}


def weighted_parts(
    weights: Mapping[str, float] | None, properties: Mapping[str, Any], index: str
) -> list[tuple[VectorPart, float]]:
    """The parts to search by with their weights, which sum to 1; by default the content alone.

    A weight of 0 leaves a part out.  Raises UsageError for a part that there is not, that the
    index has no field for, or a weight that cannot be one.
    """
    if weights is None:
        return [(CONTENT, 1.0)]
    chosen = []
    for name, weight in weights.items():
        part = PARTS.get(name)
        if part is None:
            raise UsageError(
                f"There is no part {name!r} to weigh; there are {', '.join(sorted(PARTS))}."
            )
        try:
            number = float(weight)
        except (TypeError, ValueError):
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
