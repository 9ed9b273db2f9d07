"""A server of these tests' own, whose disk can be filled and whose memory can be taken away."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from es_imgsearch.elastic.client import connect
from es_imgsearch.settings import load_settings
from tests.support.server_process import started

_WATERMARK = "cluster.routing.allocation.disk.watermark"
_FREE_BYTES = {"low": "24mb", "high": "18mb", "flood_stage": "12mb"}
_DISK_BYTES = 64 * 2**20
_FILLED_BYTES = 55 * 10**6


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[bool]:
    """Mount a small tmpfs on the folder; False where nothing may be mounted."""
    folder.mkdir(exist_ok=True)
    options = f"size={size},mode=777"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False
    )
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "-l", folder], check=True)


class OwnServer:
    """Settings of its cluster, and its disk: a small one, or the watermarks above what is free."""

    def __init__(self, url: str, data: Path, *, is_small: bool) -> None:
        self.url = url
        self._client = connect(load_settings({"es_url": url}, environment={}))
        self._ballast = data / "ballast" if is_small else None
        self.free_disk()

    def put_settings(self, settings: Mapping[str, object]) -> None:
        self._client.cluster.put_settings(persistent=settings)

    @contextmanager
    def having(self, **settings: str) -> Iterator[None]:
        """Dots are written as two underscores."""
        given = {name.replace("__", "."): value for name, value in settings.items()}
        self.put_settings(given)
        try:
            yield
        finally:
            self.put_settings(dict.fromkeys(given))

    def fill_disk(self) -> None:
        """Within 10 s Elasticsearch notices."""
        if self._ballast is not None:
            self._ballast.write_bytes(bytes(_FILLED_BYTES))
        else:
            self._set_watermarks(dict.fromkeys(_FREE_BYTES, "900tb"))

    def free_disk(self) -> None:
        if self._ballast is not None:
            self._ballast.unlink(missing_ok=True)
        self._set_watermarks(dict.fromkeys(_FREE_BYTES, "1b") if self._ballast is None else {})

    def _set_watermarks(self, given: Mapping[str, str]) -> None:
        marks = {**_FREE_BYTES, **given}
        self.put_settings({f"{_WATERMARK}.{name}": value for name, value in marks.items()})

    def close(self) -> None:
        self._client.close()


@pytest.fixture(scope="session")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    folder = tmp_path_factory.mktemp("server")
    given = {
        "cluster.info.update.interval": "10s",
        "cluster.routing.allocation.disk.threshold_enabled": "true",
        "http.max_content_length": "1mb",
    }
    with (
        small_disk(folder / "data", _DISK_BYTES) as is_small,
        started(folder, os.environ.get("ES_LINE", "8"), given) as url,
    ):
        server = OwnServer(url, folder / "data", is_small=is_small)
        yield server
        server.close()
