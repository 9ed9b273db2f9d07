"""`--partition`: share the work on one folder among several workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from es_imgsearch.errors import UsageError

if TYPE_CHECKING:
    from es_imgsearch.elastic.store import Store
    from es_imgsearch.embed.context import IndexContext
    from es_imgsearch.pipeline.indexer import Indexer
    from es_imgsearch.pipeline.sharing.worker import Worker
    from es_imgsearch.records import Partition, Root
    from es_imgsearch.settings import Settings


def _parsed(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> Partition | None:
    from es_imgsearch.records import Partition

    if value is None:
        return None
    partition = Partition.parse(value)
    return None if partition.count == 1 else partition


partition_option = click.option(
    "--partition",
    metavar="I/N",
    callback=_parsed,
    help="Work on part I of N of the folder only, such as 1/3, 2/3 and 3/3 on three machines that"
    " have the folder at the same path.  `watch` stands in for workers that are gone.",
)


def shared(roots: Sequence[Root], partition: Partition | None) -> list[Root]:
    """Return the roots with the partition that this process works on."""
    return [replace(root, partition=partition) for root in roots]


def check_one(roots: Sequence[str], partition: Partition | None) -> None:
    """Raise UsageError for several folders and one partition."""
    if partition is not None and len(roots) > 1:
        raise UsageError(
            "`watch --partition` takes one folder: start a worker for each folder, or leave"
            " --partition out."
        )


@contextmanager
def held(store: Store, roots: Sequence[Root], settings: Settings) -> Iterator[None]:
    """Hold the partitions of these roots while one pass works on them."""
    from contextlib import ExitStack

    from es_imgsearch.pipeline.sharing.part import held_partition

    with ExitStack() as stack:
        for root in roots:
            if root.partition is not None:
                stack.enter_context(held_partition(store, root, settings))
        yield


def open_worker(
    context: IndexContext,
    root: Root,
    settings: Settings,
    *,
    on_ready: Callable[[], None],
    **given: Any,
) -> Worker:
    """Return the worker of a root's partition; `given` is for its pipelines."""
    from es_imgsearch.pipeline.indexer import Indexer
    from es_imgsearch.pipeline.sharing.worker import Worker

    connection = context.store.connection

    def open_indexer(part: Root) -> Indexer:
        # A store of its own: what it writes asks the lease of this partition.
        store = context.store
        if connection.generation is not None:
            store = store.at(connection.generation, connection.index_id)
        return Indexer(replace(context, store=store), [part], settings, **given)

    partition = root.partition
    if partition is None:
        raise UsageError("There is no partition to work on.")
    return Worker(root, partition, context.store, settings, open_indexer, on_ready)
