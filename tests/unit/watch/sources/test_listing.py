"""Listings of sources: in order, in bounded memory, and unknown from where they fail."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice, pairwise
from pathlib import Path

import pytest

from es_imgsearch.records import FileState, Root, path_of
from es_imgsearch.watch.excludes import Excludes
from es_imgsearch.watch.places import FileOnDisk, Unknown
from es_imgsearch.watch.sources.fsspec_source import FsspecSource, SourceError, answered
from es_imgsearch.watch.sources.listing import NO_PATH, list_root
from es_imgsearch.watch.sources.protocol import SourceFile, change_ns
from es_imgsearch.watch.sources.ranges import AHEAD_FILES, in_order
from es_imgsearch.watch.sources.registry import source_of
from es_imgsearch.watch.sources.s3 import S3Source
from tests.support import CHECKOUT
from tests.support.house import until
from tests.support.s3_server import Bucket, png
from tests.support.simulated_source import GIVEN, first, key_of, registered

# -- ranges ----------------------------------------------------------------------------------


def numbered(start: int, end: int) -> Iterator[SourceFile]:
    for number in range(start, end):
        yield SourceFile(f"{number:08}", FileState(number, 0))


def test_ranges_that_are_listed_at_once_come_in_their_order():
    edges = [0, 0, 1, 999, 1000, 3001, 3001, 20_000]
    listings = [partial(numbered, *each) for each in pairwise(edges)]
    assert list(in_order(listings)) == list(numbered(0, 20_000))
    assert list(in_order([])) == []


def test_a_range_is_listed_ahead_so_far_and_no_further_and_ends_when_nobody_asks():
    produced = []

    def endless() -> Iterator[SourceFile]:
        for each in numbered(0, 10**9):
            produced.append(each.key)
            yield each

    before = threading.active_count()
    files = in_order([partial(numbered, 0, 5), endless])
    assert len(first(files, 5)) == 5
    most = AHEAD_FILES + 1000  # and the page that waits
    until(lambda: len(produced) >= most)
    assert len(produced) == most
    files.close()
    until(lambda: threading.active_count() <= before)
    assert len(produced) == most


def test_an_error_of_a_range_comes_after_what_is_before_it():
    def failing() -> Iterator[SourceFile]:
        yield from numbered(5, 7)
        raise SourceError("the network is away")

    files = in_order([partial(numbered, 0, 5), failing, partial(numbered, 7, 9)])
    assert len(first(files, 7)) == 7
    with pytest.raises(SourceError, match="away"):
        next(files)


# -- as the comparison takes it --------------------------------------------------------------


@pytest.fixture
def listed(tmp_path: Path) -> Iterator[Callable[..., tuple[list[FileOnDisk | Unknown], list[str]]]]:
    """What becomes of these keys, listed by a source; and the reasons of those left out."""

    def listed(*given: str | OSError) -> tuple[list[FileOnDisk | Unknown], list[str]]:
        GIVEN[:] = given
        reasons: list[str] = []
        root = Root("r", path_of("given://x"))
        return list(list_root(root, Excludes().left_out, "", reasons.append)), reasons

    with registered(tmp_path):
        yield listed


def test_all_that_follows_an_error_is_unknown(listed: Callable):
    found, _ = listed("a.png", SourceError("slow down"), "b.png")
    assert found == [FileOnDisk("a.png", FileState(1, 1)), Unknown("", "slow down")]


@pytest.mark.parametrize("keys", [("b", "a"), ("a", "a"), ("a/b", "a.b"), ("ü", "z")])
def test_a_source_that_lists_in_no_order_is_unknown(listed: Callable, keys: tuple[str, str]):
    """The merge would take what it has passed for lost."""
    found, _ = listed(*keys)
    assert isinstance(found[-1], Unknown)
    assert "order" in found[-1].reason


@pytest.mark.parametrize("key", ["a//b.png", "/a.png", "a/../b.png", "./a.png", "a/./b", "a\0.png"])
def test_a_key_that_is_no_path_is_left_out_and_counted(listed: Callable, key: str):
    assert listed(key) == ([], [NO_PATH])


@pytest.mark.process
def test_a_listing_of_many_keys_is_merged_in_bounded_memory():
    """300 MB for 10 million keys; a list of them would take 3 GB."""
    script = CHECKOUT / "benchmarks" / "listing.py"
    done = subprocess.run(
        [sys.executable, script, "--keys", "200000"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_source_of_another_package_is_found_by_its_entry_point(tmp_path: Path):
    with registered(tmp_path):
        source = source_of("simulated://2500")
        assert first(source.files(), 1) == [key_of(0)]
        assert sum(1 for _ in source.files()) == 2500


def test_a_folder_is_a_source_as_well(tmp_path: Path):
    for each in ("b.png", "a/c.png", "a.png"):
        (tmp_path / each).parent.mkdir(exist_ok=True)
        (tmp_path / each).write_bytes(png(1))
    (tmp_path / "link").symlink_to(tmp_path / "a")
    source = source_of(str(tmp_path))
    found = list(source.files())
    assert [each.key for each in found] == ["a.png", "a/c.png", "b.png"]
    assert FileState.of(source.status("a/c.png")) == found[1].state
    with source.open("b.png") as (content, status):
        assert (content.read(), FileState.of(status)) == (png(1), found[2].state)
    assert source.check() == tmp_path.stat().st_dev
    with pytest.raises(FileNotFoundError):
        source_of(str(tmp_path / "none")).check()


# -- the change key --------------------------------------------------------------------------


def test_the_tag_is_in_the_fraction_of_the_second():
    times = {change_ns(1_700_000_000.0, tag) for tag in ("a", "b", "a-2", "")}
    assert len(times) == 4
    assert {each // 10**9 for each in times} == {1_700_000_000}
    # A server that tells fractions in a listing and none in a look at one file.
    assert change_ns(1_700_000_000.25, "a") == change_ns(1_700_000_000.0, "a")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError('Could not connect to "https://me:hushhush@s3.example.com/b?list-type=2"'),
        RuntimeError("https://a.blob.example.com/c/d.png?sv=2024&sig=hushhush is away"),
        OSError(5, "proxy http://hushhush@10.0.0.1:3128 refuses"),
        ValueError("abfs://box@account.example.com/x?sig=hushhush"),
    ],
)
def test_what_libraries_say_is_passed_on_without_secrets(error: Exception):
    def fail() -> None:
        raise error

    with pytest.raises(SourceError) as failed:
        answered(fail)
    assert "hushhush" not in str(failed.value)
    assert str(failed.value)


# -- S3 --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keys",
    [
        [f"r/{number:04}.png" for number in range(60)],
        [f"r/{folder}/{number}.png" for folder in "abcdefg" for number in range(9)],
        [f"r/only/one/{folder}/{number}.png" for folder in "xyz" for number in range(20)],
        [f"r/IMG_{number:05}.png" for number in range(55)] + ["r/z.png", "r/ä.png", "r/😀.png"],
        ["r/a.png", "r/a/b.png", "r/a/b/c.png", "r/a0.png", *(f"r/a/{n}" for n in range(30))],
        [],
    ],
    ids=["flat", "folders", "one folder", "letters", "mixed", "empty"],
)
def test_a_listing_in_ranges_has_each_key_once_and_in_order(bucket: Bucket, keys: list[str]):
    for each in keys:
        bucket.put(each, b"x")
    bucket.put("q.png", b"x")
    bucket.put("s.png", b"x")
    source = S3Source(bucket.url("r"))
    source.page_keys, source.range_files = 5, 10
    expected = sorted(each.removeprefix("r/") for each in keys)
    assert [each.key for each in source.files()] == expected
    # By what the first listing found.
    bucket.put("r/new.png", b"x")
    bucket.delete(*keys[3:9])
    expected = sorted({*expected, "new.png"} - {each.removeprefix("r/") for each in keys[3:9]})
    assert [each.key for each in source.files()] == expected


def test_a_listing_and_a_look_at_an_object_agree(bucket: Bucket):
    bucket.put("r/a b+ü.png", png(1))
    source = source_of(bucket.url("r"))
    (found,) = source.files()
    assert FileState.of(source.status(found.key)) == found.state
    with source.open(found.key) as (content, status):
        assert (content.read(), FileState.of(status)) == (png(1), found.state)
    with source.open(found.key, only_bytes=4) as (content, status):
        assert (content.read(), FileState.of(status)) == (png(1)[:4], found.state)
    for missing in ("r", "none.png"):
        with pytest.raises(FileNotFoundError):
            source.status(missing)


# -- any other file system of fsspec ---------------------------------------------------------


def test_a_source_of_fsspec_lists_and_opens(tmp_path: Path):
    for each in ("b.png", "a/c.png", "a.png", "a/b/d.png"):
        (tmp_path / "r" / each).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "r" / each).write_bytes(png(1))
    handler = partial(_Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = FsspecSource(f"http://127.0.0.1:{server.server_port}/r")
        found = list(source.files())
        assert [each.key for each in found] == ["a.png", "a/b/d.png", "a/c.png", "b.png"]
        for each in islice(found, 2):
            assert FileState.of(source.status(each.key)) == each.state
        with source.open("a.png") as (content, _status):
            assert content.read() == png(1)
        with pytest.raises(FileNotFoundError):
            source.status("none.png")
        with pytest.raises(FileNotFoundError):
            FsspecSource(f"http://127.0.0.1:{server.server_port}/none").check()
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass
