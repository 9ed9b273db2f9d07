"""Faults: what may happen to a request on its way to the server, in it, or on its way back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.simulation.elastic.refusals import Refusal


class NoConnection(Exception):
    """The request did not arrive, and nothing of it was applied."""


class NoAnswer(Exception):
    """The answer did not come in time; the request may have been applied."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one request.

    `refused`: it does not arrive.  `lost`: it is applied (unless `applied` is False), and no answer
    comes.  `bulk_ends_after`: the server ends after so many items of a bulk, and no answer comes.
    `answer`: it is answered with this and not applied.  `items`: these items of a bulk, by number,
    are answered so and not applied, all others are.
    """

    refused: bool = False
    lost: bool = False
    applied: bool = True
    bulk_ends_after: int | None = None
    answer: Refusal | None = None
    items: Mapping[int, Refusal] = field(default_factory=dict)


# Gets method and path of a request; None lets it be.
Before = Callable[[str, str], Fault | None]


def refused() -> Fault:
    """The connection is refused."""
    return Fault(refused=True)


def answer_lost() -> Fault:
    """The request is applied and its answer lost."""
    return Fault(lost=True)


def timed_out() -> Fault:
    """The request is not applied, and no answer comes."""
    return Fault(lost=True, applied=False)


def cut_after(items: int) -> Fault:
    """A bulk is applied up to this number of items, and no answer comes."""
    return Fault(lost=True, bulk_ends_after=items)


def too_many_requests() -> Refusal:
    """429: the queue of the server is full."""
    return Refusal(
        429, "es_rejected_execution_exception", "rejected execution of coordinating operation"
    )


def unavailable() -> Refusal:
    """503: no primary shard is active."""
    return Refusal(503, "unavailable_shards_exception", "primary shard is not active")


def no_master() -> Refusal:
    """503: the cluster has no master."""
    return Refusal(503, "cluster_block_exception", "blocked by: [SERVICE_UNAVAILABLE/2/no master];")
