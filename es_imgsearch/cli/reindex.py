"""`reindex`: change the encoder or the profile without an outage."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from es_imgsearch.cli.options import (
    Choice,
    examples,
    json_option,
    open_store,
    sigterm_as_ctrl_c,
    with_settings_options,
    workers_option,
)
from es_imgsearch.cli.printing.lines import print_json
from es_imgsearch.cli.printing.progress import progress_bar
from es_imgsearch.errors import EXIT_DIFFERENCE, UsageError, counted

if TYPE_CHECKING:
    from es_imgsearch.manage.reindex.run import ReindexResult
    from es_imgsearch.settings import Settings


@click.command(
    epilog=examples(
        "reindex --encoder google/siglip2-base-patch16-224",
        "reindex --profile compact",
        "reindex --preload auto",
        "reindex --back",
        "reindex --drop-old",
    )
)
@with_settings_options
@click.option("--encoder", metavar="NAME", help="Encoder from now on.  [default: as it is]")
@click.option("--profile", metavar="NAME", help="Vector profile from now on.  [default: as it is]")
@click.option("--sample", metavar="FROM", help="Where `reduced` takes a sample of vectors: another"
              " index, or a file that `export` wrote.  [default: the index itself]")  # fmt: skip
@click.option("--dims-kept", metavar="N", type=int, help="How many dims `reduced` keeps."
              "  [default: 96]")  # fmt: skip
@click.option("--shards", metavar="N", type=click.IntRange(1, 1024), help="Shards from now on."
              "  [default: as it is]")  # fmt: skip
@click.option("--preload", type=Choice(["auto", "off"]), help="Whether opened shards read"
              " graphs and quantised vectors into memory; auto: where they fit.  [default: auto,"
              " unless off was chosen before]")  # fmt: skip
@click.option("--max-missing-share", metavar="SHARE", type=click.FloatRange(0, 1), default=0.01,
              show_default=True, help="Do not switch when more than this share of the pictures"
              " could not be carried over.")  # fmt: skip
@workers_option
@click.option("--back", is_flag=True, help="Return to the generation before, brought up to date.")
@click.option("--drop-old", is_flag=True, help="Delete the generation before.")
@click.option("--cancel", is_flag=True, help="Give up a reindex that has not ended.")
@json_option
@sigterm_as_ctrl_c()
def reindex(
    settings: Settings,
    profile: str | None,
    sample: str | None,
    dims_kept: int | None,
    shards: int | None,
    preload: str | None,
    max_missing_share: float,
    back: bool,
    drop_old: bool,
    cancel: bool,
    as_json: bool,
) -> None:
    """Change encoder, profile, shards or preload, while searches and daemons go on.

    Without a change, it renews an index of an earlier version, if `status` says so.

    Builds the next generation behind the alias from the originals, compares the two and switches;
    the one before is kept until --drop-old. Run again after an interruption, it goes on; while one
    runs, a second is refused. Ends with 1 if it did not switch, or if pictures are missing in what
    it switched to.
    """
    from es_imgsearch.manage import reindex as migration
    from es_imgsearch.manage.reindex.target import ReindexOptions

    store = open_store(settings)
    options = ReindexOptions(profile, sample, dims_kept, shards, preload)
    is_change = click.get_current_context().params["encoder"] is not None or any(
        each is not None for each in (profile, sample, dims_kept, shards, preload)
    )
    if back + drop_old + cancel + is_change > 1:
        raise UsageError("--back, --drop-old and --cancel go alone, and not with a change.")
    if drop_old:
        click.echo(f"{migration.drop_before(store)} is deleted.", err=True)
        return
    if cancel:
        dropped = migration.cancel(store)
        click.echo(f"{dropped or 'Nothing'} is deleted.", err=True)
        return

    def note(text: str) -> None:
        click.echo(text, err=True)

    with progress_bar("pictures") as advance:
        if back:
            done = migration.go_back(
                store,
                settings,
                max_missing_share=max_missing_share,
                on_progress=advance,
                note=note,
            )
        else:
            done = migration.reindex(
                store,
                settings,
                options,
                max_missing_share=max_missing_share,
                on_progress=advance,
                note=note,
            )
    if as_json:
        print_json(done.to_dict())
    _print_outcome(done, note)
    if not done.switched or done.missing:
        sys.exit(EXIT_DIFFERENCE)


def _print_outcome(done: ReindexResult, note: Callable[[str], None]) -> None:
    for root, reason, number in done.missing:
        note(f"{counted(number, 'picture')} of {root!r} missing in it: {reason}.")
    if not done.switched:
        note(
            f"Not switched: {counted(done.missing_pictures, 'picture')} could not be carried over"
            f" to {done.kept}. Mend that, or run it on the machine that has them, and run it again;"
            " or allow more with --max-missing-share, or give it up with --cancel."
        )
        return
    note(
        f"Switched to {done.serving} in {done.seconds:.1f} s: {counted(done.pictures, 'picture')},"
        f" {done.embedded} embedded; writing was held back for {done.held_back_seconds:.1f} s."
        f" {done.kept} is kept: --back returns to it, --drop-old deletes it."
    )
