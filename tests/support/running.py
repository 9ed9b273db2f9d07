"""Commands that run as processes of their own with an API key, on a secured server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from base64 import b64decode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.house import until
from tests.support.rights import Office

PATIENCE_SECONDS = 60.0
PROGRAM = Path(sys.executable).parent / "es-imgsearch"


class Running:
    """A process, and all that it has said."""

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [PROGRAM, *command],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: list[str] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        self._lines.extend(iter(self._process.stdout.readline, ""))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def said(self) -> str:
        return "".join(self._lines)

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def until_said(self, words: str) -> None:
        until(lambda: words in self.said or self.has_ended, PATIENCE_SECONDS)
        assert words in self.said, self.said

    def ended(self) -> int:
        """The exit code, once it has ended and all that it said was read."""
        code = self._process.wait(PATIENCE_SECONDS)
        self._reading.join(PATIENCE_SECONDS)
        return code

    def stop(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        return self.ended()

    def close(self) -> None:
        if not self.has_ended:
            self._process.kill()
        self.ended()
        assert self._process.stdout is not None
        self._process.stdout.close()


class Workplace:
    """Where commands of an office run: their environment, and one key whose role changes."""

    def __init__(self, office: Office, environment: Mapping[str, str]) -> None:
        self.office = office
        self._environment = environment

    def environment(self, key: str, **given: str) -> dict[str, str]:
        office = self.office
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(office.folder),
            "ES_URL": office.server.url,
            "ES_API_KEY": key,
            "ES_CA_CERTS": str(office.server.ca),
            "ES_IMGSEARCH_INDEX": office.index,
            "ES_IMGSEARCH_READ_WORKERS": "1",
            "ES_IMGSEARCH_SETTLE_SECONDS": "0.1",
            # A claim that cannot be given up is waited for.
            "ES_IMGSEARCH_LEASE_SECONDS": "1",
            # Tests remove what would be too large a share of so few pictures.
            "ES_IMGSEARCH_MAX_DELETE_SHARE": "1",
            "ES_IMGSEARCH_SERVICE": "none",
            **self._environment,
            **given,
        }

    @contextmanager
    def running(self, *command: str, key: str, **given: str) -> Iterator[Running]:
        process = Running([*command], self.environment(key, **given))
        try:
            yield process
        finally:
            process.close()

    def give_role(self, key: str, role: Mapping[str, Any]) -> None:
        """Change what a key may do, at once."""
        body = {"role_descriptors": {"changed": dict(role)}}
        self._elastic("PUT", f"/_security/api_key/{_id_of(key)}", body)

    def invalidate(self, key: str) -> None:
        self._elastic("DELETE", "/_security/api_key", {"ids": [_id_of(key)]})

    def indexed(self) -> set[str]:
        """The paths of the pictures that are indexed."""
        body = {"size": 1000, "_source": ["relative_path"]}
        index = self.office.index
        self._elastic("POST", f"/{index}/_refresh", None)
        found = self._elastic("POST", f"/{index}/_search", body)["hits"]["hits"]
        return {each["_source"]["relative_path"] for each in found}

    def _elastic(self, method: str, path: str, body: Any) -> Any:
        return self.office.store().connection.request(method, path, body)


def _id_of(key: str) -> str:
    return b64decode(key).decode().partition(":")[0]


def address_of(served: Running) -> str:
    """The address of a `serve`, once it answers."""
    served.until_said("Serving pictures of")
    (address,) = re.findall(r"Serving pictures of .* on (http://\S+)", served.said)
    return str(address)


def status_of(address: str, path: str) -> int:
    return httpx.get(f"{address}{path}", timeout=PATIENCE_SECONDS).status_code
