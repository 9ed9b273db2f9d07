"""`search` and `similar`: find pictures in the index, and print them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from es_imgsearch.cli.options import (
    Choice,
    dates_of,
    examples,
    filter_option,
    import_client,
    parse_box,
    paths_of,
    since_option,
    until_option,
    when_option,
    with_output_options,
    with_settings_options,
)
from es_imgsearch.cli.printing.hits import HitsOutput
from es_imgsearch.cli.serving.service import found, service_options
from es_imgsearch.errors import ImageMissing, UsageError
from es_imgsearch.records import is_url, path_of

if TYPE_CHECKING:
    from es_imgsearch.search.client import ImageSearch
    from es_imgsearch.search.hits import Hits
    from es_imgsearch.search.options import SearchOptions
    from es_imgsearch.search.query import Query
    from es_imgsearch.search.remote.service_search import ServiceSearch
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
    filter_option,
    since_option,
    until_option,
    when_option,
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
    *service_options,
)  # fmt: skip


def _with_search_options(function: F) -> F:
    for option in reversed(_OPTIONS):
        function = option(function)
    return with_output_options(function)


@click.command(
    epilog=examples(
        'search "a dog on the beach"',
        'search "a red car" --not people --since 2024-01-01 -k 20',
        "search holiday.jpg --box 120,80,300,300 --preview",
        "search sunset -0 | xargs -0 cp -t chosen/",
    )
)
@with_settings_options
@click.argument("text", nargs=-1, shell_complete=paths_of("file"))
@click.option("--image", metavar="FILE", shell_complete=paths_of("file"),
              help="Search with this picture; - reads it from standard input.")  # fmt: skip
@click.option("--box", metavar="X,Y,W,H", help="Only this part of it, in pixels.")
@click.option("--not", "unwanted", metavar="TEXT", multiple=True,
              help="Rank pictures like these words lower; may be repeated.")  # fmt: skip
@click.option("--mode", type=Choice(["auto", "vector", "text", "hybrid"]),
              default="auto", show_default=True,
              help="Compare vectors, search the words of stored fields, or both; auto does both"
              " where they match words.")  # fmt: skip
@_with_search_options
def search(
    settings: Settings,
    text: tuple[str, ...],
    image: str | None,
    box: str | None,
    unwanted: tuple[str, ...],
    output: HitsOutput,
    **options: Any,
) -> None:
    """Find pictures by words, by a picture, or by both.

    TEXT is words, picture files, or both.
    """
    words, pictures = words_and_pictures(text)
    wanted: list[Query] = [" ".join(words)] if words else []
    wanted += map(Path, pictures)
    if image is not None:
        wanted.append(sys.stdin.buffer.read() if image == "-" else Path(image))
    if not wanted:
        raise UsageError("Give words to search for, or a picture with --image FILE.")
    if box is not None and len(wanted) - bool(words) != 1:
        raise UsageError("--box is a part of one picture: give one, as FILE or --image FILE.")
    corners = None if box is None else parse_box(box)
    k, rest = parsed_options(options)

    def ask(client: ImageSearch | ServiceSearch) -> Hits:
        return client.search(wanted, list(unwanted), k, box=corners, **rest)

    # Colours of a picture are compared by its own pixels, of which a service gets fewer.
    has_colours = rest.get("weights") is not None and len(wanted) > bool(words)
    output.show(found(settings, ask, is_local=has_colours))


def words_and_pictures(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words, and the picture files that were given among them.

    Raises UsageError for a word that looks like a filter.
    """
    if len(given) == 1:
        only, picture = words_or_picture(given[0])
        words, pictures = [*only], [] if picture is None else [picture]
    else:
        pictures = [each for each in given if _has_suffix(each) and os.path.isfile(each)]
        words = [each for each in given if each not in pictures]
    if not any("=" in each for each in words):
        return words, pictures
    import_client()
    from es_imgsearch.elastic.mapping import load_json

    fields = load_json("mappings", "common.json")["mappings"]["properties"]
    for each in words:
        field, equals, value = each.partition("=")
        if equals and value and field.removesuffix("!") in fields:
            raise UsageError(f"{each!r} looks like a filter: write --filter {each!r}.")
    return words, pictures


def _has_suffix(given: str) -> bool:
    """Whether this ends as the name of a picture does."""
    suffix = os.path.splitext(given)[1].lower()
    if not suffix or " " in suffix:
        return False
    # Decoders take 0.1 s to import, which words do not wait for.
    from es_imgsearch.read.decoding import PICTURE_SUFFIXES

    return suffix in PICTURE_SUFFIXES


def words_or_picture(given: str) -> tuple[tuple[str, ...], str | None]:
    """Return the words, and the picture file that was given in their place.

    Words that look like the path of a picture that is missing are asked about, or without a
    terminal noted on standard error.
    """
    if os.path.isfile(given):
        return (), given
    if _has_suffix(given) or given.startswith((os.sep, f".{os.sep}", f"~{os.sep}")):
        missing = f"There is no file {given!r}."
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            click.echo(f"{missing} Searching for these words.", err=True)
        elif not click.confirm(f"{missing} Search for these words?", err=True):
            raise UsageError(f"{missing} Give the path of a picture, or other words.")
    return (given,), None


@click.command(
    epilog=examples(
        "similar 5b0a1c6f7d2e4f905b0a1c6f7d2e4f90",
        "similar ~/Pictures/beach.jpg --preview",
        "similar 5b0a1c6f7d2e4f905b0a1c6f7d2e4f90 -k 50 --collapse --json",
    )
)
@with_settings_options
@click.argument("picture", metavar="IMAGE_ID|FILE", shell_complete=paths_of("file"))
@_with_search_options
def similar(settings: Settings, picture: str, output: HitsOutput, **options: Any) -> None:
    """Find pictures like a stored one, or like a file.

    Of a stored picture, which may be given by its URL, the stored vector is used, and no model is
    loaded.
    """
    k, rest = parsed_options(options)
    if is_url(picture):
        import_client()
        from es_imgsearch.search.client import ImageSearch

        picture = _stored_id(ImageSearch(settings=settings), settings, picture) or picture
    if not os.path.isfile(picture):
        try:
            output.show(
                found(settings, lambda client: client.similar(picture, k, **rest), is_local=False)
            )
        except ImageMissing as error:
            raise ImageMissing(
                f"{error} There is no file of that name either: give the path of a picture, or an"
                " id, as `search --ids` prints them."
            ) from error
        return
    if settings.service not in {"auto", "none"}:
        # Only Elasticsearch says which id a file has.
        output.show(
            found(
                settings, lambda client: client.search([Path(picture)], k=k, **rest), is_local=False
            )
        )
        return
    import_client()
    from es_imgsearch.search.client import ImageSearch

    client = ImageSearch(settings=settings)
    stored = _stored_id(client, settings, picture)
    # A file in a root may be not indexed yet, or left out.
    with suppress(ImageMissing):
        if stored is not None:
            output.show(client.similar(stored, k, **rest))
            return
    output.show(client.search([Path(picture)], k=k, **rest))


def _stored_id(client: ImageSearch, settings: Settings, picture: str) -> str | None:
    """Return the id that a file has in the index; None outside the roots of this host."""
    from es_imgsearch.records import image_id
    from es_imgsearch.watch.roots import root_of_path

    path = path_of(picture) if is_url(picture) else Path(picture).resolve()
    root = root_of_path(path, client.info.meta, settings.host)
    return None if root is None else image_id(root.name, os.path.relpath(path, root.path))


def parsed_options(options: dict[str, Any]) -> tuple[int, SearchOptions]:
    """Split the options into k and those that the client takes."""
    k = options.pop("k")
    dates_of(options)
    if options["filters"]:
        from es_imgsearch.search.filtering.given import parse_filters

        options["filters"], options["without"] = parse_filters(options["filters"])
    else:
        options["filters"] = None
    options["facets"] = list(filter(None, (options["facets"] or "").split(",")))
    if options["weights"] is not None:
        options["weights"] = _parse_weights(options["weights"])
    rest: SearchOptions = options  # type: ignore[assignment]
    return k, rest


def _parse_weights(text: str) -> dict[str, float]:
    try:
        pairs = (part.split("=") for part in text.split(","))
        return {name.strip(): float(weight) for name, weight in pairs}
    except ValueError:
        raise UsageError(
            f"--weights are written like content=0.7,colour=0.3, not {text!r}."
        ) from None
