"""`doctor` on a secured server: what keys may do, and when they end."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

import pytest

from tests.support.rights import Office, encoders_in_commands
from tests.support.secured import Secured

pytestmark = [pytest.mark.slow, pytest.mark.process]


@pytest.fixture(scope="module")
def office(secured: Secured, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    made = Office(secured, tmp_path_factory.mktemp("office"))
    with encoders_in_commands():
        made.done("init", "--encoder", "fake")
        made.done("sync", f"photos={made.photos}")
        yield made
        made.done("drop", "--yes")


def found(office: Office, check: str, key: str | None = None) -> list[dict[str, str]]:
    done = office.run("doctor", "--json", key=key)
    return [each for each in json.loads(done.stdout)["findings"] if each["check"] == check]


def test_a_key_that_expires_soon_is_replaced_as_it_says(office: Office):
    old = office.done("keys", "create", "--role", "watch", "--expires", "3d", "--name", "old one")
    office.done("keys", "create", "--role", "read", "--expires", "30d", "--name", "lasting")
    (finding,) = found(office, "keys")
    assert "'old one' of role watch expires at" in finding["text"]
    assert old.strip() not in json.dumps(finding)
    new = office.done(*shlex.split(finding["command"])[1:]).strip()
    revoking = finding["text"].split("`")[1]
    office.done(*shlex.split(revoking)[1:])
    assert not found(office, "keys")
    office.done("sync", f"photos={office.photos}", key=new)


@pytest.mark.parametrize("role", ["read", "watch", "admin"])
def test_a_key_of_a_role_is_told_so(office: Office, role: str):
    done = office.run("doctor", "--json", key=office.key(role))
    body = json.loads(done.stdout)
    assert role in body["roles"]
    assert not [each for each in body["findings"] if each["check"] == "rights"]
    # Of other keys it may not know.
    assert "keys" in body["unchecked"]


def test_a_key_of_no_role_is_replaced_as_it_says(office: Office):
    lacking = office.key_without("read", ("index", f"{office.index}-state", "read"))
    (finding,) = found(office, "rights", key=lacking)
    new = office.done(*shlex.split(finding["command"])[1:]).strip()
    assert not found(office, "rights", key=new)
    assert "read" in json.loads(office.run("doctor", "--json", key=new).stdout)["roles"]
