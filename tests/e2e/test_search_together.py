"""Many searches at once are few requests and model calls, and find what each finds alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from es_imgsearch.elastic.queries import to_json, to_msearch
from es_imgsearch.elastic.requests import (
    Request,
    msearch_answers,
    msearch_request,
    search_request,
)
from es_imgsearch.errors import (
    ImageMissing,
    ImgSearchError,
    IndexMissing,
    StoreRejected,
    UsageError,
)
from es_imgsearch.records import image_id
from es_imgsearch.search.async_client import AsyncImageSearch
from es_imgsearch.search.client import ImageSearch
from es_imgsearch.search.hits import Hits
from es_imgsearch.search.query import StoredPicture
from es_imgsearch.search.request_flow import RequestFlow, run_flow, together
from es_imgsearch.serve.app import create_app
from es_imgsearch.serve.query_pictures import Upload
from es_imgsearch.serve.search_request import SearchRequest
from es_imgsearch.serve.service import SearchService
from es_imgsearch.serve.thumbnails import PictureFiles
from es_imgsearch.serve.traffic.served_search import ServedSearch
from es_imgsearch.testing import FakeEncoder
from tests.support.house import House, house_of_module

pytestmark = [pytest.mark.es, pytest.mark.process]

COUNT = 40
FIRST = image_id("r", "000.png")


class Counting(FakeEncoder):
    """Counts the calls of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def embed_texts(self, texts: Sequence[str]) -> Any:
        self.calls.append(len(texts))
        if any("breaks" in each for each in texts):
            raise UsageError("This text breaks the model.")
        return super().embed_texts(texts)

    def embed_images(self, pictures: Any) -> Any:
        self.calls.append(len(pictures))
        return super().embed_images(pictures)


class Watched(ServedSearch):
    """Notes the paths of its requests."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.paths: list[str] = []

    def _send(self, request: Request) -> Any:
        self.paths.append(request.path.partition("?")[0])
        return super()._send(request)


@pytest.fixture(scope="module")
def house(es_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house_of_module(es_url, tmp_path_factory.mktemp("together")) as house:
        house.pictures(COUNT)
        # Copies, for `collapse`.
        for number in range(6):
            content = (house.folder / f"{number:03}.png").read_bytes()
            (house.folder / f"copy of {number}.png").write_bytes(content)
        house.synced()
        house.store.refresh()
        yield house


@pytest.fixture
def encoder() -> Counting:
    return Counting()


@pytest.fixture
def search(house: House, encoder: Counting) -> Iterator[Watched]:
    with Watched(house.settings, encoder) as made:
        yield made


@pytest.fixture
def service(house: House, search: Watched, tmp_path: Path) -> SearchService:
    files = PictureFiles(house.store, house.settings, tmp_path)
    return SearchService(house.settings, search, originals=files)


def plain(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "took_ms"}


def test_texts_are_one_request_and_one_call(
    house: House, service: SearchService, search: Watched, encoder: Counting
) -> None:
    service.search(SearchRequest(q=["warm"]))
    search.paths.clear()
    encoder.calls.clear()
    asked = [SearchRequest(q=[f"rgb({n}, 2, 3)"], k=3, mode="vector") for n in range(50)]
    answers = service.search_many(asked)
    assert search.paths == [f"/{house.settings.index}/_msearch"]
    assert encoder.calls == [50]
    assert [plain(each) for each in answers] == [plain(service.search(each)) for each in asked]
    # The same search twice is sent once; what was embedded is known.
    search.paths.clear()
    encoder.calls.clear()
    service.search_many([asked[0]] * 10)
    assert search.paths == [f"/{house.settings.index}/_search"]
    assert encoder.calls == []


REQUESTS: dict[str, dict[str, Any]] = {
    "auto": {"q": ["red"]}, "vector": {"q": ["rgb(1, 2, 3)"], "mode": "vector", "k": 5},
    "text": {"q": ["000"], "mode": "text"}, "hybrid": {"q": ["001 png"], "mode": "hybrid"},
    "several": {"q": ["red^2", "green"], "not": ["blue^0.5"]}, "facets": {"q": ["red"],
    "facets": ["format", "year"], "k": 2}, "explain": {"q": ["red"], "explain": True, "k": 2},
    "exact": {"q": ["red"], "exact": True}, "collapse": {"q": ["red"], "collapse": True, "k": 40},
    "collapsed": {"q": ["png"], "collapse": True, "mode": "hybrid", "k": 20},
    "filter": {"q": ["red"], "filter": ["format:PNG"]}, "met": {"q": ["red"],
    "filter": ["root:R"]}, "unmet": {"q": ["red"], "filter": ["format:pgn", "-root:x"]},
    "without": {"q": ["red"], "filter": ["-format:png"]}, "since": {"q": ["red"],
    "since": "2001"}, "when": {"q": ["red"], "when": "2010 to 2030"},
    "like": {"like": [FIRST], "k": 4}, "unlike": {"q": ["red"], "unlike": [FIRST]},
    "newest": {"q": ["red"], "sort": "newest"}, "folder": {"like": [FIRST], "sort": "folder"},
    "relevance": {"q": ["red"], "min_relevance": 0.5}, "candidates": {"q": ["red"],
    "num_candidates": 100, "mode": "vector"}, "beyond": {"q": ["red"], "k": 1000},
    "box": {"like": [FIRST], "box": [0, 0, 20, 20]}, "none": {"q": ["red"],
    "filter": ["format:gif"]}, "long": {"q": ["red " * 400]},
}  # fmt: skip


def test_every_kind_of_search_finds_the_same(
    house: House, service: SearchService, search: Watched
) -> None:
    key = service.keep_picture(Upload((house.folder / "003.png").read_bytes()))
    asked = [SearchRequest.model_validate(each) for each in REQUESTS.values()]
    asked += [SearchRequest(image=key), SearchRequest(image=key, box=(0, 0, 10, 10))]
    page = service.search(SearchRequest(q=["red"], k=3, mode="vector"))
    asked.append(SearchRequest(q=["red"], k=3, mode="vector", cursor=page["next"]))
    search.paths.clear()
    alone = [service.search(each) for each in asked]
    alone_requests = len(search.paths)
    search.paths.clear()
    found = service.search_many(asked)
    assert len(search.paths) < alone_requests / 2
    for name, one, other in zip([*REQUESTS, "image", "part", "page"], alone, found, strict=True):
        assert plain(one) == plain(other), name
    # None is empty but those that must be.
    empty = {
        name for name, each in zip(REQUESTS, found, strict=False) if not each["hits"]
    }  # fmt: skip
    assert empty == {"without", "none"} | (empty & {"unmet", "relevance"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"q": ["red"], "facets": ["nothing"]}, {"like": ["0" * 32]}, {"q": ["red"],
        "regions": True}, {"q": ["red"], "codes": True}, {}, {"q": ["red"], "filter": ["x:y"]},
        {"q": ["red"], "mode": "text", "min_relevance": 0.5}, {"q": ["it breaks"]},
        {"q": ["red"], "cursor": "x"}, {"q": ["red"], "box": [0, 0, 5, 5]}, {"image": "x" * 32},
        {"q": ["red"], "when": "never"}, {"q": ["red"], "since": "soon"},
    ],
)  # fmt: skip
def test_an_error_is_that_of_the_search_alone(
    service: SearchService, wrong: dict[str, Any]
) -> None:
    bad = SearchRequest.model_validate(wrong)
    with pytest.raises(ImgSearchError) as alone:
        service.search(bad)
    good = SearchRequest(q=["green"], k=1)
    for asked in ([good, bad, good], [bad, good], [good, bad, SearchRequest(like=["1" * 32])]):
        with pytest.raises(type(alone.value)) as raised:
            service.search_many(asked)
        assert str(raised.value) == str(alone.value)


def test_the_batch_of_the_api(house: House, service: SearchService, tmp_path: Path) -> None:
    app = create_app(PictureFiles(house.store, house.settings, tmp_path), service)
    with TestClient(app, base_url="http://127.0.0.1:8080") as client:
        asked = [{"q": "red", "k": 2}, {"q": "000", "mode": "text"}, {"like": [FIRST]}]
        answer = client.post("/api/v1/searches", json={"searches": asked})
        assert answer.status_code == 200, answer.text
        alone = [client.post("/api/v1/search", json=each).json() for each in asked]
        assert list(map(plain, answer.json()["answers"])) == list(map(plain, alone))
        asked.append({"like": ["0" * 32]})
        refused = client.post("/api/v1/searches", json={"searches": asked})
        assert refused.status_code == 404
        assert refused.json() == client.post("/api/v1/search", json=asked[-1]).json()


# -- From Python


def hits_of(hits: Hits) -> Any:
    return {**hits.to_dict(), "took_ms": 0}, hits.queries, hits.mode


def queries_of(house: House) -> list[Any]:
    picture = house.folder / "005.png"
    return [
        "red", ["red", "green"], picture, Image.open(picture), picture.read_bytes(),
        StoredPicture(FIRST), [(picture, 0.5), "red"], np.ones(FakeEncoder().dims), "rgb(1, 2, 3)",
        [StoredPicture(FIRST), "red"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        {}, {"mode": "vector", "filters": {"format": "PNG"}}, {"explain": True, "k": 3},
        {"facets": ["format"], "size": 2}, {"collapse": True}, {"exact": True, "offset": 2},
        {"weights": {"content": 1.0}}, {"fields": []}, {"without": {"image_name": "000.png"}},
    ],
)  # fmt: skip
def test_search_many_finds_what_search_finds(
    house: House, search: Watched, options: dict[str, Any]
) -> None:
    queries = queries_of(house)
    alone = [hits_of(search.search(each, **options)) for each in queries]
    search.paths.clear()
    found = search.search_many(queries, **options)
    assert len(search.paths) <= 5
    for number, (one, other) in enumerate(zip(alone, map(hits_of, found), strict=True)):
        assert str(one) == str(other), number

    async def ask() -> list[Hits]:
        async with AsyncImageSearch(settings=house.settings, encoder=FakeEncoder()) as client:
            return await client.search_many(queries, **options)

    assert [str(hits_of(each)) for each in asyncio.run(ask())] == list(map(str, alone))


def test_search_many_of_words_is_one_request(
    house: House, search: Watched, encoder: Counting
) -> None:
    search.search_text("warm")
    search.paths.clear()
    encoder.calls.clear()
    queries = [f"rgb({n % 120}, 0, 0)" for n in range(250)]
    found = search.search_many(queries, k=2, mode="vector")
    assert search.paths == [f"/{house.settings.index}/_msearch"] * 3
    assert sum(encoder.calls) == 120
    assert [each.mode for each in found] == ["vector"] * 250
    assert (
        found[0].to_dict()["hits"]
        == search.search_text(queries[0], k=2, mode="vector").to_dict()["hits"]
    )
    with pytest.raises(ImageMissing):
        search.search_many(["red", StoredPicture("0" * 32)])
    with pytest.raises(UsageError, match="takes a list of queries"):
        search.search_many("red")
    assert search.search_many([]) == []


def test_a_first_search_of_many_reads_the_index_once(house: House) -> None:
    with Watched(house.settings, Counting()) as one, Watched(house.settings, Counting()) as many:
        one.search_text("red")
        many.search_many(["red"] + [f"rgb({n}, 0, 0)" for n in range(30)])
        # One after another it was 31 times a search, and once the index.
        assert len(many.paths) <= len(one.paths) + 1
        assert many.paths[0] == f"/{house.settings.index}"


def test_without_elasticsearch_nothing_is_found(house: House, search: ImageSearch) -> None:
    search.search_text("red")
    gone = house.settings.model_copy(update={"index": "none-" + house.settings.index})
    with ServedSearch(gone, FakeEncoder()) as other, pytest.raises(UsageError, match="none-"):
        other.search_many(["red", "green"])


# One of which Elasticsearch cannot read the query refuses all that came with it.
@pytest.mark.parametrize(
    ("bad", "again"),
    [
        ({"query": {"range": {"indexed_at": {"gte": "no date"}}}}, ["_search", "_msearch"]),
        ({"query": {"no": {}}}, ["_search", "_search", "_msearch"]),
    ],
)
def test_a_search_that_elasticsearch_refuses_fails_alone(
    house: House, bad: dict[str, Any], again: list[str]
) -> None:
    index = house.settings.index
    good = {"query": {"match_all": {}}, "size": 1}
    sent: list[str] = []

    def one(request: Request) -> RequestFlow[Any]:
        try:
            return (yield request)["hits"]["hits"][0]["_id"]
        except StoreRejected as error:
            return str(error)

    def send(request: Request) -> Any:
        sent.append(request.path.partition("?")[0])
        return house.store.send(request)

    both = msearch_request(index, to_msearch([good, bad]))
    requests = [
        search_request(index, to_json(good)),
        search_request(index, to_json(bad)),
        search_request("none-" + index, to_json(good)),
    ]

    def many(request: Request) -> RequestFlow[Any]:
        try:
            return [len(each["hits"]["hits"]) for each in msearch_answers((yield request))]
        except StoreRejected as error:
            return str(error)

    alone = [run_flow(one(each), house.store.send) for each in requests[:2]]
    alone.append(run_flow(many(both), house.store.send))
    flows = [*map(one, requests[:2]), many(both)]
    assert run_flow(together(flows), send) == alone
    assert sent == [f"/{index}/{each}" for each in ["_msearch", *again]]
    with pytest.raises(IndexMissing):
        run_flow(together([one(requests[2]), one(requests[0])]), send)
