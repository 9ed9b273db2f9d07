"""Register routes that answer GET, and HEAD with the same headers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI


def add_get(app: FastAPI, path: str, answer: Callable[..., Any], **options: Any) -> None:
    """Answer GET and HEAD; only GET is in the description of the API."""
    app.get(path, **options)(answer)
    app.head(path, **options | {"include_in_schema": False})(answer)
