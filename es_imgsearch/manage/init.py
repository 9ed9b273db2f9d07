"""Create an index, or check that the existing one is as requested (`init`)."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from es_imgsearch.describe.registry import describer_mappings
from es_imgsearch.elastic.mapping import (
    DEFAULT_PROFILE,
    DEFAULT_SIMILARITY,
    check_reducible,
    has_present_analysers,
    load_json,
    load_profile,
    new_meta,
)
from es_imgsearch.elastic.meta import IndexInfo, Meta, Seal
from es_imgsearch.elastic.meta_entries import LARGEST_SEGMENT, ShardLayout
from es_imgsearch.elastic.server import version
from es_imgsearch.elastic.state import GONE_FIELDS
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import seal_of, sealed_encoder
from es_imgsearch.embed.reduction import Reduction, fit, store_reduction
from es_imgsearch.embed.registry import load_encoder
from es_imgsearch.errors import (
    EncoderMismatch,
    IndexConflict,
    IndexMissing,
    UsageError,
    counted,
)
from es_imgsearch.manage.production.preload import AUTO, choose_preload
from es_imgsearch.manage.status import renewing_words
from es_imgsearch.manage.upgrade import upgrade
from es_imgsearch.manage.vector_sample import VectorSample, load_sample
from es_imgsearch.records import Grid
from es_imgsearch.search.reduced import register_originals
from es_imgsearch.search.search_log import create_searches_index
from es_imgsearch.settings import Settings

DEFAULT_ENCODER = "clip"

logger = logging.getLogger(__name__)


def create_index(
    store: Store,
    settings: Settings,
    *,
    profile: str | None = None,
    similarity: str | None = None,
    sample: str | None = None,
    dims_kept: int | None = None,
    originals: Path | None = None,
    regions: str | None = None,
    shards: int | None = None,
    replicas: int | None = None,
    preload: str | None = None,
) -> str:
    """Create the index behind the alias, or check the existing one.

    Returns a sentence that reports which.  Fields that an existing index lacks, since a describer
    or a version of this program added them later, are added to its mapping.

    `sample` is an index or a file with whole vectors, on which the profile `reduced` fits its
    `dims_kept` dims; `originals` a file of whole vectors that its hits are compared with again, see
    `search.reduced`.  Both are for that profile only.  `regions` is the grid of tiles, such as
    2x2+centre, whose vectors are stored too.  The index gets as many `shards` (1) with so many
    `replicas` (one once there are two data nodes); an existing one may change its replicas only.
    `preload` (auto or off) says whether it is read into memory when it is opened, see
    `production.preload`.

    Raises IndexConflict if an existing index has another profile, similarity or grid,
    EncoderMismatch if it, or the sample, belongs to another encoder.
    """
    if profile is not None:
        load_profile(profile)
    grid = None if regions is None else Grid.parse(regions)
    if fault := version.check(store.connection.version()):
        logger.warning("%s", fault)
    try:
        store.generations.sealed()
    except IndexMissing:
        profile, similarity = profile or DEFAULT_PROFILE, similarity or DEFAULT_SIMILARITY
        has_sample = sample is not None or dims_kept is not None
        check_reducible(profile, similarity, has_sample=has_sample)
        seal, reduction = _sealed_and_fitted(store, settings, sample, dims_kept)
        meta = new_meta(seal, profile, similarity, reduction.entry() if reduction else None, grid)
        if reduction is not None:
            # Before the alias of the pictures: if that exists, everything does.
            store_reduction(store, reduction)
        layout = _layout(store, meta, ShardLayout(shards or 1, replicas), preload)
        store.generations.create(meta, describer_mappings(), layout=layout)
        if replicas is not None:
            store.set_copies(layout)
        # Of an index of this name that was deleted; this one may not have the fields.
        store.state.delete(GONE_FIELDS)
        _create_companions(store, settings, originals)
        return (
            f"Made index {store.index!r}: encoder {seal.name}, {seal.dims} dims, profile"
            f" {profile}, {similarity}{_reduction_words(reduction)}"
            + (f", {_grid_words(grid)}." if grid else ".")
        )
    upgrade(store)
    store.generations.make_state()
    info = store.info()
    # Somebody may have deleted them, or another process that was deleting the index before.
    store.generations.make_failures(info.name)
    if settings.encoder is not None:
        try:
            spec = seal_of(sealed_encoder(info, store.index, settings)).spec
        except EncoderMismatch as error:
            raise EncoderMismatch(
                f"{error} To change the encoder of this index while it is searched: `es-imgsearch"
                f" reindex --encoder {settings.encoder} --index {store.index}`."
            ) from error
        if spec not in {None, info.meta.seal.spec}:
            store.generations.update_meta(
                lambda meta: replace(meta, seal=replace(meta.seal, spec=spec))
            )
    _check_requested(store.index, info.meta, profile, similarity, dims_kept)
    if grid is not None and grid != info.meta.grid:
        raise IndexConflict(
            f"Index {store.index!r} exists with {_grid_words(info.meta.grid)}, not {grid}: leave"
            " --regions out, or make another --index."
        )
    _arrange(store, info.layout, shards, replicas, preload)
    _create_companions(store, settings, originals)
    added = store.generations.add_fields(info, describer_mappings())
    plural = "s" * (len(added) != 1)
    return (
        f"Index {store.index!r} is there already: encoder {info.meta.seal.name}, profile"
        f" {info.meta.profile}, {info.meta.similarity}"
        + (f"; added the field{plural} {', '.join(added)}." if added else ".")
        + _words_renewed(info, store.index)
    )


def _layout(store: Store, meta: Meta, layout: ShardLayout, preload: str | None) -> ShardLayout:
    """Complete the layout of a new index by what is preloaded."""
    layout, found = choose_preload(store, preload, layout, meta.profile, meta.seal.dims, meta.grid)
    if preload == AUTO and not found.files:
        logger.warning("Nothing is preloaded: %s.", found.why)
    return layout


def _arrange(
    store: Store,
    layout: ShardLayout,
    shards: int | None,
    replicas: int | None,
    preload: str | None,
) -> None:
    """Change the replicas of an index, and let it merge into larger segments.

    Raises IndexConflict for what is fixed: shards, preload.
    """
    if shards not in {None, layout.shards}:
        raise IndexConflict(
            f"Index {store.index!r} exists with {counted(layout.shards, 'shard')}: change that with"
            f" `es-imgsearch reindex --shards {shards} --index {store.index}`."
        )
    if preload is not None and (preload == AUTO) != bool(layout.preload):
        raise IndexConflict(
            f"Index {store.index!r} exists and is {'' if layout.preload else 'not '}preloaded:"
            f" change that with `es-imgsearch reindex --preload {preload} --index {store.index}`."
        )
    if replicas is not None:
        store.set_copies(replace(layout, replicas=replicas))
    if layout.max_merged_segment is None:
        largest = load_json("mappings", "common.json")["settings"][LARGEST_SEGMENT]
        body = {"index": {LARGEST_SEGMENT: largest}}
        store.connection.request("PUT", f"/{store.connection.pictures}/_settings", body)


def _words_renewed(info: IndexInfo, index: str) -> str:
    if has_present_analysers(info.analysis):
        return ""
    words = renewing_words(index, info.meta.profile)
    return f" Its {words}."


def _create_companions(store: Store, settings: Settings, originals: Path | None) -> None:
    if originals is not None:
        register_originals(store, settings, originals)
    if settings.log_searches:
        create_searches_index(store)


def _sealed_and_fitted(
    store: Store, settings: Settings, origin: str | None, dims_kept: int | None
) -> tuple[Seal, Reduction | None]:
    """Read the seal of the encoder, and fit the reduction on a sample, if any."""
    sample: VectorSample | None = None
    if origin is not None:
        sample = load_sample(origin, store)
        if sample.seal is not None and settings.encoder is None:
            # Its seal is enough: no model is loaded.
            return sample.seal, fit(sample.vectors, dims_kept)
    elif dims_kept is not None:
        raise UsageError("--dims-kept is for the vectors of --sample FROM: give both.")
    encoder = load_encoder(
        settings.encoder or DEFAULT_ENCODER,
        models_dir=settings.models_dir,
        device=settings.device,
    )
    seal = seal_of(encoder)
    if sample is None:
        return seal, None
    if sample.seal is not None:
        sample.seal.check(seal, str(origin))
    elif sample.vectors.shape[1] != seal.dims:
        raise UsageError(
            f"The sample {origin!r} has vectors of {sample.vectors.shape[1]} dims, encoder"
            f" {seal.name!r} makes {seal.dims}: give --encoder the one that made them."
        )
    return seal, fit(sample.vectors, dims_kept)


def _reduction_words(reduction: Reduction | None) -> str:
    if reduction is None:
        return ""
    return (
        f", {reduction.dims_kept} dims kept with {reduction.variance_kept:.0%} of the variance of"
        f" {reduction.sample_size} vectors"
    )


def _grid_words(grid: Grid | None) -> str:
    return "no regions" if grid is None else f"regions {grid}"


def _check_requested(
    index: str, meta: Meta, profile: str | None, similarity: str | None, dims_kept: int | None
) -> None:
    for option, requested, actual in (
        ("profile", profile, meta.profile),
        ("similarity", similarity, meta.similarity),
        ("dims-kept", dims_kept, meta.stored_dims),
    ):
        if requested is not None and requested != actual:
            raise IndexConflict(
                f"Index {index!r} exists with {option} {actual}, not {requested}: leave --{option}"
                " out,"
                + (
                    f" change it with `es-imgsearch reindex --profile {requested} --index {index}`,"
                    if option == "profile"
                    else ""
                )
                + " or make another --index."
            )
