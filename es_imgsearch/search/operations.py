"""Every method of the client as a request flow, which does no I/O; see `request_flow`.

`search.ImageSearch` and `search.AsyncImageSearch` run them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack

import numpy as np

from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.queries import knn_body
from es_imgsearch.elastic.requests import document_request
from es_imgsearch.errors import ImageMissing, ImgSearchError, UsageError
from es_imgsearch.records import REGIONS_FIELD
from es_imgsearch.search.execution import (
    Ranking,
    Search,
    found,
    region_body,
    text_body,
    vector_body,
)
from es_imgsearch.search.filters import filter_clauses
from es_imgsearch.search.hits import Hits
from es_imgsearch.search.index_state import Knowledge
from es_imgsearch.search.options import Plan, SearchOptions
from es_imgsearch.search.query import (
    Box,
    Queries,
    Query,
    QueryPicture,
    StoredPicture,
    Term,
    Vector,
    combined,
    terms_of,
    texts_of,
)
from es_imgsearch.search.query_vectors import CONTENT, QueryEncoder, TermVectors, weighted_parts
from es_imgsearch.search.reduced import Lookup, ReducedVectors, Refinement
from es_imgsearch.search.request_flow import RequestFlow
from es_imgsearch.search.results import Asked, check_facets, hits_of
from es_imgsearch.search.search_log import SearchLog
from es_imgsearch.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")


def _in_one_generation(
    method: Callable[Concatenate[Operations, P], RequestFlow[R]],
) -> Callable[Concatenate[Operations, P], RequestFlow[R]]:
    """Once more, from the beginning, where `reindex` has switched the index meanwhile.

    Hits tell which generation they are of.  What is known of the one before may also lead to an
    error: its vectors have another length, its encoder knew no text.
    """

    @wraps(method)
    def ask(self: Operations, /, *args: P.args, **kwargs: P.kwargs) -> RequestFlow[R]:
        known = self._knowledge.latest
        try:
            return (yield from method(self, *args, **kwargs))
        except ImgSearchError as error:
            # A first search learns of the index itself, and may lose it while a model loads.
            begun_with = self._knowledge.latest if known is None else known
            if error.transient or not (yield from self._knowledge.is_switched(begun_with, error)):
                raise
        return (yield from method(self, *args, **kwargs))

    return ask


class Operations:
    """What the client can do with one index.

    Every search takes the options of `SearchOptions`, and `k`: how many hits, 1 to 10,000.
    """

    def __init__(
        self,
        index: str,
        settings: Settings,
        model: QueryEncoder,
        originals: Callable[[Meta], Lookup | None] = lambda _meta: None,
    ) -> None:
        """`originals` opens those of a reduced index, see `originals.originals_of`."""
        self._index = index
        self._settings = settings
        self._model = model
        self._vectors = TermVectors(index, settings, model)
        self._knowledge = Knowledge(index, originals)
        self._log = SearchLog(index, settings.host) if settings.log_searches else None

    # -- searching -------------------------------------------------------------------------

    def search_text(
        self, text: str, k: int = 10, **options: Unpack[SearchOptions]
    ) -> RequestFlow[Hits]:
        """Pictures that fit words.

        Raises TextUnsupported where the index's encoder knows pictures only.
        """
        if not isinstance(text, str):
            raise UsageError(
                f"The text to search for is a string, not a {type(text).__name__};"
                " pictures are for search_image."
            )
        return (yield from self.search([text], k=k, **options))

    def search_image(
        self,
        image: QueryPicture | str,
        box: Box | None = None,
        k: int = 10,
        **options: Unpack[SearchOptions],
    ) -> RequestFlow[Hits]:
        """Pictures like a picture: a path, an open file, its bytes, a PIL image or an array.

        `box` is (x, y, width, height) in pixels of the upright picture: only that part counts.
        Raises QueryPictureInvalid.
        """
        return (yield from self.search([_as_picture(image)], box=box, k=k, **options))

    def similar(
        self, image_id: str, k: int = 10, **options: Unpack[SearchOptions]
    ) -> RequestFlow[Hits]:
        """Pictures like a stored one, which is not among them; needs no model.

        Raises ImageMissing.
        """
        return (yield from self.search([StoredPicture(image_id)], k=k, **options))

    def search(
        self,
        positive: Queries,
        negative: Queries = (),
        k: int = 10,
        *,
        box: Box | None = None,
        **options: Unpack[SearchOptions],
    ) -> RequestFlow[Hits]:
        """Pictures near every positive query and away from every negative one.

        A string is words; a path has to be a `Path`; an array of one axis is a vector of the
        index's encoder; a `StoredPicture` stands for the one of its image_id, which is not
        among the hits.  One query need not be in a list, and each may be a pair (query, weight).
        The query vector is the weighted sum of the positive unit vectors less the negative
        ones, brought to unit length.  `box` applies to every picture given.  In mode text,
        pictures that hold every word of a negative text in one of their fields are left out.
        """
        started = time.perf_counter()
        plan = Plan.of(k, options)
        asked, hits = yield from self._found(plan, terms_of(positive, negative), box)
        if self._log is not None:
            yield from self._log.note(asked, hits, (time.perf_counter() - started) * 1000)
        return hits

    @_in_one_generation
    def _found(
        self, plan: Plan, terms: Sequence[Term], box: Box | None
    ) -> RequestFlow[tuple[Asked, Hits]]:
        texts = texts_of(terms)
        known = yield from self._knowledge.get()
        info = known.info
        check_facets(plan.facets, info.properties)
        if plan.regions and REGIONS_FIELD not in info.properties:
            raise UsageError(
                f"Index {self._index!r} keeps no regions: leave regions out, or make another"
                " --index with `es-imgsearch init --regions`."
            )
        clauses = self._clauses(plan, terms, info)
        parts = weighted_parts(plan.weights, info.properties, self._index)
        asked = Asked(plan, info, self._settings.host, terms)
        if plan.mode != "vector":
            _check_words(terms, texts, plan)
        searches: dict[Ranking, Search] = {}
        refinement: Refinement | None = None
        if plan.mode != "text":
            if box is not None:
                # Cut before it is asked for, since a sheet shows what was searched with.
                terms = yield from self._vectors.cut(terms, box)
            reduced = yield from self._knowledge.reduced_vectors(known)
            chosen = [part for part, _ in parts]
            prepared = yield from self._vectors.prepared(terms, chosen, info, reduced)
            vectors = {
                part.name: combined(prepared.vectors[part.name], [each.weight for each in terms])
                for part, _ in parts
            }
            asked = asked._replace(
                terms=terms,
                notes=prepared.notes,
                parts=[(part, weight, vectors[part.name]) for part, weight in parts],
                of_terms=prepared.vectors.get(CONTENT.name, ()),
            )
            if plan.weights is None and not plan.regions:
                rating = yield from self._knowledge.rating(
                    known, terms, vectors[CONTENT.name], plan
                )
                asked = asked._replace(rating=rating)
            if plan.codes:
                coder = yield from self._knowledge.coder(known)
                asked = asked._replace(code=coder.code(vectors[CONTENT.name]))
            if reduced is not None:
                if plan.weights is None:
                    refinement = reduced.refinement(
                        vectors[CONTENT.name], is_whole=prepared.are_whole
                    )
                asked = _as_stored(asked, reduced)
            searches["vector"] = partial(vector_body, asked)
        if plan.mode != "vector":
            searches["text"] = partial(text_body, asked, texts)
        by_region = partial(region_body, asked) if plan.regions else None
        answers = yield from found(
            self._index, info.name, searches, plan, clauses, refinement, by_region
        )
        return asked, hits_of(answers, asked)

    @_in_one_generation
    def similarity(
        self, one: Query | str, other: Query | str, *, part: str = CONTENT.name
    ) -> RequestFlow[float]:
        """The cosine of two queries, from -1 to 1: pictures, texts or stored pictures."""
        known = yield from self._knowledge.get()
        info = known.info
        ((chosen, _),) = weighted_parts({part: 1.0}, info.properties, self._index)
        terms = terms_of([one, other], ())
        texts_of(terms)
        reduced = yield from self._knowledge.reduced_vectors(known)
        prepared = yield from self._vectors.prepared(terms, [chosen], info, reduced)
        a, b = prepared.vectors[chosen.name]
        return float(np.clip(a @ b, -1.0, 1.0))

    def get(self, image_id: str) -> RequestFlow[Mapping[str, Any]]:
        """Every stored field of one picture but its vectors.  Raises ImageMissing."""
        StoredPicture(image_id)
        try:
            answer = yield document_request(self._index, image_id)
        except ImageMissing:
            raise ImageMissing(f"No picture has the image_id {image_id!r}.") from None
        source: Mapping[str, Any] = answer["_source"]
        return source

    @_in_one_generation
    def embed(self, query: Query, box: Box | None = None) -> RequestFlow[Vector]:
        """The query's vector, unit length, of shape (dims,)."""
        known = yield from self._knowledge.get()
        info = known.info
        terms = terms_of([query], ())
        texts_of(terms)
        if box is not None:
            terms = yield from self._vectors.cut(terms, box)
        reduced = yield from self._knowledge.reduced_vectors(known)
        prepared = yield from self._vectors.prepared(terms, [CONTENT], info, reduced)
        return prepared.vectors[CONTENT.name][0]

    @_in_one_generation
    def knn_query(
        self,
        positive: Queries,
        negative: Queries = (),
        k: int = 10,
        *,
        box: Box | None = None,
    ) -> RequestFlow[dict[str, Any]]:
        """The kNN query that a search for these sends, for other programs to send: Kibana, curl.

        Its vector is as the index stores vectors, and it holds the tuned number of candidates.
        """
        known = yield from self._knowledge.get()
        info = known.info
        terms = terms_of(positive, negative)
        texts_of(terms)
        if box is not None:
            terms = yield from self._vectors.cut(terms, box)
        reduced = yield from self._knowledge.reduced_vectors(known)
        prepared = yield from self._vectors.prepared(terms, [CONTENT], info, reduced)
        vector = combined(prepared.vectors[CONTENT.name], [each.weight for each in terms])
        if reduced is not None:
            vector = reduced.asked_for(vector)
        # Six digits are what a float32 of a unit vector holds.
        numbers = [round(float(each), 6) for each in vector]
        knn: dict[str, Any] = knn_body(numbers, k, info.meta.tuning)["knn"]
        return knn

    def info(self) -> RequestFlow[IndexInfo]:
        """The index as it was when first asked for; `reload` asks again."""
        return (yield from self._knowledge.get()).info

    def reload(self) -> None:
        """Forget what is known of the index, after it was tuned or extended."""
        self._knowledge.forget()
        self._model.forget()

    def _clauses(
        self, plan: Plan, terms: Sequence[Term], info: IndexInfo
    ) -> list[Mapping[str, Any]]:
        clauses: list[Mapping[str, Any]] = list(
            filter_clauses(plan.filters, info.properties, since=plan.since, until=plan.until)
        )
        ids = [each.query.image_id for each in terms if isinstance(each.query, StoredPicture)]
        if ids:
            clauses.append({"bool": {"must_not": [{"ids": {"values": ids}}]}})
        return clauses


def _as_picture(image: QueryPicture | str) -> QueryPicture:
    return Path(image) if isinstance(image, str) else image


def _as_stored(asked: Asked, reduced: ReducedVectors) -> Asked:
    """The content's vectors cut to bytes, as they are sent and compared with what is stored."""
    return asked._replace(
        parts=[
            (part, weight, reduced.asked_for(vector) if part is CONTENT else vector)
            for part, weight, vector in asked.parts
        ],
        of_terms=[reduced.asked_for(vector) for vector in asked.of_terms],
    )


def _check_words(terms: Sequence[Term], texts: Sequence[Term], plan: Plan) -> None:
    if plan.mode == "text" and len(texts) < len(terms):
        raise UsageError("Mode 'text' looks for words: search for pictures in mode 'vector'.")
    if not any(weight > 0 for _, weight in texts):
        raise UsageError(f"Mode {plan.mode!r} needs words to look for.")
