"""Duplicates on the real server, against brute force and on real photographs."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from es_imgsearch.cli import main
from es_imgsearch.describe.layout import colour_vector
from es_imgsearch.describe.registry import picture_describers
from es_imgsearch.duplicates import candidates as neighbours
from es_imgsearch.duplicates import find
from es_imgsearch.duplicates import near as duplicates
from es_imgsearch.duplicates.find import find_duplicates
from es_imgsearch.duplicates.groups import DuplicateGroup, IndexedPicture, sorted_group
from es_imgsearch.duplicates.hashes import ALL_TURNS, turned_hash
from es_imgsearch.duplicates.originals import OriginalFiles
from es_imgsearch.duplicates.pixels import Pixels, show_the_same
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import VECTOR_FIELD, new_meta
from es_imgsearch.elastic.meta import Seal
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import ImageMissing, LibraryMissing
from es_imgsearch.read.file import read_file
from es_imgsearch.records import Change, Embedded, Picture, Root
from es_imgsearch.settings import Settings
from es_imgsearch.testing import FakeEncoder
from es_imgsearch.watch.roots import register_roots
from es_imgsearch.write.documents import picture_document

DIMS = 64
MAX_PIXELS = 10**8


def hamming(one: int, other: int) -> int:
    return (one ^ other).bit_count()


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def fill(store: Store, documents: Iterable[dict[str, Any]]) -> None:
    """Documents of a made-up picture each; what they lack is filled in."""
    store.generations.create(new_meta(Seal("fake", "1", DIMS, "f"), "exact", "cosine"))
    writes = []
    for n, given in enumerate(documents):
        document = {
            "image_id": f"{n:05}",
            "root": "r",
            "relative_path": f"{n:05}.jpg",
            "content_id": f"content {n}",
            "size_bytes": n,
            "mtime_ns": n,
            VECTOR_FIELD: np.eye(1, DIMS, n % DIMS, dtype=np.float32)[0],
            **given,
        }
        writes.append(Write(document["image_id"], document=document))
    assert set(store.documents.write(writes).values() if writes else [None]) == {None}
    store.refresh()


def ids(groups: Iterable[DuplicateGroup]) -> set[frozenset[str]]:
    return {frozenset(each.image_id for each in group.pictures) for group in groups}


def components(count: int, is_pair: np.ndarray) -> set[frozenset[str]]:
    """Groups of more than one, by the reachability of a matrix of pairs."""
    reached = is_pair | is_pair.T | np.eye(count, dtype=bool)
    while True:
        further = (reached.astype(int) @ reached.astype(int)) > 0
        if (further == reached).all():
            break
        reached = further
    sets = {frozenset(f"{m:05}" for m in np.flatnonzero(row)) for row in reached}
    return {each for each in sets if len(each) > 1}


# -- same ----------------------------------------------------------------------------------


def test_equal_bytes_are_grouped_over_pages(real_store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(find, "_CONTENTS_PAGE", 7)
    monkeypatch.setattr(neighbours, "_PAGE", 5)
    contents = np.random.default_rng(1).integers(0, 40, 60)
    fill(real_store, ({"content_id": f"c{content}"} for content in contents))
    wanted = {
        frozenset(f"{n:05}" for n in np.flatnonzero(contents == content))
        for content in set(contents)
        if (contents == content).sum() > 1
    }
    found = list(find_duplicates(real_store, "same", host="here"))
    assert len(found) == len(wanted) > 10
    assert ids(found) == wanted
    assert {pair.by for group in found for pair in group.pairs} == {"bytes"}


def test_equal_bytes_of_one_picture(real_store: Store):
    fill(real_store, ({"content_id": f"c{n % 3}"} for n in range(7)))
    (group,) = find_duplicates(real_store, "same", host="here", image_id="00001")
    # The larger file first.
    assert [each.image_id for each in group.pictures] == ["00004", "00001"]


@pytest.mark.parametrize("level", ["same", "near", "similar"])
def test_a_missing_picture_raises(real_store: Store, level: Any):
    fill(real_store, [{}])
    with pytest.raises(ImageMissing):
        list(find_duplicates(real_store, level, host="here", image_id="nobody"))


@pytest.mark.parametrize("level", ["same", "near", "similar"])
def test_an_empty_index_has_no_duplicates(real_store: Store, level: Any):
    fill(real_store, [])
    assert list(find_duplicates(real_store, level, host="here")) == []


# -- near, by hash and embedding -------------------------------------------------------------


def hashes_with_copies(seed: int, families: int, copies: int) -> list[int]:
    """Random hashes, and copies of each with up to 14 bits changed."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(families):
        original = int(random.integers(0, 2**63)) * 2 + 1
        found.append(original)
        for _ in range(copies):
            changed = original
            for bit in random.choice(64, random.integers(0, 15), replace=False):
                changed ^= 1 << int(bit)
            found.append(changed)
    return found


def test_neighbours_by_hash_are_those_of_comparing_all(real_store: Store):
    hashes = hashes_with_copies(2, families=300, copies=4)
    # Sixty equal ones, among which the first ten must not hide the others.
    hashes += [hashes[0]] * 60
    fill(real_store, ({"perceptual_hash": f"{each:016x}"} for each in hashes))
    for radius in (0, 6, 12):
        asked = [*hashes[:40], *hashes[-2:]]
        for one, found in zip(
            asked, neighbours.search_hashes(real_store, asked, radius), strict=True
        ):
            distances = {f"{n:05}": hamming(one, other) for n, other in enumerate(hashes)}
            wanted = {key: value for key, value in distances.items() if value <= radius}
            assert dict(found) == wanted


def test_without_originals_hash_and_embedding_decide(real_store: Store):
    random = np.random.default_rng(3)
    hashes, vectors = [], []
    for n, each in enumerate(hashes_with_copies(4, families=12, copies=4)):
        hashes.append(turned_hash(each, ALL_TURNS[n % len(ALL_TURNS)]))
        centre = np.eye(DIMS)[n // 5] if n % 7 else random.normal(size=DIMS)
        vectors.append(centre + random.normal(0, 0.05, DIMS))
    stored = unit(np.array(vectors))
    fill(
        real_store,
        (
            {"perceptual_hash": f"{each:016x}", VECTOR_FIELD: vector}
            for each, vector in zip(hashes, stored, strict=True)
        ),
    )
    nearest = np.array(
        [
            [min(hamming(turned_hash(a, turn), b) for turn in ALL_TURNS) for b in hashes]
            for a in hashes
        ]
    )
    is_pair = np.vectorize(duplicates.is_sure)(nearest, stored @ stored.T)
    np.fill_diagonal(is_pair, False)
    wanted = components(len(hashes), is_pair)
    assert list(find_duplicates(real_store, "near", host="elsewhere")) == []
    found = list(find_duplicates(real_store, "near", host="elsewhere", unconfirmed=True))
    assert len(wanted) > 5
    assert ids(found) == wanted
    for group in found:
        for pair in group.pairs:
            assert pair.by == "cosine"
            assert pair.corners is None
            one, other = int(pair.one), int(pair.other)
            turned = {turn.name: turned_hash(hashes[one], turn) for turn in ALL_TURNS}
            assert pair.hash_distance == hamming(turned[pair.turn], hashes[other])
            assert pair.cosine == pytest.approx(stored[one] @ stored[other], abs=1e-3)


# -- similar -------------------------------------------------------------------------------


def test_similar_ones_are_those_of_comparing_all(real_store: Store):
    random = np.random.default_rng(5)
    centres = random.normal(size=(20, DIMS))
    stored = unit(centres[np.arange(120) % 20] + random.normal(0, 0.4, (120, DIMS)))
    fill(real_store, ({VECTOR_FIELD: vector} for vector in stored))
    cosines = stored @ stored.T
    np.fill_diagonal(cosines, 0)
    for least in (0.85, 0.9):
        wanted = components(len(stored), cosines >= least)
        found = list(find_duplicates(real_store, "similar", host="here", threshold=least))
        assert wanted
        assert ids(found) == wanted
        for pair in (pair for group in found for pair in group.pairs):
            assert pair.cosine == pytest.approx(cosines[int(pair.one), int(pair.other)], abs=1e-3)


def test_more_similar_pictures_than_the_first_k_are_all_found(real_store: Store):
    vector = unit(np.ones(DIMS))
    fill(real_store, ({VECTOR_FIELD: vector} for _ in range(150)))
    (group,) = find_duplicates(real_store, "similar", host="here", image_id="00007")
    assert len(group.pictures) == 150


# -- real photographs ------------------------------------------------------------------------


class Album:
    """Photographs and copies of them in a folder, indexed with everything that describes."""

    def __init__(self, store: Store, settings: Settings, folder: Path, photographs: Path) -> None:
        self.store = store
        self.settings = settings
        self.folder = folder
        self.photographs = photographs
        folder.mkdir()

    def photograph(self, name: str) -> Image.Image:
        return Image.open(self.photographs / name).convert("RGB")

    def save(self, name: str, image: Image.Image) -> None:
        image.save(self.folder / name, quality=85)

    def index(self) -> None:
        encoder = FakeEncoder()
        described = picture_describers(["hashes", "layout", "colours", "exif"])
        self.store.generations.create(
            new_meta(seal_of(encoder), "exact", "cosine"), [each.mapping for each in described]
        )
        root = Root("album", self.folder)
        register_roots(self.store, [root], self.settings.host)
        describers = [(each.name, each.describe) for each in described]
        writes = []
        for path in sorted(self.folder.iterdir()):
            picture = read_file(str(path), encoder.preparation, describers, max_pixels=MAX_PIXELS)
            assert isinstance(picture, Picture)
            assert "describe_errors" not in picture.fields
            (vector,) = encoder.embed_images(picture.pixels[None])
            change = Change(root, path.name, time.time())
            document = picture_document(change, picture, Embedded(vector), 1.0)
            writes.append(Write(change.image_id, document=document))
        assert set(self.store.documents.write(writes).values()) == {None}
        self.store.refresh()

    def find(
        self, level: Any = "near", host: str | None = None, **options: Any
    ) -> list[DuplicateGroup]:
        host = self.settings.host if host is None else host
        return list(find_duplicates(self.store, level, host=host, **options))


def names(groups: Iterable[DuplicateGroup]) -> set[frozenset[str]]:
    return {frozenset(each.relative_path for each in group.pictures) for group in groups}


@pytest.fixture
def album(real_store: Store, settings: Settings, tmp_path: Path, photographs: Path) -> Album:
    """Copies of the cat and the cup; a rocket and coins without any."""
    album = Album(real_store, settings, tmp_path / "album", photographs)
    for name in ("rocket.jpg", "coins.png"):
        album.save(name, album.photograph(name))
    cat, cup = album.photograph("chelsea.png"), album.photograph("coffee.png")
    album.save("cat.png", cat)
    album.save("cat small.jpg", cat.resize((cat.width // 2, cat.height // 2)))
    album.save("cat mirrored.jpg", ImageOps.mirror(cat))
    album.save("cat grey.jpg", cat.convert("L"))
    album.save("cup.png", cup)
    album.save("cup turned.jpg", cup.transpose(Image.Transpose.ROTATE_90))
    album.save("cup bright.jpg", ImageEnhance.Brightness(cup).enhance(1.2))
    (album.folder / "cup again.png").write_bytes((album.folder / "cup.png").read_bytes())
    return album


CATS = frozenset({"cat.png", "cat small.jpg", "cat mirrored.jpg"})
GREY_CAT = frozenset({"cat grey.jpg"})
CUPS = frozenset({"cup.png", "cup turned.jpg", "cup bright.jpg", "cup again.png"})


def test_copies_are_grouped_with_their_evidence(album: Album):
    album.index()
    found = album.find()
    assert names(found) == {CATS, CUPS}
    assert names(album.find("same")) == {frozenset({"cup.png", "cup again.png"})}
    pairs = [pair for group in found for pair in group.pairs]
    assert {pair.by for pair in pairs} == {"bytes", "pixels"}
    assert all(group.is_confirmed for group in found)
    assert {"mirrored", "upright"} < {pair.turn for pair in pairs}
    assert {"turned by 90°", "turned by 270°"} & {pair.turn for pair in pairs}
    for group in found:
        areas = [each.width * each.height for each in group.pictures]
        assert areas == sorted(areas, reverse=True)


def test_the_copies_of_one_picture(album: Album):
    album.index()
    by_name = {each.relative_path: each for group in album.find() for each in group.pictures}
    for name in ("cup.png", "cup turned.jpg"):
        (group,) = album.find(image_id=by_name[name].image_id)
        assert {each.relative_path for each in group.pictures} == CUPS


def test_a_crop_is_found_when_it_looks_thoroughly(album: Album):
    cat = album.photograph("chelsea.png")
    album.save("ear.jpg", cat.crop((0, 0, cat.width * 6 // 10, cat.height * 7 // 10)))
    album.index()
    assert CATS in names(album.find())
    found = album.find(thorough=True)
    assert CATS | GREY_CAT | {"ear.jpg"} in names(found)
    pairs = [pair for group in found for pair in group.pairs if pair.by == "corners"]
    assert min(pair.corners for pair in pairs) >= duplicates.MIN_CORNERS
    assert not all(group.is_confirmed for group in found)


def test_what_no_originals_confirm_is_counted_and_grouped_only_if_asked_for(album: Album):
    album.index()
    found = find_duplicates(album.store, host="elsewhere")
    # Bytes were compared when the files were indexed.
    assert names(found) == {frozenset({"cup.png", "cup again.png"})}
    assert found.unconfirmed > 3
    groups = album.find(host="elsewhere", unconfirmed=True)
    # To the fake encoder, grey and turned copies are not near enough.
    assert names(groups) == {CATS, CUPS - {"cup turned.jpg"}}
    assert {pair.by for group in groups for pair in group.pairs} == {"bytes", "cosine"}
    assert {each.path for group in groups for each in group.pictures} == {None}


def test_pixels_are_compared_without_opencv_and_corners_are_not(
    album: Album, monkeypatch: pytest.MonkeyPatch
):
    album.index()
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert names(album.find()) == {CATS, CUPS}
    with pytest.raises(LibraryMissing, match="pip install"):
        album.find(thorough=True)


def test_an_original_that_changed_since_or_is_gone_confirms_nothing(album: Album):
    album.index()
    for name in CATS - {"cat.png"}:
        (album.folder / name).write_bytes(b"changed")
    (album.folder / "cup turned.jpg").unlink()
    found = find_duplicates(album.store, host=album.settings.host)
    assert names(found) == {CUPS - {"cup turned.jpg"}}
    # What looked the same is left to `sync`; what is on another host is unconfirmed.
    assert found.unconfirmed == 0
    assert set(found.left_out.values()) == {"album"}


def outdated(album: Album, how: str, *names: str) -> None:
    for name in names:
        path = album.folder / name
        if how == "gone":
            path.unlink()
        elif how == "moved":
            path.rename(album.folder.parent / name)
        elif how == "a folder":
            path.unlink()
            path.mkdir()
        elif how == "touched":
            os.utime(path, (10**9, 10**9))
        elif how == "link to nothing":
            path.unlink()
            path.symlink_to("nothing")
        else:
            path.write_bytes(b"other bytes")


HOWS = ["gone", "moved", "a folder", "touched", "link to nothing", "changed"]


@pytest.mark.parametrize(
    ("level", "how"),
    [*(("same", how) for how in HOWS), ("near", "gone"), ("near", "changed"), ("similar", "gone")],
)
def test_a_file_that_is_gone_or_changed_is_in_no_group(album: Album, level: str, how: str):
    """The kept one of all levels, whose only copy would be removed."""
    album.save("cup third.png", album.photograph("coffee.png"))
    (album.folder / "cup third.png").write_bytes((album.folder / "cup.png").read_bytes())
    album.index()
    (before,) = (each for each in album.find(level) if "cup.png" in names([each]).pop())
    outdated(album, how, "cup.png")
    found = find_duplicates(album.store, level, host=album.settings.host)  # type: ignore[arg-type]
    (group,) = (each for each in found if "cup third.png" in names([each]).pop())
    assert before.pictures[0].relative_path == "cup.png"
    (left,) = names([group])
    assert left >= names([before]).pop() - {"cup.png"}
    assert "cup.png" not in left
    sizes = [each.state.size_bytes for each in group.pictures]
    assert group.reclaimable_bytes == sum(sizes[1:])
    assert len(group.pairs) == len(group.pictures) - 1
    assert len(found.left_out) == 1


@pytest.mark.parametrize("level", ["same", "near", "similar"])
def test_a_group_of_which_one_file_is_left_is_none(album: Album, level: str):
    for name in CUPS - {"cup.png", "cup again.png"}:
        (album.folder / name).unlink()
    album.index()
    outdated(album, "gone", "cup.png")
    done = run(album.settings, "--level", level, "--json")
    left = [
        each["relative_path"] for group in json.loads(done.stdout) for each in group["pictures"]
    ]
    assert not {"cup.png", "cup again.png"} & set(left)
    assert done.stderr.splitlines()[1].startswith(
        "1 file was left out, gone or changed since indexed."
    )


@pytest.mark.usefixtures("encoders")
def test_what_is_left_out_is_said_with_the_sync_that_ends_it(album: Album):
    album.index()
    outdated(album, "gone", "cup.png")
    done = run(album.settings, "--level", "same")
    assert (done.exit_code, done.stdout) == (0, "")
    line = done.stderr.splitlines()[-1]
    assert line.startswith("1 file was left out, gone or changed since indexed.")
    words = shlex.split(line.partition("es-imgsearch ")[2])
    assert words[0] == "sync"
    assert words[words.index("--index") + 1] == album.settings.index
    assert f"album={album.folder}" in words
    again = CliRunner().invoke(main, [*words, "--es-url", album.settings.es_url])
    assert again.exit_code == 0, again.output
    album.store.refresh()
    assert run(album.settings, "--level", "same").stderr == "No duplicates.\n"


def one_cup(album: Album) -> list[IndexedPicture]:
    (group,) = album.find("same")
    return [each for each in group.pictures if each.relative_path == "cup.png"]


def test_files_of_another_host_stay_and_come_last(album: Album):
    album.index()
    (group,) = album.find("same", host="elsewhere")
    assert {each.relative_path for each in group.pictures} == {"cup.png", "cup again.png"}
    away = [
        replace(each, width=9 * each.width, image_id="away", path=None) for each in one_cup(album)
    ]
    mixed = sorted_group("same", [*away, *one_cup(album)], [])
    assert [each.path is None for each in mixed.pictures] == [False, True]


def test_a_link_comes_after_the_file_behind_it(album: Album):
    (album.folder / "a link.png").symlink_to(album.folder / "cup.png")
    album.index()
    for keep in ("largest", "oldest"):
        (group,) = (each.keeping(keep) for each in album.find("same"))  # type: ignore[arg-type]
        kept, *others = (each.relative_path for each in group.pictures)
        assert kept in {"cup.png", "cup again.png"}
        assert "a link.png" in others


def test_a_path_that_leads_out_of_its_root_is_not_read(album: Album):
    """Others may write to the index; a script that removes files would follow."""
    album.index()
    outside = album.folder.parent / "outside.jpg"
    outside.write_bytes((album.folder / "cat small.jpg").read_bytes())
    (picture,) = (
        each for group in album.find() for each in group.pictures
        if each.relative_path == "cat small.jpg"
    )  # fmt: skip
    originals = OriginalFiles(album.store.info().meta, album.settings.host, MAX_PIXELS)
    assert originals.path(picture) == album.folder / "cat small.jpg"
    for path in ("../outside.jpg", str(outside), "a/../../outside.jpg"):
        assert originals.path(replace(picture, relative_path=path)) is None


def test_the_described_vectors_are_stored_and_the_colours_left_out_of_the_source(album: Album):
    album.index()
    answer = album.store.connection.request(
        "POST",
        f"/{album.store.index}/_search",
        {
            "query": {"term": {"relative_path": "cat.png"}},
            "docvalue_fields": ["colour_embedding", "perceptual_hash"],
        },
    )
    (hit,) = answer["hits"]["hits"]
    assert "colour_embedding" not in hit["_source"]
    stored = np.ravel(hit["fields"]["colour_embedding"])
    wanted = colour_vector(Image.open(album.folder / "cat.png").convert("RGB"))
    np.testing.assert_array_equal(stored.astype(np.float32), wanted)
    (seen,) = neighbours.load_by_id(album.store, [hit["_id"]]).values()
    assert f"{seen.perceptual_hash:016x}" == hit["_source"]["perceptual_hash"]


# -- the command -----------------------------------------------------------------------------


def run(settings: Settings, *arguments: str) -> Result:
    options = ["--es-url", settings.es_url, "--index", settings.index]
    return CliRunner().invoke(main, ["duplicates", *arguments, *options])


def listed(stdout: str) -> list[list[str]]:
    """The names of the files of every group, as printed."""
    blocks = [block.splitlines()[1:] for block in stdout.split("\n\n")]
    return [[line.split("album/")[1] for line in block] for block in blocks]


def test_the_command_lists_groups_with_what_they_free(album: Album):
    album.index()
    sizes = {each.name: each.stat().st_size for each in album.folder.iterdir()}
    done = run(album.settings, "--level", "same")
    assert done.exit_code == 0
    freed = f"{sizes['cup.png'] / 1000:.1f} kB to free"
    headline, kept, other = done.stdout.splitlines()
    assert headline == f"Group 1: 2 files, {freed}"
    assert (kept.split()[0], other.split()[:2]) == ("keep", ["same", "bytes"])
    # The older one of files of one size, with its absolute path.
    assert kept.endswith(f"  {album.folder / 'cup.png'}")
    assert other.endswith(f"  {album.folder / 'cup again.png'}")
    assert done.stderr == f"1 group, 2 pictures, {freed}.\n"
    near = run(album.settings)
    groups = listed(near.stdout)
    assert {frozenset(each) for each in groups} == {CATS, CUPS}
    # What frees most comes first.
    most = [sum(map(sizes.__getitem__, each)) - sizes[each[0]] for each in groups]
    assert most == sorted(most, reverse=True)
    assert [each[0] for each in groups] == ["cup.png", "cat.png"]


def test_the_oldest_with_the_most_pixels_comes_first_if_it_is_to_be_kept(album: Album):
    old, small = album.folder / "cat mirrored.jpg", album.folder / "cat small.jpg"
    os.utime(old, (10**9, 10**9))
    os.utime(small, (10**8, 10**8))
    album.index()
    groups = listed(run(album.settings, "--keep", "oldest").stdout)
    assert {each[0] for each in groups} == {old.name, "cup.png"}
    pairs = [each.pairs for each in album.find(keep="oldest") if CATS in names([each])]
    by_name = {each.relative_path: each.image_id for g in album.find() for each in g.pictures}
    # All others were compared with it.
    assert all(by_name[old.name] in {each.one, each.other} for each in pairs[0])
    found = json.loads(run(album.settings, "--keep", "oldest", "--json").stdout)
    (cats,) = (each for each in found if {p["relative_path"] for p in each["pictures"]} == CATS)
    assert cats["pictures"][0]["path"] == str(old)
    assert cats["pictures"][0]["modified_at"].startswith("2001-09-09T01:46:40")
    assert cats["reclaimable_bytes"] == sum(each["size_bytes"] for each in cats["pictures"][1:])


def test_the_script_leaves_one_file_of_each_group(album: Album):
    odd = os.fsencode(album.folder) + b"/-cup's \xff\n.png"
    (album.folder / "cup again.png").rename(os.fsdecode(odd))
    before = set(os.listdir(os.fsencode(album.folder)))
    album.index()
    done = run(album.settings, "--script")
    assert done.exit_code == 0
    assert set(os.listdir(os.fsencode(album.folder))) == before
    subprocess.run(["sh"], input=done.stdout_bytes, check=True)
    left = set(os.listdir(os.fsencode(album.folder)))
    assert left == {b"cat.png", b"cup.png", b"cat grey.jpg", b"rocket.jpg", b"coins.png"}


@pytest.mark.parametrize("keep", ["largest", "oldest"])
def test_the_script_keeps_the_most_pixels_whatever_is_older(album: Album, keep: str):
    os.utime(album.folder / "cat small.jpg", (10**9, 10**9))
    album.index()
    done = run(album.settings, "--script", "--keep", keep)
    subprocess.run(["sh"], input=done.stdout_bytes, check=True)
    left = {each.name for each in album.folder.iterdir()}
    assert left & CATS <= {"cat.png", "cat mirrored.jpg"}
    assert len(left & CATS) == 1


@pytest.mark.parametrize(
    "option", [["--thorough"], ["--unconfirmed"], ["--level", "similar"], ["--json"]]
)
def test_the_script_removes_only_what_was_compared(album: Album, option: list[str]):
    album.index()
    done = run(album.settings, "--script", *option)
    assert done.exit_code == 2
    assert "--script" in done.stderr
    assert done.stdout == ""


def test_the_sheet_shows_every_group(album: Album, tmp_path: Path):
    album.index()
    done = run(album.settings, "--sheet", str(tmp_path / "sheet.png"))
    assert done.exit_code == 0
    assert f"Wrote {tmp_path / 'sheet.png'}." in done.stderr
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height > 2 * 200
    assert run(album.settings, "--sheet", str(tmp_path / "no" / "sheet.png")).exit_code == 2


def test_what_nothing_confirms_is_said_with_the_command_that_lists_it(album: Album):
    album.index()
    for name in CATS:
        # As it was indexed, but unreadable to a comparison.
        path = album.folder / name
        status = path.stat()
        path.write_bytes(b"x" * status.st_size)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    done = run(album.settings)
    assert {frozenset(each) for each in listed(done.stdout)} == {CUPS}
    assert "nothing confirms" in done.stderr
    words = shlex.split(done.stderr.splitlines()[-1].partition("es-imgsearch ")[2])
    again = CliRunner().invoke(main, [*words, "--es-url", album.settings.es_url])
    assert again.exit_code == 0
    assert "unconfirmed" in again.stdout
    assert set().union(*map(set, listed(again.stdout))) > CATS
    assert "nothing confirms" not in again.stderr


def test_a_small_copy_does_not_join_pictures_that_differ(album: Album):
    """It fits both: too small to show the word in which they differ."""
    for path in album.folder.iterdir():
        path.unlink()
    cat = album.photograph("chelsea.png").resize((902, 600))
    marked = cat.copy()
    ImageDraw.Draw(marked).text((640, 380), "draft", (250, 250, 250), font_size=11)
    cat.save(album.folder / "cat.png")
    marked.save(album.folder / "draft.png")
    small = cat.resize((90, 60))
    small.save(album.folder / "small.png")
    assert show_the_same(Pixels.of(small), Pixels.of(marked))
    album.index()
    (group,) = names(album.find())
    assert len(group) == 2
    assert "small.png" in group


def test_the_command_prints_one_json_value(album: Album):
    album.index()
    done = run(album.settings, "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert {frozenset(each["relative_path"] for each in group["pictures"]) for group in found} == {
        CATS,
        CUPS,
    }
    for group in found:
        assert group["level"] == "near"
        assert len(group["pairs"]) == len(group["pictures"]) - 1


def test_no_duplicates_are_no_error(real_store: Store, settings: Settings):
    fill(real_store, [{}, {}])
    for level in ("same", "near", "similar"):
        done = run(settings, "--level", level, "--json")
        assert (done.exit_code, json.loads(done.stdout)) == (0, [])
    assert run(settings).stderr == "No duplicates.\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--level", "same", "--threshold", "3"],
        ["--threshold", "40"],
        ["--level", "similar", "--thorough"],
        ["--image-id", "nobody"],
        ["--level", "alike"],
    ],
)
def test_wrong_use_ends_with_2(real_store: Store, settings: Settings, arguments: list[str]):
    fill(real_store, [{}])
    done = run(settings, *arguments)
    assert done.exit_code == 2
    assert done.stdout == ""


def test_a_missing_index_ends_with_2(real_store: Store, settings: Settings):
    for level in ("same", "near", "similar"):
        done = run(settings, "--level", level)
        assert done.exit_code == 2
        assert "Traceback" not in done.stderr
