"""What routes share: GET with HEAD, the id of a picture, addresses behind a proxy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI
from fastapi import Path as InPath
from starlette.requests import HTTPConnection

ImageId = Annotated[str, InPath(pattern=r"^[0-9a-f]{32}$")]


def add_get(app: FastAPI, path: str, answer: Callable[..., Any], **options: Any) -> None:
    """Answer GET and HEAD; only GET is in the description of the API."""
    app.get(path, **options)(answer)
    app.head(path, **options | {"include_in_schema": False})(answer)


def url(request: HTTPConnection, path: str) -> str:
    """Return the address of one of our paths behind `--root-path`."""
    return f"{request.scope.get('root_path', '')}{path}"
