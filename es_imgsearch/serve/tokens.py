"""Tokens of those who may ask: hashed in a file, sent as `Authorization: Bearer`."""

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

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from es_imgsearch.errors import FileInvalid
from es_imgsearch.serve.problems import problem
from es_imgsearch.serve.traffic.root_path import route_path

_HASH: Final = re.compile(r"sha256:[0-9a-f]{64}")
_OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})


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


class TokenGuard:
    """Answer only who sends a token; the health is open."""

    def __init__(self, app: ASGIApp, *, hashes: Collection[str]) -> None:
        self._app = app
        self._hashes = tuple(hashes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or route_path(scope) in _OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        kind, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        # Every hash is compared, each in constant time.
        sent = _hash(token.strip())
        found = [hmac.compare_digest(sent, each) for each in self._hashes]
        if kind.lower() == "bearer" and any(found):
            # Requests are counted by it.
            scope["token"] = sent
            await self._app(scope, receive, send)
            return
        refusal = problem(
            HTTPStatus.UNAUTHORIZED,
            "Send a token of this service: `Authorization: Bearer TOKEN`.",
            {"www-authenticate": "Bearer"},
        )
        await refusal(scope, receive, send)
