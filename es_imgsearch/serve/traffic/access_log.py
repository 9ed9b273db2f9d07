"""One line a request (`--access-log`), without what was searched for unless asked."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Literal
from urllib.parse import parse_qsl, quote, urlencode

from es_imgsearch.serve.traffic.observe import Observed

Detail = Literal["plain", "full"]

# A token belongs into a header; whoever sent it in the address has it kept out of the log.
_SECRETS: Final = ("token", "key", "password", "secret", "auth")


class AccessLog:
    """Write `time client method path status ms bytes`, and with `full` the query."""

    def __init__(self, write: Callable[[str], None], detail: Detail = "plain") -> None:
        self._write = write
        self._detail = detail

    def observe(self, observed: Observed) -> None:
        """Write the line of a request."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        query = f"?{_shown_query(observed.query)}" if self._detail == "full" else ""
        self._write(
            f"{at} {_plain(observed.client)} {_plain(observed.method)}"
            f" {quote(observed.path[:500], safe='/')}{query.removesuffix('?')}"
            f" {observed.status} {1000 * observed.seconds:.1f} ms {observed.sent_bytes} bytes"
        )


def is_secret(name: str) -> bool:
    """Whether a parameter of this name may hold a token or a password."""
    return any(each in name.lower() for each in _SECRETS)


def _plain(text: str) -> str:
    """Text of a header as one word: a proxy may send anything as an address."""
    return quote(text[:100], safe=":[]._-") or "-"


def _shown_query(query: bytes) -> str:
    """Return the parameters, encoded as in an address; secrets as `...`."""
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, encoding="utf-8")
    return urlencode(
        [(name, "..." if is_secret(name) else value) for name, value in pairs],
        errors="replace",
    )
