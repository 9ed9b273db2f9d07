"""`watch`: keep an index up to date with folders; what it shares with `sync`."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import click

from es_imgsearch.cli.options import (
    examples,
    open_store,
    with_root_options,
    with_settings_options,
)
from es_imgsearch.cli.printing.logs import log_at_least
from es_imgsearch.cli.production.partition import (
    check_one,
    held,
    open_worker,
    partition_option,
    shared,
)
from es_imgsearch.errors import (
    GenerationSwitched,
    IndexMissing,
    RootError,
    UsageError,
)

if TYPE_CHECKING:
    from es_imgsearch.embed.context import IndexContext
    from es_imgsearch.pipeline.daemon import Daemon
    from es_imgsearch.pipeline.engines.intake import Intake
    from es_imgsearch.pipeline.indexer import Indexer
    from es_imgsearch.pipeline.sharing.worker import Worker
    from es_imgsearch.records import Partition, Root
    from es_imgsearch.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")


@click.command(
    epilog=examples(
        'watch ~/Pictures nas=/mnt/nas/photos --exclude "*.tmp"',
        "watch /srv/photos --workers 2 --metrics-port 9100",
        "watch shop=s3://bucket/products",
        "watch /mnt/nas/photos --partition 1/3",
    )
)
@with_settings_options
@with_root_options
@partition_option
@click.option("--metrics-port", metavar="N", type=int, help="Serve /metrics and /healthz there.")
@click.option("--metrics-address", metavar="ADDRESS",
              help="Where to listen; 0.0.0.0 in a container.  [default: 127.0.0.1]")  # fmt: skip
@click.option("--engine", hidden=True, help="Refused: `sync` has it.")
def watch(
    settings: Settings,
    roots: tuple[str, ...],
    allow_deletes: bool,
    take_over: bool,
    partition: Partition | None,
    engine: str | None,
) -> None:
    """Run the daemon: keep the index up to date until Ctrl-C or SIGTERM."""
    if engine is not None:
        raise UsageError(
            "watch has no --engine: it indexes pictures as they come, in one process. For a first"
            f" run on many machines, `es-imgsearch sync --engine ray --index {settings.index}` and"
            " the folders."
        )
    # In a settings file or the environment an address without a port is no error.
    address_option = click.get_current_context().params["metrics_address"]
    if settings.metrics_port is None and address_option is not None:
        raise UsageError("--metrics-address needs a port: add --metrics-port, such as 9464.")
    check_one(roots, partition)
    _log_as_daemon(settings)
    signals = _SignalHandler()
    check_folders(settings, roots, may_come=not take_over)
    if take_over:
        take_over_roots_of(settings, roots)
    else:
        _check_absent(settings, roots)
    if partition is not None:
        in_each_generation(
            settings, lambda: _work(settings, roots, partition, allow_deletes, signals)
        )
        return
    in_each_generation(settings, lambda: _watch(settings, roots, allow_deletes, signals))


def _work(
    settings: Settings,
    roots: tuple[str, ...],
    partition: Partition,
    allow_deletes: bool,
    signals: _SignalHandler,
) -> None:
    """Watch a partition of a root, and others while their workers are gone."""
    from es_imgsearch.pipeline.sharing.totals import WorkerTotals
    from es_imgsearch.settings import without_password
    from es_imgsearch.watch.commands import given, shell_word

    context, (root,) = _opened(settings, roots, allow_deletes, partition, warm_up=True)
    name = f"{shell_word(given(root))} (partition {partition})"
    logger.info(
        "Starting to watch %s for index %r on %s; encoder %s, %d dims.",
        name, settings.index, without_password(settings.es_url), context.encoder.name,
        context.encoder.dims,
    )  # fmt: skip
    worker = open_worker(
        context,
        root,
        settings,
        on_ready=lambda: logger.info("Watching %s.", name),
        allow_deletes=allow_deletes,
        warm_up=True,
    )
    totals = WorkerTotals(worker, context)
    with ExitStack() as stack:
        if settings.metrics_port is not None:
            from es_imgsearch.pipeline.reporting.metrics import MetricsServer

            server = MetricsServer(totals, settings.metrics_port, settings.metrics_address)
            stack.callback(server.close)
        signals.attach(worker)
        drained = worker.run()
        rest = "" if drained else "; the next start finishes some files"
        logger.info("Stopped: %s%s.", totals.counts.in_words(), rest)


def _watch(
    settings: Settings, roots: tuple[str, ...], allow_deletes: bool, signals: _SignalHandler
) -> None:
    from es_imgsearch.pipeline.daemon import Daemon
    from es_imgsearch.settings import without_password
    from es_imgsearch.watch.commands import given, shell_word

    with ExitStack() as stack:
        indexer = stack.enter_context(open_indexer(settings, roots, allow_deletes, warm_up=True))
        names = ", ".join(shell_word(given(root)) for root in indexer.roots)
        encoder = indexer.context.encoder
        logger.info(
            "Starting to watch %s for index %r on %s; encoder %s, %d dims.",
            names, settings.index, without_password(settings.es_url), encoder.name, encoder.dims,
        )  # fmt: skip

        def ready() -> None:
            logger.info("Watching %s.", names)

        if settings.metrics_port is not None:
            from es_imgsearch.pipeline.reporting.metrics import MetricsServer

            server = MetricsServer(indexer, settings.metrics_port, settings.metrics_address)
            stack.callback(server.close)
        daemon = Daemon(indexer, settings, on_ready=ready)
        signals.attach(daemon)
        drained = daemon.run()
        rest = "" if drained else "; the next start finishes some files"
        logger.info("Stopped: %s%s.", indexer.counts.in_words(), rest)


def check_folders(settings: Settings, roots: tuple[str, ...], *, may_come: bool = False) -> None:
    """Report unusable folders and patterns before any request to Elasticsearch."""
    from es_imgsearch.watch.excludes import Excludes
    from es_imgsearch.watch.given_roots import parse_roots

    Excludes.of_roots(settings.exclude, parse_roots(roots, may_come=may_come))


def _check_absent(settings: Settings, roots: tuple[str, ...]) -> None:
    """Report absent folders that the index does not know: perhaps misspelt.

    Raises RootError if there are no others.
    """
    from es_imgsearch.watch.given_roots import is_absent, parse_roots
    from es_imgsearch.watch.roots import is_registered

    parsed = parse_roots(roots, may_come=True)
    absent = [root for root in parsed if is_absent(root)]
    if not absent:
        return
    meta = open_store(settings).info().meta
    unknown = [root for root in absent if not is_registered(root, meta, settings.host)]
    if len(unknown) == len(parsed):
        names = " and ".join(repr(str(root.path)) for root in unknown)
        raise RootError(
            f"{names} {'does' if len(unknown) == 1 else 'do'} not exist, and the index"
            f" {settings.index!r} has never held pictures of"
            f" {'it' if len(unknown) == 1 else 'them'}: give a folder that holds pictures."
        )
    for root in unknown:
        logger.warning(
            "%s does not exist, and the index %r has never held pictures of it: is the name right?",
            root.path, settings.index,
        )  # fmt: skip


def in_each_generation(settings: Settings, run: Callable[[], T]) -> T:
    """Call `run`, and call it again with the new encoder after `reindex` has switched."""
    while True:
        held = open_store(settings).pinned()
        try:
            return run()
        except (GenerationSwitched, IndexMissing) as error:
            # The generation that was in use may have been deleted already.
            if not held.switching.has_switched() and isinstance(error, IndexMissing):
                raise
            logger.warning(
                "Index %r was switched to %s: starting again with it.",
                settings.index,
                open_store(settings).generations.roles().serving,
            )


@contextmanager
def open_indexer(
    settings: Settings,
    roots: tuple[str, ...],
    allow_deletes: bool,
    *,
    partition: Partition | None = None,
    warm_up: bool = False,
    on_ray: bool = False,
) -> Iterator[Indexer]:
    """Register the roots and open the pipeline on them, or on a partition of each.

    `on_ray` it has actors of Ray.

    `warm_up` is for a daemon: the model is loaded at once, and folders may be absent.
    """
    from es_imgsearch.pipeline.engines.local import Pipeline
    from es_imgsearch.pipeline.indexer import Indexer

    context, parsed = _opened(settings, roots, allow_deletes, partition, warm_up=warm_up)
    engine: Callable[..., Intake] = Pipeline
    if on_ray:
        from es_imgsearch.pipeline.engines.spread import SpreadPipeline

        engine = partial(SpreadPipeline, roots=parsed)
    with held(context.store, parsed, settings):
        indexer = Indexer(
            context, parsed, settings, allow_deletes=allow_deletes, warm_up=warm_up, engine=engine
        )
        try:
            yield indexer
        finally:
            indexer.pipeline.close()


def _opened(
    settings: Settings,
    roots: tuple[str, ...],
    allow_deletes: bool,
    partition: Partition | None,
    *,
    warm_up: bool,
) -> tuple[IndexContext, list[Root]]:
    """Register the roots; open their index."""
    from es_imgsearch.embed.context import open_context
    from es_imgsearch.manage.moved_folder import note_moved
    from es_imgsearch.manage.upgrade import upgrade
    from es_imgsearch.watch.commands import walk_options
    from es_imgsearch.watch.given_roots import parse_roots
    from es_imgsearch.watch.roots import register_roots

    parsed = parse_roots(roots, is_checked=warm_up, follow_links=settings.follow_links)
    parsed = shared(parsed, partition)
    store = open_store(settings).pinned()
    upgrade(store)
    context = open_context(store, settings)
    note_moved(context.store, parsed, settings.host, walk_options(settings))
    register_roots(
        context.store, parsed, settings.host, replace_gone=allow_deletes,
        takes_in=allow_deletes and not warm_up,
    )  # fmt: skip
    return context, parsed


@contextmanager
def first_load(indexer: Indexer, settings: Settings) -> Iterator[None]:
    """Load an empty index with refresh off; one with pictures as usual."""
    from es_imgsearch.manage.production.refreshing import refresh_off

    store = indexer.context.store
    if store.listings.count():
        yield
        return
    with refresh_off(
        store,
        settings,
        lambda text: click.echo(text, err=True),
        stored=lambda: indexer.counts.stored,
    ):
        yield


def take_over_roots_of(settings: Settings, roots: tuple[str, ...]) -> None:
    from es_imgsearch.manage.upgrade import upgrade
    from es_imgsearch.watch.given_roots import parse_roots
    from es_imgsearch.watch.roots import take_over_roots

    store = open_store(settings).pinned()
    upgrade(store)
    parsed = parse_roots(roots)
    take_over_roots(store, parsed, settings.host, settings.lease_seconds)


def _log_as_daemon(settings: Settings) -> None:
    log_at_least(logging.INFO)
    if settings.log_format == "ecs":
        import ecs_logging

        for handler in logging.getLogger().handlers:
            handler.setFormatter(ecs_logging.StdlibFormatter())


class _SignalHandler:
    """Stop the daemon in order at the first signal, end the process at the second."""

    def __init__(self) -> None:
        self._daemon: Daemon | Worker | None = None
        self._is_requested = False
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, self._handle)

    def attach(self, daemon: Daemon | Worker) -> None:
        """Stop this daemon at a signal, or now if there was one already."""
        self._daemon = daemon
        if self._is_requested:
            daemon.stop()

    def _handle(self, _number: int, _frame: object) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, lambda again, _: os._exit(128 + again))
        self._is_requested = True
        if self._daemon is not None:
            self._daemon.stop()
