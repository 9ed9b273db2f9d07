"""Tag pictures by their vectors, with a vocabulary and a trained classifier.

A describer of vectors: no picture is embedded again when the vocabulary changes or a classifier is
trained.  New pictures are tagged when they are indexed, stored ones by `describe --only tags`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

import numpy as np

from es_imgsearch.describe.registry import KEYWORD_AND_WORDS
from es_imgsearch.errors import EncoderMismatch, ImgSearchError
from es_imgsearch.search.relevance import Floats
from es_imgsearch.tags.vocabulary import ONE, Vocabulary
from es_imgsearch.tags.zero_shot import FacetScores, ZeroShot

if TYPE_CHECKING:
    from es_imgsearch.describe.registry import TextEncoder, VectorSpace
    from es_imgsearch.elastic.meta import Meta
    from es_imgsearch.elastic.requests import Request
    from es_imgsearch.tags.classifier import TagClassifier


logger = logging.getLogger(__name__)

# Each picture has 399 scores; lower ones are not worth storing.
MIN_SCORE: Final = 0.1

# A daemon uses a changed vocabulary or classifier after this time; loading takes three small
# requests.
_RELOAD_SECONDS = 60.0

# Damaged documents are not requested again with every batch.  (The `send` of the space waits until
# an outage ends.)
_RETRY_SECONDS = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class Tagger:
    """The vocabulary and the classifier that tag pictures of one index.

    `note` says why a trained classifier is not used; None if it is, or there is none.
    """

    vocabulary: Vocabulary
    zero_shot: ZeroShot | None
    classifier: TagClassifier | None = None
    note: str | None = None

    @property
    def facet_of(self) -> Mapping[str, str]:
        """Map each label to the name of its facet, that of the classifier first."""
        facets = {label: facet.name for label, facet in self.vocabulary.facet_of.items()}
        for each in () if self.classifier is None else self.classifier.facets:
            facets |= dict.fromkeys(each.labels, each.facet)
        return facets

    def scores(self, vectors: Floats) -> list[FacetScores]:
        """Compute every facet's scores for n unit vectors, of shape (n, dims).

        Trained labels replace equal words of the vocabulary, and a trained facet with one answer
        replaces that facet.
        """
        trained = [] if self.classifier is None else self.classifier.scores(vectors)
        replaced_facets = {each.facet for each in trained if each.answers == ONE}
        replaced_labels = {label for each in trained for label in each.labels}
        scores = list(trained)
        for each in [] if self.zero_shot is None else self.zero_shot.scores(vectors):
            columns = [n for n, label in enumerate(each.labels) if label not in replaced_labels]
            if each.facet in replaced_facets or not columns:
                continue
            scores.append(
                each._replace(
                    labels=[each.labels[n] for n in columns],
                    scores=each.scores[:, columns],
                    holds=each.holds[:, columns],
                    thresholds=each.thresholds[columns],
                )
            )
        return scores

    def fields(self, vectors: Floats) -> list[dict[str, Any]]:
        """Make fields `tags`, best first, and `tag_scores` of n unit vectors (n, dims)."""
        facets = self.scores(vectors)
        rows = []
        for row in range(len(vectors)):
            scores: dict[str, float] = {}
            tags: list[tuple[float, str]] = []
            for facet in facets:
                stored = facet.holds[row] | (facet.scores[row] >= MIN_SCORE)
                for n in np.flatnonzero(stored).tolist():
                    # Flattened values sort as text: in numeric order only without exponents.
                    scores[facet.labels[n]] = round(float(facet.scores[row, n]), 4)
                    if facet.holds[row, n]:
                        tags.append((-float(facet.scores[row, n]), facet.labels[n]))
            rows.append({"tags": [label for _, label in sorted(tags)], "tag_scores": scores})
        return rows


def load_tagger(
    index: str, meta: Meta, encoder: TextEncoder, send: Callable[[Request], Any]
) -> Tagger:
    """Load the tagger of an index; `encoder` is its encoder, see `open_encoder`.

    With an encoder that embeds pictures only, tags come from a trained classifier alone.
    """
    from es_imgsearch.search.relevance import load_background
    from es_imgsearch.tags.label_vectors import load_label_vectors
    from es_imgsearch.tags.storage import load_tags

    stored = load_tags(index, send)
    classifier, note = stored.classifier, None
    try:
        if classifier is not None:
            classifier.check(meta, index)
    except EncoderMismatch as error:
        classifier, note = None, str(error)
    if not encoder.supports_text:
        return Tagger(stored.vocabulary, None, classifier, note)
    texts = load_label_vectors(encoder, meta, stored.vocabulary.texts)
    background = load_background(index, meta, encoder.dims, send)
    zero_shot = ZeroShot.of(stored.vocabulary, texts, background)
    return Tagger(stored.vocabulary, zero_shot, classifier, note)


class Tags:
    """The describer `tags`."""

    name = "tags"
    source: Literal["vector"] = "vector"
    mapping: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "tags": KEYWORD_AND_WORDS,
        "tag_scores": {"type": "flattened"},
    }

    def __init__(self) -> None:
        self._space: VectorSpace | None = None
        self._tagger: Tagger | None = None
        self._loaded_at = 0.0
        # Time and message: the error object would keep its frames, with all pictures, in memory.
        self._failed: tuple[float, str] | None = None

    def begin(self, space: VectorSpace) -> None:
        """Store the space; the vocabulary is embedded when the first vectors come."""
        self._space = space

    def describe_vectors(self, vectors: Floats) -> Sequence[Mapping[str, Any]]:
        """Return `tags` and `tag_scores` for n unit vectors, of shape (n, dims)."""
        return self._load_tagger().fields(vectors)

    def _load_tagger(self) -> Tagger:
        if self._space is None:
            raise RuntimeError("call `begin` before the first vectors")
        now = time.monotonic()
        if self._tagger is not None and now - self._loaded_at < _RELOAD_SECONDS:
            return self._tagger
        if self._failed is not None and now - self._failed[0] < _RETRY_SECONDS:
            raise ImgSearchError(self._failed[1])
        space = self._space
        try:
            tagger = load_tagger(space.index, space.meta, space.encoder, space.send)
        except ImgSearchError as error:
            if self._tagger is None:
                self._failed = time.monotonic(), str(error)
                raise
            logger.warning("Tags use the vocabulary of a minute ago; loading it failed: %s", error)
            tagger = self._tagger
        if tagger.note and (self._tagger is None or self._tagger.note != tagger.note):
            logger.warning("%s", tagger.note)
        self._tagger, self._loaded_at = tagger, now
        return tagger
