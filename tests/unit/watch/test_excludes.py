"""Which paths are not looked at."""

from __future__ import annotations

import os
import re
import time
from fnmatch import fnmatchcase, translate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from es_imgsearch.errors import SettingsError
from es_imgsearch.watch.excludes import Excludes

NAME = st.binary(min_size=1, max_size=12).map(
    lambda raw: os.fsdecode(raw.replace(b"/", b"_").replace(b"\0", b"_"))
)
PLAIN = st.text("abcx", min_size=1, max_size=3)


@pytest.mark.parametrize(
    "path",
    [
        ".hidden.jpg",
        ".thumbnails/normal/a.png",
        "a/.git/b/c.jpg",
        "a/@eaDir/b.jpg/SYNOPHOTO_THUMB_M.jpg",
        "#recycle/a.jpg",
        "$RECYCLE.BIN/a.jpg",
        "System Volume Information/x",
        "lost+found/#12",
        "a/b.jpg.part",
        "a/b.jpg.tmp",
        "a/b.jpg~",
        "a/b.jpg.crdownload",
        "a/b.jpg.partial",
        "a/Thumbs.db",
        "a/desktop.ini",
        "copy.part/inside.jpg",
        os.fsdecode(b".caf\xe9.jpg"),
        os.fsdecode(b"caf\xe9/b.tmp"),
    ],
)
def test_defaults_are_in_force(path: str) -> None:
    assert Excludes(()).matches(path, is_folder=False)
    assert Excludes(("x*y",)).matches(path, is_folder=False)


@pytest.mark.parametrize(
    "path",
    ["", "a.jpg", "a.b/c.jpg", "part", "tmp/a.jpg", "a~b.jpg", "lost/found.jpg", "eaDir/x.jpg"],
)
def test_ordinary_paths_are_looked_at(path: str) -> None:
    assert not Excludes(()).matches(path, is_folder=False)


@pytest.mark.parametrize(
    ("pattern", "path", "is_folder", "expected"),
    [
        ("*.psd", "a/b/c.psd", False, True),
        ("*.psd", "a.psd/b.jpg", False, True),
        ("*.psd", "a/b/c.PSD", False, False),
        ("proofs/", "proofs", True, True),
        ("proofs/", "proofs", False, False),
        ("proofs/", "a/proofs/b.jpg", False, True),
        ("2023/raw", "2023/raw", True, True),
        ("2023/raw", "2023/raw/a.jpg", False, True),
        ("2023/raw", "x/2023/raw", True, False),
        ("2023/raw", "2023/raw2", True, False),
        ("/raw", "raw", False, True),
        ("/raw", "a/raw", False, False),
        ("/raw/", "raw", False, False),
        ("/raw/", "raw/a.jpg", False, True),
        ("2023/*", "2023/a.jpg", False, True),
        ("20??/*", "2023/x/a.jpg", False, True),  # the folder 2023/x matches
        ("a/*.jpg", "a/b/c.jpg", False, False),  # the star stops at the slash
        ("a/**/*.jpg", "a/c.jpg", False, True),
        ("a/**/*.jpg", "a/b/b/c.jpg", False, True),
        ("a/**", "a", True, False),
        ("a/**", "a/b", True, True),
        ("**/cache", "cache", True, True),
        ("**/cache", "x/y/cache/a.jpg", False, True),
        ("**/a/**/b", "a/x/a/y/b", False, True),
        ("**/a/**/b", "a/x/a/y/c", False, False),
        ("[0-9]*", "2a.jpg", False, True),
        ("[!0-9]*", "2a.jpg", False, False),
        ("*", "a", False, True),
        ("caf?.jpg", os.fsdecode(b"caf\xe9.jpg"), False, True),
    ],
)
def test_patterns(pattern: str, path: str, is_folder: bool, expected: bool) -> None:
    assert Excludes((pattern,)).matches(path, is_folder) is expected


@pytest.mark.parametrize("pattern", ["", "/", "//", "!a.jpg"])
def test_useless_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(SettingsError, match="cannot be used"):
        Excludes((pattern,))


@given(name=NAME, glob=st.text("ab*?[]!-.", min_size=1, max_size=8))
def test_a_pattern_without_slash_is_a_shell_glob_on_the_name(name: str, glob: str) -> None:
    if glob.startswith("!") or Excludes(()).prunes(name, "", False):
        return
    assert Excludes((glob,)).prunes(name, "some/folder", False) == fnmatchcase(name, glob)


@given(components=st.lists(NAME, min_size=1, max_size=4), glob=NAME, is_folder=st.booleans())
def test_a_path_is_excluded_when_a_walker_would_not_reach_it(
    components: list[str], glob: str, is_folder: bool
) -> None:
    if glob.startswith("!"):
        return
    excludes = Excludes((glob, "*/b*", "x/"))
    path = "/".join(components)
    walked = any(
        excludes.prunes(
            name, "/".join(components[:depth]), is_folder or depth < len(components) - 1
        )
        for depth, name in enumerate(components)
    )
    assert excludes.matches(path, is_folder) == walked


@given(
    parts=st.lists(st.one_of(st.just("**"), PLAIN, st.just("*")), min_size=2, max_size=6),
    components=st.lists(PLAIN, min_size=1, max_size=6),
)
def test_double_star_agrees_with_a_regular_expression(
    parts: list[str], components: list[str]
) -> None:
    expression = ""
    for place, part in enumerate(parts):
        if part == "**":
            last = place == len(parts) - 1
            expression += "(?:[^/]+/)*[^/]+" if last else "(?:[^/]+/)*"
        else:
            expression += translate(part).removesuffix(r"\Z").replace(".*", "[^/]*")
            expression += "" if place == len(parts) - 1 else "/"
    # `a/**/**` asks for no more than `a/**`; the plain expression agrees.
    expected = re.fullmatch(expression, "/".join(components)) is not None
    folder, name = "/".join(components[:-1]), components[-1]
    assert Excludes(("/".join(parts),)).prunes(name, folder, True) == expected


def test_an_entry_costs_about_a_microsecond() -> None:
    excludes = Excludes(("*.psd", "proofs/", "2023/raw"))
    count = 20_000
    # Measured 1.3 us. The best of five, since the machine may be busy; eight times as long
    # is a mistake, not a slow machine.
    best = min(_seconds_for(excludes, count) for _ in range(5))
    assert best / count < 10e-6


def _seconds_for(excludes: Excludes, count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        excludes.prunes("IMG_20230401_120000.jpg", "2022/holidays", False)
    return time.perf_counter() - started
