"""Save an index with all that belongs to it, and restore it (`snapshot`).

    images-000001-…  images-failures-…  images-state-…  ──create──▶ repository ──restore──▶ cluster

Elasticsearch's own snapshots, of exactly the indices that `drop` would delete.  Each shard is
copied as it was at one moment, but not all at the same one: what was written meanwhile may be in
one index and not in another.  The next `sync` or `watch` finds and mends that, as after a crash.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from es_imgsearch.describe.registry import describer_mappings
from es_imgsearch.elastic.mapping import Companion, failures_body, index_body, template_body
from es_imgsearch.elastic.meta import CREATED_BY
from es_imgsearch.elastic.naming import failures_alias
from es_imgsearch.elastic.retry import waits
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import (
    ImageMissing,
    IndexConflict,
    IndexMissing,
    StoreDenied,
    StoreError,
    StoreRejected,
    UsageError,
    counted,
)
from es_imgsearch.manage.drop import belongings, own_indices

DEFAULT_REPOSITORY: Final = "es-imgsearch"
# A shard that nobody restores stays red: it is given up after this time without one at work.
_STALLED_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Snapshot:
    """A snapshot in a repository, as the server describes it.

    `state` is SUCCESS, PARTIAL, FAILED or IN_PROGRESS; `indices` are those of the index of
    pictures.
    """

    name: str
    state: str
    started: str
    version: str
    indices: Sequence[str]


class Snapshots:
    """The snapshots of one index in one repository."""

    def __init__(self, store: Store, repository: str = DEFAULT_REPOSITORY) -> None:
        self._store = store
        self._request = store.connection.request
        self._repository = repository
        self._path = f"/_snapshot/{quote(repository, safe='')}"

    def register(self, location: str) -> None:
        """Register the repository: a folder that every node of the cluster sees.

        Raises StoreRejected if the nodes do not accept the folder.
        """
        body = {"type": "fs", "settings": {"location": location}}
        try:
            self._request("PUT", self._path, body)
        except StoreDenied:
            raise
        except StoreError as error:
            if "repository" not in str(error):
                raise
            raise StoreRejected(
                f"Elasticsearch cannot keep snapshots in {location!r} ({error}): in the"
                " elasticsearch.yml of every node name that folder, or one above it, as path.repo,"
                " let its user write there, restart it, and run this again."
            ) from error

    def create(self, name: str | None = None) -> Snapshot:
        """Take a snapshot of the index and wait for its end.

        Raises IndexMissing, UsageError for a name that there is, StoreRejected if shards are
        missing from it.
        """
        indices = [each.name for each in belongings(self._store)]
        name = name or f"{self._store.index}-{datetime.now(UTC):%Y.%m.%d-%H.%M.%S}"
        body = {
            "indices": indices,
            "include_global_state": False,
            "metadata": {"created_by": CREATED_BY, "index": self._store.index},
        }
        try:
            self._request("PUT", f"{self._path}/{quote(name, safe='')}", body)
        except ImageMissing as error:
            raise self._no_repository() from error
        except StoreRejected as error:
            if "already exists" not in str(error):
                raise
            raise UsageError(
                f"There is a snapshot {name!r} in repository {self._repository!r}: leave the name"
                " out, or take another one."
            ) from error
        for seconds in waits():
            (snapshot,) = self._read(name)
            if snapshot.state != "IN_PROGRESS":
                break
            time.sleep(seconds)
        if snapshot.state != "SUCCESS":
            raise StoreRejected(
                f"Snapshot {name!r} ended as {snapshot.state}, so some shards are missing from it:"
                f" GET {self._path}/{name} says which."
            )
        return snapshot

    def all(self) -> list[Snapshot]:
        """List the snapshots that hold this index, oldest first."""
        return sorted((each for each in self._read("*") if each.indices), key=lambda s: s.started)

    def restore(self, name: str | None = None) -> Snapshot:
        """Restore the index from a snapshot, the newest complete one without a name.

        Raises IndexConflict if the index is there, UsageError if the snapshot is not, StoreRejected
        if a shard cannot be restored.
        """
        snapshot = self._find(name)
        self._check_absent()
        body = {
            "indices": list(snapshot.indices),
            "include_aliases": True,
            "include_global_state": False,
        }
        self._request("POST", f"{self._path}/{quote(snapshot.name, safe='')}/_restore", body)
        self._wait_for(snapshot.indices)
        self._make_templates(snapshot.indices)
        return snapshot

    def _find(self, name: str | None) -> Snapshot:
        held = [each for each in self.all() if each.state == "SUCCESS"]
        chosen = [each for each in held if name in {None, each.name}]
        if not chosen:
            known = ", ".join(each.name for each in held) or "none"
            wanted = f" {name!r}" if name else ""
            raise UsageError(
                f"There is no complete snapshot{wanted} of {self._store.index!r} in repository"
                f" {self._repository!r}: choose one of {known}, or another --index or --repository."
            )
        return chosen[-1]

    def _check_absent(self) -> None:
        try:
            held = belongings(self._store)
        except IndexMissing:
            return
        names = counted(len(held), "index", "indices")
        raise IndexConflict(
            f"Index {self._store.index!r} is there, with {names} of Elasticsearch, and a restore"
            f" replaces nothing: delete it with `es-imgsearch drop --index {self._store.index}`, or"
            " restore into another cluster."
        )

    def _wait_for(self, indices: Sequence[str]) -> None:
        """Wait until every primary shard can be searched.

        The status says nothing of that: of a shard whose restore has not begun it is yellow.
        """
        path = f"/_cluster/health/{','.join(indices)}"
        at_work = time.monotonic()
        for seconds in waits():
            health = self._request("GET", path, params={"level": "indices"})
            shards = sum(each["number_of_shards"] for each in health["indices"].values())
            if len(health["indices"]) == len(indices) and health["active_primary_shards"] == shards:
                return
            if health["initializing_shards"]:
                at_work = time.monotonic()
            if time.monotonic() - at_work > _STALLED_SECONDS:
                raise StoreRejected(
                    f"Not every shard of {self._store.index!r} could be restored: GET"
                    " /_cluster/allocation/explain says why."
                )
            time.sleep(min(seconds, 1.0))

    def _make_templates(self, indices: Sequence[str]) -> None:
        """Make the templates, which are in no snapshot of indices alone."""
        index, define = self._store.index, self._store.connection.define
        info = self._store.info()
        behind = info.name.removeprefix(index)
        bodies: dict[str, tuple[Mapping[str, Any], str | None]] = {
            index: (index_body(info.meta, describer_mappings()), info.name),
            failures_alias(index): (failures_body(), failures_alias(index) + behind),
        }
        for companion in Companion:
            alias = companion.alias(index)
            if companion != Companion.BACKGROUND and any(
                each.startswith(f"{alias}-") for each in indices
            ):
                bodies[alias] = (companion.body(), None)
        for alias, (body, generation) in bodies.items():
            define(f"/_index_template/{alias}", template_body(alias, body, generation))

    def _read(self, name: str) -> Iterator[Snapshot]:
        own = own_indices(self._store.index)
        try:
            answer = self._request("GET", f"{self._path}/{quote(name, safe='*')}")
        except ImageMissing as error:
            raise self._no_repository() from error
        for each in answer["snapshots"]:
            yield Snapshot(
                name=each["snapshot"],
                state=each["state"],
                started=each.get("start_time", ""),
                version=each.get("version", ""),
                indices=[index for index in each["indices"] if own.fullmatch(index)],
            )

    def _no_repository(self) -> UsageError:
        return UsageError(
            f"There is no snapshot repository {self._repository!r}: register one with"
            " `es-imgsearch snapshot repository --location DIR"
            f" --index {self._store.index}`, or name yours with --repository."
        )
