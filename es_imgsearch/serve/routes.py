"""Register routes that answer GET, and HEAD with the same headers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request


def add_get(app: FastAPI, path: str, answer: Callable[..., Any], **options: Any) -> None:
    """Answer GET and HEAD; only GET is in the description of the API."""
    app.get(path, **options)(answer)
    app.head(path, **options | {"include_in_schema": False})(answer)


def url(request: Request, path: str) -> str:
    """Return the address of one of our paths behind `--root-path`."""
    return f"{request.scope.get('root_path', '')}{path}"
