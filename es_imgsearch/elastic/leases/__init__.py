"""Leases: claims on state documents that expire when they are not renewed.

    acquire ──▶ the document is created, or an expired one replaced, by compare-and-set
    a thread ──▶ writes `seen_at` anew four times within `lease_seconds`
    release ──▶ the document is deleted, if it is still ours

A killed process leaves its documents behind.  Another process takes them over once it has seen the
same version for `lease_seconds` by its own clock: a living holder would have renewed it.  It need
not wait if `seen_at` is older than four times that, which no clock difference below a minute causes
(`lease_seconds` is 20 by default); with `trusts_clocks` off it waits nevertheless.

A holder that was suspended for so long, such as a sleeping laptop, notices at its next renewal, at
most a fourth of `lease_seconds` after it wakes; until then two may be at work, so a step that must
not happen twice calls `confirm` first.  What may be done by the holder only asks `check_valid`
before each request: it holds for three fourths of `lease_seconds` since the last renewal was sent,
by a clock that goes on during suspension, so a holder ceases before another can begin.

    claim       the documents: taking, renewing and giving them up, without a thread
    holders     who holds a lease, and whether that process is at work
    division    into how many partitions a root is divided, and who may change that
"""

from __future__ import annotations

from es_imgsearch.elastic.leases.holders import SURELY_EXPIRED as SURELY_EXPIRED
from es_imgsearch.elastic.leases.holders import holder as holder
from es_imgsearch.elastic.leases.holders import is_alive as is_alive
from es_imgsearch.elastic.leases.holders import is_at_work as is_at_work
from es_imgsearch.elastic.leases.holders import is_of_this_process as is_of_this_process
from es_imgsearch.elastic.leases.holders import is_running as is_running
from es_imgsearch.elastic.leases.holders import now_iso as now_iso
from es_imgsearch.elastic.leases.holders import seconds_left as seconds_left
from es_imgsearch.elastic.leases.holders import seconds_since as seconds_since
from es_imgsearch.elastic.leases.lease import LEASE_SECONDS as LEASE_SECONDS
from es_imgsearch.elastic.leases.lease import Lease as Lease
