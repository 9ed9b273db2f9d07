"""Export and import on the real server: what comes out is what went in, to the last bit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from es_imgsearch.cli import main
from es_imgsearch.elastic.client import Connection
from es_imgsearch.elastic.documents import Documents, Write
from es_imgsearch.elastic.mapping import VECTOR_FIELD, new_meta
from es_imgsearch.elastic.region_queries import (
    exact_region_body,
    parse_box,
    region_hits,
    region_knn_body,
)
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.context import open_context
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import (
    EncoderMismatch,
    FileInvalid,
    IndexConflict,
    RootError,
    RowInvalid,
    StoreBusy,
    StoreUnreachable,
    UsageError,
)
from es_imgsearch.manage.transfer.export import export_pictures
from es_imgsearch.manage.transfer.importing import ImportOptions, ImportResult, import_pictures
from es_imgsearch.manage.transfer.rows import BadRow
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.pipeline.sync import sync
from es_imgsearch.records import REGION_VECTOR, FileState, Grid, Root, image_id
from es_imgsearch.settings import Settings
from es_imgsearch.testing import FakeEncoder, remove_index
from es_imgsearch.watch.roots import register_roots
from es_imgsearch.write import smile

DIMS = FakeEncoder.dims
SUFFIXES = ["parquet", "h5"]
SHOP = ImportOptions(root="shop")


def unit_vectors(count: int, dims: int = DIMS, seed: int = 0) -> np.ndarray:
    matrix = np.random.default_rng(seed).normal(size=(count, dims))
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


def colour_vectors(store: Store, count: int) -> np.ndarray | None:
    mapping = store.info().properties.get("colour_embedding")
    return None if mapping is None else unit_vectors(count, mapping["dims"], seed=1)


def documents(store: Store, count: int) -> list[dict[str, Any]]:
    """Pictures with fields of every kind; each third lacks most of them."""
    vectors, colours = unit_vectors(count), colour_vectors(store, count)
    made = []
    for n in range(count):
        path = f"für/{n:04}.jpg"
        document: dict[str, Any] = {
            "image_id": image_id("photos", path),
            "image_name": f"{n:04}.jpg",
            "root": "photos",
            "relative_path": path,
            "folder": "für",
            "content_id": f"content-{n}",
            "size_bytes": n,
            "mtime_ns": 1_763_800_000_123_456_789 + n,
            "indexed_at": "2026-11-22T10:00:00.123+00:00",
            VECTOR_FIELD: vectors[n],
        }
        if n % 3:
            document |= {
                "taken_at": "2024-05-31T18:00:00",
                "taken_local": "2024-05-31T18:00:00",
                "taken_from": "exif",
                "tags": [f"tag {n}", "日本 😀"],
                "tag_scores": {"a": 0.1, "b": 1e-9},
                "location": {"lat": 48.1, "lon": -11.5},
                "caption": "word " * n,
                "camera": ["several", "values"],
                "embed_ms": 0.1 * n,
                "attributes": {"nested": {"name": "x"}, "text": "a\tb"},
                "perceptual_hash": f"{(2**64 - 1 - n):016x}",
            }
            if colours is not None:
                document["colour_embedding"] = colours[n]
        made.append(document)
    return made


def write_all(store: Store, made: list[dict[str, Any]]) -> None:
    results = store.documents.write([Write(each["image_id"], document=each) for each in made])
    assert set(results.values()) == {None}
    store.refresh()


def contents(store: Store) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Source and vectors of every document, as the server gives them."""
    names = [n for n, m in store.info().properties.items() if m.get("type") == "dense_vector"]
    store.refresh()
    answer = store.connection.client.search(
        index=store.index, size=10_000, docvalue_fields=names, source_excludes=["indexed_at"]
    )
    return {
        hit["_id"]: (hit["_source"], hit.get("fields", {})) for hit in answer.body["hits"]["hits"]
    }


@pytest.fixture
def new_index(settings: Settings):
    """Makes stores of further indices, and removes what they made."""
    made: list[Store] = []

    def make() -> tuple[Store, Settings]:
        given = settings.model_copy(update={"index": f"{settings.index}-{len(made)}"})
        from es_imgsearch.elastic.client import connect

        made.append(Store(connect(given), given.index))
        return made[-1], given

    yield make
    for store in made:
        remove_index(store)
        store.connection.client.close()


MakeIndex = Callable[[], tuple[Store, Settings]]


@pytest.fixture
def full_store(real_store: Store, fake_encoder: FakeEncoder) -> Store:
    real_store.generations.create(new_meta(seal_of(fake_encoder), "balanced", "cosine"))
    real_store.generations.update_meta(
        lambda meta: meta.with_root("photos", {"path": "/far/photos", "host": "far"})
    )
    write_all(real_store, documents(real_store, 30))
    return real_store


@pytest.fixture
def fake_store(real_store: Store, fake_encoder: FakeEncoder) -> Store:
    real_store.generations.create(new_meta(seal_of(fake_encoder), "exact", "cosine"))
    return real_store


def vector_file(path: Path, vectors: Any, **columns: Any) -> Path:
    names = [f"{n}.jpg" for n in range(len(vectors))]
    listed = [None if each is None else list(map(float, each)) for each in vectors]
    pq.write_table(pa.table({"relative_path": names, VECTOR_FIELD: listed, **columns}), path)
    return path


# -- round trips ---------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("as_ndjson", [False, True], ids=["smile", "ndjson"])
def test_what_is_imported_is_what_was_exported(
    full_store: Store, new_index: MakeIndex, tmp_path: Path, suffix: str, as_ndjson: bool
):
    path = tmp_path / f"all.{suffix}"
    assert export_pictures(full_store, path) == 30
    store, settings = new_index()
    done = import_pictures(store, settings, path, ImportOptions(as_ndjson=as_ndjson))
    assert done == ImportResult(stored=30)
    assert contents(store) == contents(full_store)
    assert store.info().meta.seal == full_store.info().meta.seal
    assert store.info().meta.roots["photos"] == {"path": "/far/photos", "host": "far"}
    assert not list(tmp_path.glob("*.part"))


def test_exported_pages_are_the_whole_index_in_its_order(
    full_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("es_imgsearch.manage.transfer.export._PAGE_FLOATS", 7 * (DIMS + 108))
    path = tmp_path / "all.parquet"
    export_pictures(full_store, path)
    assert pq.ParquetFile(path).num_row_groups >= 4
    table = pq.read_table(path)
    paths = table["relative_path"].to_pylist()
    assert paths == sorted(paths, key=str.encode)
    matrix = np.stack(table[VECTOR_FIELD].to_numpy())
    assert matrix.tobytes() == unit_vectors(30).tobytes()


def test_fields_and_filters_choose_columns_and_rows(full_store: Store, tmp_path: Path):
    path = tmp_path / "some.parquet"
    rows = export_pictures(
        full_store, path, fields=["tags"], filters=[{"range": {"size_bytes": {"lt": 4}}}]
    )
    table = pq.read_table(path)
    assert rows == 4
    assert set(table.column_names) == {"root", "relative_path", "tags", "other_values"}
    tags = table["tags"].to_pylist()
    assert tags == [None, ["tag 1", "日本 😀"], ["tag 2", "日本 😀"], None]
    with pytest.raises(UsageError, match="no field colour"):
        export_pictures(full_store, path, fields=["colour"])


def test_an_export_waits_while_elasticsearch_is_away(
    full_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("es_imgsearch.manage.transfer.export._PAGE_FLOATS", 7 * (DIMS + 108))
    answers = Connection.hits
    asked = 0

    def sometimes(*arguments: Any, **options: Any):
        nonlocal asked
        asked += 1
        if asked == 3:
            raise StoreUnreachable("away")
        return answers(*arguments, **options)

    monkeypatch.setattr(Connection, "hits", sometimes)
    assert export_pictures(full_store, tmp_path / "x.parquet") == 30
    assert asked > 3


def test_an_export_that_fails_leaves_the_file_of_before(
    full_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "x.parquet"
    path.write_bytes(b"before")

    def never(*_: Any, **__: Any):
        raise KeyboardInterrupt

    monkeypatch.setattr(Connection, "hits", never)
    with pytest.raises(KeyboardInterrupt):
        export_pictures(full_store, path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


# -- regions -------------------------------------------------------------------------------

GRID = Grid.parse("2x2+centre")


@pytest.fixture
def tiled_store(real_store: Store, fake_encoder: FakeEncoder) -> Store:
    """40 pictures; each fourth is too small for tiles, the others have 3 to 5."""
    real_store.generations.create(new_meta(seal_of(fake_encoder), "balanced", "cosine", grid=GRID))
    made, tiles = documents(real_store, 40), iter(unit_vectors(200, seed=2))
    for n, each in enumerate(made):
        if n % 4:
            each["regions"] = [
                {"box": [place, n, 64, 1 + n], "embedding": next(tiles)}
                for place in range(2 + n % 4)
            ]
    write_all(real_store, made)
    return real_store


def regions_of(store: Store) -> dict[str, list[tuple[list[int], list[float]]]]:
    """Box and vector of every region of every document, as the server gives them."""
    store.refresh()
    (hits,) = store.listings.pages(
        [], fields=["image_id"], vectors=[], size=1000, with_regions=True
    )
    return {
        hit["_source"]["image_id"]: [
            (each["_source"]["box"], each["fields"][REGION_VECTOR][0]) for each in region_hits(hit)
        ]
        for hit in hits
    }


def found_by_crop(store: Store, body: dict[str, Any]) -> list[tuple[str, list[int], float]]:
    hits = store.connection.client.search(index=store.index, **body)["hits"]["hits"]
    return [(hit["_id"], list(parse_box(region_hits(hit)[0])), hit["_score"]) for hit in hits]


@pytest.mark.parametrize(("suffix", "as_ndjson"), [("parquet", False), ("h5", True)])
def test_an_imported_index_finds_crops_as_the_exported_one_does(
    tiled_store: Store,
    new_index: MakeIndex,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
    as_ndjson: bool,
):
    """In several pages and bulks, loaded flat; document by document, and by a search."""
    floats = DIMS * (1 + GRID.count) + 108
    monkeypatch.setattr("es_imgsearch.manage.transfer.export._PAGE_FLOATS", 13 * floats)
    monkeypatch.setattr("es_imgsearch.manage.transfer.importing._LARGEST_BULK", 7)
    path = tmp_path / f"all.{suffix}"
    assert export_pictures(tiled_store, path) == 40
    store, settings = new_index()
    types: list[str] = []
    notes: list[str] = []
    import_pictures(
        store,
        settings,
        path,
        ImportOptions(as_ndjson=as_ndjson),
        on_progress=lambda *_: types.append(region_index_type(store)),
        note=notes.append,
    )
    assert types[0] == "flat"
    assert region_index_type(store) == "int8_hnsw"
    assert not [each for each in notes if "regions" in each]
    assert store.info().meta.grid == GRID
    before = regions_of(tiled_store)
    assert sorted({len(each) for each in before.values()}) == [0, 3, 4, 5]
    assert regions_of(store) == before
    assert contents(store) == contents(tiled_store)
    for query in unit_vectors(3, seed=3):
        best = [
            (max(np.array(vector) @ query for _, vector in regions), image_id)
            for image_id, regions in before.items()
            if regions
        ]
        exactly = exact_region_body(query.tolist(), 10, "cosine")
        found = found_by_crop(store, exactly)
        assert [key for key, _, _ in found] == [key for _, key in sorted(best, reverse=True)[:10]]
        assert found == found_by_crop(tiled_store, exactly)
    for key, regions in list(before.items())[:8]:
        for box, vector in regions[-1:]:
            body = region_knn_body(vector, 1, store.info().meta.tuning)
            assert [each[:2] for each in found_by_crop(store, body)] == [(key, box)]


def region_index_type(store: Store) -> str:
    mapping = store.info().properties["regions"]["properties"]["embedding"]
    return str(mapping["index_options"]["type"])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_index_without_regions_says_that_it_leaves_them_out(
    tiled_store: Store, new_index: MakeIndex, tmp_path: Path, suffix: str
):
    path = tmp_path / f"all.{suffix}"
    export_pictures(tiled_store, path)
    store, settings = new_index()
    store.generations.create(new_meta(seal_of(FakeEncoder()), "exact", "cosine"))
    result = run(settings, "import", str(path))
    assert result.exit_code == 0, result.output
    assert "stores no regions" in result.stderr
    assert "made by the import or by `es-imgsearch init --regions 2x2+centre`" in result.stderr
    store.refresh()
    assert store.listings.count() == 40
    assert all("regions" not in source for source, _ in contents(store).values())


def test_a_file_without_regions_is_taken_and_told_of(
    tiled_store: Store, new_index: MakeIndex, tmp_path: Path
):
    path = tmp_path / "some.h5"
    chosen = [VECTOR_FIELD, "content_id", "mtime_ns", "size_bytes"]
    export_pictures(tiled_store, path, fields=chosen)
    notes: list[str] = []
    import_pictures(*new_index(), path, ImportOptions(), note=notes.append)
    assert not [each for each in notes if "regions" in each], "its index has none either"
    tiled, settings = new_index()
    tiled.generations.create(new_meta(seal_of(FakeEncoder()), "exact", "cosine", grid=GRID))
    import_pictures(tiled, settings, path, ImportOptions(), note=notes.append)
    assert "has no regions" in notes[-1]
    assert set(map(len, regions_of(tiled).values())) == {0}


def test_regions_of_another_grid_are_refused(
    tiled_store: Store, new_index: MakeIndex, tmp_path: Path
):
    path = tmp_path / "all.parquet"
    export_pictures(tiled_store, path)
    store, settings = new_index()
    store.generations.create(
        new_meta(seal_of(FakeEncoder()), "exact", "cosine", grid=Grid.parse("3x3"))
    )
    with pytest.raises(IndexConflict, match=r"regions 2x2\+centre, .* have 3x3"):
        import_pictures(store, settings, path, ImportOptions())
    assert store.listings.count() == 0


def test_regions_made_elsewhere_are_stored_and_bad_ones_told_by_their_row(
    new_index: MakeIndex, tmp_path: Path
):
    """As pandas writes them, lists of dictionaries."""
    store, settings = new_index()
    store.generations.create(new_meta(seal_of(FakeEncoder()), "exact", "dot_product", grid=GRID))
    tile = unit_vectors(1, seed=4)[0].tolist()
    good = {"box": [0, 0, 20, 30], "embedding": tile}
    regions = [
        [good, {"box": [5, 5, 1, 1], "embedding": tile}],
        None,
        [],
        [good, {**good, "box": [0, 0, 20]}],
        [{**good, "box": [0, 0, 20, 0]}],
        [{**good, "embedding": tile[:-1]}],
        [{**good, "embedding": None}],
        [good, {**good, "embedding": [2 * each for each in tile]}],
        [good] * 17,
    ]
    path = vector_file(tmp_path / "x.parquet", unit_vectors(len(regions)), tiles=regions)
    bad: list[BadRow] = []
    options = replace(SHOP, unknown_columns="attributes")
    with pytest.raises(UsageError, match="--rename tiles=regions"):
        import_pictures(store, settings, path, options)
    options = replace(SHOP, names={"tiles": "regions"}, skip_bad_rows=True)
    done = import_pictures(store, settings, path, options, on_bad_row=bad.append)
    assert done == ImportResult(stored=3, bad=6)
    told = {each.number: each.reason for each in bad}
    assert "regions.box has 3 dims instead of 4" in told[4]
    assert "not x, y, width, height" in told[5]
    assert f"{DIMS - 1} dims instead of {DIMS}" in told[6]
    assert "no vector" in told[7]
    assert "2 long and has to be 1" in told[8]
    assert "17 regions, 16 are the most" in told[9]
    stored = regions_of(store)
    (first, vector), (second, _) = stored[image_id("shop", "0.jpg")]
    assert (first, second) == ([0, 0, 20, 30], [5, 5, 1, 1])
    assert np.array_equal(np.float32(vector), np.float32(tile))
    assert stored[image_id("shop", "1.jpg")] == stored[image_id("shop", "2.jpg")] == []


def test_regions_of_an_unknown_grid_are_kept_only_by_an_index_that_is_made_for_them(
    new_index: MakeIndex, tmp_path: Path
):
    vectors = unit_vectors(1)
    regions = [[{"box": [0, 0, 20, 30], "embedding": vectors[0].tolist()}]]
    path = vector_file(tmp_path / "x.parquet", vectors, regions=regions)
    store, settings = new_index()
    store.generations.create(new_meta(seal_of(FakeEncoder()), "exact", "cosine"))
    notes: list[str] = []
    import_pictures(store, settings, path, SHOP, note=notes.append)
    (note,) = (each for each in notes if "regions" in each)
    assert "into an --index that is made by `es-imgsearch init --regions" in note


def test_a_column_regions_that_holds_none_is_refused_where_the_index_keeps_some(
    new_index: MakeIndex, tmp_path: Path
):
    store, settings = new_index()
    store.generations.create(new_meta(seal_of(FakeEncoder()), "exact", "cosine", grid=GRID))
    path = vector_file(tmp_path / "x.parquet", unit_vectors(1), regions=["Provence"])
    with pytest.raises(FileInvalid, match="holds no regions"):
        import_pictures(store, settings, path, SHOP)


# -- vectors made elsewhere ----------------------------------------------------------------


def test_vectors_made_elsewhere_are_found_as_numpy_finds_them(
    fake_store: Store, settings: Settings, tmp_path: Path
):
    vectors = unit_vectors(200)
    path = vector_file(tmp_path / "x.parquet", vectors)
    assert import_pictures(fake_store, settings, path, SHOP) == ImportResult(stored=200)
    query = unit_vectors(1, seed=9)[0]
    expected = np.argsort(-(vectors @ query))[:10]
    knn = {"field": VECTOR_FIELD, "query_vector": query.tolist(), "k": 10, "num_candidates": 200}
    hits = fake_store.searches.search({"knn": knn})["hits"]["hits"]
    assert [hit["_source"]["relative_path"] for hit in hits] == [f"{n}.jpg" for n in expected]


def test_the_first_bad_row_ends_the_import_and_what_is_stored_stays(
    fake_store: Store, settings: Settings, tmp_path: Path
):
    vectors = [*unit_vectors(5), np.zeros(DIMS), *unit_vectors(2)]
    path = vector_file(tmp_path / "x.parquet", vectors)
    with pytest.raises(RowInvalid, match=r"Row 6 .* zero"):
        import_pictures(fake_store, settings, path, SHOP)
    fake_store.refresh()
    assert fake_store.listings.count() == 7


def test_bad_rows_are_skipped_and_told_whoever_finds_them(
    fake_store: Store, settings: Settings, tmp_path: Path
):
    """Row 2 is zero, row 4 has a date that only the server can refuse."""
    vectors = [*unit_vectors(1), np.zeros(DIMS), *unit_vectors(4)]
    dates = [None, None, None, "the day before", "2024", None]
    path = vector_file(tmp_path / "x.parquet", vectors, taken_at=dates)
    bad: list[BadRow] = []
    options = replace(SHOP, skip_bad_rows=True)
    done = import_pictures(fake_store, settings, path, options, on_bad_row=bad.append)
    assert done == ImportResult(stored=4, bad=2)
    assert sorted(each.number for each in bad) == [2, 4]
    assert "the day before" in next(each.reason for each in bad if each.number == 4)
    assert fake_store.listings.count() == 4


def test_an_imported_date_is_that_of_the_camera(
    fake_store: Store, settings: Settings, tmp_path: Path
):
    dates = ["2024-01-01T00:30:00+09:00", "2024-01-01", None]
    path = vector_file(tmp_path / "x.parquet", unit_vectors(3), taken_at=dates)
    import_pictures(fake_store, settings, path, SHOP)
    found = sorted((each.get("taken_local") or "", each.get("taken_from")) for each in
                   (hit["_source"] for hits in fake_store.listings.pages(
                       [], fields=("taken_local", "taken_from"), vectors=(), size=10)
                    for hit in hits))  # fmt: skip
    assert found == [
        ("", None), ("2024-01-01T00:00:00", "import"), ("2024-01-01T00:30:00", "import"),
    ]  # fmt: skip


@pytest.mark.parametrize("only_new", [False, True])
@pytest.mark.parametrize("has_failures", [False, True])
def test_a_batch_of_bad_rows_only_is_skipped(
    fake_store: Store,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    has_failures: bool,
    only_new: bool,
):
    """Rows 3 and 4, the second batch, are zero; rows 5 and 6 are refused by the server."""
    monkeypatch.setattr("es_imgsearch.manage.transfer.importing._LARGEST_BULK", 2)
    if has_failures:
        failure = {"image_id": "f", "root": "shop", "relative_path": "f.jpg", "error_class": "x"}
        fake_store.documents.write_failures([failure])
    vectors = [*unit_vectors(2), np.zeros(DIMS), np.zeros(DIMS), *unit_vectors(4, seed=1)]
    dates = [None, None, None, None, "the day before", "the day after", None, None]
    path = vector_file(tmp_path / "x.parquet", vectors, taken_at=dates)
    options = replace(SHOP, skip_bad_rows=True, only_new=only_new)
    bad: list[BadRow] = []
    done = import_pictures(fake_store, settings, path, options, on_bad_row=bad.append)
    assert done == ImportResult(stored=4, bad=4)
    assert [each.number for each in bad] == [3, 4, 5, 6]


def test_an_import_run_again_changes_nothing_and_only_new_leaves_what_is_there(
    fake_store: Store, settings: Settings, tmp_path: Path
):
    path = vector_file(tmp_path / "x.parquet", unit_vectors(20))
    import_pictures(fake_store, settings, path, SHOP)
    before = contents(fake_store)
    assert import_pictures(fake_store, settings, path, SHOP).stored == 20
    assert contents(fake_store) == before
    more = vector_file(tmp_path / "y.parquet", unit_vectors(25, seed=5))
    done = import_pictures(fake_store, settings, more, replace(SHOP, only_new=True))
    assert done == ImportResult(stored=5, there_already=20)
    after = contents(fake_store)
    assert {key: after[key] for key in before} == before
    assert len(after) == 25


def test_columns_that_are_no_fields_are_an_error_attributes_or_ignored(
    fake_store: Store, settings: Settings, tmp_path: Path
):
    path = vector_file(tmp_path / "x.parquet", unit_vectors(1), price=[1.5])
    with pytest.raises(UsageError, match="price"):
        import_pictures(fake_store, settings, path, SHOP)
    assert fake_store.listings.count() == 0
    for unknown, expected in (("ignore", None), ("attributes", {"price": 1.5})):
        options = replace(SHOP, unknown_columns=unknown)
        import_pictures(fake_store, settings, path, options)
        assert fake_store.documents.get(image_id("shop", "0.jpg")).get("attributes") == expected


def test_columns_of_other_names_are_renamed(fake_store: Store, settings: Settings, tmp_path: Path):
    path = tmp_path / "x.parquet"
    rows = {"file": ["a.jpg"], "vector": [unit_vectors(1)[0].tolist()]}
    pq.write_table(pa.table(rows), path)
    with pytest.raises(FileInvalid, match="--rename"):
        import_pictures(fake_store, settings, path, SHOP)
    names = {"file": "relative_path", "vector": VECTOR_FIELD}
    import_pictures(fake_store, settings, path, replace(SHOP, names=names))
    assert fake_store.documents.get(image_id("shop", "a.jpg"))["image_name"] == "a.jpg"
    with pytest.raises(UsageError, match="no column path"):
        import_pictures(fake_store, settings, path, replace(SHOP, names={"path": "image_name"}))


def test_a_root_is_needed(fake_store: Store, settings: Settings, tmp_path: Path):
    path = vector_file(tmp_path / "x.parquet", unit_vectors(1))
    with pytest.raises(UsageError, match="--root"):
        import_pictures(fake_store, settings, path, ImportOptions())


# -- seals ---------------------------------------------------------------------------------


def test_vectors_of_another_encoder_are_refused(
    full_store: Store, new_index: MakeIndex, tmp_path: Path
):
    path = tmp_path / "x.parquet"
    export_pictures(full_store, path)
    store, settings = new_index()
    store.generations.create(new_meta(seal_of(FakeEncoder(revision="2")), "exact", "cosine"))
    with pytest.raises(EncoderMismatch, match="revision"):
        import_pictures(store, settings, path, ImportOptions())
    assert store.listings.count() == 0


def test_vectors_of_other_dims_are_refused(fake_store: Store, settings: Settings, tmp_path: Path):
    path = tmp_path / "x.parquet"
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(10, np.float32)), 5)
    pq.write_table(pa.table({"relative_path": ["a", "b"], VECTOR_FIELD: vectors}), path)
    with pytest.raises(EncoderMismatch, match="5 dims"):
        import_pictures(fake_store, settings, path, SHOP)


def test_an_encoder_that_is_not_the_indexs_is_refused(
    fake_store: Store, settings: Settings, tmp_path: Path
):
    path = vector_file(tmp_path / "x.parquet", unit_vectors(1))
    named = settings.model_copy(update={"encoder": "starter"})
    with pytest.raises(EncoderMismatch, match="starter"):
        import_pictures(fake_store, named, path, SHOP)
    same = settings.model_copy(update={"encoder": "fake"})
    assert import_pictures(fake_store, same, path, SHOP).stored == 1
    # Nor is one that the file itself contradicts.
    sealed = tmp_path / "sealed.parquet"
    export_pictures(fake_store, sealed)
    with pytest.raises(EncoderMismatch, match="starter"):
        import_pictures(fake_store, named, sealed, ImportOptions())
    assert import_pictures(fake_store, same, sealed, ImportOptions()).stored == 1


def test_without_a_seal_an_index_is_made_only_for_a_named_encoder(
    new_index: MakeIndex, tmp_path: Path
):
    store, settings = new_index()
    path = vector_file(tmp_path / "x.parquet", unit_vectors(3, dims=384))
    with pytest.raises(UsageError, match="--encoder"):
        import_pictures(store, settings, path, SHOP)
    named = settings.model_copy(update={"encoder": "starter"})
    assert import_pictures(store, named, path, SHOP).stored == 3
    assert store.info().meta.seal.name == "starter"


def test_a_profile_other_than_the_indexs_is_refused(
    fake_store: Store, settings: Settings, tmp_path: Path
):
    path = vector_file(tmp_path / "x.parquet", unit_vectors(1))
    with pytest.raises(IndexConflict, match="profile exact"):
        import_pictures(fake_store, settings, path, replace(SHOP, profile="binary"))


# -- roots ---------------------------------------------------------------------------------


def test_imported_pictures_survive_the_comparison_of_a_watched_folder(
    fake_store: Store, settings: Settings, tmp_path: Path, fake_encoder: FakeEncoder
):
    path = vector_file(tmp_path / "x.parquet", unit_vectors(30))
    import_pictures(fake_store, settings, path, SHOP)
    folder = tmp_path / "photos"
    folder.mkdir()
    root = Root("photos", folder)
    register_roots(fake_store, [root], settings.host)
    context = open_context(fake_store, settings, fake_encoder)
    indexer = Indexer(context, [root], settings, allow_deletes=True)
    try:
        sync(indexer)
    finally:
        indexer.pipeline.close()
    assert fake_store.listings.count("shop") == 30
    # They tell no size and no time; no file is like them.
    assert {each.state for each in fake_store.listings.stored("shop")} == {FileState(-1, -1)}


def test_nobody_can_watch_a_folder_under_the_name_of_imported_pictures(
    fake_store: Store, settings: Settings, tmp_path: Path
):
    import_pictures(
        fake_store, settings, vector_file(tmp_path / "x.parquet", unit_vectors(1)), SHOP
    )
    with pytest.raises(RootError, match="imported"):
        register_roots(fake_store, [Root("shop", tmp_path)], settings.host, replace_gone=True)


def test_a_watched_roots_name_is_not_for_files_from_elsewhere(
    fake_store: Store, settings: Settings, tmp_path: Path
):
    register_roots(fake_store, [Root("shop", tmp_path)], settings.host)
    path = vector_file(tmp_path / "x.parquet", unit_vectors(1))
    with pytest.raises(RootError, match="--root"):
        import_pictures(fake_store, settings, path, SHOP)
    assert fake_store.listings.count() == 0


def test_an_imported_root_of_this_host_needs_no_embedding(
    real_store: Store,
    settings: Settings,
    new_index: MakeIndex,
    tmp_path: Path,
    photographs: Path,
):
    """Out of one index into another: `sync` finds everything as it is."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("chelsea.png", "coffee.png"):
        (folder / name).write_bytes((photographs / name).read_bytes())
    root, embedded = Root("photos", folder), []
    other, other_settings = new_index()
    for store, own_settings in ((real_store, settings), (other, other_settings)):
        encoder = FakeEncoder()
        if store is real_store:
            store.generations.create(new_meta(seal_of(encoder), "exact", "cosine"))
        else:
            export_pictures(real_store, tmp_path / "x.h5")
            import_pictures(store, own_settings, tmp_path / "x.h5", ImportOptions())
        register_roots(store, [root], own_settings.host)
        context = replace(open_context(store, own_settings, encoder), describers=())
        indexer = Indexer(context, [root], own_settings)
        try:
            sync(indexer)
        finally:
            indexer.pipeline.close()
        embedded.append(encoder.pictures_embedded)
    assert embedded == [2, 0]
    assert contents(other) == contents(real_store)


def test_a_watched_root_takes_no_rows_that_cannot_be_compared(
    full_store: Store, new_index: MakeIndex, tmp_path: Path
):
    path = tmp_path / "x.parquet"
    export_pictures(full_store, path, fields=[VECTOR_FIELD])
    store, settings = new_index()
    with pytest.raises(RowInvalid, match="content_id, mtime_ns, size_bytes"):
        import_pictures(store, settings, path, ImportOptions())


def test_an_imported_failure_is_a_failure_no_more(
    fake_store: Store, settings: Settings, tmp_path: Path
):
    key = image_id("shop", "0.jpg")
    failure = {"image_id": key, "root": "shop", "relative_path": "0.jpg", "error_class": "corrupt"}
    fake_store.documents.write([Write(key, failure=failure)])
    path = vector_file(tmp_path / "x.parquet", unit_vectors(2))
    for as_ndjson in (False, True):
        import_pictures(fake_store, settings, path, replace(SHOP, as_ndjson=as_ndjson))
        assert (fake_store.listings.count(), fake_store.listings.count(failures=True)) == (2, 0)
        fake_store.documents.write([Write(key, failure=failure)])


# -- loading -------------------------------------------------------------------------------


def index_state(store: Store) -> tuple[str, str, str, str]:
    body = store.connection.client.indices.get(index=store.index).body[store.info().name]
    index = body["settings"]["index"]
    vector = body["mappings"]["properties"][VECTOR_FIELD]
    return (
        vector["index_options"]["type"],
        str(index.get("refresh_interval")),
        str(index.get("auto_expand_replicas")),
        str(index["number_of_replicas"]),
    )


@pytest.mark.parametrize(
    ("profile", "index_type"),
    [
        ("balanced", "int8_hnsw"),
        ("compact", "int4_hnsw"),
        ("exact", "flat"),
        ("binary", "bbq_hnsw"),
    ],
)
def test_a_new_index_is_loaded_flat_and_ends_as_its_profile_says(
    full_store: Store, new_index: MakeIndex, tmp_path: Path, profile: str, index_type: str
):
    store, settings = new_index()
    settings = settings.model_copy(update={"encoder": "starter"})
    vectors = unit_vectors(300, dims=384)
    path = vector_file(tmp_path / "x.parquet", vectors)
    states: list[tuple[str, str, str, str]] = []
    import_pictures(
        store,
        settings,
        path,
        replace(SHOP, profile=profile),
        on_progress=lambda *_: states.append(index_state(store)),
    )
    assert states[0] == ("flat", "-1", "false", "0")
    assert index_state(store) == (index_type, "1s", "0-1", "0")
    segments = store.connection.client.indices.segments(index=store.index).body["indices"]
    (shard,) = segments[store.info().name]["shards"]["0"]
    assert shard["num_search_segments"] == 1
    assert store.listings.count() == 300
    knn = {
        "field": VECTOR_FIELD, "query_vector": vectors[7].tolist(), "k": 1, "num_candidates": 50,
    }  # fmt: skip
    (hit,) = store.searches.search({"knn": knn})["hits"]["hits"]
    assert hit["_source"]["relative_path"] == "7.jpg"


def test_a_refused_first_row_is_told_once_and_keeps_no_graph_away(
    full_store: Store, new_index: MakeIndex, tmp_path: Path
):
    store, settings = new_index()
    settings = settings.model_copy(update={"encoder": "starter"})
    dates = ["the day before", *[None] * 49]
    path = vector_file(tmp_path / "x.parquet", unit_vectors(50, dims=384), taken_at=dates)
    bad: list[BadRow] = []
    options = replace(SHOP, skip_bad_rows=True)
    done = import_pictures(store, settings, path, options, on_bad_row=bad.append)
    assert [each.number for each in bad] == [1]
    assert done == ImportResult(stored=49, bad=1)
    assert store.listings.count() == 49
    assert index_state(store) == ("int8_hnsw", "1s", "0-1", "0")


def test_an_interrupted_load_is_seen_and_completed_by_the_next(
    full_store: Store, new_index: MakeIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("es_imgsearch.manage.transfer.importing._LARGEST_BULK", 5)
    path = tmp_path / "x.parquet"
    export_pictures(full_store, path)
    store, settings = new_index()

    def interrupt(done: ImportResult, rows: int) -> None:
        if done.stored >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_pictures(store, settings, path, ImportOptions(), on_progress=interrupt)
    info = store.info()
    assert info.is_loading
    assert info.properties[VECTOR_FIELD]["index_options"]["type"] == "flat"
    store.refresh()
    assert 10 <= store.listings.count() <= 30
    notes: list[str] = []
    done = import_pictures(store, settings, path, ImportOptions(only_new=True), note=notes.append)
    assert any("interrupted" in each for each in notes)
    assert done.stored + done.there_already == 30
    assert not store.info().is_loading
    assert index_state(store)[:2] == ("int8_hnsw", "1s")
    assert contents(store) == contents(full_store)


# -- bulks ---------------------------------------------------------------------------------


def test_only_what_was_refused_for_the_moment_is_sent_again(
    fake_store: Store, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The first bulk is answered 429 as a whole, the second for every other item."""
    real, sent, lock = Documents.bulk, [], threading.Lock()

    def busy(documents: Documents, body: bytes, content_type: str):
        with lock:
            sent.append(body.count(b"shop"))
            number = len(sent)
        if number == 1:
            raise StoreBusy("429")
        results = real(documents, body, content_type)
        if number == 2:
            return [StoreBusy("429") if n % 2 else each for n, each in enumerate(results)]
        return results

    monkeypatch.setattr(Documents, "bulk", busy)
    path = vector_file(tmp_path / "x.parquet", unit_vectors(10))
    assert import_pictures(fake_store, settings, path, SHOP) == ImportResult(stored=10)
    assert sent == [10, 10, 5]
    assert fake_store.listings.count() == 10


documents_of_any_text = st.dictionaries(
    st.sampled_from(["caption", "title", "camera"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=80),
) | st.fixed_dictionaries(
    {
        "size_bytes": st.integers(-(2**63), 2**63 - 1),
        "width": st.integers(-(2**31), 2**31 - 1),
        "embed_ms": st.floats(-(2.0**100), 2.0**100, width=32),
        "tag_scores": st.dictionaries(
            st.from_regex(r"[a-zé日]{1,30}", fullmatch=True),
            st.floats(allow_nan=False, allow_infinity=False) | st.booleans(),
            max_size=3,
        ),
        "describe_errors": st.lists(st.text('aé\x00\n"\\', max_size=70), max_size=3),
    }
)


@hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(documents_of_any_text, min_size=1, max_size=8))
def test_the_server_reads_smile_as_it_was_meant(fake_store: Store, made: list[dict[str, Any]]):
    vectors = unit_vectors(len(made))
    actions = [{"index": {"_index": fake_store.index, "_id": str(n)}} for n in range(len(made))]
    body = b"".join(
        smile.document(part) + smile.SEPARATOR
        for action, each, vector in zip(actions, made, smile.vectors(vectors), strict=True)
        for part in (action, {**each, VECTOR_FIELD: vector})
    )
    assert set(fake_store.documents.bulk(body, smile.CONTENT_TYPE)) == {None}
    for n, each in enumerate(made):
        assert fake_store.documents.get(str(n)) == each
    fake_store.refresh()
    for n, vector in enumerate(vectors):
        assert fake_store.documents.vector(str(n)).tobytes() == vector.tobytes()


# -- the command line ----------------------------------------------------------------------


def run(settings: Settings, *arguments: str) -> Result:
    options = ["--index", settings.index, "--es-url", settings.es_url]
    return CliRunner().invoke(main, [*arguments, *options])


def test_the_commands_take_vectors_out_and_in(
    full_store: Store, settings: Settings, new_index: MakeIndex, tmp_path: Path
):
    file = str(tmp_path / "x.parquet")
    chosen = ["--filter", "folder=für", "--fields", f"{VECTOR_FIELD},tags"]
    assert run(settings, "export", file, *chosen).exit_code == 0
    assert pq.read_table(file).num_rows == 30
    assert run(settings, "export", file).exit_code == 0
    store, other = new_index()
    result = run(other, "import", file)
    assert result.exit_code == 0, result.output
    assert "30 rows stored" in result.output
    assert store.listings.count() == 30
    assert run(other, "status").exit_code == 0


def test_the_exit_code_tells_of_bad_rows(fake_store: Store, settings: Settings, tmp_path: Path):
    path = vector_file(tmp_path / "x.parquet", [*unit_vectors(2), np.zeros(DIMS)])
    arguments = ["import", str(path), "--root", "shop"]
    assert run(settings, *arguments).exit_code == 1
    skipped = run(settings, *arguments, "--on-error", "skip")
    assert skipped.exit_code == 1
    assert "Row 3:" in skipped.output
    assert "2 rows stored" in skipped.output
    assert run(settings, "import", str(tmp_path / "none.h5")).exit_code == 2
    assert run(settings, *arguments, "--rename", "x").exit_code == 2
