"""`verify` and `failures`: compare index and folders, list and retry failures."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from es_imgsearch.cli.options import (
    examples,
    exclude_option,
    json_option,
    open_store,
    roots_argument,
    sigterm_as_ctrl_c,
    with_settings_options,
)
from es_imgsearch.cli.output import print_json, print_line, shown_path
from es_imgsearch.errors import EXIT_DIFFERENCE, EXIT_DONE

if TYPE_CHECKING:
    from es_imgsearch.settings import Settings


@click.command(epilog=examples("verify ~/Pictures", "verify nas=/mnt/nas/photos --json"))
@with_settings_options
@roots_argument
@exclude_option
@json_option
def verify(settings: Settings, roots: tuple[str, ...], as_json: bool) -> None:
    """Compare folders and index, change nothing; ends with 1 on any difference."""
    from es_imgsearch.manage.verify import verify as run_verify
    from es_imgsearch.watch.roots import parse_roots

    store = open_store(settings)
    store.info()
    found = list(run_verify(store, parse_roots(roots), settings))
    if as_json:
        print_json([each.to_dict() for each in found])
    for each in () if as_json else found:
        print_line(f"{each.what:14}  {shown_path(each.root, each.relative_path)}")
    click.echo(f"{len(found) or 'No'} difference{'s' * (len(found) != 1)}.", err=True)
    if found:
        sys.exit(EXIT_DIFFERENCE)


@click.command(epilog=examples("failures", "failures retry", "failures list --json"))
@with_settings_options
@click.argument("action", type=click.Choice(["list", "retry"]), default="list")
@json_option
@sigterm_as_ctrl_c()
def failures(settings: Settings, action: str, as_json: bool) -> None:
    """List the files that could not be read or stored, and why; or retry them now.

    A retry reads the files that this machine can see once more, and ends with 1 if any of them
    failed again or is still being written; --json then prints the failures that are left.
    """
    from es_imgsearch.pipeline.sync import retried_indexer

    store = open_store(settings)
    if action == "retry":
        store = store.pinned()
    store.info()  # raises IndexMissing
    if action == "retry":
        with retried_indexer(store, settings) as indexer:
            click.echo(f"{indexer.summary()}.", err=True)
            failed = indexer.counts.failed or len(indexer.settler)
        if as_json:
            store.refresh()
            print_json(list(store.listings.failures()))
        sys.exit(EXIT_DIFFERENCE if failed else EXIT_DONE)
    store.refresh()
    found = list(store.listings.failures())
    if as_json:
        print_json(found)
        return
    for each in found:
        place = shown_path(each["root"], each["relative_path"])
        print_line(f"{each['error_class']:18} {place}: {each['message']}")
    if not found:
        click.echo("No failures.", err=True)
