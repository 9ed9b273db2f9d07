"""The index's metadata and models as a search needs them.

`IndexState` holds the latest `GenerationState`; its methods are request flows that read more of a
generation the first time a search needs it.  The metadata is read again after 10 seconds: roots,
tuning, curves and codes may have changed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from es_imgsearch.codes.coder import Coder
from es_imgsearch.codes.storage import read_coder
from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.elastic.mapping import Companion
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.queries import cosine_to_similarity
from es_imgsearch.elastic.requests import (
    document_request,
    documents_by_id,
    documents_request,
    info_request,
)
from es_imgsearch.embed.reduction import read_reduction
from es_imgsearch.errors import (
    GenerationSwitched,
    ImageMissing,
    ImgSearchError,
    IndexMissing,
    NotCalibrated,
    StoreDenied,
    UsageError,
)
from es_imgsearch.search.options import check_relevance
from es_imgsearch.search.query import Term, Vector, is_vector
from es_imgsearch.search.query_vectors import QueryEncoder
from es_imgsearch.search.reduced import OriginalsLookup, ReducedVectors
from es_imgsearch.search.relevance import (
    IMAGE,
    MIN_BACKGROUND,
    TEXT,
    Floats,
    QueryRelevance,
    RelevanceModel,
    average_cut_off,
    load_text_vectors,
    read_background,
    unrelated_texts,
)
from es_imgsearch.search.request_flow import RequestFlow, Work, sent

logger = logging.getLogger(__name__)

# Reading the metadata takes two requests of about 2 ms.
_TIME_TO_LIVE_SECONDS = 10.0


@dataclass(slots=True)
class GenerationState:
    """Everything read of one generation so far, confirmed last at `read_at`.

    A running search keeps the state it started with, even if another thread reads a newer one.
    """

    info: IndexInfo
    relevance: RelevanceModel | None = None
    reduced: ReducedVectors | None = None
    coder: Coder | None = None
    read_at: float = field(default_factory=time.monotonic)


class _WithState(Protocol):
    _state: IndexState


P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=_WithState)


def in_one_generation(
    method: Callable[Concatenate[S, P], RequestFlow[R]],
) -> Callable[Concatenate[S, P], RequestFlow[R]]:
    """Run a method again from its start if `reindex` has switched the index meanwhile.

    Hits of another generation raise GenerationSwitched.  Stale metadata may lead to other errors
    as well: vectors of another length, an encoder that knew no text.
    """

    @wraps(method)
    def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> RequestFlow[R]:
        before = self._state.latest
        try:
            return (yield from method(self, *args, **kwargs))
        except ImgSearchError as error:
            # A first search reads the state itself; a switch may follow while a model loads.
            started_with = self._state.latest if before is None else before
            if error.transient or not (yield from self._state.has_switched(started_with, error)):
                raise
        return (yield from method(self, *args, **kwargs))

    return run


class IndexState:
    """State of the generation behind the alias; `latest` is None until the first read."""

    def __init__(
        self,
        index: str,
        model: QueryEncoder,
        open_originals: Callable[[Meta], OriginalsLookup | None],
    ) -> None:
        """Read nothing yet; `open_originals` opens the whole vectors of a reduced index."""
        self._index = index
        self._model = model
        self._open_originals = open_originals
        self._has_warned = False
        self.latest: GenerationState | None = None

    def current(self) -> RequestFlow[GenerationState]:
        """Return the latest state; read it if there is none, or an old one."""
        state = self.latest
        if state is None or time.monotonic() - state.read_at > _TIME_TO_LIVE_SECONDS:
            state = yield from self._read(state)
        return state

    def _read(self, before: GenerationState | None = None) -> RequestFlow[GenerationState]:
        """Read the metadata; keep what was loaded for `before` if that has not changed."""
        read_at = time.monotonic()
        answer = yield info_request(self._index)
        info = IndexInfo.from_answer(answer, self._index)
        info = yield from self._with_documents(info)
        state = before
        if state is not None and state.info == info:
            state.read_at = read_at
        else:
            state = self.latest = GenerationState(info, read_at=read_at)
        return state

    def _with_documents(self, info: IndexInfo) -> RequestFlow[IndexInfo]:
        """Add roots and what was learned; without rights, search with what `_meta` holds."""
        if not info.meta.document_ids:
            return info
        alias = Companion.STATE.alias(self._index)
        try:
            request = documents_request(alias, info.meta.document_ids)
            return info.with_documents((yield from sent(request, documents_by_id)))
        except (StoreDenied, IndexMissing) as error:
            if not self._has_warned:
                self._has_warned = True
                logger.warning(
                    "%r cannot be read, so hits have no paths and no relevance, and searches are"
                    " not tuned: give this key the right `read` on it. %s", alias, error,
                )  # fmt: skip
            return info

    def forget(self) -> None:
        """Read everything again with the next search."""
        self.latest = None

    def has_switched(
        self, state: GenerationState | None, error: ImgSearchError
    ) -> RequestFlow[bool]:
        """After an error, check if the alias was switched; read the new state then."""
        if state is None and not isinstance(error, GenerationSwitched):
            return False
        try:
            now = yield from self._read()
        except ImgSearchError:
            raise error from None
        is_same = state is not None and state.info.name == now.info.name
        # Hits of another generation although the name is the same: switched there and back.
        return not is_same or isinstance(error, GenerationSwitched)

    def reduced_vectors(self, state: GenerationState) -> RequestFlow[ReducedVectors | None]:
        """Load the reduction of a reduced index, once; None for an index of whole vectors."""
        meta = state.info.meta
        if state.reduced is None and (entry := meta.reduction) is not None:
            alias = Companion.REDUCTION.alias(self._index)
            document = yield from _companion_document(alias, entry.hash)
            reduction = read_reduction(document, self._index, meta)
            originals = self._open_originals(meta)
            state.reduced = ReducedVectors(reduction, entry.oversample, originals)
        return state.reduced

    def coder(self, state: GenerationState) -> RequestFlow[Coder]:
        """Load the coder of binary codes, once; raise UsageError if there are no codes."""
        entry = state.info.meta.codes
        if entry is None:
            raise UsageError(
                f"Index {self._index!r} has no codes: leave codes out, or make them with"
                f" `es-imgsearch codes train --index {self._index}`."
            )
        if state.coder is None:
            alias = Companion.CODES.alias(self._index)
            document = yield from _companion_document(alias, entry.hash)
            state.coder = read_coder(document, self._index, state.info.meta)
        return state.coder

    def least_similarity(
        self,
        generation: GenerationState,
        terms: Sequence[Term],
        vector: Vector,
        min_relevance: float,
    ) -> RequestFlow[float]:
        """Compute the parameter `similarity` of a kNN query with this whole vector."""
        check_relevance(min_relevance)
        relevance, _ = yield from self.query_relevance(generation, terms, vector, None)
        if relevance is not None:
            cosine = relevance.cosine_of(min_relevance)
        else:
            if generation.reduced is not None:
                vector = generation.reduced.reduce_query(vector)
            cosine = yield from average_cut_off(self._index, vector)
        return round(cosine_to_similarity(cosine, generation.info.meta.similarity), 6)

    def query_relevance(
        self,
        state: GenerationState,
        terms: Sequence[Term],
        vector: Vector,
        min_relevance: float | None,
    ) -> RequestFlow[tuple[QueryRelevance | None, Sequence[str]]]:
        """Return the relevance of a query vector's hits, and notes on it.

        None for a query that is a vector, a reduced index, and fewer than 30 pictures; raises
        NotCalibrated then if there is a `min_relevance`.
        """
        meta = state.info.meta
        if meta.reduction is not None:
            if min_relevance is None:
                return None, ()
            raise NotCalibrated(
                f"Index {self._index!r} has reduced vectors, whose cosines are too rough for"
                " relevance: leave min_relevance out, or search an index of whole vectors."
            )
        kind = _curve_kind(terms)
        if kind is None:
            if min_relevance is None:
                return None, ()
            raise NotCalibrated(
                "A query that is a vector has no relevance: search with words or a picture, or"
                " leave min_relevance out."
            )
        model = yield from self._relevance_model(state, kind)
        if (count := len(model.background)) >= MIN_BACKGROUND:
            return model.for_query(vector, kind), ()
        holds = (
            f"Index {self._index!r} holds {count} different picture{'' if count == 1 else 's'};"
            f" relevance needs {MIN_BACKGROUND}"
        )
        if min_relevance is not None:
            raise NotCalibrated(
                f"{holds}: add pictures with `es-imgsearch sync DIR --index {self._index}`, or"
                " leave min_relevance out."
            )
        return None, [f"{holds}, so hits have no percentage."] if count else ()

    def _relevance_model(self, state: GenerationState, kind: str) -> RequestFlow[RelevanceModel]:
        """Read the background once; derive the curve of this kind if none was fitted."""
        meta = state.info.meta
        if state.relevance is None:
            background = yield from read_background(self._index, meta, meta.seal.dims)
            state.relevance = RelevanceModel(meta.relevance, background)
        model = state.relevance
        if kind not in model.curves and len(model.background) >= MIN_BACKGROUND:
            unrelated = model.background
            if kind == TEXT:
                unrelated = yield Work(partial(self._unrelated_vectors, state.info), "unrelated")
            model = state.relevance = model.with_derived(kind, unrelated)
        return model

    def _unrelated_vectors(self, info: IndexInfo) -> Floats:
        seal = info.meta.seal
        return load_text_vectors(
            [seal.name, seal.revision, seal.fingerprint, str(seal.dims)],
            unrelated_texts(),
            lambda texts: self._model.embed(info, texts, []).texts,
        )


def _companion_document(alias: str, name: str) -> RequestFlow[Mapping[str, Any] | None]:
    """Read a document of a companion index; None if it is missing."""
    try:
        answer = yield document_request(alias, name)
    except (IndexMissing, ImageMissing):
        return None
    source: Mapping[str, Any] = answer["_source"]
    return source


def _curve_kind(terms: Sequence[Term]) -> str | None:
    """Choose the calibration curve: IMAGE if a positive term is one; None for vectors.

    Queries of words and pictures have no curve of their own: their cosines are nearer to those
    of pictures.
    """
    positive = [query for query, weight in terms if weight > 0]
    if any(is_vector(query) for query in positive):
        return None
    return TEXT if all(isinstance(query, str) for query in positive) else IMAGE
