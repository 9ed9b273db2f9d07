"""Report the contents and the state of an index (`status`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from es_imgsearch.elastic.leases import is_at_work, seconds_since
from es_imgsearch.elastic.leases.division import divisions, keys_of
from es_imgsearch.elastic.mapping import VECTOR_FIELD, has_present_analysers
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.meta_entries import CODE_FIELD, Tuning
from es_imgsearch.elastic.state import (
    Document,
    comparison_id,
    daemon_id,
    pause_id,
    unstored_id,
    worker_id,
)
from es_imgsearch.elastic.store import Store
from es_imgsearch.manage.production.refreshing import left_off
from es_imgsearch.manage.production.segments import count_segments
from es_imgsearch.manage.production.sizes import VectorKind
from es_imgsearch.manage.reindex.lock import builders
from es_imgsearch.manage.upgrade import has_state, legacy_builder, legacy_documents
from es_imgsearch.records import disk_path, utf8
from es_imgsearch.write.deletion_pauses import active_pause
from es_imgsearch.write.unstored import unstored_files, unstored_reason

# A setting tuned to .95 among 10,000 vectors found .997 of the true ten there, .991 among three
# times as many and .987 among ten times as many (benchmarks/growth.py): recall falls slowly.
GROWN_TIMES = 5


def index_status(store: Store) -> dict[str, Any]:
    """Report the index, its encoder and, for each root, its counts, daemon and pause.

    watched_by.is_alive   False if the daemon has not renewed its lease for four times
                          `lease_seconds`, on its own machine for twice as long or since its process
                          is gone: it was killed, stopped, or lost Elasticsearch
    watched_by.seen_seconds_ago  age of its last renewal, by this machine's clock
    queue                 files in progress at its last renewal (`seen_at`, every 5 s by default);
                          None without a living daemon
    unstored              files that Elasticsearch takes neither as pictures nor as failures, which
                          are not read again until they change; one of them, why it was refused
    partitions            what several workers share of the root: the same of each partition, and
                          `worker`: the one that it is given to, which another may stand in for
    disk_hung_seconds     for how long the folder's disk had not answered at the daemon's last
                          renewal; None if it answers
    folder_missing        whether the daemon waited for the folder then; None without one
    lag_ms                from noticing a file (by an event or a comparison) to its document, over
                          the pictures of the last 24 hours
    encoder_plan          how the encoder ran at the last comparison of the root; None for encoders
                          of other packages
    costs                 seconds of reading so many pictures, and of each describer in it, of all
                          reading processes of the last `sync` or daemon together
    analysers_outdated    True for an index whose words are analysed as by an earlier version, until
                          `reindex`
    refresh_left_off      True after a load that switched refresh off was killed
    segments              segments of the shards, see `Segments`; None where the key may not see
                          them (it takes the right `monitor`)
    calibrated            kinds of queries whose relevance `calibrate` fitted, such as text
    tune_again            True once the index has `GROWN_TIMES` as many pictures as when tuned
    codes                 None without binary codes; `missing`: pictures without a code
    read_only             True while a disk of Elasticsearch is full, or somebody set it
    next, before          generations that `reindex` builds and keeps, or None; `builder`: the
                          process that builds one, or did until it was killed

    Everything else is about the generation that serves.
    """
    info, generations = store.info(), store.generations.roles()
    store.refresh()
    pictures = store.listings.counts_by_root()
    failures = store.listings.counts_by_root(failures=True)
    recent = store.listings.recent_by_root()
    divided = divisions(store.state, list(info.meta.roots)) if has_state(info.meta) else {}
    state = _state(store, info.meta, divided)
    kind = VectorKind.of_mapping(info.properties[VECTOR_FIELD], info.meta.stored_dims)
    segments = count_segments(store, has_graph=kind.has_graph)
    building = builders(store) if has_state(info.meta) else {}
    roots = {
        name: {
            "path": utf8(disk_path(entry["path"])),
            "host": entry["host"],
            "pictures": pictures.get(name, 0),
            "failures": failures.get(name, 0),
            **_shared_root(state, name, divided.get(name, 1)),
            **recent.get(name, {"last_indexed_at": None, "lag_ms": None}),
        }
        for name, entry in sorted(info.meta.roots.items())
    }
    return {
        "index": store.index,
        "generation": info.name,
        "elasticsearch": store.connection.version(),
        "encoder": info.meta.seal.to_body(),
        "profile": info.meta.profile,
        "similarity": info.meta.similarity,
        "analysers_outdated": not has_present_analysers(info.analysis),
        "tuning": info.meta.tuning.to_body(),
        "calibrated": sorted(info.meta.relevance),
        "tune_again": _has_outgrown(info.meta.tuning, sum(pictures.values())),
        "pictures": sum(pictures.values()),
        "failures": sum(failures.values()),
        "unstored": sum(root["unstored"] for root in roots.values()),
        "codes": None
        if info.meta.codes is None
        else {**info.meta.codes.elsewhere().to_body(), "missing": _without_code(store)},
        "import_unfinished": info.is_loading,
        "refresh_left_off": has_state(info.meta) and left_off(store),
        "segments": None if segments is None else segments.to_dict(),
        "next": _generation(store, generations.next, building),
        "before": _generation(store, generations.before, building),
        "read_only": any(each.startswith("read_only") for each in info.blocks),
        "writes_held_back": store.switching.is_blocked(),
        "roots": roots,
    }


def renewing_words(index: str, profile: str) -> str:
    """Say that an index analyses words as by an earlier version, and what renews that."""
    sample = " --sample FROM" if profile == "reduced" else ""
    return (
        "words are analysed as by an earlier version, which knows fewer forms of words and fewer"
        f" scripts: `es-imgsearch reindex --index {index}{sample}` renews that, and embeds nothing"
        " again"
    )


def _has_outgrown(tuning: Tuning, pictures: int) -> bool:
    return tuning.pictures is not None and pictures >= GROWN_TIMES * tuning.pictures


def _without_code(store: Store) -> int:
    query = {"bool": {"must_not": [{"exists": {"field": CODE_FIELD}}]}}
    return store.listings.count_matching(query)


def _state(store: Store, meta: Meta, divided: Mapping[str, int]) -> Mapping[str, Document]:
    """Read the state documents of the roots, also from an index of schema 1."""
    if not has_state(meta):
        return legacy_documents(meta)
    kinds = (pause_id, daemon_id, comparison_id, unstored_id, worker_id)
    keys = {key for name in meta.roots for key in (name, *keys_of(name, divided[name]))}
    return store.state.read_many([kind(key) for key in sorted(keys) for kind in kinds])


def _root_state(state: Mapping[str, Document], key: str) -> dict[str, Any]:
    """Return what is known of a root, or of one of its partitions."""
    return {
        **_unstored(state.get(unstored_id(key))),
        "deletions_paused": active_pause(state.get(pause_id(key))),
        **_daemon(state.get(daemon_id(key))),
        **_comparison(state.get(comparison_id(key))),
    }


def _shared_root(state: Mapping[str, Document], name: str, count: int) -> dict[str, Any]:
    """Return what is known of a root, or of all its partitions together."""
    whole = {**_root_state(state, name), "partitions": []}
    if count == 1:
        return whole
    parts = [
        {
            "partition": key.removeprefix(f"{name}/"),
            **_root_state(state, key),
            "worker": _daemon(state.get(worker_id(key)))["watched_by"],
        }
        for key in keys_of(name, count)
    ]

    def first(field: str) -> Any:
        return next((each[field] for each in parts if each[field]), None)

    alive = [part for part in parts if part["watched_by"] and part["watched_by"]["is_alive"]]
    return {
        **whole,
        **{field: first(field) for field in whole if field != "partitions"},
        "unstored": sum(part["unstored"] for part in parts),
        "queue": sum(part["queue"] for part in alive) if alive else None,
        "watched_by": alive[0]["watched_by"] if alive else first("watched_by"),
        "partitions": parts,
    }


def _unstored(document: Document | None) -> dict[str, Any]:
    files = unstored_files(document)
    return {
        "unstored": len(files),
        "unstored_example": min(files, default=None),
        "unstored_reason": unstored_reason(document) if files else None,
    }


def _comparison(document: Document | None) -> dict[str, Any]:
    """Last comparison of a root, and how the encoder ran then."""
    body = dict((document or {}).get("body") or {})
    plan = body.pop("encoder_plan", None)
    costs = body.pop("costs", None)
    return {"last_reconcile": body or None, "encoder_plan": plan, "costs": costs}


def _generation(
    store: Store, name: str | None, building: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any] | None:
    if name is None:
        return None
    generation = store.at(name)
    meta = generation.info().meta
    return {
        "generation": name,
        "encoder": meta.seal.name,
        "profile": meta.profile,
        "pictures": generation.listings.count(),
        "builder": building.get(name) or legacy_builder(meta),
    }


def _daemon(lease: Document | None) -> dict[str, Any]:
    if lease is None:
        return {
            "queue": None,
            "disk_hung_seconds": None,
            "folder_missing": None,
            "watched_by": None,
        }
    alive = is_at_work(lease)
    shown = {name: lease[name] for name in ("host", "process_id", "since", "seen_at")}
    queue = lease["body"].get("queue", 0)
    # A daemon of an earlier version does not store it.
    hung_seconds = lease["body"].get("hung_seconds", {}).get(lease.get("root"))
    is_missing = lease.get("root") in lease["body"].get("absent", ())
    return {
        "queue": queue if alive else None,
        "disk_hung_seconds": hung_seconds if alive else None,
        "folder_missing": is_missing if alive else None,
        "watched_by": {
            **shown,
            "seen_seconds_ago": round(max(0.0, seconds_since(lease)), 1),
            "queue": queue,
            "is_alive": alive,
        },
    }
