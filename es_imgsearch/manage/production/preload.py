"""Choose the files that Elasticsearch reads into memory when it opens a shard.

Graph and quantised vectors (vex, and veq or veb) are read by every search, so they are preloaded
where they fit (`index.store.preload`).  Never the whole vectors (vec): searches read few of them.
Metadata (vem, vemf, vemq, vemb) needs none, since Lucene reads it onto the heap when it opens a
segment.  The setting is fixed while an index is open, and closing one ends its searches and its
daemons, so an index that is there gets another one by `reindex`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from es_imgsearch.elastic.mapping import VECTOR_FIELD, load_profile
from es_imgsearch.elastic.meta_entries import ShardLayout
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import ImgSearchError, readable_bytes
from es_imgsearch.manage.production.sizes import VectorKind
from es_imgsearch.records import Grid

AUTO: Final = "auto"
OFF: Final = "off"
CHOICES: Final = (AUTO, OFF)

# The rest of the page cache is for fields and words, whole vectors of the best hits, other indices.
_MOST_SHARE: Final = 0.5
# What an empty index is counted as.
EXPECTED_PICTURES: Final = 1_000_000
# An index may grow so many times before it is opened anew.
GROWTH: Final = 2


@dataclass(frozen=True)
class Preload:
    """Endings of the files, none where they do not fit; and why, in words."""

    files: tuple[str, ...]
    why: str


def memory_left(nodes: list[Any]) -> list[int]:
    """Return the bytes of memory that the heap of each data node leaves."""
    return [
        max(
            0,
            each["os"]["mem"]["adjusted_total_in_bytes"] - each["jvm"]["mem"]["heap_max_in_bytes"],
        )
        for each in nodes
    ]


def fitting(kind: VectorKind, vectors: int, layout: ShardLayout, left: list[int]) -> Preload:
    """Choose the files for so many vectors, if each node holds those of its shards."""
    if not kind.preloaded:
        return Preload((), "its searches read whole vectors, which are not preloaded")
    if not left:
        return Preload((), "the memory of the nodes is not known")
    replicas = min(1, len(left) - 1) if layout.replicas is None else layout.replicas
    # Of the node that holds most: shards are not divided.
    shards_per_node = -(-layout.shards * (1 + replicas) // len(left))
    needed = -(-vectors * kind.cached_bytes // layout.shards) * shards_per_node
    words = f"{readable_bytes(needed)} of graphs and vectors a node"
    if needed > _MOST_SHARE * min(left):
        least = readable_bytes(min(left))
        return Preload((), f"{words} are more than half of the {least} that its heap leaves")
    return Preload(tuple(kind.preloaded), words)


def choose_preload(
    store: Store,
    choice: str | None,
    layout: ShardLayout,
    profile: str,
    dims: int,
    grid: Grid | None,
    *,
    pictures: int = EXPECTED_PICTURES,
) -> tuple[ShardLayout, Preload]:
    """Complete a layout; `dims` are those of the encoder.

    Without a `choice`, an index for which `off` was chosen keeps that.
    """
    if choice == OFF or (choice is None and layout.preload == ()):
        return _with(layout, ()), Preload((), "switched off")
    try:
        answer = store.connection.request(
            "GET",
            "/_nodes/data:true/stats/os,jvm",
            params={"filter_path": "nodes.*.os.mem,nodes.*.jvm.mem.heap_max_in_bytes"},
        )
        left = memory_left(list(answer.get("nodes", {}).values()))
    except ImgSearchError as error:
        return _with(layout, None), Preload((), f"the memory of the nodes is not known: {error}")
    kind = VectorKind.of_mapping(load_profile(profile)["properties"][VECTOR_FIELD], dims)
    vectors = pictures * (1 + (grid.count if grid else 0))
    found = fitting(kind, vectors, layout, left)
    return _with(layout, found.files or None), found


def _with(layout: ShardLayout, files: tuple[str, ...] | None) -> ShardLayout:
    return ShardLayout(layout.shards, layout.replicas, files, layout.max_merged_segment)
