"""An index made by version 0.1, restored from its dump, and the folders that it was made from.

The dump is JSON lines: one line an index, with what made it (mappings, settings, aliases), one a
template, and one a document, by sequence number.  `{index}` and `{home}` stand for the alias of the
index and for the folder of the roots.  `dev/dump_version_0_1.py` made it.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
from elasticsearch import Elasticsearch
from PIL import Image, ImageColor

DATA = Path(__file__).resolve().parent.parent / "data" / "index_of_version_0_1"
DUMP = DATA / "index.jsonl.gz"
EXPECTED = DATA / "expected.json"
PLUGIN = DATA / "plugin"

# The name of the machine in the index, whatever the machine of the test is called.
HOST = "maker"
ROOTS = ("album", "travels")
COLOURS = ("red", "green", "blue", "orange", "purple")
ALBUM, TRAVELS = 160, 40
# Of `travels`, what was removed before the index was dumped: 12 of 40 pause deletions.
REMOVED = 12

_FIRST_MTIME_NS = 1_700_000_000_123_456_789
_OPERATIONS_AT_ONCE = 1_000

# -- the folders ---------------------------------------------------------------------------------


def pixels(number: int) -> np.ndarray:
    """32 x 32 pixels, a 4 x 4 grid near one of COLOURS; the first of each is that colour only."""
    colour = np.array(ImageColor.getrgb(colour_of(number)))
    spread = 0 if number < len(COLOURS) else 90
    noise = np.random.default_rng(number).integers(-spread, spread + 1, (4, 4, 3))
    cells = (colour + noise).clip(0, 255).astype(np.uint8)
    return cells.repeat(8, axis=0).repeat(8, axis=1)


def colour_of(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def path_of(number: int) -> str:
    """Where a picture is: root and path below it."""
    name = f"{colour_of(number)}-{number:03}.bmp"
    if number == 7:
        name = "blaue Türen, é.bmp"
    root = "album" if number < ALBUM else "travels"
    folder = f"year {2000 + number // 50}/" if number % 2 else ""
    return f"{root}/{folder}{name}"


def broken_files() -> dict[str, bytes]:
    """Files that cannot be read as pictures, by their path."""
    whole = b"BM" + bytes(52)
    return {
        "album/broken/cut.png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
        "album/broken/cut.gif": b"GIF89a\x10\x00",
        "album/broken/cut.jpg": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
        "album/broken/zeros.bmp": whole,
        "album/broken/cut.webp": b"RIFF\x10\x00\x00\x00WEBPVP8 ",
        "travels/words.jpg": b"\xff\xd8\xff" + b"no picture " * 20,
    }


def write_picture(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Bitmaps are the same bytes whatever library writes them.
    Image.fromarray(pixels(number)).save(path, format="bmp")
    _date(path, number)


def write_folders(home: Path, removed: int = REMOVED) -> None:
    """The folders of the roots, without the last `removed` pictures of `travels`."""
    for number in range(ALBUM + TRAVELS - removed):
        write_picture(home / path_of(number), number)
    for number, (path, content) in enumerate(broken_files().items()):
        (home / path).parent.mkdir(exist_ok=True)
        (home / path).write_bytes(content)
        _date(home / path, 1000 + number)


def removed_paths() -> list[str]:
    return [path_of(number) for number in range(ALBUM + TRAVELS - REMOVED, ALBUM + TRAVELS)]


def _date(path: Path, number: int) -> None:
    moment = _FIRST_MTIME_NS + number * 61_000_000_007
    os.utime(path, ns=(moment, moment))


# -- the index -----------------------------------------------------------------------------------


def restore(client: Elasticsearch, index: str, home: Path) -> None:
    """Make the dumped index, with all that belongs to it, under another name."""
    with gzip.open(DUMP, "rt", encoding="utf-8") as file:
        lines = [_placed(json.loads(line), index, str(home)) for line in file]
    documents: list[dict[str, Any]] = []
    for line in lines:
        if "make" in line:
            client.indices.create(index=line["make"], **line["body"])
        elif "template" in line:
            client.indices.put_index_template(name=line["template"], **line["body"])
        else:
            documents.append(line)
    for name, of_it in groupby(documents, lambda line: line["index"]):
        operations, number = _operations(list(of_it)), 0
        while some := list(islice(operations, _OPERATIONS_AT_ONCE)):
            answer = client.bulk(index=name, operations=[part for each in some for part in each])
            for item in answer["items"]:
                done = item.get("index") or item["delete"]
                assert "error" not in done, done
                assert done["_seq_no"] == number
                number += 1
    client.indices.refresh(index=f"{index}*")


def remove(client: Elasticsearch, index: str) -> None:
    """Take away all indices and templates of that name."""
    patient = client.options(ignore_status=404)
    for name in client.indices.get(index=f"{index}*"):
        patient.indices.delete(index=name)
    for each in patient.indices.get_index_template(name=f"{index}*")["index_templates"]:
        patient.indices.delete_index_template(name=each["name"])


def _operations(documents: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Lines of a bulk, an operation each, after which each document has its old sequence number.

    An unfinished reindex notes up to which one it has carried.  A number that no document has any
    more is used up by a deletion.
    """
    by_number = {each["seq_no"]: each for each in documents}
    for number in range(max(by_number) + 1):
        if (each := by_number.get(number)) is None:
            yield [{"delete": {"_id": f"gap-{number}"}}]
        else:
            yield [{"index": {"_id": each["id"]}}, each["source"]]


def _placed(value: Any, index: str, home: str) -> Any:
    if isinstance(value, str):
        return value.replace("{index}", index).replace("{home}", home)
    if isinstance(value, list):
        return [_placed(each, index, home) for each in value]
    if isinstance(value, dict):
        return {
            _placed(key, index, home): _placed(each, index, home) for key, each in value.items()
        }
    return value
