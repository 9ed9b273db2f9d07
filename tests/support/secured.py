"""An Elasticsearch with security and TLS, set up by the scripts of docker/ as compose would."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from port_for import get_port

from es_imgsearch.elastic.client import connect
from es_imgsearch.settings import load_settings
from tests.support.house import until
from tests.support.server_process import LAUNCHER, ServerProcess

CHECKOUT = Path(__file__).resolve().parents[2]
SETUP = CHECKOUT / "docker" / "setup"
START_SECONDS = 180.0
# What JSON and curl's configuration would change, if it was given them as it is.
PASSWORD = 'elastic "pass\\word'

# What Elastic's image has and its distribution for others lacks.
TOOLS = {
    "elasticsearch-certutil": f'ES_TOOL=certutil exec "{LAUNCHER}" "$@"',
    "unzip": f'exec "{sys.executable}" -m zipfile -e "$2" "$4"',
}


class Secured(ServerProcess):
    """As the containers `certificates`, `elasticsearch` and `access` of compose.yaml."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.ca = folder / "ca" / "ca.crt"
        self.keys = folder / "keys"
        self._configuration = folder / "config"
        self._environment = {
            **os.environ,
            "ES_PATH_CONF": str(self._configuration),
            # For minutes, compiling well costs more than it saves: 20 instead of 44 s of CPU.
            "ES_JAVA_OPTS": "-Xms512m -Xmx512m -XX:TieredStopAtLevel=1",
            "CLI_JAVA_OPTS": "-XX:TieredStopAtLevel=1",
        }
        self.port = get_port(None)
        self.url = f"https://127.0.0.1:{self.port}"

    @property
    def environment(self) -> Mapping[str, str]:
        """Of processes that belong to it."""
        return self._environment

    def start(self) -> None:
        self.prepare()
        ports = {
            "http.port": self.port,
            "transport.port": get_port(None, exclude_ports=[self.port]),
            "path.repo": self.folder / "snapshots",
        }
        self.launch({**self._settings_of_compose(), **ports}, self._environment)
        until(self._listens, START_SECONDS)

    def prepare(self) -> Path:
        """Make the password and the certificates; the folder of the configuration."""
        bin_folder = self.folder / "bin"
        bin_folder.mkdir()
        for name, line in TOOLS.items():
            (bin_folder / name).write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
            (bin_folder / name).chmod(0o755)
        self._environment["PATH"] = f"{bin_folder}:{os.environ['PATH']}"
        # As the image's own entry point does with ELASTIC_PASSWORD.
        self._run(LAUNCHER, "add", "-x", "bootstrap.password", given=PASSWORD, ES_TOOL="keystore")
        self._run(
            SETUP / "certificates",
            CERTS=str(self._configuration / "certs"), CA=str(self.ca.parent),
        )  # fmt: skip
        return self._configuration

    def _settings_of_compose(self) -> dict[str, str]:
        compose = yaml.safe_load((CHECKOUT / "docker" / "compose.yaml").read_text("utf-8"))
        given = compose["services"]["elasticsearch"]["environment"]
        return {name: value for name, value in given.items() if re.fullmatch(r"[a-z_.]+", name)}

    def _listens(self) -> bool:
        self.check_running()
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def give_access(self, **given: str) -> str:
        """Run docker/setup/access; what it says."""
        for role in ("admin", "read", "watch"):
            (self.keys / role).mkdir(parents=True, exist_ok=True)
        return self._run(
            SETUP / "access",
            ES_URL=self.url, ES_CA_CERTS=str(self.ca), ELASTIC_PASSWORD=PASSWORD,
            KEYS=str(self.keys), SERVICE_UID=str(os.getuid()), SERVICE_GID=str(os.getgid()),
            KIBANA_UID=str(os.getuid()), **given,
        )  # fmt: skip

    def key(self, role: str) -> str:
        """The API key in a role's file."""
        (line,) = (self.keys / role / "es-imgsearch.toml").read_text("utf-8").splitlines()
        found = re.fullmatch(r'es_api_key = "(\S+)"', line)
        assert found is not None
        return found[1]

    def api_key(self, name: str, role: Mapping[str, Any]) -> str:
        """A new API key with the rights of a role."""
        url = self.url.replace("https://", f"https://elastic:{quote(PASSWORD, safe='')}@")
        settings = load_settings({"es_url": url, "es_ca_certs": self.ca}, environment={})
        with connect(settings) as client:
            made = client.security.create_api_key(name=name, role_descriptors={name: dict(role)})
        return str(made["encoded"])

    def forget_key(self, role: str) -> None:
        shutil.rmtree(self.keys / role)

    def _run(self, *command: Any, given: str = "", **environment: str) -> str:
        done = subprocess.run(
            [str(each) for each in command], env={**self._environment, **environment},
            input=given, capture_output=True, text=True, check=False, timeout=START_SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr
