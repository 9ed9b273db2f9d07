"""`find`: make the index if there is none, bring it up to date, search it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from es_imgsearch.cli.options import (
    dates_of,
    describers_option,
    examples,
    filter_option,
    open_store,
    paths_of,
    sigterm_as_ctrl_c,
    since_option,
    until_option,
    when_option,
    with_output_options,
    with_settings_options,
)
from es_imgsearch.cli.printing.hits import HitsOutput
from es_imgsearch.cli.printing.lines import print_on_request
from es_imgsearch.cli.printing.progress import print_costs, progress
from es_imgsearch.cli.search import words_or_picture
from es_imgsearch.cli.watch import first_load, in_each_generation, open_indexer
from es_imgsearch.errors import IndexMissing, RootError, StoreUnreachable, UsageError, counted

if TYPE_CHECKING:
    from es_imgsearch.elastic.store import Store
    from es_imgsearch.pipeline.jobs import Counts
    from es_imgsearch.records import Root
    from es_imgsearch.search.hits import Hits
    from es_imgsearch.search.query import Query
    from es_imgsearch.settings import Settings

# Of one request.
_MOST_HITS = 10_000


@click.command(
    epilog=examples(
        'find "a cat" ~/Pictures',
        "find holiday.jpg ~/Pictures /mnt/nas/photos --preview",
        'find "red shoes" ~/Pictures/2024 -k 30 --paths',
    )
)
@with_settings_options
@click.argument("query", metavar="TEXT|FILE", shell_complete=paths_of("file"))
@click.argument("folders", metavar="DIR...", nargs=-1, shell_complete=paths_of("dir"))
@click.option("-k", default=10, show_default=True, help="How many hits.")
@filter_option
@since_option
@until_option
@when_option
@describers_option
@with_output_options
@sigterm_as_ctrl_c()
def find(
    settings: Settings,
    query: str,
    folders: tuple[str, ...],
    k: int,
    filters: tuple[str, ...],
    output: HitsOutput,
    **dates: str | None,
) -> None:
    """Find pictures in folders with one command.

    Makes the index if there is none, indexes what is new in the folders, then searches them by
    words or by a picture.  A file that cannot be read is noted, and the rest is searched.
    """
    if not folders:
        raise UsageError("Name the folders to search behind the words, such as ~/Pictures.")
    _check_folders(folders)
    given = _parse_filters(filters)
    dates_of(dates)
    words, picture = words_or_picture(query)
    try:
        store = open_store(settings)
        _make_index(store, settings)
        places = _places(store, settings, folders)
        counts = in_each_generation(settings, lambda: _bring_up_to_date(settings, places))
    except StoreUnreachable as error:
        raise StoreUnreachable(
            f"{error}\nIf you have no Elasticsearch: in a checkout of es_imgsearch, `make es-up`"
            " starts one on this machine (needs a JDK and Maven), `make up` one in a container"
            " (needs Docker)."
        ) from error
    _print_unread(counts, settings.index)
    searched = Path(picture) if picture else " ".join(words)
    output.show(_search(settings, searched, places, k, {**given, **dates}))


def _check_folders(folders: tuple[str, ...]) -> None:
    """Report before any request what is no folder."""
    from es_imgsearch.watch.given_roots import parse_roots

    try:
        for folder in folders:
            parse_roots([folder])
    except RootError as error:
        raise RootError(f"{error} Words to search for go in quotes, before the folders.") from error


def _make_index(store: Store, settings: Settings) -> None:
    """Make a missing index: for clip where it is on this machine, else for starter."""
    from es_imgsearch.embed.sentence_transformers import has_clip
    from es_imgsearch.manage.init import create_index

    with suppress(IndexMissing):
        store.generations.sealed()
        return
    encoder, hint = settings.encoder, ""
    if encoder is None and has_clip(settings.models_dir):
        encoder = "clip"
    elif encoder is None:
        encoder = "starter"
        hint = (
            " It knows 1,000 kinds of things, in English. For CLIP, which knows far more in 50+"
            f" languages, run `es-imgsearch reindex --encoder clip --index {store.index}` where a"
            " model hub is reachable."
        )
    made = create_index(store, settings.model_copy(update={"encoder": encoder}))
    click.echo(f"{made}{hint}", err=True)
    print_on_request(store.index, settings.describers)


Places = list[tuple["Root", str]]


def _places(store: Store, settings: Settings, folders: Iterable[str]) -> Places:
    """Find the root of each folder, and the folder below it."""
    from es_imgsearch.watch.roots import root_of_folder, with_registered

    meta, places = store.info().meta, []
    for folder in folders:
        root, below = root_of_folder(folder, meta, settings.host)
        meta = with_registered(meta, root, settings.host)
        places.append((root, below))
    return places


def _bring_up_to_date(settings: Settings, places: Places) -> Counts:
    from es_imgsearch.pipeline.sync import sync
    from es_imgsearch.watch.commands import given

    started = time.monotonic()
    roots = tuple(dict.fromkeys(given(root) for root, _ in places))
    with open_indexer(settings, roots, allow_deletes=False) as indexer:
        with first_load(indexer, settings), progress(indexer):
            sync(indexer)
        indexer.pipeline.close()
        if indexer.counts.stored or indexer.counts.deleted:
            seconds = time.monotonic() - started
            click.echo(f"{indexer.counts.in_words()} in {seconds:.1f} s.", err=True)
            print_costs(indexer.pipeline.activity.costs())
        return indexer.counts


def _parse_filters(texts: tuple[str, ...]) -> dict[str, Any]:
    from es_imgsearch.search.filters import parse_filters

    given = parse_filters(texts)
    if taken := given.filters.keys() & {"root", "folder"}:
        raise UsageError(f"The folders to search say the {min(taken)}: leave that filter out.")
    return given._asdict()


def _search(
    settings: Settings, query: Query, places: Places, k: int, options: Mapping[str, Any]
) -> Hits:
    """Search the folders, together."""
    from es_imgsearch.search.client import ImageSearch
    from es_imgsearch.search.hits import Hits

    client = ImageSearch(settings=settings)
    places = [each for each in places if _has_pictures(client.store, *each)]
    if not places:
        return Hits([], 0, notes=["There are no pictures in these folders."])
    filters: dict[str, Any] = {"root": sorted({root.name for root, _ in places})}
    if all(below != "." for _, below in places):
        filters["folder"] = sorted({below for _, below in places})
    folders = {root.path / below for root, below in places}
    options = {**options, "filters": {**options["filters"], **filters}}
    asked = k
    while True:
        hits = client.search([query], k=asked, **options)
        # Folders of one name in several of the roots: the filter takes them all.
        kept = [each for each in hits if each.path and folders & {each.path, *each.path.parents}]
        if len(kept) >= k or len(hits) < asked or asked >= _MOST_HITS:
            break
        asked = min(10 * asked, _MOST_HITS)
    if len(kept) == len(hits) <= k:
        return hits
    return Hits(kept[:k], hits.took_ms, hits.queries, notes=hits.notes, mode=hits.mode)


def _print_unread(counts: Counts, index: str) -> None:
    """Say how many files could not be read, and where they are listed."""
    if counts.failed:
        are = counted(counts.failed, "file", "files")
        click.echo(f"{are} could not be read: `es-imgsearch failures --index {index}`.", err=True)
    if counts.unreadable:
        are = counted(counts.unreadable, "file or folder", "files or folders")
        click.echo(f"{are} could not be opened; what the index holds of them stays.", err=True)


def _has_pictures(store: Store, root: Root, below: str) -> bool:
    """Whether a folder has indexed pictures; as a filter, one without is refused."""
    clauses: list[dict[str, Any]] = [{"term": {"root": root.name}}]
    if below != ".":
        clauses.append({"term": {"folder.tree": below}})
    return store.listings.count_matching({"bool": {"filter": clauses}}) > 0
