"""Tags: what a picture shows, told from its vector by a vocabulary and a trained head.

A describer of vectors: nothing is embedded again when the words change or a head is trained, new
pictures get their tags as they come, and `describe --only tags` gives the stored ones theirs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

import numpy as np

from es_imgsearch.errors import EncoderMismatch, ImgSearchError
from es_imgsearch.search.relevance import Floats
from es_imgsearch.tags.vocabulary import ONE, Vocabulary
from es_imgsearch.tags.zero_shot import FacetScores, ZeroShot

if TYPE_CHECKING:
    from es_imgsearch.describe.registry import TextEncoder, VectorSpace
    from es_imgsearch.elastic.meta import Meta
    from es_imgsearch.elastic.requests import Request
    from es_imgsearch.tags.classifier import Head


logger = logging.getLogger(__name__)

# Of 399 scores a picture, those below say nothing that anybody would look for.
LEAST_SCORE: Final = 0.1

# A daemon gives the new tags this long after the vocabulary or the head has changed at the latest;
# looking takes three small requests.
_FRESH_SECONDS = 60.0

# What is damaged shall not be asked for again with every batch.  (An outage is waited out by the
# `send` of the space.)
_RETRY_SECONDS = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class Tagger:
    """What gives pictures of one index their tags.

    `note` says why a trained head is not used, None where it is or there is none.
    """

    vocabulary: Vocabulary
    zero_shot: ZeroShot | None
    head: Head | None = None
    note: str | None = None

    def scores(self, vectors: Floats) -> list[FacetScores]:
        """Of n unit vectors, of shape (n, dims), every facet's scores.

        What was trained takes the place of the same words of the vocabulary, and in a facet of one
        answer of all of them.
        """
        trained = [] if self.head is None else self.head.scores(vectors)
        whole = {each.facet for each in trained if each.answers == ONE}
        known = {label for each in trained for label in each.labels}
        found = list(trained)
        for each in [] if self.zero_shot is None else self.zero_shot.scores(vectors):
            left = [n for n, label in enumerate(each.labels) if label not in known]
            if each.facet in whole or not left:
                continue
            found.append(
                each._replace(
                    labels=[each.labels[n] for n in left],
                    scores=each.scores[:, left],
                    holds=each.holds[:, left],
                    thresholds=each.thresholds[left],
                )
            )
        return found

    def fields(self, vectors: Floats) -> list[dict[str, Any]]:
        """Of n unit vectors, of shape (n, dims), `tags`, most certain first, and `tag_scores`."""
        facets = self.scores(vectors)
        found = []
        for row in range(len(vectors)):
            scores: dict[str, float] = {}
            tags: list[tuple[float, str]] = []
            for facet in facets:
                kept = facet.holds[row] | (facet.scores[row] >= LEAST_SCORE)
                for n in np.flatnonzero(kept).tolist():
                    # To sort by text is to sort by number, as long as the digits are fixed.
                    scores[facet.labels[n]] = round(float(facet.scores[row, n]), 4)
                    if facet.holds[row, n]:
                        tags.append((-float(facet.scores[row, n]), facet.labels[n]))
            found.append({"tags": [label for _, label in sorted(tags)], "tag_scores": scores})
        return found


def tagger_of(
    index: str, meta: Meta, encoder: TextEncoder, send: Callable[[Request], Any]
) -> Tagger:
    """The tagger of an index; `encoder` writes into it, see `open_encoder`.

    An encoder that knows pictures only gives tags by a trained head alone.
    """
    from es_imgsearch.search.relevance import load_background
    from es_imgsearch.tags.storage import kept_tags, label_vectors

    kept = kept_tags(index, send)
    head, note = kept.head, None
    try:
        if head is not None:
            head.check(meta, index)
    except EncoderMismatch as error:
        head, note = None, str(error)
    if not encoder.supports_text:
        return Tagger(kept.vocabulary, None, head, note)
    texts = label_vectors(encoder, meta, kept.vocabulary.texts)
    background = load_background(index, meta, encoder.dims, send)
    return Tagger(kept.vocabulary, ZeroShot.of(kept.vocabulary, texts, background), head, note)


class Tags:
    """The describer `tags`."""

    name = "tags"
    source: Literal["vector"] = "vector"
    mapping: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tags": {"type": "keyword", "fields": {"text": {"type": "text"}}},
        "tag_scores": {"type": "flattened"},
    }

    def __init__(self) -> None:
        self._space: VectorSpace | None = None
        self._tagger: Tagger | None = None
        self._loaded_at = 0.0
        # When, and why: the error itself would keep whoever asked alive, pictures and all.
        self._failed: tuple[float, str] | None = None

    def begin(self, space: VectorSpace) -> None:
        """Only remembers it: the words are embedded when the first vectors come."""
        self._space = space

    def describe_vectors(self, vectors: Floats) -> Sequence[Mapping[str, Any]]:
        """`tags` and `tag_scores` of n unit vectors, of shape (n, dims)."""
        return self._fresh().fields(vectors)

    def _fresh(self) -> Tagger:
        if self._space is None:
            raise RuntimeError("`begin` comes before the first vectors")
        now = time.monotonic()
        if self._tagger is not None and now - self._loaded_at < _FRESH_SECONDS:
            return self._tagger
        if self._failed is not None and now - self._failed[0] < _RETRY_SECONDS:
            raise ImgSearchError(self._failed[1])
        space = self._space
        try:
            tagger = tagger_of(space.index, space.meta, space.encoder, space.send)
        except ImgSearchError as error:
            if self._tagger is None:
                self._failed = time.monotonic(), str(error)
                raise
            logger.warning("Tags are given by the words of a minute ago: %s", error)
            tagger = self._tagger
        if tagger.note and (self._tagger is None or self._tagger.note != tagger.note):
            logger.warning("%s", tagger.note)
        self._tagger, self._loaded_at = tagger, now
        return tagger
