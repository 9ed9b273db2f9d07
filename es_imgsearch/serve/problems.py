"""Errors as application/problem+json (RFC 9457), of routes, router and middleware."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from es_imgsearch.errors import (
    ImageMissing,
    ImgSearchError,
    IndexMissing,
    ModelUnavailable,
    QueryPictureInvalid,
    ReadError,
    StoreDenied,
    UsageError,
)

# Seconds after which a client may ask again, of an Elasticsearch that does not answer.
_RETRY_SECONDS: Final = 5
# Of what a request may be wrong in, this much is listed.
_MOST_FAULTS: Final = 5
_MOST_SHOWN: Final = 60


class ProblemAnswer(JSONResponse):
    """The answer of an error: `type`, `title`, `status` and `detail`."""

    media_type = "application/problem+json"

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        body = {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
        }
        super().__init__(
            body, status_code=status, headers={"cache-control": "no-store", **(headers or {})}
        )


def problem_of(error: ImgSearchError) -> ProblemAnswer:
    """Translate an error of the package."""
    status = _status(error)
    headers = (
        {"retry-after": str(_RETRY_SECONDS)} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    )
    return ProblemAnswer(status, str(error), headers)


def answer_with_problems(app: FastAPI) -> None:
    """Answer every error of the application as a problem."""

    @app.exception_handler(ImgSearchError)
    async def ours(_: Request, error: ImgSearchError) -> ProblemAnswer:
        return problem_of(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> ProblemAnswer:
        return ProblemAnswer(HTTPStatus.UNPROCESSABLE_ENTITY, faults_in_words(error.errors()))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> ProblemAnswer:
        status = error.status_code
        if status == HTTPStatus.NOT_FOUND:
            detail = f"There is no {request.url.path!r} here; /openapi.json lists what there is."
        elif status == HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = (error.headers or {}).get("allow", "another method")
            detail = f"{request.method} is not answered here; send {allowed}."
        else:
            detail = str(error.detail)
        return ProblemAnswer(status, detail, error.headers)


def faults_in_words(faults: Sequence[Mapping[str, Any]]) -> str:
    """Say which parameters are wrong and what to send, in plain sentences."""
    sentences = [_fault_in_words(each) for each in faults[:_MOST_FAULTS]]
    return " ".join(dict.fromkeys(sentences))


def _fault_in_words(fault: Mapping[str, Any]) -> str:
    # ("query", "k"), ("body", "filter", 0): where it stands, then its name.
    place = [str(part) for part in fault["loc"]]
    name = ".".join(place[1:]) or place[0]
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "missing":
        return f"{name} is missing."
    if kind == "extra_forbidden":
        return f"There is no parameter {name!r}."
    if kind in {"json_invalid", "model_attributes_type", "dict_type"}:
        return "The body is not a JSON object."
    wanted = _WANTED.get(kind, "has another form").format(**context)
    shown = repr(fault.get("input"))
    shown = shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]}…"
    return f"{name} {wanted}, not {shown}."


_WANTED: Final = {
    "int_parsing": "is a whole number",
    "int_type": "is a whole number",
    "int_from_float": "is a whole number",
    "float_parsing": "is a number",
    "float_type": "is a number",
    "finite_number": "is a finite number",
    "bool_parsing": "is true or false",
    "bool_type": "is true or false",
    "string_type": "is text",
    "list_type": "is a list",
    "tuple_type": "is a list",
    "too_long": "has at most {max_length} items",
    "too_short": "has at least {min_length} items",
    "string_too_long": "has at most {max_length} letters",
    "string_too_short": "has at least {min_length} letters",
    "string_pattern_mismatch": "matches {pattern}",
    "literal_error": "is one of {expected}",
    "greater_than": "is above {gt}",
    "greater_than_equal": "is at least {ge}",
    "less_than": "is below {lt}",
    "less_than_equal": "is at most {le}",
}


def _status(error: ImgSearchError) -> HTTPStatus:
    if isinstance(error, ImageMissing):
        return HTTPStatus.NOT_FOUND
    if isinstance(error, IndexMissing | ModelUnavailable | StoreDenied) or error.transient:
        # Not the caller's to mend.
        return HTTPStatus.SERVICE_UNAVAILABLE
    if isinstance(error, QueryPictureInvalid | ReadError):
        # There is a file, but it is no picture that can be shown or searched with.
        return HTTPStatus.UNPROCESSABLE_ENTITY
    if isinstance(error, UsageError):
        return HTTPStatus.BAD_REQUEST
    return HTTPStatus.INTERNAL_SERVER_ERROR
