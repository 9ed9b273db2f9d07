"""Roles: the rights that each part of the service needs on one index, as data.

`role_descriptor` writes a role out for an index, in the form that `POST /_security/api_key` and
`PUT /_security/role` take; docker/setup/roles has three of them for the index `images`.  Each right
is needed: without any one of them a command of the role is refused (tests/e2e/test_rights.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

# What stands behind an alias of ours: generations, with and without their random part, and the
# aliases that never leave them.
_GENERATION: Final = "-[0-9]{6,}(-[0-9a-f]{8})?"
# Indices whose documents every part reads: roots, codes, matrices, vocabularies.
_LEARNED: Final = ("-codes", "-reduction", "-tags")


@dataclass(frozen=True)
class Grant:
    """Index privileges on aliases or, after a slash, on names of an expression.

    `{index}` stands for the alias of pictures; in an expression it is escaped.
    """

    names: Sequence[str]
    privileges: Sequence[str]


@dataclass(frozen=True)
class Role:
    """What a role is for, and its rights."""

    purpose: str
    cluster: Sequence[str]
    grants: Sequence[Grant]
    # On Kibana, in every space.
    kibana: Sequence[str] = field(default=())


_COMPANIONS: Final = "failures|state|background|codes|reduction|searches|tags"
_ALL: Final = f"/{{index}}(-({_COMPANIONS}))?({_GENERATION}(-pinned)?)?/"
_VERSION: Final = ("cluster:monitor/main",)
_BESIDES: Final = Grant(("{index}-next", "{index}-before"), ("view_index_metadata",))
_READ: Final = (
    Grant(
        ("{index}", f"/{{index}}(-failures)?{_GENERATION}-pinned/"),
        ("read", "view_index_metadata", "indices:admin/refresh"),
    ),
    Grant(("{index}-failures",), ("read", "indices:admin/refresh")),
    Grant(("{index}-background",), ("read", "view_index_metadata")),
    # A bulk of creates.  The name `create_doc` would let a key change the mapping, too, in
    # Elasticsearch 8; an action is the begin of those that it grants.
    Grant(
        ("{index}-searches",),
        ("indices:data/write/bulk", "indices:data/write/index:op_type/create"),
    ),
    _BESIDES,
    Grant(("{index}-state", *(f"{{index}}{each}" for each in _LEARNED)), ("read",)),
)

ROLES: Final[Mapping[str, Role]] = {
    "read": Role("search, serve, and see the status; writes nothing", _VERSION, _READ),
    "watch": Role(
        "keep the index up to date: watch, sync, describe, verify, failures",
        _VERSION,
        (
            Grant(("{index}",), ("read", "view_index_metadata", "indices:admin/refresh")),
            Grant(("{index}-failures",), ("read", "indices:admin/refresh")),
            # What is written goes to the aliases of a generation, which never move.
            Grant(
                (f"/{{index}}(-failures)?{_GENERATION}(-pinned)?/",),
                (
                    "read",
                    "index",
                    "delete",
                    "view_index_metadata",
                    "indices:admin/refresh",
                    "indices:admin/mapping/put",
                ),
            ),
            Grant(("{index}-state",), ("read", "index", "delete")),
            _BESIDES,
            Grant(tuple(f"{{index}}{each}" for each in _LEARNED), ("read",)),
        ),
    ),
    "admin": Role(
        "make, change and delete the index and all that belongs to it",
        ("monitor", "manage_index_templates"),
        (
            Grant((_ALL,), ("read", "write", "manage")),
            Grant(("/{index}-(next|before)/",), ("manage",)),
        ),
        kibana=("all",),
    ),
    "snapshot": Role(
        "take snapshots into a repository that is registered, and list them",
        ("create_snapshot",),
        (
            Grant(
                (_ALL,),
                ("view_index_metadata", "monitor"),
            ),
        ),
    ),
    "restore": Role(
        "register repositories, and restore snapshots; in Elasticsearch this is of all indices",
        (
            "cluster:monitor/main",
            "cluster:monitor/health",
            "cluster:admin/repository/put",
            "cluster:admin/snapshot/get",
            "cluster:admin/snapshot/restore",
            "manage_index_templates",
        ),
        (Grant((_ALL,), ("read", "view_index_metadata", "monitor")),),
    ),
    "kibana-import": Role(
        "build saved objects and import them into Kibana",
        (),
        (
            # What was learned is in saved objects, and so are vectors of saved searches; how alike
            # pictures are, in a sample of the index.
            Grant(("{index}", "{index}-background"), ("read", "view_index_metadata")),
            Grant(("{index}-state", "{index}-reduction"), ("read",)),
        ),
        kibana=tuple(
            f"feature_{each}.all"
            for each in ("savedObjectsManagement", "discover", "dashboard", "visualize")
        ),
    ),
}

# The least role of each command, for messages: of one on an index that is there.
LEAST_ROLE: Final[Mapping[str, str]] = {
    "find": "watch",
    "search": "read",
    "similar": "read",
    "duplicates": "read",
    "identify": "read",
    "init": "admin",
    "reindex": "admin",
    "encoder": "read",
    "drop": "admin",
    "watch": "watch",
    "sync": "watch",
    "describe": "watch",
    "status": "read",
    "verify": "read",
    "failures": "read",
    "failures retry": "watch",
    "evaluate": "read",
    "calibrate": "admin",
    "tune": "watch",
    "tune --merge": "admin",
    "tags": "admin",
    "tags list": "read",
    "tags evaluate": "read",
    "codes train": "admin",
    "codes apply": "watch",
    "export": "read",
    "import": "watch",
    "kibana": "read",
    "kibana import": "kibana-import",
    "kibana save-search": "kibana-import",
    "serve": "read",
    "snapshot create": "snapshot",
    "snapshot list": "snapshot",
    "snapshot repository": "restore",
    "snapshot restore": "restore",
    "plan": "read",
    "doctor": "read",
}


def role_advice(command: str, index: str) -> str | None:
    """Name the role that a command takes, and how its key is made; None for none."""
    role = least_role(command)
    if role is None:
        return None
    return (
        f"`{command}` takes a key of role {role}, which `es-imgsearch keys create --role {role}"
        f" --expires 90d --index {index}` makes."
    )


def role_descriptor(name: str, index: str) -> dict[str, Any]:
    """Write out the rights of a role on one index."""
    role = ROLES[name]
    written: dict[str, Any] = {
        "cluster": list(role.cluster),
        "indices": [
            {
                "names": [_written(each, index) for each in grant.names],
                "privileges": list(grant.privileges),
            }
            for grant in role.grants
        ],
    }
    if role.kibana:
        written["applications"] = [
            {
                "application": "kibana-.kibana",
                "privileges": list(role.kibana),
                "resources": ["*"],
            }
        ]
    return written


def _written(name: str, index: str) -> str:
    if not name.startswith("/"):
        return name.replace("{index}", index)
    # Lucene's expressions give a meaning to @, & and ~ as well.
    return name.replace("{index}", re.sub(r"([^\w-])", r"\\\1", index))


def least_role(command: str) -> str | None:
    """Name the least role of a command (`failures retry`); None if it takes no key."""
    return LEAST_ROLE.get(command) or LEAST_ROLE.get(command.partition(" ")[0])
