"""Who is at work, judged by the age of the last renewal and by the process."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from es_imgsearch.elastic.leases import is_at_work
from es_imgsearch.elastic.leases.holders import process_of

HERE = process_of(os.getpid()) or {}
BOOT, _, NAMESPACE = HERE["machine"].partition(" ")


def lease(age_seconds: float, machine: str, pid: int | None = None) -> dict[str, Any]:
    return {
        "process_id": os.getpid() if pid is None else pid,
        "seen_at": (datetime.now(tz=UTC) - timedelta(seconds=age_seconds)).isoformat(),
        "lease_seconds": 20.0,
        "body": {"process": {**HERE, "machine": machine}},
    }


@pytest.mark.parametrize(
    ("machine", "age_seconds", "is_alive"),
    [
        (f"{BOOT} {NAMESPACE}", 5, True),
        # It runs and renews nothing: stopped by a signal, or without Elasticsearch.
        (f"{BOOT} {NAMESPACE}", 45, False),
        # In another container of this machine, whose processes are not seen.
        (f"{BOOT} pid:[1]", 30, True),
        (f"{BOOT} pid:[1]", 45, False),
        # On another machine, whose clock may be behind.
        (f"another {NAMESPACE}", 45, True),
        (f"another {NAMESPACE}", 85, False),
    ],
)
def test_by_the_age_of_the_last_renewal(machine: str, age_seconds: float, is_alive: bool):
    assert is_at_work(lease(age_seconds, machine)) is is_alive


def test_a_process_that_is_gone_is_not_at_work():
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert not is_at_work(lease(1, HERE["machine"], child))


def test_another_process_with_its_number_is_not_it():
    other = lease(1, HERE["machine"])
    other["body"]["process"] = {**HERE, "started": HERE["started"] - 1}
    assert not is_at_work(other)


def test_one_of_an_earlier_version_is_judged_by_its_age():
    old = lease(45, HERE["machine"])
    del old["body"]["process"]
    assert is_at_work(old)
