"""After any interleaving and a quiet period the index is what the folders say.

The product's daemon, `sync`, `init` and `reindex` run on a simulated clock, file system and
transport.  Each failing seed of a chunk is reported with what is wrong and what happened; run it
alone with

    IMGSEARCH_TEST_SEED=1475 pytest tests/simulation/test_interleavings.py -k one_seed

10,000 seeds: `-m slow`, with IMGSEARCH_TEST_INTERLEAVINGS for another number (`make test-slow` runs
1,500) and IMGSEARCH_TEST_FIRST_SEED for the first of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import pytest

from tests.simulation.world import PromiseBroken, run_seed

# A chunk ends in a quarter of the time that a test may take.
_CHUNK = 50
_SLOW_CHUNK = 100
_SLOW = int(os.environ.get("IMGSEARCH_TEST_INTERLEAVINGS", "10000"))
_FIRST = int(os.environ.get("IMGSEARCH_TEST_FIRST_SEED", "0"))


def _run(seeds: Iterable[int]) -> None:
    """Run every seed; fail with the reports of those that break a promise."""
    reports = []
    for seed in seeds:
        try:
            run_seed(seed)
        except PromiseBroken as error:
            reports.append(str(error))
    assert not reports, "\n\n".join(reports)


@pytest.mark.parametrize("first", range(0, 300, _CHUNK))
def test_300_interleavings(first: int) -> None:
    _run(range(first, first + _CHUNK))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(_FIRST, _FIRST + _SLOW, _SLOW_CHUNK))
def test_more_interleavings(first: int) -> None:
    _run(range(first, first + _SLOW_CHUNK))


def test_one_seed() -> None:
    run_seed(int(os.environ.get("IMGSEARCH_TEST_SEED", "0")))
