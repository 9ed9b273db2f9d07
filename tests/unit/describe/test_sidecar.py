"""Files beside a picture: each kind, several at once, and what makes no sense."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import orjson
import pytest
from PIL import Image

from es_imgsearch.describe.sidecar import SIDECAR_ID, Sidecar, sidecar_fields
from es_imgsearch.describe.sidecars.names import Listing, is_sidecar
from es_imgsearch.describe.sidecars.table import named_pictures
from tests.unit.describe.test_iptc import OF_XMP, XMP

IMAGE = Image.new("RGB", (4, 4))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"")
    return path


def said(picture: Path) -> dict[str, Any]:
    fields = sidecar_fields(str(picture))
    fields.pop(SIDECAR_ID, None)
    return fields


def put(picture: Path, name: str, value: Any) -> None:
    content = value if isinstance(value, bytes) else orjson.dumps(value)
    (picture.parent / name).write_bytes(content)


def test_without_any_there_is_nothing(picture: Path):
    assert sidecar_fields(str(picture)) == {}


@pytest.mark.parametrize("name", ["a.json", "a.jpg.json"])
def test_json_gives_fields_and_free_attributes(picture: Path, name: str):
    put(picture, name, {
        "product_id": 4711, "title": "Scarf", "creator": "Ada", "rating": 5,
        "keywords": ["silk", "red"], "source_url": "https://shop.example/4711",
        "attributes": {"material": "silk"},
        "size": {"width_cm": 30.5, "nothing": None}, "in_stock": True,
    })  # fmt: skip
    assert said(picture) == {
        "product_id": "4711", "title": "Scarf", "creator": "Ada", "rating": 5,
        "keywords": ["silk", "red"], "source_url": "https://shop.example/4711",
        "attributes": {"material": "silk", "size": {"width_cm": "30.5"}, "in_stock": "true"},
    }  # fmt: skip


@pytest.mark.parametrize("name", ["a.xmp", "a.jpg.xmp"])
def test_xmp_gives_what_it_gives_in_the_file_and_the_product_too(picture: Path, name: str):
    packet = XMP.replace('xmp:Rating="4"', 'xmp:Rating="4" dc:identifier="4711"'
                         ' dc:source="https://shop.example/4711"')  # fmt: skip
    put(picture, name, packet.encode())
    assert said(picture) == OF_XMP | {
        "product_id": "4711", "source_url": "https://shop.example/4711",
    }  # fmt: skip


def test_a_row_of_the_table_gives_fields_and_attributes(picture: Path):
    table = "\ufefffile_name,title,keywords,colour\r\nb.jpg,B,,\r\na.jpg,Größe,red; silk,blue\r\n"
    put(picture, "metadata.csv", table.encode())
    assert said(picture) == {
        "title": "Größe", "keywords": ["red", "silk"], "attributes": {"colour": "blue"},
    }  # fmt: skip
    assert said(picture.with_name("c.jpg")) == {}


def test_a_table_that_changed_is_read_anew(picture: Path):
    put(picture, "metadata.csv", b"file_name,title\na.jpg,one\n")
    assert said(picture) == {"title": "one"}
    put(picture, "metadata.csv", b"file_name,title\na.jpg,another\n")
    assert said(picture) == {"title": "another"}


def test_the_nearer_file_counts_and_attributes_add_up(picture: Path):
    put(picture, "metadata.csv", b"file_name,title,description,shelf\na.jpg,table,table,3\n")
    put(picture, "a.xmp", XMP.encode())
    put(picture, "a.json", {"title": "json", "room": 7})
    put(picture, "a.jpg.json", {"title": "nearest"})
    assert said(picture) == OF_XMP | {
        "title": "nearest", "attributes": {"shelf": "3", "room": "7"},
    }  # fmt: skip


def test_what_one_file_does_not_say_another_may(picture: Path):
    put(picture, "metadata.csv", b"file_name,product_id,source_url\na.jpg,P-1,https://a.example\n")
    bare = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF'
    bare += ' xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description'
    bare += ' xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"/></rdf:RDF></x:xmpmeta>'
    put(picture, "a.xmp", bare.encode())
    found = said(picture)
    assert (found["product_id"], found["source_url"]) == ("P-1", "https://a.example")
    assert found["rating"] == 4


def test_the_id_tells_what_was_said_and_nothing_else(picture: Path):
    def now() -> str | None:
        return sidecar_fields(str(picture)).get(SIDECAR_ID)

    assert now() is None
    put(picture, "a.json", {"title": "x", "shelf": 3})
    first = now()
    put(picture, "a.json", b'{ "shelf":3,  "title":"x" }')
    assert now() == first is not None
    put(picture, "a.json", {"title": "x", "shelf": 4})
    assert now() != first


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", b"{", "a.json is no JSON"),
        ("a.json", b"[1]", "no JSON object"),
        ("a.jpg.xmp", b"<x", "a.jpg.xmp is malformed XMP"),
    ],
)
def test_what_cannot_be_understood_is_told(picture: Path, name: str, content: bytes, words: str):
    put(picture, name, content)
    with pytest.raises(ValueError, match=words):
        Sidecar().describe(IMAGE, Image.Exif(), str(picture))


def test_neither_a_pipe_nor_a_huge_file_is_read(picture: Path):
    os.mkfifo(picture.with_suffix(".xmp"))
    assert said(picture) == {}
    with open(picture.with_suffix(".json"), "wb") as file:
        file.truncate(5 * 1024 * 1024)
    with pytest.raises(ValueError, match="larger than 4 MB"):
        said(picture)


def test_names_and_values_are_such_as_elasticsearch_takes(picture: Path):
    deep: Any = "x"
    for _ in range(40):
        deep = {"k" * 300: deep}
    put(picture, "a.json", {"": 1, "a\0b": 2, "long": "y" * 40_000, "deep": deep, "none": None})
    found = said(picture)["attributes"]
    assert found["a"] == "2"
    assert len(found["long"]) == 1024
    assert found.keys() == {"a", "long"}


def test_the_browser_says_where_a_file_is_from(picture: Path):
    try:
        os.setxattr(picture, "user.xdg.origin.url", b"https://example.org/a.jpg")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    fields = Sidecar().describe(IMAGE, Image.Exif(), str(picture))
    assert fields == {"source_url": "https://example.org/a.jpg"}
    put(picture, "a.json", {"source_url": "https://example.org/shop"})
    fields = Sidecar().describe(IMAGE, Image.Exif(), str(picture))
    assert fields["source_url"] == "https://example.org/shop"


@pytest.mark.parametrize(
    "table", [b"name,title\na.jpg,x\n", b"file_name,title\nb.jpg,\xe4\n", b"", b'"'],
    ids=["of something else", "malformed", "empty", "no CSV at all"],
)  # fmt: skip
def test_a_table_is_read_once_whatever_is_in_it(
    picture: Path, table: bytes, monkeypatch: pytest.MonkeyPatch
):
    put(picture, "metadata.csv", table)
    opened: list[str] = []
    open_file = os.open

    def counting(path: str, *given: Any) -> int:
        opened.append(os.path.basename(path))
        return open_file(path, *given)

    monkeypatch.setattr(os, "open", counting)
    is_ours = table.startswith(b"file_name")
    for n in range(20):
        if is_ours:
            assert sidecar_fields(str(picture.with_name("b.jpg")))["title"] == "ä"
        else:
            assert sidecar_fields(str(picture.with_name(f"{n}.jpg"))) == {}
    assert (named_pictures(str(picture.parent)) is not None) is is_ours
    assert opened.count("metadata.csv") == 1


def test_which_pictures_a_file_is_about():
    names = ["a.jpg", "a.png", "a.jpg.xmp", "b.jpg", "a", "metadata.csv", "a.json"]
    listing = Listing(names)
    assert listing.about("a.json") == ["a.jpg", "a.png", "a"]
    assert listing.about("a.jpg.xmp") == ["a.jpg"]
    assert listing.about("nobody.xmp") == []
    assert listing.about("metadata.csv") == ["a.jpg", "a.png", "b.jpg", "a"]
    assert [name for name in names if is_sidecar(name)] == ["a.jpg.xmp", "metadata.csv", "a.json"]
