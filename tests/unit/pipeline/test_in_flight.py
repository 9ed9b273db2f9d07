"""What InFlight remembers of files that were read."""

from __future__ import annotations

import os
import time
from pathlib import Path

from es_imgsearch.pipeline.in_flight import InFlight
from es_imgsearch.pipeline.jobs import Job, read_signature
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
    in_flight.end(job, may_repeat=lambda: True, on_absent=lambda _change: None)
    assert len(in_flight) == 1, "it is read again"
    in_flight.mark_stored(job, of_another_inode, time.monotonic())
    in_flight.end(job, may_repeat=lambda: True, on_absent=lambda _change: None)
    assert len(in_flight) == 0


def test_changes_that_join_a_job_have_a_ticket_of_their_own(tmp_path: Path):
    """A file that changes during each of its jobs leaves no ticket open for longer than two."""
    change = Change(Root("r", tmp_path), "a", 0.0)
    tickets = Tickets()
    in_flight = InFlight(3, tickets)

    def submit(text: str) -> Job | None:
        (tmp_path / "a").write_text(text)
        assert in_flight.acquire_slot(0)
        return in_flight.begin(change, read_signature(change)).job

    def end(job: Job) -> None:
        in_flight.end(job, may_repeat=lambda: True, on_absent=lambda _change: None)

    job = submit("")
    assert job is not None
    for round_number in range(1, 20):
        before = tickets.begun
        assert submit("x" * round_number) is None
        assert submit("y" * round_number) is None
        assert tickets.begun == before + 1
        end(job)
        assert len(in_flight) == 1
        assert tickets.ended_until >= before
    end(job)
    assert len(in_flight) == 0
    assert tickets.ended_until == tickets.begun


def test_sixty_thousand_files_are_known_to_be_no_pictures(tmp_path: Path):
    """Every comparison would read all of them again if one more were held than remembered."""
    root = Root("r", tmp_path)
    in_flight = InFlight(1, Tickets())
    changes = [Change(root, f"{n}.xmp", 0.0) for n in range(60_000)]
    state = FileState(0, 10**18)
    for change in changes:
        path = root.absolute(change.relative_path)
        os.close(os.open(path, os.O_CREAT))
        os.utime(path, ns=(state.mtime_ns, state.mtime_ns))
        assert in_flight.acquire_slot(0)
        job, _ = in_flight.begin(change, read_signature(change))
        assert job is not None
        in_flight.mark_non_picture(job)
        in_flight.end(job, may_repeat=lambda: True, on_absent=lambda _change: None)
    assert all(in_flight.is_non_picture(change.image_id, state) for change in changes)
