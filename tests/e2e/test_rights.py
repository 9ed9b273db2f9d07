"""Roles on a real secured server: each suffices for its commands, and with one right less fails.

Keys are made by `keys create`, as a person would; only a role that lacks a right is made by hand.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import subprocess
import sys
import traceback
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trustme

from es_imgsearch.elastic.client import Connection
from es_imgsearch.elastic.requests import NDJSON
from es_imgsearch.errors import ImgSearchError, StoreDenied
from es_imgsearch.manage.production.roles import LEAST_ROLE, ROLES, least_role, role_descriptor
from tests.support.fake_kibana import FakeKibana
from tests.support.house import paint, until
from tests.support.old_schemas import as_schema
from tests.support.rights import Office, Right, encoders_in_commands, rights_of
from tests.support.secured import PASSWORD, Secured

pytestmark = [pytest.mark.slow, pytest.mark.process]

LOG_SEARCHES = {"ES_IMGSEARCH_LOG_SEARCHES": "true"}


@pytest.fixture(scope="module")
def office(secured: Secured, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """40 pictures, with all that can be learned, a generation before, and a failure."""
    made = Office(secured, tmp_path_factory.mktemp("office"))
    with encoders_in_commands():
        for number in range(4, 40):
            paint(made.photos / f"{number}.png", number)
        (made.photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
        labels = [f"photos/{number}.png,{'ab'[number % 2]}" for number in range(40)]
        made.write("labels.csv", "path,label", *labels)
        made.write("queries.csv", "query,path", *(f"red,photos/{each}.png" for each in range(40)))
        made.done("init", "--encoder", "fake", **LOG_SEARCHES)
        # One picture is broken.
        assert made.run("sync", f"photos={made.photos}").exit_code == 1
        for arguments in (
            ["codes", "train"], ["tags", "train", made.file("labels.csv")], ["calibrate"],
            ["reindex", "--profile", "exact"], ["export", made.file("vectors.parquet")],
        ):  # fmt: skip
            made.done(*arguments)
        made.done("snapshot", "repository", "--location", f"{secured.folder}/snapshots/office")
        yield made


@pytest.fixture(scope="module")
def keys(office: Office) -> dict[str, str]:
    return {role: office.key(role) for role in ROLES}


# Rights by the names of the index `I`.
PINNED = "/I(-failures)?-[0-9]{6,}(-[0-9a-f]{8})?-pinned/"
BOTH = "/I(-failures)?-[0-9]{6,}(-[0-9a-f]{8})?(-pinned)?/"
ALL = (
    "/I(-(failures|state|background|codes|reduction|searches|tags))?"
    "(-[0-9]{6,}(-[0-9a-f]{8})?(-pinned)?)?/"
)
VERSION: Right = ("cluster", "", "cluster:monitor/main")
TEMPLATES: Right = ("cluster", "", "manage_index_templates")


def on(name: str, privilege: str) -> Right:
    return "index", name, privilege


# A command, and a right of its least role without which it fails.
LEAST: list[tuple[str, Right]] = [
    ("search red", on("I", "read")),
    ("search red --mode hybrid", on("I", "view_index_metadata")),
    ("similar {picture}", on("I", "read")),
    ("duplicates --level near", on("I-state", "read")),
    ("identify {photos}/1.png", on("I", "view_index_metadata")),
    ("status", VERSION),
    ("status", on("I-next", "view_index_metadata")),
    ("status", on("I-before", "view_index_metadata")),
    ("status", on(PINNED, "read")),
    ("verify photos={photos}", on("I-failures", "read")),
    ("verify photos={photos}", on("I", "indices:admin/refresh")),
    ("failures", on("I-failures", "indices:admin/refresh")),
    ("export {folder}/again.parquet", on(PINNED, "indices:admin/refresh")),
    ("export {folder}/again.parquet", on(PINNED, "view_index_metadata")),
    ("evaluate {folder}/queries.csv", on("I-state", "read")),
    ("tags list", on("I-state", "read")),
    ("tags evaluate {folder}/labels.csv", on("I", "indices:admin/refresh")),
    ("search red --codes exact", on("I-codes", "read")),
    ("kibana build --output {folder}/k.ndjson", on("I", "view_index_metadata")),
    ("encoder", on("I-state", "read")),
    # Something has changed before each of them, see `Office.change`.
    ("sync photos={photos}", on("I-state", "index")),
    ("sync photos={photos}", on("I-state", "read")),
    ("sync photos={photos}", on(BOTH, "index")),
    ("sync photos={photos}", on(BOTH, "delete")),
    ("sync photos={photos}", on(BOTH, "read")),
    ("sync photos={photos}", on(BOTH, "indices:admin/refresh")),
    ("sync photos={photos}", on(BOTH, "view_index_metadata")),
    ("find red {photos}", on("I-state", "read")),
    ("describe", on(BOTH, "index")),
    ("failures retry", on(BOTH, "indices:admin/refresh")),
    ("codes apply", on("I-codes", "read")),
    ("import {folder}/vectors.parquet", on(BOTH, "read")),
    ("tune --no-texts", on("I-state", "index")),
    ("tune --merge --no-texts", on(ALL, "manage")),
    ("init", TEMPLATES),
    ("init", on(ALL, "manage")),
    ("calibrate", on(ALL, "manage")),
    ("codes train", TEMPLATES),
    ("tags train {folder}/labels.csv", on(ALL, "write")),
    ("tags forget", on(ALL, "write")),
    ("reindex --back", on("/I-(next|before)/", "manage")),
    ("snapshot create", ("cluster", "", "create_snapshot")),
    ("snapshot create", on(ALL, "view_index_metadata")),
    ("snapshot create", on(ALL, "monitor")),
    ("snapshot list", ("cluster", "", "create_snapshot")),
]
# A larger role has rights of a smaller one, for commands of that.
LARGER: list[tuple[str, str, Right]] = [
    ("watch", "status", VERSION),
    ("watch", "status", on("I", "read")),
    ("watch", "sync photos={photos}", on("I", "view_index_metadata")),
    ("watch", "verify photos={photos}", on("I", "indices:admin/refresh")),
    ("watch", "failures", on("I-failures", "read")),
    ("watch", "failures", on("I-failures", "indices:admin/refresh")),
    ("watch", "status", on("I-next", "view_index_metadata")),
    ("watch", "status", on("I-before", "view_index_metadata")),
    ("admin", "init", ("cluster", "", "monitor")),
    ("admin", "calibrate", on(ALL, "read")),
    ("kibana-import", "kibana build --output {folder}/k.ndjson", on("I", "view_index_metadata")),
]
ROWS = [*((None, *row) for row in LEAST), *LARGER]
# Rights whose lack is no plain refusal, and the tests that show what it is.
OTHERWISE: dict[str, dict[Right, str]] = {
    "read": {
        on("I-background", "read"): "test_a_search_says_what_it_cannot_do",
        on("I-background", "view_index_metadata"): "test_a_search_says_what_it_cannot_do",
        on("I-searches", "indices:data/write/bulk"): "test_a_search_says_what_it_cannot_do",
        on("I-searches", "indices:data/write/index:op_type/create"): (
            "test_a_search_says_what_it_cannot_do"
        ),
        on("I-reduction", "read"): "test_a_reduced_index_needs_its_matrix",
        on("I-tags", "read"): "test_tags_that_cannot_be_read_are_said",
    },
    "watch": {
        on(BOTH, "indices:admin/mapping/put"): "test_a_field_that_is_missing_is_added",
        on("I-state", "delete"): "test_a_new_root_takes_the_place_of_an_old_state",
        on("I-reduction", "read"): "test_a_reduced_index_needs_its_matrix",
        on("I-tags", "read"): "test_tags_that_cannot_be_read_are_said",
    },
    "admin": {("kibana", "", "all"): "test_kibana_imports_with_the_key_of_imports"},
    "kibana-import": {
        on("I", "read"): "test_saved_objects_of_an_index_without_a_sample",
        on("I-background", "read"): "test_saved_objects_say_what_they_are_made_of",
        on("I-background", "view_index_metadata"): "test_saved_objects_say_what_they_are_made_of",
        on("I-state", "read"): "test_a_check_of_saved_objects_says_what_it_cannot_compare",
        on("I-reduction", "read"): "test_a_reduced_index_needs_its_matrix",
        # Kibana itself looks whether a key has the others.
        **{
            ("kibana", "", each): "test_kibana_imports_with_the_key_of_imports"
            for each in ROLES["kibana-import"].kibana
        },
    },
    "restore": dict.fromkeys(
        rights_of(role_descriptor("restore", "I")),
        "test_a_repository_is_made_and_restored_from_with_the_key_of_restores",
    ),
}


def test_each_right_of_each_role_is_needed_by_a_command():
    """A right that nothing needs is one too many."""
    for role in ROLES:
        shown = {right for of, command, right in ROWS if (of or least(command)) == role}
        rights = set(rights_of(role_descriptor(role, "I")))
        assert rights == shown | OTHERWISE.get(role, {}).keys(), role
    for tests in OTHERWISE.values():
        assert set(tests.values()) <= globals().keys()


def least(command: str) -> str:
    role = least_role(words_of(command))
    assert role is not None
    return role


# Ends with 1 since the failure is one still.
EXIT_CODES = {"failures retry": 1}


def words_of(command: str) -> str:
    words = [each for each in command.split()[:2] if each.isalpha() or each == "--merge"]
    return " ".join(words) if " ".join(words) in LEAST_ROLE else words[0]


@pytest.mark.parametrize("command", dict.fromkeys(command for command, _ in LEAST))
def test_the_least_role_of_a_command_suffices(office: Office, keys: dict[str, str], command: str):
    office.change(command)
    ran = office.run(*office.filled(command), key=keys[least(command)])
    assert ran.exit_code == EXIT_CODES.get(command, 0), ran.output
    assert "user needs the" not in ran.output


@pytest.mark.parametrize(("of", "command", "right"), ROWS)
def test_with_one_right_less_it_fails_and_says_which(
    office: Office, of: str | None, command: str, right: Right
):
    role = of or least(command)
    office.change(command)
    kind, name, privilege = right
    key = office.key_without(role, (kind, name.replace("I", office.index), privilege))
    ran = office.run(*office.filled(command), key=key)
    assert ran.exit_code == 2, ran.output
    (line,) = [each for each in ran.stderr.splitlines() if each.startswith("Error: ")]
    assert re.search(r"key or user needs the (index|cluster) privilege '", line)
    advised = least(command)
    assert f"keys create --role {advised} --expires 90d --index {office.index}` makes" in line
    assert "Traceback" not in ran.output


def test_segments_are_shown_to_keys_that_may_see_them(office: Office, keys: dict[str, str]):
    for role, is_shown in (("read", False), ("watch", False), ("admin", True)):
        shown = office.run("status", "--json", key=keys[role])
        assert shown.exit_code == 0, shown.output
        assert (json.loads(shown.stdout)["segments"] is not None) is is_shown


def test_what_a_refusal_advises_works(office: Office, keys: dict[str, str]):
    refused = office.run("failures", "retry", key=keys["read"])
    (advised,) = re.findall(r"`es-imgsearch (keys create [^`]*)` makes", refused.stderr)
    key = office.done(*shlex.split(advised)).strip()
    assert office.run("failures", "retry", key=key).exit_code == 1  # it is broken still


# Without these a search still succeeds, with less.
@pytest.mark.parametrize(
    ("name", "privilege", "said"),
    [
        ("I-searches", "indices:data/write/bulk", "Grant the privilege create_doc on it"),
        ("I-searches", "indices:data/write/index:op_type/create", "Grant the privilege create_doc"),
        ("I-state", "read", "give this key the right `read` on it"),
        ("I-background", "read", "relevance is that of other pictures"),
        ("I-background", "view_index_metadata", "relevance is that of other pictures"),
    ],
)
def test_a_search_says_what_it_cannot_do(
    office: Office, name: str, privilege: str, said: str, caplog: pytest.LogCaptureFixture
):
    right = on(name.replace("I", office.index), privilege)
    ran = office.run("search", "red", key=office.key_without("read", right), **LOG_SEARCHES)
    assert ran.exit_code == 0, ran.output
    assert said in caplog.text


def test_every_command_that_asks_elasticsearch_has_a_role(office: Office):
    from es_imgsearch.cli import main

    without = {"help", "completion", "keys"}
    known = {each.partition(" ")[0] for each in LEAST_ROLE}
    assert set(main.commands) - without <= known


def refused(office: Office, role: str, right: Right, *arguments: str) -> None:
    """Run a command with one right less: it ends with 2 and names the right."""
    kind, name, privilege = right
    less = office.key_without(role, (kind, name.replace("I", office.index), privilege))
    ran = office.run(*arguments, key=less)
    assert ran.exit_code == 2, ran.output
    # Of an action, Elasticsearch names the privilege that it is part of.
    assert re.search(rf"privilege '({re.escape(privilege)}|manage|monitor)'", ran.stderr), (
        ran.stderr
    )
    assert "Traceback" not in ran.output


def test_a_field_that_is_missing_is_added(office: Office, tmp_path: Path):
    """As after an upgrade."""
    older = Office(office.server, tmp_path / "older")
    older.done("init", "--encoder", "fake")
    as_schema(older.store(), 3)
    sync = ("sync", f"photos={older.photos}")
    less = older.key_without(
        "watch", on(BOTH.replace("I", older.index), "indices:admin/mapping/put")
    )
    ran = older.run(*sync, key=less)
    # Elasticsearch 8 lets `index` do, and warns that the next version does not.
    assert ran.exit_code != 0
    assert "update mapping action" in str(ran.exception) or "mapping/put" in ran.stderr
    older.done(*sync, key=older.key("watch"))


def test_a_new_root_takes_the_place_of_an_old_state(office: Office, tmp_path: Path):
    """What was stored of a root that had its name is removed."""
    (tmp_path / "new").mkdir()
    paint(tmp_path / "new" / "new.png", 900)
    sync = ("sync", f"new={tmp_path / 'new'}")
    refused(office, "watch", on("I-state", "delete"), *sync)
    office.done(*sync, key=office.key("watch"))


def test_a_reduced_index_needs_its_matrix(office: Office, tmp_path: Path):
    reduced = Office(office.server, tmp_path / "reduced")
    reduced.done("init", "--profile", "reduced", "--sample", office.index, "--dims-kept", "12")
    matrix = on("I-reduction", "read")
    sync = ("sync", f"photos={reduced.photos}")
    refused(reduced, "watch", matrix, *sync)
    reduced.done(*sync, key=reduced.key("watch"))
    refused(reduced, "read", matrix, "search", "red")
    reduced.done("search", "red", key=reduced.key("read"))
    kibana = FakeKibana()
    key, where = reduced.key("kibana-import"), ("--kibana-url", kibana.url)
    try:
        reduced.done("kibana", "import", *where, key=key)
        refused(reduced, "kibana-import", matrix, "kibana", "save-search", "red", *where)
        reduced.done("kibana", "save-search", "red", *where, key=key)
    finally:
        kibana.close()


@pytest.mark.parametrize(
    ("role", "command"),
    [("read", "tags evaluate {folder}/labels.csv"), ("watch", "sync photos={photos}")],
)
def test_tags_that_cannot_be_read_are_said(
    office: Office,
    role: str,
    command: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    # As in a process of its own.
    monkeypatch.setattr("es_imgsearch.tags.storage._warned", set())
    office.done("tags", "train", office.file("labels.csv"))
    paint(office.photos / f"{role}.png", len(role) + 2000)
    less = office.key_without(role, on(f"{office.index}-tags", "read"))
    ran = office.run(*office.filled(command), key=less)
    assert ran.exit_code == 0, ran.output
    assert "pictures get no tags of a classifier" in caplog.text
    # What the message says.
    (advised,) = set(re.findall(r"run `es-imgsearch (describe [^`]*)`", caplog.text))
    office.done(*shlex.split(advised), key=office.key("watch"))
    office.done("tags", "forget")


def test_a_check_of_saved_objects_says_what_it_cannot_compare(office: Office):
    file = office.file("checked.ndjson")
    office.done("kibana", "build", "--output", file, key=office.key("kibana-import"))
    less = office.key_without("kibana-import", on(f"{office.index}-state", "read"))
    ran = office.run("kibana", "check", file, key=less)
    assert "needs the index privilege 'read'" in ran.stderr, ran.output


def test_saved_objects_of_an_index_without_a_sample(office: Office, tmp_path: Path):
    plain = Office(office.server, tmp_path / "plain")
    plain.done("init", "--encoder", "fake")
    plain.done("sync", f"photos={plain.photos}")
    build = ("kibana", "build", "--output", plain.file("k.ndjson"))
    plain.done(*build, key=plain.key("kibana-import"))
    refused(plain, "kibana-import", on("I", "read"), *build)


@pytest.mark.parametrize("privilege", ["read", "view_index_metadata"])
def test_saved_objects_say_what_they_are_made_of(
    office: Office, privilege: str, caplog: pytest.LogCaptureFixture
):
    less = office.key_without("kibana-import", on(f"{office.index}-background", privilege))
    office.done("kibana", "build", "--output", office.file("k.ndjson"), key=less)
    assert "relevance is that of other pictures" in caplog.text


def test_a_repository_is_made_and_restored_from_with_the_key_of_restores(
    office: Office, tmp_path: Path
):
    kept = Office(office.server, tmp_path / "kept")
    kept.done("init", "--encoder", "fake")
    kept.done("sync", f"photos={kept.photos}")
    key = kept.key("restore")
    where = ("--repository", kept.index)
    location = str(kept.server.folder / "snapshots")
    register = ("snapshot", "repository", *where, "--location", location)
    restore = ("snapshot", "restore", *where)

    def cluster(privilege: str) -> Right:
        return "cluster", "", privilege

    def restored() -> bool:
        kept.run("drop", "--yes")
        return kept.run(*restore, key=key).exit_code == 0

    # Elasticsearch names the privilege of which the action is a part.
    manage = cluster("cluster:admin/repository/put")
    ran = kept.run(*register, key=kept.key_without("restore", manage))
    assert ran.exit_code == 2
    assert "the cluster privilege 'manage'" in ran.stderr
    assert "path.repo" not in ran.stderr
    kept.done(*register, key=key)
    kept.done("snapshot", "create", *where, key=kept.key("snapshot"))
    # What is there is not replaced; a key that may not look cannot say so.
    refused(kept, "restore", on(ALL, "monitor"), *restore)
    assert "is there, with" in kept.run(*restore, key=key).stderr
    for privilege in (
        "cluster:admin/snapshot/get", "cluster:admin/snapshot/restore", "manage_index_templates",
        "cluster:monitor/main", "cluster:monitor/health",
    ):  # fmt: skip
        kept.done("drop", "--yes")
        ran = kept.run(*restore, key=kept.key_without("restore", cluster(privilege)))
        assert ran.exit_code == 2, ran.output
        assert "key or user needs the cluster privilege '" in ran.stderr
        assert "keys create --role restore" in ran.stderr
        # What is being restored cannot be deleted, and may come a moment later.
        until(restored)
    for privilege in ("read", "view_index_metadata"):
        kept.done("drop", "--yes")
        refused(kept, "restore", on(ALL, privilege), *restore)
        until(restored)
    reader = kept.key("read")
    assert "No differences" in kept.run("verify", f"photos={kept.photos}", key=reader).output
    kept.done("search", "red", key=reader)
    for role in ("watch", "read", "snapshot", "admin"):
        assert kept.run(*register, key=kept.key(role)).exit_code == 2


# -- What a key may not do

DOCUMENT: dict[str, Any] = {"root": "photos"}
WRITES: list[tuple[str, str, Any]] = [
    ("PUT", "/{name}/_doc/1", DOCUMENT),
    ("POST", "/{name}/_doc", DOCUMENT),
    ("PUT", "/{name}/_create/2", DOCUMENT),
    ("POST", "/{name}/_update/1", {"doc": DOCUMENT}),
    ("POST", "/{name}/_update/1", {"doc": DOCUMENT, "doc_as_upsert": True}),
    ("DELETE", "/{name}/_doc/1", None),
    ("POST", "/{name}/_update_by_query", {"query": {"match_all": {}}}),
    ("POST", "/{name}/_delete_by_query", {"query": {"match_all": {}}}),
    ("PUT", "/{name}/_mapping", {"_meta": {}}),
    ("PUT", "/{name}/_settings", {"index.number_of_replicas": 0}),
    ("PUT", "/{name}/_block/write", None),
    ("POST", "/{name}/_close", None),
    ("POST", "/{name}/_forcemerge", None),
    ("POST", "/{name}/_flush", None),
    ("POST", "/{name}/_rollover", None),
    ("POST", "/{name}/_clone/{index}-copy", None),
    ("PUT", "/{name}/_alias/{index}-mine", None),
    ("DELETE", "/{name}/_alias/{name}", None),
    ("DELETE", "/{name}", None),
]
ELSEWHERE: list[tuple[str, str, Any]] = [
    ("PUT", "/{index}-000009", {}),
    ("PUT", "/_index_template/{index}", {"index_patterns": ["{index}"]}),
    ("DELETE", "/_index_template/{index}", None),
    ("POST", "/_reindex", {"source": {"index": "{index}"}, "dest": {"index": "{index}-searches"}}),
    ("POST", "/_aliases", {"actions": [{"remove": {"index": "*", "alias": "{index}"}}]}),
    ("PUT", "/_ingest/pipeline/mine", {"processors": []}),
    ("PUT", "/_scripts/mine", {"script": {"lang": "painless", "source": "1"}}),
    ("PUT", "/_cluster/settings", {"persistent": {"indices.recovery.max_bytes_per_sec": None}}),
    ("POST", "/_security/api_key", {"name": "mine"}),
    ("PUT", "/_security/user/mine", {"password": "long enough", "roles": []}),
    ("PUT", "/_snapshot/mine", {"type": "fs", "settings": {"location": "mine"}}),
    ("GET", "/others/_search", None),
    ("GET", "/_security/_query/api_key", None),
]
COMPANIONS = ("", "-failures", "-state", "-background", "-searches", "-codes", "-tags", "-before")


def filled(value: Any, **given: str) -> Any:
    if isinstance(value, str):
        return value.replace("{index}", given["index"]).replace("{name}", given.get("name", ""))
    if isinstance(value, dict):
        return {key: filled(each, **given) for key, each in value.items()}
    return [filled(each, **given) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("role", ["read", "kibana-import", "snapshot"])
def test_a_key_that_reads_writes_nothing(office: Office, keys: dict[str, str], role: str):
    """Every request that writes is refused, on the index and on each companion.

    Only by a bulk, new entries of the log of searches are made, and nothing else in it.
    """
    elastic, store = office.store().connection, office.store(keys[role])
    elastic.request("POST", f"/{office.index}*/_refresh")
    before = {name: elastic.request("GET", f"/{office.index}{name}/_count") for name in COMPANIONS}
    allowed = []
    for companion in COMPANIONS:
        name = f"{office.index}{companion}"
        for method, path, body in WRITES:
            given = filled([path, body], index=office.index, name=name)
            allowed += done(store.connection, method, *given)
    for method, path, body in ELSEWHERE:
        allowed += done(store.connection, method, *filled([path, body], index=office.index))
    for operation in (b"index", b"create", b"update", b"delete"):
        for companion in COMPANIONS:
            if (operation, companion) != (b"create", "-searches"):
                allowed += bulk(store.connection, operation, f"{office.index}{companion}")
    assert allowed == []
    elastic.request("POST", f"/{office.index}*/_refresh")
    after = {name: elastic.request("GET", f"/{office.index}{name}/_count") for name in COMPANIONS}
    assert after == before


def bulk(connection: Connection, operation: bytes, name: str) -> list[Any]:
    """A bulk of one item, unless that or the whole was refused."""
    line = b'{"%b":{"_index":"%b","_id":"1"}}\n' % (operation, name.encode())
    body = line + (b"" if operation == b"delete" else b'{"doc":{}}\n')
    try:
        (item,) = connection.request("POST", "/_bulk", body, headers=NDJSON)["items"]
    except StoreDenied:
        return []
    (result,) = item.values()
    return [] if result["status"] == 403 else [result]


def done(connection: Connection, method: str, path: str, body: Any) -> list[tuple[str, str, str]]:
    """The request, unless it was refused for want of a right."""
    try:
        connection.request(method, path, body)
    except StoreDenied:
        return []
    except ImgSearchError as error:
        return [(method, path, str(error))]
    return [(method, path, "done")]


@pytest.mark.parametrize("role", ["watch", "admin"])
def test_a_key_is_of_its_index_alone(office: Office, keys: dict[str, str], role: str):
    connection = office.store(keys[role]).connection
    for name in (f"{office.index}x", f"{office.index}-of-others", f"{office.index}-0", "images"):
        for method, path, body in (
            ("GET", f"/{name}/_search", None), ("PUT", f"/{name}/_doc/1", DOCUMENT),
            ("PUT", f"/{name}", {}), ("DELETE", f"/{name}", None),
        ):  # fmt: skip
            assert done(connection, method, path, body) == []


# -- Keys


def test_a_key_is_printed_once_and_listed_without_its_secret(office: Office):
    ran = office.run("keys", "create", "--role", "read", "--expires", "90d", "--name", "wall")
    assert ran.exit_code == 0
    (encoded,) = ran.stdout.split()
    key_id, _, secret = b64decode(encoded).decode().partition(":")
    assert encoded not in ran.stderr
    assert secret not in ran.stderr
    assert "ES_API_KEY" in ran.stderr
    listed = json.loads(office.done("keys", "list", "--json"))
    (mine,) = [each for each in listed if each["name"] == "wall"]
    assert (mine["role"], mine["state"], mine["key_id"]) == ("read", "active", key_id)
    assert "wall  read  active, until " in office.done("keys", "list")
    assert secret not in json.dumps(listed)
    again = office.run("keys", "create", "--role", "read", "--expires", "90d", "--name", "wall")
    assert again.exit_code == 2
    assert f"keys revoke --index {office.index} wall" in again.stderr
    assert office.run("search", "red", key=encoded).exit_code == 0
    office.done("keys", "revoke", "wall")
    refused = office.run("search", "red", key=encoded)
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert "The API key was revoked" in refused.stderr
    assert "wall" not in office.done("keys", "list")
    assert "wall  read  revoked" in office.done("keys", "list", "--revoked")
    unknown = office.run("keys", "revoke", "wall")
    assert unknown.exit_code == 2
    assert "that is not revoked has the name" in unknown.stderr


def test_its_rights_are_exactly_those_of_the_role(office: Office, keys: dict[str, str]):
    connection = office.store().connection
    for role, key in keys.items():
        key_id = b64decode(key).decode().partition(":")[0]
        (stored,) = connection.request("GET", f"/_security/api_key?id={key_id}")["api_keys"]
        (given,) = stored["role_descriptors"].values()
        wanted = role_descriptor(role, office.index)
        assert given["cluster"] == wanted["cluster"]
        assert [(each["names"], each["privileges"]) for each in given["indices"]] == [
            (each["names"], each["privileges"]) for each in wanted["indices"]
        ]
        assert stored["metadata"]["index"] == office.index
        assert stored["metadata"]["role"] == role
        assert stored["expiration"] > stored["creation"]


def test_a_key_makes_no_keys(office: Office, keys: dict[str, str]):
    ran = office.run("keys", "create", "--role", "read", "--expires", "1d", key=keys["admin"])
    assert ran.exit_code == 2
    assert ran.stdout == ""
    assert "unset ES_API_KEY" in ran.stderr


def test_a_user_that_may_less_than_the_role_is_told(office: Office):
    connection = office.store().connection
    connection.request("PUT", "/_security/role/few", {"cluster": ["manage_own_api_key"]})
    connection.request("PUT", "/_security/user/few", {"password": "long enough", "roles": ["few"]})
    url = office.server.url.replace("https://", "https://few:long%20enough@")
    ran = office.run("keys", "create", "--role", "read", "--expires", "1d", ES_URL=url)
    assert ran.exit_code == 2
    assert "User 'few' lacks rights of role read" in ran.stderr
    assert f"on {office.index}-state" in ran.stderr
    assert "long enough" not in ran.output


def test_snapshots_are_taken_with_the_key_of_snapshots(office: Office, keys: dict[str, str]):
    repository = {"type": "fs", "settings": {"location": office.index}}
    office.store().connection.request("PUT", f"/_snapshot/{office.index}", repository)
    connection = office.store(keys["snapshot"]).connection
    path = f"/_snapshot/{office.index}/one?wait_for_completion=true"
    taken = connection.request("PUT", path, {"indices": f"{office.index}*"})["snapshot"]
    assert taken["shards"]["failed"] == 0
    assert len(taken["indices"]) > 4
    assert connection.request("GET", f"/_snapshot/{office.index}/*")["total"] == 1
    assert connection.request("GET", f"/{office.index}")
    less = office.key_without("snapshot", ("cluster", "", "create_snapshot"))
    with pytest.raises(StoreDenied, match="privilege 'create_snapshot'"):
        office.store(less).connection.request("PUT", path.replace("one", "two"))
    for forbidden in ("watch", "read"):
        with pytest.raises(StoreDenied):
            office.store(keys[forbidden]).connection.request("PUT", path.replace("one", "two"))
    with pytest.raises(StoreDenied):
        connection.request("POST", f"/_snapshot/{office.index}/one/_restore")
    with pytest.raises(StoreDenied):
        connection.request("DELETE", f"/_snapshot/{office.index}/one")


def test_kibana_imports_with_the_key_of_imports(office: Office, keys: dict[str, str]):
    """Kibana asks Elasticsearch what a key may; it is asked here in its place."""
    privilege = "feature_savedObjectsManagement.all"
    office.store().connection.request(
        "PUT", "/_security/privilege", {"kibana-.kibana": {privilege: {"actions": ["import:it"]}}}
    )
    asked = {
        "application": [
            {"application": "kibana-.kibana", "privileges": [privilege], "resources": ["*"]}
        ]
    }
    for role, may in (("kibana-import", True), ("read", False), ("watch", False), ("admin", True)):
        connection = office.store(keys[role]).connection
        answer = connection.request("POST", "/_security/user/_has_privileges", asked)
        if role != "admin":
            assert answer["has_all_requested"] is may, role
    kibana = FakeKibana()
    try:
        office.done("kibana", "import", "--kibana-url", kibana.url, key=keys["kibana-import"])
        assert kibana.objects
    finally:
        kibana.close()


# -- Who is not let in


def test_each_bad_credential_is_one_clear_line(office: Office, tmp_path: Path):
    brief = office.store().connection.request(
        "POST", "/_security/api_key", {"name": "brief", "expiration": "1ms"}
    )["encoded"]
    wrong_secret = office.key("read")
    half = b64decode(wrong_secret).decode().partition(":")[0]
    (tmp_path / "other.crt").write_text(other_authority(), encoding="ascii")
    server = office.server.url
    cases: list[tuple[dict[str, str], int, str]] = [
        ({"ES_API_KEY": ""}, 2, "set ES_API_KEY, or user:password@ in ES_URL"),
        ({"ES_API_KEY": brief}, 2, "The API key has expired"),
        ({"ES_API_KEY": encoded(f"{half}:wrong")}, 2, "The API key is wrong"),
        ({"ES_API_KEY": encoded("unknown:wrong")}, 2, "The API key is not known there"),
        ({"ES_API_KEY": "no-base64"}, 2, "set ES_API_KEY"),
        ({"ES_API_KEY": "with a space"}, 2, "printable ASCII characters"),
        ({"ES_CA_CERTS": str(tmp_path / "other.crt")}, 2, "set ES_CA_CERTS to the file"),
        ({"ES_CA_CERTS": str(tmp_path / "none.crt")}, 2, "there is no file"),
        ({"ES_CA_CERTS": ""}, 2, "set ES_CA_CERTS to the file"),
        ({"ES_URL": server.replace("https://", "https://elastic:wrong@"), "ES_API_KEY": ""}, 2,
         "unable to authenticate user [elastic]"),
        ({"ES_URL": server.replace("https", "http"), "ES_CA_CERTS": ""}, 3, "Error: "),
    ]  # fmt: skip
    for given, code, said in cases:
        for command in (
            ["status"], ["sync", f"photos={office.photos}"], ["search", "red"],
            ["find", "red", str(office.photos)], ["watch", f"photos={office.photos}"],
            ["serve", "--port", "0"], ["import", office.file("vectors.parquet")],
            ["kibana", "build", "--output", office.file("k.ndjson")],
            ["export", "--originals", office.file("copies")],
        ):  # fmt: skip
            ran = office.run(*command, key=wrong_secret, **given)
            assert ran.exit_code == code, (given, ran.output)
            # `find` adds how an Elasticsearch is had.
            error, *hints = ran.stderr.splitlines()
            assert said in error
            assert all(each.startswith("If you have no Elasticsearch") for each in hints), hints
            for secret in filter(None, (given.get("ES_API_KEY"), wrong_secret)):
                assert secret not in ran.output


def encoded(credentials: str) -> str:
    return b64encode(credentials.encode()).decode()


def other_authority() -> str:
    return trustme.CA().cert_pem.bytes().decode()


# -- Secrets


def secrets_of(office: Office, key: str) -> list[str]:
    secret = b64decode(key).decode().partition(":")[2]
    return [key, secret, PASSWORD, office.elastic_url.partition("@")[0].rpartition(":")[2]]


def test_no_command_prints_a_secret(
    office: Office, keys: dict[str, str], caplog: pytest.LogCaptureFixture
):
    """Whether it succeeds, is refused, or cannot connect; with all that may be logged."""
    caplog.set_level(logging.DEBUG)
    bare = office.server.url.partition("://")[2]
    for command in (
        "status", "sync photos={photos}", "search red", "export {folder}/again.parquet",
        "kibana build --output {folder}/k.ndjson", "describe --only hashes", "keys list",
    ):  # fmt: skip
        words = office.filled(command)
        for key in (keys["read"], None):
            ran = office.run("-v", *words, key=key)
            shown = ran.output + caplog.text
            assert not [each for each in secrets_of(office, keys["read"]) if each in shown]
            caplog.clear()
    for url in (f"http://elastic:hush@{bare}", "https://elastic:hush@127.0.0.1:1", "elastic:hush@"):
        ran = office.run("-v", "status", ES_URL=url)
        assert ran.exit_code in {2, 3}
        assert "hush" not in ran.output + caplog.text


def test_a_crash_report_shows_no_secret(
    office: Office, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    """Also one with the values of all variables, as services that collect crashes make it."""

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("unexpected")

    monkeypatch.setattr(Connection, "request", broken)
    for key in (keys["read"], None):
        ran = office.run("status", key=key)
        assert isinstance(ran.exception, RuntimeError)
        report = "".join(
            traceback.TracebackException.from_exception(ran.exception, capture_locals=True).format()
        )
        ours = report[report.index("es_imgsearch/cli/options.py") :]
        assert not [each for each in secrets_of(office, keys["read"]) if each in ours]


def command_lines() -> Iterator[bytes]:
    """Of every process, as whoever lists them sees it."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield file.read_bytes()


def test_no_process_shows_a_secret(office: Office, keys: dict[str, str]):
    log = office.folder / "watch.txt"
    given = {
        **os.environ, "ES_URL": office.server.url, "ES_API_KEY": keys["watch"],
        "ES_CA_CERTS": str(office.server.ca), "ES_IMGSEARCH_READ_WORKERS": "1",
    }  # fmt: skip
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "es_imgsearch.cli", "sync", f"photos={office.photos}",
             "--index", office.index],
            env=given, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
        )  # fmt: skip
    try:
        shown: set[bytes] = set()
        until(lambda: shown.update(command_lines()) or process.poll() is not None)
        assert any(office.index.encode() in each for each in shown)
        assert not [each for each in shown if keys["watch"].encode() in each]
        assert keys["watch"] not in log.read_text()
    finally:
        process.kill()
        process.wait()
    ran = office.run("status", "--es-url", office.elastic_url)
    assert "sees the password in --es-url" in ran.stderr
    assert PASSWORD not in ran.output
