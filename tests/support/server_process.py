"""An Elasticsearch of a test's own, started and ended by it."""

from __future__ import annotations

import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from port_for import get_port

from tests.support.house import until

LAUNCHER = Path(__file__).resolve().parent.parent.parent / "dev" / "elasticsearch"


class ServerProcess:
    """Its data, logs and console are in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self, settings: Mapping[str, object], environment: Mapping[str, str]) -> None:
        """Start it; it answers a while later."""
        given = {
            **settings,
            "path.data": self.folder / "data",
            "path.logs": self.folder / "logs",
        }
        arguments = [word for name, value in given.items() for word in ("-E", f"{name}={value}")]
        with (self.folder / "console.txt").open("ab") as console:
            self._process = subprocess.Popen(
                [LAUNCHER, *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )

    def check_running(self) -> None:
        """Fail with the end of what it said if it has ended."""
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "console.txt").read_text()[-3000:]

    @property
    def is_launched(self) -> bool:
        return self._process is not None

    def kill(self) -> None:
        """End it without a warning."""
        assert self._process is not None
        # The launcher became the server, which has children of its own.
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=60)
        self._process = None

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=60)
            finally:
                self._process.kill()
                self._process = None


@contextmanager
def started(folder: Path, line: str, settings: Mapping[str, object]) -> Iterator[str]:
    """The address of a small server of a line, 8 or 9, that is ready; it ends with the block."""
    port = get_port(None)
    ports = {"http.port": port, "transport.port": get_port(None, exclude_ports=[port])}
    # For minutes, compiling well costs more than it saves.
    java = "-Xms512m -Xmx512m -XX:TieredStopAtLevel=1"
    server = ServerProcess(folder)
    server.launch({**ports, **settings}, {**os.environ, "ES_LINE": line, "ES_JAVA_OPTS": java})
    url = f"http://127.0.0.1:{port}"

    def is_ready() -> bool:
        server.check_running()
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    try:
        until(is_ready, 180)
        yield url
    finally:
        server.stop()
