"""`export` and `import`: vectors and fields to files and from files."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from es_imgsearch.cli.options import (
    Choice,
    examples,
    filter_option,
    open_store,
    sigterm_as_ctrl_c,
    with_settings_options,
)
from es_imgsearch.cli.printing.progress import progress_bar
from es_imgsearch.errors import EXIT_DIFFERENCE, UsageError, counted
from es_imgsearch.records import path_of

if TYPE_CHECKING:
    from es_imgsearch.manage.transfer.rows import BadRow
    from es_imgsearch.settings import Settings


# Bad rows beyond these are only counted.
_SHOWN_ROWS = 20


def _path(_context: click.Context, _parameter: click.Parameter, given: str | None) -> Path | None:
    return None if given is None else path_of(given)


@click.command(
    "export",
    epilog=examples(
        "export vectors.parquet",
        "export beach.h5 --filter tags=beach --fields tags,taken_at",
        "export s3://bucket/vectors.parquet",
        "export --originals s3://bucket/backup --filter root=photos",
    ),
)
@with_settings_options
@click.argument("file", type=click.Path(), callback=_path, required=False)
@click.option("--originals", metavar="DIR|URL", callback=_path,
              help="Copy the picture files there instead, each as ROOT/PATH.")  # fmt: skip
@click.option("--fields", metavar="NAME,NAME...", multiple=True,
              help="Only these, with root and relative_path.  [default: all]")  # fmt: skip
@filter_option
@click.option("--part-rows", metavar="N", type=click.IntRange(min=1),
              help="Rows of each part at a URL.  [default: 256 MB of vectors]")  # fmt: skip
@sigterm_as_ctrl_c()
def export_command(
    settings: Settings,
    file: Path | None,
    originals: Path | None,
    fields: tuple[str, ...],
    filters: tuple[str, ...],
    part_rows: int | None,
) -> None:
    """Write vectors and fields to FILE (.parquet or .h5).

    Vectors are exactly as the index stores them. FILE appears when it is complete. At a URL, such
    as s3://bucket/vectors.parquet, it is a folder of parts with _SUCCESS in it when they are.

    With --originals the files of the pictures are copied, into a bucket or from one, with their
    sidecars. Nothing there is overwritten, and an export that was interrupted goes on when it is
    run again. Ends with 1 if a file could not be copied.
    """
    from es_imgsearch.cli.exchange.originals import copy_originals
    from es_imgsearch.manage.transfer.export import export_pictures
    from es_imgsearch.search.filters import meant_clauses, parse_filters
    from es_imgsearch.search.request_flow import run_flow

    if (file is None) == (originals is None):
        raise UsageError(
            "Name the file that gets vectors and fields, such as vectors.parquet, or with"
            " --originals where the files of pictures go; not both."
        )
    if originals is not None and (fields or part_rows):
        raise UsageError("--fields and --part-rows are for vectors: leave them or --originals out.")
    started = time.monotonic()
    store = open_store(settings)
    info = store.info()

    flow = meant_clauses(store.index, parse_filters(filters), info.properties)
    clauses, notes = run_flow(flow, store.send)
    for note in notes:
        click.echo(note, err=True)
    names = [name for each in fields for name in each.split(",") if name]
    total = 0 if clauses else store.listings.count()
    if originals is not None:
        copy_originals(store, settings, originals, clauses, total)
    elif file is not None:
        with progress_bar("rows", total) as advance:
            rows = export_pictures(
                store, file, fields=names, filters=clauses, on_page=advance, part_rows=part_rows
            )
        seconds = time.monotonic() - started
        click.echo(f"{counted(rows, 'picture')} to {file} in {seconds:.1f} s.", err=True)


@click.command(
    "import",
    epilog=examples(
        "import vectors.parquet",
        "import embeddings.h5 --root shop --rename sku=product_id",
        "import vectors.parquet --only-new --on-error skip",
        "import s3://bucket/vectors.parquet",
    ),
)
@with_settings_options
@click.argument("file", type=click.Path(), callback=_path)
@click.option("--root", metavar="NAME", help="Root of the rows that name none.")
@click.option("--rename", "renames", metavar="COLUMN=FIELD", multiple=True,
              help="What a column stands for; may be repeated.")  # fmt: skip
@click.option("--unknown-columns", type=Choice(["error", "attributes", "ignore"]),
              default="error", show_default=True, help="Columns that are no fields.")  # fmt: skip
@click.option("--on-error", type=Choice(["stop", "skip"]), default="stop", show_default=True,
              help="At a row that cannot be stored.")  # fmt: skip
@click.option("--only-new", is_flag=True, help="Leave alone what the index has already.")
@click.option("--encoder", metavar="NAME",
              help="Encoder that made the vectors.  [default: from FILE]")  # fmt: skip
@click.option("--profile", metavar="NAME",
              help="Vector profile if an index is made.  [default: from FILE]")  # fmt: skip
@click.option("--ndjson", is_flag=True, help="Send JSON, for a proxy that does not pass SMILE.")
@sigterm_as_ctrl_c()
def import_command(
    settings: Settings,
    file: Path,
    root: str | None,
    renames: tuple[str, ...],
    unknown_columns: str,
    on_error: str,
    only_new: bool,
    profile: str | None,
    ndjson: bool,
) -> None:
    """Store the vectors and fields of FILE (.parquet or .h5), made here or elsewhere.

    FILE may be a URL, of a Parquet file or of a folder of parts.

    Every row needs image_embedding and relative_path (or image_name). An index that does not
    exist is made, and its graphs are built once, at the end. Safe to repeat: a row is always the
    same document. Ends with 1 if a row could not be stored.
    """
    from es_imgsearch.manage.transfer.importing import ImportOptions, import_pictures
    from es_imgsearch.search.reduced import register_imported_originals

    options = ImportOptions(
        root=root,
        names=dict(_renamed(each) for each in renames),
        unknown_columns=unknown_columns,
        skip_bad_rows=on_error == "skip",
        only_new=only_new,
        as_ndjson=ndjson,
        profile=profile,
    )
    started = time.monotonic()
    shown = 0

    def show(bad: BadRow) -> None:
        nonlocal shown
        shown += 1
        if shown <= _SHOWN_ROWS:
            click.echo(f"Row {bad.number}: {bad.reason}.", err=True)

    with progress_bar("rows") as advance:
        done = import_pictures(
            open_store(settings),
            settings,
            file,
            options,
            on_bad_row=show,
            on_progress=lambda done, rows: advance(done.stored + done.bad, rows),
            note=lambda text: click.echo(text, err=True),
        )
    words = [f"{counted(done.stored, 'row')} stored"]
    words += [f"{done.there_already} there already"] * (done.there_already > 0)
    words += [f"{done.bad} could not be"] * (done.bad > 0)
    click.echo(f"{', '.join(words)} in {time.monotonic() - started:.1f} s.", err=True)
    if (note := register_imported_originals(open_store(settings), settings, file)) is not None:
        click.echo(note, err=True)
    if done.bad:
        sys.exit(EXIT_DIFFERENCE)


def _renamed(text: str) -> tuple[str, str]:
    column, equals, name = text.partition("=")
    if not (column and equals and name):
        raise UsageError(f"--rename needs COLUMN=FIELD, not {text!r}.")
    return column, name
