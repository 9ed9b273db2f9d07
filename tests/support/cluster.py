"""Three Elasticsearch that are one cluster, with TLS, as a small production has."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import elasticsearch
import yaml
from port_for import get_port

from es_imgsearch.elastic.client import connect
from es_imgsearch.settings import load_settings
from tests.support.house import until
from tests.support.secured import CHECKOUT, PASSWORD, START_SECONDS, Secured
from tests.support.server_process import ServerProcess

NAMES = ("n1", "n2", "n3")


class Cluster:
    """Nodes by name; each has a folder, a port and an environment of its own."""

    def __init__(self, folder: Path) -> None:
        # Its scripts make the certificates and the password.
        self._first = Secured(folder / "setup")
        self.ca = self._first.ca
        self._ports: dict[str, tuple[int, int]] = {}
        taken: list[int] = []
        for name in NAMES:
            taken += [http := get_port(None, exclude_ports=taken)]
            taken += [transport := get_port(None, exclude_ports=taken)]
            self._ports[name] = http, transport
        self._nodes = {name: ServerProcess(folder / name) for name in NAMES}

    @property
    def url(self) -> str:
        """Addresses of all nodes, with the password."""
        return ",".join(map(self._url_of, NAMES))

    def _url_of(self, name: str) -> str:
        return f"https://elastic:{quote(PASSWORD, safe='')}@127.0.0.1:{self._ports[name][0]}"

    def start(self) -> None:
        self._first.folder.mkdir(parents=True)
        configuration = self._first.prepare()
        for name, node in self._nodes.items():
            node.folder.mkdir()
            shutil.copytree(configuration, node.folder / "config")
            self.start_node(name)
        # Before it has read its users, a node refuses the password.
        until(lambda: all(map(self._is_ready, NAMES)), 2 * START_SECONDS)

    def _is_ready(self, name: str) -> bool:
        health = self.health(name)
        return health["number_of_nodes"] == len(NAMES) and health["status"] == "green"

    def start_node(self, name: str) -> None:
        http, transport = self._ports[name]
        compose = yaml.safe_load((CHECKOUT / "docker" / "compose.yaml").read_text("utf-8"))
        given = compose["services"]["elasticsearch"]["environment"]
        settings = {key: value for key, value in given.items() if re.fullmatch(r"[a-z_.]+", key)}
        seeds = ",".join(f"127.0.0.1:{port}" for _, port in self._ports.values())
        settings |= {
            "node.name": name,
            "http.port": http,
            "transport.port": transport,
            "discovery.type": "multi-node",
            "discovery.seed_hosts": seeds,
            "cluster.initial_master_nodes": ",".join(NAMES),
            "bootstrap.memory_lock": "false",
            # A lost node is known as such after 3 s; by default after 30.
            "cluster.fault_detection.follower_check.interval": "1s",
            "cluster.fault_detection.follower_check.timeout": "1s",
            "cluster.fault_detection.leader_check.interval": "1s",
            "cluster.fault_detection.leader_check.timeout": "1s",
        }
        self._nodes[name].launch(settings, self._environment(name))

    def _environment(self, name: str) -> Mapping[str, str]:
        folder = self._nodes[name].folder
        return {**self._first.environment, "ES_PATH_CONF": str(folder / "config")}

    def kill(self, name: str) -> None:
        """As if its machine lost power."""
        self._nodes[name].kill()

    def stop_node(self, name: str) -> None:
        """As for an upgrade of its machine."""
        self._nodes[name].stop()

    def health(self, name: str = "") -> Mapping[str, object]:
        """Health of the cluster, as a node sees it; while nobody answers, one without nodes."""
        url = self._url_of(name) if name else self.url
        settings = load_settings({"es_url": url, "es_ca_certs": self.ca}, environment={})
        with connect(settings) as client:
            try:
                return dict(client.options(request_timeout=5).cluster.health())
            except (elasticsearch.ApiError, elasticsearch.TransportError):
                for node in self._nodes.values():
                    if node.is_launched:
                        node.check_running()
                return {"number_of_nodes": 0, "status": "red"}

    def master(self) -> str:
        settings = load_settings({"es_url": self.url, "es_ca_certs": self.ca}, environment={})
        with connect(settings) as client:
            (row,) = client.cat.master(format="json")
            return str(row["node"])

    def stop(self) -> None:
        for node in self._nodes.values():
            node.stop()
