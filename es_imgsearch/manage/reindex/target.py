"""Create the next generation, or check the one that an interrupted run began."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from es_imgsearch.describe.registry import describer_mappings
from es_imgsearch.elastic.mapping import (
    check_reducible,
    has_present_analysers,
    load_profile,
    new_meta,
)
from es_imgsearch.elastic.meta import Meta, Seal, with_learned
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import (
    load_sealed_or_replaced,
    load_with_settings,
    seal_of,
)
from es_imgsearch.embed.reduction import Reduction, fit, store_reduction
from es_imgsearch.errors import EncoderMismatch, EncoderUnknown, ModelUnavailable, UsageError
from es_imgsearch.manage.production.preload import AUTO, GROWTH, choose_preload
from es_imgsearch.manage.vector_sample import load_sample
from es_imgsearch.settings import Settings


@dataclass(frozen=True, slots=True)
class ReindexOptions:
    """Options of the next generation; None keeps the present value.

    `sample` and `dims_kept` are for the profile `reduced`, see `init.create_index`, as is
    `preload`.
    """

    profile: str | None = None
    sample: str | None = None
    dims_kept: int | None = None
    shards: int | None = None
    preload: str | None = None


def begin_next(
    store: Store,
    settings: Settings,
    options: ReindexOptions,
    note: Callable[[str], None],
) -> Store:
    """Create an empty generation with these options; return its store.

    Raises UsageError if nothing would change or an old generation is still kept, AlreadyRunning if
    another process creates one at the same time.
    """
    info = store.info()
    meta = info.meta
    if settings.encoder is None:
        encoder = load_sealed_or_replaced(meta.seal, store.index, settings)
    else:
        encoder = load_with_settings(settings.encoder, settings)
    seal, profile = seal_of(encoder), options.profile or meta.profile
    load_profile(profile)
    is_same = seal.fits(meta.seal) and profile == meta.profile and options.dims_kept is None
    is_same = is_same and options.shards in {None, info.layout.shards}
    layout, preloaded = choose_preload(
        store,
        options.preload,
        replace(info.layout, shards=options.shards or info.layout.shards),
        profile,
        seal.dims,
        meta.grid,
        pictures=GROWTH * store.listings.count(),
    )
    if options.preload is not None:
        is_same = is_same and bool(layout.preload) == bool(info.layout.preload)
        if options.preload == AUTO and not preloaded.files:
            note(f"Nothing is preloaded: {preloaded.why}.")
    # The same again is for an index whose analysers of words are of an earlier version.
    if is_same and has_present_analysers(info.analysis):
        raise UsageError(
            f"Index {store.index!r} has encoder {meta.seal.name!r} and profile {meta.profile}"
            " already: choose another one with --encoder or --profile, or --shards or --preload."
        )
    before = store.generations.roles().before
    if before is not None:
        old = store.at(before).info().meta
        is_old = seal.fits(old.seal) and profile == old.profile
        raise UsageError(
            f"The generation before, {before} (encoder {old.seal.name!r}, profile {old.profile}),"
            " is kept"
            + (
                " and has these options: return to it with `es-imgsearch reindex --back --index"
                f" {store.index}`."
                if is_old
                else ": delete it first with `es-imgsearch reindex --drop-old --index"
                f" {store.index}`."
            )
        )
    reduction = _fit_reduction(store, meta, seal, profile, options)
    grid = None if reduction is not None else meta.grid
    if meta.grid is not None and grid is None:
        note("The profile 'reduced' stores no regions: they are left out.")
    entry = None if reduction is None else reduction.entry()
    new = with_learned(new_meta(seal, profile, meta.similarity, entry, grid), meta)
    if reduction is not None:
        store_reduction(store, reduction)
    target = store.at(store.generations.begin_next(new, describer_mappings(), layout))
    _note_missing_encoder(seal, settings, note)
    note(f"Building {target.generation} with encoder {seal.name}, profile {profile}.")
    return target


def _note_missing_encoder(seal: Seal, settings: Settings, note: Callable[[str], None]) -> None:
    """Warn if other machines, which load the encoder by its name, may not find it."""
    if seal.spec is None:
        return
    try:
        load_with_settings(seal.name, settings)
    except (ModelUnavailable, EncoderUnknown):
        note(
            f"Daemons and clients on other machines load encoder {seal.name!r} by its name: put it"
            " into the folder `models_dir` of their settings, or they end at the switch."
        )


def _fit_reduction(
    store: Store, meta: Meta, seal: Seal, profile: str, options: ReindexOptions
) -> Reduction | None:
    """Fit the reduction of the profile `reduced`.

    By default it is fitted on the vectors of the index.
    """
    sample = options.sample
    if sample is None and profile == "reduced" and seal.fits(meta.seal):
        sample = store.index if meta.reduction is None else None
    has_sample = sample is not None or options.dims_kept is not None
    check_reducible(profile, meta.similarity, has_sample=has_sample)
    if not has_sample:
        return None
    if sample is None:
        raise UsageError("--dims-kept is for the vectors of --sample FROM: give both.")
    drawn = load_sample(sample, store)
    if drawn.seal is not None:
        drawn.seal.check(seal, sample)
    return fit(drawn.vectors, options.dims_kept)


def check_begun(target: Store, settings: Settings, options: ReindexOptions) -> None:
    """Raise UsageError if an unfinished generation has other options than these."""
    info = target.info()
    meta = info.meta
    try:
        if settings.encoder is not None:
            encoder = load_with_settings(settings.encoder, settings)
            meta.seal.check(seal_of(encoder), str(target.generation))
        is_same = options.profile in {None, meta.profile}
        is_same = is_same and options.shards in {None, info.layout.shards}
        # Where they do not fit, nothing is preloaded with auto either.
        is_same = is_same and (options.preload != "off" or not info.layout.preload)
    except EncoderMismatch:
        is_same = False
    if not is_same:
        raise UsageError(
            f"{target.generation} is begun and not finished, with encoder {meta.seal.name!r} and"
            f" profile {meta.profile}: continue with `es-imgsearch reindex --encoder"
            f" {meta.seal.spec or meta.seal.name} --profile {meta.profile} --index"
            f" {settings.index}`, or delete it with `es-imgsearch reindex --cancel --index"
            f" {settings.index}`."
        )
