"""Blocks of files for actors, and what actors say of them."""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from es_imgsearch.elastic.documents import Write
from es_imgsearch.errors import ReadError
from es_imgsearch.pipeline.engines import blocks
from es_imgsearch.pipeline.engines.blocks import (
    LEAST_FILES,
    MOST_BYTES,
    MOST_FILES,
    QUIET_SECONDS,
    WaitingFiles,
)
from es_imgsearch.pipeline.engines.messages import FileOutcome, FileRow, SpreadPlan
from es_imgsearch.pipeline.jobs import Job, Kept, PendingWrite, Unembedded
from es_imgsearch.read.file import Skipped
from es_imgsearch.records import Change, FileSignature, FileState, Root, path_of
from es_imgsearch.settings import load_settings

MB = 2**20


def job(name: str, size_bytes: int = 1000, root: str = "/pictures") -> Job:
    signature = FileSignature(FileState(size_bytes, 7), 1, 1)
    return Job(Change(Root("r", path_of(root)), name, 5.0, event_at=3.0), signature, 0)


def waiting(sizes: Sequence[int]) -> WaitingFiles:
    files = WaitingFiles()
    for number, size_bytes in enumerate(sizes):
        files.put(job(f"{number:05}", size_bytes))
    return files


def all_blocks(
    sizes: Sequence[int], actors: int, monkeypatch: pytest.MonkeyPatch
) -> list[list[Job]]:
    """The blocks that actors take one after the other, once nothing more comes."""
    files = waiting(sizes)
    later = time.monotonic() + QUIET_SECONDS
    with monkeypatch.context() as patches:
        patches.setattr(blocks.time, "monotonic", lambda: later)
        return list(iter(lambda: files.take(actors), []))


@pytest.mark.parametrize("actors", [1, 2, 7])
@pytest.mark.parametrize("number", [0, 1, 15, 100, 5000])
def test_each_file_is_in_one_block_in_order(
    number: int, actors: int, monkeypatch: pytest.MonkeyPatch
):
    taken = all_blocks([1000] * number, actors, monkeypatch)
    names = [each.change.relative_path for block in taken for each in block]
    assert names == [f"{each:05}" for each in range(number)]
    assert all(len(block) <= MOST_FILES for block in taken)
    # Towards the end they become smaller, but never tiny.
    assert all(len(block) >= LEAST_FILES for block in taken[:-1])
    if number == 5000:
        assert len(taken[0]) > 4 * len(taken[-2])


def test_large_files_make_small_blocks(monkeypatch: pytest.MonkeyPatch):
    sizes = [100 * MB] * 20 + [MB] * 2000
    taken = all_blocks(sizes, 2, monkeypatch)
    largest = max(sum(each.signature.state.size_bytes for each in block) for block in taken)
    assert largest <= MOST_BYTES + 100 * MB
    assert len(taken[0]) == math.ceil(MOST_BYTES / (100 * MB))


def test_more_may_come_until_it_is_quiet_or_enough_wait():
    assert waiting([1] * 199).take(2) == []
    assert len(waiting([1] * 200).take(2)) == 50


def test_rows_and_plans_travel():
    odd = job("latin\udce9 \n.png", root="s3://bucket/prefix")
    row = pickle.loads(pickle.dumps(FileRow.of(odd)))
    assert row.change() == Change(odd.change.root, odd.change.relative_path, 5.0)
    # A URL is not asked for the state once more; a path is.
    assert row.change().listed == FileState(1000, 7)
    assert FileRow.of(job("a")).change().listed is None
    secrets = load_settings({"es_api_key": "c2VjcmV0", "es_url": "http://u:pass@h"}, environment={})
    plan = SpreadPlan(secrets, [Root("r", Path("/p"))], "i", "1", None, {"AWS_SECRET": "hidden"})
    travelled = pickle.loads(pickle.dumps(plan))
    assert travelled.settings.es_api_key.get_secret_value() == "c2VjcmV0"
    for word in ("c2VjcmV0", "pass", "hidden"):
        assert word not in repr(travelled)


def test_an_outcome_says_what_the_item_says():
    one = job("a")
    error = ReadError("corrupt", "It is broken.")
    image_id = one.change.image_id
    failed = FileOutcome.of(
        PendingWrite(one, Write(image_id, failure={"error_class": "corrupt", "message": "No."}))
    )
    assert (failed.is_failure, str(failed.reason)) == (True, "No.")
    assert FileOutcome.of(Kept(one, error, True))[2:6] == (error, False, True, True)
    gone = FileOutcome.of(Unembedded(one, Skipped.NOT_A_PICTURE))
    assert (gone.image_id, gone.reason) == (image_id, Skipped.NOT_A_PICTURE)
