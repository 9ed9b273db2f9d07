"""Every method of the client as a request flow without I/O; see `request_flow`.

`client.ImageSearch` and `async_client.AsyncImageSearch` run the flows and document the methods.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Unpack

import numpy as np

from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.queries import knn_body
from es_imgsearch.elastic.requests import document_request
from es_imgsearch.errors import ImageMissing, UsageError
from es_imgsearch.records import REGIONS_FIELD
from es_imgsearch.search.execution import (
    Search,
    exact_body,
    region_body,
    run_filtered,
    run_searches,
    search_clauses,
    text_body,
    vector_body,
)
from es_imgsearch.search.filters import Filters, GivenFilters, meant_clauses
from es_imgsearch.search.hits import Hits
from es_imgsearch.search.index_state import GenerationState, IndexState, in_one_generation
from es_imgsearch.search.options import SearchOptions, SearchPlan
from es_imgsearch.search.query import (
    Queries,
    Query,
    QueryBox,
    QueryPicture,
    StoredPicture,
    Term,
    Vector,
    combine_vectors,
    parse_terms,
    text_terms,
)
from es_imgsearch.search.query_vectors import (
    CONTENT,
    PartVectors,
    QueryEncoder,
    QueryVectorizer,
    VectorPart,
    weighted_parts,
)
from es_imgsearch.search.reduced import OriginalsLookup, ReducedVectors, Reranking
from es_imgsearch.search.request_flow import RequestFlow, check_many, together
from es_imgsearch.search.results import SearchContext, build_hits, check_facets, with_cosines
from es_imgsearch.search.search_log import SearchLog
from es_imgsearch.search.words.auto import check_words, chosen_mode
from es_imgsearch.search.words.fusion import Ranking
from es_imgsearch.settings import Settings

# Searches of `search_many` that share requests; fewer where pictures may be held in memory, of up
# to `max_pixels` each.
_SIDE_BY_SIDE: Final = 100
_WITH_PICTURES: Final = 16


class Operations:
    """The methods of the client for one index."""

    def __init__(
        self,
        index: str,
        settings: Settings,
        model: QueryEncoder,
        open_originals: Callable[[Meta], OriginalsLookup | None] = lambda _meta: None,
    ) -> None:
        """Set up; `open_originals` opens whole vectors of a reduced index."""
        self._index = index
        self._settings = settings
        self._model = model
        self._vectorizer = QueryVectorizer(index, settings, model)
        self._state = IndexState(index, model, open_originals)
        self._log = SearchLog(index, settings.host) if settings.log_searches else None

    def search_text(
        self, text: str, k: int = 10, **options: Unpack[SearchOptions]
    ) -> RequestFlow[Hits]:
        """Search by words."""
        if not isinstance(text, str):
            raise UsageError(
                f"The text to search for is a string, not a {type(text).__name__};"
                " pictures are for search_image."
            )
        return (yield from self.search([text], k=k, **options))

    def search_image(
        self,
        image: QueryPicture | str,
        box: QueryBox | None = None,
        k: int = 10,
        **options: Unpack[SearchOptions],
    ) -> RequestFlow[Hits]:
        """Search by a picture, or by a part of it."""
        picture = Path(image) if isinstance(image, str) else image
        return (yield from self.search([picture], box=box, k=k, **options))

    def similar(
        self, image_id: str, k: int = 10, **options: Unpack[SearchOptions]
    ) -> RequestFlow[Hits]:
        """Search by a picture of the index."""
        SearchPlan.parse(k, options)
        return (yield from self.search([StoredPicture(image_id)], k=k, **options))

    def search(
        self,
        positive: Queries,
        negative: Queries = (),
        k: int = 10,
        *,
        box: QueryBox | None = None,
        **options: Unpack[SearchOptions],
    ) -> RequestFlow[Hits]:
        """Search by positive and negative examples; log the search if that is switched on."""
        return (yield from self.find(positive, negative, k, box=box, logged_k=k, **options))

    def find(
        self,
        positive: Queries,
        negative: Queries,
        k: int,
        *,
        logged_k: int | None,
        box: QueryBox | None = None,
        **options: Unpack[SearchOptions],
    ) -> RequestFlow[Hits]:
        """Search as `search` does; log a search of `logged_k` hits, None for none."""
        started = time.perf_counter()
        plan = SearchPlan.parse(k, options)
        context, hits = yield from self._search(plan, parse_terms(positive, negative), box)
        if self._log is not None and logged_k is not None:
            duration_ms = (time.perf_counter() - started) * 1000
            yield from self._log.write(context, hits, duration_ms, logged_k)
        return hits

    def search_many(
        self, queries: Sequence[Queries], k: int = 10, **options: Unpack[SearchOptions]
    ) -> RequestFlow[list[Hits]]:
        """Search once for each of several queries."""
        check_many(queries)
        size = _SIDE_BY_SIDE if all(isinstance(each, str) for each in queries) else _WITH_PICTURES
        found: list[Hits] = []
        for start in range(0, len(queries), size):
            part = queries[start : start + size]
            found += yield from together([self.search(each, k=k, **options) for each in part])
        return found

    @in_one_generation
    def _search(
        self, plan: SearchPlan, terms: Sequence[Term], box: QueryBox | None
    ) -> RequestFlow[tuple[SearchContext, Hits]]:
        texts = text_terms(terms)
        generation = yield from self._state.current()
        info = generation.info
        if plan.mode == "auto":
            mode = chosen_mode(plan, terms, info)
            plan = replace(plan, mode=mode, is_auto=True)
        check_facets(plan.facets, info.properties)
        if plan.regions and REGIONS_FIELD not in info.properties:
            raise UsageError(
                f"Index {self._index!r} keeps no regions: leave regions out, or make another"
                " --index with `es-imgsearch init --regions`."
            )
        clauses = search_clauses(plan, terms, info)
        parts = weighted_parts(plan.weights, info.properties, self._index)
        context = SearchContext(plan, info, self._settings.host, terms)
        if plan.mode != "vector":
            check_words(terms, texts, plan)
        searches: dict[Ranking, Search] = {}
        reranking: Reranking | None = None
        if plan.mode != "text":
            context, reranking = yield from self._add_vectors(context, generation, parts, box)
            searches["vector"] = partial(vector_body, context)
        if plan.mode != "vector":
            searches["text"] = partial(text_body, context, texts)
            searches["exact"] = partial(exact_body, context, texts)
        region_search = partial(region_body, context) if plan.regions else None
        find = partial(
            run_searches, self._index, info.name, searches, plan,
            reranking=reranking, region_search=region_search,
        )  # fmt: skip
        context, result = yield from run_filtered(self._index, context, find, clauses)
        if plan.is_auto and plan.mode == "text" and not result.hits:
            # Raises the error of words that an encoder of pictures cannot compare.
            return (yield from self._search(replace(plan, mode="vector"), terms, box))
        if plan.is_auto and plan.mode == "hybrid" and result.ranks is None:
            context = context._replace(plan=replace(plan, mode="vector"))
        result = yield from with_cosines(self._index, result, context)
        return context, build_hits(result, context)

    def _add_vectors(
        self,
        context: SearchContext,
        generation: GenerationState,
        parts: Sequence[tuple[VectorPart, float]],
        box: QueryBox | None,
    ) -> RequestFlow[tuple[SearchContext, Reranking | None]]:
        """Complete a context with the query's vectors and all that is computed from them."""
        plan = context.plan
        terms, vectors = yield from self._vectorize(
            generation, context.terms, [part for part, _ in parts], box
        )
        combined = {part.name: _combined(terms, vectors, part) for part, _ in parts}
        context = context._replace(
            terms=terms,
            notes=vectors.notes,
            parts=[(part, weight, combined[part.name]) for part, weight in parts],
            term_vectors=vectors.by_part.get(CONTENT.name, ()),
        )
        if plan.weights is None and not plan.regions:
            relevance, notes = yield from self._state.query_relevance(
                generation, terms, combined[CONTENT.name], plan.min_relevance
            )
            context = context._replace(relevance=relevance, notes=[*context.notes, *notes])
        if plan.codes:
            coder = yield from self._state.coder(generation)
            context = context._replace(code=coder.code(combined[CONTENT.name]))
        reduced = generation.reduced
        if reduced is None:
            return context, None
        reranking = None
        if plan.weights is None:
            reranking = reduced.reranking(combined[CONTENT.name], is_whole=vectors.are_whole)
        return _with_reduced_vectors(context, reduced), reranking

    @in_one_generation
    def similarity(
        self, one: Query | str, other: Query | str, *, part: str = CONTENT.name
    ) -> RequestFlow[float]:
        """Compute the cosine of two queries, from -1 to 1."""
        generation = yield from self._state.current()
        ((chosen, _),) = weighted_parts({part: 1.0}, generation.info.properties, self._index)
        _, vectors = yield from self._vectorize(generation, parse_terms([one, other], ()), [chosen])
        a, b = vectors.by_part[chosen.name]
        return float(np.clip(a @ b, -1.0, 1.0))

    def get(self, image_id: str) -> RequestFlow[Mapping[str, Any]]:
        """Read every stored field of one picture except its vectors."""
        StoredPicture(image_id)
        try:
            answer = yield document_request(self._index, image_id)
        except ImageMissing:
            raise ImageMissing(f"No picture has the image_id {image_id!r}.") from None
        source: Mapping[str, Any] = answer["_source"]
        return source

    @in_one_generation
    def embed(self, query: Query, box: QueryBox | None = None) -> RequestFlow[Vector]:
        """Compute the unit vector of a query, of shape (dims,)."""
        generation = yield from self._state.current()
        _, vectors = yield from self._vectorize(
            generation, parse_terms([query], ()), [CONTENT], box
        )
        return vectors.by_part[CONTENT.name][0]

    @in_one_generation
    def knn_query(
        self,
        positive: Queries,
        negative: Queries = (),
        k: int = 10,
        *,
        box: QueryBox | None = None,
        min_relevance: float | None = None,
        filters: Filters | None = None,
        without: Filters | None = None,
    ) -> RequestFlow[dict[str, Any]]:
        """Build the kNN query that a search sends; see `ImageSearch.knn_query`."""
        generation = yield from self._state.current()
        given = GivenFilters(filters or {}, without or {})
        clauses, _ = yield from meant_clauses(self._index, given, generation.info.properties)
        terms, vectors = yield from self._vectorize(
            generation, parse_terms(positive, negative), [CONTENT], box
        )
        vector = _combined(terms, vectors, CONTENT)
        least = None
        if min_relevance is not None:
            least = yield from self._state.least_similarity(
                generation, terms, vector, min_relevance
            )
        if generation.reduced is not None:
            vector = generation.reduced.reduce_query(vector)
        # A float32 of a unit vector holds six digits.
        numbers = [round(float(each), 6) for each in vector]
        tuning = generation.info.meta.tuning
        # Whoever sends it may give no size, and gets k hits.
        knn: dict[str, Any] = {**knn_body(numbers, k, tuning, filters=clauses)["knn"], "k": k}
        if least is not None:
            knn["similarity"] = least
        return knn

    def info(self) -> RequestFlow[IndexInfo]:
        """Return the index's generation, metadata and fields; `reload` reads them again."""
        return (yield from self._state.current()).info

    def reload(self) -> None:
        """Forget the index's metadata and encoder."""
        self._state.forget()
        self._model.forget()

    def _vectorize(
        self,
        generation: GenerationState,
        terms: Sequence[Term],
        parts: Sequence[VectorPart],
        box: QueryBox | None = None,
    ) -> RequestFlow[tuple[Sequence[Term], PartVectors]]:
        """Compute vectors of terms; return them with the terms, cut to the box."""
        text_terms(terms)
        if box is not None:
            # Cut first, since a contact sheet shows the part that was searched with.
            terms = yield from self._vectorizer.cut(terms, box)
        reduced = yield from self._state.reduced_vectors(generation)
        vectors = yield from self._vectorizer.vectorize(terms, parts, generation.info, reduced)
        return terms, vectors


def _combined(terms: Sequence[Term], vectors: PartVectors, part: VectorPart) -> Vector:
    return combine_vectors(vectors.by_part[part.name], [each.weight for each in terms])


def _with_reduced_vectors(context: SearchContext, reduced: ReducedVectors) -> SearchContext:
    """Reduce content vectors to bytes, in which they are sent and explained."""
    return context._replace(
        parts=[
            (part, weight, reduced.reduce_query(vector) if part is CONTENT else vector)
            for part, weight, vector in context.parts
        ],
        term_vectors=[reduced.reduce_query(vector) for vector in context.term_vectors],
    )
