"""What the checks of `doctor` look at; each part is read once, when it is needed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from es_imgsearch.elastic.mapping import Companion
from es_imgsearch.elastic.meta import IndexInfo
from es_imgsearch.elastic.naming import failures_alias
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import StoreRejected
from es_imgsearch.manage.production.roles import ROLES, role_descriptor
from es_imgsearch.manage.status import index_status
from es_imgsearch.settings import Settings


@dataclass(frozen=True)
class Finding:
    """What is wrong, in a sentence, and the command that ends it, or ""."""

    check: str
    text: str
    command: str = ""

    def to_dict(self) -> dict[str, str]:
        return {"check": self.check, "text": self.text, "command": self.command}


@dataclass(frozen=True)
class SetUp:
    """An index, its cluster and this machine.

    Reading a part raises StoreDenied if the key may not; `proc` is where Linux shows its limits.
    """

    store: Store
    settings: Settings
    proc: Path = Path("/proc/sys")

    @property
    def index(self) -> str:
        return self.store.index

    @cached_property
    def info(self) -> IndexInfo:
        return self.store.info()

    @cached_property
    def status(self) -> Mapping[str, Any]:
        """What `status --json` prints."""
        return index_status(self.store)

    @cached_property
    def version(self) -> str:
        return self.store.connection.version()

    @cached_property
    def nodes(self) -> list[Mapping[str, Any]]:
        """Statistics of the data nodes, with the time here when they were asked for."""
        began = time.time()
        answer = self.get(
            "/_nodes/data:true/stats/os,fs,jvm",
            filter_path="nodes.*.name,nodes.*.timestamp,nodes.*.os.mem,nodes.*.fs.data,"
            "nodes.*.jvm.mem.heap_max_in_bytes",
        )
        asked_at = 1000 * (began + time.time()) / 2
        return [{**node, "asked_at_ms": asked_at} for node in answer.get("nodes", {}).values()]

    @property
    def aliases(self) -> str:
        """All names of this index, with commas between; a companion may not exist."""
        companions = [each.alias(self.index) for each in Companion]
        return ",".join([self.index, failures_alias(self.index), *companions])

    @cached_property
    def index_settings(self) -> Mapping[str, Mapping[str, Any]]:
        """Settings of all our indices by their names."""
        answer = self.get(f"/{self.aliases}/_settings", ignore_unavailable="true")
        return {name: body["settings"]["index"] for name, body in answer.items()}

    @cached_property
    def health(self) -> Mapping[str, Any]:
        """Health of the cluster, with all our indices."""
        # Of names that do not exist it waits for shards, and answers 408.
        path = f"/_cluster/health/{','.join(sorted(self.index_settings))}"
        found: Mapping[str, Any] = self.get(path, level="indices")
        return found

    def primary_bytes(self) -> Mapping[str, int]:
        """Bytes of the primary shards of the pictures by generation."""
        answer = self.get(f"/{self.index}/_stats/store")
        return {
            name: body["primaries"]["store"]["size_in_bytes"]
            for name, body in answer["indices"].items()
        }

    @cached_property
    def roles(self) -> list[str] | None:
        """Roles of which the key in use has every right; None where no key is asked for."""
        try:
            self.get("/_security/_authenticate")
        except StoreRejected:
            # Security is switched off: Elasticsearch does not know the path.
            return None
        return [name for name in ROLES if self._has_rights_of(name)]

    def _has_rights_of(self, role: str) -> bool:
        described = role_descriptor(role, self.index)
        body = {"cluster": described["cluster"], "index": described["indices"]}
        answer: Mapping[str, Any] = self.store.connection.request(
            "POST", "/_security/user/_has_privileges", body
        )
        return bool(answer["has_all_requested"])

    def get(self, path: str, **params: str) -> Any:
        return self.store.connection.request("GET", path, params=params)
