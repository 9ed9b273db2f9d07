"""`watch` and `serve` as processes on a secured server, with their role and with one right less.

A key's role is changed under them, as an administrator does in Kibana.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from es_imgsearch.manage.production.roles import role_descriptor
from tests.support.house import paint, until
from tests.support.installed_encoder import installed_encoder
from tests.support.rights import Office, Right, encoders_in_commands, rights_of, without
from tests.support.running import PATIENCE_SECONDS, Running, Workplace, address_of, status_of
from tests.support.secured import Secured

pytestmark = [pytest.mark.slow, pytest.mark.process]

GENERATIONS = "/I(-failures)?-[0-9]{6,}(-[0-9a-f]{8})?(-pinned)?/"
# Rights by the names of the index `I`; without one of these a daemon cannot start.
STARTS: set[Right] = {
    ("index", "I", "view_index_metadata"),
    ("index", GENERATIONS, "view_index_metadata"),
    ("index", GENERATIONS, "indices:admin/refresh"),
    ("index", GENERATIONS, "read"),
    ("index", "I-state", "read"),
    ("index", "I-state", "index"),
}
# Without one of these it cannot go on with a picture that came, went, or is broken.
GOES_ON: set[Right] = STARTS | {
    ("index", GENERATIONS, "index"),
    ("index", GENERATIONS, "delete"),
    # It looks now and then whether `reindex` has switched.
    ("index", "I-next", "view_index_metadata"),
    ("index", "I-before", "view_index_metadata"),
}


@pytest.fixture(scope="module")
def place(secured: Secured, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    folder = tmp_path_factory.mktemp("running")
    office = Office(secured, folder / "office")
    with encoders_in_commands():
        office.done("init", "--encoder", "fake")
        office.done("sync", f"photos={office.photos}")
        yield Workplace(office, installed_encoder(folder / "package"))


def named(office: Office, right: Right) -> Right:
    kind, name, privilege = right
    return kind, name.replace("I", office.index), privilege


def check_refusal(office: Office, process: Running, role: str, privilege: str) -> None:
    """It ended with a line that names the right, and what to do."""
    assert process.ended() == 2, process.said
    (line,) = [each for each in process.said.splitlines() if each.startswith("Error: ")]
    assert re.search(rf"needs the index privilege '({re.escape(privilege)}|\w+)'", line), line
    assert f"keys create --role {role} --expires 90d --index {office.index}` makes" in line
    assert "Traceback" not in process.said


class Changes:
    """A picture that comes, one that goes, and a broken one, each time."""

    def __init__(self, place: Workplace) -> None:
        self._place, self._photos = place, place.office.photos
        self._number = 0

    def make(self) -> None:
        self._number += 1
        # In this order: it is all seen when the last is.
        for path in self._photos.glob("leaving-*"):
            path.unlink()
        (self._photos / f"broken-{self._number}.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
        paint(self._photos / f"leaving-{self._number}.png", 500 + self._number)
        paint(self._photos / f"stays-{self._number}.png", 1000 + self._number)

    def are_seen(self) -> bool:
        wanted = {each.name for each in self._photos.glob("*.png") if "broken" not in each.name}
        return self._place.indexed() == wanted

    def until_seen(self, daemon: Running) -> None:
        until(lambda: self.are_seen() or daemon.has_ended, PATIENCE_SECONDS)
        assert not daemon.has_ended, daemon.said


def test_a_daemon_whose_right_is_taken_away_says_which_and_loses_nothing(place: Workplace):
    office = place.office
    full = role_descriptor("watch", office.index)
    key = office.server.api_key("watch", full)
    changes = Changes(place)
    changes.make()
    watch = ("watch", f"photos={office.photos}")
    polling = {"ES_IMGSEARCH_POLL_SECONDS": "1"}
    for right in sorted(GOES_ON):
        place.give_role(key, full)
        # What the daemon before could not do, this one does.
        with place.running(*watch, key=key, **polling) as daemon:
            daemon.until_said("Watching photos")
            changes.until_seen(daemon)
            place.give_role(key, without(full, named(office, right)))
            changes.make()
            until(lambda daemon=daemon: daemon.has_ended, PATIENCE_SECONDS)
            check_refusal(office, daemon, "watch", right[2])
    # Of what it needs now and then only, it lacks all at once.
    rest = {right for right in rights_of(full) if right not in {named(office, r) for r in GOES_ON}}
    place.give_role(key, full)
    with place.running(*watch, key=key, **polling) as daemon:
        daemon.until_said("Watching photos")
        place.give_role(key, without(full, *rest))
        changes.make()
        changes.until_seen(daemon)
        place.give_role(key, full)
        assert daemon.stop() == 0, daemon.said
    assert "No differences" in office.run("verify", f"photos={office.photos}").output


def test_a_daemon_that_lacks_a_right_does_not_start(place: Workplace):
    office = place.office
    full = role_descriptor("watch", office.index)
    watch = ("watch", f"photos={office.photos}")
    for right in sorted(STARTS):
        key = office.server.api_key("watch", without(full, named(office, right)))
        with place.running(*watch, key=key) as daemon:
            check_refusal(office, daemon, "watch", right[2])
    rest = {right for right in rights_of(full) if right not in {named(office, r) for r in STARTS}}
    key = office.server.api_key("watch", without(full, *rest))
    with place.running(*watch, key=key) as daemon:
        daemon.until_said("Watching photos")


def test_a_daemon_whose_key_is_revoked_ends_and_the_next_goes_on(place: Workplace):
    office = place.office
    changes = Changes(place)
    watch = ("watch", f"photos={office.photos}")
    key = office.key("watch")
    with place.running(*watch, key=key) as daemon:
        daemon.until_said("Watching photos")
        place.invalidate(key)
        changes.make()
        assert daemon.ended() == 2
        assert "The API key was revoked" in daemon.said
        assert (
            f"keys create --role watch --expires 90d --index {office.index}` makes" in daemon.said
        )
        assert "Traceback" not in daemon.said
        assert key not in daemon.said
    with place.running(*watch, key=office.key("watch")) as daemon:
        daemon.until_said("Watching photos")
        changes.until_seen(daemon)


# What `serve` answers with, and the rights that each needs.
ASKED: dict[str, set[Right]] = {
    "/api/v1/search?q=red": {("index", "I", "read")},
    "/thumbnails/{id}": {("index", "I", "read"), ("index", "I", "view_index_metadata")},
    "/?q=red": {("index", "I", "read")},
    "/api/v1/status": {
        ("cluster", "", "cluster:monitor/main"),
        ("index", "I", "read"),
        ("index", "I", "view_index_metadata"),
        ("index", "I", "indices:admin/refresh"),
        ("index", "/I(-failures)?-[0-9]{6,}(-[0-9a-f]{8})?-pinned/", "read"),
        ("index", "/I(-failures)?-[0-9]{6,}(-[0-9a-f]{8})?-pinned/", "view_index_metadata"),
        ("index", "I-failures", "read"),
        ("index", "I-failures", "indices:admin/refresh"),
        ("index", "I-next", "view_index_metadata"),
        ("index", "I-before", "view_index_metadata"),
        ("index", "I-state", "read"),
    },
    "/api/v1/failures": {
        ("index", "I", "view_index_metadata"),
        ("index", "I", "indices:admin/refresh"),
        ("index", "I-failures", "read"),
        ("index", "I-failures", "indices:admin/refresh"),
        ("index", "I-state", "read"),
    },
}


def test_a_service_whose_right_is_taken_away_says_which_until_it_has_it_again(place: Workplace):
    office = place.office
    full = role_descriptor("read", office.index)
    key = office.server.api_key("read", full)
    asked = {path.replace("{id}", office.picture()): rights for path, rights in ASKED.items()}
    with place.running("serve", "--port", "0", key=key) as served:
        address = address_of(served)
        until(lambda: status_of(address, "/readyz") == 200)
        assert {status_of(address, each) for each in asked} == {200}
        for right in rights_of(full):
            place.give_role(key, without(full, right))
            refused = {path: httpx.get(f"{address}{path}") for path in asked}
            wanted = {path for path in asked if right in {named(office, r) for r in asked[path]}}
            statuses = {path: each.status_code for path, each in refused.items()}
            assert statuses == {path: 503 if path in wanted else 200 for path in asked}, right
            for path in wanted:
                assert f"keys create --role read --expires 90d --index {office.index}" in (
                    refused[path].text
                )
            place.give_role(key, full)
            assert {status_of(address, each) for each in asked} == {200}
        # Who runs it is told, too, and not with each request.
        lines = [each for each in served.said.splitlines() if "takes a key of role read" in each]
        assert 5 < len(lines) <= len(set(lines))
        place.invalidate(key)
        revoked = httpx.get(f"{address}/api/v1/search?q=red")
        assert revoked.status_code == 503
        assert "The API key was revoked" in revoked.json()["detail"]
        assert "The API key was revoked" in served.said
        assert "Traceback" not in served.said
        assert key not in served.said
        assert served.stop() == 0
    with place.running("serve", "--port", "0", key=office.key("read")) as served:
        address = address_of(served)
        until(lambda: status_of(address, "/readyz") == 200)
        assert {status_of(address, each) for each in asked} == {200}


def test_a_service_that_lacks_a_right_at_its_start_says_which(place: Workplace):
    office = place.office
    full = role_descriptor("read", office.index)
    for right in (("index", "I", "view_index_metadata"), ("index", "I-state", "read")):
        key = office.server.api_key("read", without(full, named(office, right)))
        with place.running("serve", "--port", "0", key=key) as served:
            check_refusal(office, served, "read", right[2])
