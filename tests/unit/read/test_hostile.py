"""Malformed files of every format end as a picture, a skip or a failure with a documented name."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from es_imgsearch.errors import ReadError
from es_imgsearch.read import file as read
from es_imgsearch.read.file import Skipped, read_file
from es_imgsearch.read.preparation import Preparation
from es_imgsearch.records import Picture
from tests.support import picture_samples as samples

DOCUMENTED = {
    line.split()[0]
    for line in (read.__doc__ or "").splitlines()
    if line.startswith("    ") and line.strip()
}
MUTATIONS = 340

pytestmark = pytest.mark.filterwarnings("ignore")


def test_mutated_files_end_as_picture_skip_or_documented_failure(tmp_path: Path):
    """A decoder that hangs or crashes takes this test with it; tests/unit/test_workers.py has
    those.  The seed is fixed: what fails once fails again."""
    dice = random.Random(20240531)
    files = samples.good_files()
    outcomes: Counter[str] = Counter()
    for number in range(MUTATIONS):
        name = list(files)[number % len(files)]
        content = samples.mutated(files[name], list(files.values()), dice)
        path = tmp_path / name
        path.write_bytes(content)
        outcome: Picture | Skipped | ReadError
        try:
            outcome = read_file(
                str(path), Preparation(width=16, height=16, mode="squash"), max_pixels=4_000_000
            )
        except ReadError as error:
            outcome = error
        except BaseException as error:
            raise AssertionError(f"mutation {number} of {path}") from error
        if isinstance(outcome, ReadError):
            assert outcome.error_class in DOCUMENTED
            assert outcome.message.encode()
            outcomes[outcome.error_class] += 1
        else:
            assert isinstance(outcome, Picture | Skipped)
            outcomes[type(outcome).__name__] += 1
    # The mutations reach past the headers, and most of them do harm.
    assert outcomes["corrupt"] > 40
    assert outcomes["truncated"] > 20
    assert outcomes["Picture"] > 40
