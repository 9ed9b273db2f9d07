"""Files written and read back, and rows made of them; no server."""

from __future__ import annotations

import builtins
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from es_imgsearch.errors import ExchangeFileInvalid, LibraryMissing, UsageError
from es_imgsearch.exchange.columns import Column, Kind, Origin, columns_of, values_of
from es_imgsearch.exchange.files import open_reader, open_writer
from es_imgsearch.exchange.rows import RowPlan
from es_imgsearch.mapping import Seal, index_body, new_meta
from es_imgsearch.records import image_id

DIMS = 4
SEAL = Seal("fake", "1", DIMS, "f" * 8)
SUFFIXES = ["parquet", "h5"]


def properties(similarity: str = "cosine") -> dict[str, Any]:
    extra = {"checked": {"type": "boolean"}}
    body = index_body(new_meta(SEAL, "exact", similarity), [extra])
    return body["mappings"]["properties"]


COLUMNS = columns_of(properties())
BITS = ["perceptual_hash"]
ORIGIN = Origin(SEAL, "cosine", "balanced", {"photos": {"path": "/p", "host": "h"}})


def hit(n: int, **source: Any) -> dict[str, Any]:
    vector = np.array([n + 0.1, -1e-30, 3e30, 1 / 3], np.float32)
    fields: dict[str, Any] = {"image_embedding": [vector.tolist()]}
    return {"_source": {"root": "photos", "relative_path": f"{n}.jpg", **source}, "fields": fields}


HITS = [
    hit(0),
    hit(
        1,
        tags=["a", "日本", ""],
        mtime_ns=1_763_800_000_123_456_789,
        embed_ms=0.1,
        checked=False,
        location={"lat": 1.5, "lon": -2.25},
        tag_scores={"a": 0.5, "ü": 1e-9},
        caption="",
        size_bytes=0,
    ),
    # None of these fits its column: several values, a number, text with NUL, an empty list.
    hit(2, camera=["a", "b"], title=5, description="x\0y", tags="one", colours=[], width=[1, 2]),
    {**hit(3), "fields": {"perceptual_hash": [[-1, 0, 127, -128, 5, 6, 7, 8]]}},
]


def written(path: Path, hits: list[dict[str, Any]], columns: list[Column] = COLUMNS) -> Path:
    writer = open_writer(path, columns, ORIGIN, at=path)
    for start in range(0, len(hits), 3):
        writer.write(values_of(columns, hits[start : start + 3], BITS))
    writer.close()
    return path


def read_rows(path: Path, plan: RowPlan, size: int = 100):
    reader = open_reader(path)
    rows, bad, first = [], [], 1
    for values in reader.batches(list(plan.names), size):
        good, not_good = plan.rows(values, first)
        rows += good
        bad += not_good
        first += len(good) + len(not_good)
    reader.close()
    return rows, bad


def own_plan(**given: Any) -> RowPlan:
    names = {each.name: each.name for each in COLUMNS if each.name != "image_id"}
    names["other_values"] = "other_values"
    return RowPlan(properties(), names, paths_are_stored=True, **given)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_what_was_written_is_read_back(tmp_path: Path, suffix: str, size: int):
    path = written(tmp_path / f"x.{suffix}", HITS)
    rows, bad = read_rows(path, own_plan(), size)
    assert [each.number for each in rows] == [1, 2, 3]
    # The fourth has no image_embedding.
    assert [each.number for each in bad] == [4]
    assert "image_embedding" in bad[0].reason
    for row, original in zip(rows, HITS, strict=False):
        source = original["_source"]
        assert {name: row.fields[name] for name in source} == source
        added = {"image_id", "image_name", "folder", "indexed_at"}
        assert row.fields.keys() - source.keys() == added
        assert row.image_id == image_id("photos", source["relative_path"])
        vector = np.array(original["fields"]["image_embedding"][0], np.float32)
        assert row.vectors["image_embedding"].tobytes() == vector.tobytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_bit_vector_is_its_hexadecimal_digits(tmp_path: Path, suffix: str):
    path = written(tmp_path / f"x.{suffix}", [HITS[3]])
    (values,) = open_reader(path).batches(["perceptual_hash"], 10)
    assert values["perceptual_hash"] == ["ff007f8005060708"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_file_tells_where_its_vectors_come_from(tmp_path: Path, suffix: str):
    reader = open_reader(written(tmp_path / f"x.{suffix}", HITS))
    assert reader.origin == ORIGIN
    assert reader.rows == len(HITS)
    assert reader.dims["image_embedding"] == DIMS


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_export_of_nothing_is_a_file_of_no_rows(tmp_path: Path, suffix: str):
    path = written(tmp_path / f"x.{suffix}", [])
    assert open_reader(path).rows == 0
    assert read_rows(path, own_plan()) == ([], [])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_no_such_file_is_told(tmp_path: Path, suffix: str):
    path = tmp_path / f"x.{suffix}"
    with pytest.raises(ExchangeFileInvalid, match="no file"):
        open_reader(path)
    path.write_bytes(b"PAR1 and nothing else" * 20)
    with pytest.raises(ExchangeFileInvalid, match="cannot be read"):
        open_reader(path)


def test_a_truncated_file_is_told(tmp_path: Path):
    path = written(tmp_path / "x.parquet", HITS)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ExchangeFileInvalid):
        open_reader(path)


def test_a_file_of_another_suffix_is_refused(tmp_path: Path):
    path = tmp_path / "x.csv"
    path.touch()
    with pytest.raises(UsageError, match="parquet"):
        open_reader(path)


@pytest.mark.parametrize(("suffix", "library"), [("parquet", "pyarrow"), ("h5", "h5py")])
def test_a_missing_library_is_told_with_what_to_install(
    tmp_path: Path, suffix: str, library: str, monkeypatch: pytest.MonkeyPatch
):
    path = written(tmp_path / f"x.{suffix}", HITS)
    real = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name.startswith(library):
            raise ImportError(name)
        return real(name, *arguments)

    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(LibraryMissing, match=r"es-imgsearch\["):
        open_reader(path)


# -- files of other programs ---------------------------------------------------------------


def foreign(tmp_path: Path, **columns: Any) -> Path:
    path = tmp_path / "foreign.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def plan_of(*names: str, **given: Any) -> RowPlan:
    return RowPlan(properties(given.pop("similarity", "cosine")), {n: n for n in names}, **given)


UNIT = [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float32()),
        pa.list_(pa.float64()),
        pa.large_list(pa.float32()),
        pa.list_(pa.float16()),
        pa.list_(pa.float64(), DIMS),
    ],
    ids=str,
)
def test_vectors_come_as_any_list_of_floats(tmp_path: Path, kind: pa.DataType):
    given = [UNIT, None, [0.5, 0.25, -1, 2]]
    values = [None if each is None else np.array(each, np.float16) for each in given]
    if kind.value_type != pa.float16():
        values = given
    path = foreign(
        tmp_path,
        relative_path=["a.jpg", "b.jpg", "c.jpg"],
        image_embedding=pa.array(values, kind),
    )
    rows, bad = read_rows(path, plan_of("relative_path", "image_embedding", root="r"))
    assert [row.vectors["image_embedding"].tolist() for row in rows] == [given[0], given[2]]
    assert [each.number for each in bad] == [2]
    assert rows[0].image_id == image_id("r", "a.jpg")
    assert rows[0].fields["folder"] == "."


def test_lists_of_another_program_are_read_in_a_process_of_their_own(tmp_path: Path):
    """Here pandas and others have imported every part of pyarrow long ago."""
    values = pa.array([UNIT, UNIT], pa.list_(pa.float32()))
    path = foreign(tmp_path, relative_path=["a.jpg", "b.jpg"], image_embedding=values)
    program = (
        "from pathlib import Path; from es_imgsearch.exchange.files import open_reader;"
        f"reader = open_reader(Path({str(path)!r}));"
        "print([each['image_embedding'].shape for each in reader.batches(reader.names[1:], 9)])"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (told.stdout, told.stderr) == ("[(2, 4)]\n", "")


def test_a_path_that_looks_escaped_is_its_own_in_a_foreign_file(tmp_path: Path):
    path = foreign(tmp_path, relative_path=["a/\\x41.jpg"], image_embedding=[UNIT])
    ((row,), _) = read_rows(path, plan_of("relative_path", "image_embedding", root="r"))
    assert row.fields["relative_path"] == "a/\\x5cx41.jpg"
    assert row.image_id == image_id("r", "a/\\x41.jpg")


def test_an_image_name_stands_in_for_a_path(tmp_path: Path):
    path = foreign(tmp_path, image_name=["a.jpg"], image_embedding=[UNIT])
    ((row,), _) = read_rows(path, plan_of("image_name", "image_embedding", root="r"))
    assert (row.fields["relative_path"], row.fields["image_name"]) == ("a.jpg", "a.jpg")


def bad_reasons(tmp_path: Path, similarity: str, vectors: Any) -> dict[int, str]:
    names = [f"{n}.jpg" for n in range(len(vectors))]
    path = foreign(tmp_path, relative_path=names, image_embedding=vectors)
    plan = plan_of("relative_path", "image_embedding", root="r", similarity=similarity)
    rows, bad = read_rows(path, plan)
    assert len(rows) + len(bad) == len(vectors)
    return {each.number: each.reason for each in bad}


def test_vectors_that_cannot_be_stored_are_told_by_their_row(tmp_path: Path):
    vectors = [UNIT, [0.0] * 4, UNIT[:3], [1.0, float("nan"), 0, 0], [float("inf"), 0, 0, 0], UNIT]
    reasons = bad_reasons(tmp_path, "cosine", vectors)
    assert reasons.keys() == {2, 3, 4, 5}
    assert "zero" in reasons[2]
    assert "3 dims instead of 4" in reasons[3]
    assert "finite" in reasons[4]
    assert "finite" in reasons[5]


def test_all_but_cosine_want_vectors_of_unit_length(tmp_path: Path):
    vectors = [UNIT, [1.0, 1.0, 0, 0], [0.6, 0.8, 0, 0]]
    for similarity in ("dot_product", "l2_norm"):
        (told,) = bad_reasons(tmp_path, similarity, vectors).values()
        assert told.endswith(f"1.414 long and has to be 1 for {similarity}")
    assert bad_reasons(tmp_path, "cosine", vectors) == {}


def test_times_maps_and_numbers_take_their_fields_form(tmp_path: Path):
    moment = datetime(2024, 5, 31, 18, 0, tzinfo=UTC)
    path = foreign(
        tmp_path,
        relative_path=["a.jpg", "b.jpg", "c.jpg"],
        image_embedding=[UNIT] * 3,
        taken_at=pa.array([moment, None, None], pa.timestamp("us", "UTC")),
        modified_at=[date(2024, 5, 31), None, None],
        width=[640.0, float("nan"), 1.5],
        location=[{"lat": 1.0, "lon": 2.0}, None, None],
        attributes=pa.array([[("colour", "red")], None, None], pa.map_(pa.string(), pa.string())),
        perceptual_hash=[[255, 0, 1, 2, 3, 4, 5, 6], None, None],
        tags=[["x", "y"], [], None],
    )
    names = pq.read_schema(path).names
    rows, bad = read_rows(path, plan_of(*names, root="r"))
    fields = rows[0].fields
    assert fields["taken_at"] == "2024-05-31T18:00:00.000+00:00"
    assert fields["modified_at"] == "2024-05-31"
    assert fields["width"] == 640
    assert fields["location"] == {"lat": 1.0, "lon": 2.0}
    assert fields["attributes"] == {"colour": "red"}
    assert fields["perceptual_hash"] == "ff00010203040506"
    assert fields["tags"] == ["x", "y"]
    assert "width" not in rows[1].fields
    assert [(each.number, "width" in each.reason) for each in bad] == [(3, True)]


def test_columns_without_a_field_may_become_attributes(tmp_path: Path):
    path = foreign(
        tmp_path, relative_path=["a.jpg"], image_embedding=[UNIT], price=[1.5], shop=["x"]
    )
    plan = plan_of(
        *pq.read_schema(path).names, root="r", as_attributes=frozenset({"price", "shop"})
    )
    ((row,), bad) = read_rows(path, plan)
    assert row.fields["attributes"] == {"price": 1.5, "shop": "x"}
    assert bad == []


def test_hdf5_of_another_program_has_its_datasets_at_the_top(tmp_path: Path):
    path = tmp_path / "x.h5"
    matrix = np.eye(DIMS, dtype=np.float64)
    with h5py.File(path, "w") as file:
        file["relative_path"] = [f"{n}.jpg" for n in range(DIMS)]
        file["image_embedding"] = matrix
        file["width"] = np.arange(DIMS)
    rows, bad = read_rows(path, plan_of("relative_path", "image_embedding", "width", root="r"))
    assert bad == []
    assert [row.fields["width"] for row in rows] == [0, 1, 2, 3]
    assert np.array_equal([row.vectors["image_embedding"] for row in rows], matrix)


def test_hdf5_datasets_of_different_lengths_are_no_table(tmp_path: Path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["relative_path"] = ["a", "b"]
        file["image_embedding"] = np.eye(3)
    with pytest.raises(ExchangeFileInvalid, match="different lengths"):
        open_reader(path)


def test_kinds_of_columns_follow_the_mapping():
    kinds = {each.name: each.kind for each in COLUMNS}
    assert kinds["mtime_ns"] is Kind.INT
    assert kinds["tags"] is Kind.TEXTS
    assert kinds["location"] is Kind.JSON
    assert kinds["perceptual_hash"] is Kind.TEXT
    assert kinds["checked"] is Kind.BOOL
    assert {each.name: each.dims for each in COLUMNS}["image_embedding"] == DIMS
