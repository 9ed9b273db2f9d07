"""Say what a person should do next, from what `status` reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from es_imgsearch.errors import counted
from es_imgsearch.manage.production.segments import merge_words
from es_imgsearch.manage.status import renewing_words
from es_imgsearch.records import Root, disk_path, path_of
from es_imgsearch.watch.commands import command_line, given, permitting_command

# Among fewer pictures a search that weighs 100 candidates finds all the same.
_TUNED_FROM: Final = 1000


@dataclass(frozen=True, slots=True)
class NextStep:
    """What is so, in a sentence, and the command that changes it; "" if none does."""

    text: str
    command: str = ""


def hints(status: Mapping[str, Any], host: str) -> list[NextStep]:
    """Return what to do next, the most urgent first, for someone at this host.

    `status` is an answer of `index_status`.
    """
    index = status["index"]
    if not status["roots"]:
        first = command_line(["sync"], ["DIR"], ["--index", index])
        return [NextStep("Nothing is indexed yet: index a folder of pictures.", first)]
    found = [
        hint for name, root in status["roots"].items() for hint in _root(index, name, root, host)
    ]
    return [*found, *_files(status, index), *_index(status, index), *_search(status, index)]


def _root(index: str, name: str, root: Mapping[str, Any], host: str) -> Iterator[NextStep]:
    """Yield what to do about one root."""
    folder = Root(name, path_of(disk_path(root["path"])))
    there = "" if root["host"] == host else f", on {root['host']}"
    if pause := root["deletions_paused"]:
        yield NextStep(
            f"{name}: deletions are paused since {pause['since']}: {pause['reason']} If all that is"
            f" gone shall leave the index{there}:",
            permitting_command(folder, index, ()),
        )
    if seconds := root["disk_hung_seconds"]:
        yield NextStep(
            f"{name}: the disk of {root['path']} has not answered for {seconds} s: check it, or the"
            f" share that is mounted there{there}."
        )
    if root["folder_missing"]:
        yield NextStep(f"{name}: {root['path']} is not there: mount it or bring it back{there}.")
    if root["partitions"]:
        yield from _partitions(index, name, root, folder, there)
        return
    daemon = root["watched_by"]
    if daemon is not None and daemon["is_alive"]:
        return
    why = (
        "no daemon notices new and changed files"
        if daemon is None
        else f"its daemon was seen last {daemon['seen_seconds_ago']:,.0f} s ago, and new files are"
        " not noticed"
    )
    yield NextStep(
        f"{name}: {why}. To watch it{there}:",
        command_line(["watch"], [given(folder)], ["--index", index]),
    )


def _partitions(
    index: str, name: str, root: Mapping[str, Any], folder: Root, there: str
) -> Iterator[NextStep]:
    """Yield what to do about the partitions of a root whose workers are gone."""
    for part in root["partitions"]:
        daemon, worker, number = part["watched_by"], part["worker"], part["partition"]
        if worker and worker["is_alive"]:
            continue
        seen = f" (seen last {worker['seen_seconds_ago']:,.0f} s ago)" if worker else ""
        what = (
            "another worker stands in for it"
            if daemon and daemon["is_alive"]
            else "nobody notices new and changed files of it"
        )
        why = f"the worker of partition {number} is not there{seen}, and {what}"
        yield NextStep(
            f"{name}: {why}. To start its worker{there and ' on a host that has the folder'}:",
            command_line(["watch"], [given(folder)], ["--partition", number, "--index", index]),
        )


def _files(status: Mapping[str, Any], index: str) -> Iterator[NextStep]:
    """Yield what to do about files that are not indexed."""
    if number := status["failures"]:
        yield NextStep(
            f"{counted(number, 'file')} could not be read or stored; the reasons are listed as"
            " failures. Once they are mended, to try again:",
            command_line(["failures", "retry"], [], ["--index", index]),
        )
    if number := status["unstored"]:
        yield NextStep(
            f"{counted(number, 'file is', 'files are')} neither indexed nor among the failures,"
            " since Elasticsearch takes neither. To try again:",
            command_line(["failures", "retry"], [], ["--index", index]),
        )


def _index(status: Mapping[str, Any], index: str) -> Iterator[NextStep]:
    """Yield what to do about work on the index that was begun and not ended."""
    if status["import_unfinished"]:
        yield NextStep("An import is under way or was interrupted: run it again, it completes.")
    if status["refresh_left_off"]:
        yield NextStep(
            "A load was killed and left refresh off, so new pictures are not found. To switch it on"
            " again:",
            command_line(["init"], [], ["--index", index]),
        )
    if status["writes_held_back"]:
        yield NextStep(
            "Writing is held back: a reindex is about to switch, or was killed then. To end that:",
            command_line(["reindex"], [], ["--cancel", "--index", index]),
        )
    unfinished = status["next"]
    if unfinished and not (unfinished["builder"] or {}).get("is_alive"):
        yield NextStep(
            f"A reindex is begun and not finished, with"
            f" {counted(unfinished['pictures'], 'picture')} so far. To go on:",
            command_line(["reindex"], [], ["--index", index]),
        )
    if status["analysers_outdated"]:
        words = renewing_words(index, status["profile"])
        yield NextStep(f"{words[0].upper()}{words[1:]}.")


def _search(status: Mapping[str, Any], index: str) -> Iterator[NextStep]:
    """Yield what to do so that searches find more."""
    tuning = status["tuning"]
    is_tuned = tuning.get("tuned_at") is not None
    if status["tune_again"] or (not is_tuned and status["pictures"] >= _TUNED_FROM):
        why = (
            "The index has grown several times over since searches were tuned"
            if is_tuned
            else f"Searches weigh {tuning['num_candidates']} candidates, not tuned to this index"
        )
        yield NextStep(f"{why}. To tune them:", command_line(["tune"], [], ["--index", index]))
    if (segments := status["segments"]) and segments["merge_advised"]:
        words = merge_words(segments)
        yield NextStep(
            f"{words}. After a large load, to merge them:",
            command_line(["tune"], [], ["--merge", "--index", index]),
        )
    codes = status["codes"]
    if codes and codes["missing"]:
        yield NextStep(
            f"{counted(codes['missing'], 'picture has', 'pictures have')} no binary code. To add"
            " them:",
            command_line(["codes", "apply"], [], ["--index", index]),
        )
