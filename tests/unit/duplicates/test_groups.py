"""What decides about duplicates, without a server: groups, corners, wrong use."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from es_imgsearch.duplicates import hashes as hash_table
from es_imgsearch.duplicates import near as duplicates
from es_imgsearch.duplicates.corners import count_agreeing, detect_corners
from es_imgsearch.duplicates.find import find_duplicates
from es_imgsearch.duplicates.groups import DisjointSets, DuplicatePair, parse_picture, sorted_group
from es_imgsearch.duplicates.hashes import ALL_TURNS, turned_hash
from es_imgsearch.elastic.client import new_client
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import ImageMissing, LibraryMissing, UsageError

NAMES = ["astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "rocket.jpg"]


def hamming(one: int, other: int) -> int:
    return (one ^ other).bit_count()


def pair(one: object, other: object) -> DuplicatePair:
    return DuplicatePair(str(one), str(other), "bytes")


# -- groups --------------------------------------------------------------------------------


def components(edges: list[tuple[int, int]]) -> set[frozenset[str]]:
    """Connected components by repeated merging of sets."""
    sets: list[set[str]] = []
    for edge in edges:
        joined = {str(end) for end in edge}
        apart = [each for each in sets if not each & joined]
        for each in sets:
            if each & joined:
                joined |= each
        sets = [*apart, joined]
    return {frozenset(each) for each in sets}


edges = st.lists(
    st.tuples(st.integers(0, 15), st.integers(0, 15)).filter(lambda edge: edge[0] != edge[1])
)


@given(edges)
def test_groups_are_the_connected_components(edges: list[tuple[int, int]]):
    sets = DisjointSets()
    for one, other in edges:
        before = sets.are_connected(str(one), str(other))
        assert sets.merge(pair(one, other)) is not before
        assert sets.are_connected(str(one), str(other))
    found = list(sets.components())
    assert {frozenset(members) for members, _ in found} == components(edges)
    for members, pairs in found:
        # They hold the group together and none is superfluous.
        assert len(pairs) == len(members) - 1
        assert components([(p.one, p.other) for p in pairs]) == {frozenset(members)}


def test_the_largest_picture_of_a_group_comes_first():
    sizes = {"a": (10, 10, 900), "b": (20, 20, 100), "c": (20, 20, 500)}
    pictures = [
        parse_picture(
            {
                "image_id": name,
                "root": "r",
                "relative_path": name,
                "width": width,
                "height": height,
                "size_bytes": size,
            }
        )
        for name, (width, height, size) in sizes.items()
    ]
    group = sorted_group("near", pictures, [pair("a", "b"), pair("b", "c")])
    assert [each.image_id for each in group.pictures] == ["c", "b", "a"]
    assert group.to_dict()["pairs"] == [
        {"one": "a", "other": "b", "by": "bytes"},
        {"one": "b", "other": "c", "by": "bytes"},
    ]


# -- corners -------------------------------------------------------------------------------


def opened(photographs: Path, name: str) -> Image.Image:
    return Image.open(photographs / name).convert("RGB")


def crop(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((width // 8, height // 10, width * 7 // 8, height * 9 // 10))


COPIES = {
    "as it is": lambda image: image,
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "cropped": crop,
    "a half": lambda image: image.crop((0, 0, image.width // 2, image.height)),
    "turned": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "slanted": lambda image: image.rotate(7, Image.Resampling.BICUBIC, expand=True),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "bordered": lambda image: ImageOps.expand(image, 40, "black"),
}


@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize("name", NAMES)
def test_the_corners_of_a_copy_agree(photographs: Path, name: str, kind: str):
    image = opened(photographs, name)
    found = count_agreeing(detect_corners(image), detect_corners(COPIES[kind](image)))
    assert found >= duplicates.MIN_CORNERS


def test_the_corners_of_different_pictures_do_not_agree(photographs: Path):
    every = [detect_corners(opened(photographs, name)) for name in NAMES]
    for n, one in enumerate(every):
        for other in every[:n]:
            assert count_agreeing(one, other) < duplicates.MIN_CORNERS


def test_a_mirror_image_agrees_when_it_is_mirrored_back(photographs: Path):
    image = opened(photographs, "coffee.png")
    mirror = ImageOps.mirror(image)
    assert count_agreeing(detect_corners(image), detect_corners(mirror)) < duplicates.MIN_CORNERS
    assert count_agreeing(detect_corners(image), detect_corners(mirror, mirrored=True)) > 100


def test_the_same_pictures_give_the_same_number(photographs: Path):
    image = opened(photographs, "astronaut.png")
    one, other = detect_corners(image), detect_corners(image.rotate(20))
    assert len({count_agreeing(one, other) for _ in range(5)}) == 1


@pytest.mark.parametrize("size", [(1, 1), (5, 900), (64, 64), (2000, 1)])
def test_a_picture_without_corners_agrees_with_none(size: tuple[int, int]):
    flat = detect_corners(Image.new("RGB", size, "white"))
    assert len(flat) == 0
    assert flat.positions.shape == (0, 2)
    assert count_agreeing(flat, flat) == 0


def test_a_repeated_letter_is_no_evidence():
    """Every corner of a chessboard looks like every other."""
    board = np.kron(np.indices((8, 8)).sum(axis=0) % 2, np.ones((40, 40))) * 255
    lines = np.kron(np.indices((8, 8))[0] % 2, np.ones((40, 40))) * 255
    one, other = (Image.fromarray(each.astype(np.uint8)).convert("RGB") for each in (board, lines))
    assert count_agreeing(detect_corners(one), detect_corners(other)) < duplicates.MIN_CORNERS


def test_without_opencv_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(LibraryMissing, match=r"pip install 'es-imgsearch\[duplicates\]'"):
        detect_corners(Image.new("RGB", (50, 50)))


# -- decisions -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("distance", "cosine", "sure"),
    [
        (0, 1.0, True),
        (duplicates.SURE_RADIUS, duplicates.SURE_COSINE, True),
        (duplicates.SURE_RADIUS + 1, 1.0, False),
        (0, duplicates.SURE_COSINE - 0.01, False),
        (None, 1.0, False),
        (0, None, False),
    ],
)
def test_without_originals_hash_and_embedding_must_agree(distance, cosine, sure):
    assert duplicates.is_sure(distance, cosine) is sure


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"level": "alike"}, "no level 'alike'"),
        ({"level": "same", "threshold": 1}, "has no threshold"),
        ({"level": "near", "threshold": 3.5}, "number of bits from 0 to 20, not 3.5"),
        ({"level": "near", "threshold": 30}, "number of bits"),
        ({"level": "near", "threshold": float("nan")}, "number of bits"),
        ({"level": "similar", "threshold": 1.5}, "cosine from -1 to 1"),
        ({"level": "similar", "threshold": float("nan")}, "cosine from -1 to 1"),
        ({"level": "similar", "thorough": True}, "Only level near can be thorough"),
    ],
)
def test_invalid_arguments_raise_before_any_request(given, words):
    unused = Store(new_client("http://127.0.0.1:9"), "images")
    with pytest.raises(UsageError, match=words):
        find_duplicates(unused, host="here", **given)


def test_an_id_with_surrogates_is_unknown():
    unused = Store(new_client("http://127.0.0.1:9"), "images")
    with pytest.raises(ImageMissing):
        find_duplicates(unused, host="here", image_id="\udcff")


# -- hashes of a whole index -----------------------------------------------------------------


@pytest.mark.parametrize("radius", [0, 5, 12])
def test_pairs_by_hash_are_those_of_comparing_each_with_each(
    monkeypatch: pytest.MonkeyPatch, radius: int
):
    monkeypatch.setattr(hash_table, "_TILE_ROWS", 7)
    monkeypatch.setattr(hash_table, "_TILE_COLUMNS", 11)
    random = np.random.default_rng(1)
    hashes = [int(each) for each in random.integers(0, 2**64 - 1, 20, np.uint64)]
    for n in range(40):
        changed = turned_hash(hashes[n % 20], ALL_TURNS[n % 8])
        for bit in random.choice(64, n % 15, replace=False):
            changed ^= 1 << int(bit)
        hashes.append(changed)
    table = hash_table.HashTable()
    for n, each in enumerate(hashes):
        table.add(str(n), each)
    wanted = {
        (str(n), str(m), distance, turn)
        for m, other in enumerate(hashes)
        for n, one in enumerate(hashes[:m])
        for turn in ALL_TURNS
        if (distance := hamming(turned_hash(one, turn), other)) <= radius
    }
    found = list(table.pairs(radius))
    assert len(found) == len(wanted)
    assert set(found) == wanted
    assert wanted


def test_no_hashes_have_no_pairs():
    assert list(hash_table.HashTable().pairs(12)) == []
