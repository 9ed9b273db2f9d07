"""The state of an index as the client needs it, read once a generation, as request flows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from es_imgsearch.codes.coder import Coder
from es_imgsearch.codes.storage import coder_from
from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.elastic.mapping import Companion
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.requests import document_request, info_request
from es_imgsearch.embed.reduction import reduction_from
from es_imgsearch.errors import (
    GenerationSwitched,
    ImageMissing,
    ImgSearchError,
    IndexMissing,
    NotCalibrated,
    UsageError,
)
from es_imgsearch.search.options import Plan
from es_imgsearch.search.query import Term, Vector, is_vector
from es_imgsearch.search.reduced import Lookup, ReducedVectors
from es_imgsearch.search.relevance import IMAGE, TEXT, Rating, Relevance, relevance_of
from es_imgsearch.search.request_flow import RequestFlow


@dataclass(slots=True)
class Known:
    """What is known of one generation, asked for once.

    A search that is under way keeps what it began with, whatever another thread finds meanwhile.
    """

    info: IndexInfo
    # An index that cannot tell relevance is not asked for it again: (None,).
    relevance: tuple[Relevance | None] | None = None
    reduced: ReducedVectors | None = None
    coder: Coder | None = None


class Knowledge:
    """What is known of the generation that serves; `latest` is None until something was asked."""

    def __init__(self, index: str, originals: Callable[[Meta], Lookup | None]) -> None:
        """`originals` opens those of a reduced index."""
        self._index = index
        self._open_originals = originals
        self.latest: Known | None = None

    def get(self) -> RequestFlow[Known]:
        """What the generation is known by that was found first; asks if none was."""
        known = self.latest
        if known is None:
            answer = yield info_request(self._index)
            known = self.latest = Known(IndexInfo.from_answer(answer, self._index))
        return known

    def forget(self) -> None:
        """Ask again."""
        self.latest = None

    def is_switched(self, known: Known | None, error: ImgSearchError) -> RequestFlow[bool]:
        """Whether another generation serves than the one that was known; it is known then."""
        if known is None and not isinstance(error, GenerationSwitched):
            return False
        try:
            answer = yield info_request(self._index)
        except ImgSearchError:
            raise error from None
        now = IndexInfo.from_answer(answer, self._index)
        is_as_known = known is not None and known.info.name == now.name
        # Hits of another one were met: it was switched there and back while this was asked.
        if is_as_known and not isinstance(error, GenerationSwitched):
            return False
        self.latest = Known(now)
        return True

    def reduced_vectors(self, known: Known) -> RequestFlow[ReducedVectors | None]:
        """What a reduced index is searched through, loaded once; None for any other."""
        meta = known.info.meta
        if known.reduced is None and (entry := meta.reduction) is not None:
            document = yield from _auxiliary(Companion.REDUCTION.alias(self._index), entry.hash)
            reduction = reduction_from(document, self._index, meta)
            originals = self._open_originals(meta)
            known.reduced = ReducedVectors(reduction, entry.oversample, originals)
        return known.reduced

    def coder(self, known: Known) -> RequestFlow[Coder]:
        """What makes codes of queries, loaded once.  Raises UsageError where there is none."""
        entry = known.info.meta.codes
        if entry is None:
            raise UsageError(
                f"Index {self._index!r} has no codes: leave codes out, or make them with"
                f" `es-imgsearch codes train --index {self._index}`."
            )
        if known.coder is None:
            document = yield from _auxiliary(Companion.CODES.alias(self._index), entry.hash)
            known.coder = coder_from(document, self._index, known.info.meta)
        return known.coder

    def rating(
        self, known: Known, terms: Sequence[Term], vector: Vector, plan: Plan
    ) -> RequestFlow[Rating | None]:
        """What gives the hits of this vector their relevance.

        Raises NotCalibrated where `min_relevance` needs it and it is not known.
        """
        meta = known.info.meta
        if meta.reduction is not None:
            if plan.min_relevance is None:
                return None
            raise NotCalibrated(
                f"Index {self._index!r} has reduced vectors, whose cosines are too rough to tell"
                " relevance: leave min_relevance out, or search an index of whole vectors."
            )
        if known.relevance is None:
            known.relevance = ((yield from relevance_of(self._index, meta)),)
        (relevance,) = known.relevance
        kind = _kind(terms)
        rating = None if relevance is None or kind is None else relevance.rating(vector, kind)
        if rating is None and plan.min_relevance is not None:
            raise NotCalibrated(
                f"Index {self._index!r} cannot tell the relevance of hits of"
                f" {'a vector' if kind is None else f'queries by {kind}'}: label some pictures and"
                f" run `es-imgsearch calibrate LABELS --index {self._index}`, or leave"
                " min_relevance out."
            )
        return rating


def _auxiliary(alias: str, name: str) -> RequestFlow[Mapping[str, Any] | None]:
    """The document of that id in a companion index; None where it is missing."""
    try:
        answer = yield document_request(alias, name)
    except (IndexMissing, ImageMissing):
        return None
    source: Mapping[str, Any] = answer["_source"]
    return source


def _kind(terms: Sequence[Term]) -> str | None:
    """The curve for these queries: that of pictures where one is wanted; none for bare vectors.

    A query of words and pictures was not calibrated on its own: its cosines are nearer to those
    of pictures.
    """
    wanted = [query for query, weight in terms if weight > 0]
    if any(is_vector(query) for query in wanted):
        return None
    return TEXT if all(isinstance(query, str) for query in wanted) else IMAGE
