"""Every Vega panel drawn by the real library, with data of the real server and real thumbnails."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vl_convert
from house import House
from kibana_queries import SavedObjects, vega_requests
from PIL import Image

from es_imgsearch.connection import connect
from es_imgsearch.indexer import sync
from es_imgsearch.kibana.index_objects import builder_for
from es_imgsearch.settings import load_settings
from es_imgsearch.store import Store
from es_imgsearch.testing import remove_index

COLOURS = {
    "red.png": (200, 30, 30),
    "copy-of-red.png": (200, 30, 30),
    "green.png": (30, 160, 60),
    "blue.png": (40, 60, 190),
}
WIDTH, HEIGHT = 800, 500


# Where they might have been taken; the photographs themselves do not say.
PLACES = {
    "brick.png": (52.5, 13.4), "cat.png": (52.2, 12.8), "coffee.png": (48.2, 16.4),
    "camera.png": (42.4, -71.1), "rocket.jpg": (28.5, -80.6), "horse.png": (47.1, 7.2),
    "hubble_deep_field.jpg": (39.3, -76.6), "motorcycle_left.png": (38.9, -77.0),
    "astronaut.png": (29.6, -95.1), "coins.png": (40.8, 14.5), "chelsea.png": (52.9, 13.9),
    "grass.png": (-33.9, 18.4), "gravel.png": (-37.8, 145.0), "moon.png": (19.8, -155.5),
}  # fmt: skip


def exif_of(taken_at: str, latitude: float, longitude: float) -> Image.Exif:
    exif = Image.Exif()
    exif[0x8769] = {0x9003: taken_at}
    north, east = ("N" if latitude >= 0 else "S"), ("E" if longitude >= 0 else "W")
    degrees = [(abs(each), 0.0, 0.0) for each in (latitude, longitude)]
    exif[0x8825] = {1: north, 2: degrees[0], 3: east, 4: degrees[1]}
    return exif


@contextmanager
def filled(
    es_url: str, home: Path, fill: Callable[[Path], None]
) -> Iterator[tuple[House, SavedObjects]]:
    """What `fill` leaves in a folder, indexed and served, and the saved objects for it."""
    given = {"es_url": es_url, "index": f"t-{uuid.uuid4().hex[:12]}", "read_workers": 1}
    settings = load_settings(given, environment={})
    store = Store(connect(settings), settings.index)
    house = House(store, settings, home)
    try:
        fill(house.folder)
        indexer = house.indexer()
        try:
            sync(indexer)
        finally:
            indexer.pipeline.close()
        store.refresh()
        with served(house, home / "cache") as address:
            settings = settings.model_copy(update={"service_url": address})
            objects = builder_for(settings, store.info().properties).everything()
            yield house, SavedObjects(objects)
    finally:
        remove_index(store)
        store.client.close()


@pytest.fixture(scope="module")
def drawn(
    es_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[House, SavedObjects]]:
    """Four pictures of one colour each."""

    def fill(folder: Path) -> None:
        exif = exif_of("2024:05:01 12:00:00", 52.5, 13.4)
        for name, colour in COLOURS.items():
            Image.new("RGB", (60, 60), colour).save(folder / name, exif=exif)

    with filled(es_url, tmp_path_factory.mktemp("vega"), fill) as each:
        yield each


@contextmanager
def served(house: House, home: Path) -> Iterator[str]:
    """The address of the service, a process of its own.

    The library fetches the thumbnails while it holds this interpreter's lock, so that a thread
    could not answer.
    """
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


def picture_of(panel: dict[str, Any], house: House) -> Image.Image:
    """The panel as Kibana would draw it: its query's answer in place of the query."""
    state = json.loads(panel["attributes"]["visState"])
    spec = json.loads(state["params"]["spec"])
    ((index, body),) = vega_requests(panel)
    answer = house.store.request("POST", f"/{index}/_search", body)
    (data,) = [each for each in spec["data"] if isinstance(each.get("url"), dict)]
    for part in data.pop("format")["property"].split("."):
        answer = answer[part]
    del data["url"]
    data["values"] = answer
    spec |= {"width": WIDTH, "height": HEIGHT, "background": "white"}
    return Image.open(io.BytesIO(vl_convert.vega_to_png(spec))).convert("RGB")


def share_of(picture: Image.Image, colour: tuple[int, int, int]) -> float:
    near = np.abs(np.asarray(picture, dtype=int) - colour).max(axis=2) < 24
    return float(near.mean())


def panel(saved: SavedObjects, end: str) -> dict[str, Any]:
    (found,) = [each for each in saved.of("visualization") if each["id"].endswith(end)]
    return found


def test_the_gallery_shows_every_picture(drawn: tuple[House, SavedObjects]):
    house, saved = drawn
    picture = picture_of(panel(saved, "-gallery"), house)
    cell = 60 * 60 / (picture.width * picture.height)
    for name, colour in COLOURS.items():
        # The same bytes twice: two cells.
        expected = cell * list(COLOURS.values()).count(colour)
        assert share_of(picture, colour) > expected, name


def test_copies_stand_side_by_side(drawn: tuple[House, SavedObjects]):
    house, saved = drawn
    picture = picture_of(panel(saved, "-same-bytes"), house)
    assert share_of(picture, COLOURS["red.png"]) > 0
    assert share_of(picture, COLOURS["blue.png"]) == 0


def test_pictures_of_one_moment_stand_side_by_side(drawn: tuple[House, SavedObjects]):
    house, saved = drawn
    picture = picture_of(panel(saved, "-same-moment"), house)
    for colour in COLOURS.values():
        assert share_of(picture, colour) > 0


def test_places_are_tiles_on_the_map(drawn: tuple[House, SavedObjects]):
    house, saved = drawn
    picture = np.asarray(picture_of(panel(saved, "-places"), house), dtype=int)
    # Berlin is right of the middle and above it; the tile is blue, and so is the legend at the
    # left.
    blue = (picture[:, :, 2] - picture[:, :, 0]) > 40
    blue[:, :100] = False
    rows, columns = np.nonzero(blue)
    assert len(rows)
    assert columns.mean() > picture.shape[1] / 2
    assert rows.mean() < picture.shape[0] / 2


def test_photographs(es_url: str, photographs: Path, tmp_path: Path):
    """As in docs/how-to/use-kibana.md: IMGSEARCH_TEST_PICTURES names a folder to keep them in."""
    names = sorted(each.name for each in photographs.iterdir() if each.suffix in {".png", ".jpg"})

    def fill(folder: Path) -> None:
        for number, name in enumerate(names):
            if name in PLACES:
                with Image.open(photographs / name) as picture:
                    exif = exif_of(f"2024:05:{number + 1:02} 12:00:00", *PLACES[name])
                    picture.convert("RGB").save(folder / name, exif=exif)
            else:
                shutil.copy(photographs / name, folder)
        for name in ("astronaut.png", "coffee.png", "rocket.jpg"):
            shutil.copy(folder / name, folder / f"copy of {name}")
        shutil.copy(folder / "coffee.png", folder / "another copy of coffee.png")

    kept = Path(os.environ.get("IMGSEARCH_TEST_PICTURES", tmp_path))
    with filled(es_url, tmp_path, fill) as (house, saved):
        for name in ("gallery", "same-bytes", "places"):
            picture = picture_of(panel(saved, f"-{name}"), house)
            # Photographs have colours, more than lines and letters do.
            assert (
                name == "places"
                or len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 5000
            )
            picture.quantize(128).save(kept / f"kibana-{name}.png", optimize=True)
