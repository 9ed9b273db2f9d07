"""`export --originals`: copy the files of pictures, and say how they go on there."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from es_imgsearch.cli.printing.progress import progress_bar
from es_imgsearch.errors import EXIT_DIFFERENCE, counted, escaped, readable_bytes
from es_imgsearch.records import Root, is_url, path_of
from es_imgsearch.watch.commands import sync_command

if TYPE_CHECKING:
    from es_imgsearch.elastic.store import Store
    from es_imgsearch.settings import Settings

# Problems beyond these are only counted.
_SHOWN = 20


def copy_originals(
    store: Store,
    settings: Settings,
    destination: Path,
    clauses: Sequence[Mapping[str, Any]],
    total: int,
) -> None:
    """Copy originals; ends the process with 1 if one could not be."""
    from es_imgsearch.manage.transfer.originals import export_originals, place_of

    started, shown = time.monotonic(), 0

    def show(problem: str) -> None:
        nonlocal shown
        shown += 1
        if shown <= _SHOWN:
            click.echo(escaped(problem), err=True)

    place = place_of(destination)
    with progress_bar("pictures", total) as advance:
        done = export_originals(
            store, place, settings.host, filters=clauses, on_problem=show, on_page=advance
        )
    words = [f"{counted(done.copied, 'original')} ({readable_bytes(done.copied_bytes)})"]
    words += [f"{counted(done.sidecars, 'sidecar')}"] * (done.sidecars > 0)
    seconds = time.monotonic() - started
    click.echo(f"{' and '.join(words)} copied to {destination} in {seconds:.1f} s.", err=True)
    if done.there_already:
        click.echo(f"{done.there_already:,} were there already.", err=True)
    if done.problems:
        click.echo(f"{counted(done.problems, 'file')} could not be copied.", err=True)
    there = str(destination if is_url(destination) else destination.resolve())
    for name in sorted(done.roots):
        root = Root(name, path_of(f"{there}/{name}"))
        command = sync_command(root, store.index, "--take-over")
        click.echo(
            f"To go on with {escaped(name)!r} there, which embeds nothing again: `{command}`.",
            err=True,
        )
    if done.problems:
        sys.exit(EXIT_DIFFERENCE)
