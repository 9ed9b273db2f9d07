"""`duplicates`: list files that show the same picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from es_imgsearch.cli.options import examples, json_option, open_store, with_settings_options
from es_imgsearch.cli.printing.lines import print_json, print_line, shown_path

if TYPE_CHECKING:
    from es_imgsearch.duplicates.groups import DuplicateGroup
    from es_imgsearch.settings import Settings


@click.command(
    epilog=examples(
        "duplicates", "duplicates --level same --json", "duplicates --level near --thorough"
    )
)
@with_settings_options
@click.option("--level", type=click.Choice(["same", "near", "similar"]), default="near",
              show_default=True, help="Equal bytes, the same picture, or a like one.")  # fmt: skip
@click.option("--image-id", metavar="ID", help="Only the copies of this picture.")
@click.option("--threshold", type=float, help="Near: the most bits of 64 by which perceptual hashes"
              " may differ; similar: the least cosine.  [default: 12; 0.95]")  # fmt: skip
@click.option("--thorough", is_flag=True, help="Near: compare each picture's nearest by embedding,"
              " too, which finds crops; reads every original.")  # fmt: skip
@json_option
def duplicates(
    settings: Settings,
    level: str,
    image_id: str | None,
    threshold: float | None,
    thorough: bool,
    as_json: bool,
) -> None:
    """List groups of files that show the same picture; nothing is deleted.

    The largest of each group comes first.
    """
    from es_imgsearch.duplicates.find import find_duplicates

    found = find_duplicates(
        open_store(settings),
        level,  # type: ignore[arg-type]
        host=settings.host,
        threshold=threshold,
        image_id=image_id,
        thorough=thorough,
        max_pixels=settings.max_pixels,
    )
    groups = pictures = 0
    listed = []
    for group in found:
        if as_json:
            listed.append(group.to_dict())
        else:
            _print_group(group, is_first=not groups)
        groups += 1
        pictures += len(group.pictures)
    if as_json:
        print_json(listed)
    plural = "s" * (groups != 1)
    summary = f"{groups} group{plural}, {pictures} pictures." if groups else "No duplicates."
    click.echo(summary, err=True)


def _print_group(group: DuplicateGroup, *, is_first: bool) -> None:
    if not is_first:
        print_line("")
    for each in group.pictures:
        size = f"{each.width} x {each.height}"
        place = shown_path(each.root, each.relative_path)
        print_line(f"{size:>13}  {each.state.size_bytes:>11}  {place}")
