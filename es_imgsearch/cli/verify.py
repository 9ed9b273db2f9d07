"""`verify` and `failures`: compare index and folders, list and retry failures."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from es_imgsearch.cli.options import (
    Choice,
    examples,
    exclude_option,
    follow_links_option,
    json_option,
    open_store,
    paths_of,
    sigterm_as_ctrl_c,
    with_settings_options,
)
from es_imgsearch.cli.printing.lines import (
    print_json,
    print_left_out,
    print_line,
    shown_file,
)
from es_imgsearch.errors import EXIT_DIFFERENCE, EXIT_DONE, UsageError, counted, escaped

if TYPE_CHECKING:
    from es_imgsearch.elastic.store import Store
    from es_imgsearch.manage.verify import Discrepancy
    from es_imgsearch.records import Root
    from es_imgsearch.settings import Settings


@click.command(
    epilog=examples(
        "verify ~/Pictures",
        "verify ~/Pictures/cat.jpg",
        "verify nas=/mnt/nas/photos --json",
        "verify ~/Pictures --content",
    )
)
@with_settings_options
@click.argument("roots", metavar="[NAME=]DIR...|FILE...", nargs=-1, required=True,
                shell_complete=paths_of("file"))  # fmt: skip
@exclude_option
@follow_links_option
@click.option("--content", is_flag=True,
              help="Also read every file and compare its bytes with what was indexed.")  # fmt: skip
@json_option
def verify(settings: Settings, roots: tuple[str, ...], content: bool, as_json: bool) -> None:
    """Compare folders and index, change nothing; ends with 1 on any difference.

    Of a FILE it says what is so: indexed and since when, failed, left out and why, no picture,
    still being written, in no watched folder; ends with 1 if one is not indexed.  Of folders,
    standard error says how many differences of each kind there are, which command ends them, and
    what was left out, by reason.
    """
    from es_imgsearch.cli.printing.progress import progress_bar
    from es_imgsearch.manage.one_file import file_of_argument
    from es_imgsearch.manage.remedies import pausing_roots, verify_content
    from es_imgsearch.manage.verify import verify as run_verify
    from es_imgsearch.pipeline.jobs import RootComparison
    from es_imgsearch.records import disk_path, path_of
    from es_imgsearch.watch.excludes import Excludes
    from es_imgsearch.watch.given_roots import parse_roots

    store = open_store(settings)
    meta = store.info().meta
    files = [path for text in roots if (path := file_of_argument(text, meta, settings.host))]
    if files:
        if content or len(files) < len(roots):
            raise UsageError("Give files alone, or folders, the latter with or without --content.")
        sys.exit(_explain(store, files, settings, as_json))
    parsed = parse_roots(roots, may_be_gone=True, follow_links=settings.follow_links)
    left_out = {root.name: RootComparison() for root in parsed}
    for name, excludes in Excludes.of_roots(settings.exclude, parsed).items():
        left_out[name].left_out_by.update(dict.fromkeys(excludes.leaving_out, 0))

    def on_left_out(name: str, reason: str) -> None:
        left_out[name].count_left_out(reason)

    with progress_bar("files") as on_file:
        found = list(run_verify(store, parsed, settings, content=content, on_file=on_file,
                                on_left_out=on_left_out))  # fmt: skip
    pausing = pausing_roots(
        store, [(each.what, each.root) for each in found], settings.max_delete_share
    )
    if as_json:
        print_json([_as_json(each, parsed, settings, pausing) for each in found])
    folders = {root.name: root for root in parsed}
    found.sort(key=lambda each: each.what)  # stable: the paths of a kind stay in order
    for each in () if as_json else found:
        detail = f" ({each.detail})" if each.detail else ""
        root = folders.get(each.root)
        path = path_of(root.absolute(disk_path(each.relative_path))) if root else None
        print_line(f"{each.what:14}  {shown_file(path, each.root, each.relative_path)}{detail}")
    _print_summary(found, parsed, settings, pausing)
    _print_failures(store, parsed, settings)
    print_left_out(left_out)
    if not content:
        command = verify_content(parsed, settings)
        click.echo(
            f"Only sizes and times were compared, not what is in the files: `{command}` reads"
            " them.",
            err=True,
        )
    if found:
        sys.exit(EXIT_DIFFERENCE)


def _explain(store: Store, files: Sequence[Path], settings: Settings, as_json: bool) -> int:
    """Print what is so of each file; return the exit code."""
    from es_imgsearch.manage.one_file import INDEXED, FileExplainer
    from es_imgsearch.records import utf8

    with closing(FileExplainer(store, settings)) as explainer:
        found = [explainer.explain(path) for path in files]
    if as_json:
        print_json(
            [
                {**each.to_dict(), "path": utf8(str(path))}
                for each, path in zip(found, files, strict=True)
            ]
        )
    for each, path in () if as_json else zip(found, files, strict=True):
        print_line(f"{each.what:14}  {shown_file(path, '', '')} ({escaped(each.detail)})")
    return EXIT_DONE if all(each.what == INDEXED for each in found) else EXIT_DIFFERENCE


def _print_failures(store: Store, roots: Sequence[Root], settings: Settings) -> None:
    """Print the number of failures of the roots, and how to list them."""
    if number := sum(store.listings.count(root.name, failures=True) for root in roots):
        click.echo(
            f"{counted(number, 'file')} cannot be read or stored: `es-imgsearch failures --index"
            f" {settings.index}`.",
            err=True,
        )


def _as_json(
    found: Discrepancy, roots: Sequence[Root], settings: Settings, pausing: Collection[str]
) -> dict[str, str]:
    from es_imgsearch.manage.remedies import remedy
    from es_imgsearch.records import disk_path, utf8

    folders = {root.name: root for root in roots}
    root = folders.get(found.root)
    return {
        **found.to_dict(),
        "path": utf8(root.absolute(disk_path(found.relative_path))) if root else "",
        "remedy": remedy(found.what, found.root, roots, settings, pausing),
    }


def _print_summary(
    found: Sequence[Discrepancy],
    roots: Sequence[Root],
    settings: Settings,
    pausing: Collection[str],
) -> None:
    """Print the number of differences of each kind, and the command that ends them."""
    from es_imgsearch.manage.remedies import first_step, meaning, remedy

    for what, number in Counter(each.what for each in found).items():
        names = dict.fromkeys(each.root for each in found if each.what == what)
        commands = dict.fromkeys(remedy(what, name, roots, settings, pausing) for name in names)
        is_large = what == "gone" and not set(names).isdisjoint(pausing)
        step = "if they are meant to go from the index, run" if is_large else first_step(what)
        step = step or "run"
        click.echo(
            f"{what}: {meaning(what, number)}; {step} "
            + " and ".join(f"`{command}`" for command in commands)
            + ".",
            err=True,
        )
    click.echo(f"{len(found) or 'No'} difference{'s' * (len(found) != 1)}.", err=True)


@click.command(epilog=examples("failures", "failures retry", "failures list --json"))
@with_settings_options
@click.argument("action", type=Choice(["list", "retry"]), default="list")
@json_option
@sigterm_as_ctrl_c()
def failures(settings: Settings, action: str, as_json: bool) -> None:
    """List the files that could not be read or stored, and why; or retry them now.

    A retry reads the files that this machine can see once more, and ends with 1 if any of them
    failed again or is still being written; --json then prints the failures that are left.
    """
    from es_imgsearch.manage.failures import listed_failures
    from es_imgsearch.pipeline.sync import retried_indexer
    from es_imgsearch.records import path_of

    store = open_store(settings)
    if action == "retry":
        store = store.pinned()
    store.info()  # raises IndexMissing
    if action == "retry":
        with retried_indexer(store, settings) as indexer:
            click.echo(f"{indexer.counts.in_words()}.", err=True)
            failed = indexer.counts.failed or len(indexer.settler)
        if as_json:
            print_json(listed_failures(store, settings.host))
        sys.exit(EXIT_DIFFERENCE if failed else EXIT_DONE)
    found = listed_failures(store, settings.host)
    if as_json:
        print_json(found)
        return
    for each in found:
        path = each["path"] and path_of(each["path"])
        place = shown_file(path, each["root"], each["relative_path"])
        print_line(f"{each['error_class']:18} {place}: {each['message']}")
    click.echo(f"{counted(len(found), 'failure') if found else 'No failures'}.", err=True)
