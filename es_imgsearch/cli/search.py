"""`search` and `similar`: find pictures, print them, draw a contact sheet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from es_imgsearch.cli.options import examples, json_option, parse_box, with_settings_options
from es_imgsearch.cli.output import print_json, print_line, shown_path
from es_imgsearch.errors import UsageError

if TYPE_CHECKING:
    from es_imgsearch.search.hits import Hits
    from es_imgsearch.search.options import SearchOptions
    from es_imgsearch.search.query import Query
    from es_imgsearch.settings import Settings


F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("-k", default=10, show_default=True, help="How many hits."),
    click.option("--offset", default=0, metavar="N", help="Skip the first N of the k hits."),
    click.option("--size", type=int, metavar="N", help="Show no more than N of the k hits."),
    click.option("--min-relevance", type=float, metavar="P",
                 help="Only hits that are right with at least this probability, 0 to 1."),
    click.option("--num-candidates", type=int,
                 help="Candidates to examine on each shard.  [default: as tuned]"),
    click.option("--filter", "filters", metavar="FIELD=VALUE", multiple=True,
                 help="Only pictures with this value, in any case; may be repeated."),
    click.option("--since", metavar="DATE",
                 help="Taken on this day or later, by the camera's own clock."),
    click.option("--until", metavar="DATE",
                 help="Taken on this day or earlier, by the camera's own clock."),
    click.option("--weights", metavar="PART=W,...",
                 help="How much each vector counts, such as content=0.7,colour=0.3."),
    click.option("--collapse", is_flag=True,
                 help="Show only the best of files with the same content."),
    click.option("--facets", metavar="FIELD,...",
                 help="Count the values of these fields, or of year."),
    click.option("--explain", is_flag=True, help="Show how each score was computed."),
    click.option("--regions", is_flag=True,
                 help="Also compare with parts of pictures (needs an index with regions)."),
    click.option("--codes", is_flag=True,
                 help="Find candidates by binary codes (needs an index with codes)."),
    click.option("--exact", is_flag=True,
                 help="Compare with every picture instead of searching the HNSW graph."),
    json_option,
    click.option("--sheet", type=click.Path(path_type=Path), help="Write a contact sheet (PNG)."),
)  # fmt: skip


def _with_search_options(function: F) -> F:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@click.command(
    epilog=examples(
        'search "a dog on the beach"',
        'search "a red car" --not people --since 2024-01-01 -k 20',
        "search --image holiday.jpg --box 120,80,300,300 --sheet found.png",
        "search sunset --filter folder=2024 --json",
    )
)
@with_settings_options
@click.argument("text", nargs=-1)
@click.option("--image", type=click.Path(path_type=Path), help="Search with this picture.")
@click.option("--box", metavar="X,Y,W,H", help="Only this part of it, in pixels.")
@click.option("--not", "unwanted", metavar="TEXT", multiple=True,
              help="Rank pictures like these words lower; may be repeated.")  # fmt: skip
@click.option("--mode", type=click.Choice(["vector", "text", "hybrid"]), default="vector",
              show_default=True,
              help="Compare vectors, search the words of stored fields, or both.")  # fmt: skip
@_with_search_options
def search(
    settings: Settings,
    text: tuple[str, ...],
    image: Path | None,
    box: str | None,
    unwanted: tuple[str, ...],
    **options: Any,
) -> None:
    """Find pictures by words, by a picture, or by both."""
    from es_imgsearch.search.client import ImageSearch

    wanted: list[Query] = []
    if text:
        wanted.append(" ".join(text))
    if image is not None:
        wanted.append(image)
    if not wanted:
        raise UsageError("Give words to search for, or a picture with --image FILE.")
    if box is not None and image is None:
        raise UsageError("--box is a part of the picture given with --image.")
    corners = None if box is None else parse_box(box)
    k, as_json, sheet, rest = _parsed(options)
    client = ImageSearch(settings=settings)
    hits = client.search(wanted, list(unwanted), k, box=corners, **rest)
    show_hits(hits, as_json, sheet)


@click.command(
    epilog=examples("similar 5b0a1c6f7d2e4f90", "similar 5b0a1c6f7d2e4f90 -k 50 --collapse --json")
)
@with_settings_options
@click.argument("image_id")
@_with_search_options
def similar(settings: Settings, image_id: str, **options: Any) -> None:
    """Find pictures like a stored one; loads no model."""
    from es_imgsearch.search.client import ImageSearch

    k, as_json, sheet, rest = _parsed(options)
    hits = ImageSearch(settings=settings).similar(image_id, k, **rest)
    show_hits(hits, as_json, sheet)


def _parsed(options: dict[str, Any]) -> tuple[int, bool, Path | None, SearchOptions]:
    """Split the options into k, --json, --sheet, and those that the client takes."""
    from es_imgsearch.search.filters import parse_filters

    k, as_json, sheet = (options.pop(name) for name in ("k", "as_json", "sheet"))
    options["filters"] = parse_filters(options["filters"])
    options["facets"] = list(filter(None, (options["facets"] or "").split(",")))
    if options["weights"] is not None:
        options["weights"] = _parse_weights(options["weights"])
    rest: SearchOptions = options  # type: ignore[assignment]
    return k, as_json, sheet, rest


def _parse_weights(text: str) -> dict[str, float]:
    try:
        pairs = (part.split("=") for part in text.split(","))
        return {name.strip(): float(weight) for name, weight in pairs}
    except ValueError:
        raise UsageError(
            f"--weights are written like content=0.7,colour=0.3, not {text!r}."
        ) from None


def show_hits(hits: Hits, as_json: bool, sheet: Path | None) -> None:
    """Print hits on standard output; notes and facets on standard error."""
    if as_json:
        print_json([hit.to_dict() for hit in hits])
    for hit in () if as_json else hits:
        box = "" if hit.matched_box is None else f"  {list(hit.matched_box)}"
        print_line(f"{hit.score:6.3f}  {shown_path(hit.root, hit.relative_path)}{box}")
        if hit.explanation is not None:
            print_line(f"        {_explained(hit.explanation)}")
    for note in hits.notes:
        click.echo(note, err=True)
    for name, counts in hits.facets.items():
        shown = ", ".join(f"{value} ({count})" for value, count in counts.items())
        click.echo(f"{name}: {shown or 'none'}", err=True)
    if not hits and not as_json:
        click.echo("Nothing found.", err=True)
    if sheet is None:
        return
    drawn = hits.sheet()
    try:
        drawn.save(sheet)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or f"{error}; end its name in .png"
        raise UsageError(f"The sheet {str(sheet)!r} cannot be written: {why}.") from error
    from es_imgsearch.search.sheet import MISSING_LETTERS

    if missing := drawn.info.get(MISSING_LETTERS):
        click.echo(missing, err=True)
    click.echo(f"Wrote {sheet}.", err=True)


def _explained(explanation: Any) -> str:
    """Format one line: shares that add up to the score, then the cosine of each query."""
    words = [
        f"{name} {part['cosine']:.3f} x {part['weight']:.2f} = {part['share']:.3f}"
        for name, part in explanation.get("parts", {}).items()
    ]
    words += [
        f"{name} rank {rank or 'none'}: {explanation['shares'][name]:.4f}"
        for name, rank in explanation.get("ranks", {}).items()
    ]
    if explanation.get("bm25") is not None:
        words.append(f"BM25 {explanation['bm25']:.2f}")
    words += [f"{each['query']!r}: {each['cosine']:.3f}" for each in explanation.get("queries", ())]
    return "; ".join(words)
