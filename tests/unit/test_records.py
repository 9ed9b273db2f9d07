"""Names of files on the way to the index and back, and the ids made from them."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from es_imgsearch.records import Root, disk_path, image_id, stored_path

# Any name the kernel takes: bytes without NUL and slash.
names = st.binary(min_size=1, max_size=40).filter(lambda raw: not {0, 0x2F} & set(raw))


@given(names)
@example(b"\xff")
@example(rb"\xff")
@example(rb"\\xff")
@example(rb"\x5cxff")
@example("café.jpg".encode())
@example("café.jpg".encode("latin-1"))
def test_every_name_survives_the_way_to_the_index_and_back(raw: bytes):
    name = os.fsdecode(raw)
    stored = stored_path(name)
    stored.encode("utf-8")
    assert disk_path(stored) == name


@given(names, names)
@example(b"\xff", rb"\xff")
def test_two_names_are_never_stored_as_one(one: bytes, other: bytes):
    same = stored_path(os.fsdecode(one)) == stored_path(os.fsdecode(other))
    assert same == (one == other)


@given(st.lists(names, min_size=1, max_size=4))
def test_a_path_is_stored_component_by_component(raw: list[bytes]):
    parts = [os.fsdecode(each) for each in raw]
    assert stored_path("/".join(parts)) == "/".join(map(stored_path, parts))


def test_plain_names_are_stored_as_they_are():
    assert stored_path("2024/Straße – été.jpg") == "2024/Straße – été.jpg"
    assert stored_path(os.fsdecode(b"caf\xe9.jpg")) == r"caf\xe9.jpg"


def test_ids_differ_by_root_and_path_and_never_change():
    assert len({image_id("photos", "a"), image_id("photos", "b"), image_id("scans", "a")}) == 3
    # The boundary between name and path counts.
    assert image_id("a", "b/c") != image_id("a\0b", "c")


def test_the_path_to_open_keeps_undecodable_bytes(tmp_path: Path):
    root = Root("r", tmp_path)
    raw = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    Path(os.fsdecode(raw)).write_bytes(b"x")
    assert Path(root.absolute(disk_path(r"caf\xe9.jpg"))).read_bytes() == b"x"
