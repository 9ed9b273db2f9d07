"""Queries of many threads: one call of the model, a cache, errors of their own, a bound."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from PIL import Image

from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.errors import EmbedFailed, ImgSearchError, ModelUnavailable, TextUnsupported
from es_imgsearch.search.query_vectors import LocalQueryEncoder, QueryVectors
from es_imgsearch.serve.traffic.shared_encoder import EncodingsQueued, SharedQueryEncoder
from es_imgsearch.settings import load_settings
from es_imgsearch.testing import FakeEncoder, MemoryStore
from tests.support.house import until

COLOURS = [f"rgb({8 * n}, {255 - 8 * n}, {3 * n})" for n in range(32)]
PATIENCE_SECONDS = 40


class GatedEncoder(FakeEncoder):
    """Notes the texts of each call; the first call waits for the gate.  Some texts fail."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.calls: list[list[str]] = []
        self.is_busy = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.failing: Callable[[Sequence[str]], object] = lambda _: False

    def embed_texts(self, texts: Sequence[str]) -> Any:
        self.calls.append(list(texts))
        self.is_busy.set()
        assert self.gate.wait(PATIENCE_SECONDS)
        if self.failing(texts):
            raise ValueError("a text that cannot be read")
        return super().embed_texts(texts)


def info_of(encoder: FakeEncoder, index: str = "images") -> IndexInfo:
    store = MemoryStore(index)
    store.generations.create(new_meta(seal_of(encoder), "exact", "cosine"))
    return store.info()


def shared_over(encoder: FakeEncoder, **options: Any) -> SharedQueryEncoder:
    return SharedQueryEncoder(
        LocalQueryEncoder("images", load_settings(environment={}), encoder), **options
    )


@contextmanager
def all_at_once(
    encoder: GatedEncoder, shared: SharedQueryEncoder, queries: Sequence[Sequence[Any]]
) -> Iterator[list[Future[QueryVectors]]]:
    """The first of the queries is being encoded, all others wait; opened when the block ends."""
    info = info_of(encoder)
    encoder.gate.clear()
    with ThreadPoolExecutor(len(queries)) as threads:
        asked = [threads.submit(shared.embed, info, *queries[0])]
        assert encoder.is_busy.wait(PATIENCE_SECONDS)
        asked += [threads.submit(shared.embed, info, *each) for each in queries[1:]]
        until(lambda: shared.waiting == len(queries) - 1)
        try:
            yield asked
        finally:
            encoder.gate.set()


def test_32_threads_are_two_calls_of_the_model() -> None:
    encoder = GatedEncoder()
    shared = shared_over(encoder)
    with all_at_once(encoder, shared, [([colour], []) for colour in COLOURS]) as asked:
        pass
    assert [len(call) for call in encoder.calls] == [1, 31]
    assert (shared.calls, shared.encoded, shared.hits, shared.waiting) == (2, 32, 0, 0)
    alone = FakeEncoder()
    for colour, each in zip(COLOURS, asked, strict=True):
        assert np.array_equal(each.result().texts, alone.embed_texts([colour]))


def test_texts_and_pictures_of_several_threads_find_their_own_vectors() -> None:
    encoder = GatedEncoder()
    shared = shared_over(encoder)
    red, blue = (Image.new("RGB", (32, 32), colour) for colour in ("red", "blue"))
    queries: list[Sequence[Any]] = [
        (["green"], []), ([], [red]), (["blue", "red"], [blue, red]), (["red"], [blue]),
    ]  # fmt: skip
    with all_at_once(encoder, shared, queries) as asked:
        pass
    assert encoder.calls == [["green"], ["blue", "red"]]
    alone = LocalQueryEncoder("images", load_settings(environment={}), FakeEncoder())
    for query, each in zip(queries, asked, strict=True):
        expected, found = alone.embed(info_of(encoder), *query), each.result()
        assert np.array_equal(found.texts, expected.texts)
        assert np.array_equal(found.pictures, expected.pictures)
        assert list(found.truncated) == [False] * len(query[0])


@pytest.mark.parametrize("waiting", [2, 7, 31])
def test_one_text_asked_by_all_is_encoded_once(waiting: int) -> None:
    encoder = GatedEncoder()
    shared = shared_over(encoder)
    queries: list[Sequence[Any]] = [(["red"], [])] * (waiting + 1)
    with all_at_once(encoder, shared, queries) as asked:
        pass
    assert encoder.calls == [["red"]]
    assert all(np.array_equal(each.result().texts, asked[0].result().texts) for each in asked)


def test_a_text_asked_again_is_found() -> None:
    encoder = GatedEncoder()
    shared, info = shared_over(encoder), info_of(encoder)
    first = shared.embed(info, ["red", "blue"], [])
    again = shared.embed(info, ["blue", "red", "blue"], [])
    assert encoder.calls == [["red", "blue"]]
    assert np.array_equal(again.texts, first.texts[[1, 0, 1]])
    assert shared.hits == 2


def test_a_vector_that_a_caller_changes_is_not_the_kept_one() -> None:
    encoder = GatedEncoder()
    shared, info = shared_over(encoder), info_of(encoder)
    shared.embed(info, ["red"], []).texts[:] = 0
    assert np.array_equal(shared.embed(info, ["red"], []).texts, encoder.embed_texts(["red"]))


def test_the_text_asked_longest_ago_is_forgotten_first() -> None:
    encoder = GatedEncoder()
    shared, info = shared_over(encoder, most_kept=2), info_of(encoder)
    for text in ("red", "blue", "red", "green", "red", "blue"):
        shared.embed(info, [text], [])
    assert encoder.calls == [["red"], ["blue"], ["green"], ["blue"]]


def test_another_generation_or_encoder_has_vectors_of_its_own() -> None:
    encoder = GatedEncoder()
    shared = shared_over(encoder)
    for index in ("images", "others", "images"):
        shared.embed(info_of(encoder, index), ["red"], [])
    assert encoder.calls == [["red"], ["red"]]
    shared.forget()
    shared.embed(info_of(encoder), ["red"], [])
    assert len(encoder.calls) == 3
    other = GatedEncoder(revision="2")
    with pytest.raises(ImgSearchError, match="revision"):
        shared.embed(info_of(other), ["red"], [])


def test_the_error_of_one_query_is_its_own() -> None:
    encoder = GatedEncoder()
    encoder.failing = lambda texts: "odd" in texts
    shared = shared_over(encoder)
    texts = ["red", "odd", "blue", "green"]
    with all_at_once(encoder, shared, [([text], []) for text in texts]) as asked:
        pass
    with pytest.raises(EmbedFailed, match="a text that cannot be read"):
        asked[1].result()
    for text, each in zip(texts, asked, strict=True):
        if text != "odd":
            assert np.array_equal(each.result().texts, FakeEncoder().embed_texts([text]))
    # What failed is tried again, what was encoded beside it is not.
    encoder.failing = lambda _: False
    before = len(encoder.calls)
    for text in texts:
        shared.embed(info_of(encoder), [text], [])
    assert encoder.calls[before:] == [["odd"]]


def test_a_text_for_an_encoder_of_pictures_does_not_fail_a_picture() -> None:
    encoder = GatedEncoder(supports_text=False)
    shared, info = shared_over(encoder), info_of(encoder)
    gate, is_busy = threading.Event(), threading.Event()

    def wait(_: object) -> None:
        is_busy.set()
        assert gate.wait(PATIENCE_SECONDS)

    encoder.before_batch = wait
    red = Image.new("RGB", (32, 32), "red")
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(shared.embed, info, [], [red])
        assert is_busy.wait(PATIENCE_SECONDS)
        text = threads.submit(shared.embed, info, ["red"], [])
        picture = threads.submit(shared.embed, info, [], [red])
        until(lambda: shared.waiting == 2)
        gate.set()
        assert isinstance(text.exception(), TextUnsupported)
        assert np.array_equal(picture.result().pictures, first.result().pictures)


class _Away:
    """A model that cannot be loaded."""

    def __init__(self) -> None:
        self.calls = 0
        self.is_busy, self.gate = threading.Event(), threading.Event()

    def embed(self, *_: object) -> QueryVectors:
        self.calls += 1
        self.is_busy.set()
        assert self.gate.wait(PATIENCE_SECONDS)
        raise ModelUnavailable("no weights")

    def forget(self) -> None:
        pass


def test_a_model_that_cannot_be_loaded_is_not_tried_once_a_query() -> None:
    model, info = _Away(), info_of(FakeEncoder())
    shared = SharedQueryEncoder(model)
    with ThreadPoolExecutor(9) as threads:
        asked = [threads.submit(shared.embed, info, ["0"], [])]
        assert model.is_busy.wait(PATIENCE_SECONDS)
        asked += [threads.submit(shared.embed, info, [str(n)], []) for n in range(1, 9)]
        until(lambda: shared.waiting == 8)
        model.gate.set()
        assert all(isinstance(each.exception(), ModelUnavailable) for each in asked)
    assert model.calls == 2
    assert shared.waiting == 0


def test_more_than_may_wait_are_refused_and_the_others_answered() -> None:
    encoder = GatedEncoder()
    shared, info = shared_over(encoder, most_waiting=4), info_of(encoder)
    with all_at_once(encoder, shared, [([colour], []) for colour in COLOURS[:5]]) as asked:
        with pytest.raises(EncodingsQueued, match="4 queries wait for the model already"):
            shared.embed(info, ["red"], [])
        assert shared.waiting == 4
    assert all(len(each.result().texts) == 1 for each in asked)
    assert len(shared.embed(info, ["red"], []).texts) == 1


def test_more_than_a_batch_holds_are_several_batches() -> None:
    encoder = GatedEncoder()
    shared = shared_over(encoder)
    texts = [f"rgb({n}, 0, {n % 7})" for n in range(101)]
    queries: list[Sequence[Any]] = [(texts[:1], [])]
    queries += [(texts[n : n + 25], []) for n in range(1, 101, 25)]
    with all_at_once(encoder, shared, queries) as asked:
        pass
    assert [len(call) for call in encoder.calls] == [1, 50, 50]
    assert [len(each.result().texts) for each in asked] == [1, 25, 25, 25, 25]


def test_many_texts_of_one_search_are_not_kept() -> None:
    encoder = GatedEncoder()
    shared, info = shared_over(encoder), info_of(encoder)
    texts = [f"rgb({n}, 0, 0)" for n in range(100)]
    assert len(shared.embed(info, texts, []).texts) == 100
    shared.embed(info, texts[:1], [])
    assert len(encoder.calls) == 2
