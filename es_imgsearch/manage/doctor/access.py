"""Checks of keys: how long they last, and what the one in use may do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from es_imgsearch.manage.doctor.setup import Finding, SetUp
from es_imgsearch.manage.production.keys import list_keys
from es_imgsearch.watch.commands import command_line

_SOON: Final = timedelta(days=14)


def expiry(setup: SetUp) -> Iterator[Finding]:
    """Yield the keys of this index that expire within two weeks."""
    if setup.roles is None:
        return
    now = datetime.now(UTC)
    for key in list_keys(setup.store.connection):
        if key.state != "active" or key.expires_at is None:
            continue
        if not now < datetime.fromisoformat(key.expires_at) < now + _SOON:
            continue
        revoke = command_line(["keys", "revoke"], [key.name], ["--index", setup.index])
        yield Finding(
            "keys",
            f"The API key {key.name!r} of role {key.role} expires at {key.expires_at}. Make"
            f" another one, use it in its place, and revoke this with `{revoke}`:",
            command_line(
                ["keys", "create"],
                [],
                ["--role", key.role, "--expires", "90d", "--index", setup.index],
            ),
        )


def rights(setup: SetUp) -> Iterator[Finding]:
    """Yield a finding if the key in use has the rights of no role."""
    if setup.roles != []:
        return
    yield Finding(
        "rights",
        "This key or user lacks rights of every role, so that commands fail in places. A key that"
        " searches, as somebody with the role admin makes it:",
        command_line(
            ["keys", "create"], [], ["--role", "read", "--expires", "90d", "--index", setup.index]
        ),
    )
