"""Lines of the log: the time once, and nothing of libraries."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from es_imgsearch.cli.printing.logs import is_stamped


@pytest.fixture
def pipe() -> Iterator[TextIO]:
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "w") as stream:
        yield stream
    os.close(read_end)


def name_of(stream: TextIO) -> str:
    status = os.fstat(stream.fileno())
    return f"{status.st_dev}:{status.st_ino}"


def test_a_terminals_or_pipes_lines_bear_the_time(pipe: TextIO):
    assert not is_stamped(pipe, {})


def test_the_journal_adds_the_time(pipe: TextIO):
    assert is_stamped(pipe, {"JOURNAL_STREAM": name_of(pipe), "INVOCATION_ID": "f00"})


def test_a_socket_of_the_journal():
    one, other = socket.socketpair()
    with one, other, one.makefile("w") as stream:
        assert is_stamped(stream, {"JOURNAL_STREAM": name_of(stream)})


def test_a_shell_that_a_service_started_does_not(pipe: TextIO):
    assert not is_stamped(pipe, {"JOURNAL_STREAM": "8:12345", "INVOCATION_ID": "f00"})


def test_a_service_whose_output_is_another_programs_pipe(pipe: TextIO):
    assert is_stamped(pipe, {"INVOCATION_ID": "f00"})


def test_a_file_keeps_the_time(tmp_path: Path):
    with (tmp_path / "log").open("w") as stream:
        assert not is_stamped(stream, {"INVOCATION_ID": "f00"})


def test_a_stream_without_a_descriptor():
    import io

    assert not is_stamped(io.StringIO(), {"INVOCATION_ID": "f00"})
