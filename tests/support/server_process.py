"""An Elasticsearch of a test's own, started and ended by it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

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
