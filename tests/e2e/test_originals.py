"""Originals of a root are put into a bucket and taken from it, and the index goes on there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from es_imgsearch.cli import main
from tests.support.house import House, paint
from tests.support.s3_server import Bucket, png

pytestmark = pytest.mark.process


def run(house: House, *given: str) -> Result:
    where = ["--index", house.store.index, "--es-url", house.settings.es_url]
    return CliRunner().invoke(main, [*given, *where])


def done(house: House, *given: str, code: int = 0) -> str:
    result = run(house, *given)
    assert result.exit_code == code, result.output
    return result.output


def advised(output: str) -> list[str]:
    return shlex.split(re.findall(r"`es-imgsearch (sync [^`]*)`", output)[-1])


@pytest.fixture
def filled(house: House) -> House:
    """Pictures with odd names, in folders, with sidecars."""
    for number, name in enumerate(["a.png", "b c.png", "ü/d#1.png", "ü/e%2.png", "f+g.png"]):
        path = house.folder / name
        path.parent.mkdir(exist_ok=True)
        paint(path, number)
    (house.folder / "a.png.json").write_text(json.dumps({"title": "A title"}))
    house.synced()
    return house


def test_a_root_moves_into_a_bucket_and_nothing_is_embedded_again(filled: House, bucket: Bucket):
    said = done(filled, "export", "--originals", bucket.url("kept"))
    assert "5 originals" in said
    assert "1 sidecar copied" in said
    name = filled.folder.name
    for path in filled.folder.rglob("*.*"):
        key = f"kept/{name}/{path.relative_to(filled.folder)}"
        assert bucket.get(key) == path.read_bytes()
    # What the message says.
    refused = run(filled, "sync", f"{name}={bucket.url(f'kept/{name}')}")
    assert refused.exit_code == 2
    assert "if its files were copied there, add --take-over" in refused.output
    moved = done(filled, *advised(said))
    assert "0 embedded, 5 reused" in moved
    root = f"{name}={bucket.url(f'kept/{name}')}"
    assert "No differences" in done(filled, "verify", "--content", root)
    assert len(filled.indexed()) == 5


def test_an_export_goes_on_where_it_was_and_overwrites_nothing(filled: House, bucket: Bucket):
    name = filled.folder.name
    bucket.put(f"kept/{name}/a.png", b"somebody else's")
    bucket.put(f"kept/{name}/f+g.png", (filled.folder / "f+g.png").read_bytes())
    said = done(filled, "export", "--originals", bucket.url("kept"), code=1)
    assert "3 originals" in said
    assert "1 were there already" in said
    assert "a.png: another file has its name there, which stays as it is." in said
    assert bucket.get(f"kept/{name}/a.png") == b"somebody else's"
    bucket.delete(f"kept/{name}/a.png")
    again = done(filled, "export", "--originals", bucket.url("kept"))
    assert "1 original " in again
    assert "4 were there already" in again
    assert bucket.get(f"kept/{name}/a.png") == (filled.folder / "a.png").read_bytes()


def test_what_has_changed_since_or_is_gone_is_said_and_the_rest_is_copied(
    filled: House, bucket: Bucket
):
    paint(filled.folder / "a.png", 99)
    (filled.folder / "b c.png").unlink()
    said = done(filled, "export", "--originals", bucket.url("kept"), code=1)
    assert "a.png: it is not what the index holds: index it first." in said
    assert "b c.png: No such file or directory." in said
    assert "2 files could not be copied" in said
    assert "3 originals" in said


def test_originals_are_taken_from_a_bucket_into_a_folder(
    house: House, bucket: Bucket, tmp_path: Path
):
    for number in range(3):
        bucket.put(f"r/{number}/é {number}.png", png(number))
    done(house, "sync", f"r={bucket.url('r')}")
    said = done(house, "export", "--originals", str(tmp_path / "back"))
    assert "3 originals" in said
    for number in range(3):
        assert (tmp_path / "back" / "r" / str(number) / f"é {number}.png").read_bytes() == png(
            number
        )
    assert not list((tmp_path / "back").rglob("*.part"))
    assert "0 embedded, 3 reused" in done(house, *advised(said))
    assert "3 were there already" in done(house, "export", "--originals", str(tmp_path / "back"))


def test_only_what_is_filtered_is_copied(filled: House, bucket: Bucket):
    said = done(
        filled, "export", "--originals", bucket.url("kept"), "--filter", "relative_path=a.png"
    )
    assert "1 original (" in said
    assert len([each for each in bucket.all_keys() if each.endswith(".png")]) == 1


def test_a_bucket_that_refuses_is_said_and_nothing_secret(filled: House, bucket: Bucket):
    with bucket.server.refusing():
        said = done(filled, "export", "--originals", bucket.url("kept"), code=1)
    assert "5 files could not be copied" in said
    assert "credentials" in said


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "Name the file"),
        (["a.parquet", "--originals", "s3://b/p"], "not both"),
        (["--originals", "s3://b/p", "--fields", "tags"], "are for vectors"),
        (["--originals", "s3://b/p", "--part-rows", "5"], "are for vectors"),
        (["--originals", "file:///srv/photos"], "without file"),
        (["--originals", "s3://key:secret@b/p"], "credentials come from the environment"),
        (["--originals", "s3://b/p?versionId=1"], "without '?'"),
        (["--originals", "nosuch://b/p"], "nosuch"),
        (["--originals", "gs://b/p"], "gcsfs"),
        (["--originals", __file__], "is a file"),
    ],
)
def test_where_originals_cannot_go(filled: House, given: list[str], words: str):
    said = done(filled, "export", *given, code=2)
    assert words in said
    assert "secret" not in said
