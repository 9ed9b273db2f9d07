"""The clients without a server: the requests they send, the arguments they refuse."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
from pathlib import Path
from typing import Any

import elasticsearch
import numpy as np
import orjson
import pytest
from PIL import Image

from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.requests import Request
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import ImageMissing, SettingsError, UsageError
from es_imgsearch.search import AsyncImageSearch, ImageSearch
from es_imgsearch.search.hits import Hit, Hits, LazyHits
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import FakeEncoder, MemoryStore
from tests.support import picture_samples as samples


class SearchedStore(MemoryStore):
    """Finds nothing and stores the body of the last request."""

    def send(self, request: Request) -> dict[str, Any]:
        if request.method == "GET":
            info = self.info()
            mappings = {"_meta": info.meta.to_body(), "properties": info.properties}
            return {info.name: {"mappings": mappings, "settings": {"index": {}}}}
        assert request.body is not None
        if "/_mget" in request.path:  # the state documents of the index
            return {}
        self.sent = orjson.loads(request.body)
        return {}


@pytest.fixture
def search() -> ImageSearch:
    encoder = FakeEncoder()
    search = ImageSearch(settings=load_settings(environment={}), encoder=encoder)
    store = SearchedStore()
    store.generations.create(new_meta(seal_of(encoder), "exact", "cosine"))
    search._store = store  # type: ignore[assignment]
    return search


def sent_vector(search: ImageSearch, *query: Any, **options: Any) -> np.ndarray:
    search.search(*query, mode="vector", **options)
    vector = search.store.sent["knn"]["query_vector"]  # type: ignore[attr-defined]
    return np.asarray(vector, dtype=np.float32)


@pytest.mark.parametrize("kind", ["text", "path", "bytes", "image", "array"])
def test_one_query_needs_no_list(search: ImageSearch, kind: str, tmp_path: Path):
    content = samples.sample("png")
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
        queries: dict[str, Any] = {
            "text": "blue", "path": path, "bytes": content, "image": image, "array": pixels,
        }  # fmt: skip
        query = queries[kind]
        assert np.array_equal(sent_vector(search, query), sent_vector(search, [query]))
        assert np.array_equal(
            sent_vector(search, "green", query), sent_vector(search, ["green"], [query])
        )
        assert len(search.search(query, mode="vector").queries) == 1


def test_hits_hold_the_part_of_the_picture_inside_the_box(search: ImageSearch):
    turned = samples.four_corners().transpose(Image.Transpose.ROTATE_90)
    content = samples.saved(turned, "JPEG", quality=95, exif=samples.exif_bytes(6))
    box = (34, 2, 28, 20)
    words, part = search.search(["a cat", content], box=box).queries
    assert words == "a cat"
    assert isinstance(part, Image.Image)
    assert part.size == (28, 20)
    assert samples.near(part.getpixel((14, 10)), samples.GREEN)
    assert np.array_equal(sent_vector(search, part), sent_vector(search, content, box=box))
    assert np.array_equal(sent_vector(search, part), search.embed(content, box))


def test_a_turned_image_is_turned_once(search: ImageSearch, tmp_path: Path):
    turned = samples.four_corners().transpose(Image.Transpose.ROTATE_90)
    content = samples.saved(turned, "JPEG", quality=95, exif=samples.exif_bytes(6))
    whole = (0, 0, 10_000, 10_000)
    assert np.array_equal(sent_vector(search, content, box=whole), sent_vector(search, content))


def test_text_that_is_not_unicode_is_refused(search: ImageSearch):
    with pytest.raises(UsageError, match="not valid Unicode"):
        search.search_text("caf\udce9")
    for ask in (search.similar, search.get):
        with pytest.raises(ImageMissing):
            ask("caf\udce9")


def test_k_must_be_a_whole_number(search: ImageSearch):
    for k in (2.0, "3"):
        with pytest.raises(UsageError, match="k must be a whole number"):
            search.search_text("red", k=k)  # type: ignore[arg-type]


def test_arguments_are_checked_as_settings_are():
    settings = load_settings(environment={})
    with pytest.raises(SettingsError, match="cannot name an index"):
        ImageSearch(index="A B", settings=settings)
    with pytest.raises(SettingsError, match="http://"):
        ImageSearch("127.0.0.1:9200", settings=settings)
    with pytest.raises(UsageError, match=r"one address, .* not a list"):
        ImageSearch(["http://127.0.0.1:9200"])  # type: ignore[arg-type]


def test_both_clients_have_the_same_methods_with_the_same_arguments():
    def methods(client: type) -> dict[str, str]:
        return {
            name: str(inspect.signature(method))
            for name, method in vars(client).items()
            if inspect.isfunction(method) and not name.startswith("_")
        }

    ours, theirs = methods(ImageSearch), methods(AsyncImageSearch)
    assert ours.keys() == theirs.keys() >= {"search", "similar", "similarity", "get", "embed"}
    del ours["close"], theirs["close"]
    assert ours == theirs
    for name in ours.keys() - {"reload"}:
        assert inspect.iscoroutinefunction(getattr(AsyncImageSearch, name))
        assert inspect.getdoc(getattr(ImageSearch, name))


def test_the_vector_is_sent_to_the_last_bit(search: ImageSearch):
    vector = np.random.default_rng(0).normal(size=FakeEncoder.dims).astype(np.float32)
    vector /= np.linalg.norm(vector)
    assert np.array_equal(
        sent_vector(search, sent_vector(search, vector)), sent_vector(search, vector)
    )


def test_hits_are_built_once_on_first_access():
    built: list[int] = []

    def build(number: int) -> Hit:
        built.append(number)
        return Hit(str(number), "r", f"{number}.jpg", 1.0, None, {})

    hits = Hits(LazyHits(1000, build), 1)
    assert len(hits) == 1000
    assert built == []
    assert hits[-1] is hits[999]
    assert [hit.image_id for hit in hits[10:12]] == ["10", "11"]
    assert built == [999, 10, 11]
    assert repr(hits).splitlines()[-1] == "  and 980 more"
    with pytest.raises(IndexError):
        hits[1000]


@pytest.mark.parametrize(
    "query",
    [None, 5, 0.5, {"a": 1}, [None], ["red", 5], ("red", None), [("red", "blue")], object()],
)
def test_an_invalid_query_is_refused_and_not_sent(search: ImageSearch, query: Any):
    for ask in (search.search, search.embed, search.knn_query):
        with pytest.raises(UsageError, match="a StoredPicture, or a pair"):
            ask(query)
    with pytest.raises(UsageError, match="a StoredPicture, or a pair"):
        search.search("red", [query])
    assert not hasattr(search.store, "sent")


def test_a_text_query_must_be_a_string(search: ImageSearch):
    for text in (None, 5, b"red", ["red"]):
        with pytest.raises(UsageError, match="The text to search for is a string"):
            search.search_text(text)  # type: ignore[arg-type]


def test_an_empty_id_is_refused(search: ImageSearch):
    for ask in (search.similar, search.get):
        with pytest.raises(ImageMissing):
            ask("")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("filters", "width=5", "filters is a dict, not a str"),
        ("weights", [("content", 1)], "weights is a dict, not a list"),
        ("facets", 5, "lists of names, not one int"),
        ("facets", np.array("year"), "lists of names, not one str"),
        ("fields", "title", "lists of names, not one str"),
        ("fields", [1, None], "fields is a list of names, and 1 is none"),
        ("facets", ["year", None], "facets is a list of names, and None is none"),
        ("offset", None, "offset must be a whole number"),
        ("offset", np.True_, "offset must be a whole number"),
        ("size", np.float64(1), "size must be a whole number"),
        ("size", np.int64(-1), "from 0 on, not -1"),
        ("exact", "no", "exact is True or False, not 'no'"),
        ("collapse", 1, "collapse is True or False"),
        ("num_candidates", "50", "num_candidates must be a whole number"),
    ],
)
def test_options_of_the_wrong_type_are_refused(
    search: ImageSearch, option: str, value: Any, words: str
):
    with pytest.raises(UsageError, match=words):
        search.search_text("red", **{option: value})


def test_an_open_file_is_a_query_and_may_be_closed_when_hits_are_shown(search: ImageSearch):
    content = samples.sample("png")
    expected = sent_vector(search, content)
    file = io.BytesIO(content)
    for query in (file, [file], (file, 2.0)):
        hits = search.search(query)
        vector = search.store.sent["knn"]["query_vector"]  # type: ignore[attr-defined]
        assert np.array_equal(np.asarray(vector, np.float32), expected)
    file.close()
    assert hits.queries == (content,)


def test_close_closes_own_connections_and_not_a_client_passed_in():
    elastic = elasticsearch.Elasticsearch("http://127.0.0.1:1")
    closed = []
    elastic.close = lambda: closed.append(True)  # type: ignore[method-assign]
    with ImageSearch(elastic) as search:
        pass
    assert not closed
    with pytest.raises(UsageError, match="This ImageSearch was closed"):
        search.get("a")
    search = ImageSearch("http://127.0.0.1:1")
    search.store.connection.client.close = lambda: closed.append(True)  # type: ignore[method-assign]
    search.close()
    assert closed == [True]


def test_arguments_of_the_wrong_type_are_refused():
    with pytest.raises(UsageError, match=r"ImageSearch takes .*Elasticsearch\).* not a Async"):
        ImageSearch(elasticsearch.AsyncElasticsearch("http://127.0.0.1:1"))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"AsyncImageSearch takes .*AsyncElasticsearch\)"):
        AsyncImageSearch(elasticsearch.Elasticsearch("http://127.0.0.1:1"))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="load_encoder returns, not a str"):
        ImageSearch(encoder="starter")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="load_settings returns, not a dict"):
        ImageSearch(settings={"index": "a"})  # type: ignore[arg-type]


def test_hits_can_be_sent_to_another_process():
    hits = Hits(
        LazyHits(3, lambda n: Hit(str(n), "r", f"{n}.jpg", 1.0, None, {"width": n})), 1, ["red"]
    )
    sent = pickle.loads(pickle.dumps(hits))
    assert list(sent) == list(hits)
    assert (sent[:2].queries, sent.took_ms) == (("red",), 1)
    assert list(copy.deepcopy(hits)) == list(hits)


def test_a_frame_of_no_hits_has_columns_all_the_same():
    some = Hits([Hit("1", "r", "1.jpg", 1.0, None, {})], 1).to_pandas()
    none = Hits([], 1).to_pandas()
    assert (len(none), list(none.columns)) == (0, list(some.columns))


def test_a_notebook_gets_a_bounded_number_of_small_pictures(tmp_path: Path):
    path = tmp_path / "a.png"
    path.write_bytes(samples.sample("png"))
    present = Hit("1", "r", "a&b.png", 0.5, None, {}, path)
    missing = Hit("2", "r", "\udce9.png", 0.5, None, {}, tmp_path / "none.png")
    shown = Hits([present, missing] * 100, 1)._repr_html_()
    assert shown.count("<img") == 12
    assert shown.count("original not here") == 12
    assert "a&amp;b.png" in shown
    assert "and 176 more" in shown
    assert len(shown.encode()) < 500_000
    assert "nothing found" in Hits([], 1)._repr_html_()
