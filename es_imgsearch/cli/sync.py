"""`sync`: bring an index up to date with folders once."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from es_imgsearch.cli.options import (
    Choice,
    examples,
    json_option,
    open_store,
    sigterm_as_ctrl_c,
    with_root_options,
    with_settings_options,
)
from es_imgsearch.cli.production.partition import partition_option
from es_imgsearch.cli.watch import (
    check_folders,
    first_load,
    in_each_generation,
    open_indexer,
    take_over_roots_of,
)
from es_imgsearch.errors import EXIT_DIFFERENCE, UsageError, counted

if TYPE_CHECKING:
    from es_imgsearch.pipeline.indexer import Indexer
    from es_imgsearch.pipeline.jobs import Counts
    from es_imgsearch.records import Partition
    from es_imgsearch.settings import Settings


@click.command(
    epilog=examples(
        "sync ~/Pictures",
        "sync nas=/mnt/nas/photos --allow-deletes",
        "sync /mnt/nas/photos --partition 2/3",
        "sync shop=s3://bucket/products --engine ray --ray-address 10.0.0.5:6379 --workers 8",
    )
)
@with_settings_options
@with_root_options
@partition_option
@click.option("--content", is_flag=True,
              help="Also read every file, and index those with other bytes anew.")  # fmt: skip
@click.option("--engine", type=Choice(["local", "ray"]), default="local", show_default=True,
              help="Where pictures are read and embedded: in this process, or in actors of Ray, as"
              " many as --workers.")  # fmt: skip
@click.option("--ray-address", metavar="HOST:PORT",
              help="Head node of a Ray cluster.  [default: Ray on this machine alone]")  # fmt: skip
@json_option
@sigterm_as_ctrl_c()
def sync(
    settings: Settings,
    roots: tuple[str, ...],
    allow_deletes: bool,
    take_over: bool,
    partition: Partition | None,
    content: bool,
    engine: str,
    as_json: bool,
) -> None:
    """Bring the index up to date with the folders once, then end.

    Ends with 1 if a file failed, could not be read or stored, or is still being written, or if
    deletions are paused.  --json prints the number of files by outcome, the roots whose deletions
    are paused, and what was left out of each root, by reason.
    """
    from es_imgsearch.cli.printing.lines import print_left_out
    from es_imgsearch.cli.printing.progress import print_costs, progress, progress_bar
    from es_imgsearch.manage.verify import submit_differing
    from es_imgsearch.pipeline.jobs import Counts
    from es_imgsearch.pipeline.sync import sync as run_sync

    on_ray = _is_on_ray(settings, engine)
    if on_ray and partition is not None:
        raise UsageError("--engine ray divides the work itself: leave --partition out.")
    started = time.monotonic()
    released = 0
    if take_over:
        # A folder that is missing may be a disk that is not mounted: it stays the other host's.
        check_folders(settings, roots)
        take_over_roots_of(settings, roots)
    if allow_deletes:
        roots, released = _release_missing(settings, roots)
        if not roots:
            if as_json:
                _print_result(Counts(deleted=released))
            return

    def one_pass() -> bool:
        with open_indexer(
            settings, roots, allow_deletes, partition=partition, on_ray=on_ray
        ) as indexer:
            if content:
                indexer.check_excludes()
                with progress_bar("files") as on_file:
                    submit_differing(indexer, open_store(settings).pinned(), settings, on_file)
            with first_load(indexer, settings), progress(indexer):
                run_sync(indexer)
            indexer.pipeline.close()
            is_taken_in = not allow_deletes or _release_taken_in(indexer, settings)
            click.echo(
                f"{indexer.counts.in_words()} in {time.monotonic() - started:.1f} s.", err=True
            )
            print_costs(indexer.pipeline.activity.costs())
            print_left_out(indexer.last_comparisons)
            counts, unsettled = indexer.counts, len(indexer.settler)
            if as_json:
                counts = replace(counts, deleted=counts.deleted + released)
                _print_result(counts, unsettled, indexer)
            missing = counts.failed or counts.unreadable or unsettled or indexer.unstored.count()
            return is_taken_in and not (missing or indexer.paused)

    check_folders(settings, roots)
    if not in_each_generation(settings, one_pass):
        sys.exit(EXIT_DIFFERENCE)


def _is_on_ray(settings: Settings, engine: str) -> bool:
    """Check the options of Ray before anything else; return True if it is to be used."""
    if engine == "ray":
        from es_imgsearch.pipeline.engines.cluster import check_ray

        check_ray(settings.ray_address)
    # In a settings file or the environment an address without an engine is no error.
    elif click.get_current_context().params["ray_address"] is not None:
        raise UsageError("--ray-address needs the engine that uses it: add --engine ray.")
    return engine == "ray"


def _print_result(counts: Counts, unsettled: int = 0, indexer: Indexer | None = None) -> None:
    from es_imgsearch.cli.printing.lines import print_json

    comparisons = {} if indexer is None else indexer.last_comparisons
    print_json(
        {
            **asdict(counts),
            "unsettled": unsettled,
            "unstored": 0 if indexer is None else indexer.unstored.count(),
            "paused": [] if indexer is None else sorted(indexer.paused),
            "left_out": {name: dict(each.left_out) for name, each in comparisons.items()},
        }
    )


def _release_missing(settings: Settings, roots: tuple[str, ...]) -> tuple[tuple[str, ...], int]:
    """Release roots whose folders no longer exist.

    Returns the others, which are left to the comparison, and the number of deleted pictures.
    """
    from es_imgsearch.manage.taking_in import release
    from es_imgsearch.manage.upgrade import upgrade
    from es_imgsearch.watch.given_roots import is_gone, parse_roots

    left: list[str] = []
    released = 0
    for text, root in zip(roots, parse_roots(roots, may_be_gone=True), strict=True):
        if not is_gone(root):
            left.append(text)
            continue
        store = open_store(settings)
        upgrade(store)
        pictures = release(store, root, settings.host)
        released += pictures
        click.echo(
            f"{root.name!r} is released: {counted(pictures, 'picture')} removed from the index;"
            " no file was touched.",
            err=True,
        )
    return tuple(left), released


def _release_taken_in(indexer: Indexer, settings: Settings) -> bool:
    """Release roots inside those just indexed; return False if some have to stay."""
    from es_imgsearch.manage.taking_in import release_taken_in

    taken_in, waiting = release_taken_in(open_store(settings), indexer, settings)
    for name, pictures in taken_in.items():
        click.echo(
            f"{name!r} is taken in: its {counted(pictures, 'picture')} in the index are of the"
            " folder given now; no file was touched.",
            err=True,
        )
    if waiting:
        click.echo(waiting, err=True)
    return not waiting
