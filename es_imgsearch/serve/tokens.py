"""Tokens of those who may ask: hashed in a file, sent in a header or a cookie."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Collection
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from es_imgsearch.errors import FileInvalid
from es_imgsearch.serve.problems import problem
from es_imgsearch.serve.routes import url
from es_imgsearch.serve.traffic.access_log import is_secret
from es_imgsearch.serve.traffic.root_path import route_path

_HASH: Final = re.compile(r"sha256:[0-9a-f]{64}")
COOKIE: Final = "es_imgsearch_token"
LOGIN_PATH: Final = "/login"
_OPEN_PATHS: Final = frozenset({"/healthz", "/readyz", LOGIN_PATH})
# Files of this program, the same for all.
_OPEN_BELOW: Final = "/static/"


def new_token(file: Path) -> str:
    """Return a new token of 256 bits; add its hash to the file.

    Raises FileInvalid.
    """
    token = secrets.token_urlsafe(32)
    try:
        with open(os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "ab+") as stream:
            before = b"" if stream.tell() == 0 else os.pread(stream.fileno(), 1, stream.tell() - 1)
            # An editor may have left the last line without an end.
            line = f"{_hash(token)}\n".encode()
            stream.write(line if before in {b"", b"\n"} else b"\n" + line)
    except OSError as error:
        raise FileInvalid(f"{str(file)!r} cannot be written: {error.strerror}.") from error
    return token


def read_hashes(file: Path) -> frozenset[str]:
    """Read the hashes of a file, one a line; empty lines and # comments are skipped.

    Raises FileInvalid for a file without any, or with another line: a token itself belongs to who
    asks, not into the file.
    """
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise FileInvalid(f"The tokens in {str(file)!r} cannot be read: {why}.") from error
    hashes = set()
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if text and not _HASH.fullmatch(text):
            raise FileInvalid(
                f"{str(file)!r}, line {number}: this is no hash of a token; make one with"
                f" `es-imgsearch serve --new-token --token-file {file}`."
            )
        hashes |= {text} if text else set()
    if not hashes:
        raise FileInvalid(
            f"{str(file)!r} has no token: make one with"
            f" `es-imgsearch serve --new-token --token-file {file}`."
        )
    return frozenset(hashes)


def _hash(token: str) -> str:
    # A token has 256 random bits: a slow hash, as for passwords, would protect nothing more.
    return f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"


def without_secrets(query: str) -> str:
    """Leave out parameters that are named as secrets, which belong into a header."""
    pairs = query.split("&") if query else []
    return "&".join(each for each in pairs if not is_secret(each.partition("=")[0]))


class KnownTokens:
    """The hashes of the tokens that are let in."""

    def __init__(self, hashes: Collection[str]) -> None:
        self._hashes = tuple(hashes)

    def find(self, token: str) -> str | None:
        """Return the hash of a token that is known; each is compared in constant time."""
        sent = _hash(token.strip())
        found = [hmac.compare_digest(sent, each) for each in self._hashes]
        return sent if any(found) else None

    def has(self, token: str) -> bool:
        """Whether a token is known."""
        return self.find(token) is not None


class TokenGuard:
    """Answer only who sends a token; health and signing in are open.

    A browser sends it in a cookie, and is sent on to the page to sign in at without one.
    """

    def __init__(self, app: ASGIApp, *, tokens: KnownTokens) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_let_in(scope):
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        refusal: Response = problem(
            HTTPStatus.UNAUTHORIZED,
            "Send a token of this service: `Authorization: Bearer TOKEN`.",
            {"www-authenticate": "Bearer"},
        )
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            query = without_secrets(request.url.query)
            path = route_path(scope) + (f"?{query}" if query else "")
            where = f"{LOGIN_PATH}?{urlencode({'next': path})}"
            refusal = RedirectResponse(url(request, where), HTTPStatus.SEE_OTHER)
        await refusal(scope, receive, send)

    def _is_let_in(self, scope: Scope) -> bool:
        path = route_path(scope)
        if path in _OPEN_PATHS or path.startswith(_OPEN_BELOW):
            return True
        request = Request(scope)
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            token = request.cookies.get(COOKIE, "")
        # Requests are counted by it.
        scope["token"] = self._tokens.find(token)
        return scope["token"] is not None
