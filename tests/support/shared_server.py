"""One Elasticsearch for a whole run of the tests, whichever process of it asks first.

    python -m tests.support.shared_server ADDRESS_FILE PID

writes the server's address into the file when it answers, and stops the server when the process
PID, which is pytest, has ended in whatever way: a run killed with -9 leaves no server behind.
"""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from port_for import get_port

from tests.support import CHECKOUT
from tests.support.server_process import ServerProcess

# On two busy cores the start took 65 s.
START_SECONDS = 240.0

# Not waited for: it ends after this process.
_keepers: list[subprocess.Popen[bytes]] = []


def shared_address(folder: Path, owner: int) -> str:
    """Address of the run's server, which ends with the process `owner`; start it if need be.

    Processes that ask at the same time wait for the first one's start.
    """
    address, console = folder / "address", folder / "console.txt"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not address.exists():
            with console.open("ab") as output:
                keeper = subprocess.Popen(
                    [sys.executable, "-m", __name__, address, str(owner)],
                    cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                    start_new_session=True,
                )  # fmt: skip
            _keepers.append(keeper)
            deadline = time.monotonic() + START_SECONDS
            while not address.exists():
                if keeper.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"No Elasticsearch for the tests: {console.read_text()}")
                time.sleep(0.1)
    return address.read_text("utf-8")


def keep(address: Path, owner: int) -> None:
    """Serve until the process `owner` has ended."""
    descriptor = os.pidfd_open(owner)
    with tempfile.TemporaryDirectory(
        prefix="es-imgsearch-server-", ignore_cleanup_errors=True
    ) as folder:
        port = get_port(None)
        server = ServerProcess(Path(folder))
        given = {"http.port": port, "transport.port": get_port(None, exclude_ports=[port])}
        server.launch(given, os.environ)
        try:
            while not answers(f"http://127.0.0.1:{port}"):
                server.check_running()
                if select.select([descriptor], [], [], 0.2)[0]:
                    return
            new = address.with_suffix(".new")
            new.write_text(f"http://127.0.0.1:{port}", "utf-8")
            new.rename(address)
            select.select([descriptor], [], [])
        finally:
            server.stop()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    keep(Path(sys.argv[1]), int(sys.argv[2]))
