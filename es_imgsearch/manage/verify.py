"""Compare folders and index without changing anything (`verify`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import ReadError
from es_imgsearch.read.preparation import Preparation
from es_imgsearch.read.workers import ReadPlan, ReadWorkers
from es_imgsearch.records import Picture, Root, stored_path
from es_imgsearch.settings import Settings
from es_imgsearch.watch.excludes import Excludes
from es_imgsearch.watch.mounts import KnownMounts
from es_imgsearch.watch.reconcile import (
    DifferenceKind,
    FileDifference,
    Prunes,
    Unknown,
    differences,
    walk,
)
from es_imgsearch.watch.roots import check_registered

_BATCH = 64


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """A path in which folder and index differ.

    `what` is ``missing`` (the index lacks a picture), ``changed`` (the index has another state of
    it), ``gone`` (the index has a file that the folder lacks), ``unknown`` (cannot be examined) or
    ``without vector``.
    """

    what: str
    root: str
    relative_path: str

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


_WORDS = {
    DifferenceKind.NEW: "missing",
    DifferenceKind.CHANGED: "changed",
    DifferenceKind.LOST: "gone",
}


def verify(store: Store, roots: Sequence[Root], settings: Settings) -> Iterator[Discrepancy]:
    """Yield every difference between the roots and the index.

    A file matches a document or a failure of its size and modification time.  Files that are no
    pictures have neither, so every file that the index lacks is read.

    Raises RootError if the index has another folder under a root's name.
    """
    meta = store.info().meta
    for root in roots:
        check_registered(root, settings.host, meta.roots)
    store.refresh()
    prunes = Excludes(settings.exclude).prunes
    workers = ReadWorkers(
        ReadPlan.of(settings, Preparation(width=8, height=8, mode="squash"), describers=()),
        settings.read_workers,
    )
    try:
        for root in roots:
            yield from _verify_root(store, root, prunes, workers)
    finally:
        workers.close()


def _verify_root(
    store: Store, root: Root, prunes: Prunes, workers: ReadWorkers
) -> Iterator[Discrepancy]:
    unknown: list[Unknown] = []
    compared = differences(
        walk(root, prunes, mounts=KnownMounts(store.state).load(root)),
        store.listings.stored(root.name),
        store.listings.stored(root.name, failures=True),
        unknown.append,
    )
    new: list[FileDifference] = []
    for difference in compared:
        if difference.kind is DifferenceKind.NEW:
            new.append(difference)
            if len(new) == _BATCH:
                yield from _missing(root, new, workers)
                new = []
        else:
            yield _discrepancy(root, difference)
    yield from _missing(root, new, workers)
    for each in unknown:
        yield Discrepancy("unknown", root.name, each.stored_path)
    for path in store.listings.without_vector(root.name):
        yield Discrepancy("without vector", root.name, path)


def _missing(
    root: Root, new: Sequence[FileDifference], workers: ReadWorkers
) -> Iterator[Discrepancy]:
    """Yield those of these files that are pictures, or are named like one."""
    paths = {root.absolute(each.relative_path): each for each in new}
    outcomes = dict(workers.read_each(paths))
    for path, difference in paths.items():
        outcome = outcomes[path]
        if isinstance(outcome, Picture | ReadError):
            yield _discrepancy(root, difference)


def _discrepancy(root: Root, difference: FileDifference) -> Discrepancy:
    return Discrepancy(_WORDS[difference.kind], root.name, stored_path(difference.relative_path))
