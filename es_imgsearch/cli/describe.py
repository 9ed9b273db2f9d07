"""`describe`: run the describers again on stored pictures."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from es_imgsearch.cli.options import (
    examples,
    json_option,
    open_store,
    sigterm_as_ctrl_c,
    with_settings_options,
)
from es_imgsearch.cli.printing.lines import print_json
from es_imgsearch.cli.printing.progress import progress_bar
from es_imgsearch.errors import EXIT_DIFFERENCE, UsageError, counted

if TYPE_CHECKING:
    from es_imgsearch.settings import Settings


@click.command(
    epilog=examples("describe", "describe --only tags", "describe --only exif,colours --json")
)
@with_settings_options
@click.option("--only", metavar="NAME,NAME...", multiple=True,
              help="Only these describers, such as tags,exif.  [default: all]")  # fmt: skip
@json_option
@sigterm_as_ctrl_c()
def describe(settings: Settings, only: tuple[str, ...], as_json: bool) -> None:
    """Run the describers again on stored pictures; every vector stays.

    Tags come from stored vectors; EXIF, colours, hashes and the like from the originals, as far as
    they are on this machine and unchanged. Ends with 1 if something could not be described.
    """
    from dataclasses import asdict

    from es_imgsearch.manage.redescribe import redescribe_pictures

    started = time.monotonic()
    names = [name for each in only for name in each.split(",") if name]
    if only and not names:
        raise UsageError(
            "--only names no describer: give some, such as tags,exif, or leave it out."
        )
    with progress_bar("pictures") as advance:
        done = redescribe_pictures(open_store(settings), settings, only=names, on_progress=advance)
    if as_json:
        print_json(asdict(done))
    words = [f"{done.written:,} of {counted(done.pictures, 'picture')} written"]
    for number, what in (
        (done.elsewhere, "with no original on this machine"),
        (done.changed, "whose file has changed: run sync"),
        (done.unreadable, "whose file cannot be read"),
        (done.with_errors, "with a describer that failed (describe_errors)"),
        (len(done.refused), "refused"),
    ):
        if number:
            words.append(f"{number} {what}")
    seconds = time.monotonic() - started
    click.echo(f"{', '.join(done.describers)}: {'; '.join(words)}, in {seconds:.1f} s.", err=True)
    for image_id, reason in list(done.refused.items())[:3]:
        click.echo(f"  {image_id}: {reason}", err=True)
    if done.unreadable or done.with_errors or done.refused:
        sys.exit(EXIT_DIFFERENCE)
