"""Delete an index with everything that belongs to it (`drop`)."""

from __future__ import annotations

import re
from typing import NamedTuple

from es_imgsearch.elastic.leases import holder, is_running
from es_imgsearch.elastic.leases.division import daemon_leases
from es_imgsearch.elastic.mapping import Companion
from es_imgsearch.elastic.meta import CREATED_BY
from es_imgsearch.elastic.naming import failures_alias
from es_imgsearch.elastic.state import REINDEX_LOCK
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import AlreadyRunning, ImageMissing, ImgSearchError, IndexMissing


class Belonging(NamedTuple):
    """One index of Elasticsearch that belongs to an index of pictures."""

    name: str
    documents: int
    size_bytes: int


def own_indices(index: str) -> re.Pattern[str]:
    """Compile the pattern of the names of generations and companions of an index."""
    companions = "|".join(["failures", *Companion])
    return re.compile(rf"{re.escape(index)}(-({companions}))?-\d{{6,}}(-[0-9a-f]{{8}})?")


def belongings(store: Store) -> list[Belonging]:
    """List the generations of an index and its companions, also without an alias.

    Raises IndexMissing if there is none.
    """
    own = own_indices(store.index)
    request = store.connection.request
    pattern = f"{store.index}-*"
    made = request("GET", f"/{pattern}/_mapping", params={"filter_path": "*.mappings._meta"})
    ours = {
        name
        for name, body in made.items()
        if own.fullmatch(name) and body["mappings"]["_meta"].get("created_by") == CREATED_BY
    }
    if not ours:
        raise IndexMissing(f"There is no index {store.index!r}, so nothing was deleted.")
    stats = request("GET", f"/{','.join(sorted(ours))}/_stats/docs,store")["indices"]
    return [
        Belonging(
            name,
            stats[name]["primaries"]["docs"]["count"],
            stats[name]["total"]["store"]["size_in_bytes"],
        )
        for name in sorted(ours & stats.keys())
    ]


def drop_index(store: Store) -> list[Belonging]:
    """Delete what `belongings` lists, and the templates; the pictures' files stay.

    Safe to run again after an interruption.  Raises AlreadyRunning while a daemon or a reindex
    works on the index, IndexMissing if there is none.
    """
    found = belongings(store)
    _check_unused(store)
    request = store.connection.request
    for each in found:
        request("DELETE", f"/{each.name}", params={"ignore_unavailable": "true"})
    aliases = {store.index, failures_alias(store.index)}
    aliases |= {companion.alias(store.index) for companion in Companion}
    params = {"filter_path": "index_templates.name"}
    try:
        listed = request("GET", f"/_index_template/{store.index}*", params=params)
    except ImageMissing:
        # Of an index that was restored, and not to the end.
        return found
    for each in listed.get("index_templates", ()):
        if each["name"] in aliases:
            request("DELETE", f"/_index_template/{each['name']}")
    return found


def _check_unused(store: Store) -> None:
    try:
        roots = store.info().meta.roots
        locks = store.state.read_many([REINDEX_LOCK])
        leases = [*locks.values(), *daemon_leases(store.state, list(roots)).values()]
    except ImgSearchError as error:
        if error.transient:
            raise
        # Half deleted by an earlier run, or damaged: there is no process to wait for.
        return
    for lease in leases:
        if is_running(lease):
            raise AlreadyRunning(
                f"{holder(lease)} works on index {store.index!r} since {lease['since']}: stop it,"
                " then run this again."
            )
