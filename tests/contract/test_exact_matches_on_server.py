"""What a text names as a whole is the first hit: an id, a product id, a path, a name, a tag."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

import numpy as np
import pytest

from es_imgsearch.elastic.documents import Write
from es_imgsearch.search.client import ImageSearch
from es_imgsearch.testing import FakeEncoder
from tests.support.house import house_of_module

NFD = unicodedata.normalize("NFD", "Café Zoë")
# What is wanted, and what is typed for it.
NAMED = {
    "1": ({"product_id": "A-1"}, ["A-1", "a-1", " A-1 "]),
    "2": ({"product_id": "SKU 77/b.2"}, ["SKU 77/b.2", "sku 77/B.2"]),
    "3": ({"image_name": "IMG_1234.JPG"}, ["IMG_1234.JPG", "img_1234.jpg", "IMG_1234"]),
    "4": ({"image_name": "red tulip.png"}, ["red tulip.png", "Red Tulip", "red tulip"]),
    "5": ({"relative_path": "2024/May/x (1).png"}, ["2024/May/x (1).png", "2024/may/X (1).png"]),
    "6": ({"tags": ["black cat", "dark"]}, ["black cat", "Black Cat"]),
    "7": ({"keywords": ["B-2", "sale"]}, ["B-2", "b-2"]),
    "8": ({"relative_path": f"{NFD}/1.png"}, ["Café Zoë/1.png", "CAFÉ ZOË/1.png", f"{NFD}/1.png"]),
    "9": ({"image_name": "what*.png"}, ["what*.png", "what*"]),
    "3f0c9a0000000000000000000000beef": ({}, ["3f0c9a0000000000000000000000beef"]),
    "10": ({"product_id": "0042"}, ["0042"]),
    "11": ({"image_name": "Ёлка.png"}, ["ёлка", "ЁЛКА.PNG"]),
}  # fmt: skip
# Others have the same words, more often and in fields that count more.
OTHERS = [
    {"title": "a 1 a 1", "image_name": "a 1 a.png", "caption": "A 1"},
    {"title": "A 1", "keywords": ["1 a", "a"], "folder": "a/1"},
    {"title": "sku 77 b 2 b 2", "keywords": ["b 2"], "image_name": "b 2 b 2.png"},
    {"title": "img 1234 jpg", "caption": "img 1234 img 1234 jpg"},
    {"title": "red tulip red tulip", "caption": "red tulip png", "tags": ["tulip", "red"]},
    {"title": "black cat, a cat that is black", "image_name": "black cat black.png"},
    {"title": "2024 May x 1 png", "caption": "2024 may x 1"},
    {"title": "Café Zoë 1 png", "folder": "Café Zoë"},
    {"title": "whatever what", "image_name": "whatever.png"},
    {"title": "42 0042 0042", "image_name": "0042 0042.png"},
    {"title": "ёлка елка", "image_name": "елка ёлка.png"},
]


@pytest.fixture(scope="module")
def client(es_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageSearch]:
    random = np.random.default_rng(1)
    documents = {key: fields for key, (fields, _) in NAMED.items()}
    documents |= {f"other {n}": fields for n, fields in enumerate(OTHERS)}
    # So many have this tag that it names nothing.
    documents |= {f"tagged {n}": {"tags": ["sea"]} for n in range(60)}
    with house_of_module(es_url, tmp_path_factory.mktemp("exact")) as house:
        writes = [
            Write(key, {"image_id": key, "root": "r", "relative_path": f"p{n}.png",
                        "image_name": f"n{n}.png", "content_id": key, **fields,
                        "image_embedding": random.normal(size=house.encoder.dims)})
            for n, (key, fields) in enumerate(documents.items())
        ]  # fmt: skip
        assert set(house.store.documents.write(writes).values()) == {None}
        house.store.refresh()
        yield ImageSearch(
            house.store.connection.client, settings=house.settings, encoder=house.encoder
        )


@pytest.mark.parametrize("mode", ["auto", "hybrid", "text"])
@pytest.mark.parametrize("image_id", NAMED)
def test_what_is_named_is_the_first_hit(client: ImageSearch, image_id: str, mode):
    for typed in NAMED[image_id][1]:
        hits = client.search_text(typed, mode=mode)
        assert hits[0].image_id == image_id, typed
        assert hits[0].matches_words
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("mode", ["auto", "hybrid", "text"])
def test_pages_begin_with_what_is_named(client: ImageSearch, mode):
    whole = [hit.image_id for hit in client.search_text("A-1", k=30, mode=mode)]
    pages = [client.search_text("A-1", k=30, offset=n, size=7, mode=mode) for n in range(0, 30, 7)]
    assert [hit.image_id for page in pages for hit in page] == whole
    assert whole[0] == "1"


def test_an_exact_match_says_so(client: ImageSearch):
    for mode, bonus in (("auto", 2.0), ("text", 2000.0)):
        best = client.search_text("A-1", mode=mode, explain=True)[0]  # type: ignore[arg-type]
        assert best.explanation is not None
        assert best.explanation["shares"]["exact"] == bonus
        assert sum(best.explanation["shares"].values()) == pytest.approx(best.score, abs=1e-5)


def test_a_tag_that_many_have_leaves_the_order_to_the_vectors(client: ImageSearch):
    hits = client.search_text("sea", k=60)
    assert hits.mode == "hybrid"
    assert {hit.image_id.partition(" ")[0] for hit in hits} == {"tagged"}
    by_vector = [
        hit.image_id
        for hit in client.search_text("sea", k=200, mode="vector")
        if hit.image_id.startswith("tagged")
    ]
    assert [hit.image_id for hit in hits[:40]] == by_vector[:40]


def test_filters_hold_for_exact_matches(client: ImageSearch):
    for mode in ("auto", "hybrid", "text"):
        hits = client.search_text("A-1", mode=mode, filters={"image_id": ["other 0"]})  # type: ignore[arg-type]
        assert [hit.image_id for hit in hits] == ["other 0"]


def test_words_beside_a_picture_and_a_least_relevance_leave_it_to_the_vectors(client: ImageSearch):
    assert client.search(["A-1", np.ones((8, 8, 3))]).mode == "vector"
    assert client.search_image(np.ones((8, 8, 3))).mode == "vector"
    assert client.similar("1").mode == "vector"
    assert client.search_text("A-1", weights={"content": 1.0}).mode == "vector"


def test_an_encoder_of_pictures_only_searches_the_words(client: ImageSearch):
    blind = ImageSearch(
        client.store.connection.client, settings=client.settings,
        encoder=FakeEncoder(supports_text=False),
    )  # fmt: skip
    assert blind.search_text("A-1", mode="text")[0].image_id == "1"
