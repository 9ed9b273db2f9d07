"""Take each mending back: what was wrong before, as a change of the product while a world runs.

`seed` is one in which the world finds the fault; with another course of the product another seed
may be needed, so a few after it are tried as well.  `emphasis` names operations that happen often.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from es_imgsearch.elastic import generations
from es_imgsearch.elastic.state import State
from es_imgsearch.pipeline.in_flight import InFlight
from es_imgsearch.pipeline.jobs import NO_EVENT, read_signature
from es_imgsearch.pipeline.write_stage import WriteStage
from es_imgsearch.watch import presence, reconcile, walk
from es_imgsearch.watch.mounts import KnownMounts
from es_imgsearch.watch.presence import RootFiles
from es_imgsearch.write.carried_fields import Carried, CarriedFields
from es_imgsearch.write.deletion_guard import DeletionGuard
from es_imgsearch.write.field_memory import FieldMemory
from tests.simulation.patches import Patches
from tests.simulation.world import TWO_ROOTS


@dataclass(frozen=True)
class Mutation:
    """A fault of the list in issue 15, and what the world says of it."""

    fault: int
    words: str
    emphasis: tuple[str, ...]
    symptom: str
    seed: int
    apply: Callable[[Patches], None]

    def __str__(self) -> str:
        return f"{self.fault}-{self.words}"


def _lost_updates(patches: Patches) -> None:
    put = State._put

    def unconditional(state: State, name: str, document: Any, condition: Any) -> Any:
        return put(state, name, document, {} if name.startswith("roots:") else condition)

    patches.set(State, "_put", unconditional)


def _failures_replace_pictures(patches: Patches) -> None:
    patches.set(WriteStage, "_without_stored", lambda _stage, batch: list(batch))


def _ctime_is_ignored(patches: Patches) -> None:
    kind_of = reconcile._kind_of
    patches.set(reconcile, "_kind_of", lambda seen, entries, _: kind_of(seen, entries, False))


def _names_come_again(patches: Patches) -> None:
    patches.set(
        generations, "generation_name", lambda index, number, _id: f"{index}-{number:06}-00000000"
    )


def _forgotten_mounts(patches: Patches) -> None:
    patches.set(KnownMounts, "of", lambda _mounts, _root: {})
    patches.set(KnownMounts, "load", lambda _mounts, _root: {})


def _dangling_links_are_gone(patches: Patches) -> None:
    for module in (walk, presence):
        patches.set(module, "is_link", lambda _path: False)


def _two_states_are_none(patches: Patches) -> None:
    kind_of = reconcile._kind_of

    def either_counts(seen: Any, entries: Any, compares_ctime: bool) -> Any:
        if len(entries) > 1 and any(each.state == seen.state for each in entries):
            return None
        return kind_of(seen, entries, compares_ctime)

    patches.set(reconcile, "_kind_of", either_counts)


def _one_ticket(patches: Patches) -> None:
    queue_read, mark_stored = InFlight._queue_read, InFlight.mark_stored

    def marked(in_flight: InFlight, job: Any, *arguments: Any) -> bool:
        if not mark_stored(in_flight, job, *arguments):
            job.next_change = job.change
        return True

    def join(_in_flight: InFlight, job: Any, change: Any) -> None:
        job.next_change = change

    def reopened(in_flight: InFlight, job: Any) -> None:
        in_flight._tickets._open.add(job.ticket)
        queue_read(in_flight, job)

    patches.set(InFlight, "mark_stored", marked)
    patches.set(InFlight, "_join", join)
    patches.set(InFlight, "_queue_read", reopened)


def _events_are_ignored(patches: Patches) -> None:
    is_done = InFlight._is_done

    def without_event(
        in_flight: InFlight, change: Any, signature: Any, _event_at: float, listed_at: Any = None
    ) -> bool:
        return is_done(in_flight, change, signature, NO_EVENT, listed_at)

    patches.set(InFlight, "_is_done", without_event)


def _signature_of_the_end(patches: Patches) -> None:
    """Remember the file that was there when the document was acknowledged, not the one read."""
    mark_stored = InFlight.mark_stored

    def marked(in_flight: InFlight, job: Any, signature: Any, read_began_at: float) -> bool:
        current = read_signature(job.change)
        if current is not None and current.state == signature.state:
            signature = current
        return mark_stored(in_flight, job, signature, read_began_at)

    patches.set(InFlight, "mark_stored", marked)
    _events_are_ignored(patches)
    _ctime_is_ignored(patches)


def _no_field_is_kept(patches: Patches) -> None:
    patches.set(CarriedFields, "of", lambda _carried, results: [Carried({}, None) for _ in results])


def _fields_of_one_process(patches: Patches) -> None:
    patches.set(FieldMemory, "load", lambda _memory: None)


def _diluted_share(patches: Patches) -> None:
    loss = DeletionGuard._loss

    def without_held(guard: DeletionGuard, *arguments: Any) -> Any:
        found = loss(guard, *arguments)
        return type(found)(found.ids, frozenset())

    patches.set(DeletionGuard, "_loss", without_held)


def _any_case_is_present(patches: Patches) -> None:
    patches.set(RootFiles, "_is_listed", lambda _files, _path: True)


MUTATIONS = (
    Mutation(1, "roots without compare-and-set", (TWO_ROOTS,), "is not registered", 2,
             _lost_updates),
    Mutation(2, "failures replace pictures", ("forbid",), "deleted .* which is unknown", 3,
             _failures_replace_pictures),
    Mutation(2, "ctime is ignored", ("replace_alike", "stop"), "another content", 2,
             _ctime_is_ignored),
    Mutation(3, "an index made anew has the same name", ("make_anew",), "another content or enc", 1,
             _names_come_again),
    Mutation(
        4, "mounts are forgotten", ("drop_mount",), "deleted .* which is unknown", 11,
        _forgotten_mounts,
    ),
    Mutation(
        4, "links to nothing are gone", ("drop_mount",), "deleted ./link.* which is unknown", 21,
        _dangling_links_are_gone,
    ),
    Mutation(
        5, "two states of a path are no difference", ("half_bulks", "break_file", "repair"),
        "in the index and in the failures", 0, _two_states_are_none,
    ),
    Mutation(
        6, "changes that join have no ticket", ("camera", "delete"), "still in the index", 0,
        _one_ticket,
    ),
    Mutation(
        7, "the file at the end counts as read", ("replace_alike", "storm"), "another content", 20,
        _signature_of_the_end,
    ),
    Mutation(7, "an event without a new state", ("map_write",), "another content", 1,
             _events_are_ignored),
    Mutation(8, "no field is kept", ("label", "touch", "rename"), "lost its field", 20,
             _no_field_is_kept),
    Mutation(8, "fields are remembered by one process", ("label", "wander", "kill"),
             "lost its field", 10, _fields_of_one_process),
    Mutation(9, "new files dilute the share", ("wrong_disk",), "deleted .* which is unknown", 1,
             _diluted_share),
    Mutation(10, "any case counts as present", ("rename_case",), "absent and still in", 10,
             _any_case_is_present),
)  # fmt: skip
