"""From queries to vectors: those of stored pictures from the index, the others worked out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from es_imgsearch import queries
from es_imgsearch.answers import hits_in, vectors_of
from es_imgsearch.errors import ImageMissing, UsageError
from es_imgsearch.search.asked import (
    StoredPicture,
    Term,
    Vector,
    given_vector,
    is_vector,
    picture_of,
)
from es_imgsearch.search.parts import CONTENT, VectorPart
from es_imgsearch.search.query_encoder import QueryEncoder
from es_imgsearch.search.query_picture import Box, open_query_picture
from es_imgsearch.search.reduced_vectors import ReducedVectors, key_of
from es_imgsearch.settings import Settings
from es_imgsearch.store import IndexInfo
from es_imgsearch.talk import Talk, Work, search_request


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

    def cut(self, terms: Sequence[Term], box: Box) -> Talk[Sequence[Term]]:
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
    ) -> Talk[Prepared]:
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
    ) -> Talk[bool]:
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
        stored = vectors_of(answer)
        fields = {hit["_id"]: hit.get("_source", {}) for hit in hits_in(answer, info.name)}
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
                vectors[part.name][n] = queries.unit(vector)
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
