"""Which paths are not looked at."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Sequence
from fnmatch import translate
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from es_imgsearch.errors import SettingsError
from es_imgsearch.watch.excludes import HIDDEN, USUAL, Excludes

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
        "Catalog Previews.lrdata/0/a.lrprev",
        "Catalog Smart Previews.LRDATA/a.dng",
        "Photos.lrlibrary/a.jpg",
        "Photos Library.photoslibrary/resources/derivatives/a.jpeg",
        "old.aplibrary/Thumbnails/a.jpg",
        "a/IMG_1.JPG_original",
        "IMG_1.cr2_original",
        ".Trash-1000/files/a.jpg",
        "a/.@__thumb/a.jpg",
        ".AppleDouble/a.jpg",
        "a/._b.jpg",
        "a/THUMBS.DB",
        "@Recycle/a.jpg",
        "Network Trash Folder/a.jpg",
    ],
)
def test_defaults_are_in_force(path: str) -> None:
    assert Excludes(()).matches(path, is_folder=False)
    assert Excludes(("x*y",)).matches(path, is_folder=False)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a.jpg",
        "a.b/c.jpg",
        "part",
        "tmp/a.jpg",
        "a~b.jpg",
        "lost/found.jpg",
        "eaDir/x.jpg",
        "my_original/a.jpg",
        "_original",
        "x_original.jpg",
        "a.b_original/c.jpg",
        "lrdata/a.jpg",
        "My library/resources/a.jpg",
        "photoslibrary/a.jpg",
    ],
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
        ("caf\u00e9.jpg", "cafe\u0301.jpg", False, True),  # a Mac's name, and what people type
        ("cafe\u0301/", "caf\u00e9/a.jpg", False, True),
        ("caf?.jpg", "cafe\u0301.jpg", False, True),
        ("\uac00/*.jpg", "\u1100\u1161/a.jpg", False, True),
        ("#old", "#old", True, True),
        (r"\#old", "#old", True, True),
        (r"\!a.jpg", "!a.jpg", False, True),
        (r"a\*.jpg", "a*.jpg", False, True),
        (r"a\*.jpg", "ab.jpg", False, False),
        (r"a\\b.jpg", "a\\b.jpg", False, True),
        (r"\{a,b}", "{a,b}", False, True),
        ("{a}.jpg", "{a}.jpg", False, True),
        ("a ", "a ", False, True),
        ("a ", "a", False, False),
        ("[[:digit:]]*", "2a.jpg", False, True),
        ("[^0-9]*", "a2.jpg", False, True),
        ("[[]a.jpg", "[a.jpg", False, True),
        ("a[!b]c", "a/c", False, False),
        ("line\nend*", "line\nend.jpg", False, True),
        ("*.jpg", "a.jpg\n", False, False),
    ],
)
def test_patterns(pattern: str, path: str, is_folder: bool, expected: bool) -> None:
    assert Excludes((pattern,)).matches(path, is_folder) is expected


@pytest.mark.parametrize("pattern", ["", "/", "//", "!", "!/", " "])
def test_empty_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(SettingsError, match="cannot be used"):
        Excludes((pattern,))


@pytest.mark.parametrize(
    ("pattern", "instead", "path"),
    [
        ("./raw", ["/raw"], "raw/a.jpg"),
        ("./a/raw", ["/a/raw"], "a/raw/b.jpg"),
        ("a/./raw/", ["a/raw/"], "a/raw/b.jpg"),
        ("a//raw", ["a/raw"], "a/raw/b.jpg"),
        ("raw//", ["/raw/"], "raw/b.jpg"),
        ("*.{tif,psd}", ["*.tif", "*.psd"], "a/b.psd"),
        ("{a,b}/raw", ["a/raw", "b/raw"], "b/raw/c.jpg"),
        ("!*.{tif,psd}", ["!*.tif", "!*.psd"], ""),
        ("{1..3}.jpg", [], ""),
        ("{a,b}{c,d}", [], ""),
        ("../raw", [], ""),
        ("a/../raw", ["/raw"], "raw/a.jpg"),
        ("!a/../raw/", ["!/raw/"], ""),
        ("/a/b/../raw", ["/a/raw"], "a/raw/b.jpg"),
        ("a/b/../../c/d", ["c/d"], "c/d/e.jpg"),
        ("./a/../raw", ["/raw"], "raw/a.jpg"),
        ("a/..", [], ""),
        ("a/../../raw", [], ""),
        ("a*/../raw", [], ""),
        (".", [], ""),
        ("~/Pictures/raw", [], ""),
        ("raw\\2023", ["raw/2023"], "raw/2023/a.jpg"),
        ("raw\\", ["raw\\\\"], "raw\\"),
        ("[abc", ["\\[abc"], "[abc"),
        ("a[b/c]d", [], ""),
        ("[z-a].jpg", [], ""),
        ("[[:letter:]]", [], ""),
    ],
)
def test_a_pattern_that_can_match_nothing_is_refused_with_what_to_write(
    pattern: str, instead: Sequence[str], path: str
) -> None:
    with pytest.raises(SettingsError, match="can match nothing") as refused:
        Excludes((pattern,))
    message = str(refused.value)
    assert repr(pattern) in message
    options = message.partition(": write ")[2].removesuffix(" instead.")
    given = [word for word in shlex.split(options) if word != "--exclude"]
    assert given == instead
    assert not path or Excludes(given).matches(path, is_folder=False)


def test_an_absolute_path_in_the_root_is_read_below_it(tmp_path: Path) -> None:
    root, other = tmp_path / "my [1] r", tmp_path / "other"
    root.mkdir()
    other.mkdir()
    (tmp_path / "link").symlink_to(root)
    escaped = str(root).replace("[", "\\[")
    for pattern in (f"{root}/raw", f"{escaped}/raw/", f"{tmp_path}/link/r*w", f"{root}/**/raw"):
        excludes = Excludes((pattern,), root)
        assert excludes.matches("raw/a.jpg", is_folder=False), pattern
        assert not excludes.matches("a.jpg", is_folder=False)
        # Of two roots, the pattern is one of the other.
        assert not Excludes((pattern,), other, root).matches("raw/a.jpg", is_folder=False)
    assert not Excludes((f"{root}/raw",), root).matches("a/raw/b.jpg", is_folder=False)


def test_a_path_of_a_mac_in_the_root_is_read_below_it(tmp_path: Path) -> None:
    root = tmp_path / "Fe\u0301te"
    root.mkdir()
    assert Excludes((f"{tmp_path}/F\u00e9te/raw",), root).matches("raw/a.jpg", is_folder=False)


def test_an_absolute_path_outside_every_root_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "r"
    root.mkdir()
    for pattern in (f"{tmp_path}/elsewhere/raw", "/usr/raw", "!/etc/x.jpg", str(root), f"{root}/",
                    str(tmp_path)):  # fmt: skip
        with pytest.raises(SettingsError, match="can match nothing"):
            Excludes((pattern,), root)
    # No folder of this machine: a path from the root, though nothing is there yet.
    assert Excludes(("/no such/raw",), root).matches("no such/raw/a.jpg", is_folder=False)
    # One of this machine as well as one of the root.
    (root / "usr").mkdir()
    assert Excludes(("/usr/raw",), root).matches("usr/raw/a.jpg", is_folder=False)
    assert Excludes(("/usr",), root).matches("usr/a.jpg", is_folder=False)


@pytest.mark.parametrize(
    ("patterns", "path", "expected"),
    [
        (("*.jpg", "!a.jpg"), "a.jpg", False),
        (("*.jpg", "!a.jpg"), "b.jpg", True),
        (("!a.jpg", "*.jpg"), "a.jpg", True),  # the last one decides
        (("raw/*", "!raw/a.jpg"), "raw/a.jpg", False),
        (("raw/*", "!raw/a.jpg"), "raw/b.jpg", True),
        (("/*", "!/keep/"), "keep/a.jpg", False),
        (("*", "!keep/"), "keep/a.jpg", True),  # the star leaves out the file itself
        (("*", "!*/", "!*.jpg"), "x/y/a.jpg", False),
        (("*", "!*/", "!*.jpg"), "x/y/a.png", True),
        # What is not named stays out.
        (("*", "!*/", "!*.jpg"), ".cache/a.jpg", True),
        (("*", "!*/", "!*.jpg"), "x/@eaDir/a.jpg", True),
        (("*", "!*/", "!*.jpg"), "x/._a.jpg", True),
        (("!*",), "x.photoslibrary/a.jpg", True),
        (("!*.*",), ".hidden.jpg", True),
        (("!.*",), "x/.hidden.jpg", False),
        (("!*_original",), "a.jpg_original", False),
        (("!@eaDir",), "@eaDir/a.jpg", False),
        (("!.private",), ".private/a.jpg", False),
        (("!*.jpg_original",), "a.jpg_original", False),
        (("!*.photoslibrary",), "P.photoslibrary/originals/0/a.jpeg", False),
        (("!*.photoslibrary",), "P.photoslibrary/resources/derivatives/a.jpeg", True),
        (("!*.aplibrary",), "x/P.aplibrary/Masters/a.jpeg", False),
        (("!*.aplibrary",), "x/P.aplibrary/Thumbnails/a.jpeg", True),
    ],
)
def test_an_exclamation_mark_takes_back_in(
    patterns: Sequence[str], path: str, expected: bool
) -> None:
    assert Excludes(patterns).matches(path, is_folder=False) is expected


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("!*.photoslibrary", "B.PHOTOSLIBRARY/originals/0/a.jpeg"),
        ("!*.PHOTOSLIBRARY", "b.PhotosLibrary/originals/0/a.jpeg"),
        ("!b.photoslibrary/", "x/B.PHOTOSLIBRARY/a.jpeg"),
        ("!x/*.aplibrary", "x/B.ApLibrary/Masters/a.jpeg"),
        ("!*.lrdata", "b.LRDATA/a.jpg"),
        ("!@eaDir", "@EADIR/a.jpg"),
        ("!#recycle", "#Recycle/a.jpg"),
        ("!*.jpg_original", "A.JPG_ORIGINAL"),
        ("!*_original", "A.JPG_ORIGINAL"),
        ("!*.tmp", "a.TMP"),
    ],
)
def test_a_default_is_taken_back_without_regard_to_case(pattern: str, path: str) -> None:
    assert Excludes().matches(path, is_folder=False)
    assert not Excludes((pattern,)).matches(path, is_folder=False)


@pytest.mark.parametrize(
    ("patterns", "path"),
    [
        # Hidden names, and what a pattern of the user's leaves out, are compared with regard to it.
        (("!.private",), ".Private/a.jpg"),
        (("*.TMP", "!*.tmp"), "a.TMP"),
        (("*.JPG", "!*.jpg"), "a.JPG"),
        (("!*.photoslibrary",), "B.PHOTOSLIBRARY/Resources/a.jpeg"),
        (("!*.photoslibrary", "*.PHOTOSLIBRARY"), "B.PHOTOSLIBRARY/a.jpeg"),
    ],
)
def test_nothing_else_is_taken_back_without_regard_to_case(
    patterns: Sequence[str], path: str
) -> None:
    assert Excludes(patterns).matches(path, is_folder=False)


def test_only_what_leads_out_is_said_to_lead_out() -> None:
    with pytest.raises(SettingsError, match="leads out of the watched folder"):
        Excludes(("a/../../raw",))
    with pytest.raises(SettingsError) as refused:
        Excludes(("a/../raw",))
    assert "no path of a file has '..' in it: write --exclude /raw instead" in str(refused.value)
    with pytest.raises(SettingsError, match=r"has '\.\.' in it \(write it without '\.\.'\)"):
        Excludes(("a*/../raw",))


def test_what_lies_in_a_folder_left_out_cannot_be_taken_back() -> None:
    with pytest.raises(SettingsError, match=r"'raw' is left out as a whole .* as 'raw/\*'"):
        Excludes(("raw/", "!raw/a.jpg"))
    assert not Excludes(("raw/*", "!raw/a.jpg")).matches("raw/a.jpg", is_folder=False)


def test_a_reason_is_the_pattern_or_the_default() -> None:
    excludes = Excludes(("*.psd", "/raw/"))
    assert excludes.left_out("a.psd", "", False) == "*.psd"
    assert excludes.left_out("raw", "", True) == "/raw/"
    assert excludes.left_out(".git", "", True) == HIDDEN
    assert excludes.left_out("@eaDir", "a", True) == USUAL
    assert excludes.left_out("a.jpg", "a", False) == ""


class Git:
    """A folder in which git says what a pattern leaves out."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        subprocess.run(["git", "init", "-q", folder], check=True)
        folders = ["a", "b", "ab", "a/a", "a/b", "a/b/a", "a/b/b/a", "#a", "!a", "a ", "{a,b}"]
        self.paths = {
            f"{each}/{name}" if each else name
            for each in ("", *folders)
            for name in ("f", "a.f", "b1", "#f", "a b", "b]", "[b")
        }
        for path in self.paths:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).touch()

    def kept(self, patterns: Sequence[str]) -> set[str]:
        options = [f"--exclude={each}" for each in patterns]
        listed = subprocess.run(["git", "-C", self._folder, "ls-files", "-zo", *options],
                                capture_output=True, check=True).stdout  # fmt: skip
        return {os.fsdecode(each) for each in listed.split(b"\0") if each}


@pytest.fixture(scope="module")
def git(tmp_path_factory: pytest.TempPathFactory) -> Git:
    try:
        return Git(tmp_path_factory.mktemp("git"))
    except FileNotFoundError:
        pytest.skip("git is not installed")


PIECES = ["a", "b", "*", "**", "?", "/", "/", "[ab]", "[!a]", "[[]", "[]b]", "[^b-f]", "f", ".f",
          "a.f", "\\*", "\\#", "#", "1", "[[:digit:]]", "!", " "]  # fmt: skip
PATTERN = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "", "!"]),
        st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join),
    ),
)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150,
                     deadline=None, derandomize=True)  # fmt: skip
@given(patterns=st.lists(PATTERN, min_size=1, max_size=3))
def test_patterns_mean_what_git_makes_of_them(git: Git, patterns: list[str]) -> None:
    try:
        excludes = Excludes(patterns)
    except SettingsError:
        # Refused where git, too, has no use for it.
        if len(patterns) == 1 and not patterns[0].startswith("!"):
            assert git.kept(patterns) == git.paths
        return
    kept = {path for path in git.paths if not excludes.matches(path, is_folder=False)}
    assert kept == git.kept(patterns)


@given(components=st.lists(NAME, min_size=1, max_size=4), glob=NAME, is_folder=st.booleans())
def test_a_path_is_excluded_when_a_walker_would_not_reach_it(
    components: list[str], glob: str, is_folder: bool
) -> None:
    try:
        excludes = Excludes((glob, "*/b*", "x/"))
    except SettingsError:
        assume(False)
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
    # A file is left out with a folder above it; `**/*/**` leaves out such a folder, as git does.
    paths = ["/".join(components[: depth + 1]) for depth in range(len(components))]
    expected = any(re.fullmatch(expression, path) for path in paths)
    assert Excludes(("/".join(parts),)).matches(paths[-1], False) == expected


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
