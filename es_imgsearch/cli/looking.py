"""`status`, `verify` and `failures`: what is in an index, and whether it is right."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from es_imgsearch.cli.shared import (
    exclude_option,
    json_option,
    open_store,
    print_json,
    print_line,
    roots_argument,
    shown_path,
    sigterm_as_ctrl_c,
    with_settings_options,
)
from es_imgsearch.errors import EXIT_DIFFERENCE, EXIT_DONE

if TYPE_CHECKING:
    from es_imgsearch.settings import Settings


@click.command()
@with_settings_options
@json_option
def status(settings: Settings, as_json: bool) -> None:
    """What the index holds, who watches, how far it is, and whether deletions wait.

    Also how this machine runs the encoder, if that was measured here.
    """
    from es_imgsearch.embed.choices import Choices
    from es_imgsearch.status import index_status

    found = index_status(open_store(settings))
    seal = found["encoder"]
    choice = Choices(settings).find(seal["revision"], seal["fingerprint"])
    found["runs_here"] = None if choice is None else choice.to_dict()
    if as_json:
        print_json(found)
        return
    print_line(
        f"{found['index']} ({found['generation']}): {found['pictures']} pictures,"
        f" {found['failures']} failures\n"
        f"encoder {found['encoder']['name']}, {found['encoder']['dims']} dims, profile"
        f" {found['profile']}, {found['similarity']}; Elasticsearch {found['elasticsearch']}"
        + ("" if choice is None else f"\non this machine the encoder runs in {choice.why}")
    )
    print_line(_tuning_line(found))
    if codes := found["codes"]:
        lacking = f"; {codes['missing']} pictures have none: run `codes apply`"
        print_line(
            f"codes {codes['method']}, {codes['bits']} bits{lacking if codes['missing'] else ''}"
        )
    _print_generations(found)
    if found["import_unfinished"]:
        print_line("an import is under way or was interrupted; run again, it completes")
    for name, root in found["roots"].items():
        _print_root(name, root)


def _tuning_line(found: Mapping[str, Any]) -> str:
    tuning = found["tuning"]
    line = f"searches weigh {tuning['num_candidates']} candidates"
    if tuning.get("tuned_at") is None:
        return f"{line}, not tuned to these pictures: `es-imgsearch tune` does it"
    line += (
        f", tuned among {tuning['pictures']} pictures for a recall of {tuning['target_recall']:g}"
    )
    if found["tune_again"]:
        line += "; the index has grown several times over, tune again"
    return line


def _print_generations(found: Mapping[str, Any]) -> None:
    if unfinished := found["next"]:
        who = _builder(unfinished["builder"])
        print_line(
            f"{unfinished['generation']} is"
            f" {f'being built by {who}' if who else 'begun and not finished'}: encoder"
            f" {unfinished['encoder']}, profile {unfinished['profile']}, {unfinished['pictures']}"
            " pictures so far"
            + ("" if who else f"; `es-imgsearch reindex --index {found['index']}` goes on")
        )
    if before := found["before"]:
        who = _builder(before["builder"])
        print_line(
            f"{before['generation']} served before: encoder {before['encoder']}, profile"
            f" {before['profile']}, {before['pictures']} pictures; "
            + (f"{who} returns to it" if who else "reindex --back or --drop-old")
        )
    if found["writes_held_back"]:
        print_line(
            "writing is held back: a reindex is about to switch, or was killed then; running it"
            " again, or reindex --cancel, ends that"
        )


def _builder(builder: Mapping[str, Any] | None) -> str | None:
    """Who is at work on a generation; None where nobody is."""
    if builder is None or not builder["is_alive"]:
        return None
    return f"process {builder['process_id']} on {builder['host']} since {builder['since']}"


def _print_root(name: str, root: Mapping[str, Any]) -> None:
    print_line(
        f"  {name}: {root['pictures']} pictures, {root['failures']} failures in {root['path']}"
        f" on {root['host']}"
    )
    if daemon := root["watched_by"]:
        place = f"process {daemon['process_id']} on {daemon['host']}"
        if daemon["is_alive"]:
            print_line(
                f"    watched by {place} since {daemon['since']}; {daemon['queue']} files on"
                f" their way at {daemon['seen_at']}"
            )
        else:
            print_line(f"    no longer watched by {place}, last seen at {daemon['seen_at']}")
    if compared := root["last_reconcile"]:
        print_line(
            f"    compared in {compared['seconds']:.1f} s until {compared['ended_at']}:"
            f" {compared['new']} new, {compared['changed']} changed, {compared['lost']} gone"
        )
    if lag := root["lag_ms"]:
        print_line(
            f"    searchable after {lag['p50'] / 1000:.1f} s (median) and"
            f" {lag['p95'] / 1000:.1f} s (95th percentile) of {lag['pictures']} pictures in 24"
            " hours"
        )
    if root["deletions_paused"]:
        pause = root["deletions_paused"]
        print_line(f"    deletions paused since {pause['since']}: {pause['reason']}")


@click.command()
@with_settings_options
@roots_argument
@exclude_option
@json_option
def verify(settings: Settings, roots: tuple[str, ...], as_json: bool) -> None:
    """Compare the folders with the index, changing nothing; ends with 1 on any difference."""
    from es_imgsearch.roots import parse_roots
    from es_imgsearch.verify import verify as run_verify

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


@click.command()
@with_settings_options
@click.argument("action", type=click.Choice(["list", "retry"]), default="list")
@json_option
@sigterm_as_ctrl_c()
def failures(settings: Settings, action: str, as_json: bool) -> None:
    """List the files that could not be read or stored, and why; or retry them now.

    A retry reads the files that this machine can see once more, and ends with 1 if any of them
    failed again; --json then prints the failures that are left.
    """
    from es_imgsearch.failures import retried_indexer

    store = open_store(settings)
    if action == "retry":
        store = store.pinned()
    info = store.info()
    if action == "retry":
        with retried_indexer(store, info, settings) as indexer:
            click.echo(f"{indexer.summary()}.", err=True)
            failed = indexer.counts.failed
        if as_json:
            store.refresh()
            print_json(list(store.failed()))
        sys.exit(EXIT_DIFFERENCE if failed else EXIT_DONE)
    store.refresh()
    found = list(store.failed())
    if as_json:
        print_json(found)
        return
    for each in found:
        place = shown_path(each["root"], each["relative_path"])
        print_line(f"{each['error_class']:18} {place}: {each['message']}")
    if not found:
        click.echo("No failures.", err=True)
