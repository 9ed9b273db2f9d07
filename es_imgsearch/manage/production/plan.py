"""Plan an index before it is made: sizes, time, commands for every profile.

What is known of the index of the same name is measured: bytes of its documents and vectors by the
disk usage API, and the speed of its encoder by `embed_ms`.  Everything else is the assumption that
is printed with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from es_imgsearch.elastic.mapping import VECTOR_FIELD, load_json, load_profile, profile_names
from es_imgsearch.elastic.meta_entries import LARGEST_SEGMENT
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import (
    ImgSearchError,
    IndexMissing,
    StoreError,
    UsageError,
    counted,
    readable_bytes,
)
from es_imgsearch.manage.production.sizes import (
    GB,
    Load,
    Sizes,
    VectorKind,
    heap_bytes,
    ingest_hours,
    sizes_of,
)

# Dims of encoders whose models may not be here.
KNOWN_DIMS: Final = {"starter": 384, "clip": 512}
DEFAULT_ENCODER: Final = "clip"
# Of a photograph with EXIF, colours and hashes: 712 in benchmarks/plan.py.  Texts make it more.
ASSUMED_DOCUMENT_BYTES: Final = 700.0
# Its own tags have a score each.
ASSUMED_BYTES_OF_ENCODER: Final = {"starter": 1050.0}
# ViT-B/32 on one core of 2020 without a GPU, as in settings.py.
ASSUMED_EMBED_MS: Final = 88.0
# 4,000 to 7,000 documents of 512 dims a second were written to one node.
ASSUMED_WRITES_PER_SECOND: Final = 4000.0
# Fewer documents say nothing of their size: the words of the first ones weigh most.
_LEAST_MEASURED: Final = 1000
_BINARY_MIN_DIMS: Final = 64
_EXACT_MOST: Final = 10_000
# Their segments are worth merging after the first load.
_MERGED_FROM: Final = 100_000


@dataclass(frozen=True)
class Measured:
    """What an index that is there says; None is not known.  `notes` say why."""

    encoder: str | None = None
    dims: int | None = None
    profile: str | None = None
    document_bytes: float | None = None
    vector_bytes: float | None = None
    embed_ms: float | None = None
    pictures: int = 0
    notes: Sequence[str] = field(default=())


@dataclass(frozen=True)
class ProfilePlan:
    """One profile: its sizes, settings and commands, and what speaks against it."""

    profile: str
    about: str
    sizes: Sizes
    settings: Mapping[str, Any]
    commands: Sequence[str]
    warnings: Sequence[str]


@dataclass(frozen=True)
class Plan:
    """What was asked, what was assumed or measured, and every profile."""

    pictures: int
    encoder: str | None
    dims: int
    nodes: int
    replicas: int
    machines: int
    document_bytes: float
    embed_ms: float
    ingest_hours: float
    basis: Sequence[str]
    profiles: Sequence[ProfilePlan]

    def to_dict(self) -> dict[str, Any]:
        """Return what `plan --json` prints."""
        return asdict(self)


def measure_index(store: Store) -> Measured:
    """Measure the index of that name; without one, or without rights, less is known."""
    try:
        info = store.info()
    except IndexMissing:
        return Measured(notes=[f"There is no index {store.index!r} to measure."])
    except ImgSearchError as error:
        return Measured(notes=[f"Index {store.index!r} could not be measured: {error}"])
    known = Measured(info.meta.seal.name, info.meta.seal.dims, info.meta.profile)
    body = {
        "size": 0,
        "track_total_hits": True,
        "aggs": {"embed_ms": {"percentiles": {"field": "embed_ms", "percents": [50]}}},
    }
    try:
        answer = store.connection.request("POST", f"/{info.name}/_search", body)
        pictures = answer["hits"]["total"]["value"]
        (embed_ms,) = answer["aggregations"]["embed_ms"]["values"].values()
    except StoreError as error:
        return _with(known, notes=[f"Its pictures could not be counted: {error}"])
    known = _with(known, pictures=pictures, embed_ms=embed_ms)
    if pictures < _LEAST_MEASURED:
        few = counted(pictures, "picture")
        return _with(known, notes=[f"Index {store.index!r} has {few}, too few to measure sizes."])
    try:
        usage = store.connection.request(
            "POST", f"/{info.name}/_disk_usage", params={"run_expensive_tasks": "true"}
        )[info.name]
    except StoreError as error:
        return _with(known, notes=[f"Its sizes could not be measured: {error}"])
    return _with(known, **_bytes_of(usage, pictures))


def _with(known: Measured, **more: Any) -> Measured:
    return Measured(**{**known.__dict__, **more})


def _bytes_of(usage: Mapping[str, Any], pictures: int) -> dict[str, float]:
    """Bytes of a vector and of the rest of a document, by the disk usage API."""
    vectors = usage["fields"].get(VECTOR_FIELD, {}).get("knn_vectors_in_bytes", 0)
    # A copy of each document with its vector is kept for replicas for some time.
    kept = usage["fields"].get("_recovery_source", {}).get("total_in_bytes", 0)
    rest = usage["all_fields"]["total_in_bytes"] - vectors - kept
    return {"vector_bytes": vectors / pictures, "document_bytes": rest / pictures}


def make_plan(
    pictures: int,
    *,
    index: str,
    encoder: str | None = None,
    dims: int | None = None,
    nodes: int = 1,
    replicas: int | None = None,
    profile: str | None = None,
    measured: Measured | None = None,
    encoder_speed: float | None = None,
    machines: int = 1,
    heap_gb: int | None = None,
) -> Plan:
    """Plan an index for so many pictures.  Raises UsageError for what cannot be.

    `encoder` or `dims` are those of the index that was measured, or of `clip`, without either.
    `encoder_speed` is in pictures a second of each of the `machines` that embed; `heap_gb` is what
    each node has.
    """
    measured = measured or Measured()
    replicas = min(1, nodes - 1) if replicas is None else replicas
    if replicas >= nodes:
        raise UsageError(
            f"{counted(replicas, 'replica')} of each shard take at least {replicas + 1} nodes: give"
            f" --nodes {replicas + 1}, or fewer --replicas."
        )
    names = [profile] if profile else list(profile_names())
    for name in names:
        load_profile(name)
    asked = encoder
    if encoder is None and dims in {None, measured.dims}:
        asked = measured.encoder or (DEFAULT_ENCODER if dims is None else None)
    is_measured = asked is not None and measured.encoder == asked
    dims = dims or (measured.dims if is_measured else KNOWN_DIMS.get(asked or ""))
    if dims is None:
        raise UsageError(
            f"How many dims encoder {asked!r} has is not known without its model: give --dims N."
        )
    assumed_bytes = ASSUMED_BYTES_OF_ENCODER.get(asked or "", ASSUMED_DOCUMENT_BYTES)
    document_bytes = measured.document_bytes or assumed_bytes
    embed_ms = (measured.embed_ms if is_measured else None) or ASSUMED_EMBED_MS
    if encoder_speed is not None:
        embed_ms = 1000 / encoder_speed
    # Each node writes the copies of its shards.
    writes_per_second = ASSUMED_WRITES_PER_SECOND * nodes / (1 + replicas)
    load = Load(pictures, nodes, replicas, document_bytes)
    return Plan(
        pictures=pictures,
        encoder=asked,
        dims=dims,
        nodes=nodes,
        replicas=replicas,
        machines=machines,
        document_bytes=document_bytes,
        embed_ms=embed_ms,
        ingest_hours=ingest_hours(pictures, embed_ms / machines, writes_per_second),
        basis=_basis(measured, assumed_bytes, is_measured=is_measured, encoder_speed=encoder_speed),
        profiles=[_of_profile(name, index, asked, dims, load, measured, heap_gb) for name in names],
    )


def vector_kind(profile: str, dims: int) -> VectorKind:
    """Return how a profile stores vectors of so many dims."""
    return VectorKind.of_mapping(load_profile(profile)["properties"][VECTOR_FIELD], dims)


def _of_profile(
    name: str,
    index: str,
    encoder: str | None,
    dims: int,
    load: Load,
    measured: Measured,
    heap_gb: int | None,
) -> ProfilePlan:
    kind = vector_kind(name, dims)
    is_measured = name == measured.profile and dims == measured.dims
    vector_bytes = measured.vector_bytes if is_measured else None
    heap = None if heap_gb is None else heap_gb * GB
    sizes = sizes_of(load, kind, vector_bytes=vector_bytes, heap_per_node=heap)
    options = f" --profile {name}" + (" --sample FROM" if name == "reduced" else "")
    shards = f" --shards {sizes.shards}" if sizes.shards > 1 else ""
    replicas = f" --replicas {load.replicas}" if load.nodes > 1 else ""
    init = f"es-imgsearch init --index {index} --encoder {encoder or 'NAME'}{options}"
    merge = " --merge" if load.pictures >= _MERGED_FROM else ""
    tune = [] if name == "exact" else [f"es-imgsearch tune --index {index}{merge}"]
    return ProfilePlan(
        profile=name,
        about=load_profile(name)["_meta"]["about"],
        sizes=sizes,
        settings={
            "number_of_shards": sizes.shards,
            "number_of_replicas": load.replicas,
            "index.store.preload": kind.preloaded,
            f"index.{LARGEST_SEGMENT}": load_json("mappings", "common.json")["settings"][
                LARGEST_SEGMENT
            ],
            "jvm.options": f"-Xms{_gigabytes(sizes.heap_per_node_bytes)}g"
            f" -Xmx{_gigabytes(sizes.heap_per_node_bytes)}g",
        },
        commands=[init + shards + replicas, f"es-imgsearch sync --index {index} DIR", *tune],
        warnings=_warnings(name, dims, load, sizes, heap_bytes(load.pictures, sizes.shards, kind)),
    )


def _gigabytes(number: int) -> int:
    """Round up to whole GB, as Java's options take them."""
    return -(-number // 10**9)


def _warnings(name: str, dims: int, load: Load, sizes: Sizes, heap_needed: int) -> list[str]:
    warnings = []
    if heap_needed > sizes.heap_per_node_bytes:
        warnings.append(
            f"merges the graph of a shard in {readable_bytes(heap_needed)} of heap, more than the"
            f" {readable_bytes(sizes.heap_per_node_bytes)} of a node"
        )
    if name == "exact" and load.pictures > _EXACT_MOST:
        warnings.append(
            "compares every picture with each search: for up to 10,000 pictures, and for checking"
        )
    if name == "binary" and dims < _BINARY_MIN_DIMS:
        warnings.append(f"needs vectors of at least {_BINARY_MIN_DIMS} dims")
    if name == "compact" and dims % 2:
        warnings.append("needs an even number of dims")
    if sizes.shards < load.nodes and sizes.shards * (1 + load.replicas) < load.nodes:
        idle = load.nodes - sizes.shards * (1 + load.replicas)
        warnings.append(f"leaves {counted(idle, 'node')} without a copy of a shard")
    return warnings


def _basis(
    measured: Measured, assumed_bytes: float, *, is_measured: bool, encoder_speed: float | None
) -> list[str]:
    """Say which numbers were measured, and which are assumed."""
    basis = [
        f"{measured.document_bytes:,.0f} bytes a document without its vector, as in this index"
        if measured.document_bytes
        else f"{assumed_bytes:,.0f} bytes a document without its vector, assumed"
    ]
    if measured.vector_bytes:
        basis.append(
            f"{measured.vector_bytes:,.0f} bytes a vector of profile {measured.profile!r}, measured"
            " in this index; others by the formulas"
        )
    basis.append(
        f"{encoder_speed:,g} pictures a second embedded by each machine, as given"
        if encoder_speed is not None
        else f"{measured.embed_ms:,.1f} ms to embed a picture, the median of this index"
        if is_measured and measured.embed_ms
        else f"{ASSUMED_EMBED_MS:,.0f} ms to embed a picture, assumed: CLIP ViT-B/32 on one core"
    )
    basis.append(
        f"{ASSUMED_WRITES_PER_SECOND:,.0f} documents a second written by each node, assumed"
    )
    return [*basis, *measured.notes]
