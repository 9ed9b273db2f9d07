"""Connection to a running `serve`: keep-alive requests, errors as ours.

Only the host of the given address is asked: redirects are not followed, proxies of the environment
are not used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import urllib3

from es_imgsearch import errors
from es_imgsearch.errors import (
    ImageMissing,
    ImgSearchError,
    ReadError,
    ServiceUnreachable,
    ServiceUnsuitable,
    SettingsError,
    UsageError,
    shown_value,
)

# Answers have the class of an error there; RFC 9457 has no member for it.
ERROR_HEADER: Final = "es-imgsearch-error"

_PROBLEM: Final = "application/problem+json"
# A host that drops packets is known so; a busy one accepts a connection at once.
_CONNECT_SECONDS: Final = 5.0
_REFUSED: Final = frozenset({401, 403, 421})
_ABSENT: Final = frozenset({429, 502, 503, 504})

Part = tuple[str, bytes | str] | tuple[str, tuple[str, bytes, str]]


class ServiceConnection:
    """Connections to one service, which stay open.  Thread-safe.

    `url` is its address, perhaps with a path below which it is.  `token` is sent as
    `Authorization: Bearer` and never shown.  Raises SettingsError for another kind of address.
    """

    def __init__(
        self, url: str, token: str | None = None, *, timeout_seconds: float = 30.0
    ) -> None:
        self.url = checked_address(url)
        path = urlsplit(self.url).path
        self._prefix = path.rstrip("/")
        self._headers = {"accept": "application/json"}
        if token is not None:
            self._headers["authorization"] = f"Bearer {checked_token(token)}"
        self._pool = urllib3.connection_from_url(
            self.url,
            timeout=urllib3.Timeout(
                connect=min(_CONNECT_SECONDS, timeout_seconds), read=timeout_seconds
            ),
            maxsize=8,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def get(self, path: str) -> Any:
        """Return the JSON of an answer to GET.  Raises as `post`."""
        return self._ask("GET", path)

    def post(self, path: str, body: Any, pictures: Sequence[bytes] = ()) -> Any:
        """Return the JSON of an answer to POST.

        `body` is sent as JSON; with `pictures` as the field `asked` of a form, and they are its
        parts `image`, as PNG.  Raises the error that the service reports; ServiceUnreachable if
        it does not answer, ServiceUnsuitable if it is no service of ours or refuses.
        """
        # Of ASCII: also lone surrogates arrive.
        content = json.dumps(body).encode()
        if not pictures:
            return self._ask("POST", path, content, "application/json")
        parts: list[Any] = [("asked", content.decode())] if body else []
        parts += [("image", ("query.png", each, "image/png")) for each in pictures]
        form, kind = urllib3.encode_multipart_formdata(parts)
        return self._ask("POST", path, form, kind)

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def _ask(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> Any:
        headers = {**self._headers, **({"content-type": kind} if kind else {})}
        answer = self._send(method, f"{self._prefix}{path}", body, headers)
        found = _json(answer)
        if answer.status == 200 and isinstance(found, dict):
            return found
        raise self._error(answer, found, path)

    def _send(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str]
    ) -> urllib3.BaseHTTPResponse:
        for is_last in (False, True):
            try:
                return self._pool.urlopen(
                    method, target, body, headers, retries=False, redirect=False
                )
            except urllib3.exceptions.ProtocolError as error:
                # The service closed an idle connection at this moment; nothing asked changes
                # anything there, so it can be asked again.
                if is_last:
                    raise self._absent(error) from error
            except urllib3.exceptions.HTTPError as error:
                raise self._absent(error) from error
        raise AssertionError

    def _absent(self, error: Exception) -> ServiceUnreachable:
        return ServiceUnreachable(
            f"No service answers at {self.url} ({_reason(error)}): start it there with"
            " `es-imgsearch serve`, or give the address at which it runs."
        )

    def _error(self, answer: urllib3.BaseHTTPResponse, found: Any, path: str) -> ImgSearchError:
        """Build the error of an answer, by its header, or else by its status."""
        is_problem = answer.headers.get("content-type", "").startswith(_PROBLEM)
        detail = found.get("detail") if isinstance(found, dict) and is_problem else None
        if not isinstance(detail, str):
            if answer.status in _ABSENT:
                return ServiceUnreachable(
                    f"{self.url} answers {answer.status}: what stands before the service does not"
                    " reach it; ask again once it does."
                )
            return ServiceUnsuitable(
                f"What answers at {self.url} is no `es-imgsearch serve`"
                f" ({answer.status} at {path}): give the address of one."
            )
        kind = _error_class(answer.headers.get(ERROR_HEADER))
        # The base says nothing, but that the error is none of `errors`.
        if kind is not None and kind is not ImgSearchError:
            return kind(detail)
        if answer.status == 401:
            return ServiceUnsuitable(
                f"The service at {self.url} refuses the token, or needs one: make one there with"
                " `es-imgsearch serve --new-token --token-file FILE`, and give it as token= or"
                " --service-token-file."
            )
        if answer.status in _REFUSED:
            return ServiceUnsuitable(detail)
        if answer.status in _ABSENT:
            return ServiceUnreachable(detail)
        if answer.status in {404, 405} and not path.startswith("/api/v1/images/"):
            return ServiceUnsuitable(
                f"The service at {self.url} has no {path}: it is of another version, or serves"
                " pictures only; install the same version here and there, and start it with a"
                " --token-file."
            )
        if answer.status == 404:
            return ImageMissing(detail)
        return UsageError(detail) if answer.status < 500 else ImgSearchError(detail)


def checked_address(url: str) -> str:
    """Return an address of a service.

    Raises SettingsError.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
        is_known = parts.scheme in {"http", "https"} and parts.hostname and port != 0
        (parts.hostname or "").encode("idna")
    except (ValueError, TypeError, AttributeError):
        is_known = False
    if not is_known:
        # Not repeated if it may hold a password.
        shown = "" if "@" in str(url) else f", not {shown_value(url)}"
        raise SettingsError(f"The address of a service is written http://HOST:PORT{shown}.")
    if "@" in parts.netloc:
        raise SettingsError(
            "The address of a service has no user or password: give it a token instead."
        )
    return url.partition("?")[0].partition("#")[0].rstrip("/")


def checked_token(token: str) -> str:
    """Return a token without spaces around it.

    Raises SettingsError, which has no part of it.
    """
    stripped = token.strip() if isinstance(token, str) else ""
    if not stripped or not all("!" <= letter <= "~" for letter in stripped):
        raise SettingsError("A token is of printable ASCII characters, without spaces.")
    return stripped


def _json(answer: urllib3.BaseHTTPResponse) -> Any:
    try:
        return json.loads(answer.data)
    except (ValueError, RecursionError):
        return None


def _error_class(name: str | None) -> type[ImgSearchError] | None:
    """Return the class that a service named; None for one that has other arguments."""
    found = getattr(errors, name or "", None)
    if not isinstance(found, type) or not issubclass(found, ImgSearchError):
        return None
    return None if issubclass(found, ReadError) else found


def _reason(error: Exception) -> str:
    """Return why there is no answer, without addresses of objects in memory."""
    if isinstance(error, urllib3.exceptions.NameResolutionError):
        return "no such host"
    is_new = isinstance(error, urllib3.exceptions.NewConnectionError)
    if isinstance(error, urllib3.exceptions.TimeoutError) and not is_new:
        return "it takes too long"
    words = str(error).rpartition(": ")[2].rpartition("] ")[2]
    return words.strip(".()'\"") or type(error).__name__
