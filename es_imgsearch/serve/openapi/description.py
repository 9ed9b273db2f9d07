"""Complete what FastAPI says of the API: errors, kinds of pictures, examples.

`examples.json` has for each operation `parameters` or a `body`, and the begin of an `answer`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any, Final

from fastapi import FastAPI

from es_imgsearch.serve.problems import MEDIA_TYPE

_ALL: Final = {
    400: "Something that was sent cannot be used; `detail` says what to send instead.",
    401: "No known token was sent, where one is needed.",
    404: "No such picture, index or address.",
    413: "The body is too large.",
    421: "The Host is neither an address nor a name of this service.",
    422: "A value that was sent is none of those possible, or a file is no picture.",
    429: "Too many requests, or queries in one; Retry-After says when to ask again.",
    431: "The address or the headers are too large.",
    500: "The service failed; its log says why.",
    503: "Elasticsearch or the model does not answer yet, and Retry-After says when to ask again;"
    " or Elasticsearch refuses the key of this service, and `detail` names the privilege it lacks.",
}
_WITH_BODY: Final = {
    403: "The request was sent by a page of another site.",
    408: "The body did not come in time.",
    415: "The body is neither JSON nor a form, whichever is taken here.",
}
_RETRY: Final = {
    "Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "seconds"}
}
_PROBLEM: Final = {
    "title": "Problem",
    "description": "An error (RFC 9457); `detail` says what to do.",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}
_FILE: Final = {"schema": {"type": "string", "format": "binary"}}
_NOT_MODIFIED: Final = {"description": "The picture is the one whose ETag was sent."}
_ORIGINAL: Final = {"image/*": _FILE, "application/octet-stream": _FILE}
_PICTURES: Final = {
    "/thumbnails/{image_id}": {"image/jpeg": _FILE},
    "/previews/{image_id}": {"image/jpeg": _FILE},
    "/images/{image_id}": _ORIGINAL,
}
_PARTS: Final = {
    "206": {
        "description": "The part of the file that Range asks for.",
        "content": {**_ORIGINAL, "multipart/byteranges": _FILE},
    },
    "416": {"$ref": "#/components/responses/416"},
}
_OPEN: Final = frozenset({"/healthz", "/readyz"})


def describe(app: FastAPI, *, needs_token: bool) -> None:
    """Complete the description of the application when it is first asked for."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(plain(), needs_token=needs_token)
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]


def operations(described: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield method, path and description of each operation."""
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def _completed(described: dict[str, Any], *, needs_token: bool) -> dict[str, Any]:
    components = described.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    # What FastAPI answers to wrong values by itself.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = _PROBLEM
    words = _ALL | _WITH_BODY | {416: "The file ends before that part begins."}
    components["responses"] = {str(status): _response(status, words[status]) for status in words}
    if needs_token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        described["security"] = [{"token": []}]
    for _, path, operation in operations(described):
        statuses = [*_ALL, *(_WITH_BODY if "requestBody" in operation else ())]
        for status in statuses:
            operation["responses"][str(status)] = {"$ref": f"#/components/responses/{status}"}
        if needs_token and path in _OPEN:
            operation["security"] = []
        if path in _PICTURES:
            operation["responses"]["200"]["content"] = _PICTURES[path]
            operation["responses"]["304"] = _NOT_MODIFIED
        if path == "/images/{image_id}":
            operation["responses"] |= _PARTS
        if path == "/metrics":
            text = {"schema": {"type": "string"}}
            operation["responses"]["200"]["content"] = {"text/plain": text}
        _hoist(operation, schemas)
    _add_examples(described)
    return described


def _response(status: int, words: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    headers = {"headers": _RETRY} if status in {429, 503} else {}
    return {"description": words, "content": {MEDIA_TYPE: {"schema": schema}}, **headers}


def _hoist(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Move what the code describes itself to where `$ref` finds it."""
    for content in operation.get("requestBody", {}).get("content", {}).values():
        for name, part in content["schema"].pop("$defs", {}).items():
            schemas.setdefault(name, part)


def _add_examples(described: dict[str, Any]) -> None:
    for method, path, operation in operations(described):
        example = examples().get(f"{method} {path}", {})
        for each in operation.get("parameters", ()):
            if each["name"] in (values := example.get("parameters", {})):
                each["example"] = values[each["name"]]
        if "body" in example:
            operation["requestBody"]["content"]["application/json"]["example"] = example["body"]
        if "answer" in example:
            (content,) = operation["responses"]["200"]["content"].values()
            content["example"] = example["answer"]


@cache
def examples() -> dict[str, dict[str, Any]]:
    """Return the examples by method and path."""
    read = files(__package__).joinpath("examples.json").read_text("utf-8")
    found: dict[str, dict[str, Any]] = json.loads(read)
    return found
