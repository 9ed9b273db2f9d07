"""What InFlight remembers of files that were read."""

from __future__ import annotations

import time
from pathlib import Path

from es_imgsearch.pipeline.in_flight import InFlight
from es_imgsearch.pipeline.jobs import read_signature
from es_imgsearch.records import Change, FileState, Root
from es_imgsearch.write.pending_deletions import Tickets


def test_a_file_exchanged_while_it_was_read_is_not_known_to_be_no_picture(tmp_path: Path):
    """A picture was moved away, words were read in its place, and it is back."""
    change = Change(Root("r", tmp_path), "a", 0.0)
    (tmp_path / "a").write_bytes(b"words")
    in_flight = InFlight(1, Tickets())
    assert in_flight.acquire_slot(0)
    job, _ = in_flight.begin(change, read_signature(change))
    assert job is not None
    state = FileState.of((tmp_path / "a").stat())
    in_flight.mark_non_picture(job)
    assert in_flight.is_non_picture(change.image_id, state)

    (tmp_path / "b").write_bytes(b"other words")
    (tmp_path / "b").rename(tmp_path / "a")
    again = InFlight(1, Tickets())
    assert again.acquire_slot(0)
    job, _ = again.begin(change, read_signature(change))
    assert job is not None
    state = FileState.of((tmp_path / "a").stat())
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "b").rename(tmp_path / "a")
    again.mark_non_picture(job)
    assert not again.is_non_picture(change.image_id, state)


def test_where_inodes_are_not_stable_a_file_is_read_once_more_only(tmp_path: Path):
    """Some network shares give another inode at every look."""
    change = Change(Root("r", tmp_path), "a", 0.0)
    (tmp_path / "a").write_bytes(b"a picture")
    in_flight = InFlight(1, Tickets())
    assert in_flight.acquire_slot(0)
    job, _ = in_flight.begin(change, read_signature(change))
    assert job is not None
    of_another_inode = job.signature._replace(inode=job.signature.inode + 1)
    in_flight.mark_stored(job, of_another_inode, time.monotonic())
    assert in_flight.end(job, may_repeat=lambda: True) is None
    assert len(in_flight) == 1, "it is read again"
    in_flight.mark_stored(job, of_another_inode, time.monotonic())
    assert in_flight.end(job, may_repeat=lambda: True) is None
    assert len(in_flight) == 0
