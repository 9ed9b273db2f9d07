"""`duplicates`: list files that show the same picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from es_imgsearch.cli.options import (
    Choice,
    examples,
    json_option,
    open_store,
    with_settings_options,
)
from es_imgsearch.cli.printing.lines import print_json
from es_imgsearch.cli.printing.sheets import check_sheet
from es_imgsearch.errors import UsageError, counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from es_imgsearch.elastic.meta import Meta
    from es_imgsearch.settings import Settings


@click.command(
    epilog=examples(
        "duplicates",
        "duplicates --sheet duplicates.png",
        "duplicates --level same --keep oldest --script > remove.sh",
    )
)
@with_settings_options
@click.option("--level", type=Choice(["same", "near", "similar"]), default="near",
              show_default=True, help="Equal bytes, the same picture, or a like one.")  # fmt: skip
@click.option("--image-id", metavar="ID", help="Only the copies of this picture.")
@click.option("--threshold", type=float, help="Near: the most bits of 64 by which perceptual hashes"
              " may differ; similar: the least cosine.  [default: 12; 0.95]")  # fmt: skip
@click.option("--thorough", is_flag=True, help="Near: compare each picture's nearest by embedding,"
              " too, which finds crops and grey copies; reads every original.")  # fmt: skip
@click.option("--unconfirmed", is_flag=True, help="Near: also group what looks the same by hash and"
              " embedding and whose files are not here to confirm it.")  # fmt: skip
@click.option("--keep", type=Choice(["largest", "oldest", "newest"]), default="largest",
              show_default=True, help="The file of each group that comes first, of those with the"
              " most pixels.")  # fmt: skip
@click.option("--sheet", type=click.Path(path_type=Path), metavar="FILE",
              help="Write a contact sheet of the groups (PNG).")  # fmt: skip
@click.option("--script", is_flag=True, help="Print a shell script that removes all files but the"
              " first of each group; none with more pixels than that.")  # fmt: skip
@json_option
def duplicates(
    settings: Settings,
    level: str,
    image_id: str | None,
    threshold: float | None,
    thorough: bool,
    unconfirmed: bool,
    keep: str,
    sheet: Path | None,
    script: bool,
    as_json: bool,
) -> None:
    """List groups of files that show the same picture; nothing is deleted.

    The group that frees most space comes first, and in each group the original: of the files here
    with the most pixels the largest one, the oldest or the newest.
    """
    from es_imgsearch.cli.printing import groups as printing
    from es_imgsearch.duplicates.find import find_duplicates
    from es_imgsearch.duplicates.report import summary

    _check_output(level, thorough, unconfirmed, script, as_json)
    if sheet is not None:
        check_sheet(sheet)
    store = open_store(settings)
    found = find_duplicates(
        store,
        level,  # type: ignore[arg-type]
        host=settings.host,
        threshold=threshold,
        image_id=image_id,
        thorough=thorough,
        unconfirmed=unconfirmed,
        max_pixels=settings.max_pixels,
        keep=keep,  # type: ignore[arg-type]
    )
    groups = sorted(found, key=lambda group: -group.reclaimable_bytes)
    if script:
        printing.print_script(groups)
    elif as_json:
        print_json([group.to_dict() for group in groups])
    else:
        printing.print_groups(groups)
    if sheet is not None and groups:
        printing.write_group_sheet(groups, sheet)
    click.echo(summary(groups), err=True)
    if found.left_out:
        _print_left_out(found.left_out, store.info().meta, settings)
    if found.unconfirmed and not unconfirmed:
        _print_unconfirmed(found.unconfirmed, settings.index)


def _check_output(
    level: str, thorough: bool, unconfirmed: bool, script: bool, as_json: bool
) -> None:
    if script and as_json:
        raise UsageError("Give --script or --json, not both.")
    if script and (level == "similar" or thorough or unconfirmed):
        raise UsageError(
            "--script removes only files whose bytes or pixels were compared: leave"
            " --level similar, --thorough and --unconfirmed out."
        )


def _print_left_out(left_out: Mapping[str, str], meta: Meta, settings: Settings) -> None:
    from es_imgsearch.watch.commands import command_line, given, walk_options
    from es_imgsearch.watch.roots import registered_root

    roots = [registered_root(name, meta) for name in sorted(set(left_out.values()))]
    folders = [given(root) for root in roots if root is not None]
    options = [*walk_options(settings), "--index", settings.index]
    click.echo(
        f"{counted(len(left_out), 'file was', 'files were')} left out, gone or changed since"
        " indexed. To bring the index up to date:"
        f" {command_line(['sync'], folders, options)}",
        err=True,
    )


def _print_unconfirmed(pairs: int, index: str) -> None:
    click.echo(
        f"{counted(pairs, 'pair looks', 'pairs look')} the same by what is stored, but a file of it"
        " is not on this host or cannot be read, so nothing confirms that. To list them too:"
        f" es-imgsearch duplicates --unconfirmed --index {index}",
        err=True,
    )
