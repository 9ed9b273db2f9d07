"""Interleavings of the simulated world with the real server in place of the simulated one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from es_imgsearch.elastic.client import new_client
from es_imgsearch.elastic.store import Store
from es_imgsearch.testing import remove_index
from tests.simulation.servers import real_server
from tests.simulation.world import run_seed

# One takes a second on a quiet machine, up to ten on a busy one.
_ON_SERVER = 5


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
@pytest.mark.parametrize("first", range(0, 200, _ON_SERVER))
def test_200_interleavings_on_the_server(first: int, es_url: str, index: str) -> None:
    _run_on_server(range(first, first + _ON_SERVER), es_url, index)
