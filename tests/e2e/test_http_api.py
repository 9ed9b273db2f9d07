"""The HTTP API over real pictures and a real index: searches, pictures, model, status."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient
from httpx import Response
from PIL import Image

from es_imgsearch.cli import main
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import FileInvalid, ModelUnavailable, StoreUnreachable, TextUnsupported
from es_imgsearch.records import image_id, utf8
from es_imgsearch.search.client import ImageSearch
from es_imgsearch.serve.app import create_app
from es_imgsearch.serve.service import SearchService
from es_imgsearch.serve.thumbnails import PictureFiles
from es_imgsearch.serve.tokens import new_token, read_hashes
from es_imgsearch.settings import Settings, load_settings
from es_imgsearch.testing import remove_index
from tests.support.house import until
from tests.support.imports import import_anew

pytestmark = [pytest.mark.es, pytest.mark.process]

ADDRESS = "http://127.0.0.1:8080"
ROAD = ("motorcycle_left.png", "motorcycle_right.png")
PICTURES = ("chelsea.png", "coffee.png", "rocket.jpg", *ROAD)


@pytest.fixture(scope="module")
def settings(
    es_url: str, photographs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """Five photographs and a broken file, indexed by `starter`."""
    folder = tmp_path_factory.mktemp("api")
    (folder / "photos" / "road").mkdir(parents=True)
    for name in PICTURES:
        target = "road" if name in ROAD else "."
        shutil.copy(photographs / name, folder / "photos" / target)
    (folder / "photos" / "broken.png").write_bytes(b"no picture")
    index = f"api-{uuid.uuid4().hex[:12]}"
    made = {"es_url": es_url, "index": index, "read_workers": 1, "settle_seconds": 0.1}
    environment = {
        "ES_URL": es_url, "ES_IMGSEARCH_INDEX": index, "ES_IMGSEARCH_READ_WORKERS": "1",
        "ES_IMGSEARCH_SETTLE_SECONDS": "0.1",
    }  # fmt: skip
    run = CliRunner(env=environment).invoke
    assert run(main, ["init", "--encoder", "starter"]).exit_code == 0
    assert run(main, ["sync", str(folder / "photos")]).exit_code == 1
    yield load_settings(made)
    remove_index(Store(connect(load_settings(made)), index))


@pytest.fixture(scope="module")
def files(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> PictureFiles:
    store = Store(connect(settings), settings.index)
    return PictureFiles(store, settings, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def client(settings: Settings, files: PictureFiles) -> Iterator[TestClient]:
    app = create_app(files, SearchService(settings, originals=files), max_body_mb=1)
    with TestClient(app, base_url=ADDRESS, raise_server_exceptions=False) as each:
        yield each


@pytest.fixture(scope="module")
def python(settings: Settings) -> Iterator[ImageSearch]:
    with ImageSearch(settings=settings) as search:
        yield search


def names(answer: Response | dict[str, Any]) -> list[str]:
    body = answer if isinstance(answer, dict) else answer.json()
    return [each["image_name"] for each in body["hits"]]


def problem(answer: Response, status: int) -> str:
    """The detail of a problem, whose form is checked."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body.keys() == {"type", "title", "status", "detail"}
    assert body["status"] == status
    return str(body["detail"])


def jpeg(path: Path) -> bytes:
    stream = io.BytesIO()
    with Image.open(path) as picture:
        picture.convert("RGB").save(stream, "JPEG")
    return stream.getvalue()


def test_words_find_what_the_client_finds(client: TestClient, python: ImageSearch) -> None:
    answer = client.get("/api/v1/search", params={"q": "a cat", "k": 3})
    expected = python.search_text("a cat", k=3).to_dict()
    body = answer.json()
    assert body["hits"] == json.loads(json.dumps(expected["hits"]))
    assert body["hits"][0]["image_name"] == "chelsea.png"
    assert body.keys() == {*expected, "next", "image", "when"}


def test_the_same_search_by_parameters_json_and_form(client: TestClient) -> None:
    asked = {"q": "a motorcycle", "not": ["coffee"], "filter": ["folder:road"], "k": 5}
    by_get = client.get("/api/v1/search", params=asked)
    by_json = client.post("/api/v1/search", json=asked)
    by_form = client.post("/api/v1/search", data=asked)
    assert names(by_get) == names(by_json) == names(by_form)
    assert {*names(by_get)} == {"motorcycle_left.png", "motorcycle_right.png"}


def test_a_cursor_that_is_nested_deeply_is_none(client: TestClient):
    cursor = base64.urlsafe_b64encode(b"[" * 1490).decode()
    answer = client.get("/api/v1/search", params={"q": "cat", "cursor": cursor})
    assert answer.status_code == 400
    assert "no cursor" in answer.json()["detail"]


def test_filters_without_number_are_refused_at_once(client: TestClient):
    filters = {f"f{n}": 1 for n in range(1000)}
    asked = {"positive": [{"text": "a"}], "options": {"filters": filters}}
    assert client.post("/api/v1/search-by-examples", json=asked).status_code in {400, 422}


def test_stored_pictures_take_no_place_of_sent_ones(client: TestClient, photographs: Path):
    content = (photographs / "coffee.png").read_bytes()
    sent = client.post("/api/v1/search", files={"image": ("c.png", content, "image/png")}).json()
    stored = client.get("/api/v1/search", params={"q": "cat", "k": 5}).json()["hits"]
    for _ in range(9):
        for each in stored:
            box = {"like": each["image_id"], "box": "0,0,50,50"}
            assert client.get("/api/v1/search", params=box).status_code == 200
    assert client.get("/api/v1/search", params={"image": sent["image"]}).status_code == 200


def test_a_picture_that_is_sent_finds_itself_and_is_kept(
    client: TestClient, photographs: Path
) -> None:
    picture = ("p.jpg", jpeg(photographs / "coffee.png"), "image/jpeg")
    sent = client.post("/api/v1/search", files={"image": picture}, data={"k": "1"})
    assert names(sent) == ["coffee.png"]
    again = client.get("/api/v1/search", params={"image": sent.json()["image"], "k": 1})
    assert names(again) == ["coffee.png"]
    assert "kept no longer" in problem(client.get("/api/v1/search?image=0"), 404)


def test_a_box_is_in_pixels_of_the_file(client: TestClient, python: ImageSearch) -> None:
    """The picture that is searched is smaller: 3000 pixels become 1600."""
    left = Image.new("RGB", (3000, 1000), (255, 255, 255))
    left.paste((200, 30, 30), (0, 0, 1500, 1000))
    stream = io.BytesIO()
    left.save(stream, "PNG")
    form = {"box": "0,0,1500,1000", "k": "1", "explain": "true"}
    sent = client.post("/api/v1/search", files={"image": stream.getvalue()}, data=form)
    red = python.search_image(Image.new("RGB", (1500, 1000), (200, 30, 30)), k=1)[0].score
    assert sent.json()["hits"][0]["score"] == pytest.approx(red, abs=1e-3)


def test_like_and_unlike(client: TestClient, python: ImageSearch) -> None:
    left, coffee = image_id("photos", "road/motorcycle_left.png"), image_id("photos", "coffee.png")
    similar = client.get(f"/api/v1/images/{left}/similar", params={"k": 1})
    assert names(similar) == ["motorcycle_right.png"]
    asked = {"like": [left], "unlike": [coffee], "q": "a vehicle", "k": 5}
    found = names(client.get("/api/v1/search", params=asked))
    assert found[0] == "motorcycle_right.png"
    assert {"coffee.png", "motorcycle_left.png"}.isdisjoint(found)


def test_a_cursor_goes_on_where_the_answer_before_ended(client: TestClient) -> None:
    asked: dict[str, Any] = {"q": "a photograph", "k": 2}
    whole = names(client.get("/api/v1/search", params={**asked, "k": 5}))
    pages: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        body = client.get("/api/v1/search", params={**asked, "cursor": cursor}).json()
        pages += names(body)
        cursor = body["next"]
    assert pages == whole
    first = client.get("/api/v1/search", params=asked).json()["next"]
    other = client.get("/api/v1/search", params={"q": "a cat", "k": 2, "cursor": first})
    assert "another search" in problem(other, 400)
    assert "no cursor" in problem(client.get("/api/v1/search?q=a&cursor=!!"), 400)


@pytest.fixture(scope="module")
def many(
    es_url: str, tmp_path_factory: pytest.TempPathFactory, files: PictureFiles
) -> Iterator[TestClient]:
    """A service of 240 small pictures, whose names have some of three words."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "photos").mkdir()
    colours = np.random.default_rng(7).integers(0, 255, (240, 4, 4, 3), dtype=np.uint8)
    for number, colour in enumerate(colours):
        words = ["harbour"] * (number % 2) + ["boat"] * (number % 3 > 0) + ["x"] * (number % 7)
        picture = Image.fromarray(colour).resize((32, 32))
        picture.save(folder / "photos" / f"{' '.join([*words, str(number)])}.png")
    index = f"api-many-{uuid.uuid4().hex[:12]}"
    run = CliRunner(env={"ES_URL": es_url, "ES_IMGSEARCH_INDEX": index}).invoke
    assert run(main, ["init", "--encoder", "starter"]).exit_code == 0
    assert run(main, ["sync", str(folder / "photos")]).exit_code == 0
    settings = load_settings({"es_url": es_url, "index": index, "read_workers": 1})
    app = create_app(files, SearchService(settings))
    with TestClient(app, base_url=ADDRESS, raise_server_exceptions=False) as each:
        yield each
    remove_index(Store(connect(settings), index))


@pytest.mark.parametrize(
    "asked",
    [
        {"mode": "hybrid", "k": 20},
        {"mode": "auto", "k": 7},
        {"mode": "auto", "k": 60},
        {"mode": "text", "k": 30},
        {"mode": "vector", "k": 40},
        {"mode": "hybrid", "k": 20, "collapse": True},
        {"mode": "hybrid", "k": 25, "num_candidates": 30},
        {"mode": "hybrid", "k": 50, "min_relevance": 0.01},
    ],
)
def test_pages_are_the_parts_of_one_large_answer(many: TestClient, asked: dict[str, Any]) -> None:
    """A fused ranking depends on its depth, which grew from page to page."""
    asked = {"q": "harbour boat", **asked}
    large = {**asked, "k": 240, "num_candidates": 240}
    whole = [each["image_id"] for each in many.get("/api/v1/search", params=large).json()["hits"]]
    pages: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = many.get("/api/v1/search", params={**asked, "cursor": cursor})
        assert answer.status_code == 200, answer.text
        pages += [each["image_id"] for each in answer.json()["hits"]]
        cursor = answer.json()["next"]
    assert len(pages) > asked["k"]
    assert pages == whole


@pytest.mark.parametrize("depth", [50, 90, 100, 239])
@pytest.mark.parametrize("asked", [{"k": 20}, {"k": 60, "collapse": True}, {"k": 70}])
def test_pages_behind_the_depth_that_is_fused(
    many: TestClient, asked: dict[str, Any], depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("es_imgsearch.serve.answers.ranking._FUSED_DEPTH", depth)
    asked = {"q": "harbour boat", "facets": ["format"], **asked}
    whole = many.get("/api/v1/search", params={**asked, "k": 240}).json()["hits"]
    pages: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = many.get("/api/v1/search", params={**asked, "cursor": cursor}).json()
        pages += [each["image_id"] for each in answer["hits"]]
        assert answer["facets"] == {"format": {"png": len(pages)}}
        cursor = answer["next"]
    assert len(pages) == 240
    assert len(set(pages)) == 240
    assert pages == [each["image_id"] for each in whole]


def test_facets_count_the_hits_up_to_the_end_of_the_page(many: TestClient) -> None:
    asked: dict[str, Any] = {"q": "harbour boat", "k": 20, "facets": ["format"]}
    first = many.get("/api/v1/search", params=asked).json()
    assert first["facets"] == {"format": {"png": 20}}
    second = many.get("/api/v1/search", params={**asked, "cursor": first["next"]}).json()
    assert len(second["hits"]) == 20
    assert second["facets"] == {"format": {"png": 40}}


@pytest.mark.parametrize("sort", ["newest", "largest", "folder"])
@pytest.mark.parametrize("candidates", [60, 500, 1000])
def test_candidates_suffice_for_hits_that_nobody_asked_for(
    client: TestClient, sort: str, candidates: int
) -> None:
    asked = {"like": image_id("photos", "coffee.png"), "sort": sort, "num_candidates": candidates}
    assert client.get("/api/v1/search", params=asked).status_code == 200
    detail = problem(client.get("/api/v1/search", params={**asked, "num_candidates": 59}), 400)
    assert detail == "num_candidates is 59 but must be at least k, which is 60."


@pytest.mark.parametrize("sort", ["largest", "folder"])
def test_hits_in_another_order(client: TestClient, sort: str) -> None:
    asked = {"like": image_id("photos", "coffee.png"), "sort": sort}
    hits = client.get("/api/v1/search", params=asked).json()["hits"]
    if sort == "largest":
        sizes = [each["width"] * each["height"] for each in hits]
        assert sizes == sorted(sizes, reverse=True)
    else:
        places = [each["relative_path"] for each in hits]
        assert places == sorted(places)
    assert {each["image_name"] for each in hits} <= {*PICTURES}
    assert hits


def test_many_searches_at_once(client: TestClient) -> None:
    asked = {"searches": [{"q": "a cat", "k": 1}, {"q": "a rocket", "k": 1}]}
    answers = client.post("/api/v1/searches", json=asked).json()["answers"]
    assert [names(each) for each in answers] == [["chelsea.png"], ["rocket.jpg"]]


def test_stored_fields_facets_status_and_failures(client: TestClient, settings: Settings) -> None:
    stored = client.get(f"/api/v1/images/{image_id('photos', 'coffee.png')}").json()
    assert (stored["width"], stored["height"], stored["format"]) == (600, 400, "png")
    assert "image_embedding" not in stored
    counted = client.get("/api/v1/facets", params={"fields": ["format", "year"]}).json()
    assert counted["format"] == {"png": 4, "jpeg": 1}
    assert sum(counted["year"].values()) == 5
    within = {"fields": "format", "filter": "folder:road"}
    assert client.get("/api/v1/facets", params=within).json() == {"format": {"png": 2}}
    assert client.get("/api/v1/status").json()["pictures"] == 5
    (failure,) = client.get("/api/v1/failures").json()
    assert failure["path"].endswith("photos/broken.png")


def test_the_model_as_a_service(client: TestClient, python: ImageSearch, photographs: Path) -> None:
    texts = client.post("/api/v1/encode", json={"texts": ["a cat", "a dog"]}).json()
    assert texts["encoder"] == "starter"
    assert texts["vectors"][0] == pytest.approx(list(python.embed("a cat")), abs=1e-5)
    pictures = [("image", (photographs / name).read_bytes()) for name in PICTURES[:2]]
    vectors = client.post("/api/v1/encode", files=pictures).json()["vectors"]
    stored = python.search_image(photographs / "chelsea.png", k=1)
    assert sum(a * b for a, b in zip(vectors[0], python.embed(stored[0].path), strict=True)) > 0.99
    assert len(vectors) == 2


WRONG = [
    ("GET", "/api/v1/search", {}, 400, "q=WORDS"),
    ("GET", "/api/v1/search?q=%20", {}, 400, "q=WORDS"),
    ("GET", "/api/v1/search?q=a&k=0", {}, 422, "at least 1, not '0'."),
    ("GET", "/api/v1/search?q=a&k=many", {}, 422, "'k' is a whole number, not 'many'."),
    ("GET", "/api/v1/search?q=a&k=1001", {}, 422, "at most 1000"),
    ("GET", "/api/v1/search?q=a&mode=magic", {}, 422, "'mode' is one of"),
    ("GET", "/api/v1/search?q=a&min_relevance=nan", {}, 422, "'min_relevance' is"),
    ("GET", "/api/v1/search?q=a&filtr=b:c", {}, 422, "'filtr' is not known"),
    ("GET", "/api/v1/search?q=a&filter=b", {}, 400, "field:value"),
    ("GET", "/api/v1/search?q=a&filter=fromat:png", {}, 400, "Did you mean 'format'?"),
    ("GET", "/api/v1/search?q=a&since=yesterday", {}, 400, "holds dates such as"),
    ("GET", "/api/v1/search?q=a&box=1,2", {}, 422, "box"),
    ("GET", "/api/v1/search?q=a&box=1,2,3,4", {}, 400, "A box is a part of a picture"),
    ("GET", f"/api/v1/search?like={'0' * 32}&box=1,2,3,4", {}, 404, "No picture has"),
    ("POST", "/api/v1/search", {"json": {"q": "a", "box": [0, 0, 9, 9]}}, 400, "A box is a part"),
    ("GET", "/api/v1/search?like=none", {}, 404, "No picture has the image_id"),
    ("GET", f"/api/v1/search?q={'a' * 2001}", {}, 422, "at most 2000 long"),
    ("GET", "/api/v1/images/odd", {}, 422, "image_id"),
    ("GET", f"/api/v1/images/{'0' * 32}", {}, 404, "No picture has the image_id"),
    ("GET", "/api/v1/facets?fields=pixels", {}, 400, "There is no facet 'pixels'"),
    ("GET", "/api/v1/facets", {}, 422, "'fields' is missing"),
    ("GET", "/api/v2/search", {}, 404, "/api/v1/facets"),
    ("DELETE", "/api/v1/search", {}, 405, "send "),
    ("POST", "/api/v1/search", {"content": b"{", "headers": {"content-type": "application/json"}},
     400, "no JSON"),
    ("POST", "/api/v1/search", {"json": ["q"]}, 400, "not a JSON object"),
    ("POST", "/api/v1/search", {"json": {"q": 1}}, 400, "'q.0' is a text, not 1."),
    ("POST", "/api/v1/search", {"content": b"a cat"}, 415, "Send application/json"),
    ("POST", "/api/v1/searches", {"content": b"a cat"}, 415, "Send a JSON object"),
    ("POST", "/api/v1/search", {"files": {"picture": b"x"}}, 400, "part `image`"),
    ("POST", "/api/v1/search", {"files": {"image": b"no picture"}}, 422, "no picture"),
    ("POST", "/api/v1/search", {"files": {"image": b""}}, 422, "empty"),
    ("POST", "/api/v1/searches", {"json": {"searches": []}}, 422, "at least 1"),
    ("POST", "/api/v1/encode", {"json": {}}, 400, "'texts' is missing"),
    ("POST", "/api/v1/search", {"content": b"x" * 1_000_001}, 413, "larger than 1 MB"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "sent", "status", "words"), WRONG)
def test_wrong_requests_are_answered_in_words(
    client: TestClient, method: str, path: str, sent: dict[str, Any], status: int, words: str
) -> None:
    detail = problem(client.request(method, path, **sent), status)
    assert words in detail
    assert "pydantic" not in detail


def test_a_body_without_an_end_is_cut_off(client: TestClient) -> None:
    chunks = (b"x" * 100_000 for _ in range(1000))
    headers = {"content-type": "application/json"}
    answer = client.post("/api/v1/search", content=chunks, headers=headers)
    assert "larger" in problem(answer, 413)


@pytest.mark.parametrize("path", ["search", "searches", "encode"])
@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x"])
def test_a_body_without_a_length_that_is_too_large(
    client: TestClient, path: str, kind: str
) -> None:
    """FastAPI reads the body of /searches itself, and answers 400 if it cannot."""
    chunks = (b" " * 100_000 for _ in range(20))
    answer = client.post(f"/api/v1/{path}", content=chunks, headers={"content-type": kind})
    assert "larger than 1 MB" in problem(answer, 413)


@pytest.mark.parametrize("path", ["search", "searches", "encode"])
@pytest.mark.parametrize("depth", [50, 400, 800, *range(900, 1001, 25), 100_000])
@pytest.mark.parametrize("form", ['{"q":%s}', '{"texts":%s}', '{"searches":%s}', "%s"])
def test_a_body_that_is_nested_deeply(client: TestClient, path: str, depth: int, form: str) -> None:
    content = form % ("[" * depth + "]" * depth)
    headers = {"content-type": "application/json"}
    answer = client.post(f"/api/v1/{path}", content=content, headers=headers)
    assert answer.status_code in {400, 422}
    problem(answer, answer.status_code)


@pytest.mark.parametrize("suffix", [".tga", ".TGA", ".pcx"])
def test_a_picture_that_only_its_suffix_tells(
    client: TestClient, photographs: Path, suffix: str
) -> None:
    stream = io.BytesIO()
    with Image.open(photographs / "coffee.png") as picture:
        picture.convert("RGB").save(stream, suffix[1:])
    for name in (f"coffee{suffix}", rf"C:\Users\a b\coffee{suffix}", f"../../x/é{suffix}"):
        sent = {"image": (name, stream.getvalue())}
        answer = client.post("/api/v1/search", files=sent, data={"k": "1"})
        assert answer.status_code == 200, answer.text
        assert names(answer) == ["coffee.png"]
        assert client.post("/api/v1/encode", files=sent).status_code == 200


def test_a_name_without_a_suffix_of_a_picture_is_not_used(
    client: TestClient, photographs: Path
) -> None:
    content = (photographs / "coffee.png").read_bytes()
    for name in ("coffee", "coffee.txt", ".png/..", f"x.{'y' * 300}", "x.png\0/y", "a.jpg"):
        answer = client.post("/api/v1/search", files={"image": (name, content)}, data={"k": "1"})
        assert names(answer) == ["coffee.png"], name


def test_pictures_that_are_encoded_leave_those_that_are_searched_with(
    client: TestClient, photographs: Path
) -> None:
    picture = ("p.jpg", jpeg(photographs / "coffee.png"), "image/jpeg")
    key = client.post("/api/v1/search", files={"image": picture}).json()["image"]
    for start in range(0, 45, 15):
        pictures = []
        for number in range(start, start + 15):
            stream = io.BytesIO()
            Image.new("RGB", (16, 16), (number, 0, 0)).save(stream, "PNG")
            pictures.append(("image", stream.getvalue()))
        vectors = client.post("/api/v1/encode", files=pictures).json()["vectors"]
        assert len(vectors) == 15
    assert client.get("/api/v1/search", params={"image": key}).status_code == 200


class _Encoderless(ImageSearch):
    """A client whose encoder fails with the errors given, one a try."""

    def __init__(self, settings: Settings, errors: list[Exception]) -> None:
        super().__init__(settings=settings)
        self.errors = errors

    def embed(self, query: Any, box: Any = None) -> Any:
        if self.errors:
            raise self.errors.pop(0)
        return super().embed(query, box)


@pytest.mark.parametrize(
    "error",
    [ModelUnavailable("no weights"), StoreUnreachable("away"), RuntimeError("odd"), OSError(5)],
)
def test_ready_once_the_model_is_loaded(
    settings: Settings, files: PictureFiles, error: Exception
) -> None:
    service = SearchService(settings, _Encoderless(settings, [error, error]))
    service.warm_up()
    assert not service.is_ready()
    until(service.is_ready)


def test_ready_with_an_encoder_of_pictures_only(settings: Settings) -> None:
    service = SearchService(settings, _Encoderless(settings, [TextUnsupported("pictures only")]))
    service.warm_up()
    assert service.is_ready()


@pytest.mark.parametrize("library", ["python_multipart", "fastapi", "limits", "uvicorn"])
def test_a_library_that_is_missing(
    library: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    import_anew(monkeypatch, "es_imgsearch.serve")
    # It ends before it serves: the port is none of this machine.
    words = ["serve", "--index", settings.index, "--address", "192.0.2.1"]
    ended = CliRunner(env={"ES_URL": settings.es_url}).invoke(main, words)
    assert ended.exit_code == 2
    assert "python-multipart" in ended.stderr
    assert "pip install 'es-imgsearch[serve]'" in ended.stderr


@pytest.mark.parametrize("before", ["", "# mine", "# mine\n", "# mine\r\n", "\n", "# é"])
def test_a_token_begins_a_line(before: str, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_bytes(before.encode())
    new_token(file)
    assert len(read_hashes(file)) == 1
    whole = file.read_text("utf-8").rstrip("\n")
    file.write_text(whole, "utf-8")
    new_token(file)
    assert len(read_hashes(file)) == 2
    assert file.read_bytes().startswith(before.encode().rstrip(b"\r\n"))


@pytest.mark.parametrize(
    "name", [b"caf\xe9", b"\xff\xfe", b"a\xed\xa0\x80", "é".encode(), b"a \\x41"]
)
def test_status_of_a_folder_whose_path_is_no_utf8(
    name: bytes, es_url: str, tmp_path: Path, files: PictureFiles
) -> None:
    folder = os.path.join(os.fsencode(tmp_path), name)
    os.mkdir(folder)
    index = f"api-bytes-{uuid.uuid4().hex[:12]}"
    run = CliRunner(env={"ES_URL": es_url, "ES_IMGSEARCH_INDEX": index}).invoke
    assert run(main, ["init", "--encoder", "starter"]).exit_code == 0
    settings = load_settings({"es_url": es_url, "index": index})
    try:
        assert run(main, ["sync", f"odd={os.fsdecode(folder)}"]).exit_code == 0
        printed = run(main, ["status", "--json"])
        assert printed.exit_code == 0, printed.output
        shown = json.loads(printed.stdout)["roots"]["odd"]["path"]
        assert shown == utf8(os.fsdecode(folder))
        with TestClient(create_app(files, SearchService(settings)), base_url=ADDRESS) as client:
            answer = client.get("/api/v1/status")
            assert answer.json()["roots"]["odd"]["path"] == shown
        in_words = run(main, ["status"])
        assert in_words.exit_code == 0
        assert "its folder is not there" not in in_words.output
        os.rmdir(folder)
        assert "its folder is not there" in run(main, ["status"]).output
    finally:
        remove_index(Store(connect(settings), index))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1.evil.example:8080"}, 421),
        ({"host": "[::1"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": ADDRESS, "sec-fetch-site": "same-origin"}, 200),
        ({"host": "[::1]:8080"}, 200),
        ({"host": "localhost:8080"}, 200),
        ({"host": "LOCALHOST."}, 200),
    ],
)
def test_pages_of_other_sites_may_not_ask(
    client: TestClient, headers: dict[str, str], status: int
) -> None:
    answer = client.post("/api/v1/search", json={"q": "a cat", "k": 1}, headers=headers)
    if status == 200:
        assert names(answer) == ["chelsea.png"]
    else:
        problem(answer, status)


def test_only_who_has_a_token_may_ask(
    settings: Settings, files: PictureFiles, tmp_path: Path
) -> None:
    token, other = new_token(tmp_path / "tokens"), new_token(tmp_path / "tokens")
    assert token not in (tmp_path / "tokens").read_text()
    assert (tmp_path / "tokens").stat().st_mode & 0o077 == 0
    hashes = read_hashes(tmp_path / "tokens")
    service = SearchService(settings)
    with TestClient(create_app(files, service, token_hashes=hashes), base_url=ADDRESS) as client:
        for sent in (
            "",
            "Bearer",
            f"Basic {token}",
            f"Bearer {token}x",
            f"Bearer {next(iter(hashes))}",
        ):
            answer = client.get("/api/v1/status", headers={"authorization": sent})
            assert "Send a token" in problem(answer, 401)
            assert answer.headers["www-authenticate"] == "Bearer"
        problem(client.get(f"/thumbnails/{'0' * 32}"), 401)
        assert client.get("/healthz").status_code == 200
        for good in (token, other):
            headers = {"authorization": f"bearer {good}"}
            assert client.get("/api/v1/status", headers=headers).status_code == 200


@pytest.mark.parametrize("content", ["", "# none yet\n", "a-token-itself\n", "sha256:12\n"])
def test_a_file_without_a_token(
    content: str, tmp_path: Path, settings: Settings, files: PictureFiles
) -> None:
    (tmp_path / "t").write_text(content)
    with pytest.raises(FileInvalid, match="es-imgsearch serve --new-token --token-file") as raised:
        read_hashes(tmp_path / "t")
    (tmp_path / "t").unlink()
    words = str(raised.value).partition("`es-imgsearch ")[2].partition("`")[0].split()
    printed = CliRunner().invoke(main, words)
    assert printed.exit_code == 0, printed.output
    assert len(read_hashes(tmp_path / "t")) == 1
    assert len(printed.stdout.strip()) == 43


def test_a_name_that_is_allowed(settings: Settings, files: PictureFiles) -> None:
    app = create_app(files, hosts=["Photos.Example"])
    with TestClient(app, base_url="http://photos.example:8080") as client:
        assert client.get("/healthz").status_code == 200
        assert "--allow-host" in problem(client.get("/healthz", headers={"host": "x.example"}), 421)


def test_elasticsearch_away_says_when_to_ask_again(files: PictureFiles) -> None:
    away = load_settings({"es_url": "http://127.0.0.1:1", "index": "away"})
    with TestClient(create_app(files, SearchService(away)), base_url=ADDRESS) as client:
        answer = client.get("/api/v1/search?q=a")
        problem(answer, 503)
        assert int(answer.headers["retry-after"]) > 0
        problem(client.get("/readyz"), 503)
        assert client.get("/healthz").status_code == 200


def test_every_answer_says_not_to_guess_its_type(client: TestClient) -> None:
    for path in ("/api/v1/status", "/api/v1/none", "/healthz"):
        assert client.get(path).headers["x-content-type-options"] == "nosniff"
