"""Names of files on the way to the index and back, the ids made from them, and small helpers."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from es_imgsearch.records import Root, disk_path, image_id, iso_timestamp, stored_path, unit

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


def test_unit_scales_one_vector_as_it_scales_each_of_many():
    rows = np.random.default_rng(0).normal(size=(7, 96)).astype(np.float32)
    scaled = unit(rows)
    assert scaled.dtype == np.float32
    assert np.allclose(np.linalg.norm(scaled, axis=1), 1.0, atol=1e-6)
    assert all(np.array_equal(unit(row), wanted) for row, wanted in zip(rows, scaled, strict=True))
    assert np.array_equal(
        unit(np.array([[3, 4], [0, 0]], np.int8)), np.float32([[0.6, 0.8], [0, 0]])
    )


def test_timestamps_name_their_offset():
    moment = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=timezone(timedelta(hours=2)))
    assert iso_timestamp(moment) == "2024-05-06T07:08:09+02:00"
    assert iso_timestamp(moment, "milliseconds") == "2024-05-06T07:08:09.123+02:00"
    assert abs(datetime.fromisoformat(iso_timestamp()) - datetime.now(tz=UTC)) < timedelta(
        minutes=1
    )
