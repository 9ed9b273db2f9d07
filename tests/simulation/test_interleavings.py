"""After any interleaving and a quiet period the index is what the folders say.

The product's daemon, `sync`, `init` and `reindex` run on a simulated clock, file system and
transport.  A failing seed prints what is wrong and what happened; run it alone with

    IMGSEARCH_TEST_SEED=1475 pytest tests/simulation/test_interleavings.py -k one_seed
"""

from __future__ import annotations

import os

import pytest

from tests.simulation.world import run_seed

# A chunk ends in a quarter of the time that a test may take.
_CHUNK = 50
_SLOW_CHUNK = 100
_SLOW = int(os.environ.get("IMGSEARCH_TEST_INTERLEAVINGS", "1500"))


@pytest.mark.parametrize("first", range(0, 300, _CHUNK))
def test_300_interleavings(first: int) -> None:
    for seed in range(first, first + _CHUNK):
        run_seed(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, _SLOW, _SLOW_CHUNK))
def test_more_interleavings(first: int) -> None:
    for seed in range(first, first + _SLOW_CHUNK):
        run_seed(seed)


def test_one_seed() -> None:
    run_seed(int(os.environ.get("IMGSEARCH_TEST_SEED", "0")))
