"""The HTTP API under /api/v1: searches, pictures, model, state of the index."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Final, TypeVar

from fastapi import FastAPI, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData

from es_imgsearch.errors import UsageError
from es_imgsearch.serve.answers.duplicate_lists import DuplicateRequest
from es_imgsearch.serve.problems import REFERENCE, BodyUnsupported, validated
from es_imgsearch.serve.query_pictures import Upload
from es_imgsearch.serve.routes import ImageId, add_get
from es_imgsearch.serve.search_request import LISTS, MOST_HITS, SearchRequest
from es_imgsearch.serve.service import SearchService
from es_imgsearch.serve.traffic.rate_limit import charge

_Model = TypeVar("_Model", bound=BaseModel)

_MOST_SEARCHES: Final = 100
# 100 vectors of 1,536 numbers, or 256 texts of 2,000 letters.
_MOST_JSON_BYTES: Final = 4_000_000
_MOST_TEXTS: Final = 256


class SearchAnswer(BaseModel):
    """The hits of a search, as `search --json` prints them, and how to go on."""

    hits: list[dict[str, Any]]
    facets: dict[str, dict[str, int]]
    notes: list[str]
    took_ms: int
    relevant: int | None = Field(description="hits that are likely right; null if not known")
    next: str | None = Field(description="`cursor` of the hits that follow")
    image: str | None = Field(None, description="hash of the picture that was sent: `image`")
    when: dict[str, str] | None = Field(None, description="`since` and `until` of the words `when`")


class SearchBatch(BaseModel):
    """Several searches."""

    searches: list[SearchRequest] = Field(min_length=1, max_length=_MOST_SEARCHES)


class BatchAnswer(BaseModel):
    """The answers of several searches, in their order."""

    answers: list[SearchAnswer]


class MatchAnswer(BaseModel):
    """Why a picture is a hit of a search."""

    box: list[int] | None = Field(
        description="x, y, width, height of the part that is nearest to the query, in pixels of the"
        " upright picture; null if the whole is nearer, or is not compared"
    )
    box_cosine: float | None = Field(description="cosine of that part with the query")
    whole_cosine: float | None = Field(description="cosine of the whole with the query")
    fields: dict[str, Any] = Field(description="stored fields that have words of the query")
    notes: list[str]


class Texts(BaseModel):
    texts: list[Annotated[str, Field(max_length=2000)]] = Field(
        min_length=1, max_length=_MOST_TEXTS
    )


class Vectors(BaseModel):
    """Vectors, in the order of what was sent."""

    vectors: list[list[float]] = Field(description="unit vectors of the index's encoder")
    encoder: str
    truncated: list[bool] = Field([], description="texts that are longer than the model reads")


class Api:
    """The routes; each asks the service, which blocks, in a thread."""

    def __init__(self, service: SearchService) -> None:
        self._service = service

    def add_to(self, app: FastAPI) -> None:
        """Register the routes."""
        add_get(app, "/api/v1/search", self.search, response_model=SearchAnswer)
        app.post(
            "/api/v1/search", response_model=SearchAnswer, openapi_extra=_body_of(SearchRequest)
        )(self.post_search)
        app.post("/api/v1/searches", response_model=BatchAnswer)(self.searches)
        add_get(app, "/api/v1/images/{image_id}", self.image)
        add_get(app, "/api/v1/images/{image_id}/similar", self.similar, response_model=SearchAnswer)
        add_get(app, "/api/v1/images/{image_id}/match", self.match, response_model=MatchAnswer)
        add_get(app, "/api/v1/facets", self.facets)
        add_get(app, "/api/v1/status", self.status)
        add_get(app, "/api/v1/failures", self.failures)
        add_get(app, "/api/v1/duplicates", self.duplicates)
        app.post("/api/v1/encode", response_model=Vectors, openapi_extra=_body_of(Texts))(
            self.encode
        )

    def search(self, request: Annotated[SearchRequest, Query()]) -> Any:
        """Search by words, stored pictures, or a picture that was sent before."""
        return self._service.search(request)

    async def post_search(self, request: Request) -> Any:
        """Search by a JSON object, or by a form with a picture in the part `image`.

        The names are those of the parameters.  The last 40 pictures are kept, for at most an hour,
        under the hash that the answer has as `image`.
        """
        asked, pictures = await read_body(request)
        if len(pictures) > 1:
            raise UsageError("Send one picture, in the part `image`.")
        search = await run_in_threadpool(parsed, SearchRequest, asked)
        return await run_in_threadpool(self._service.search, search, *pictures)

    def searches(self, asked: SearchBatch, request: Request) -> Any:
        """Search up to 100 times.

        Counted as that many requests.
        """
        charge(request.scope, len(asked.searches))
        return {"answers": self._service.search_many(asked.searches)}

    def image(self, image_id: ImageId) -> dict[str, Any]:
        """Return all stored fields of a picture but its vectors."""
        return self._service.picture(image_id)

    def similar(self, image_id: ImageId, k: Annotated[int, Query(ge=1, le=MOST_HITS)] = 60) -> Any:
        """Search by the stored vector of a picture."""
        return self._service.search(SearchRequest.model_validate({"like": [image_id], "k": k}))

    def match(self, image_id: ImageId, request: Annotated[SearchRequest, Query()]) -> Any:
        """Compare one picture with a search: its words, and its nearest part.

        Takes the parameters of a search; filters, dates and pages do not matter.  Without stored
        regions, 14 parts of the original are embedded.
        """
        return self._service.match(image_id, request)

    def facets(
        self,
        fields: Annotated[list[str], Query(min_length=1, max_length=20)],
        filter: Annotated[list[str] | None, Query(max_length=50)] = None,  # noqa: A002
        since: str | None = None,
        until: str | None = None,
        when: str | None = None,
    ) -> dict[str, dict[str, int]]:
        """Count the values of fields, or of `year`, by filters and dates."""
        asked = {"filter": filter or [], "since": since, "until": until, "when": when}
        return self._service.facets(fields, parsed(SearchRequest, asked))

    def status(self) -> dict[str, Any]:
        """Return what `status --json` prints."""
        return self._service.status()

    def failures(self) -> list[dict[str, Any]]:
        """Return what `failures --json` prints."""
        return self._service.failures()

    def duplicates(
        self, request: Annotated[DuplicateRequest, Query()], response: Response
    ) -> list[dict[str, Any]]:
        """Return what `duplicates --json` prints, from `offset` on at most `k` groups.

        The header X-Total-Count has the number of all groups.  Comparing may take longer than a
        request: ask again after the 503 until the answer is there.
        """
        groups = self._service.duplicates(request).groups
        response.headers["x-total-count"] = str(len(groups))
        page = groups[request.offset : request.offset + request.k]
        return [each.to_dict() for each in page]

    async def encode(self, request: Request) -> Any:
        """Compute unit vectors of texts, or of pictures in the parts `image` of a form.

        Counted as that many requests.
        """
        asked, pictures = await read_body(request)
        queries: Sequence[str | Upload] = pictures
        if not pictures:
            queries = (await run_in_threadpool(parsed, Texts, asked)).texts
        charge(request.scope, len(queries))
        return await run_in_threadpool(self._service.encode, queries)


def _body_of(model: type[BaseModel]) -> dict[str, Any]:
    """Describe a body that is JSON or a form with pictures, for OpenAPI."""
    picture = {"type": "string", "format": "binary", "description": "a picture file"}
    schema = model.model_json_schema(ref_template=REFERENCE)
    form = {"type": "object", "properties": {"image": picture}}
    if model is SearchRequest:
        form["properties"] = schema["properties"] | {"image": picture}
    contents = {
        "application/json": {"schema": schema},
        "multipart/form-data": {"schema": form},
    }
    return {"requestBody": {"required": True, "content": contents}}


async def read_body(request: Request) -> tuple[dict[str, Any], list[Upload]]:
    """Return the fields of a JSON object or a form, and the pictures of a form."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        body = await request.body()
        if len(body) > _MOST_JSON_BYTES:
            raise UsageError(f"The JSON is longer than {_MOST_JSON_BYTES // 1_000_000} MB.")
        try:
            # In a thread: other requests are not kept waiting.
            asked = await run_in_threadpool(json.loads, body)
        except ValueError as error:
            raise UsageError(f"The body is no JSON: {error}.") from None
        except RecursionError:
            raise UsageError("The body is nested too deeply: send a JSON object.") from None
        if not isinstance(asked, dict):
            raise UsageError("The body is not a JSON object.")
        return asked, []
    if kind in {"multipart/form-data", "application/x-www-form-urlencoded"}:
        async with request.form(max_files=16, max_fields=200) as form:
            return await _read_form(form)
    raise BodyUnsupported("Send application/json, or multipart/form-data with a picture.")


async def _read_form(form: FormData) -> tuple[dict[str, Any], list[Upload]]:
    asked: dict[str, Any] = {}
    pictures = []
    for name, value in form.multi_items():
        if not isinstance(value, str):
            if name != "image":
                raise UsageError(f"A picture goes into the part `image`, not {name!r}.")
            pictures.append(Upload(await value.read(), value.filename or ""))
        elif name in LISTS:
            asked.setdefault(name, []).append(value)
        else:
            asked[name] = value
    return asked, pictures


def parsed(model: type[_Model], asked: dict[str, Any]) -> _Model:
    """Check a body.  Raises UsageError, which names the field."""
    return validated(model, asked, "body")
