"""Sum up what the daemons of a worker do, as metrics show it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from es_imgsearch.elastic.retry import Outage
from es_imgsearch.embed.context import IndexContext
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.pipeline.jobs import Counts
from es_imgsearch.pipeline.sharing.worker import Worker
from es_imgsearch.records import Root
from es_imgsearch.write.deletion_pauses import Pause


class WorkerTotals:
    """What `Indexer` tells of itself, of all partitions that a worker has worked on."""

    def __init__(self, worker: Worker, context: IndexContext) -> None:
        self.context = context
        self.roots: Sequence[Root] = [worker.root]
        self._worker = worker

    @property
    def pipeline(self) -> WorkerTotals:
        return self

    @property
    def counts(self) -> Counts:
        total = Counts()
        for each in self._worker.parts:
            total = total.plus(each.counts)
        return total

    @property
    def in_flight(self) -> int:
        return sum(each.pipeline.in_flight for each in self._indexers())

    @property
    def fatal(self) -> BaseException | None:
        # A daemon that ends for an error ends the worker, unless it has lost its lease.
        return None

    @property
    def settler(self) -> range:
        return range(sum(len(each.settler) for each in self._indexers()))

    @property
    def outage(self) -> Outage:
        outages = [self._worker.outage, *(each.outage for each in self._indexers())]
        return max(outages, key=lambda outage: outage.seconds)

    @property
    def paused(self) -> Mapping[str, Pause]:
        return {name: pause for each in self._indexers() for name, pause in each.paused.items()}

    @property
    def partitions(self) -> Mapping[str, bool]:
        """Whether this worker holds each partition."""
        return {str(each.partition): each.is_worked for each in self._worker.parts}

    def encoder_plan(self) -> Mapping[str, Any] | None:
        return next((plan for each in self._indexers() if (plan := each.encoder_plan())), None)

    def _indexers(self) -> Iterator[Indexer]:
        for each in self._worker.parts:
            if (indexer := each.indexer) is not None:
                yield indexer
