"""What `ImageSearch(service=…)` asks: searches with all that it takes.

`/api/v1/search` is for people and small programs; here a search has the arguments of
`ImageSearch.search`, and a hit all that `Hit` has.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Final, Literal

import numpy as np
import orjson
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from starlette.concurrency import run_in_threadpool

from es_imgsearch.errors import ServiceUnsuitable, UsageError, counted
from es_imgsearch.read.preparation import Preparation
from es_imgsearch.records import stored_path
from es_imgsearch.search.client import ImageSearch
from es_imgsearch.search.hits import Hit
from es_imgsearch.search.query import Query, StoredPicture
from es_imgsearch.serve.api import parsed, read_body
from es_imgsearch.serve.problems import REFERENCE
from es_imgsearch.serve.query_pictures import Upload
from es_imgsearch.serve.routes import add_get
from es_imgsearch.serve.service import SearchService

_MOST_EXAMPLES: Final = 100
_MOST_NAMES: Final = 1000
_MOST_VALUES: Final = 10_000

# Megabytes of text keep Elasticsearch busy for minutes.
_LONGEST_TEXT: Final = 10_000
_STRICT: Final = ConfigDict(extra="forbid", allow_inf_nan=False, str_max_length=_LONGEST_TEXT)

# What is no number of a filter, a client's error says, whoever finds it.
_Value = str | int | Annotated[float, Field(allow_inf_nan=True)] | bool | None
_Names = Annotated[list[str], Field(max_length=_MOST_NAMES)]


class Example(BaseModel):
    """One query: words, a stored picture, a vector, or a picture of the form."""

    model_config = _STRICT

    text: str | None = None
    image_id: str | None = None
    vector: list[float] | None = Field(None, max_length=4096)
    picture: int | None = Field(None, ge=0, description="place among the parts `image`, from 0")
    weight: float = Field(1.0, description="above 0")


class ValueRange(BaseModel):
    """Two ends, of which one may be null; or latitude, longitude and distance."""

    model_config = _STRICT

    range: list[_Value] = Field(max_length=3)


_MOST_FIELDS: Final = 100
_Values = Annotated[list[_Value | ValueRange], Field(max_length=_MOST_VALUES)]
_Filters = Annotated[dict[str, _Value | ValueRange | _Values], Field(max_length=_MOST_FIELDS)]


class ExampleOptions(BaseModel):
    """`SearchOptions` of the Python client."""

    model_config = _STRICT

    mode: Literal["auto", "vector", "text", "hybrid"] = "auto"
    weights: dict[str, Annotated[Any, WithJsonSchema({"type": "number"})]] | None = None
    filters: _Filters | None = None
    without: _Filters | None = None
    since: str | None = None
    until: str | None = None
    offset: int = Field(default=0, ge=0)
    size: int | None = Field(default=None, ge=0)
    collapse: bool = False
    facets: _Names = []
    explain: bool = False
    regions: bool = False
    codes: bool = False
    min_relevance: float | None = None
    num_candidates: int | None = None
    exact: bool = False
    fields: _Names | None = None


class ExampleSearch(BaseModel):
    """A search by examples, and the host for which hits have paths."""

    model_config = _STRICT

    positive: list[Example] = Field(max_length=_MOST_EXAMPLES)
    negative: list[Example] = Field([], max_length=_MOST_EXAMPLES)
    k: int = Field(10, strict=True, description="number of hits, 1 to 10,000")
    options: ExampleOptions = Field(default_factory=ExampleOptions)
    index: str | None = Field(None, description="refused if the service searches another")
    host: str | None = Field(None, description="`path` is that on this host, or null")


class ExampleHit(BaseModel):
    """A hit with all fields of `Hit`; `fields` are those of the document."""

    image_id: str
    root: str
    relative_path: str
    score: float
    relevance: float | None
    fields: dict[str, Any]
    path: str | None
    cosine: float | None
    explanation: dict[str, Any] | None
    matched_box: list[int] | None
    matches_words: bool


class ExampleAnswer(BaseModel):
    """The hits of a search by examples; `mode` is never auto."""

    hits: list[ExampleHit]
    facets: dict[str, dict[str, int]]
    notes: list[str]
    took_ms: int
    mode: str


class EncoderDescription(BaseModel):
    """The encoder that the index is sealed to, and how pictures are prepared for it."""

    index: str
    name: str
    revision: str
    dims: int
    fingerprint: str
    supports_text: bool
    preparation: dict[str, Any] | None = Field(
        description="size, mode and resampling; null if it is of the encoder's own kind"
    )


class ExampleRoutes:
    """The routes for the Python client and the command line."""

    def __init__(self, service: SearchService) -> None:
        self._service = service

    def add_to(self, app: FastAPI) -> None:
        """Register the routes."""
        schema = ExampleSearch.model_json_schema(ref_template=REFERENCE)
        content = {
            "application/json": {"schema": schema},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "asked": {"type": "string", "description": "the JSON object"},
                        "image": {"type": "array", "items": {"type": "string", "format": "binary"}},
                    },
                }
            },
        }
        app.post(
            "/api/v1/search-by-examples",
            response_model=ExampleAnswer,
            openapi_extra={"requestBody": {"required": True, "content": content}},
        )(self.search)
        add_get(app, "/api/v1/encoder", self.encoder, response_model=EncoderDescription)

    async def search(self, request: Request) -> Response:
        """Search by words, pictures and vectors with weights, as the Python client does.

        JSON, or a form with the JSON in `asked` and pictures in the parts `image`.
        """
        asked, uploads = await read_body(request)
        if "asked" in asked and isinstance(text := asked["asked"], str):
            try:
                asked = json.loads(text)
            except (ValueError, RecursionError):
                raise UsageError("The field `asked` of the form is no JSON object.") from None
        return await run_in_threadpool(self._answer, asked, uploads)

    def _answer(self, asked: dict[str, Any], uploads: Sequence[Upload]) -> Response:
        search = parsed(ExampleSearch, asked)
        pictures = self._service.decoded(uploads)
        answer = search_by_examples(self._service.client, search, pictures)
        return Response(orjson.dumps(answer), media_type="application/json")

    def encoder(self) -> dict[str, Any]:
        """Return the index's encoder, by which the vectors of `encode` are made."""
        return described_encoder(self._service.client)


def search_by_examples(
    client: ImageSearch, search: ExampleSearch, pictures: Sequence[Query]
) -> dict[str, Any]:
    """Search with the arguments of `ImageSearch.search`; return an `ExampleAnswer`."""
    own = client.settings.index
    if search.index not in {None, own}:
        raise ServiceUnsuitable(
            f"This service searches index {own!r}, not {search.index!r}: ask one of"
            f" `es-imgsearch serve --index {search.index}`, or leave the index out."
        )
    positive, negative = (
        [(_query(each, pictures), each.weight) for each in examples]
        for examples in (search.positive, search.negative)
    )
    options = search.options.model_dump()
    for name in ("filters", "without"):
        given = getattr(search.options, name) or {}
        options[name] = {field: _filter_value(value) for field, value in given.items()}
    hits = client.search(positive, negative, search.k, **options)
    return {
        "hits": [_plain(each, client, search.host) for each in hits],
        "facets": hits.facets,
        "notes": hits.notes,
        "took_ms": hits.took_ms,
        "mode": hits.mode,
    }


def _query(example: Example, pictures: Sequence[Query]) -> Query:
    given = example.model_dump(exclude={"weight"}, exclude_none=True)
    if len(given) != 1:
        raise UsageError("An example has one of text, image_id, vector and picture.")
    if example.text is not None:
        return example.text
    if example.image_id is not None:
        return StoredPicture(example.image_id)
    if example.vector is not None:
        return np.asarray(example.vector, np.float64)
    number = example.picture or 0
    if number >= len(pictures):
        raise UsageError(
            f"There is no picture {number}: the form has {counted(len(pictures), 'part')} `image`."
        )
    return pictures[number]


def _filter_value(value: Any) -> Any:
    if isinstance(value, ValueRange):
        return tuple(value.range)
    return [_filter_value(each) for each in value] if isinstance(value, list) else value


def _plain(hit: Hit, client: ImageSearch, host: str | None) -> dict[str, Any]:
    path = hit.path
    if host not in {None, client.settings.host}:
        path = client.info.meta.path_on(str(host), hit.root, hit.relative_path)
    return {
        "image_id": hit.image_id,
        "root": hit.root,
        "relative_path": hit.relative_path,
        "score": hit.score,
        "relevance": hit.relevance,
        "fields": hit.fields,
        "path": None if path is None else stored_path(os.fspath(path)),
        "cosine": hit.cosine,
        "explanation": hit.explanation,
        "matched_box": hit.matched_box,
        "matches_words": hit.matches_words,
    }


def described_encoder(client: ImageSearch) -> dict[str, Any]:
    """Describe the encoder, checked against the index's seal."""
    encoder = client.encoder
    preparation = encoder.preparation
    return {
        "index": client.settings.index,
        "name": encoder.name,
        "revision": encoder.revision,
        "dims": int(encoder.dims),
        "fingerprint": encoder.fingerprint,
        "supports_text": encoder.supports_text,
        "preparation": asdict(preparation) if type(preparation) is Preparation else None,
    }
