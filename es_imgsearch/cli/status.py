"""`status`: show what an index holds, and which daemons keep it up to date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from es_imgsearch.cli.options import (
    examples,
    json_option,
    open_store,
    with_settings_options,
)
from es_imgsearch.cli.printing.lines import left_out_line, print_json, print_line
from es_imgsearch.errors import counted

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
    from es_imgsearch.manage.production.refreshing import off_words
    from es_imgsearch.manage.status import index_status, renewing_words

    store = open_store(settings)
    found = index_status(store)
    seal = found["encoder"]
    choice = StoredChoices(settings).find(seal["revision"], seal["fingerprint"])
    found["runs_here"] = None if choice is None else choice.to_dict()
    if as_json:
        print_json(found)
        return
    print_line(
        f"{found['index']} ({found['generation']}): {counted(found['pictures'], 'picture')},"
        f" {counted(found['failures'], 'failure')}\n"
        f"encoder {found['encoder']['name']}, {found['encoder']['dims']} dims, profile"
        f" {found['profile']}, {found['similarity']}; Elasticsearch {found['elasticsearch']}"
        + ("" if choice is None else f"\non this machine the encoder runs in {choice.why}")
    )
    if found["read_only"]:
        print_line(
            "nothing is stored now, since the index is read-only:"
            f" `es-imgsearch doctor --index {found['index']}` says why"
        )
    if found["analysers_outdated"]:
        print_line(renewing_words(found["index"], found["profile"]))
    print_line(_tuning_line(found))
    if codes := found["codes"]:
        command = f"es-imgsearch codes apply --index {found['index']}"
        lacking = f"; without one: {counted(codes['missing'], 'picture')}: run `{command}`"
        print_line(
            f"codes {codes['method']}, {codes['bits']} bits{lacking if codes['missing'] else ''}"
        )
    _print_segments(found)
    _print_generations(found)
    if found["refresh_left_off"]:
        print_line(off_words(found["index"]))
    if found["import_unfinished"]:
        print_line("an import is under way or was interrupted; run again, it completes")
    stored = store.info().meta.roots
    for name, root in found["roots"].items():
        _print_root(found["index"], name, root)
        if name in stored and stored[name]["host"] == settings.host:
            _print_missing_folder(found["index"], name, stored[name]["path"])


def _tuning_line(found: Mapping[str, Any]) -> str:
    tuning = found["tuning"]
    line = f"searches weigh {tuning['num_candidates']} candidates"
    if tuning.get("tuned_at") is None:
        command = f"es-imgsearch tune --index {found['index']}"
        return f"{line}, not tuned to these pictures: `{command}` does it"
    among = counted(tuning["pictures"], "picture")
    line += f", tuned among {among} for a recall of {tuning['target_recall']:g}"
    if found["tune_again"]:
        line += "; the index has grown several times over, tune again with"
        line += f" `es-imgsearch tune --index {found['index']}`"
    return line


def _print_segments(found: Mapping[str, Any]) -> None:
    from es_imgsearch.manage.production.segments import merge_words

    if (segments := found["segments"]) is None:
        return
    shards = f"{counted(segments['total'], 'segment')}, at most {segments['most']:,} in a shard"
    command = f"es-imgsearch tune --merge --index {found['index']}"
    advice = f"; {merge_words(segments)}: `{command}` merges them"
    print_line(f"{shards}{advice if segments['merge_advised'] else ''}")


def _print_generations(found: Mapping[str, Any]) -> None:
    if unfinished := found["next"]:
        who = _builder(unfinished["builder"])
        print_line(
            f"{unfinished['generation']} is"
            f" {f'being built by {who}' if who else 'begun and not finished'}: encoder"
            f" {unfinished['encoder']}, profile {unfinished['profile']},"
            f" {counted(unfinished['pictures'], 'picture')} so far"
            + ("" if who else f"; `es-imgsearch reindex --index {found['index']}` goes on")
        )
    if before := found["before"]:
        who = _builder(before["builder"])
        print_line(
            f"{before['generation']} served before: encoder {before['encoder']}, profile"
            f" {before['profile']}, {counted(before['pictures'], 'picture')}; "
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
        f"  {name}: {counted(root['pictures'], 'picture')},"
        f" {counted(root['failures'], 'failure')} in {root['path']} on {root['host']}"
    )
    _print_daemon(index, root)
    if compared := root["last_reconcile"]:
        print_line(
            f"    compared in {compared['seconds']:.1f} s until {compared['ended_at']}:"
            f" {compared['new']:,} new, {compared['changed']:,} changed,"
            f" {compared['lost']:,} gone"
            + (f", {number:,} unreadable" if (number := compared.get("unreadable")) else "")
            + (f", {unknown:,} unknown (see the log)" if (unknown := compared["unknown"]) else "")
        )
        # A daemon of an earlier version does not count them.
        parts = [compared.get(each, {}) for each in ("left_out", "left_out_by")]
        if line := left_out_line(*parts):
            print_line(f"    left out: {line}")
    if plan := root["encoder_plan"]:
        print_line(f"    embedded in {RuntimePlan(**plan)}")
    if (costs := root["costs"]) and costs["pictures"]:
        print_line(f"    {_costs_in_words(costs)}")
    if lag := root["lag_ms"]:
        print_line(
            f"    searchable after {lag['p50'] / 1000:.1f} s (median) and"
            f" {lag['p95'] / 1000:.1f} s (95th percentile) of {counted(lag['pictures'], 'picture')}"
            " in 24 hours"
        )
    if root["deletions_paused"]:
        pause = root["deletions_paused"]
        print_line(f"    deletions paused since {pause['since']}: {pause['reason']}")


def _print_missing_folder(index: str, name: str, stored: str) -> None:
    """Print what to do if the folder of a root of this host is not there."""
    from es_imgsearch.records import Root, disk_path, path_of
    from es_imgsearch.watch.commands import permitting_command
    from es_imgsearch.watch.given_roots import is_absent

    folder = Root(name, path_of(disk_path(stored)))
    if not is_absent(folder):
        return
    command = permitting_command(folder, index, ())
    print_line(
        "    its folder is not there: mount it or bring it back; if it is gone for good,"
        f" `{command}` releases it, which touches no file"
    )


def _costs_in_words(costs: Mapping[str, Any]) -> str:
    """Describe what reading took a picture, the most expensive describers first."""
    pictures = costs["pictures"]
    describers = [
        f"{name} {seconds / pictures:.3f}"
        for name, seconds in list(costs["describer_seconds"].items())[:4]
    ]
    return (
        f"reading took {costs['reading_seconds'] / pictures:.3f} s a picture, of"
        f" {counted(pictures, 'picture')} read{', of it ' * bool(describers)}"
        + ", ".join(describers)
    )


def _print_partitions(partitions: Sequence[Mapping[str, Any]]) -> None:
    """Print who works on each partition, and whose worker is gone."""
    for part in partitions:
        daemon, worker = part["watched_by"], part["worker"]
        line = f"    partition {part['partition']}: "
        if daemon and daemon["is_alive"]:
            line += (
                f"process {daemon['process_id']} on {daemon['host']} since {daemon['since']};"
                f" {daemon['seen_seconds_ago']:,.0f} s ago there"
                f" {counted(daemon['queue'], 'file was', 'files were')} on the way"
            )
        elif daemon:
            line += (
                f"no longer process {daemon['process_id']} on {daemon['host']}, which was seen last"
                f" {daemon['seen_seconds_ago']:,.0f} s ago, at {daemon['seen_at']}"
            )
        else:
            line += "nobody"
        if not (worker and worker["is_alive"]):
            line += "; its own worker is not there"
        if pause := part["deletions_paused"]:
            line += f"; deletions paused since {pause['since']}"
        print_line(line)


def _print_daemon(index: str, root: Mapping[str, Any]) -> None:
    if number := root["unstored"]:
        print_line(
            f"    {counted(number, 'file is', 'files are')} neither indexed nor among the failures"
            f" until changed, or until `es-imgsearch failures retry --index {index}`, such as"
            f" {root['unstored_example']}: {root['unstored_reason']}"
        )
    if root["partitions"]:
        _print_partitions(root["partitions"])
    elif daemon := root["watched_by"]:
        place = f"process {daemon['process_id']} on {daemon['host']}"
        seen = f"{daemon['seen_seconds_ago']:,.0f} s ago"
        if daemon["is_alive"]:
            print_line(
                f"    watched by {place} since {daemon['since']}; {seen} there"
                f" {counted(daemon['queue'], 'file was', 'files were')} on the way"
            )
        else:
            print_line(
                f"    no longer watched by {place}, which was seen last {seen}, at"
                f" {daemon['seen_at']}"
            )
    if root["folder_missing"]:
        print_line("    the folder is not there; the daemon watches it when it comes")
    if hung := root["disk_hung_seconds"]:
        print_line(f"    the disk of the folder has not answered for {hung} s")
