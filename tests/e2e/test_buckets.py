"""Roots that are prefixes of buckets, on moto's S3 server and a real Elasticsearch."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient

from es_imgsearch.cli import main
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import LibraryMissing, RootError
from es_imgsearch.search import ImageSearch
from es_imgsearch.serve.app import create_app
from es_imgsearch.serve.thumbnails import PictureFiles
from es_imgsearch.testing import remove_index
from es_imgsearch.watch.given_roots import parse_roots
from tests.support.house import House, until
from tests.support.s3_server import SECRET, Bucket, house_of, png

# Names that a URL, a shell or a sort may take apart; in the order of their bytes.
NAMES = [
    "#1.png",
    "a b/100%.png",
    "a b/c+d.png",
    "a-b.png",
    "a/b.png",
    "a.png",
    "what?.png",
    "ä/ö.png",
    "\U0001f408.png",
    "[x]*.png",
]


pytestmark = pytest.mark.process


@pytest.fixture
def there(bucket: Bucket, house: House) -> House:
    return house_of(bucket, house)


def fill(bucket: Bucket, number: int) -> None:
    for each in range(number):
        bucket.put(f"r/{each:03}.png", png(each))


def paths(house: House) -> list[str]:
    return sorted(path for _, path in house.indexed())


# -- sync ------------------------------------------------------------------------------------


def test_a_prefix_is_indexed_as_a_folder_is_and_a_second_sync_reads_nothing(
    bucket: Bucket, there: House
):
    for seed, name in enumerate(NAMES):
        bucket.put(f"r/{name}", png(seed))
    bucket.put("r/copy-of-0.png", png(0))
    bucket.put("r/without-suffix", png(50))
    bucket.put("r/broken.png", b"no picture")
    bucket.put("r/empty.png", b"")
    bucket.put("r/notes.txt", b"text")
    bucket.put("r/folder/", b"")
    bucket.put("r/.hidden/x.png", png(60))
    bucket.put("rest/x.png", png(61))
    first = there.synced()
    assert (first.counts.embedded, first.counts.reused, first.counts.failed) == (11, 1, 2)
    assert paths(there) == sorted([*NAMES, "copy-of-0.png", "without-suffix"])
    assert sorted(path for _, path in there.failed()) == ["broken.png", "empty.png"]
    # One request for each file that may be a picture, two for one without a suffix.
    assert len(bucket.read()) == len(NAMES) + 1 + 2 + 2
    assert not any("notes.txt" in each or "hidden" in each for each in bucket.read())
    bucket.delete("r/without-suffix")
    again = there.synced()
    assert (again.counts.stored, again.counts.failed, again.counts.deleted) == (0, 0, 1)
    assert len(bucket.read()) == len(NAMES) + 1 + 2 + 2


def test_an_object_written_anew_within_the_second_with_as_many_bytes_is_read(
    bucket: Bucket, there: House
):
    """S3 tells whole seconds: only the ETag differs."""
    one, other = png(1), png(2)
    padded = max(len(one), len(other))
    bucket.put("r/a.png", one.ljust(padded, b"\0"))
    there.synced()
    (before,) = there.indexed().values()
    bucket.put("r/a.png", other.ljust(padded, b"\0"))
    there.synced()
    (after,) = there.indexed().values()
    assert before[0] == after[0] == padded
    assert before[2] != after[2]  # the content


def test_an_object_that_is_moved_is_not_embedded_again(bucket: Bucket, there: House):
    fill(bucket, 3)
    there.synced()
    bucket.put("r/new/name.png", png(1))
    bucket.delete("r/001.png")
    moved = there.synced()
    assert (moved.counts.embedded, moved.counts.moved) == (0, 1)
    assert paths(there) == ["000.png", "002.png", "new/name.png"]


# -- what is deleted -------------------------------------------------------------------------


def test_a_prefix_that_is_suddenly_empty_deletes_nothing(bucket: Bucket, there: House):
    fill(bucket, 3)
    there.synced()
    bucket.delete(*bucket.all_keys())
    indexer = there.synced()
    assert "empty" in indexer.paused["r"].message(indexer.roots[0], there.store.index)
    assert len(paths(there)) == 3
    # As the message says, for those who mean it.
    assert there.synced(allow_deletes=True).counts.deleted == 3


def test_a_bucket_that_refuses_the_credentials_deletes_nothing(
    bucket: Bucket, there: House, caplog: pytest.LogCaptureFixture
):
    fill(bucket, 3)
    there.synced()
    bucket.delete("r/000.png")
    with bucket.server.refusing():
        indexer = there.synced()
        with pytest.raises(RootError, match="cannot be listed"):
            parse_roots([bucket.url("r")])
    assert "cannot be listed" in indexer.paused["r"].message(indexer.roots[0], there.store.index)
    assert len(paths(there)) == 3
    assert "credentials" in caplog.text
    assert SECRET not in caplog.text
    assert there.synced().counts.deleted == 1


def test_a_bucket_that_is_gone_deletes_nothing(bucket: Bucket, there: House):
    fill(bucket, 3)
    there.synced()
    bucket.remove()
    indexer = there.synced()
    assert "r" in indexer.paused
    assert len(paths(there)) == 3


def test_a_share_of_the_objects_that_is_too_large_is_not_deleted(bucket: Bucket, there: House):
    fill(bucket, 20)
    there.synced()
    bucket.delete(*(f"r/{each:03}.png" for each in range(10)))
    assert "r" in there.synced().paused
    assert len(paths(there)) == 20


# -- watch -----------------------------------------------------------------------------------


def test_a_daemon_polls_and_goes_on_after_the_bucket_was_away(
    bucket: Bucket, there: House, caplog: pytest.LogCaptureFixture
):
    fill(bucket, 2)
    with there.watched():
        until(lambda: len(paths(there)) == 2)
        bucket.put("r/later.png", png(9))
        until(lambda: "later.png" in paths(there))
        bucket.delete("r/000.png")
        until(lambda: "000.png" not in paths(there))
        with bucket.server.refusing(), caplog.at_level(logging.WARNING):
            bucket_is_away = "is not there"
            until(lambda: bucket_is_away in caplog.text)
            assert len(paths(there)) == 2
        bucket.put("r/latest.png", png(10))
        until(lambda: "latest.png" in paths(there))
        assert len(paths(there)) == 3


# -- the commands ----------------------------------------------------------------------------


def run(there: House, *given: str, code: int = 0) -> str:
    result = CliRunner().invoke(
        main, [*given, "--index", there.store.index, "--es-url", there.settings.es_url]
    )
    assert result.exit_code == code, result.output
    return result.output


def test_the_commands_give_urls_as_paths(bucket: Bucket, there: House):
    bucket.put("r/a b.png", png(1))
    bucket.put("r/broken.png", b"no picture")
    bucket.put("r/x.txt", b"text")
    there.synced()
    root = f"r={bucket.url('r')}"
    url = bucket.url("r/a b.png")
    assert run(there, "search", "anything", "--paths").splitlines()[0] == url
    status = json.loads(run(there, "status", "--json"))
    assert status["roots"]["r"]["path"] == bucket.url("r")
    assert "No differences" in run(there, "verify", "--content", root)
    assert bucket.url("r/broken.png") in run(there, "failures")
    bucket.put("r/new.png", png(2))
    bucket.put("r/a b.png", png(3))
    differing = json.loads(run(there, "verify", root, "--json", code=1).partition("\n]")[0] + "]")
    assert {(each["what"], each["path"]) for each in differing} == {
        ("changed", url),
        ("missing", bucket.url("r/new.png")),
    }
    # One object, by its URL.
    assert "changed" in run(there, "verify", url, code=1)
    assert "is no picture" in run(there, "verify", bucket.url("r/x.txt"), code=1)
    assert url not in run(there, "similar", url, "--paths")
    # From any machine: a URL is not of the host that indexed it.
    elsewhere = there.settings.model_copy(update={"host": "another"})
    with ImageSearch(settings=elsewhere, encoder=there.encoder) as client:
        (hit,) = client.search_text("anything", k=5)
        assert str(hit.path) == url


def test_thumbnails_and_originals_of_a_bucket_are_served(
    bucket: Bucket, there: House, tmp_path: Path
):
    bucket.put("r/a.png", png(1))
    there.synced()
    ((_, document),) = there._all(there.store.index, ["image_id"])
    id_ = document["image_id"][0]
    pictures = PictureFiles(there.store, there.settings, tmp_path / "cache")
    with TestClient(create_app(pictures), base_url="http://127.0.0.1:8080") as client:
        assert client.get(f"/thumbnails/{id_}").headers["content-type"] == "image/jpeg"
        original = client.get(f"/images/{id_}")
        assert original.content == png(1)
        part = client.get(f"/images/{id_}", headers={"range": "bytes=0-7"})
        assert (part.status_code, part.content) == (206, png(1)[:8])
        tag = original.headers["etag"]
        assert client.get(f"/images/{id_}", headers={"if-none-match": tag}).status_code == 304
        bucket.delete("r/a.png")
        assert client.get(f"/images/{id_}").status_code == 404


# -- exports ---------------------------------------------------------------------------------


def test_an_export_to_a_bucket_is_in_parts_and_is_imported_from_there(
    bucket: Bucket, there: House, tmp_path: Path
):
    fill(bucket, 7)
    there.synced()
    url = bucket.url("out/vectors.parquet")
    bucket.put("out/vectors.parquet/part-00009.parquet", b"of an earlier, longer export")
    assert "7 pictures" in run(there, "export", url, "--part-rows", "3")
    assert [key.rpartition("/")[2] for key in bucket.all_keys() if key.startswith("out/")] == [
        "_SUCCESS", "part-00000.parquet", "part-00001.parquet", "part-00002.parquet"
    ]  # fmt: skip
    assert bucket.get("out/vectors.parquet/part-00000.parquet")[:4] == b"PAR1"
    local = tmp_path / "one.parquet"
    run(there, "export", str(local))
    bucket.put("single.parquet", local.read_bytes())
    for number, given in enumerate((url, bucket.url("single.parquet"))):
        copy = f"{there.store.index}-{number}"
        where = ["--index", copy, "--es-url", there.settings.es_url]
        try:
            result = CliRunner().invoke(main, ["import", given, *where])
            assert (result.exit_code, "7 rows stored" in result.output) == (0, True), result.output
            result = CliRunner().invoke(main, ["verify", f"r={bucket.url('r')}", *where])
            assert "No differences" in result.output
        finally:
            remove_index(Store(connect(there.settings), copy))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("vectors.h5", "has to end in .parquet"),
        ("vectors", "has to end in .parquet"),
        ("none.parquet", "neither a file nor a part"),
    ],
)
def test_what_cannot_be_imported_from_a_bucket(
    bucket: Bucket, there: House, given: str, words: str
):
    assert words in run(there, "import", bucket.url(given), code=2)


def test_what_cannot_be_exported_to_a_bucket(bucket: Bucket, there: House, tmp_path: Path):
    assert "end in .parquet" in run(there, "export", bucket.url("vectors.h5"), code=2)
    assert "only at a URL" in run(
        there, "export", str(tmp_path / "a.parquet"), "--part-rows", "5", code=2
    )
    with bucket.server.refusing():
        refused = run(there, "export", bucket.url("a.parquet"), code=1)
    assert "cannot be written" in refused
    assert SECRET not in refused


# -- what is given ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("r=s3://", "names no bucket"),
        ("r=s3:///prefix", "names no bucket"),
        ("r=s3://bucket//prefix", "names no bucket"),
        ("r=s3://key:secret@bucket/prefix", "password"),
        ("r=s3://bucket/prefix?versionId=1", "without"),
        ("r=s3://bucket/../prefix", "names no bucket"),
        ("r=file:///home/pictures", "on this machine"),
        ("r=nosuch://bucket/prefix", "nosuch"),
        ("a/b=s3://bucket/prefix", "does not exist"),
    ],
)
def test_a_url_that_cannot_be_a_root_is_refused(given: str, words: str):
    with pytest.raises(RootError, match=words) as refused:
        parse_roots([given])
    assert "secret" not in str(refused.value)


def test_a_protocol_whose_package_is_missing_names_it():
    with pytest.raises(LibraryMissing, match="gcsfs"):
        parse_roots(["gs://bucket/prefix"], is_checked=True)


def test_names_and_overlaps_of_urls():
    given = ["s3://bucket/photos", "other=s3://bucket/photos-2", "S3://third"]
    roots = parse_roots(given, is_checked=True)
    assert [root.name for root in roots] == ["photos", "other", "third"]
    assert str(roots[2].path) == "s3://third"
    with pytest.raises(RootError, match="overlap"):
        parse_roots(["s3://bucket", "s3://bucket/photos"], is_checked=True)
