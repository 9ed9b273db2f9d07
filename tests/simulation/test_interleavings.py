"""After any interleaving and a quiet period the index is what the folders say.

The product's daemon, `sync`, `init` and `reindex` run on a simulated clock, file system and
transport.  A failing seed prints what is wrong and what happened; run it alone with

    IMGSEARCH_TEST_SEED=1475 pytest tests/simulation/test_interleavings.py -k one_seed
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from es_imgsearch.elastic.client import new_client
from es_imgsearch.elastic.store import Store
from es_imgsearch.testing import remove_index
from tests.simulation.servers import real_server
from tests.simulation.world import run_seed

_CHUNK = 50
_SLOW_CHUNK = 500
_ON_SERVER = 5
_SLOW_ON_SERVER = 20


@pytest.mark.parametrize("first", range(0, 300, _CHUNK))
def test_300_interleavings(first: int) -> None:
    for seed in range(first, first + _CHUNK):
        run_seed(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 10_000, _SLOW_CHUNK))
def test_10000_interleavings(first: int) -> None:
    for seed in range(first, first + _SLOW_CHUNK):
        run_seed(seed)


def test_one_seed() -> None:
    run_seed(int(os.environ.get("IMGSEARCH_TEST_SEED", "0")))


@pytest.fixture
def index(es_url: str, index_name: str) -> Iterator[str]:
    """Names of indices that begin so are removed."""
    yield index_name
    client = new_client(es_url)
    for name in {
        "-".join(each.split("-")[: index_name.count("-") + 2])
        for each in client.indices.get(index=f"{index_name}-*", features="aliases")
    }:
        remove_index(Store(client, name))
    client.close()


def _run_on_server(seeds: range, es_url: str, index: str) -> None:
    server = real_server(es_url)
    for seed in seeds:
        run_seed(seed, lambda _scheduler: server, f"{index}-{seed}")


def test_interleavings_on_the_server(es_url: str, index: str) -> None:
    _run_on_server(range(_ON_SERVER), es_url, index)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 200, _SLOW_ON_SERVER))
def test_200_interleavings_on_the_server(first: int, es_url: str, index: str) -> None:
    _run_on_server(range(first, first + _SLOW_ON_SERVER), es_url, index)
