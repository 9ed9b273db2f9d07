"""Every Vega panel in a browser, as Kibana draws it: real answers, thumbnails of the service."""

from __future__ import annotations

import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from es_imgsearch import ImageSearch
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.naming import failures_alias
from es_imgsearch.elastic.store import Store
from es_imgsearch.kibana.build import create_builder
from es_imgsearch.kibana.nearest import SavedQuery
from es_imgsearch.pipeline.sync import sync
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import FakeEncoder, remove_index
from tests.support.browser import Browser, Mark, Panel, Size, open_browser
from tests.support.house import House
from tests.support.kibana_queries import SavedObjects, leaf_buckets, vega_requests

pytestmark = pytest.mark.process

PANELS = ("gallery", "nearest-red", "places", "same-bytes", "same-moment")
# A dashboard in a window of this width: 48 columns and rows of 20 pixels, 8 between them; a
# panel's title takes 32.
DASHBOARD_WIDTH, ROW, GAP, TITLE = 1280, 20, 8, 32

# Where they might have been taken; the photographs themselves do not say.
PLACES = {
    "brick.png": (52.5, 13.4), "color.png": (52.2, 12.8), "coffee.png": (48.2, 16.4),
    "camera.png": (42.4, -71.1), "rocket.jpg": (28.5, -80.6), "horse.png": (47.1, 7.2),
    "hubble_deep_field.jpg": (39.3, -76.6), "motorcycle_left.png": (38.9, -77.0),
    "astronaut.png": (29.6, -95.1), "coins.png": (40.8, 14.5), "chelsea.png": (52.9, 13.9),
    "grass.png": (-33.9, 18.4), "gravel.png": (-37.8, 145.0), "moon.png": (19.8, -155.5),
}  # fmt: skip
# Pairs of photographs as of one burst.
BURSTS = {
    "chessboard_GRAY.png": 1,
    "chessboard_RGB.png": 1,
    "motorcycle_left.png": 2,
    "motorcycle_right.png": 2,
}
COPIES = {
    "copy of astronaut.png": "astronaut.png",
    "copy of rocket.jpg": "rocket.jpg",
    "copy of coffee.png": "coffee.png",
    "another copy of coffee.png": "coffee.png",
}


def exif_of(taken_at: str, place: tuple[float, float] | None) -> Image.Exif:
    exif = Image.Exif()
    exif[0x8769] = {0x9003: taken_at}
    if place is not None:
        north, east = ("N" if place[0] >= 0 else "S"), ("E" if place[1] >= 0 else "W")
        degrees = [(abs(each), 0.0, 0.0) for each in place]
        exif[0x8825] = {1: north, 2: degrees[0], 3: east, 4: degrees[1]}
    return exif


def fill(folder: Path, photographs: Path) -> None:
    """scikit-image's photographs, at a size that is read in no time."""
    names = sorted(each.name for each in photographs.iterdir() if each.suffix in {".png", ".jpg"})
    for number, name in enumerate(names):
        exif = Image.Exif()
        if name in PLACES or name in BURSTS:
            exif = exif_of(f"2024:05:{BURSTS.get(name, number + 3):02} 12:00:00", PLACES.get(name))
        with Image.open(photographs / name) as picture:
            picture.thumbnail((480, 480))
            small = picture.convert("RGB")
        small.save(folder / name, exif=exif, compress_level=1, quality=90)
    for name, original in COPIES.items():
        shutil.copy(folder / original, folder / name)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as each:
        yield each


@pytest.fixture(scope="module")
def library(
    browser: Browser, es_url: str, photographs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[House, SavedObjects]]:
    """scikit-image's photographs, indexed and served, and the saved objects for them."""
    home = tmp_path_factory.mktemp("vega")
    given = {
        "es_url": es_url,
        "index": f"t-{uuid.uuid4().hex[:12]}",
        "read_workers": 1,
        "describers": ["-text_in_image"],
    }
    settings = load_settings(given, environment={})
    store = Store(connect(settings), settings.index)
    house = House(store, settings, home)
    try:
        fill(house.folder, photographs)
        indexer = house.indexer()
        try:
            sync(indexer)
        finally:
            indexer.pipeline.close()
        store.refresh()
        with served(house, home / "cache") as address:
            settings = settings.model_copy(update={"service_url": address})
            with ImageSearch(settings=settings, encoder=FakeEncoder()) as client:
                nearest = SavedQuery("red", client.knn_query("red", k=12))
            objects = create_builder(settings, store.info().properties).build_all([nearest])
            yield house, SavedObjects(objects)
    finally:
        remove_index(store)
        store.connection.client.close()


@contextmanager
def served(house: House, home: Path) -> Iterator[str]:
    """The address of `es-imgsearch serve`, as a user starts it."""
    command = [str(Path(sys.executable).parent / "es-imgsearch"), "serve", "--port", "0"]
    command += ["--index", house.settings.index, "--es-url", house.settings.es_url]
    environment = {"XDG_CACHE_HOME": str(home), "ES_IMGSEARCH_HOST": house.settings.host}
    environment |= {"ES_IMGSEARCH_READ_WORKERS": "1", "PATH": "/usr/bin:/bin"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr is not None
        yield process.stderr.readline().rpartition(" ")[2].strip()
    finally:
        process.terminate()
        process.communicate(timeout=20)


def saved_panel(saved: SavedObjects, name: str) -> dict[str, Any]:
    prefix = saved.of("tag")[0]["id"].removesuffix("tag")
    (found,) = [each for each in saved.of("visualization") if each["id"] == f"{prefix}{name}"]
    return found


def answered(
    saved: SavedObjects, name: str, house: House, **given: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A panel's specification with the server's answer in place of its query; and that answer."""
    panel = saved_panel(saved, name)
    spec = json.loads(json.loads(panel["attributes"]["visState"])["params"]["spec"])
    ((index, body),) = vega_requests(panel, **given)
    answer = house.store.connection.request("POST", f"/{index}/_search", body)
    (data,) = [each for each in spec["data"] if isinstance(each.get("url"), dict)]
    del data["url"]
    data["values"] = answer
    return spec, answer


def size_of(saved: SavedObjects, name: str) -> Size:
    """What a panel has of the dashboard that it stands on."""
    wanted = saved_panel(saved, name)["id"]
    for board in saved.of("dashboard"):
        ids = {each["name"]: each["id"] for each in board["references"]}
        for panel in json.loads(board["attributes"]["panelsJSON"]):
            if ids.get(f"{panel['panelIndex']}:{panel.get('panelRefName')}") == wanted:
                wide, high = panel["gridData"]["w"], panel["gridData"]["h"]
                column = (DASHBOARD_WIDTH - 47 * GAP) / 48
                width = wide * column + (wide - 1) * GAP
                return int(width), high * ROW + (high - 1) * GAP - TITLE
    raise AssertionError(f"{name} stands on no dashboard")


def hits_of(name: str, answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The pictures that a panel of pictures has to show."""
    if name in {"gallery", "nearest-red"}:
        return answer["hits"]["hits"]
    groups = answer["aggregations"]["groups"]["buckets"]
    return [hit for group in groups for hit in group["files"]["hits"]["hits"]]


def assert_in_order(panel: Panel) -> None:
    """No picture lies on another or on a name, and all lie within the panel."""
    shown = panel.marks("image") + [each for each in panel.marks("text") if each.text]
    for one, other in itertools.combinations(shown, 2):
        assert not one.overlaps(other), (one, other)
    for each in shown:
        assert each.left >= -1, each
        assert each.top >= -1, each
        assert each.right <= panel.size[0] + 1, each
        assert each.bottom <= panel.size[1] + 1, each


def keep(panel: Panel, name: str) -> None:
    """IMGSEARCH_TEST_PICTURES names a folder: how the pictures in docs/images are made."""
    if folder := os.environ.get("IMGSEARCH_TEST_PICTURES"):
        with Image.open(io.BytesIO(panel.screenshot())) as picture:
            small = picture.convert("RGB").quantize(128)
            small.save(Path(folder) / f"kibana-{name}.png", optimize=True)


@pytest.mark.parametrize("name", ["gallery", "nearest-red", "same-bytes", "same-moment"])
def test_every_picture_is_shown(browser: Browser, library: tuple[House, SavedObjects], name: str):
    house, saved = library
    spec, answer = answered(saved, name, house)
    panel = browser.draw(spec, size_of(saved, name))
    assert panel.complaints == []
    hits = hits_of(name, answer)
    assert len(hits) >= 7
    images = panel.marks("image")
    assert sorted(each.url.rpartition("/")[2] for each in images) == sorted(
        hit["_id"] for hit in hits
    )
    assert all(each.is_loaded for each in images)
    assert {each.url for each in panel.answers} == {each.url for each in images}
    assert {(each.status, each.headers["content-type"]) for each in panel.answers} == {
        (200, "image/jpeg")
    }
    names = [each.text for each in panel.marks("text") if each.text]
    assert sorted(names) == sorted(hit["_source"]["image_name"] for hit in hits)
    for image, hit in zip(images, hits, strict=True):
        shape = hit["_source"]["width"] / hit["_source"]["height"]
        drawn = (image.right - image.left) / (image.bottom - image.top)
        assert drawn == pytest.approx(shape, rel=0.05)
    assert_in_order(panel)
    keep(panel, name)
    panel.resize((panel.size[0] * 2 // 3, panel.size[1] * 2 // 3))
    assert panel.complaints == []
    assert_in_order(panel)


def test_files_of_one_group_stand_in_one_line(
    browser: Browser, library: tuple[House, SavedObjects]
):
    house, saved = library
    spec, answer = answered(saved, "same-bytes", house)
    panel = browser.draw(spec, size_of(saved, "same-bytes"))
    lines: dict[float, int] = {}
    for each in panel.marks("image"):
        lines[round(each.bottom)] = lines.get(round(each.bottom), 0) + 1
    groups = answer["aggregations"]["groups"]["buckets"]
    assert [lines[bottom] for bottom in sorted(lines)] == [each["doc_count"] for each in groups]
    assert len(lines) >= len(set(COPIES.values()))


def test_a_click_opens_the_original_in_a_tab_and_a_tooltip_says_what_it_is(
    browser: Browser, library: tuple[House, SavedObjects]
):
    house, saved = library
    spec, _ = answered(saved, "gallery", house)
    panel = browser.draw(spec, size_of(saved, "gallery"))
    name = "coffee.png"
    (label,) = [each for each in panel.marks("text") if each.text == name]
    image = min(
        panel.marks("image"),
        key=lambda each: abs(each.middle[0] - label.middle[0]) + abs(each.bottom - label.top),
    )
    panel.page.mouse.move(*image.middle)
    assert panel.told("tooltip") == {"Name": name, "Folder": "r"}
    address = panel.page.url
    with (
        panel.page.context.expect_event(
            "response", lambda each: each.url == image.link
        ) as answered_with,
        panel.page.expect_popup() as opened,
    ):
        panel.page.mouse.click(*image.middle)
    response = answered_with.value
    assert (response.status, response.headers["content-type"]) == (200, "image/png")
    assert response.body() == (house.folder / name).read_bytes()
    # The dashboard stays.
    assert panel.page.url == address
    opened.value.close()


def tiles_of(panel: Panel) -> list[Mark]:
    return [each for each in panel.marks("rect") if each.name == "tile"]


def tile_at(tiles: list[Mark], latitude: float, longitude: float) -> Mark:
    (found,) = [
        each
        for each in tiles
        if each.datum["south"] <= latitude < each.datum["north"]
        and each.datum["west"] <= longitude < each.datum["east"]
    ]
    return found


def test_places_lie_where_they_are(browser: Browser, library: tuple[House, SavedObjects]):
    house, saved = library
    spec, answer = answered(saved, "places", house)
    panel = browser.draw(spec, size_of(saved, "places"))
    assert panel.complaints == []
    tiles = tiles_of(panel)
    assert len(tiles) == len(leaf_buckets(answer["aggregations"]))
    assert sum(each.datum["doc_count"] for each in tiles) == len(PLACES) + len(COPIES)
    # Against the lines of the map, which Vega's own projection places.
    texts = {each.text: each for each in panel.marks("text") if each.text}
    west, east = (texts[name].left - 2 for name in ("120° W", "120° E"))
    degree, zero = (east - west) / 240, (west + east) / 2
    for each in tiles:
        longitude = (each.datum["west"] + each.datum["east"]) / 2
        assert each.middle[0] == pytest.approx(zero + longitude * degree, abs=1)
    assert texts["60° N"].bottom < tile_at(tiles, 52.5, 13.4).middle[1] < texts["30° N"].bottom
    assert tile_at(tiles, -37.8, 145.0).middle[1] > texts["30° S"].bottom
    with Image.open(io.BytesIO(panel.screenshot())) as opened:
        picture = opened.convert("RGB")
    # On the equator, within Africa and as far out on the Atlantic; off the lines of the map.
    equator = (texts["60° N"].bottom + texts["60° S"].bottom) / 2 + 4
    on_land, at_sea = (
        picture.getpixel((int(zero + longitude * degree), int(equator))) for longitude in (22, -22)
    )
    assert (on_land, at_sea) == ((0xDF, 0xE3, 0xE8), (0xF5, 0xF7, 0xFA))
    keep(panel, "places")


def test_a_click_on_a_tile_leaves_its_pictures(
    browser: Browser, library: tuple[House, SavedObjects]
):
    house, saved = library
    spec, _ = answered(saved, "places", house)
    panel = browser.draw(spec, size_of(saved, "places"))
    for tile in tiles_of(panel):
        panel.page.mouse.click(*tile.middle)
        added = panel.told("filters").pop()
        assert added["index"] == house.store.index
        assert added["alias"] == f"Taken near {tile.datum['where']}"
        found = house.store.connection.request(
            "POST", f"/{house.store.index}/_search", {"query": added["query"]}
        )
        assert found["hits"]["total"]["value"] == tile.datum["doc_count"]
        # The filter goes to every panel, also those on failures, which lie nowhere.
        elsewhere = house.store.connection.request(
            "POST", f"/{failures_alias(house.store.index)}/_search", {"query": added["query"]}
        )
        assert elsewhere["_shards"]["failed"] == elsewhere["hits"]["total"]["value"] == 0
    panel.page.mouse.move(*tile.middle)
    assert panel.told("tooltip") == {
        "Pictures": tile.datum["doc_count"],
        "Near": tile.datum["where"],
    }


@pytest.mark.parametrize("name", PANELS)
def test_nothing_found_is_told(browser: Browser, library: tuple[House, SavedObjects], name: str):
    house, saved = library
    spec, answer = answered(saved, name, house, since="now-60y", until="now-59y")
    assert answer["hits"]["total"]["value"] == 0
    panel = browser.draw(spec, size_of(saved, name))
    assert panel.complaints == []
    assert panel.marks("image") == []
    told = [each.text for each in panel.marks("text") if each.text and each.text.startswith("No")]
    assert len(told) == 1
