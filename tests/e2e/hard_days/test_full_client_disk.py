"""Files written onto a disk that is full: whole or not at all, and one line that says so."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from es_imgsearch.cli import main
from es_imgsearch.search.relevance import text_vectors
from tests.e2e.hard_days.conftest import small_disk
from tests.support.house import House

COMMAND = str(Path(sys.executable).with_name("es-imgsearch"))
DISK_BYTES = 200 * 1024
SAID = ("No space left on device", "File too large")

pytestmark = pytest.mark.process


@dataclass(frozen=True)
class Disk:
    """A small disk; where nothing may be mounted, a limit of a process's files."""

    folder: Path
    is_small: bool

    def leave(self, free: int) -> None:
        ballast = self.folder / "ballast"
        ballast.unlink(missing_ok=True)
        left = os.statvfs(self.folder)
        ballast.write_bytes(bytes(left.f_bavail * left.f_frsize - free) if self.is_small else b"")

    def run(self, house: House, *arguments: str, free: int = 0, **streams: object):
        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (free, free))

        return subprocess.run(
            [COMMAND, *arguments],
            env={
                **os.environ,
                "ES_URL": house.settings.es_url,
                "ES_IMGSEARCH_INDEX": house.settings.index,
                "HOME": str(self.folder),
                "XDG_DATA_HOME": str(self.folder / "data"),
            },
            preexec_fn=None if self.is_small else limit,
            **{"capture_output": True, **streams},
            text=True,
            timeout=120,
            check=False,
        )

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.rglob("*") if path.is_file())


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "small"
    with small_disk(folder, DISK_BYTES) as is_small:
        yield Disk(folder, is_small)


@pytest.mark.parametrize(("kind", "free"), [("parquet", 8_192), ("h5", 0), ("h5", 40_960)])
def test_an_export_is_written_whole_or_not_at_all(house: House, disk: Disk, kind: str, free: int):
    """HDF5 ended with SIGSEGV."""
    house.pictures(3)
    house.synced()
    file = disk.folder / f"out.{kind}"
    file.write_text("as it was")
    disk.leave(free)
    done = disk.run(house, "export", str(file), free=free)
    assert done.returncode in {1, 2}, done.stderr
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert any(f"{str(file)!r} cannot be written: {each}." in said for each in SAID), said
    assert "Traceback" not in done.stderr
    assert file.read_text() == "as it was"
    assert disk.names() == ["ballast", file.name]


def test_objects_of_kibana_are_written_whole_or_not_at_all(house: House, disk: Disk):
    """Half of them stood under the name of the file."""
    if not disk.is_small:
        pytest.skip("the limit of a process's files would be this process's")
    file = disk.folder / "objects.ndjson"
    file.write_text("as it was")
    disk.leave(8_192)
    environment = {"ES_URL": house.settings.es_url, "ES_IMGSEARCH_INDEX": house.settings.index}
    arguments = ["kibana", "build", "--output", str(file)]
    done = CliRunner(env=environment).invoke(main, arguments)
    assert done.exit_code == 2
    assert f"Error: {str(file)!r} cannot be written: No space left on device." in done.output
    assert file.read_text() == "as it was"
    assert disk.names() == ["ballast", file.name]


def test_a_shell_s_start_file_stays_as_it_was(house: House, disk: Disk):
    start = disk.folder / ".bashrc"
    start.write_text("# mine\n" * 100)
    disk.leave(12_288)
    done = disk.run(house, "completion", "bash", free=100)
    if done.returncode:
        assert done.stderr.startswith(f"Error: {str(start)!r} cannot be written: ") or any(
            each in done.stderr for each in SAID
        )
    assert start.read_text().startswith("# mine\n" * 100)
    assert not [each for each in disk.names() if each.startswith(".bashrc.")]


@pytest.mark.parametrize("command", ["--help", "status --json"])
def test_output_onto_a_full_disk_is_one_line(house: House, disk: Disk, command: str):
    with open("/dev/full", "w") as full:
        done = disk.run(
            house, *command.split(),
            free=10**9, capture_output=False, stdout=full, stderr=subprocess.PIPE,
        )  # fmt: skip
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert said.startswith("Error: Standard output")
    assert said.endswith("cannot be written: No space left on device.")


def test_a_log_onto_a_full_disk_ends_nothing(house: House, disk: Disk):
    """The command ended with 1, as if it had failed."""
    house.pictures(2)
    house.synced()
    with open("/dev/full", "w") as full:
        done = disk.run(
            house, "verify", f"r={house.folder}",
            free=10**9, capture_output=False, stdout=subprocess.PIPE, stderr=full,
        )  # fmt: skip
        assert done.returncode == 0
        refused = disk.run(
            house, "verify", "nowhere=/nowhere",
            free=10**9, capture_output=False, stdout=subprocess.PIPE, stderr=full,
        )  # fmt: skip
        assert refused.returncode == 2


def test_a_cache_leaves_nothing_half_written(disk: Disk, monkeypatch: pytest.MonkeyPatch):
    if not disk.is_small:
        pytest.skip("the limit of a process's files would be this process's")
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda _name: str(disk.folder))
    vectors = np.ones((4, 3_000), np.float32)
    disk.leave(8_192)
    file = text_vectors._cache_file(["key"], ["a"])
    text_vectors._cache_vectors(file, vectors)
    assert disk.names() == ["ballast"]
    disk.leave(DISK_BYTES)
    text_vectors._cache_vectors(file, vectors)
    assert disk.names() == sorted(["ballast", file.name])
