"""Clients used before `os.fork`: parent and children each get the answers to their own queries."""

from __future__ import annotations

import asyncio
import multiprocessing
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait

import elasticsearch
import numpy as np
import pytest

from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import new_meta
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of
from es_imgsearch.search import AsyncImageSearch, ImageSearch
from es_imgsearch.settings import Settings
from es_imgsearch.testing import FakeEncoder

CHILDREN = 4
SEARCHES = 200
# The parent's own searches come first, then 200 of each child.
QUERIES = np.random.default_rng(16).normal(size=((1 + CHILDREN) * SEARCHES, FakeEncoder.dims))
VECTORS = (QUERIES / np.linalg.norm(QUERIES, axis=1, keepdims=True)).astype(np.float32)
ANSWER_SECONDS = 60.0

# Searches with these rows of VECTORS; returns the number of wrong answers.
Searching = Callable[[range], int]


@pytest.fixture
def indexed(real_store: Store, settings: Settings, fake_encoder: FakeEncoder) -> Settings:
    """An index in which each query vector finds the picture of its own number."""
    real_store.generations.create(new_meta(seal_of(fake_encoder), "exact", "cosine"))
    writes = [
        Write(
            str(number),
            document={
                "image_id": str(number),
                "root": "photos",
                "relative_path": f"{number}.jpg",
                "content_id": f"c{number}",
                "size_bytes": 1,
                "mtime_ns": 1,
                "image_embedding": vector,
            },
        )
        for number, vector in enumerate(VECTORS)
    ]
    assert not any(real_store.documents.write(writes).values())
    real_store.refresh()
    return settings


@pytest.fixture(params=["own connections", "a client of the caller", "asyncio"])
def searching(request: pytest.FixtureRequest, indexed: Settings) -> Iterator[Searching]:
    encoder = FakeEncoder()
    if request.param == "asyncio":
        pytest.importorskip("aiohttp")
        client = AsyncImageSearch(settings=indexed, encoder=encoder)
        with asyncio.Runner() as runner:
            yield lambda numbers: _search_async(client, numbers, runner)
            runner.run(client.close())
        return
    theirs = elasticsearch.Elasticsearch(indexed.es_url) if "client" in request.param else None
    with ImageSearch(theirs, settings=indexed, encoder=encoder) as search:
        yield lambda numbers: sum(
            _is_wrong(search.search(VECTORS[number], k=1), number) for number in numbers
        )
    if theirs is not None:
        theirs.close()


def _is_wrong(hits: object, number: int) -> bool:
    return [hit.image_id for hit in hits] != [str(number)]  # type: ignore[attr-defined]


def _search_async(client: AsyncImageSearch, numbers: range, runner: asyncio.Runner) -> int:
    async def search() -> int:
        wrong = 0
        for number in numbers:
            wrong += _is_wrong(await client.search(VECTORS[number], k=1), number)
        return wrong

    if multiprocessing.parent_process() is not None:
        return asyncio.run(search())
    return runner.run(search())


def _child(searching: Searching, numbers: range, result: Connection) -> None:
    try:
        result.send(searching(numbers))
    except Exception as error:  # noqa: BLE001 - the parent's test reports it
        result.send(repr(error))


def test_children_after_a_fork_and_their_parent_get_their_own_answers(searching: Searching):
    assert searching(range(1)) == 0  # leaves a connection that waits for its next request
    context = multiprocessing.get_context("fork")
    children, results = [], []
    for number in range(1, 1 + CHILDREN):
        ours, theirs = context.Pipe(duplex=False)
        numbers = range(number * SEARCHES, (number + 1) * SEARCHES)
        child = context.Process(target=_child, args=(searching, numbers, theirs), daemon=True)
        with warnings.catch_warnings():
            # Python 3.12 warns of a fork while there are threads, such as those of this test run.
            warnings.simplefilter("ignore", DeprecationWarning)
            child.start()
        theirs.close()
        children.append(child)
        results.append(ours)
    wrong: list[object] = []
    try:
        wrong.append(searching(range(SEARCHES)))
        wrong += [
            result.recv() if wait([result], ANSWER_SECONDS) else "no answer" for result in results
        ]
    finally:
        for child in children:
            child.kill()
            child.join()
    assert wrong == [0] * (1 + CHILDREN)
