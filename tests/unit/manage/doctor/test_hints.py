"""What a person should do next, from what `status` reports."""

from __future__ import annotations

from typing import Any

import pytest

from es_imgsearch.manage.doctor.hints import hints

ROOT: dict[str, Any] = {
    "path": "/photos", "host": "here", "pictures": 9, "failures": 0, "deletions_paused": None,
    "disk_hung_seconds": None, "folder_missing": None, "partitions": [],
    "watched_by": {"is_alive": True, "seen_seconds_ago": 2.0},
}  # fmt: skip
STATUS: dict[str, Any] = {
    "index": "Pics", "roots": {"r": ROOT}, "pictures": 9, "failures": 0, "unstored": 0,
    "import_unfinished": False, "writes_held_back": False, "next": None, "profile": "balanced",
    "analysers_outdated": False, "tune_again": False, "codes": None,
    "tuning": {"num_candidates": 50, "tuned_at": None}, "refresh_left_off": False,
    "segments": {"total": 9, "most": 9, "most_large": 7, "merge_advised": False},
}  # fmt: skip


def with_root(**changes: Any) -> dict[str, Any]:
    return {**STATUS, "roots": {"r": {**ROOT, **changes}}}


def test_there_is_nothing_to_do_while_all_is_well():
    assert hints(STATUS, "here") == []
    # A key that may not see the segments.
    assert hints({**STATUS, "segments": None}, "here") == []


@pytest.mark.parametrize(
    ("status", "text", "command"),
    [
        ({**STATUS, "roots": {}}, "Nothing is indexed", "es-imgsearch sync DIR --index Pics"),
        (
            with_root(watched_by=None),
            "no daemon notices",
            "es-imgsearch watch r=/photos --index Pics",
        ),
        (
            with_root(watched_by={"is_alive": False, "seen_seconds_ago": 90.0}),
            "last 90 s ago",
            "es-imgsearch watch r=/photos --index Pics",
        ),
        (
            with_root(deletions_paused={"since": "2026-01-01", "reason": "Half is gone."}),
            "paused since 2026-01-01: Half is gone.",
            "es-imgsearch sync r=/photos --allow-deletes --index Pics",
        ),
        (with_root(disk_hung_seconds=40), "has not answered for 40 s", ""),
        (with_root(folder_missing=True), "is not there: mount it", ""),
        (
            {**STATUS, "failures": 2},
            "2 files could not be",
            "es-imgsearch failures retry --index Pics",
        ),
        (
            {**STATUS, "unstored": 1},
            "1 file is neither",
            "es-imgsearch failures retry --index Pics",
        ),
        (
            {**STATUS, "refresh_left_off": True},
            "left refresh off",
            "es-imgsearch init --index Pics",
        ),
        (
            {**STATUS, "segments": {**STATUS["segments"], "merge_advised": True}},
            "7 large segments are in a shard",
            "es-imgsearch tune --merge --index Pics",
        ),
        ({**STATUS, "import_unfinished": True}, "An import is under way", ""),
        (
            {**STATUS, "writes_held_back": True},
            "held back",
            "es-imgsearch reindex --cancel --index Pics",
        ),
        (
            {**STATUS, "next": {"builder": None, "pictures": 3}},
            "with 3 pictures so far",
            "es-imgsearch reindex --index Pics",
        ),
        ({**STATUS, "analysers_outdated": True}, "Words are analysed", ""),
        ({**STATUS, "pictures": 5000}, "not tuned to this index", "es-imgsearch tune --index Pics"),
        (
            {**STATUS, "tune_again": True, "tuning": {"num_candidates": 9, "tuned_at": "2026"}},
            "grown several times",
            "es-imgsearch tune --index Pics",
        ),
        (
            {**STATUS, "codes": {"missing": 4}},
            "4 pictures have no",
            "es-imgsearch codes apply --index Pics",
        ),
    ],
)
def test_each_thing_to_do_has_its_command(status: dict[str, Any], text: str, command: str):
    (hint,) = hints(status, "here")
    assert text in hint.text
    assert hint.command == command


def test_a_root_of_another_host_names_it():
    (hint,) = hints(with_root(watched_by=None), "elsewhere")
    assert "To watch it, on here:" in hint.text


def test_a_reindex_that_runs_needs_nothing():
    running = {**STATUS, "next": {"builder": {"is_alive": True}, "pictures": 3}}
    assert hints(running, "here") == []


def test_the_index_keeps_its_name():
    (hint,) = hints({**STATUS, "analysers_outdated": True}, "here")
    assert "--index Pics" in hint.text


def test_a_folder_that_a_shell_would_split_is_quoted():
    (hint,) = hints(with_root(watched_by=None, path="/my photos"), "here")
    assert hint.command == "es-imgsearch watch 'r=/my photos' --index Pics"
