"""Render templates, with the headers of a page; serve the files that pages load."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.staticfiles import StaticFiles

from es_imgsearch.errors import ImgSearchError
from es_imgsearch.serve.page.address import Address
from es_imgsearch.serve.problems import detail_of, retry_header, status_of
from es_imgsearch.serve.routes import url
from es_imgsearch.serve.tokens import cookie_tokens
from es_imgsearch.serve.traffic.access_log import is_secret
from es_imgsearch.serve.traffic.root_path import route_path

_STATIC: Final = Path(__file__).with_name("static")
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "img-src 'self' blob:",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Final = {
    "content-security-policy": _POLICY,
    "referrer-policy": "same-origin",
    "cache-control": "private, no-cache",
}
_FOREVER: Final = "public, max-age=31536000, immutable"


def _digest_of(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            digest.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:16]


# Its content never changes: another release has another digest.
STATIC_PATH: Final = f"/static/{_digest_of(_STATIC)}"


class _Files(StaticFiles):
    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = _FOREVER
        return response


def static_files() -> StaticFiles:
    """Return the application of the files under `STATIC_PATH`."""
    return _Files(directory=_STATIC)


def address_of(request: Request) -> Address:
    """Return the address that a request asks for, without what means nothing in it."""
    path = route_path(request.scope) or "/"
    return Address.parse(path, request.query_params.multi_items())


def page(
    request: Request, template: str, build: Callable[[Address], Mapping[str, Any]]
) -> Response:
    """Render a page; a form that sent empty fields is sent on to the short address."""
    address = address_of(request)
    if address.pairs != tuple(request.query_params.multi_items()):
        return redirected(request, address)
    try:
        shown = build(address)
    except ImgSearchError as error:
        return failed(request, error, address)
    status = shown.get("http_status", HTTPStatus.OK)
    return rendered(request, template, {"address": address, **shown}, status)


def rendered(
    request: Request, template: str, shown: Mapping[str, Any], status: int = HTTPStatus.OK
) -> Response:
    """Render a template with these values."""
    root = url(request, "")
    common = {
        "root": root,
        "static": f"{root}{STATIC_PATH}",
        "max_body_bytes": request.app.state.max_body_bytes,
        "is_signed_in": bool(cookie_tokens(request)),
    }
    text = _environment().get_template(template).render(common, **shown)
    return HTMLResponse(text, status, HEADERS)


def redirected(request: Request, address: Address) -> Response:
    """Send a browser on to another page by GET."""
    return RedirectResponse(url(request, str(address)), HTTPStatus.SEE_OTHER, HEADERS)


def failed(
    request: Request,
    error: ImgSearchError,
    address: Address | None = None,
    *,
    is_sent: bool = False,
) -> Response:
    """Render an error, with what to do.

    `is_sent` if the address is only that of the page from which a form was sent.
    """
    address = address or Address("/", ())
    headers = retry_header(error)
    return _refused(
        request, status_of(error), detail_of(request, error), address, headers, is_sent=is_sent
    )


def error_page(
    request: Request, status: int, detail: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Render the answer of `problems.problem` for people."""
    address = Address(route_path(request.scope), ())
    return _refused(request, status, detail, address, headers or {})


def _refused(
    request: Request,
    status: int,
    message: str,
    address: Address,
    headers: Mapping[str, str],
    *,
    is_sent: bool = False,
) -> Response:
    shown = {
        "address": address,
        "is_sent": is_sent,
        # Not a token that was sent in the address by mistake.
        "asked": [pair for pair in address.pairs if not is_secret(pair[0])],
        "message": message,
        "is_passing": "retry-after" in headers,
        "is_missing": status == HTTPStatus.NOT_FOUND,
    }
    response = rendered(request, "error.html", shown, status)
    response.headers.update(headers)
    return response


def load_templates() -> None:
    """Read all templates: another release may take the place of this one's files."""
    for name in _environment().list_templates():
        _environment().get_template(name)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("es_imgsearch.serve.page"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        # Else each page looks at the dates of its templates.
        auto_reload=False,
        cache_size=-1,
    )
