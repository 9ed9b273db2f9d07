"""The page `/status`: what is indexed, its daemons, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

from es_imgsearch.errors import counted
from es_imgsearch.manage.doctor.hints import hints
from es_imgsearch.manage.failures import iterate_failures
from es_imgsearch.serve.page.address import Address
from es_imgsearch.serve.page.field_rows import shown_date
from es_imgsearch.serve.page.search_page import page_number
from es_imgsearch.serve.service import SearchService
from es_imgsearch.serve.thumbnails import READABLE_FAILURES

_FAILURES: Final = 30
_MOST_PAGES: Final = 9999


def status_page(service: SearchService, address: Address) -> dict[str, Any]:
    """Return what the template `status.html` shows."""
    number = page_number(address, _MOST_PAGES)
    first = (number - 1) * _FAILURES
    status = service.status()
    failures = iterate_failures(service.store, service.settings.host)
    page = list(islice(failures, first, first + _FAILURES))
    return {
        "status": status,
        "hints": hints(status, service.settings.host),
        "facts": list(_facts(status)),
        "roots": [_root(name, root) for name, root in status["roots"].items()],
        "failures": [_failure(each) for each in page],
        "first_failure": first + 1,
        "previous": str(address.turning_to(number - 1)) if number > 1 else "",
        "more": str(address.turning_to(number + 1))
        if status["failures"] > first + _FAILURES
        else "",
    }


def _facts(status: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is known of the index, as names and texts."""
    encoder, tuning = status["encoder"], status["tuning"]
    yield "Index", f"{status['index']} ({status['generation']})"
    yield "Pictures", f"{status['pictures']:,}"
    yield "Failures", f"{status['failures']:,}"
    yield "Encoder", f"{encoder['name']}, {encoder['dims']} dims"
    yield "Profile", f"{status['profile']}, {status['similarity']}"
    yield (
        "Relevance",
        "calibrated for queries by " + " and ".join(status["calibrated"])
        if status["calibrated"]
        else "estimated from the index itself, from 30 pictures on; not calibrated by labels",
    )
    yield (
        "Searches",
        f"weigh {tuning['num_candidates']} candidates, "
        + (
            f"tuned among {counted(tuning['pictures'], 'picture')} for a recall of"
            f" {tuning['target_recall']:g}"
            if tuning.get("tuned_at")
            else "not tuned"
        ),
    )
    if codes := status["codes"]:
        yield "Binary codes", f"{codes['method']}, {codes['bits']} bits"
    for label, name in (("Being built", "next"), ("Served before", "before")):
        if other := status[name]:
            pictures = counted(other["pictures"], "picture")
            yield label, f"{other['generation']}: encoder {other['encoder']}, {pictures}"
    yield "Elasticsearch", str(status["elasticsearch"])


def _root(name: str, root: Mapping[str, Any]) -> dict[str, Any]:
    compared, lag = root["last_reconcile"], root["lag_ms"]
    return {
        **root,
        "name": name,
        "search": str(Address("/", (("filter", f"root:{name}"),))),
        "daemon": _daemon(root),
        "compared": ""
        if not compared
        else f"{shown_date(compared['ended_at'])}: {compared['new']:,} new,"
        f" {compared['changed']:,} changed, {compared['lost']:,} gone",
        "lag": ""
        if not lag
        else f"{lag['p50'] / 1000:.1f} s (median), {lag['p95'] / 1000:.1f} s (95 %) in 24 hours",
        "indexed": shown_date(root["last_indexed_at"] or ""),
    }


def _daemon(root: Mapping[str, Any]) -> str:
    daemon = root["watched_by"]
    if daemon is None:
        return "not watched"
    place = f"process {daemon['process_id']} on {daemon['host']}"
    if not daemon["is_alive"]:
        return f"no longer watched by {place}, which was seen last {shown_date(daemon['seen_at'])}"
    queue = counted(daemon["queue"], "file is", "files are")
    return f"watched by {place} since {shown_date(daemon['since'])}; {queue} on the way"


def _failure(failure: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "place": failure["path"] or f"{failure['root']}/{failure['relative_path']}",
        "error_class": failure["error_class"],
        "message": failure["message"],
        "attempts": failure.get("attempts", 1),
        "failed_at": shown_date(str(failure.get("failed_at", ""))),
        "thumbnail": f"/thumbnails/{failure['image_id']}"
        if failure["error_class"] in READABLE_FAILURES and failure["path"]
        else "",
    }
