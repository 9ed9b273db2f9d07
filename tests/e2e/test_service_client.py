"""`ImageSearch(service=…)`, `encoder_url=` and the command line ask a running `serve`."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from click.testing import CliRunner
from PIL import Image

from es_imgsearch.cli import main
from es_imgsearch.elastic.client import connect
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import service_encoder
from es_imgsearch.embed.runtime.service import ServiceConnection
from es_imgsearch.embed.runtime.service_encoder import to_send
from es_imgsearch.errors import (
    EncoderMismatch,
    FilterInvalid,
    ImgSearchError,
    ServiceUnreachable,
    ServiceUnsuitable,
    SettingsError,
    StoreUnreachable,
    UsageError,
)
from es_imgsearch.read.preparation import Preparation
from es_imgsearch.records import image_id
from es_imgsearch.search.async_client import AsyncImageSearch
from es_imgsearch.search.client import ImageSearch
from es_imgsearch.search.hits import Hits
from es_imgsearch.search.options import SearchOptions
from es_imgsearch.search.query import StoredPicture
from es_imgsearch.serve.app import create_app
from es_imgsearch.serve.examples import ExampleOptions
from es_imgsearch.serve.service import SearchService
from es_imgsearch.serve.thumbnails import PictureFiles
from es_imgsearch.serve.tokens import new_token, read_hashes
from es_imgsearch.settings import Settings, load_settings
from es_imgsearch.testing import remove_index
from tests.support.house import until

pytestmark = [pytest.mark.es, pytest.mark.process]

ROAD = ("motorcycle_left.png", "motorcycle_right.png")
PICTURES = ("chelsea.png", "coffee.png", "rocket.jpg", *ROAD)
COFFEE = image_id("photos", "coffee.png")


@contextlib.contextmanager
def running(app: Any) -> Iterator[str]:
    """Serve an application in a thread; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            until(lambda: server.started)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def settings(
    es_url: str, photographs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """Five photographs, and enough plain pictures for relevance, indexed by `starter`."""
    folder = tmp_path_factory.mktemp("service")
    (folder / "photos" / "road").mkdir(parents=True)
    for name in PICTURES:
        target = "road" if name in ROAD else "."
        shutil.copy(photographs / name, folder / "photos" / target)
    for number in range(27):
        content = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(content.repeat(16, 0).repeat(16, 1)).save(
            folder / "photos" / f"plain {number}.png"
        )
    index = f"service-{uuid.uuid4().hex[:12]}"
    environment = {
        "ES_URL": es_url, "ES_IMGSEARCH_INDEX": index, "ES_IMGSEARCH_READ_WORKERS": "1",
        "ES_IMGSEARCH_SETTLE_SECONDS": "0.1",
    }  # fmt: skip
    run = CliRunner(env=environment).invoke
    assert run(main, ["init", "--encoder", "starter"]).exit_code == 0
    done = run(main, ["sync", str(folder / "photos")])
    assert done.exit_code == 0, done.output
    made = {"es_url": es_url, "index": index, "read_workers": 1}
    yield load_settings(made, environment={})
    remove_index(Store(connect(load_settings(made)), index))


@pytest.fixture(scope="module")
def app(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Any:
    store = Store(connect(settings), settings.index)
    files = PictureFiles(store, settings, tmp_path_factory.mktemp("cache"))
    return create_app(files, SearchService(settings))


@pytest.fixture(scope="module")
def url(app: Any) -> Iterator[str]:
    with running(app) as address:
        yield address


@pytest.fixture(scope="module")
def local(settings: Settings) -> Iterator[ImageSearch]:
    with ImageSearch(settings=settings) as search:
        yield search


@pytest.fixture(scope="module")
def remote(url: str) -> Iterator[ImageSearch]:
    with ImageSearch(service=url) as search:
        yield search


def same(one: Hits, other: Hits, *, is_together: bool = False) -> None:
    """The hits agree in everything but the time.

    What a model embeds in one call differs in the eighth digit from what it embeds alone.
    """

    def read(number: str) -> float:
        return round(float(number), 6) if is_together else float(number)

    first, second = (
        json.loads(json.dumps({**each.to_dict(), "took_ms": 0}, default=str), parse_float=read)
        for each in (one, other)
    )
    assert first == second
    assert one.mode == other.mode
    assert [each.fields for each in one] == [each.fields for each in other]
    assert [each.path for each in one] == [each.path for each in other]
    assert [each.matches_words for each in one] == [each.matches_words for each in other]
    assert len(one.queries) == len(other.queries)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mode": "vector", "explain": True},
        {"mode": "text", "explain": True},
        {"mode": "hybrid", "explain": True, "facets": ["format", "year"]},
        {"filters": {"folder": "road"}},
        {"filters": {"width": (100, None), "format": ["png", "jpeg"]}},
        {"filters": {"camera": None, "size_bytes": "1..9999999999"}},
        {"filters": {"width": np.int64(451)}, "without": {"folder": ["road"]}},
        {"without": {"format": "png", "width": (1, 70)}},
        {"since": date(2001, 1, 1), "until": "2100"},
        {"offset": 2, "size": 3, "exact": True},
        {"min_relevance": 0.2, "collapse": True},
        {"fields": ["width", "format"], "num_candidates": 50},
        {"weights": {"content": 1.0}},
    ],
    ids=str,
)
def test_words_find_the_same(
    local: ImageSearch, remote: ImageSearch, options: dict[str, Any]
) -> None:
    expected = local.search_text("a cup of coffee", k=8, **options)
    assert len(expected) or options.get("mode") == "text"
    same(remote.search_text("a cup of coffee", k=8, **options), expected)


def test_a_service_takes_every_option() -> None:
    assert ExampleOptions.model_fields.keys() == SearchOptions.__annotations__.keys()


def test_the_description_of_the_api_refers_to_what_it_has(url: str) -> None:
    described = ServiceConnection(url).get("/openapi.json")
    text = json.dumps(described["paths"]["/api/v1/search-by-examples"])
    assert "image_id" in text
    for place in re.findall(r'"\$ref": "([^"]+)"', text):
        found = described
        for name in place.removeprefix("#/").split("/"):
            found = found[name]


def test_pictures_find_the_same(local: ImageSearch, remote: ImageSearch, photographs: Path) -> None:
    path = photographs / "chelsea.png"
    array = np.asarray(Image.open(path))
    large = Image.fromarray(array).resize((2706, 1800))
    for picture in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes()), array,
                    Image.fromarray(array), large):  # fmt: skip
        expected = local.search_image(picture, k=5)
        if isinstance(picture, io.BytesIO):
            picture.seek(0)
        same(remote.search_image(picture, k=5), expected)
        box = (30, 20, 200, 150)
        same(remote.search_image(picture, box, k=5), local.search_image(picture, box, k=5))


def test_examples_find_the_same(local: ImageSearch, remote: ImageSearch, photographs: Path) -> None:
    vector = local.embed("a rocket")
    cat = photographs / "chelsea.png"
    for positive, negative in (
        (["a road", ("at night", 0.5)], "people"),
        ([cat, photographs / "rocket.jpg", ("a cat", 0.3)], [photographs / "coffee.png"]),
        (vector, ()),
        ([(vector, 2.0), "a machine"], StoredPicture(COFFEE)),
        (StoredPicture(COFFEE), "a cup"),
    ):
        same(
            remote.search(positive, negative, k=6, explain=True),
            local.search(positive, negative, k=6, explain=True),
        )
    same(remote.similar(COFFEE, k=4), local.similar(COFFEE, k=4))
    weights = {"content": 0.6, "colour": 0.4}
    same(remote.search(cat, k=4, weights=weights), local.search(cat, k=4, weights=weights))


def test_many_queries_find_what_each_finds(
    local: ImageSearch, remote: ImageSearch, url: str, photographs: Path
) -> None:
    queries = ["a cat", photographs / "rocket.jpg", ["a road", ("at night", 0.5)], "a cat"]
    expected = [local.search(each, k=3, filters={"format": "png"}) for each in queries]

    async def ask() -> list[Hits]:
        async with AsyncImageSearch(service=url) as search:
            return await search.search_many(queries, k=3, filters={"format": "png"})

    for found in (
        local.search_many(queries, k=3, filters={"format": "png"}),
        remote.search_many(tuple(queries), k=3, filters={"format": "png"}),
        asyncio.run(ask()),
    ):
        assert len(found) == len(queries)
        for one, other in zip(found, expected, strict=True):
            same(one, other, is_together=True)
    for search in (local, remote):
        assert search.search_many([]) == []
        for wrong in ("a cat", {"a": 1}, photographs / "rocket.jpg", None):
            with pytest.raises(UsageError, match="a list of queries"):
                search.search_many(wrong)
        with pytest.raises(FilterInvalid):
            search.search_many(["a", "b"], filters={"nothing": 1})


def test_documents_and_vectors(local: ImageSearch, remote: ImageSearch, photographs: Path) -> None:
    assert dict(remote.get(COFFEE)) == dict(local.get(COFFEE))
    for query in ("a cat", photographs / "chelsea.png", Image.new("RGB", (900, 30), "red")):
        assert remote.embed(query) @ local.embed(query) > 0.999999
    assert remote.similarity("a cat", photographs / "chelsea.png") == pytest.approx(
        local.similarity("a cat", photographs / "chelsea.png"), abs=1e-5
    )


@pytest.mark.parametrize(
    "ask",
    [
        lambda search: search.search_text(""),
        lambda search: search.search_text("caf\ud800"),
        lambda search: search.search_text("a", k=0),
        lambda search: search.search_text("a", k=20_000),
        lambda search: search.search_text("a", mode="vectors"),
        lambda search: search.search_text("a", filters={"nothing": 1}),
        lambda search: search.search_text("a", filters={"width": "wide"}),
        lambda search: search.search_text("a", filters={"width": float("nan")}),
        lambda search: search.search_text("a", filters={"width": 10**30}),
        lambda search: search.search_text("a", filters={"width": (9, 1)}),
        lambda search: search.search_text("a", since="someday"),
        lambda search: search.search_text("a", facets=["nothing"]),
        lambda search: search.search_text("a", regions=True),
        lambda search: search.search_text("a", codes=True),
        lambda search: search.search_text("a", weights={"colour": 1}),
        lambda search: search.search_text("a", min_relevance=2),
        lambda search: search.search("a", "a"),
        lambda search: search.search([]),
        lambda search: search.search(np.zeros(3)),
        lambda search: search.search(("a", -1)),
        lambda search: search.search_image("/missing.png"),
        lambda search: search.search_image(b"no picture"),
        lambda search: search.search_image(Image.new("RGB", (9, 9)), box=(20, 20, 5, 5)),
        lambda search: search.similar("0" * 32),
        lambda search: search.similar("nothing"),
        lambda search: search.get("0" * 32),
        lambda search: search.get("nothing"),
        lambda search: search.embed(" "),
    ],
)  # fmt: skip
def test_errors_are_the_same(local: ImageSearch, remote: ImageSearch, ask: Any) -> None:
    with pytest.raises(ImgSearchError) as expected:
        ask(local)
    with pytest.raises(type(expected.value)) as raised:
        ask(remote)
    assert str(raised.value) == str(expected.value)
    assert type(raised.value) is type(expected.value)


def test_it_needs_no_model_and_no_torch(url: str, settings: Settings) -> None:
    """Words, and a picture; no Elasticsearch is there either."""
    program = f"""
import sys
from PIL import Image
from es_imgsearch import ImageSearch
with ImageSearch(service={url!r}) as search:
    hits = search.search_text("a cup of coffee", k=1)
    assert hits[0].image_name == "coffee.png", hits
    search.search_image(Image.new("RGB", (50, 40)), k=1)
print(*sorted({{"torch", "onnxruntime", "sentence_transformers"}} & sys.modules.keys()))
"""
    environment = {"ES_URL": "http://127.0.0.1:1", "PATH": "/usr/bin"}
    run = [sys.executable, "-c", program]
    done = subprocess.run(run, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_asyncio_finds_the_same(local: ImageSearch, url: str) -> None:
    async def ask() -> list[Any]:
        async with AsyncImageSearch(service=url) as search:
            assert "127.0.0.1" in repr(search)
            return await asyncio.gather(
                search.search_text("a cat", k=3), search.similar(COFFEE, k=2), search.get(COFFEE)
            )

    words, alike, document = asyncio.run(ask())
    same(words, local.search_text("a cat", k=3))
    same(alike, local.similar(COFFEE, k=2))
    assert document["image_name"] == "coffee.png"


def test_what_a_service_does_not_have(url: str, settings: Settings) -> None:
    with ImageSearch(service=url) as search:
        for ask in (
            lambda: search.knn_query("a cat"),
            lambda: search.info,
            lambda: search.store,
            lambda: search.embed(StoredPicture(COFFEE)),
            lambda: search.similarity(b"", b"", part="colour"),
        ):
            with pytest.raises(UsageError, match="with the address of Elasticsearch"):
                ask()
        with pytest.raises(TypeError, match="no option 'colour'"):
            search.search_text("a", colour="red")
        assert search.encoder.name == "starter"
        search.reload()
    with pytest.raises(UsageError, match="was closed"):
        search.search_text("a cat")
    with pytest.raises(ServiceUnsuitable, match=f"searches index '{settings.index}', not 'other'"):
        ImageSearch(service=url, index="other").search_text("a cat")
    for wrong in ({"elasticsearch": settings.es_url}, {"encoder_url": url}):
        with pytest.raises(UsageError, match="leave the address"):
            ImageSearch(service=url, **wrong)


def test_hits_have_paths_of_the_host_that_asks(url: str, local: ImageSearch) -> None:
    elsewhere = load_settings({"host": "elsewhere"}, environment={})
    assert local.search_text("a cat", k=1)[0].path is not None
    with ImageSearch(service=url, settings=elsewhere) as search:
        assert search.search_text("a cat", k=1)[0].path is None


def test_a_token_is_sent_and_never_shown(
    settings: Settings, tmp_path: Path, local: ImageSearch
) -> None:
    token = new_token(tmp_path / "tokens")
    files = PictureFiles(Store(connect(settings), settings.index), settings, tmp_path / "cache")
    app = create_app(files, SearchService(settings), token_hashes=read_hashes(tmp_path / "tokens"))
    with running(app) as url:
        for given in (None, "another-token"):
            with pytest.raises(ServiceUnsuitable, match="--new-token") as refused:
                ImageSearch(service=url, token=given).search_text("a cat")
            assert "another-token" not in str(refused.value)
        with ImageSearch(service=url, token=f" {token}\n") as search:
            same(search.search_text("a cat", k=2), local.search_text("a cat", k=2))
            shown = f"{search!r} {search.settings!r} {search._service.service!r}"
            assert token not in shown
            assert url in repr(search)
        with ImageSearch(settings=settings, encoder_url=url, token=token) as search:
            assert search.search_text("a cat", k=1)[0].image_name == "chelsea.png"
    with pytest.raises(SettingsError, match="printable ASCII") as raised:
        ImageSearch(service=url, token="not one token")
    assert "not one" not in str(raised.value)


class Answer:
    """A server that gives one answer to everything, and notes what it was asked."""

    def __init__(self, status: int, body: bytes, kind: str, **headers: str) -> None:
        self.asked: list[str] = []
        self._start = {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", kind.encode()),
                *((name.encode(), value.encode()) for name, value in headers.items()),
            ],
        }
        self._body = {"type": "http.response.body", "body": body}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                kind = (await receive())["type"]
                await send({"type": f"{kind}.complete"})
                if kind == "lifespan.shutdown":
                    return
        self.asked.append(scope["path"])
        await send(self._start)
        await send(self._body)


PROBLEM = "application/problem+json"


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (Answer(200, b"<h1>Hello</h1>", "text/html"), ServiceUnsuitable, "no `es-imgsearch serve`"),
        (Answer(200, b"{}", "application/json"), ServiceUnsuitable, "the same version"),
        (Answer(200, b"[1]", "application/json"), ServiceUnsuitable, "no `es-imgsearch serve`"),
        (Answer(200, b'{"hits": [{}], "took_ms": 1, "notes": [], "facets": {}, "mode": "text"}',
                "application/json"), ServiceUnsuitable, "the same version"),
        (Answer(404, b"nothing", "text/plain"), ServiceUnsuitable, "no `es-imgsearch serve`"),
        (Answer(404, b'{"detail": "Not there."}', PROBLEM), ServiceUnsuitable, "another version"),
        (Answer(502, b"<h1>Bad gateway</h1>", "text/html"), ServiceUnreachable, "answers 502"),
        (Answer(503, b'{"detail": "Busy."}', PROBLEM), ServiceUnreachable, "Busy."),
        (Answer(429, b'{"detail": "Slower."}', PROBLEM), ServiceUnreachable, "Slower."),
        (Answer(500, b'{"detail": "Failed."}', PROBLEM), ImgSearchError, "Failed."),
        (Answer(413, b'{"detail": "Smaller."}', PROBLEM), UsageError, "Smaller."),
        (Answer(421, b'{"detail": "Not asked so."}', PROBLEM), ServiceUnsuitable, "Not asked so."),
        (Answer(503, b'{"detail": "Away."}', PROBLEM, **{"es-imgsearch-error": "StoreUnreachable"}),
         StoreUnreachable, "Away."),
        (Answer(400, b'{"detail": "No."}', PROBLEM, **{"es-imgsearch-error": "FilterInvalid"}),
         FilterInvalid, "No."),
        (Answer(503, b'{"detail": "Wait."}', PROBLEM, **{"es-imgsearch-error": "ImgSearchError"}),
         ServiceUnreachable, "Wait."),
        (Answer(422, b'{"detail": "No."}', PROBLEM, **{"es-imgsearch-error": "ReadError"}),
         UsageError, "No."),
        (Answer(400, b'{"detail": "No."}', PROBLEM, **{"es-imgsearch-error": "annotations"}),
         UsageError, "No."),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)  # fmt: skip
def test_answers_of_others(answer: Answer, error: type[ImgSearchError], words: str) -> None:
    with running(answer) as url, pytest.raises(error, match=words):
        ImageSearch(service=url).search_text("a cat")


def test_a_redirect_is_not_followed() -> None:
    """What was asked would be sent to a host that nobody named."""
    other = Answer(200, b"{}", "application/json")
    with running(other) as elsewhere:
        moved = Answer(307, b"", "text/plain", location=f"{elsewhere}/api/v1/search-by-examples")
        with running(moved) as url, pytest.raises(ServiceUnsuitable):
            ImageSearch(service=url, token="secret").search_text("a cat")
    assert moved.asked == ["/api/v1/search-by-examples"]
    assert other.asked == []


@pytest.mark.parametrize(
    "address",
    ["", "photos:8080", "ftp://photos", "http://", "http://user:hush@photos:8080", "http://a..b",
     "http://photos:99999999", 8080],
)  # fmt: skip
def test_what_is_no_address(address: Any) -> None:
    with pytest.raises(SettingsError, match="address of a service") as raised:
        ImageSearch(service=address)
    assert "hush" not in str(raised.value)


def test_a_service_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ServiceUnreachable, match=f"127.0.0.1:{port}.*Connection refused") as raised:
        ImageSearch(service=f"http://127.0.0.1:{port}").search_text("a cat")
    assert "`es-imgsearch serve`" in str(raised.value)
    assert raised.value.exit_code == 3
    with pytest.raises(ServiceUnreachable):
        ImageSearch(service="http://nowhere.invalid").search_text("a cat")


def test_a_service_that_does_not_answer_in_time() -> None:
    settings = load_settings({"request_timeout_seconds": 0.2}, environment={})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ServiceUnreachable, match="takes too long"):
            ImageSearch(service=url, settings=settings).search_text("a cat")


# -- encoder_url -----------------------------------------------------------------------------


def test_encoder_url_finds_the_same_without_torch(
    url: str, settings: Settings, local: ImageSearch, photographs: Path
) -> None:
    picture = photographs / "chelsea.png"
    program = f"""
import sys
from es_imgsearch import ImageSearch
with ImageSearch({settings.es_url!r}, {settings.index!r}, encoder_url={url!r}) as search:
    names = [search.search_text("a cup of coffee", k=3), search.search_image({str(picture)!r}, k=3)]
for hits in names:
    print(*(each.image_id for each in hits))
print(*sorted({{"torch", "onnxruntime", "sentence_transformers"}} & sys.modules.keys()))
"""
    run = [sys.executable, "-c", program]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    words, pictures, loaded = done.stdout.split("\n")[:3]
    assert words.split() == [each.image_id for each in local.search_text("a cup of coffee", k=3)]
    assert pictures.split() == [each.image_id for each in local.search_image(picture, k=3)]
    assert loaded == ""


def test_vectors_of_a_service_are_those_of_the_encoder(
    url: str, settings: Settings, local: ImageSearch, photographs: Path
) -> None:
    """Cosines to the encoder in this process: what is sent loses nothing but digits 7 and more."""
    own, other = local.encoder, service_encoder(url, settings)
    texts = [f"a thing of kind {number}" for number in range(300)]
    assert (own.embed_texts(texts) * other.embed_texts(texts)).sum(1).min() > 0.999999
    pictures = np.stack([
        own.preparation.apply(Image.open(photographs / name).convert("RGB"))
        for name in PICTURES * 4
    ])  # fmt: skip
    assert (own.embed_images(pictures) * other.embed_images(pictures)).sum(1).min() > 0.999999
    assert other.embed_texts([]).shape == (0, own.dims)
    assert other.truncated(texts[-2:]) == own.truncated(texts[-2:])


def test_the_encoder_of_another_index_is_refused(url: str, settings: Settings, es_url: str) -> None:
    from es_imgsearch.elastic.mapping import new_meta
    from es_imgsearch.embed.index_encoder import seal_of
    from es_imgsearch.testing import FakeEncoder

    store = Store(connect(settings), f"{settings.index}-fake")
    try:
        store.generations.create(new_meta(seal_of(FakeEncoder()), "exact", "cosine"), [])
        search = ImageSearch(es_url, store.index, encoder_url=url)
        with search, pytest.raises(EncoderMismatch):
            search.search_text("red")
    finally:
        remove_index(store)
    with pytest.raises(ServiceUnreachable):
        ImageSearch(settings=settings, encoder_url="http://127.0.0.1:1").search_text("red")
    with pytest.raises(UsageError, match="both embed"):
        ImageSearch(encoder=FakeEncoder(), encoder_url=url)


@pytest.mark.parametrize(
    "preparation",
    [
        Preparation(),
        Preparation(224, 224, "crop", 256),
        Preparation(224, 224, "crop", 232, "bilinear"),
        Preparation(225, 224, "crop", 257, "lanczos"),
        Preparation(384, 384, "squash"),
        Preparation(32, 48, "squash", resampling="nearest"),
    ],
    ids=str,
)
def test_a_picture_that_was_prepared_is_sent_so_that_it_stays(
    preparation: Preparation, photographs: Path
) -> None:
    pixels = preparation.apply(Image.open(photographs / "coffee.png").convert("RGB"))
    sent = Image.open(io.BytesIO(to_send(pixels, preparation)))
    assert (preparation.apply(sent) == pixels).all()
