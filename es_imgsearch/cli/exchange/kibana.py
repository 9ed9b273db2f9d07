"""`kibana`: dashboards, sessions and saved vector searches for Kibana."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from es_imgsearch.cli.options import (
    F,
    Group,
    examples,
    json_option,
    open_store,
    with_settings_options,
)
from es_imgsearch.cli.printing.access import warn_of_password
from es_imgsearch.cli.printing.lines import print_json, print_line
from es_imgsearch.errors import EXIT_DIFFERENCE, IndexMissing, UsageError
from es_imgsearch.files.whole import write_whole

if TYPE_CHECKING:
    from es_imgsearch.kibana.objects import SavedObject
    from es_imgsearch.settings import Settings


_service_option = click.option(
    "--service-url", metavar="URL", help="Where browsers reach `es-imgsearch serve`."
)
_kibana_options = (
    click.option(
        "--kibana-url",
        metavar="URL",
        callback=warn_of_password,
        help="Address of Kibana.  [KIBANA_URL]",
    ),
    click.option("--space", metavar="NAME", help="Space to import into.  [default: default]"),
    click.option(
        "--wait-seconds",
        type=click.FloatRange(min=0),
        default=60.0,
        show_default=True,
        help="How long Kibana may take until it is ready.",
    ),
)


_NO_LOG = (
    "Left out the dashboard on searches, since there is no index {!r}: set log_searches = true, run"
    " `es-imgsearch init`, and build again."
)
_overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace objects that are there already."
)


def _with_kibana_options(function: F) -> F:
    for option in reversed(_kibana_options):
        function = option(function)
    return function


@click.group(cls=Group)
def kibana() -> None:
    """Build and import dashboards, sessions and vector searches for Kibana 8.19."""


@kibana.command(
    epilog=examples(
        "kibana build --output images.ndjson", "kibana build --no-searches > images.ndjson"
    )
)
@with_settings_options
@_service_option
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE",
              help="Write here.  [default: standard output]")  # fmt: skip
@click.option("--no-searches", is_flag=True,
              help="No vector searches; needs neither Elasticsearch nor a model.")  # fmt: skip
def build(settings: Settings, output: Path | None, no_searches: bool) -> None:
    """Write every saved object for the index, as NDJSON for Kibana to import."""
    from es_imgsearch.kibana.objects import to_ndjson

    objects = _built(settings, with_searches=not no_searches)
    content = to_ndjson(objects)
    if output is None:
        print_line(content.decode().rstrip("\n"))
    else:
        _write(output, content)
    click.echo(f"{len(objects)} saved objects for index {settings.index!r}.", err=True)


@kibana.command(
    epilog=examples(
        "kibana check images.ndjson", "kibana check images.ndjson --index products --json"
    )
)
@with_settings_options
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def check(settings: Settings, file: Path, as_json: bool) -> None:
    """List what Kibana would refuse in a file or could not open; ends with 1 if any.

    Fields are compared with the mapping of the index that the file was built for, or where there is
    none with the mapping of a new index.  What `save-search --output` wrote may refer to the
    objects of `kibana build`, which have to be imported before.
    """
    from dataclasses import asdict

    from es_imgsearch.kibana.build import create_builder, detect_index, is_addition
    from es_imgsearch.kibana.check import find_problems, parse_ndjson
    from es_imgsearch.settings import changed_settings

    objects = parse_ndjson(_read(file))
    if "index" not in settings.model_fields_set:
        settings = changed_settings(settings, index=detect_index(objects))
    types, indices = _fields_and_indices(settings)
    known = create_builder(settings).build_all() if is_addition(objects) else []
    problems = find_problems(objects, types, known=known, indices=indices)
    if as_json:
        print_json([asdict(each) for each in problems])
    else:
        for each in problems:
            print_line(str(each))
    found = f"{len(problems) or 'No'} problem{'s' * (len(problems) != 1)}"
    click.echo(f"{found} in {len(objects)} saved objects.", err=True)
    if problems:
        sys.exit(EXIT_DIFFERENCE)


@kibana.command(
    "import",
    epilog=examples("kibana import", "kibana import images.ndjson --space photos --overwrite"),
)
@with_settings_options
@_service_option
@_with_kibana_options
@_overwrite_option
@click.argument("file", type=click.Path(path_type=Path), required=False)
def import_command(
    settings: Settings, file: Path | None, space: str | None, overwrite: bool, wait_seconds: float
) -> None:
    """Import a file into Kibana; without FILE, the output of `kibana build`."""
    from es_imgsearch.kibana.objects import to_ndjson

    content = _read(file) if file is not None else to_ndjson(_built(settings, with_searches=True))
    _import(settings, content, space, overwrite=overwrite, wait_seconds=wait_seconds)


@kibana.command(
    "save-search",
    epilog=examples(
        'kibana save-search "sunset over the sea"',
        "kibana save-search --image holiday.jpg --title Holidays",
    ),
)
@with_settings_options
@_service_option
@_with_kibana_options
@click.argument("text", required=False)
@click.option("--image", type=click.Path(path_type=Path), metavar="FILE",
              help="Pictures like this one.")  # fmt: skip
@click.option("--title", metavar="TEXT", help="What the search is called.  [default: the words]")
@click.option("--min-relevance", type=click.FloatRange(0, 1), default=0.1, show_default=True,
              metavar="P", help="Leave out pictures of less relevance.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE",
              help="Write the objects here instead of importing them.")  # fmt: skip
def save_search(
    settings: Settings,
    text: str | None,
    image: Path | None,
    title: str | None,
    min_relevance: float,
    output: Path | None,
    space: str | None,
    wait_seconds: float,
) -> None:
    """Save a search by words or picture in Kibana: a gallery, a session and a query.

    The vector is made now; saving the same title again replaces it.
    """
    from es_imgsearch.kibana.build import create_builder, vectorise_query
    from es_imgsearch.kibana.objects import to_ndjson
    from es_imgsearch.search.client import ImageSearch

    with ImageSearch(settings=settings) as client:
        builder = create_builder(settings, client.info.properties)
        query = vectorise_query(client, text, image, title, min_relevance)
    content = to_ndjson(builder.build_query(query))
    if output is not None:
        _write(output, content)
        return
    _import(settings, content, space, overwrite=True, wait_seconds=wait_seconds)


def _built(settings: Settings, *, with_searches: bool) -> list[SavedObject]:
    from es_imgsearch.elastic.mapping import Companion
    from es_imgsearch.kibana.build import create_builder, has_searches, vectorise_queries
    from es_imgsearch.search.client import ImageSearch

    if not with_searches:
        builder = create_builder(settings)
        # Nobody is asked whether there is an index of searches.
        return (builder if settings.log_searches else builder.without_searches()).build_all()
    with ImageSearch(settings=settings) as client:
        builder = create_builder(settings, client.info.properties)
        if not has_searches(open_store(settings), default=settings.log_searches):
            builder = builder.without_searches()
            click.echo(_NO_LOG.format(Companion.SEARCHES.alias(settings.index)), err=True)
        return builder.build_all(vectorise_queries(client, builder.sources.queries))


def _fields_and_indices(settings: Settings) -> tuple[Any, set[str] | None]:
    """Read the fields of each index, and which exist; without one, a new index's."""
    from es_imgsearch.errors import StoreError
    from es_imgsearch.kibana.build import existing_indices, index_field_types

    try:
        store = open_store(settings)
        return index_field_types(settings, store.info().properties), existing_indices(store)
    except (IndexMissing, StoreError) as error:
        click.echo(f"Compared with the mapping of a new index: {error}", err=True)
        return index_field_types(settings), None


def _import(
    settings: Settings, content: bytes, space: str | None, *, overwrite: bool, wait_seconds: float
) -> None:
    from es_imgsearch.kibana.upload import Kibana

    there = Kibana(settings, space)
    there.wait(wait_seconds)
    imported = there.import_objects(content, overwrite=overwrite)
    click.echo(
        f"{imported.written} saved objects in Kibana at {there.address}"
        f"{f', space {space}' if space else ''}, {imported.replaced} of them replaced.",
        err=True,
    )


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{str(file)!r} cannot be read: {error.strerror}.") from error


def _write(file: Path, content: bytes) -> None:
    try:
        write_whole(file, content)
    except OSError as error:
        raise UsageError(f"{str(file)!r} cannot be written: {error.strerror}.") from error
