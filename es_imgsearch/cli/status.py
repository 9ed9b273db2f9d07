"""`status`: show what an index holds, and which daemons keep it up to date."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from es_imgsearch.cli.options import (
    examples,
    json_option,
    open_store,
    with_settings_options,
)
from es_imgsearch.cli.printing.lines import left_out_line, print_json, print_line

if TYPE_CHECKING:
    from es_imgsearch.settings import Settings


@click.command(epilog=examples("status", "status --index products --json"))
@with_settings_options
@json_option
def status(settings: Settings, as_json: bool) -> None:
    """Show what the index holds, its daemons, and whether deletions are paused.

    Also how this machine runs the encoder, if it embedded pictures here.
    """
    from es_imgsearch.embed.runtime.stored_choices import StoredChoices
    from es_imgsearch.manage.status import index_status, renewing_words

    found = index_status(open_store(settings))
    seal = found["encoder"]
    choice = StoredChoices(settings).find(seal["revision"], seal["fingerprint"])
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
    if found["analysers_outdated"]:
        print_line(renewing_words(found["index"], found["profile"]))
    print_line(_tuning_line(found))
    if codes := found["codes"]:
        command = f"es-imgsearch codes apply --index {found['index']}"
        lacking = f"; {codes['missing']} pictures have none: run `{command}`"
        print_line(
            f"codes {codes['method']}, {codes['bits']} bits{lacking if codes['missing'] else ''}"
        )
    _print_generations(found)
    if found["import_unfinished"]:
        print_line("an import is under way or was interrupted; run again, it completes")
    for name, root in found["roots"].items():
        _print_root(found["index"], name, root)


def _tuning_line(found: Mapping[str, Any]) -> str:
    tuning = found["tuning"]
    line = f"searches weigh {tuning['num_candidates']} candidates"
    if tuning.get("tuned_at") is None:
        command = f"es-imgsearch tune --index {found['index']}"
        return f"{line}, not tuned to these pictures: `{command}` does it"
    line += (
        f", tuned among {tuning['pictures']} pictures for a recall of {tuning['target_recall']:g}"
    )
    if found["tune_again"]:
        line += "; the index has grown several times over, tune again with"
        line += f" `es-imgsearch tune --index {found['index']}`"
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
            + (
                f"{who} returns to it"
                if who
                else f"`es-imgsearch reindex --back --index {found['index']}` returns to it,"
                " --drop-old instead of --back deletes it"
            )
        )
    if found["writes_held_back"]:
        print_line(
            "writing is held back: a reindex is about to switch, or was killed then; running it"
            f" again, or `es-imgsearch reindex --cancel --index {found['index']}`, ends that"
        )


def _builder(builder: Mapping[str, Any] | None) -> str | None:
    """Describe the process that builds a generation; None if there is none."""
    if builder is None or not builder["is_alive"]:
        return None
    return f"process {builder['process_id']} on {builder['host']} since {builder['since']}"


def _print_root(index: str, name: str, root: Mapping[str, Any]) -> None:
    from es_imgsearch.embed.runtime.plan import RuntimePlan

    print_line(
        f"  {name}: {root['pictures']} pictures, {root['failures']} failures in {root['path']}"
        f" on {root['host']}"
    )
    if number := root["unstored"]:
        are = "file is" if number == 1 else "files are"
        print_line(
            f"    {number} {are} neither indexed nor among the failures until changed, or until"
            f" `es-imgsearch failures retry --index {index}`, such as {root['unstored_example']}:"
            f" {root['unstored_reason']}"
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
    if hung := root["disk_hung_seconds"]:
        print_line(f"    the disk of the folder has not answered for {hung} s")
    if compared := root["last_reconcile"]:
        print_line(
            f"    compared in {compared['seconds']:.1f} s until {compared['ended_at']}:"
            f" {compared['new']} new, {compared['changed']} changed, {compared['lost']} gone"
            + (f", {number} unreadable" if (number := compared.get("unreadable")) else "")
            + (f", {unknown} unknown (see the log)" if (unknown := compared["unknown"]) else "")
        )
        # A daemon of an earlier version does not count them.
        parts = [compared.get(each, {}) for each in ("left_out", "left_out_by")]
        if line := left_out_line(*parts):
            print_line(f"    left out: {line}")
    if plan := root["encoder_plan"]:
        print_line(f"    embedded in {RuntimePlan(**plan)}")
    if lag := root["lag_ms"]:
        print_line(
            f"    searchable after {lag['p50'] / 1000:.1f} s (median) and"
            f" {lag['p95'] / 1000:.1f} s (95th percentile) of {lag['pictures']} pictures in 24"
            " hours"
        )
    if root["deletions_paused"]:
        pause = root["deletions_paused"]
        print_line(f"    deletions paused since {pause['since']}: {pause['reason']}")
