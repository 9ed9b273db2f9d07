"""`search` and `similar`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from es_imgsearch.cli.shared import json_option, print_json, print_line, with_settings_options
from es_imgsearch.errors import UsageError

if TYPE_CHECKING:
    from es_imgsearch.search import Hits, Query
    from es_imgsearch.settings import Settings


@click.command()
@with_settings_options
@click.argument("text", nargs=-1)
@click.option("--image", type=click.Path(path_type=Path), help="Search with this picture.")
@click.option("--box", metavar="X,Y,W,H", help="Only this part of it, in pixels.")
@click.option("--not", "unwanted", metavar="TEXT", multiple=True, help="Away from these words.")
@click.option("-k", default=10, show_default=True, help="How many hits.")
@click.option("--num-candidates", type=int, help="Neighbours weighed a shard.  [default: as tuned]")
@click.option("--filter", "filters", metavar="FIELD=VALUE", multiple=True,
              help="Only pictures with this value; may be repeated.")  # fmt: skip
@click.option("--since", metavar="DATE", help="Taken on this day or later.")
@click.option("--until", metavar="DATE", help="Taken on this day or earlier.")
@click.option("--exact", is_flag=True, help="Compare every picture, walk no graph.")
@json_option
@click.option("--sheet", type=click.Path(path_type=Path), help="Write a contact sheet (PNG).")
def search(
    settings: Settings,
    text: tuple[str, ...],
    image: Path | None,
    box: str | None,
    unwanted: tuple[str, ...],
    k: int,
    num_candidates: int | None,
    filters: tuple[str, ...],
    since: str | None,
    until: str | None,
    exact: bool,
    as_json: bool,
    sheet: Path | None,
) -> None:
    """Find pictures by words, by a picture, or by both."""
    from es_imgsearch.queries import parse_filters
    from es_imgsearch.search import ImageSearch

    wanted: list[Query] = []
    if text:
        wanted.append(" ".join(text))
    if image is not None:
        wanted.append(image)
    if not wanted:
        raise UsageError("Give words to search for, or a picture with --image FILE.")
    if box is not None and image is None:
        raise UsageError("--box is a part of the picture given with --image.")
    hits = ImageSearch(settings=settings).search(
        wanted,
        list(unwanted),
        k,
        box=None if box is None else _parse_box(box),
        num_candidates=num_candidates,
        filters=parse_filters(filters),
        since=since,
        until=until,
        exact=exact,
    )
    show_hits(hits, as_json, sheet)


@click.command()
@with_settings_options
@click.argument("image_id")
@click.option("-k", default=10, show_default=True, help="How many hits.")
@click.option("--filter", "filters", metavar="FIELD=VALUE", multiple=True,
              help="Only pictures with this value; may be repeated.")  # fmt: skip
@json_option
@click.option("--sheet", type=click.Path(path_type=Path), help="Write a contact sheet (PNG).")
def similar(
    settings: Settings,
    image_id: str,
    k: int,
    filters: tuple[str, ...],
    as_json: bool,
    sheet: Path | None,
) -> None:
    """Find pictures like a stored one; loads no model."""
    from es_imgsearch.queries import parse_filters
    from es_imgsearch.search import ImageSearch

    hits = ImageSearch(settings=settings).similar(image_id, k, filters=parse_filters(filters))
    show_hits(hits, as_json, sheet)


def _parse_box(text: str) -> tuple[float, float, float, float]:
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--box is four numbers X,Y,W,H in pixels, not {text!r}.") from None
    return x, y, width, height


def show_hits(hits: Hits, as_json: bool, sheet: Path | None) -> None:
    if as_json:
        print_json([hit.to_dict() for hit in hits])
    for hit in () if as_json else hits:
        print_line(f"{hit.score:6.3f}  {hit.root}/{hit.relative_path}")
    if not hits and not as_json:
        click.echo("Nothing found.", err=True)
    if sheet is None:
        return
    try:
        hits.sheet().save(sheet)
    except (OSError, ValueError) as error:
        raise UsageError(f"The sheet {str(sheet)!r} cannot be written: {error}.") from error
    click.echo(f"Wrote {sheet}.", err=True)
