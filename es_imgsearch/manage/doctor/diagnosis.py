"""Run all checks of `doctor`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from es_imgsearch.elastic.server import version
from es_imgsearch.errors import IndexMissing, StoreDenied, StoreError, StoreRejected
from es_imgsearch.manage.doctor import access, cluster, machine
from es_imgsearch.manage.doctor.hints import hints
from es_imgsearch.manage.doctor.setup import Finding, SetUp
from es_imgsearch.watch.commands import command_line

# In a smaller index people see at once what is right.
_CALIBRATED_FROM: Final = 1000


def server(setup: SetUp) -> Iterator[Finding]:
    """Yield a finding for a version that is not supported or has a known fault."""
    try:
        fault = version.check(setup.version)
    except StoreRejected as error:
        fault = str(error)
    if fault is not None:
        yield Finding("server", fault)


def state(setup: SetUp) -> Iterator[Finding]:
    """Yield what `status` shows to be wrong: roots, daemons, failures, tuning."""
    for step in hints(setup.status, setup.settings.host):
        yield Finding("state", step.text, step.command)


def relevance(setup: SetUp) -> Iterator[Finding]:
    """Yield a finding for a large index whose relevance is not calibrated."""
    if setup.status["pictures"] >= _CALIBRATED_FROM and not setup.status["calibrated"]:
        yield Finding(
            "relevance",
            "Relevance is estimated from the pictures alone, not fitted to known answers. To fit"
            " it:",
            command_line(["calibrate"], [], ["--index", setup.index]),
        )


CHECKS: Final[Mapping[str, Callable[[SetUp], Iterator[Finding]]]] = {
    "server": server,
    "rights": access.rights,
    "keys": access.expiry,
    "disks": cluster.disks,
    "cluster": cluster.whole_cluster,
    "blocks": cluster.blocks,
    "copies": cluster.copies,
    "clocks": cluster.clocks,
    "state": state,
    "relevance": relevance,
    "memory": cluster.memory,
    "shards": cluster.shards,
    "watches": machine.watches,
}


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong; what could not be looked at, and why; what the key in use may do."""

    findings: list[Finding] = field(default_factory=list)
    unchecked: dict[str, str] = field(default_factory=dict)
    roles: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {
            "findings": [each.to_dict() for each in self.findings],
            "unchecked": self.unchecked,
            "roles": self.roles,
        }


def diagnose(setup: SetUp) -> Diagnosis:
    """Run all checks.  Raises StoreUnreachable; StoreDenied if nothing may be read."""
    found = Diagnosis()
    # Says that the address, the certificate or the key is wrong.
    setup.version  # noqa: B018
    found.roles.extend(setup.roles or ())
    for name, check in CHECKS.items():
        try:
            found.findings.extend(check(setup))
        except IndexMissing as error:
            # Of all checks that look at the index, one says so.
            if not any(each.check == "index" for each in found.findings):
                found.findings.append(Finding("index", str(error)))
        except (StoreDenied, StoreError) as error:
            found.unchecked[name] = str(error)
    return found
