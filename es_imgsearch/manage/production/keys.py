"""API keys of this service: make one with the rights of a role, list, revoke.

A key is recognised by its metadata: `application` es-imgsearch, `index`, `role`.  Only `create_key`
ever has its secret, which Elasticsearch tells once.
"""

from __future__ import annotations

import re
import secrets
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from es_imgsearch import __version__
from es_imgsearch.elastic.client import Connection
from es_imgsearch.errors import StoreDenied, UsageError, counted, did_you_mean, escaped, shown_value
from es_imgsearch.manage.production.roles import ROLES, role_descriptor

APPLICATION: Final = "es-imgsearch"
_MOST_KEYS: Final = 10_000
_UNITS: Final = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
# Elasticsearch keeps times as milliseconds in 64 bits; nobody needs a key for longer than this.
_LONGEST_SECONDS: Final = 100 * _UNITS["y"]
_NAME: Final = re.compile(r"[^\s_](.{0,254}\S)?")


@dataclass(frozen=True)
class KeyInfo:
    """What is known of a key; never its secret.  Times are ISO 8601 in UTC."""

    name: str
    role: str
    key_id: str
    state: str
    made_at: str
    expires_at: str | None


@dataclass(frozen=True)
class NewKey:
    """A key just made; `encoded` is its secret, shown once."""

    info: KeyInfo
    encoded: str

    def __repr__(self) -> str:
        return f"NewKey({self.info})"


def parse_lifetime(text: str, now: datetime) -> int | None:
    """Parse how long a key lives, in seconds: 90d, 12h, a date; None for `never`.

    A date counts whole, in UTC.  Raises UsageError.
    """
    word = text.strip().lower()
    if word == "never":
        return None
    if found := re.fullmatch(r"([0-9]{1,9})([a-z])", word):
        seconds = int(found[1]) * _UNITS.get(found[2], 0)
    else:
        try:
            day = datetime.strptime(word, "%Y-%m-%d").replace(tzinfo=UTC)
            seconds = round((day + timedelta(days=1) - now).total_seconds())
        except (ValueError, OverflowError):
            seconds = 0
    if not 0 < seconds <= _LONGEST_SECONDS:
        raise UsageError(
            f"--expires {shown_value(text)} is no time to come within 100 years: give a number"
            " with m, h, d, w or y, such as 90d, the last day, such as 2027-12-31, or never."
        )
    return seconds


def create_key(
    connection: Connection, role: str, lifetime_seconds: int | None, name: str | None = None
) -> NewKey:
    """Make a key with exactly the rights of a role on the index of this connection.

    Raises UsageError for a role or name that cannot be, and StoreDenied where the client may make
    no keys, or may itself do less than the role: a key never may more than its owner.
    """
    if role not in ROLES:
        raise UsageError(
            f"There is no role {shown_value(role)}; there are {', '.join(ROLES)}."
            f"{did_you_mean(role, ROLES)}"
        )
    index = connection.index
    if name is not None:
        _check_name(connection, name)
    name = name or f"{index}-{role}-{secrets.token_hex(3)}"
    _check_owner(connection, role)
    body: dict[str, Any] = {
        "name": name,
        "role_descriptors": {f"{APPLICATION}-{role}": role_descriptor(role, index)},
        "metadata": {
            "application": APPLICATION,
            "index": index,
            "role": role,
            "made_by": __version__,
        },
    }
    if lifetime_seconds is not None:
        body["expiration"] = f"{lifetime_seconds}s"
    made = connection.request("POST", "/_security/api_key", body)
    expires = made.get("expiration")
    info = KeyInfo(
        name, role, made["id"], "active", _time(time.time() * 1000) or "", _time(expires)
    )
    return NewKey(info, made["encoded"])


def list_keys(connection: Connection, *, revoked: bool = False) -> list[KeyInfo]:
    """List the keys of the index, oldest first; with `revoked` revoked ones, too.

    A client that may manage only its own keys sees only those.
    """
    filters: list[dict[str, Any]] = [
        {"term": {"metadata.application": APPLICATION}},
        {"term": {"metadata.index": connection.index}},
    ]
    if not revoked:
        filters.append({"term": {"invalidated": False}})
    body = {
        "query": {"bool": {"filter": filters}},
        "size": _MOST_KEYS,
        "sort": [{"creation": {"order": "asc"}}],
    }
    found = connection.request("POST", "/_security/_query/api_key", body)["api_keys"]
    return [
        KeyInfo(
            each["name"],
            str(each["metadata"].get("role", "")),
            each["id"],
            _state(each),
            _time(each["creation"]) or "",
            _time(each.get("expiration")),
        )
        for each in found
    ]


def revoke_key(connection: Connection, name_or_id: str) -> KeyInfo:
    """Revoke a key of the index, by its name or id; it opens nothing from now on.

    Raises UsageError if none, or several of that name, are not revoked yet.
    """
    keys = list_keys(connection)
    wanted = [each for each in keys if each.key_id == name_or_id] or [
        each for each in keys if each.name == name_or_id
    ]
    if not wanted:
        near = did_you_mean(name_or_id, [each.name for each in keys])
        raise UsageError(
            f"No key of index {connection.index!r} that is not revoked has the name or id"
            f" {shown_value(name_or_id)}: see `es-imgsearch keys list --index"
            f" {connection.index}`.{near}"
        )
    if len(wanted) > 1:
        ids = ", ".join(each.key_id for each in wanted)
        raise UsageError(
            f"{counted(len(wanted), 'key')} have the name {shown_value(name_or_id)}: give the id of"
            f" one, of {ids}."
        )
    (key,) = wanted
    body: dict[str, Any] = {"ids": [key.key_id]}
    try:
        connection.request("DELETE", "/_security/api_key", body)
    except StoreDenied:
        # The privilege manage_own_api_key has to be used in these words.
        connection.request("DELETE", "/_security/api_key", {**body, "owner": True})
    return key


def key_document(key: KeyInfo) -> dict[str, Any]:
    """Return what `keys list --json` prints of a key."""
    return asdict(key)


def _check_name(connection: Connection, name: str) -> None:
    if not _NAME.fullmatch(name) or escaped(name) != name:
        raise UsageError(
            f"--name {shown_value(name)} cannot name a key: use 1 to 256 letters, neither beginning"
            " with '_' nor with a space at an end."
        )
    if any(each.name == name for each in list_keys(connection)):
        raise UsageError(
            f"A key of index {connection.index!r} has the name {shown_value(name)} already: use"
            f" another --name, or revoke it with `es-imgsearch keys revoke --index"
            f" {connection.index} {shlex.quote(name)}`."
        )


def _check_owner(connection: Connection, role: str) -> None:
    """Raise StoreDenied unless this client may give the rights of a role to a key."""
    me = connection.request("GET", "/_security/_authenticate")
    if me.get("authentication_type") == "api_key":
        raise StoreDenied(
            "An API key cannot make keys that may do anything: unset ES_API_KEY and give, as"
            " user:password@ in ES_URL, a user that has the privilege manage_api_key."
        )
    descriptor = role_descriptor(role, connection.index)
    asked = {
        "cluster": descriptor["cluster"],
        "index": descriptor["indices"],
        "application": descriptor.get("applications", []),
    }
    answer = connection.request("POST", "/_security/user/_has_privileges", asked)
    if missing := _missing(answer):
        raise StoreDenied(
            f"User {me['username']!r} lacks rights of role {role}, and no key may do more than its"
            f" owner: {'; '.join(missing)}. Use a user that has them, in ES_URL."
        )


def _missing(answer: dict[str, Any]) -> Sequence[str]:
    """List what an answer of `_has_privileges` denies."""
    lacks = [name for name, has in answer["cluster"].items() if not has]
    missing = [f"{', '.join(lacks)} on the cluster"] if lacks else []
    grants = dict(answer["index"])
    for resources in answer.get("application", {}).values():
        grants.update({f"Kibana ({each})": rights for each, rights in resources.items()})
    for name, rights in grants.items():
        lacks = [right for right, has in rights.items() if not has]
        missing += [f"{', '.join(lacks)} on {name}"] if lacks else []
    return missing


def _state(key: dict[str, Any]) -> str:
    if key.get("invalidated"):
        return "revoked"
    expires = key.get("expiration")
    return "expired" if expires is not None and expires <= time.time() * 1000 else "active"


def _time(milliseconds: float | None) -> str | None:
    if milliseconds is None:
        return None
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
