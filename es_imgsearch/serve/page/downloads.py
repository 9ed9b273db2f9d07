"""Results as files that a browser saves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import Final

from fastapi import Request, Response

from es_imgsearch.errors import ImgSearchError
from es_imgsearch.serve.page.address import Address
from es_imgsearch.serve.page.rendering import address_of, failed

_TYPES: Final = {
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
    ".ndjson": "application/x-ndjson",
    # A script is shown as text and run by nobody who has not read it.
    ".sh": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}


def download(request: Request, name: str, build: Callable[[Address], bytes]) -> Response:
    """Return what is built for the state in the address, to be saved under a name."""
    address = address_of(request)
    try:
        content = build(address)
    except ImgSearchError as error:
        return failed(request, error, address)
    return Response(
        content,
        headers={
            "content-type": _TYPES[PurePath(name).suffix],
            "content-disposition": f'attachment; filename="{name}"',
            "cache-control": "private, no-cache",
        },
    )
