"""Searches on the real Elasticsearch find what NumPy finds among the same vectors."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import ANY

import numpy as np
import orjson
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from es_imgsearch import AsyncImageSearch, ImageSearch, StoredPicture
from es_imgsearch.cli import main
from es_imgsearch.describe.layout import colour_vector
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import index_body, new_meta
from es_imgsearch.elastic.queries import to_msearch
from es_imgsearch.elastic.requests import msearch_answers, msearch_request
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.embed.protocol import Vectors
from es_imgsearch.errors import (
    ImageMissing,
    ImgSearchError,
    IndexMissing,
    StoreRejected,
    StoreUnreachable,
    TextUnsupported,
    UsageError,
)
from es_imgsearch.records import Root
from es_imgsearch.search.hits import Hits
from es_imgsearch.search.index_state import GenerationState
from es_imgsearch.settings import Settings, load_settings
from es_imgsearch.testing import FakeEncoder, remove_index
from es_imgsearch.watch.roots import register_roots

COUNT = 300
RANDOM = np.random.default_rng(7)
COLOURS = ["red", "blue", "green", "yellow", "white"]


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def documents() -> list[dict[str, Any]]:
    made = []
    for n in range(COUNT):
        # Of every five documents the first two are files of the same content.
        content = n - 1 if n % 5 == 1 else n
        folder = f"trips/{COLOURS[n % 3]} sea" if n % 2 else "home"
        document = {
            "image_id": f"{n:03}",
            "image_name": f"IMG_{n}.jpg" if n % 4 else f"{COLOURS[n % 5]}House{n}.jpg",
            "root": "photos",
            "folder": folder,
            "relative_path": f"{folder}/{n}.jpg",
            "content_id": f"c{content}",
            "size_bytes": 1000 + n,
            "mtime_ns": n,
            "modified_at": f"{2015 + n % 4}-06-01T12:00:00.000+00:00",
            "tags": [COLOURS[n % 5]] if n % 3 else [],
            "caption": "a cat on a sofa" if n % 7 == 0 else "the sea",
        }
        if n % 6 == 0:
            # 2013 in UTC, 2012 where the camera was.
            document["taken_at"] = "2012-12-31T23:30:00-01:00"
            document["taken_local"] = "2012-12-31T23:30:00"
        made.append(document)
    return made


DOCUMENTS = documents()
CONTENT = unit(RANDOM.normal(size=(COUNT, FakeEncoder.dims)))
CONTENT[1::5] = CONTENT[0::5]
COLOUR = unit(np.abs(RANDOM.normal(size=(COUNT, 108))))
COLOUR[::11] = 0  # those have none
IDS = np.array([each["image_id"] for each in DOCUMENTS])


class CarefulEncoder(FakeEncoder):
    """Says what it read, and fails where two threads are in it."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = 0

    def embed_texts(self, texts: Any) -> Vectors:
        self.inside += 1
        assert self.inside == 1
        found = super().embed_texts(texts)
        self.inside -= 1
        return found

    def truncated(self, texts: list[str]) -> list[bool]:
        return [len(text) > 100 for text in texts]


@pytest.fixture(scope="module")
def indexed(es_url: str) -> Settings:
    name = f"t-{uuid.uuid4().hex[:12]}"
    return load_settings({"es_url": es_url, "index": name}, environment={})


@pytest.fixture(scope="module")
def client(indexed: Settings) -> Iterator[ImageSearch]:
    store = Store(connect(indexed), indexed.index)
    encoder = CarefulEncoder()
    store.generations.create(new_meta(seal_of(encoder), "exact", "cosine"))
    writes = []
    for n, document in enumerate(DOCUMENTS):
        vectors = {"image_embedding": CONTENT[n]}
        if COLOUR[n].any():
            vectors["colour_embedding"] = COLOUR[n]
        writes.append(Write(document["image_id"], document={**document, **vectors}))
    assert set(store.documents.write(writes).values()) == {None}
    store.refresh()
    with ImageSearch(settings=indexed, encoder=encoder) as made:
        yield made
    remove_index(store)
    store.connection.client.close()


def ids(hits: Hits) -> list[str]:
    return [hit.image_id for hit in hits]


def nearest(scores: np.ndarray, among: np.ndarray | None = None) -> list[int]:
    order = np.argsort(-scores, kind="stable")
    return [int(n) for n in order if among is None or among[n]]


def agree(hits: Hits, scores: np.ndarray, among: np.ndarray | None = None) -> None:
    """The hits are the best by these scores; equal scores may stand in any order."""
    best = nearest(scores, among)[: len(hits)]
    assert [hit.score for hit in hits] == pytest.approx(scores[best].tolist(), abs=2e-6)
    assert len(set(ids(hits))) == len(hits)
    for hit in hits:
        assert hit.score == pytest.approx(scores[int(hit.image_id)], abs=2e-6)


def text_vector(client: ImageSearch, text: str) -> np.ndarray:
    return client.encoder.embed_texts([text])[0]


# -- combinations of queries ---------------------------------------------------------------


@pytest.mark.parametrize("exact", [False, True])
def test_one_text(client: ImageSearch, exact: bool):
    hits = client.search_text("red", k=20, mode="vector", exact=exact)
    assert len(hits) == 20
    agree(hits, CONTENT @ text_vector(client, "red"))
    assert all(hit.cosine == hit.score for hit in hits)


@pytest.mark.parametrize("exact", [False, True])
def test_weights_of_queries_and_queries_to_go_away_from(client: ImageSearch, exact: bool):
    hits = client.search(
        [("red", 2.0), "blue", StoredPicture("017")], [("green", 0.5)], k=15, exact=exact
    )
    total = (
        2.0 * text_vector(client, "red") + text_vector(client, "blue") + CONTENT[17]
        - 0.5 * text_vector(client, "green")
    )  # fmt: skip
    agree(hits, CONTENT @ unit(total), IDS != "017")
    assert hits.queries == ("red", "blue")


def test_a_pair_alone_and_a_vector(client: ImageSearch):
    vector = RANDOM.normal(size=FakeEncoder.dims)
    hits = client.search((vector, 3.0), k=7)
    agree(hits, CONTENT @ unit(vector))
    assert ids(client.search(("red", 0.1))) == ids(client.search("red"))


def test_a_box_of_a_picture(client: ImageSearch):
    pixels = RANDOM.integers(0, 255, (64, 96, 3), dtype=np.uint8)
    hits = client.search_image(pixels, box=(32, 16, 40, 30), k=9)
    part = client.encoder.preparation.apply(Image.fromarray(pixels[16:46, 32:72]))
    agree(hits, CONTENT @ client.encoder.embed_images(part[None])[0])


@pytest.mark.parametrize("exact", [False, True])
def test_similar_leaves_itself_out_and_heeds_filters(client: ImageSearch, exact: bool):
    hits = client.similar("042", k=12, filters={"folder": "home"}, exact=exact)
    agree(hits, CONTENT @ CONTENT[42], (IDS != "042") & (np.arange(COUNT) % 2 == 0))
    assert hits.queries == ()


def test_queries_that_cannot_be(client: ImageSearch):
    for words, ask in {
        "cancel": lambda: client.search("red", "red"),
        "above 0": lambda: client.search([("red", 0)]),
        "48 dims": lambda: client.search(np.ones(3)),
        "finite": lambda: client.search(np.full(48, np.nan)),
        "no direction": lambda: client.search(np.zeros(48)),
        "nothing to search for": lambda: client.search([]),
        "no mode 'fuzzy'": lambda: client.search("red", mode="fuzzy"),
        "no part 'smell'": lambda: client.search("red", weights={"smell": 1}),
        "Words have no colour": lambda: client.search("red", weights={"content": 1, "colour": 1}),
        "A vector has no colour": lambda: client.search(np.ones(48), weights={"colour": 1}),
        "No part has a weight": lambda: client.search("red", weights={"content": 0}),
        "must be a number": lambda: client.search("red", weights={"content": -1}),
        "looks for words": lambda: client.search(StoredPicture("001"), mode="text"),
        "needs words": lambda: client.similar("001", mode="hybrid"),
        "compares no vectors": lambda: client.search("red", mode="text", weights={"content": 1}),
        "offset must": lambda: client.search("red", offset=-1),
        "size must": lambda: client.search("red", size=1.5),
        "lists of names": lambda: client.search("red", facets="tags"),
        "no facet 'caption'": lambda: client.search("red", facets=["caption"]),
    }.items():  # fmt: skip
        with pytest.raises(UsageError, match=words):
            ask()  # type: ignore[no-untyped-call]
    with pytest.raises(TypeError, match="no option 'filter'"):
        client.search("red", filter={})  # type: ignore[call-arg]
    with pytest.raises(ImageMissing, match="'999'"):
        client.similar("999")
    with pytest.raises(ImageMissing, match="'000' has no vector of its colour"):
        client.similar("000", weights={"colour": 1})


# -- several vector fields -----------------------------------------------------------------


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_weighted_parts_of_a_stored_picture(client: ImageSearch, share: float, exact: bool):
    weights = {"content": 3 * (1 - share), "colour": 3 * share}
    # More candidates than there are pictures: every one is compared.
    hits = client.similar("042", k=25, weights=weights, exact=exact, num_candidates=400)
    agree(hits, (1 - share) * CONTENT @ CONTENT[42] + share * COLOUR @ COLOUR[42], IDS != "042")


def test_weighted_parts_of_a_picture_away_from_another(client: ImageSearch):
    one, other = (
        Image.fromarray(RANDOM.integers(0, 255, (32, 32, 3), dtype=np.uint8)) for _ in range(2)
    )
    hits = client.search([one], [(other, 0.5)], k=10, num_candidates=400,
                         weights={"content": 0.7, "colour": 0.3},
                         filters={"folder": "trips"})  # fmt: skip
    content = unit(client.embed(one) - 0.5 * client.embed(other))
    colour = unit(colour_vector(one) - 0.5 * colour_vector(other))
    agree(hits, 0.7 * CONTENT @ content + 0.3 * COLOUR @ colour, np.arange(COUNT) % 2 == 1)


def test_the_candidates_of_the_tuning_hold_nearly_all_of_the_best(client: ImageSearch):
    found, asked = 0, np.flatnonzero(COLOUR.any(axis=1))[::27]
    for n in asked:
        hits = client.similar(str(IDS[n]), k=10, weights={"content": 0.7, "colour": 0.3})
        scores = 0.7 * CONTENT @ CONTENT[n] + 0.3 * COLOUR @ COLOUR[n]
        found += len({IDS[each] for each in nearest(scores, IDS[n] != IDS)[:10]} & set(ids(hits)))
    assert found >= 0.95 * 10 * len(asked)


def test_explain_adds_up(client: ImageSearch):
    hits = client.similar("042", k=5, weights={"content": 1, "colour": 3}, explain=True)
    for hit in hits:
        n = int(hit.image_id)
        told = hit.explanation
        assert told is not None
        assert told["parts"]["content"]["weight"] == 0.25
        assert told["parts"]["content"]["cosine"] == pytest.approx(
            CONTENT[n] @ CONTENT[42], abs=2e-6
        )
        assert told["parts"]["colour"]["cosine"] == pytest.approx(COLOUR[n] @ COLOUR[42], abs=2e-6)
        shares = sum(part["share"] for part in told["parts"].values())
        assert shares == pytest.approx(hit.score, abs=3e-6)
        assert hit.cosine == told["parts"]["content"]["cosine"]
    (hit,) = client.search(["red"], ["blue"], k=1, explain=True)
    assert hit.explanation is not None
    for told, text, weight in zip(
        hit.explanation["queries"], ["red", "blue"], [1.0, -1.0], strict=True
    ):
        assert told["query"] == text
        assert told["weight"] == weight
        expected = CONTENT[int(hit.image_id)] @ text_vector(client, text)
        assert told["cosine"] == pytest.approx(expected, abs=2e-6)
    assert hit.to_dict()["explanation"] == hit.explanation
    assert client.search("red", k=1)[0].explanation is None


def test_an_index_without_the_field_is_told(client: ImageSearch, indexed: Settings):
    other = ImageSearch(settings=indexed)
    info = client.info
    properties = {k: v for k, v in info.properties.items() if k != "colour_embedding"}
    other._operations._state.latest = GenerationState(type(info)(info.name, info.meta, properties))
    with pytest.raises(UsageError, match=r"no field 'colour_embedding'.* init"):
        other.similar("001", weights={"colour": 1})


# -- words ---------------------------------------------------------------------------------


def words_of(document: dict[str, Any]) -> set[str]:
    """As the analysers cut them: at capitals, digits and whatever is no letter."""
    texts = [
        document["image_name"], document["folder"], document["caption"], *document["tags"]
    ]  # fmt: skip
    return {
        part.lower()
        for text in texts
        for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", text)
    }


@pytest.mark.parametrize(
    ("text", "unwanted"),
    [("red", ""), ("cat house", ""), ("SEA", "green sea"), ("img", "cat"), ("17", ""),
     ("nowhere", "")],
)  # fmt: skip
def test_words_find_the_pictures_that_hold_one_of_them(client: ImageSearch, text, unwanted):
    hits = client.search([text], [unwanted] if unwanted else [], k=COUNT, mode="text")
    expected = {
        each["image_id"] for each in DOCUMENTS if words_of(each) & set(text.lower().split())
    }
    if unwanted:
        # In one field: the operator of a multi_match counts in each field for itself.
        gone = client.search_text(unwanted, k=COUNT, mode="text")
        expected -= {
            hit.image_id
            for hit in gone
            if any(
                set(unwanted.split())
                <= set(re.findall(r"[a-z]+", str(hit.fields.get(name)).lower()))
                for name in ("folder", "caption", "image_name")
            )
        }
    assert set(ids(hits)) == expected
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert all(hit.cosine is None for hit in hits)


def test_text_mode_loads_no_model(indexed: Settings, client: ImageSearch):
    searched = ImageSearch(settings=indexed.model_copy(update={"encoder": "none"}))
    found = searched.search_text("cat", mode="text", filters={"folder": "home"}, explain=True)
    assert found
    assert {hit.fields["folder"] for hit in found} == {"home"}
    assert found[0].explanation == {"bm25": pytest.approx(found[0].score, abs=1e-5)}
    assert found[0].cosine is None


def test_an_encoder_of_pictures_only_points_to_text_mode(indexed: Settings, client: ImageSearch):
    blind = ImageSearch(settings=indexed, encoder=FakeEncoder(supports_text=False))
    with pytest.raises(TextUnsupported, match="mode 'text'"):
        blind.search_text("cat", mode="hybrid")
    assert blind.search_text("cat", mode="text")
    assert blind.search_image(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize("k", [5, 80])
def test_hybrid_is_the_fusion_of_both_lists(client: ImageSearch, k: int):
    filters = {"folder": "trips"}
    hits = client.search("red sea", k=k, mode="hybrid", filters=filters)
    depth = max(k, 50)
    lists = [
        ids(client.search("red sea", k=depth, mode=mode, filters=filters))
        for mode in ("vector", "text")
    ]
    fused: Counter[str] = Counter()
    for found in lists:
        for rank, each in enumerate(found):
            fused[each] += 1 / (61 + rank)  # type: ignore[assignment]
    assert [hit.score for hit in hits] == pytest.approx(sorted(fused.values(), reverse=True)[:k])
    for hit in hits:
        assert hit.score == pytest.approx(fused[hit.image_id])
        n = int(hit.image_id)
        cosine = CONTENT[n] @ text_vector(client, "red sea")
        # Also of the hits that only words found: their relevance is that of the vectors.
        assert hit.cosine == pytest.approx(cosine, abs=2e-6)
    assert {hit.image_id in lists[0] for hit in hits} == ({True, False} if k == 80 else {True})


def test_hybrid_explains_both_ranks(client: ImageSearch):
    hits = client.search("red sea", k=30, mode="hybrid", explain=True)
    by_text = ids(client.search("red sea", k=50, mode="text"))
    for hit in hits:
        told = hit.explanation
        assert told is not None
        assert sum(told["shares"].values()) == pytest.approx(hit.score)
        rank = told["ranks"]["text"]
        assert by_text[rank - 1] == hit.image_id if rank else hit.image_id not in by_text
        assert (told["bm25"] is None) == (rank is None)
        assert hit.cosine == pytest.approx(
            CONTENT[int(hit.image_id)] @ text_vector(client, "red sea"), abs=2e-6
        )


def test_a_search_of_several_that_fails_is_told(client: ImageSearch):
    good, bad = {"query": {"match_all": {}}}, {"query": {"term": {"width": {"value": "wide"}}}}
    with pytest.raises(StoreRejected, match="wide"):
        msearch_answers(
            client.store.send(msearch_request(client.info.name, to_msearch([good, bad])))
        )


# -- pages, contents, counts ---------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"mode": "text"}, {"mode": "hybrid"}, {"collapse": True}, {"facets": ["tags"]},
     {"exact": True}],
    ids=str,
)  # fmt: skip
def test_pages_make_up_the_whole(client: ImageSearch, options: dict[str, Any]):
    whole = client.search("red sea", k=45, **options)
    pages = [
        client.search("red sea", k=45, offset=offset, size=20, **options) for offset in (0, 20, 40)
    ]
    assert [len(page) for page in pages] == [20, 20, 5]
    assert [each for page in pages for each in ids(page)] == ids(whole)
    assert ids(client.search("red sea", k=45, offset=40, **options)) == ids(whole)[40:]
    numbers: dict[str, Any] = dict.fromkeys(("offset", "size"), np.int64(20))
    assert ids(client.search("red sea", k=45, **numbers, **options)) == ids(whole)[20:40]
    assert not client.search("red sea", k=45, offset=45, **options)
    assert not client.search("red sea", k=45, size=0, **options)


@pytest.mark.parametrize("mode", ["vector", "text"])
@pytest.mark.parametrize("exact", [False, True])
def test_of_the_same_content_only_the_best(client: ImageSearch, mode: Any, exact: bool):
    every = client.search("red sea", k=COUNT, mode=mode, exact=exact)
    firsts: dict[str, float] = {}
    for hit in every:
        firsts.setdefault(hit.fields["content_id"], hit.score)
    for k in (1, 10, 200, COUNT):
        hits = client.search("red sea", k=k, mode=mode, exact=exact, collapse=True,
                             fields=["image_name"])  # fmt: skip
        assert len(hits) == min(k, len(firsts))
        assert [hit.score for hit in hits] == pytest.approx(list(firsts.values())[:k], abs=1e-5)
        assert len({hit.fields["content_id"] for hit in hits}) == len(hits)


def test_many_copies_take_several_rounds_and_still_give_k(real_store: Store, settings: Settings):
    encoder = FakeEncoder()
    real_store.generations.create(new_meta(seal_of(encoder), "exact", "cosine"))
    vectors = unit(RANDOM.normal(size=(12, encoder.dims)))
    writes = []
    for n in range(12 * 40):
        content = {} if n // 40 == 5 else {"content_id": f"c{n // 40}"}  # the sixth has none
        document = {"image_id": f"{n:03}", "root": "r", "relative_path": f"{n}",
                    "image_embedding": vectors[n // 40], **content}  # fmt: skip
        writes.append(Write(document["image_id"], document=document))
    assert set(real_store.documents.write(writes).values()) == {None}
    real_store.refresh()
    client = ImageSearch(
        real_store.connection.client, real_store.index, encoder=encoder, settings=settings
    )
    order = nearest(vectors @ vectors[0])
    for k in (3, 12, 51, 60):
        hits = client.search(vectors[0], k=k, collapse=True)
        expected = [each for each in order for _ in range(40 if each == 5 else 1)][:k]
        assert [int(hit.image_id) // 40 for hit in hits] == expected
        assert len(set(ids(hits))) == len(hits)


def test_hybrid_collapses_what_each_list_knows_under_another_name(client: ImageSearch):
    hits = client.search("red sea", k=40, mode="hybrid", collapse=True)
    assert len({hit.fields["content_id"] for hit in hits}) == len(hits) == 40


def test_facets_count_over_all_k_hits(client: ImageSearch):
    whole = client.search("red", k=60)
    hits = client.search("red", k=60, size=5, fields=["title"],
                         facets=["tags", "folder", "year"])  # fmt: skip
    assert ids(hits) == ids(whole)[:5]
    assert Counter(hits.facets["tags"]) == Counter(
        tag for hit in whole for tag in hit.fields["tags"]
    )
    assert Counter(hits.facets["folder"]) == Counter(hit.fields["folder"] for hit in whole)
    years = Counter(
        "2012" if "taken_at" in hit.fields else hit.fields["modified_at"][:4] for hit in whole
    )
    assert Counter(hits.facets["year"]) == years
    counts = list(hits.facets["tags"].values())
    assert counts == sorted(counts, reverse=True)
    for year in years:
        filtered = client.search("red", k=COUNT, since=year, until=year, facets=["year"])
        assert filtered.facets == {"year": {year: len(filtered)}}


# -- the client ----------------------------------------------------------------------------


def test_similarity_of_pictures_texts_and_stored_pictures(client: ImageSearch):
    picture = np.full((32, 32, 3), (255, 0, 0), np.uint8)
    assert client.similarity(picture, "red") == pytest.approx(1, abs=1e-5)
    assert client.similarity(StoredPicture("007"), StoredPicture("009")) == pytest.approx(
        float(CONTENT[7] @ CONTENT[9]), abs=1e-6
    )
    assert client.similarity(picture, picture, part="colour") == pytest.approx(1, abs=1e-6)
    with pytest.raises(UsageError, match="Words have no colour"):
        client.similarity("red", picture, part="colour")


def test_a_text_that_is_cut_is_noted(client: ImageSearch):
    (note,) = client.search_text("red " * 40).notes
    assert note.startswith("The end of a long text was not read: 'red red")
    assert client.search_text("red").notes == ()
    assert client.search_text("red " * 40, mode="text").notes == ()


def test_both_clients_do_the_same(client: ImageSearch, indexed: Settings):
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("search_text", ("red",), {"k": 3}),
        ("search", (["red", StoredPicture("003")], "blue"), {"explain": True}),
        ("search_image", (np.zeros((8, 8, 3), np.uint8),), {"box": (0, 0, 4, 4)}),
        ("similar", ("042",), {"weights": {"content": 1, "colour": 1}}),
        ("search_text", ("red sea",), {"mode": "hybrid", "collapse": True, "facets": ["tags"]}),
        ("similarity", ("red", "blue"), {}),
        ("get", ("042",), {}),
        ("get", ("none",), {}),
        ("similar", ("none",), {}),
        ("search_text", ("",), {}),
        ("search_text", ("red",), {"k": 0}),
    ]

    def plain(result: Any) -> Any:
        if not isinstance(result, Hits):
            return result
        return [hit.to_dict() for hit in result], result.facets, result.notes, len(result.queries)

    async def all_of_them() -> list[Any]:
        async with AsyncImageSearch(settings=indexed, encoder=CarefulEncoder()) as other:
            assert repr(other) == f"Async{client!r}"
            found = await asyncio.gather(
                *(getattr(other, name)(*args, **options) for name, args, options in calls),
                return_exceptions=True,
            )
            assert np.array_equal(await other.embed("red"), client.embed("red"))
            other.reload()
            assert await other.search_text("red")
            return found

    for (name, args, options), theirs in zip(calls, asyncio.run(all_of_them()), strict=True):
        ours: Any
        try:
            ours = plain(getattr(client, name)(*args, **options))
        except ImgSearchError as raised:
            ours = raised
        assert repr(plain(theirs)) == repr(ours)


def test_the_asynchronous_client_translates_errors(es_url: str):
    async def ask(url: str) -> None:
        async with AsyncImageSearch(url, "t-there-is-none", encoder=FakeEncoder()) as other:
            await other.search_text("red")

    with pytest.raises(StoreUnreachable, match="does not answer"):
        asyncio.run(ask("http://127.0.0.1:9"))
    with pytest.raises(IndexMissing, match="t-there-is-none"):
        asyncio.run(ask(es_url))


def test_threads_share_one_client(client: ImageSearch):
    expected = {text: ids(client.search_text(text)) for text in COLOURS}
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: ids(client.search_text(text)), COLOURS * 20))
    assert found == [expected[text] for text in COLOURS * 20]


def test_hits_know_their_originals_on_this_host(real_store: Store, settings: Settings, tmp_path):
    encoder = FakeEncoder()
    real_store.generations.create(new_meta(seal_of(encoder), "exact", "cosine"))
    register_roots(real_store, [Root("photos", tmp_path)], settings.host)
    Image.new("RGB", (300, 200), "red").save(tmp_path / "a <b>.png")
    (vector,) = encoder.embed_texts(["red"])
    document = {"image_id": "1", "root": "photos", "relative_path": "a <b>.png",
                "image_name": "a <b>.png", "image_embedding": vector}  # fmt: skip
    assert set(real_store.documents.write([Write("1", document=document)]).values()) == {None}
    real_store.refresh()
    hits = ImageSearch(
        real_store.connection.client, settings=settings, encoder=encoder
    ).search_text("red")
    assert hits[0].path == tmp_path / "a <b>.png"
    shown = hits._repr_html_()
    assert 'src="data:image/jpeg;base64,' in shown
    assert "<b>" not in shown
    assert hits.sheet().size[0] > 1000
    frame = hits.to_pandas()
    assert list(frame["image_id"]) == ["1"]
    assert frame["score"][0] == pytest.approx(1, abs=1e-6)
    assert repr(hits).splitlines()[1] == "   1.000  photos/a <b>.png"


def test_an_index_of_before_gets_words_of_folders_by_init(real_store: Store, settings: Settings):
    encoder = FakeEncoder()
    body = index_body(new_meta(seal_of(encoder), "exact", "cosine"))
    for words in ("text", "stems"):
        del body["mappings"]["properties"]["folder"]["fields"][words]
    first = f"{real_store.index}-000001"
    alias = {"aliases": {real_store.index: {"is_write_index": True}}}
    real_store.connection.request("PUT", f"/{first}", {**body, **alias})
    real_store.generations.make_state()
    client = ImageSearch(real_store.connection.client, real_store.index, settings=settings)
    document = {"image_id": "1", "root": "r", "folder": "trips/RedSea", "relative_path": "1"}
    vector = encoder.embed_texts(["red"])[0].tolist()

    def stored_and_found() -> bool:
        real_store.connection.client.index(
            index=real_store.index,
            id="1",
            document={**document, "image_embedding": vector},
            refresh=True,
        )
        return bool(client.search_text("sea", mode="text"))

    assert not stored_and_found()
    assert real_store.generations.add_fields(real_store.info()) == ["folder"]
    assert real_store.generations.add_fields(real_store.info()) == []
    assert stored_and_found()
    assert client.search_text("sea", mode="text", filters={"folder": "trips"})


# -- the command line ----------------------------------------------------------------------


def command(indexed: Settings, *arguments: str) -> Result:
    where = ["--index", indexed.index, "--es-url", indexed.es_url]
    return CliRunner().invoke(main, [*arguments, *where])


def test_the_command_line_has_the_modes_pages_and_facets(client: ImageSearch, indexed: Settings):
    done = command(indexed, "search", "red", "sea", "--mode", "text", "-k", "30", "--offset", "10",
                   "--size", "5", "--collapse", "--facets", "tags,year", "--explain", "--json",
                   "--filter", "folder=trips")  # fmt: skip
    assert done.exit_code == 0, done.output
    hits = client.search_text("red sea", k=30, offset=10, size=5, mode="text", collapse=True,
                              facets=["tags", "year"], explain=True,
                              filters={"folder": "trips"})  # fmt: skip
    assert orjson.loads(done.stdout) == {**hits.to_dict(), "took_ms": ANY}
    assert len(hits) == 5
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["tags", "year"]


def test_the_command_line_weighs_and_explains(client: ImageSearch, indexed: Settings):
    asked = ("similar", "042", "-k", "3", "--weights", "content=0.7, colour=.3")
    hits = client.similar("042", k=3, weights={"content": 0.7, "colour": 0.3})
    done = command(indexed, *asked, "--json-hits")
    assert [each["image_id"] for each in orjson.loads(done.stdout)] == ids(hits)
    lines = command(indexed, *asked, "--explain").stdout.splitlines()
    assert len(lines) == 6
    assert "content" in lines[1]
    assert "colour" in lines[1]
    done = command(indexed, "similar", "042", "--weights", "colour")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--weights are written like" in done.stderr
    assert command(indexed, "search", "x", "--mode", "fuzzy").exit_code == 2
