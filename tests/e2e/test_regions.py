"""An index with regions, kept by the daemon's own parts: a crop finds its original, by its box."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from es_imgsearch import ImageSearch
from es_imgsearch.cli import main
from es_imgsearch.elastic.mapping import index_body, new_meta
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed import registry
from es_imgsearch.embed.context import open_context
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.embed.runtime.network import batch_size
from es_imgsearch.errors import IndexConflict, UsageError
from es_imgsearch.manage.init import create_index
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.pipeline.sync import sync
from es_imgsearch.records import Grid
from es_imgsearch.settings import Settings
from es_imgsearch.testing import FakeEncoder
from es_imgsearch.watch.roots import parse_roots, register_roots
from tests.support.house import House, described

GRID = Grid.parse("2x2+centre")
SIZE = 128


def paint(path: Path, seed: int) -> Image.Image:
    """16 x 16 squares of colours, so that no part is like another or like the whole."""
    colours = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)
    image = Image.fromarray(colours.repeat(SIZE // 16, axis=0).repeat(SIZE // 16, axis=1))
    image.save(path)
    return image


def pass_over(store: Store, settings: Settings, folder: Path, encoder: FakeEncoder) -> Indexer:
    """One `sync` by a process of its own."""
    roots = parse_roots([str(folder)])
    register_roots(store, roots, settings.host)
    indexer = Indexer(open_context(store, settings, encoder), roots, settings)
    try:
        sync(indexer)
    finally:
        indexer.pipeline.close()
    return indexer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "photos"
    made.mkdir()
    return made


def test_a_crop_finds_its_original_and_a_rename_embeds_nothing(
    real_store: Store, settings: Settings, folder: Path, tmp_path: Path
):
    encoder = FakeEncoder()
    real_store.generations.create(
        new_meta(seal_of(encoder), "exact", "cosine", grid=GRID), described()
    )
    images = [paint(folder / f"{n}.png", n) for n in range(6)]
    pass_over(real_store, settings, folder, encoder)
    assert encoder.pictures_embedded == 6 * (1 + GRID.count)
    assert max(encoder.batches) <= batch_size(encoder)

    crops = {}
    client = ImageSearch(settings=settings, encoder=FakeEncoder())
    for n, image in enumerate(images):
        x, y, width, height = box = GRID.boxes(SIZE, SIZE)[n % GRID.count]
        crops[n] = tmp_path / f"crop{n}.png"
        image.crop((x, y, x + width, y + height)).save(crops[n])
        hit = client.search_image(crops[n], k=1, regions=True)[0]
        assert (hit.relative_path, hit.matched_box) == (f"{n}.png", box)
        assert hit.score == pytest.approx(1.0, abs=1e-5)
        whole = client.search_image(image, k=1, regions=True)[0]
        assert (whole.relative_path, whole.matched_box) == (f"{n}.png", None)
    found = [client.search_image(crops[n], k=1)[0] for n in crops]
    assert max(hit.score for hit in found) < 0.9, "the whole pictures are far from their parts"

    # Another process, which remembers nothing: a rename and a copy take what is stored.
    (folder / "0.png").rename(folder / "moved.png")
    (folder / "copy.png").write_bytes((folder / "1.png").read_bytes())
    other = FakeEncoder()
    indexer = pass_over(real_store, settings, folder, other)
    assert (other.pictures_embedded, indexer.counts.reused, indexer.counts.deleted) == (0, 2, 1)
    for n, names in ((0, {"moved.png"}), (1, {"1.png", "copy.png"})):
        hits = client.search_image(crops[n], k=len(names), regions=True)
        assert {hit.relative_path for hit in hits} == names
        assert {hit.matched_box for hit in hits} == {GRID.boxes(SIZE, SIZE)[n]}
        assert all(hit.score == pytest.approx(1.0, abs=1e-5) for hit in hits)


def test_an_index_without_regions_cuts_and_embeds_no_tiles(
    real_store: Store, settings: Settings, folder: Path, tmp_path: Path
):
    house = House(real_store, settings, tmp_path, "photos")
    house.picture("a.png", 1)
    pass_over(real_store, settings, folder, house.encoder)
    assert house.encoder.batches == [1]
    assert house.differing() == []
    body = index_body(real_store.info().meta)
    assert "regions" not in real_store.info().properties
    assert "regions" not in body["mappings"]["_meta"]


@pytest.fixture
def fake_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, **_given: object) -> FakeEncoder:
        assert name == "fake"
        return FakeEncoder()

    for module in (
        "es_imgsearch.manage.init",
        "es_imgsearch.embed.index_encoder",
        "es_imgsearch.search.query_vectors",
    ):
        monkeypatch.setattr(f"{module}.load_encoder", load, raising=False)
    monkeypatch.setattr(registry, "load_encoder", load)


def meta_of(store: Store) -> Meta:
    return store.info().meta


def test_init_makes_it_once(real_store: Store, settings: Settings, fake_by_name: None):
    given = settings.model_copy(update={"encoder": "fake"})
    with pytest.raises(UsageError, match="grid"):
        create_index(real_store, given, regions="lots")
    told = create_index(real_store, given, profile="balanced", regions="2x2+centre")
    assert told.endswith("profile balanced, cosine, regions 2x2+centre.")
    mapped = real_store.info().properties["regions"]
    assert mapped["properties"]["embedding"]["index_options"]["type"] == "int8_hnsw"
    # Again, with and without it; a new describer's fields would be added all the same.
    assert "is there already" in create_index(real_store, given, regions="2x2+centre")
    assert "is there already" in create_index(real_store, given)
    assert meta_of(real_store).grid == GRID
    with pytest.raises(IndexConflict, match=r"with regions 2x2\+centre, not 3x3"):
        create_index(real_store, given, regions="3x3")


def test_the_commands(
    real_store: Store, settings: Settings, folder: Path, tmp_path: Path, fake_by_name: None
):
    def run(*arguments: str, code: int = 0) -> str:
        where = ["--index", settings.index, "--es-url", str(settings.es_url)]
        result = CliRunner().invoke(main, [arguments[0], *where, *arguments[1:]])
        assert result.exit_code == code, (result.output, result.stderr, result.exception)
        return result.stdout if code == 0 else result.stderr

    run("init", "--encoder", "fake", "--profile", "exact", "--regions")
    assert meta_of(real_store).grid == GRID
    image = paint(folder / "a.png", 3)
    paint(folder / "b.png", 4)
    run("sync", str(folder))
    image.crop((64, 0, 128, 64)).save(tmp_path / "crop.png")
    (hit,) = json.loads(
        run("search", "--image", str(tmp_path / "crop.png"), "--regions", "-k", "1", "--json-hits")
    )
    assert (hit["relative_path"], hit["matched_box"]) == ("a.png", [64, 0, 64, 64])
    assert "[64, 0, 64, 64]" in run(
        "search", "--image", str(tmp_path / "crop.png"), "--regions", "-k", "1"
    )


def test_init_without_it_is_told_what_it_lacks(
    real_store: Store, settings: Settings, fake_by_name: None
):
    given = settings.model_copy(update={"encoder": "fake"})
    told = create_index(real_store, given, profile="exact")
    assert told.endswith("profile exact, cosine.")
    assert "regions" not in real_store.info().properties
    with pytest.raises(IndexConflict, match="exists with no regions, not 2x2"):
        create_index(real_store, given, regions="2x2")
