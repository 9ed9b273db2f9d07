"""`verify`: each kind of difference, and the command that it names ends it."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from es_imgsearch.cli import main
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import VECTOR_FIELD, new_meta
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import ReadError
from es_imgsearch.records import Change, FileState, Grid, Root, image_id
from es_imgsearch.testing import FakeEncoder, remove_index
from es_imgsearch.write.documents import failure_document
from tests.e2e.test_mounts import Disk
from tests.support.house import House, described, paint, pixels
from tests.support.processes import without_root
from tests.support.reindexing import run


@pytest.fixture
def synced(house: House) -> House:
    house.pictures(3)
    (house.folder / "broken.jpg").write_bytes(b"no picture at all")
    run(house, "sync", str(house.folder), code=1)
    assert found(house) == []
    return house


def verified(house: House, *options: str) -> list[dict[str, str]]:
    """What `verify --json` prints, and its exit code fits."""
    where = ["--index", house.settings.index, "--es-url", str(house.settings.es_url)]
    arguments = ["verify", str(house.folder), "--json", *where, *options]
    result = CliRunner().invoke(main, arguments)
    differences: list[dict[str, str]] = json.loads(result.stdout)
    assert result.exit_code == (1 if differences else 0), result.stderr
    return differences


def found(house: House, *options: str) -> list[tuple[str, str]]:
    return [(each["what"], each["relative_path"]) for each in verified(house, *options)]


def mend(house: House, difference: Mapping[str, str], code: int = 0, **replaced: str) -> None:
    """Run the command that `verify` names."""
    program, *words = shlex.split(difference["remedy"])
    assert program == "es-imgsearch"
    for old, new in replaced.items():
        words = [word.replace(old, new) for word in words]
    run(house, *words, code=code)


def replace_stored(house: House, name: str, **changed: Any) -> None:
    """Store a document with other fields; None removes one."""
    id_ = image_id("r", name)
    document = {
        **house.store.documents.get(id_),
        VECTOR_FIELD: house.store.documents.vector(id_),
        **changed,
    }
    kept = {field: value for field, value in document.items() if value is not None}
    assert house.store.documents.write([Write(id_, document=kept)]) == {id_: None}
    house.store.refresh()


def test_a_difference_says_where_it_is_and_which_command_ends_it(synced: House):
    path = synced.picture("sub/new one.png", 7)
    (difference,) = verified(synced)
    assert difference == {
        "what": "missing",
        "root": "r",
        "relative_path": "sub/new one.png",
        "detail": "",
        "path": str(path),
        "remedy": f"es-imgsearch sync r={synced.folder} --index {synced.settings.index}",
    }


@pytest.mark.parametrize("kind", ["missing", "changed", "gone"])
def test_a_new_a_changed_and_a_missing_file_are_mended_by_sync(synced: House, kind: str):
    name = {"missing": "new.png", "changed": "000.png", "gone": "001.png"}[kind]
    if kind == "gone":
        (synced.folder / name).unlink()
    else:
        synced.picture(name, 100)
        os.utime(synced.folder / name, ns=(1, 1))
    (difference,) = verified(synced)
    assert (difference["what"], difference["relative_path"]) == (kind, name)
    mend(synced, difference)
    assert found(synced) == []


def test_a_path_with_a_document_and_a_failure_is_a_difference(synced: House):
    state = FileState.of((synced.folder / "000.png").stat())
    failure = failure_document(
        Change(Root("r", synced.folder), "000.png", 0.0), ReadError("corrupt", "no more"), state
    )
    connection = synced.store.connection
    path = f"/{connection.failures}/_doc/{failure['image_id']}"
    connection.request("PUT", path, {**failure, "attempts": 1}, params={"refresh": "true"})
    differences = verified(synced)
    assert ("two states", "000.png") in [(d["what"], d["relative_path"]) for d in differences]
    mend(synced, differences[0])
    assert found(synced) == []


def test_other_content_of_the_same_size_and_time_is_found_with_content(synced: House):
    path = synced.folder / "000.png"
    synced.pictures(1)
    bmp = synced.folder / "map.bmp"
    paint(bmp, 50, "bmp")
    os.utime(bmp, ns=(10**18, 10**18))
    run(synced, "sync", str(synced.folder))
    paint(bmp, 51, "bmp")
    os.utime(bmp, ns=(10**18, 10**18))
    assert path.exists()
    assert found(synced) == []
    assert found(synced, "--content") == [("other content", "map.bmp")]
    (difference,) = verified(synced, "--content")
    mend(synced, difference)
    assert found(synced, "--content") == []
    stored = synced.store.documents.vector(image_id("r", "map.bmp"))
    assert stored == pytest.approx(FakeEncoder()._vectors(pixels(51)[None])[0], abs=1e-6)


def test_a_stored_file_that_may_not_be_read_is_unknown(synced: House):
    (synced.folder / "broken.jpg").unlink()  # reading needs processes, which start as root only
    run(synced, "sync", str(synced.folder))
    path = synced.folder / "000.png"
    path.chmod(0)
    where = ["verify", str(synced.folder), "--json"]
    said = without_root(lambda: run(synced, *where, code=1).stdout, synced.folder)
    (difference,) = json.loads(said)
    assert (difference["what"], difference["relative_path"]) == ("unknown", "000.png")
    path.chmod(0o644)
    mend(synced, difference)
    assert found(synced, "--content") == []


def test_a_folder_that_may_not_be_listed_is_unknown(synced: House):
    (synced.folder / "broken.jpg").unlink()
    synced.picture("sub/a.png", 20)
    run(synced, "sync", str(synced.folder))
    (synced.folder / "sub").chmod(0)
    where = ["verify", str(synced.folder), "--json"]
    said = without_root(lambda: run(synced, *where, code=1).stdout, synced.folder)
    (synced.folder / "sub").chmod(0o755)
    (difference,) = json.loads(said)
    assert (difference["what"], difference["relative_path"]) == ("unknown", "sub")


def test_what_was_on_a_file_system_that_is_not_mounted_is_no_missing_file(synced: House):
    disk = Disk(synced.folder / "disk")
    try:
        synced.picture("disk/a.png", 25)
        run(synced, "sync", str(synced.folder))
    finally:
        disk.unmount()
    (difference,) = verified(synced)
    assert (difference["what"], difference["relative_path"]) == ("not mounted", "disk")
    mend(synced, difference)
    assert found(synced) == []
    assert synced.differing() == []


def test_a_link_to_nothing_is_unknown(synced: House, tmp_path: Path):
    target = tmp_path / "target.png"
    paint(target, 26)
    (synced.folder / "link.png").symlink_to(target)
    run(synced, "sync", str(synced.folder))
    target.rename(tmp_path / "away.png")
    (difference,) = verified(synced)
    assert (difference["what"], difference["relative_path"]) == ("unknown", "link.png")
    (synced.folder / "link.png").unlink()
    mend(synced, difference)
    assert found(synced) == []


def test_a_failure_whose_file_can_be_read_now_is_a_difference(synced: House):
    path = synced.picture("denied.png", 30)
    os.utime(path, ns=(10**18, 10**18))
    state = FileState.of(path.stat())
    failure = failure_document(
        Change(Root("r", synced.folder), "denied.png", 0.0),
        ReadError("permission_denied", "This file may not be read."),
        state,
    )
    synced.store.documents.write([Write(failure["image_id"], failure=failure)])
    (difference,) = verified(synced)
    assert (difference["what"], difference["detail"]) == ("readable now", "permission_denied")
    mend(synced, difference, code=1)  # broken.jpg fails again
    assert found(synced) == []


def test_a_document_without_a_vector_is_a_difference(synced: House):
    replace_stored(synced, "000.png", **{VECTOR_FIELD: None})
    (difference,) = verified(synced)
    assert (difference["what"], difference["relative_path"]) == ("without vector", "000.png")
    mend(synced, difference)
    assert found(synced) == []
    assert synced.differing() == []


def test_vectors_of_another_encoder_are_found_with_content(synced: House, encoders: dict):
    """As a daemon left them that did not notice that the index had been made anew."""
    for n in range(2):
        theirs = encoders["twin"].embed_images(pixels(n)[None])[0]
        replace_stored(synced, f"{n:03}.png", **{VECTOR_FIELD: theirs}, title="kept")
    assert found(synced) == []
    differences = verified(synced, "--content")
    named = [(each["what"], each["relative_path"]) for each in differences]
    assert named == [("other encoder", "000.png"), ("other encoder", "001.png")]
    mend(synced, differences[0])
    assert found(synced, "--content") == []
    assert synced.differing() == []
    assert synced.store.documents.get(image_id("r", "000.png"))["title"] == "kept"


def test_a_document_without_its_regions_is_a_difference(house: House):
    remove_index(house.store)
    meta = new_meta(seal_of(house.encoder), "exact", "cosine", grid=Grid.parse("2x2"))
    house.store.generations.create(meta, described())
    house.pictures(2)
    run(house, "sync", str(house.folder))
    assert found(house) == []
    replace_stored(house, "000.png", regions=None)
    (difference,) = verified(house)
    assert (difference["what"], difference["relative_path"]) == ("without regions", "000.png")
    mend(house, difference)
    assert found(house) == []


def test_a_document_without_a_code_is_a_difference(synced: House):
    synced.pictures(20)
    run(synced, "sync", str(synced.folder))
    run(synced, "codes", "train", "--method", "sign")
    assert found(synced) == []
    replace_stored(synced, "000.png", image_code=None)
    (difference,) = verified(synced)
    assert (difference["what"], difference["relative_path"]) == ("without code", "000.png")
    mend(synced, difference)
    assert found(synced) == []


def test_documents_of_a_root_that_is_not_registered_are_a_difference(synced: House):
    document = synced.store.documents.get(image_id("r", "000.png"))
    other = image_id("lost", "000.png")
    synced.store.documents.write(
        [Write(other, document={**document, "image_id": other, "root": "lost"})]
    )
    synced.store.refresh()
    (difference,) = verified(synced)
    assert difference["what"] == "unregistered root"
    assert (difference["root"], difference["detail"]) == ("lost", "1 documents")
    folder = synced.folder.with_name("was-lost")
    folder.mkdir()
    paint(folder / "000.png", 0)
    mend(synced, difference, DIR=str(folder))
    assert found(synced) == []


@pytest.mark.parametrize("gone", [True, False], ids=["gone for good", "mounted again"])
def test_a_root_whose_folder_is_missing_is_a_difference(synced: House, gone: bool):
    away = synced.folder.with_name("away")
    synced.folder.rename(away)
    (difference,) = verified(synced)
    assert (difference["what"], difference["relative_path"]) == ("folder unavailable", "")
    assert synced.store.listings.count("r") == 3
    if gone:
        mend(synced, difference)
        assert synced.store.listings.count("r") == 0
        run(synced, "verify", str(synced.folder), code=2)
    else:
        away.rename(synced.folder)
        assert found(synced) == []


def test_a_root_whose_folder_may_not_be_listed_is_a_difference(synced: House):
    synced.folder.chmod(0)
    where = ["verify", str(synced.folder), "--json"]
    said = without_root(lambda: run(synced, *where, code=1).stdout, synced.folder.parent)
    synced.folder.chmod(0o755)
    (difference,) = json.loads(said)
    assert (difference["what"], difference["root"]) == ("folder unavailable", "r")


def test_a_summary_counts_each_kind_and_names_its_command(synced: House):
    (synced.folder / "000.png").unlink()
    synced.picture("new.png", 40)
    synced.picture("other.png", 41)
    said = run(synced, "verify", str(synced.folder), "--exclude", "*.psd", code=1)
    assert said.stdout.splitlines() == [
        f"gone            {synced.folder}/000.png",
        f"missing         {synced.folder}/new.png",
        f"missing         {synced.folder}/other.png",
    ]
    command = (
        f"es-imgsearch sync r={synced.folder} --exclude '*.psd' --index {synced.settings.index}"
    )
    lines = said.stderr.splitlines()
    assert lines[:3] == [
        f"gone: 1 document whose file is not in the folder; run `{command}`.",
        f"missing: 2 pictures that the index lacks; run `{command}`.",
        "3 differences.",
    ]
    failures = f"`es-imgsearch failures --index {synced.settings.index}`"
    assert lines[3] == f"1 file cannot be read or stored: {failures}."
    assert lines[4] == "Left out of 'r': of the patterns '*.psd' 0."
    assert lines[5].startswith("Only sizes and times were compared")
