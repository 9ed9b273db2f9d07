"""Tiles of pictures: their boxes, the bodies that search them, and how rankings are joined."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from es_imgsearch.elastic.mapping import index_body, new_meta
from es_imgsearch.elastic.meta import Meta, Seal
from es_imgsearch.elastic.meta_entries import Tuning
from es_imgsearch.elastic.region_queries import (
    exact_region_body,
    matched_box,
    merge_rankings,
    region_knn_body,
)
from es_imgsearch.embed.in_process import InProcessEncoder
from es_imgsearch.errors import IndexConflict, UsageError
from es_imgsearch.pipeline.vector_source import VectorSource
from es_imgsearch.read.file import read_file
from es_imgsearch.records import (
    DEFAULT_GRID,
    MIN_TILE_PIXELS,
    Embedded,
    Grid,
    Picture,
    Region,
    Tile,
)
from es_imgsearch.search.options import SearchPlan
from es_imgsearch.testing import FakeEncoder

SEAL = Seal("fake", "1", 48, "f")
GRIDS = ["2x2", "2x2+centre", "3x3", "3x3+centre", "1x4", "4x4", "2x1+centre"]


@pytest.mark.parametrize("text", GRIDS)
def test_a_grid_is_written_as_it_is_read(text: str):
    grid = Grid.parse(text)
    assert str(grid) == text
    assert Grid.from_body(grid.to_body()) == grid


@pytest.mark.parametrize("text", ["", "1x1", "4x4+centre", "9x9", "2x", "2x2 ", "0x2", "two"])
def test_a_grid_that_cannot_be(text: str):
    with pytest.raises(UsageError, match="grid of 2 to 16 tiles"):
        Grid.parse(text)


def test_the_boxes_of_a_picture():
    assert Grid.parse("2x2+centre").boxes(101, 60) == [
        (0, 0, 50, 30), (50, 0, 51, 30), (0, 30, 50, 30), (50, 30, 51, 30), (25, 15, 50, 30),
    ]  # fmt: skip
    # The middle of 3x3 is a tile already.
    assert len(Grid.parse("3x3+centre").boxes(300, 300)) == 9
    assert Grid.parse("2x2").boxes(2 * MIN_TILE_PIXELS - 1, 5000) == []


@given(
    st.sampled_from(GRIDS), st.integers(1, 9000), st.integers(1, 9000)
)  # fmt: skip
def test_tiles_cover_the_picture_once_and_stay_inside(text: str, width: int, height: int):
    grid = Grid.parse(text)
    boxes = grid.boxes(width, height)
    assert len(boxes) <= grid.count
    for x, y, wide, high in boxes:
        assert wide >= MIN_TILE_PIXELS
        assert high >= MIN_TILE_PIXELS
        assert 0 <= x <= x + wide <= width
        assert 0 <= y <= y + high <= height
    tiles = boxes[: grid.columns * grid.rows]
    assert sum(wide * high for _, _, wide, high in tiles) in (0, width * height)


def test_only_an_index_with_a_grid_maps_regions():
    plain = new_meta(SEAL, "balanced", "cosine")
    body = index_body(plain)
    assert "regions" not in body["mappings"]["properties"]
    assert "regions" not in body["mappings"]["_meta"]
    assert "regions.embedding" not in body["mappings"]["_source"]["excludes"]

    meta = new_meta(SEAL, "balanced", "cosine", grid=Grid.parse(DEFAULT_GRID))
    body = index_body(meta)
    assert body["mappings"]["_meta"]["regions"] == {"grid": "2x2+centre"}
    assert body["mappings"]["properties"]["regions"] == {
        "type": "nested",
        "properties": {
            "box": {"type": "integer", "index": False, "doc_values": False},
            "embedding": body["mappings"]["properties"]["image_embedding"],
        },
    }
    assert "regions.embedding" in body["mappings"]["_source"]["excludes"]
    assert Meta.from_body(body["mappings"]["_meta"], "i") == meta


def test_a_damaged_grid_and_a_reduced_index_with_one():
    body = new_meta(SEAL, "exact", "cosine").to_body() | {"regions": {"grid": "lots"}}
    with pytest.raises(IndexConflict, match="damaged"):
        Meta.from_body(body, "i")
    with pytest.raises(UsageError, match="no regions"):
        new_meta(SEAL, "reduced", "cosine", grid=Grid.parse("2x2"))


def test_the_bodies():
    clause = {"term": {"root": "r"}}
    body = region_knn_body([1.0], 3, Tuning(50, 2.0), filters=[clause], source=["root"])
    inner = {"size": 1, "_source": ["regions.box"]}
    assert body == {
        "knn": {
            "field": "regions.embedding",
            "query_vector": [1.0],
            "k": 50,
            "num_candidates": 50,
            "rescore_vector": {"oversample": 2.0},
            "filter": [clause],
            "inner_hits": inner,
        },
        "size": 3,
        "_source": ["root"],
    }
    exact = exact_region_body([1.0], 3, "cosine", filters=[clause])
    nested = exact["query"]["bool"]["must"][0]["nested"]
    assert exact["query"]["bool"]["filter"] == [clause]
    assert (nested["path"], nested["score_mode"], nested["inner_hits"]) == ("regions", "max", inner)
    script = nested["query"]["script_score"]["script"]["source"]
    assert "cosineSimilarity(params.query, 'regions.embedding')" in script


def raw(name: str, score: float, box: list[int] | None = None) -> dict[str, Any]:
    hit: dict[str, Any] = {"_id": name, "_score": score, "_source": {}}
    if box is not None:
        region = {"_nested": {"offset": 0}, "_source": {"box": box}}
        hit["inner_hits"] = {"regions": {"hits": {"hits": [region]}}}
    return hit


def test_rankings_are_joined_by_the_better_score():
    whole = [raw("a", 0.9), raw("b", 0.8), raw("c", 0.5)]
    by_region = [raw("c", 0.95, [1, 2, 3, 4]), raw("b", 0.8, [0, 0, 9, 9]), raw("d", 0.1, [5] * 4)]
    joined = merge_rankings(whole, by_region)
    assert [(hit["_id"], hit["_score"]) for hit in joined] == [
        ("c", 0.95), ("a", 0.9), ("b", 0.8), ("d", 0.1),
    ]  # fmt: skip
    assert [matched_box(hit) for hit in joined] == [(1, 2, 3, 4), None, None, (5, 5, 5, 5)]


@pytest.mark.parametrize(
    "options", [{"mode": "text"}, {"weights": {"content": 1}}, {"min_relevance": 0.5}]
)
def test_options_that_do_not_go_with_regions(options: dict[str, Any]):
    with pytest.raises(UsageError, match=r"[Rr]egions"):
        SearchPlan.parse(3, {"regions": True, **options})


def test_tiles_are_those_of_the_upright_picture(tmp_path):
    path = tmp_path / "turned.jpg"
    pixels = np.random.default_rng(3).integers(0, 256, (6, 4, 3), np.uint8)
    image = Image.fromarray(pixels.repeat(20, axis=0).repeat(20, axis=1))
    exif = Image.Exif()
    exif[0x0112] = 6  # a viewer turns it by 90° clockwise
    image.save(path, quality=100, subsampling=0, exif=exif)
    preparation = FakeEncoder().preparation

    def read(grid: Grid | None) -> Picture:
        picture = read_file(str(path), preparation, max_pixels=10**6, grid=grid)
        assert isinstance(picture, Picture)
        return picture

    picture = read(Grid.parse("2x2"))
    assert (picture.fields["width"], picture.fields["height"]) == (120, 80)
    upright = image.transpose(Image.Transpose.ROTATE_270)
    assert [tile.box for tile in picture.tiles] == Grid.parse("2x2").boxes(120, 80)
    for (x, y, width, height), found in picture.tiles:
        wanted = preparation.apply(upright.crop((x, y, x + width, y + height)))
        assert np.abs(found.astype(int) - wanted).mean() < 3
    assert read(None).tiles == ()


def picture(name: str, *tiles: int) -> Picture:
    """One whose arrays are of one colour each, different ones."""

    def array(value: int) -> Any:
        return np.full((32, 32, 3), value, np.uint8)

    made = [Tile((n, 0, 1, 1), array(value)) for n, value in enumerate(tiles)]
    return Picture(name, (1, 1), array(200), tiles=made)  # type: ignore[arg-type]


def test_calls_of_the_encoder_stay_bounded_and_every_tile_gets_its_vector():
    encoder = FakeEncoder()
    source = VectorSource(encoder, lambda _ids, _fields: {}, 8)
    pictures = [picture("a", 10, 20), picture("b", 30), picture("c", 1, 2, 3)]
    found, errors = source.embed(pictures, InProcessEncoder(encoder))
    assert not errors
    assert encoder.batches == [5, 4]
    for name, values in (("a", (10, 20)), ("b", (30,)), ("c", (1, 2, 3))):
        assert [each.box[0] for each in found[name].regions] == list(range(len(values)))
        for region, value in zip(found[name].regions, values, strict=True):
            alone = encoder._vectors(np.full((1, 32, 32, 3), value, np.uint8))[0]
            assert np.array_equal(region.vector, alone)
    # More tiles than a call may have: that picture alone.
    source.embed(
        [picture("d"), picture("e", *range(9)), picture("f")],
        InProcessEncoder(encoder),
    )
    assert encoder.batches[2:] == [1, 10, 1]
    assert source.look_up({"a"})["a"].regions == found["a"].regions


def test_a_tile_without_a_vector_costs_that_tile_only():
    encoder = FakeEncoder()
    embed = encoder.embed_images
    encoder.embed_images = (
        lambda pixels: np.where(  # type: ignore[method-assign]
            (pixels[:, :1, 0, 0] == 7), np.nan, embed(pixels)
        )
    )
    source = VectorSource(encoder, lambda _ids, _fields: {}, 8)
    found, errors = source.embed([picture("a", 7, 20)], InProcessEncoder(encoder))
    assert not errors
    assert [each.box for each in found["a"].regions] == [(1, 0, 1, 1)]


def test_embedded_has_no_regions_unless_told():
    assert Embedded(np.ones(2, np.float32)).regions == ()
    assert Region((0, 0, 1, 1), np.ones(2, np.float32)).box == (0, 0, 1, 1)
