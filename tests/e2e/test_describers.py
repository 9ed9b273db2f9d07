"""Describers as a user meets them: installed, switched, searched by; and files beside pictures."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from PIL import Image

from es_imgsearch import ImageSearch
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import SettingsError
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.pipeline.sync import sync
from es_imgsearch.pipeline.watched_root import WatchedRoot
from es_imgsearch.records import Change, image_id
from es_imgsearch.settings import Settings
from tests.support.house import House, compare_again, until
from tests.support.small_package import MODULE, PROJECT
from tests.support.text_samples import chinese, written_on
from tests.unit.describe.test_iptc import OF_XMP, XMP

pytestmark = pytest.mark.process

COMMAND = Path(sys.executable).with_name("es-imgsearch")


# -- a package of somebody else's, everything switched on, the command line ----------------------


@pytest.fixture(scope="module")
def small_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built and installed into a folder, as an installer does with a pure wheel."""
    source = tmp_path_factory.mktemp("mood")
    (source / "mood_describers.py").write_text(MODULE)
    (source / "pyproject.toml").write_text(PROJECT)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist"]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    (built,) = (source / "dist").glob("*.whl")
    installed = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(installed)
    return installed


class Commands:
    def __init__(self, settings: Settings, packages: Path, folder: Path) -> None:
        self.folder = folder
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("ES_IMGSEARCH_")},
            "ES_URL": settings.es_url,
            "ES_IMGSEARCH_INDEX": settings.index,
            "PYTHONPATH": str(packages),
        }

    def __call__(self, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [COMMAND, *arguments],
            env=self._environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr


def test_all_kinds_together(
    settings: Settings, real_store: Store, small_package: Path, photographs: Path, tmp_path: Path
):
    """What two strangers and we ourselves tell of pictures; and one word only in the pixels."""
    folder = tmp_path / "photos"
    folder.mkdir()
    with Image.open(photographs / "coffee.png") as coffee:
        written_on(coffee, "Zanzibar 1964").save(folder / "1.png")
    with Image.open(photographs / "chelsea.png") as cat:
        cat.save(folder / "2.png")
    chinese().save(folder / "3.png")
    (folder / "2.json").write_text('{"title": "Unhurried", "attributes": {"breed": "tabby"}}')
    run = Commands(settings, small_package, tmp_path)
    run("init", "--encoder", "starter", "--profile", "exact")
    run("sync", str(folder), "--describers", "+text_in_image")
    client = ImageSearch(settings=settings)
    stored = {hit.relative_path: dict(hit.fields) for hit in client.search_text("photo", k=5)}
    assert stored.keys() == {"1.png", "2.png", "3.png"}
    for fields in stored.values():
        assert fields["mood"] in {"bright", "dark"}
        assert fields["sign"] in {"plus", "minus"}
        assert fields["dims_seen"] == real_store.info().meta.seal.dims
        notes = fields["describe_errors"]
        assert {"broken: RuntimeError: out of order", "late: RuntimeError: too late"} < {*notes}
        # One bad value costs itself.
        assert "heavy: left out: weight: 'heavy' is no number" in notes
        assert fields["balance"] == "[mood]"
        assert "opened: left out: opened: by: the index does not map this field" in notes
        assert "wordy: left out: word: the end of a text of 40000 bytes" in notes
        assert fields["word"] == "w" * 32_766
        assert {each.split(": ")[2] for each in notes if each.startswith("stranger: ")} == {
            "stranger", "strange_number", "strange_shares", "strange_vector", "unmapped",
        }  # fmt: skip
        assert fields["stranger"] == ["known", r"half \ud83d", None]
        assert fields["strange_shares"] == {"good": 0.5}
        assert not fields.keys() & {"never", "late", "weight", "opened", "strange_number"}
        assert {"colours", "perceptual_hash"} <= fields.keys()
    assert stored["3.png"]["mood"] == "bright"
    assert stored["3.png"]["colours"][0] == "white"
    assert client.search_text("photo", k=5, filters={"mood": "bright", "title": None})

    # The words stand in no name, no tag and no other field.
    for word, name in (("Zanzibar", "1.png"), ("王中山田", "3.png"), ("unhurried", "2.png")):
        for mode in ("hybrid", "text"):
            found = orjson.loads(run("search", word, "--mode", mode, "--json-hits"))
            assert found[0]["relative_path"] == name, (word, mode)
        assert len(found) == 1
    tabby = client.search_text("cat", k=5, filters={"attributes.breed": "tabby"})
    assert [hit.relative_path for hit in tabby] == ["2.png"]

    (folder / "4.png").write_bytes((folder / "2.png").read_bytes())
    run("sync", str(folder), "--describers", "mood,layout")
    client.reload()
    (hit,) = (hit for hit in client.search_text("cat", k=5) if hit.relative_path == "4.png")
    assert "mood" in hit.fields
    assert not hit.fields.keys() & {"colours", "sign", "describe_errors", "perceptual_hash"}
    assert "mood_of_all" in run("sync", str(folder), "--describers", "mood_of_all", code=2)


# -- which of them run ---------------------------------------------------------------------------


def test_they_are_switched_by_name(house: House):
    house.picture("a.png", 1)
    for asked, present in (
        (["-text_in_image", "-colours"], {"perceptual_hash", "colour_embedding"}),
        (["colours"], {"colours", "palette"}),
    ):
        indexer = house.indexer(describers=tuple(asked))
        try:
            indexer.pipeline.forget(change_of(indexer, "a.png"))
            indexer.pipeline.submit(change_of(indexer, "a.png"))
            indexer.pipeline.wait_idle()
        finally:
            indexer.pipeline.close()
        source = document(house, "a.png")
        ours = {"perceptual_hash", "colours", "palette"}
        assert source.keys() & ours == present & ours
    with pytest.raises(SettingsError, match="no describer 'paint'"):
        house.indexer(describers=("-paint",))


# -- files beside pictures -----------------------------------------------------------------------


@pytest.fixture
def house(real_store: Store, settings: Settings, tmp_path: Path) -> House:
    return House(real_store, settings, tmp_path)


def change_of(indexer: Indexer, name: str) -> Change:
    return Change(indexer.roots[0], name, 0.0)


def document(house: House, name: str) -> dict[str, Any]:
    return dict(house.store.documents.get(image_id("r", name)))


def title(house: House, name: str) -> str | None:
    return document(house, name).get("title")


def put(house: House, name: str, content: str) -> None:
    path = house.folder / name
    path.with_name(f".{path.name}").write_text(content)
    path.with_name(f".{path.name}").rename(path)


def vectors(house: House) -> np.ndarray:
    return np.stack([row[-1] for _, row in sorted(house.indexed().items())])


def test_a_daemon_notices_what_is_said_beside_a_picture(house: House):
    house.pictures(3)
    with house.watched() as running:
        until(lambda: len(house.indexed()) == 3)
        before = vectors(house)
        put(house, "000.json", '{"title": "first", "product_id": "4711"}')
        until(lambda: title(house, "000.png") == "first")
        put(house, "000.json", '{"title": "changed"}')
        until(lambda: title(house, "000.png") == "changed")
        assert "product_id" not in document(house, "000.png")
        put(house, "metadata.csv", "file_name,title,shelf\n001.png,second,3\n002.png,third,4\n")
        until(lambda: title(house, "001.png") == "second" and title(house, "002.png") == "third")
        assert document(house, "001.png")["attributes"] == {"shelf": "3"}
        (house.folder / "000.json").unlink()
        until(lambda: title(house, "000.png") is None)
        written = running.indexer.counts.stored
        put(house, "metadata.csv", "file_name,title,shelf\n001.png,second,3\n002.png,other,4\n")
        until(lambda: title(house, "002.png") == "other")
        until(lambda: running.indexer.pipeline.in_flight == 0)
        # Of the table's rows only one is another.
        assert running.indexer.counts.stored == written + 1
        assert running.indexer.counts.embedded == 3
        np.testing.assert_array_equal(vectors(house), before)


def test_what_was_said_while_nobody_watched_is_found_by_comparing(house: House):
    house.pictures(5)
    put(house, "000.json", '{"title": "stays"}')
    put(house, "001.json", '{"title": "before"}')
    put(house, "002.json", '{"title": "goes"}')
    put(house, "metadata.csv", "file_name,title,shelf\n004.png,of the table,3\n")
    put(house, "004.xmp", XMP)
    assert synced(house) == (5, 0)
    assert title(house, "004.png") == OF_XMP["title"]
    before = vectors(house)
    assert synced(house) == (0, 0)
    put(house, "001.json", '{"title": "after"}')
    (house.folder / "002.json").unlink()
    put(house, "003.json", '{"title": "new"}')
    # The table says something of it still.
    (house.folder / "004.xmp").unlink()
    assert synced(house) == (0, 4)
    titles = [title(house, f"00{n}.png") for n in range(5)]
    assert titles == ["stays", "after", None, "new", "of the table"]
    assert "keywords" not in document(house, "004.png")
    np.testing.assert_array_equal(vectors(house), before)
    assert synced(house) == (0, 0)


def test_what_cannot_be_understood_is_noted_until_it_is_mended(house: House):
    house.pictures(1)
    put(house, "000.json", "{")
    assert synced(house) == (1, 0)
    (error,) = document(house, "000.png")["describe_errors"]
    assert error.startswith("sidecar: ValueError: 000.json is no JSON")
    put(house, "000.json", '{"title": "mended"}')
    assert synced(house) == (0, 1)
    assert title(house, "000.png") == "mended"
    assert "describe_errors" not in document(house, "000.png")
    # The same of one that comes, and goes, when the picture has long been there.
    put(house, "000.json", "[]")
    assert synced(house) == (0, 1)
    (error,) = document(house, "000.png")["describe_errors"]
    assert error.endswith("000.json holds no JSON object")
    assert synced(house) == (0, 0)
    (house.folder / "000.json").unlink()
    assert synced(house) == (0, 1)
    assert "describe_errors" not in document(house, "000.png")


def taken(house: House, name: str) -> tuple[str | None, str | None]:
    found = document(house, name)
    return found.get("taken_local"), found.get("taken_from")


def test_names_in_capitals_and_dates_are_noticed_by_a_daemon(house: House):
    house.pictures(3)
    with house.watched() as running:
        until(lambda: len(house.indexed()) == 3)
        dated = XMP.replace(
            'xmp:Rating="4"',
            'xmp:Rating="4" xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"'
            ' photoshop:DateCreated="2024-01-01T00:30:00+09:00"',
        )
        put(house, "000.PNG.XMP", dated)
        until(lambda: taken(house, "000.png") == ("2024-01-01T00:30:00", "sidecar"))
        put(house, "000.PNG.XMP", dated.replace("2024-01-01", "2023-12-31"))
        until(lambda: taken(house, "000.png") == ("2023-12-31T00:30:00", "sidecar"))
        (house.folder / "000.PNG.XMP").unlink()
        until(lambda: taken(house, "000.png") == (None, None))
        put(house, "001.png.supplemental-meta.json",
            '{"title": "001.png", "photoTakenTime": {"timestamp": "1704112200"},'
            ' "geoData": {"latitude": 48.2, "longitude": 16.37}}')  # fmt: skip
        until(lambda: taken(house, "001.png") == ("2024-01-01T12:30:00", "takeout"))
        assert document(house, "001.png")["location"] == {"lat": 48.2, "lon": 16.37}
        (house.folder / "001.png.supplemental-meta.json").unlink()
        until(lambda: taken(house, "001.png") == (None, None))
        assert "location" not in document(house, "001.png")
        put(house, "002.JSON", '{"title": "of json"}')
        put(house, "002.xmp", "<broken")
        until(lambda: "describe_errors" in document(house, "002.png"))
        until(lambda: title(house, "002.png") == "of json")
        assert running.indexer.counts.embedded == 3
    assert synced(house) == (0, 0)


def test_a_table_describes_the_folders_below_it(house: House):
    for n, folder in enumerate(("", "train", "train/cat", "test")):
        house.picture(os.path.join(folder, f"{n}.png"), n)
    named = ("0.png", "train/1.png", "train/cat/2.png", "test/3.png")
    table = "file_name,title\n" + "".join(f"{name},of {name}\n" for name in named)
    put(house, "metadata.csv", table)
    assert synced(house) == (4, 0)
    assert [title(house, name) for name in named] == [f"of {name}" for name in named]
    # A row that changes, one that goes, and one that comes, of folders below.
    changed = table.replace("of train/1.png", "another").replace("test/3.png,of test/3.png\n", "")
    put(house, "metadata.csv", changed)
    assert synced(house) == (0, 2)
    assert [title(house, name) for name in named] == [
        "of 0.png", "another", "of train/cat/2.png", None,
    ]  # fmt: skip
    put(house, "metadata.csv", table)
    assert synced(house) == (0, 2)
    with house.watched():
        put(house, "metadata.csv", table.replace("of test/3.png", "noticed"))
        until(lambda: title(house, "test/3.png") == "noticed")
        (house.folder / "metadata.csv").unlink()
        until(lambda: not any(title(house, name) for name in named))
    assert synced(house) == (0, 0)


def test_each_comparison_finds_what_no_event_told(house: House, monkeypatch: pytest.MonkeyPatch):
    """A share without events: files beside pictures come, change and go between comparisons."""
    monkeypatch.setattr(WatchedRoot, "_on_hint", lambda *_: None)
    house.pictures(4)
    for n in range(3):
        put(house, f"00{n}.xmp", XMP)
    with house.watched() as running:
        until(lambda: len(house.indexed()) == 4)
        before = vectors(house)
        put(house, "metadata.csv", "file_name,title\n000.png,of the table\n")
        (house.folder / "000.xmp").unlink()
        put(house, "001.json", "{")
        compare_again(running)
        until(lambda: title(house, "000.png") == "of the table")
        until(lambda: "describe_errors" in document(house, "001.png"))
        assert title(house, "002.png") == OF_XMP["title"]
        # One that cannot be read, then can; its size and time stay the same.
        path = house.folder / "001.json"
        before_state = path.stat()
        path.write_bytes(b"7")
        os.utime(path, ns=(before_state.st_atime_ns, before_state.st_mtime_ns))
        compare_again(running)
        until(lambda: "no JSON object" in document(house, "001.png")["describe_errors"][0])
        path.unlink()
        (house.folder / "002.xmp").unlink()
        (house.folder / "metadata.csv").unlink()
        compare_again(running)
        until(lambda: "describe_errors" not in document(house, "001.png"))
        until(lambda: title(house, "000.png") is None and title(house, "002.png") is None)
        assert title(house, "001.png") == OF_XMP["title"]
        np.testing.assert_array_equal(vectors(house), before)
        assert running.indexer.counts.embedded == 4
    assert synced(house) == (0, 0)


def test_a_table_of_something_else_is_told_once_and_costs_nothing(
    house: House, caplog: pytest.LogCaptureFixture
):
    house.pictures(3)
    put(house, "000.json", '{"title": "mine"}')
    put(house, "metadata.csv", "station,depth\nA7,300\n")
    with house.watched() as running:
        until(lambda: len(house.indexed()) == 3)
        compare_again(running)
        until(lambda: not any(running.indexer._sidecars.values()))
    told = [record.getMessage() for record in caplog.records if "file_name" in record.getMessage()]
    assert len(told) == 1
    assert str(house.folder / "metadata.csv") in told[0]
    assert title(house, "000.png") == "mine"
    assert not any("describe_errors" in document(house, f"00{n}.png") for n in range(3))


def test_a_folder_is_listed_once_however_many_files_say_something(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    house.pictures(6)
    for n in range(6):
        put(house, f"00{n}.json", f'{{"title": "{n}"}}')
    assert synced(house) == (6, 0)
    for n in range(6):
        put(house, f"00{n}.json", f'{{"title": "again {n}"}}')
    listed: list[str] = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(str(path)) or listdir(path))
    assert synced(house) == (0, 6)
    # Once as they were met, once as they had settled.
    assert listed.count(str(house.folder)) <= 2
    assert [title(house, f"00{n}.png") for n in range(6)] == [f"again {n}" for n in range(6)]


def synced(house: House) -> tuple[int, int]:
    """Pictures embedded, and those written again, by one `sync`."""
    indexer = house.indexer()
    try:
        sync(indexer)
        return indexer.counts.embedded, indexer.counts.reused
    finally:
        indexer.pipeline.close()
