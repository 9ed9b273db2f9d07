"""Every error of the HTTP API in one form, `application/problem+json` (RFC 9457).

People whose browser asks for a page are shown one, but for the API's own addresses.

    {"type": "about:blank", "title": "Not Found", "status": 404, "detail": "a sentence"}

`detail` says what was wrong and what to send.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from es_imgsearch import errors
from es_imgsearch.embed.runtime.service import ERROR_HEADER
from es_imgsearch.errors import (
    ImageMissing,
    ImgSearchError,
    IndexMissing,
    QueryPictureInvalid,
    ReadError,
    StoreDenied,
    UsageError,
    expected_value,
    shown_value,
)
from es_imgsearch.manage.production.roles import role_advice

logger = logging.getLogger(__name__)

# After which a client may ask again, while Elasticsearch does not answer.
RETRY_SECONDS = 5
_DENIED_SECONDS = 60.0

_MOST_LETTERS = 4000

_Model = TypeVar("_Model", bound=BaseModel)

MEDIA_TYPE = "application/problem+json"
# Where the description of the API has the parts of a body.
REFERENCE = "#/components/schemas/{model}"
_PLACES = {"path": "part", "query": "parameter", "header": "header", "cookie": "cookie"}


class BodyUnsupported(UsageError):
    """The body is of a kind that is not taken here."""


class TooManyRequests(ImgSearchError):
    """More was asked than one may; asked again after `seconds`, this works."""

    transient = True

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message)
        self.seconds = seconds


class _Denied:
    """Says which key to make; logs each refusal of Elasticsearch once a minute."""

    def __init__(self, index: str) -> None:
        self._advice = role_advice("serve", index)
        self._logged: dict[str, float] = {}

    def detail(self, error: StoreDenied) -> str:
        detail = f"{error} {self._advice}"
        # Who runs the service can end it, and is not the one who asks.
        self._log(detail)
        return detail

    def _log(self, detail: str) -> None:
        now = time.monotonic()
        self._logged = {each: at for each, at in self._logged.items() if now - at < _DENIED_SECONDS}
        if detail not in self._logged:
            self._logged[detail] = now
            logger.warning("%s", detail)


def add_problems(app: FastAPI, index: str = "images") -> None:
    """Answer every error of the application in the one form.

    `index` is the one whose key a refusal of Elasticsearch asks for.
    """
    app.state.denied = _Denied(index)

    @app.exception_handler(ImgSearchError)
    async def own(request: Request, error: ImgSearchError) -> Response:
        return _answer(request, status_of(error), detail_of(request, error), _headers_of(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if any(each["loc"] == ("body",) for each in error.errors()) and kind != "application/json":
            return problem(415, "Send a JSON object with content-type: application/json.")
        return _answer(request, 422, sentences(error.errors()))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        headers = {name.lower(): value for name, value in (error.headers or {}).items()}
        if error.status_code == 405:
            headers["allow"] = ", ".join(_methods(app, request))
        return _answer(request, error.status_code, _refusal(app, request, error), headers)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        logger.error("A request failed", exc_info=error)
        return _answer(request, 500, "The service failed at this request; its log says why.")


def detail_of(request: Request, error: ImgSearchError) -> str:
    """Return what an answer says of an error, and which key to make."""
    denied = getattr(request.app.state, "denied", None)
    return denied.detail(error) if denied and isinstance(error, StoreDenied) else str(error)


def _wants_page(request: Request) -> bool:
    is_api = request.url.path.removeprefix(request.scope.get("root_path", "")).startswith("/api/")
    return "text/html" in request.headers.get("accept", "") and not is_api


def _answer(
    request: Request, status: int, detail: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with a problem, or with the gallery's page about it."""
    page = getattr(request.app.state, "error_page", None)
    if page is None or not _wants_page(request):
        return problem(status, detail, headers)
    shown: Response = page(request, status, detail, {**(headers or {}), "vary": "accept"})
    return shown


def problem_of(status: int, detail: str) -> dict[str, Any]:
    """Build the body of an answer."""
    title = HTTPStatus(status).phrase
    # What was sent, as it is quoted there, may have 20 MB.
    shown = detail if len(detail) <= _MOST_LETTERS else f"{detail[:_MOST_LETTERS]}…"
    return {"type": "about:blank", "title": title, "status": int(status), "detail": shown}


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Build the answer."""
    # An unexpected error passes no middleware.
    given = {"x-content-type-options": "nosniff", **(headers or {})}
    return JSONResponse(problem_of(status, detail), status, given, MEDIA_TYPE)


def problem_of_error(error: ImgSearchError) -> JSONResponse:
    """Build the answer that is an error."""
    return problem(status_of(error), str(error), _headers_of(error))


def _headers_of(error: ImgSearchError) -> dict[str, str]:
    # By its class `ImageSearch(service=…)` raises the same error.
    name = next(each for each in type(error).__mro__ if each.__module__ == errors.__name__)
    return {**retry_header(error), ERROR_HEADER: name.__name__}


def retry_header(error: ImgSearchError) -> dict[str, str]:
    """Return the header Retry-After, if asking again may help."""
    if isinstance(error, TooManyRequests):
        return {"retry-after": str(error.seconds)}
    # Until somebody grants a privilege, it does not.
    return {"retry-after": str(RETRY_SECONDS)} if error.transient else {}


def validated(model: type[_Model], asked: Mapping[str, Any], place: str) -> _Model:
    """Check values from a place such as query or body.  Raises UsageError."""
    try:
        return model.model_validate(asked)
    except ValidationError as error:
        faults = [{**each, "loc": (place, *each["loc"])} for each in error.errors()]
        raise UsageError(sentences(faults)) from None


def sentences(errors: Sequence[Mapping[str, Any]]) -> str:
    """Say what is wrong with the values of a request, and what to send."""
    return " ".join(dict.fromkeys(map(_sentence, errors)))


def status_of(error: ImgSearchError) -> int:
    """Return the status of an answer that is this error."""
    if isinstance(error, ImageMissing | IndexMissing):
        return 404
    if isinstance(error, TooManyRequests):
        return 429
    if isinstance(error, BodyUnsupported):
        return 415
    if isinstance(error, ReadError | QueryPictureInvalid):
        # There is a file, but it is no picture that can be shown or searched with.
        return 422
    if isinstance(error, UsageError):
        return 400
    # A key that may not do what it is for is an outage for who asks.
    return 503 if error.transient or isinstance(error, StoreDenied) else 500


def _refusal(app: FastAPI, request: Request, error: HTTPException) -> str:
    path = request.url.path
    if error.status_code == 405:
        methods = " or ".join(_methods(app, request))
        return f"{shown_value(path)} does not take {request.method}: send {methods}."
    if error.status_code == 404:
        if _wants_page(request):
            return f"There is nothing at {shown_value(path)}."
        routes = ", ".join(dict.fromkeys(_routes(app)))
        return f"There is nothing at {shown_value(path)}; the addresses are {routes}."
    detail = str(error.detail)
    if error.status_code == 400 and "parsing the body" in detail:
        return "The body cannot be read: send JSON with content-type: application/json."
    return detail if detail.endswith(".") else f"{detail}."


def _routes(app: FastAPI) -> list[str]:
    return [
        str(getattr(route, "path", ""))
        for route in app.routes
        if getattr(route, "include_in_schema", False)
    ]


def _methods(app: FastAPI, request: Request) -> list[str]:
    found: set[str] = set()
    for route in app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= set(getattr(route, "methods", None) or ())
    return sorted(found)


def _sentence(error: Mapping[str, Any]) -> str:
    """Say what one value of the request should be."""
    place, *names = [str(each) for each in error["loc"]]
    kind, value, limits = str(error["type"]), error.get("input"), error.get("ctx", {})
    name = ".".join(names)
    if kind == "json_invalid":
        return f"The body is no JSON ({limits.get('error', 'malformed')}): send a JSON object."
    if name == "image_id":
        return (
            f"{shown_value(value)} is no image_id: send its 32 hexadecimal digits, as"
            " `es-imgsearch search WORDS --ids` prints them."
        )
    subject = f"The {_PLACES.get(place, 'field')} {name!r}" if name else "The body"
    if kind == "missing":
        return f"{subject} is missing: send it with the request."
    if kind == "extra_forbidden":
        return f"{subject} is not known: leave it out."
    if kind == "value_error":
        return f"{subject}: {limits['error']}."
    return f"{subject} is {expected_value(kind, limits)}, not {shown_value(value)}."
