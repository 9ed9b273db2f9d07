"""Checks of the cluster: disks, blocks, copies, memory, clocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.errors import StoreDenied, readable_bytes
from es_imgsearch.manage.doctor.setup import Finding, SetUp
from es_imgsearch.manage.production.sizes import VectorKind
from es_imgsearch.watch.commands import command_line

# A lease of a daemon lasts 10 s by default, and is judged by this machine's clock.
_CLOCK_SECONDS: Final = 5.0
# https://www.elastic.co/docs/deploy-manage/production-guidance/optimize-performance/size-shards
_LARGEST_SHARD_BYTES: Final = 50 * 10**9
_GOOD_SHARD_BYTES: Final = 30 * 10**9

_BLOCKS: Final = {
    "read_only_allow_delete": "is read-only: a disk was full, or somebody said so; Elasticsearch"
    " ends it by itself once there is space",
    "read_only": "is read-only: somebody said so",
    "read": "is not read, nor searched: somebody said so",
    "metadata": "shows nobody what it is: somebody said so",
}
# From the least free space to the most.
_WATERMARKS: Final = {
    "flood_stage": "Elasticsearch refuses to write into the indices that are there",
    "high": "Elasticsearch moves indices away from it",
    "low": "Elasticsearch puts no new copies of indices there",
}


def disks(setup: SetUp) -> Iterator[Finding]:
    """Yield the data nodes whose free space is below a watermark."""
    for node in setup.nodes:
        for disk in node["fs"]["data"]:
            free = disk["available_in_bytes"]
            for name, effect in _WATERMARKS.items():
                least = _watermark_bytes(disk, name)
                if least is None or free >= least:
                    continue
                # Below the flood stage it refuses to write until the high watermark is free again.
                needed = max(least, (name == "flood_stage" and _watermark_bytes(disk, "high")) or 0)
                yield Finding(
                    "disks",
                    f"Node {node['name']}: {readable_bytes(free)} are free in {disk['path']}, less"
                    f" than its {name.replace('_', ' ')} watermark of {readable_bytes(least)}:"
                    f" {effect}. Free another {readable_bytes(needed - free)} there, or add a"
                    " node.",
                )
                break


def _watermark_bytes(disk: Mapping[str, Any], name: str) -> int | None:
    # Thus named by Elasticsearch 8.19: `flood_stage` without `watermark`.
    infix = "" if name == "flood_stage" else "_watermark"
    found: int | None = disk.get(f"{name}{infix}_free_space_in_bytes")
    return found


def blocks(setup: SetUp) -> Iterator[Finding]:
    """Yield our indices that refuse to be read or written."""
    for name, settings in sorted(setup.index_settings.items()):
        for block, value in sorted(settings.get("blocks", {}).items()):
            # Of `write`, `state` says what to do: a reindex may be about to switch.
            if value != "true" or block not in _BLOCKS:
                continue
            if block == "read_only_allow_delete" and _is_full(setup):
                yield Finding(
                    "blocks",
                    f"{name} is read-only, since a disk is full: Elasticsearch ends that by itself"
                    " once more than the high watermark is free, and refuses again what is written"
                    " before.",
                )
                continue
            yield Finding(
                "blocks",
                f"{name} {_BLOCKS[block]}. To end it:",
                f'PUT /{name}/_settings {{"index.blocks.{block}": null}}',
            )


def _is_full(setup: SetUp) -> bool:
    """Check that a data node is below its high watermark; False if we may not ask."""
    try:
        every = [disk for node in setup.nodes for disk in node["fs"]["data"]]
    except StoreDenied:
        return False
    return any(disk["available_in_bytes"] < (_watermark_bytes(disk, "high") or 0) for disk in every)


def whole_cluster(setup: SetUp) -> Iterator[Finding]:
    """Yield a finding if nothing may be written, or made, in the whole cluster."""
    answer = setup.get("/_cluster/settings", flat_settings="true")
    for kind in ("persistent", "transient"):
        for name, value in sorted(answer[kind].items()):
            if name.startswith("cluster.blocks.") and value == "true":
                yield Finding(
                    "cluster",
                    f"The whole cluster refuses requests, since somebody set {name}. To end it:",
                    f'PUT /_cluster/settings {{"{kind}": {{"{name}": null}}}}',
                )


def copies(setup: SetUp) -> Iterator[Finding]:
    """Yield our indices that lack shards, or that a lost node would harm."""
    if not setup.index_settings:
        return
    nodes = setup.health["number_of_data_nodes"]
    for name, index in sorted(setup.health.get("indices", {}).items()):
        wanted = index["number_of_replicas"]
        if index["status"] == "red":
            yield Finding(
                "copies",
                f"{name}: {index['number_of_shards'] - index['active_primary_shards']} of"
                f" {index['number_of_shards']} shards are missing, and their pictures with them:"
                " start the nodes that hold them, or restore a snapshot.",
                "GET /_cluster/allocation/explain",
            )
        elif wanted >= nodes:
            yield Finding(
                "copies",
                f"{name} shall have {wanted + 1} copies of each shard, and {nodes} data"
                f" node{'s hold' if nodes > 1 else ' holds'} at most one each: add nodes, or:",
                _replicas(name, nodes - 1),
            )
        elif index["unassigned_shards"] and not index["initializing_shards"]:
            yield Finding(
                "copies",
                f"{name}: {index['unassigned_shards']} copies of shards are on no node. Why:",
                "GET /_cluster/allocation/explain",
            )
        elif nodes > 1 and not wanted:
            yield Finding(
                "copies",
                f"{name} has one copy of each shard: the loss of a node loses pictures. To have"
                " two:",
                _replicas(name, 1),
            )


def _replicas(name: str, number: int) -> str:
    body = f'{{"index.auto_expand_replicas": false, "index.number_of_replicas": {number}}}'
    return f"PUT /{name}/_settings {body}"


def shards(setup: SetUp) -> Iterator[Finding]:
    """Yield generations whose shards are larger than Elastic advises."""
    for name, size in setup.primary_bytes().items():
        number = int(setup.index_settings[name]["number_of_shards"])
        if size / number > _LARGEST_SHARD_BYTES:
            yield Finding(
                "shards",
                f"{name}: its {number} shard{'s have' if number > 1 else ' has'}"
                f" {readable_bytes(size // number)} each; larger than"
                f" {readable_bytes(_LARGEST_SHARD_BYTES)} they take long to move and to search."
                " To make more of them:",
                command_line(
                    ["reindex"],
                    [],
                    ["--shards", str(-(-size // _GOOD_SHARD_BYTES)), "--index", setup.index],
                ),
            )


def memory(setup: SetUp) -> Iterator[Finding]:
    """Yield a finding if the page cache does not hold the vectors that are searched."""
    count, vector = setup.status["pictures"], setup.info.properties[VECTOR_FIELD]
    kind = VectorKind.of_mapping(vector, setup.info.meta.stored_dims)
    replicas = int(setup.index_settings[setup.info.name]["number_of_replicas"])
    needed = count * kind.cached_bytes * (1 + replicas)
    cache = sum(
        node["os"]["mem"]["adjusted_total_in_bytes"] - node["jvm"]["mem"]["heap_max_in_bytes"]
        for node in setup.nodes
    )
    if needed > cache:
        yield Finding(
            "memory",
            f"Searches read {readable_bytes(needed)} of vectors and graphs, and the data nodes have"
            f" {readable_bytes(max(cache, 0))} of memory left by their heaps: each search waits for"
            " the disk. Add memory or nodes, or take a profile of smaller vectors (reindex"
            " --profile compact, or binary).",
        )


def clocks(setup: SetUp) -> Iterator[Finding]:
    """Yield the nodes whose clock differs from this machine's."""
    for node in setup.nodes:
        seconds = (node["timestamp"] - node["asked_at_ms"]) / 1000
        if abs(seconds) > _CLOCK_SECONDS:
            yield Finding(
                "clocks",
                f"Node {node['name']}: its clock is {abs(seconds):,.0f} s"
                f" {'ahead of' if seconds > 0 else 'behind'} this machine's. Set both by NTP:"
                " daemons compare times.",
            )
