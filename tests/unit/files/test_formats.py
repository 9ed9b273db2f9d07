"""Write vector files, read them back, make rows of them; no server."""

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

from es_imgsearch.elastic.mapping import index_body, new_meta
from es_imgsearch.elastic.meta import Seal
from es_imgsearch.errors import FileInvalid, LibraryMissing, UsageError
from es_imgsearch.files.columns import Column, ColumnKind, Origin, column_values, mapped_columns
from es_imgsearch.files.formats import check_can_replace, check_can_write, open_reader, open_writer
from es_imgsearch.manage.transfer.rows import RowPlan
from es_imgsearch.records import Grid, image_id
from tests.support.processes import without_root

DIMS = 4
SEAL = Seal("fake", "1", DIMS, "f" * 8)
SUFFIXES = ["parquet", "h5"]


def properties(similarity: str = "cosine") -> dict[str, Any]:
    extra = {"checked": {"type": "boolean"}}
    body = index_body(new_meta(SEAL, "exact", similarity), [extra])
    return body["mappings"]["properties"]


COLUMNS = mapped_columns(properties())
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
        writer.write(column_values(columns, hits[start : start + 3], BITS))
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


def own_plan(**options: Any) -> RowPlan:
    names = {each.name: each.name for each in COLUMNS if each.name != "image_id"}
    names["other_values"] = "other_values"
    return RowPlan(properties(), names, paths_are_stored=True, **options)


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
def test_the_file_records_the_origin_of_its_vectors(tmp_path: Path, suffix: str):
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
def test_a_file_of_another_format_is_refused(tmp_path: Path, suffix: str):
    path = tmp_path / f"x.{suffix}"
    with pytest.raises(FileInvalid, match="no file"):
        open_reader(path)
    path.write_bytes(b"PAR1 and nothing else" * 20)
    with pytest.raises(FileInvalid, match="cannot be read"):
        open_reader(path)


def test_a_truncated_file_is_refused(tmp_path: Path):
    path = written(tmp_path / "x.parquet", HITS)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FileInvalid):
        open_reader(path)


def test_a_file_of_another_suffix_is_refused(tmp_path: Path):
    path = tmp_path / "x.csv"
    path.touch()
    with pytest.raises(UsageError, match="parquet"):
        open_reader(path)


@pytest.mark.parametrize(("suffix", "library"), [("parquet", "pyarrow"), ("h5", "h5py")])
def test_a_missing_library_is_named_with_the_install_command(
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


# -- regions -------------------------------------------------------------------------------

GRID = Grid.parse("3x3")
TILED = mapped_columns(
    index_body(new_meta(SEAL, "exact", "cosine", grid=GRID))["mappings"]["properties"]
)


def tiled_hit(n: int, count: int) -> dict[str, Any]:
    regions = [
        {
            "_nested": {"offset": place},
            "_source": {"box": [place, n, 2**24 + 1, 5]},
            "fields": {"regions.embedding": [[place + 0.1, n, -1e-30, 1 / 3]]},
        }
        for place in range(count)
    ]
    # The server gives the best first, and there is no best.
    return hit(n) | {"inner_hits": {"regions": {"hits": {"hits": regions[::-1]}}}}


TILES = [9, 0, 1, 0, 4]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_regions_are_read_back_row_by_row(tmp_path: Path, suffix: str, size: int):
    hits = [tiled_hit(n, count) for n, count in enumerate(TILES)]
    path = written(tmp_path / f"x.{suffix}", hits, TILED)
    reader = open_reader(path)
    assert reader.regions == {"regions"}
    assert reader.dims["regions"] == DIMS
    read = [each for batch in reader.batches(["regions"], size) for each in batch["regions"]]
    assert [len(each) for each in read] == TILES
    for n, regions in enumerate(read):
        for place, region in enumerate(regions):
            assert region.box == (place, n, 2**24 + 1, 5)
            expected = np.array([place + 0.1, n, -1e-30, 1 / 3], np.float32)
            assert region.vector.tobytes() == expected.tobytes()
    reader.close()


def test_regions_can_be_read_by_other_programs(tmp_path: Path):
    hits = [tiled_hit(n, count) for n, count in enumerate(TILES)]
    frame = pq.read_table(written(tmp_path / "x.parquet", hits, TILED)).to_pandas()
    assert frame["regions"][1] is None
    assert [len(each) for each in frame["regions"].dropna()] == [9, 1, 4]
    assert frame["regions"][4][3]["box"].tolist() == [3, 4, 2**24 + 1, 5]
    with h5py.File(written(tmp_path / "x.h5", hits, TILED)) as file:
        regions = file["fields/regions"]
        assert regions["offsets"][:].tolist() == [0, 9, 9, 10, 10, 14]
        assert regions["box"].shape == (14, 4)
        assert regions["embedding"][10:14, 0].tolist() == np.arange(0.1, 4, dtype="f4").tolist()


REGION_PARTS: dict[str, Any] = {
    "box": np.ones((1, 4), int),
    "embedding": np.ones((1, DIMS), np.float32),
    "offsets": [0, 1],
}
COMPOUND = np.zeros((1, DIMS), [("real", "f4"), ("imaginary", "f4")])


@pytest.mark.parametrize(
    "other",
    [
        {"box": np.ones(4), "embedding": np.ones(DIMS)},
        *({part: None} for part in REGION_PARTS),
        *({part: h5py.Empty("i8")} for part in REGION_PARTS),
        *({part: h5py.SoftLink("/nowhere")} for part in REGION_PARTS),
        {"box": np.array([list("abcd")], "S1")},
        {"embedding": COMPOUND},
        {"offsets": COMPOUND[0, :2]},
        {"offsets": [0.0, 1.0]},
    ],
    ids=str,
)
def test_a_group_of_other_shapes_holds_no_regions(tmp_path: Path, other: dict[str, Any]):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["relative_path"] = ["a"]
        for part, value in (REGION_PARTS | other).items():
            if value is None:
                file.create_group(f"regions/{part}")
            else:
                file[f"regions/{part}"] = value
    reader = open_reader(path)
    assert (reader.regions, list(reader.names)) == (frozenset(), ["relative_path"])
    assert [each["relative_path"] for each in reader.batches(reader.names, 10)] == [["a"]]


@pytest.mark.parametrize("offsets", [[0, 2, 1], [0, 1, 9]])
def test_offsets_that_do_not_fit_are_refused(tmp_path: Path, offsets: list[int]):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file["relative_path"] = ["a", "b"]
        file["regions/box"] = np.ones((2, 4), int)
        file["regions/embedding"] = np.ones((2, DIMS))
        file["regions/offsets"] = offsets
    with pytest.raises(FileInvalid, match="offsets of its /regions"):
        list(open_reader(path).batches(["regions"], 10))


# -- files that may be written ---------------------------------------------------------------


@pytest.mark.parametrize("check", [check_can_write, check_can_replace])
@pytest.mark.parametrize(
    ("folder_mode", "file_mode", "allowed"),
    [
        (0o777, None, {check_can_write, check_can_replace}),
        (0o555, None, set()),
        (0o777, 0o444, {check_can_replace}),
        (0o555, 0o666, {check_can_write}),
    ],
)
def test_a_file_may_be_written_in_its_place_or_replaced(
    tmp_path: Path, check: Any, folder_mode: int, file_mode: int | None, allowed: set[Any]
):
    file = tmp_path / "folder" / "x.png"
    file.parent.mkdir()
    if file_mode is not None:
        file.touch()
        file.chmod(file_mode)
    file.parent.chmod(folder_mode)

    def ask() -> str:
        try:
            check(file)
        except UsageError as error:
            return str(error)
        return "allowed"

    said = without_root(ask, tmp_path)
    file.parent.chmod(0o755)
    if check in allowed:
        assert said == "allowed"
    else:
        assert f"{str(file)!r} may not be written" in said


# -- files of other programs ---------------------------------------------------------------


def foreign(tmp_path: Path, **columns: Any) -> Path:
    path = tmp_path / "foreign.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def plan_of(*names: str, **options: Any) -> RowPlan:
    return RowPlan(
        properties(options.pop("similarity", "cosine")), {n: n for n in names}, **options
    )


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
    vectors = [UNIT, None, [0.5, 0.25, -1, 2]]
    values = [None if each is None else np.array(each, np.float16) for each in vectors]
    if kind.value_type != pa.float16():
        values = vectors
    path = foreign(
        tmp_path,
        relative_path=["a.jpg", "b.jpg", "c.jpg"],
        image_embedding=pa.array(values, kind),
    )
    rows, bad = read_rows(path, plan_of("relative_path", "image_embedding", root="r"))
    assert [row.vectors["image_embedding"].tolist() for row in rows] == [vectors[0], vectors[2]]
    assert [each.number for each in bad] == [2]
    assert rows[0].image_id == image_id("r", "a.jpg")
    assert rows[0].fields["folder"] == "."


def test_lists_of_any_length_are_read_where_nothing_else_uses_pyarrow(tmp_path: Path):
    """In a process of its own: others import more of it than the reader does."""
    path = foreign(tmp_path, relative_path=["a.jpg"], image_embedding=[UNIT])
    code = (
        "import sys; from pathlib import Path\n"
        "from es_imgsearch.files.formats import open_reader\n"
        "(batch,) = open_reader(Path(sys.argv[1])).batches(['image_embedding'], 10)\n"
        "print(batch['image_embedding'].tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.stdout.strip() == str([UNIT]), done.stderr


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


def test_vectors_that_cannot_be_stored_are_reported_by_row(tmp_path: Path):
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
        (reason,) = bad_reasons(tmp_path, similarity, vectors).values()
        assert reason.endswith(f"1.414 long and has to be 1 for {similarity}")
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
    with pytest.raises(FileInvalid, match="different lengths"):
        open_reader(path)


def test_kinds_of_columns_follow_the_mapping():
    kinds = {each.name: each.kind for each in COLUMNS}
    assert kinds["mtime_ns"] is ColumnKind.INT
    assert kinds["tags"] is ColumnKind.TEXTS
    assert kinds["location"] is ColumnKind.JSON
    assert kinds["perceptual_hash"] is ColumnKind.TEXT
    assert kinds["checked"] is ColumnKind.BOOL
    assert {each.name: each.dims for each in COLUMNS}["image_embedding"] == DIMS
