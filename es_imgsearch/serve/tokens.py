"""Tokens of those who may ask: hashed in a file, sent in a header or a cookie."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Collection
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from es_imgsearch.errors import FileInvalid
from es_imgsearch.serve.problems import problem, problem_of_error
from es_imgsearch.serve.routes import url
from es_imgsearch.serve.traffic.access_log import is_secret
from es_imgsearch.serve.traffic.rate_limit import RefusedTokens
from es_imgsearch.serve.traffic.root_path import route_path

_HASH: Final = re.compile(r"sha256:[0-9a-f]{64}")
# The cookie's name begins so; see `cookie_name`.
COOKIE: Final = "es_imgsearch_token"
LOGIN_PATH: Final = "/login"
_OPEN_PATHS: Final = frozenset({"/healthz", "/readyz", LOGIN_PATH})
# Files of this program, the same for all.
_OPEN_BELOW: Final = "/static/"
_LOOKED_AT_SECONDS: Final = 1.0

logger = logging.getLogger(__name__)


class TokensMissing(FileInvalid):
    """The file can be read, and has no token."""


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
        raise TokensMissing(
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


def cookie_name(connection: HTTPConnection) -> str:
    """Return the name of this service's cookie in a browser.

    A browser sends the cookies of a host to all its ports (RFC 6265, 8.5), so the name has the port
    that the browser asks, and the root path: services on one host do not sign each other out.
    """
    port = connection.headers.get("host", "").rpartition(":")[2]
    given = f"_{port}" if port.isascii() and port.isdecimal() else ""
    return f"{COOKIE}{given}{url(connection, '').replace('/', '!')}"


def cookie_tokens(connection: HTTPConnection) -> list[str]:
    """Return the tokens in cookies: under the name, and under that of former versions."""
    names = (cookie_name(connection), COOKIE)
    return [connection.cookies[each] for each in names if each in connection.cookies]


class KnownTokens:
    """The hashes of the tokens that are let in; those of a file as it is now.

    For one thread.
    """

    def __init__(
        self,
        hashes: Collection[str] = (),
        file: Path | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Let in these hashes, or those of a `file`.  Raises FileInvalid."""
        self._file = file
        self._clock = clock
        self._state = None if file is None else _state_of(file)
        self._hashes = tuple(hashes if file is None else read_hashes(file))
        self._looked_at = clock()
        self._last_fault = ""

    def __bool__(self) -> bool:
        """Whether tokens are asked for."""
        return bool(self._hashes) or self._file is not None

    def find(self, *tokens: str) -> str | None:
        """Return the hash of the first token that is known; compared in constant time."""
        self._look()
        for sent in map(_hash, map(str.strip, tokens)):
            found = [hmac.compare_digest(sent, each) for each in self._hashes]
            if any(found):
                return sent
        return None

    def has(self, token: str) -> bool:
        """Whether a token is known."""
        return self.find(token) is not None

    def _look(self) -> None:
        """Read the file again if it has changed; at most once a second.

        A file that cannot be used, perhaps since it is being written, changes nothing.
        """
        if self._file is None or self._clock() - self._looked_at < _LOOKED_AT_SECONDS:
            return
        self._looked_at = self._clock()
        state = _state_of(self._file)
        if state is not None and state == self._state:
            return
        self._state = state
        try:
            self._hashes = tuple(read_hashes(self._file))
            fault = ""
        except TokensMissing as error:
            # The last one was taken out: it must not go on working.
            self._hashes = ()
            fault = f"Nobody is let in: {error}"
        except FileInvalid as error:
            fault = f"The tokens of before stay in use: {error}"
        if fault and fault != self._last_fault:
            logger.warning("%s", fault)
        self._last_fault = fault


def _state_of(file: Path) -> tuple[int, ...] | None:
    """Return what changes with a file's content; None for one that is not there."""
    try:
        state = file.stat()
    except OSError:
        return None
    # The ctime shows also what a copy with its old mtime replaced.
    return state.st_mtime_ns, state.st_ctime_ns, state.st_size, state.st_ino


class TokenGuard:
    """Answer only who sends a token; health and signing in are open.

    A browser sends it in a cookie, and is sent on to the page to sign in at without one.
    """

    def __init__(self, app: ASGIApp, *, tokens: KnownTokens, refused: RefusedTokens) -> None:
        """`refused` bounds how often one address may send what is none."""
        self._app = app
        self._tokens = tokens
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_let_in(scope):
            await self._app(scope, receive, send)
            return
        await self._refusal(Request(scope))(scope, receive, send)

    def _refusal(self, request: Request) -> Response:
        is_page = request.method == "GET" and "text/html" in request.headers.get("accept", "")
        # Who only comes to sign in has tried nothing.
        if not (is_page and not _sent(request)) and (wait := self._refused.count(request.scope)):
            return problem_of_error(wait)
        if is_page:
            query = without_secrets(request.url.query)
            path = route_path(request.scope) + (f"?{query}" if query else "")
            where = f"{LOGIN_PATH}?{urlencode({'next': path})}"
            return RedirectResponse(url(request, where), HTTPStatus.SEE_OTHER)
        return problem(
            HTTPStatus.UNAUTHORIZED,
            "Send a token of this service: `Authorization: Bearer TOKEN`.",
            {"www-authenticate": "Bearer"},
        )

    def _is_let_in(self, scope: Scope) -> bool:
        path = route_path(scope)
        if path in _OPEN_PATHS or path.startswith(_OPEN_BELOW):
            return True
        # Requests are counted by it.
        scope["token"] = self._tokens.find(*_sent(Request(scope)))
        return scope["token"] is not None


def _sent(request: Request) -> list[str]:
    """Return the tokens of a request: that of the header, or else those of cookies."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return [token] if kind.lower() == "bearer" else cookie_tokens(request)
