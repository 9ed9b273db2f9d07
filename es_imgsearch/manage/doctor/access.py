"""Checks of the key by which this machine reaches Elasticsearch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from es_imgsearch.errors import StoreRejected
from es_imgsearch.manage.doctor.setup import Finding, SetUp

_SOON_SECONDS: Final = 14 * 86_400


def expiry(setup: SetUp) -> Iterator[Finding]:
    """Yield a finding if the API key expires within two weeks."""
    key = _own_key(setup)
    if key is None or key.get("expiration") is None:
        return
    left = key["expiration"] / 1000 - time.time()
    if left < _SOON_SECONDS:
        at = datetime.fromtimestamp(key["expiration"] / 1000, UTC)
        yield Finding(
            "key",
            f"The API key {key['name']!r} expires on {at:%Y-%m-%d at %H:%M} UTC; then nothing here"
            " reaches Elasticsearch. Make a new one, and set it as ES_API_KEY.",
        )


def _own_key(setup: SetUp) -> Mapping[str, Any] | None:
    """Return the API key in use; None for a user, and without security."""
    if setup.settings.es_api_key is None:
        return None
    try:
        who = setup.get("/_security/_authenticate")
    except StoreRejected:
        # Security is switched off: Elasticsearch does not know the path.
        return None
    key = who.get("api_key")
    if key is None:
        return None
    found: list[Mapping[str, Any]] = setup.get("/_security/api_key", id=key["id"], owner="true")[
        "api_keys"
    ]
    return found[0] if found else None
