"""Formulas of the sizes of an index, from numbers alone.

Bytes of n vectors of d dims, as Elasticsearch's documentation has them ("Tune approximate kNN
search"): float n·d·4, int8 n·(d+4), int4 n·(d/2+4), bbq n·(d/8+14), the graph n·4·m.  Shards have
10 to 50 GB and fewer than 200 million documents ("Size your shards").  GB are 10^9 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

GB: Final = 10**9

# Bytes of a quantised vector, by the type of `index_options`; a flat or plain graph has none.
_QUANTISED: Final = {"int8_hnsw": (8, 4), "int4_hnsw": (4, 4), "bbq_hnsw": (1, 14)}

# Nearly the middle of 10 to 50 GB, above which a shard is split.
_FULL_SHARD_BYTES: Final = 40 * GB
_SMALL_SHARD_BYTES: Final = 10 * GB
_MOST_DOCUMENTS: Final = 200_000_000

# A node takes no more shards above 85 % (cluster.routing.allocation.disk.watermark.low).
_LOW_WATERMARK: Final = 0.85
_LEAST_HEAP_BYTES: Final = 1 * GB
# Above 31 GB Java's pointers are twice as long.
_MOST_HEAP_BYTES: Final = 31 * GB
# While graphs are merged, their neighbours stand on the heap as integers, with an object each.
_MERGED_NODE_BYTES: Final = 64
_SYSTEM_BYTES: Final = 1 * GB


@dataclass(frozen=True)
class VectorKind:
    """How a profile stores vectors: dims, bytes of a dim, type of index, graph's m."""

    dims: int
    bytes_per_dim: int
    index_type: str
    m: int

    @classmethod
    def of_mapping(cls, mapping: Mapping[str, Any], dims: int) -> Self:
        """Parse the mapping of a vector; `dims` are those of the encoder."""
        is_bytes = mapping.get("element_type") == "byte"
        options = mapping["index_options"]
        return cls(
            # The profile `reduced` keeps as many dims as its mapping has.
            dims=min(dims, mapping["dims"]) if is_bytes else dims,
            bytes_per_dim=1 if is_bytes else 4,
            index_type=options["type"],
            m=options.get("m", 16),
        )

    @property
    def has_graph(self) -> bool:
        return self.index_type.endswith("hnsw")

    @property
    def whole_bytes(self) -> int:
        """Bytes of a vector as it was given."""
        return self.dims * self.bytes_per_dim

    @property
    def quantised_bytes(self) -> int:
        """Bytes of its quantised copy, 0 without one."""
        bits, more = _QUANTISED.get(self.index_type, (0, 0))
        return -(-self.dims * bits // 8) + more

    @property
    def graph_bytes(self) -> int:
        return 4 * self.m if self.has_graph else 0

    @property
    def preloaded(self) -> list[str]:
        """Endings of the files to load before searches: graph and quantised vectors."""
        codes = {"bbq_hnsw": ["veb"]}.get(self.index_type, ["veq"] if self.quantised_bytes else [])
        return (["vex"] if self.has_graph else []) + codes

    @property
    def stored_bytes(self) -> int:
        """All that a vector takes on disk."""
        return self.whole_bytes + self.quantised_bytes + self.graph_bytes

    @property
    def cached_bytes(self) -> int:
        """What every search reads: the graph, and the vectors that it is walked by."""
        return (self.quantised_bytes or self.whole_bytes) + self.graph_bytes


@dataclass(frozen=True)
class Load:
    """What is to be stored, and on how many nodes."""

    pictures: int
    nodes: int
    replicas: int
    # Of a picture without its vector: fields, words, `_source`.
    document_bytes: float


@dataclass(frozen=True)
class Sizes:
    """What an index takes; bytes are of one copy, of all copies, or of a node."""

    copy_bytes: int
    disk_bytes: int
    disk_per_node_bytes: int
    page_cache_bytes: int
    page_cache_per_node_bytes: int
    heap_per_node_bytes: int
    memory_per_node_bytes: int
    shards: int
    shard_bytes: int


def sizes_of(
    load: Load,
    kind: VectorKind,
    *,
    vector_bytes: float | None = None,
    heap_per_node: int | None = None,
) -> Sizes:
    """Compute the sizes of an index.

    `vector_bytes`: a vector's on disk, if measured; `heap_per_node`: that of the nodes, if known.
    """
    stored = kind.stored_bytes if vector_bytes is None else vector_bytes
    copy = round(load.pictures * (stored + load.document_bytes))
    copies = 1 + load.replicas
    shards = shard_count(load.pictures, copy, load.nodes)
    cache = load.pictures * kind.cached_bytes
    heap = heap_per_node or heap_bytes(load.pictures, shards, kind)
    shard = -(-copy // shards)
    # Of the node that holds most: shards are not divided.
    shards_per_node = -(-shards * copies // load.nodes)
    # A merge writes a shard anew before the old one goes.
    disk_per_node = round(shard * (shards_per_node + 1) / _LOW_WATERMARK)
    cache_per_node = -(-cache // shards) * shards_per_node
    return Sizes(
        copy_bytes=copy,
        disk_bytes=copy * copies,
        disk_per_node_bytes=disk_per_node,
        page_cache_bytes=cache * copies,
        page_cache_per_node_bytes=cache_per_node,
        heap_per_node_bytes=heap,
        memory_per_node_bytes=heap + cache_per_node + _SYSTEM_BYTES,
        shards=shards,
        shard_bytes=shard,
    )


def shard_count(pictures: int, copy_bytes: int, nodes: int) -> int:
    """Choose the number of shards: few, and on every node if they stay above 10 GB."""
    least = max(1, -(-copy_bytes // _FULL_SHARD_BYTES), -(-pictures // _MOST_DOCUMENTS))
    even = -(-least // nodes) * nodes
    return min(even, max(least, copy_bytes // _SMALL_SHARD_BYTES))


def heap_bytes(pictures: int, shards: int, kind: VectorKind) -> int:
    """Estimate the heap of a node: 1 GB, and the graph of a shard while it is merged."""
    merged = pictures / shards * (8 * kind.m + _MERGED_NODE_BYTES) if kind.has_graph else 0
    return min(_MOST_HEAP_BYTES, max(_LEAST_HEAP_BYTES, round(_LEAST_HEAP_BYTES / 2 + 2 * merged)))


def ingest_hours(pictures: int, embed_ms: float, writes_per_second: float) -> float:
    """Return how long a first `sync` takes: embedding and writing go on side by side."""
    return pictures * max(embed_ms / 1000, 1 / writes_per_second) / 3600
