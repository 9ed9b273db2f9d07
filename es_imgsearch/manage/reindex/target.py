"""What the next generation shall be, and its beginning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from es_imgsearch.describe.registry import load_describers
from es_imgsearch.elastic.mapping import check_reducible, load_profile, new_meta
from es_imgsearch.elastic.meta import Meta, Seal, with_learned
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.index_encoder import loaded_encoder, present_encoder, seal_of
from es_imgsearch.embed.reduction import Reduction, fit, keep_reduction
from es_imgsearch.errors import EncoderMismatch, EncoderUnknown, ModelUnavailable, UsageError
from es_imgsearch.manage.vector_sample import load_sample
from es_imgsearch.settings import Settings


@dataclass(frozen=True, slots=True)
class ReindexOptions:
    """What the next generation shall be; None stays as it is.

    `sample` and `dims_kept` are those of the profile `reduced`, see `creation.create_index`.
    """

    profile: str | None = None
    sample: str | None = None
    dims_kept: int | None = None


def begin_next(
    store: Store,
    settings: Settings,
    wanted: ReindexOptions,
    note: Callable[[str], None],
) -> Store:
    """A new, empty generation as wanted, and the store that fills it.

    Raises UsageError where nothing would change, or where a generation before is kept;
    AlreadyRunning where somebody else begins one at this moment.
    """
    meta = store.info().meta
    if settings.encoder is None:
        encoder = present_encoder(meta.seal, store.index, settings)
    else:
        encoder = loaded_encoder(settings.encoder, settings)
    seal, profile = seal_of(encoder), wanted.profile or meta.profile
    load_profile(profile)
    if seal.fits(meta.seal) and profile == meta.profile and wanted.dims_kept is None:
        raise UsageError(
            f"Index {store.index!r} has encoder {meta.seal.name!r} and profile {meta.profile}"
            " already: say what it shall have with --encoder or --profile."
        )
    before = store.generations.roles().before
    if before is not None:
        kept = store.at(before).info().meta
        is_it = seal.fits(kept.seal) and profile == kept.profile
        raise UsageError(
            f"The generation before, {before} (encoder {kept.seal.name!r}, profile"
            f" {kept.profile}), is kept"
            + (
                " and is what is asked for: return to it with `es-imgsearch reindex --back`."
                if is_it
                else ": delete it first with `es-imgsearch reindex --drop-old`."
            )
        )
    reduction = _fitted(store, meta, seal, profile, wanted)
    grid = None if reduction is not None else meta.grid
    if meta.grid is not None and grid is None:
        note("The profile 'reduced' keeps no regions: they are left out.")
    made = new_meta(seal, profile, meta.similarity, reduction.entry() if reduction else None, grid)
    made = with_learned(made, meta)
    if reduction is not None:
        keep_reduction(store, reduction)
    made = replace(made, roots=meta.roots)
    target = store.at(store.generations.begin_next(made, described_fields()))
    _note_place(seal, settings, note)
    note(f"Building {target.generation} with encoder {seal.name}, profile {profile}.")
    return target


def _note_place(seal: Seal, settings: Settings, note: Callable[[str], None]) -> None:
    """Other machines will look for the encoder by its name, not where this one has it."""
    if seal.spec is None:
        return
    try:
        loaded_encoder(seal.name, settings)
    except (ModelUnavailable, EncoderUnknown):
        note(
            f"Daemons and clients of other machines will look for encoder {seal.name!r}: put it"
            " into the folder `models_dir` of their settings, or they end at the switch."
        )


def _fitted(
    store: Store, meta: Meta, seal: Seal, profile: str, wanted: ReindexOptions
) -> Reduction | None:
    """What the profile `reduced` needs: by default fitted on the index's own vectors."""
    sample = wanted.sample
    if sample is None and profile == "reduced" and seal.fits(meta.seal):
        sample = store.index if meta.reduction is None else None
    has_sample = sample is not None or wanted.dims_kept is not None
    check_reducible(profile, meta.similarity, has_sample=has_sample)
    if not has_sample:
        return None
    if sample is None:
        raise UsageError("--dims-kept is for the vectors of --sample FROM: give both.")
    found = load_sample(sample, store)
    if found.seal is not None:
        found.seal.check(seal, sample)
    return fit(found.vectors, wanted.dims_kept)


def check_begun(target: Store, settings: Settings, wanted: ReindexOptions) -> None:
    """Raise UsageError where the generation that was begun is not what is asked for now."""
    meta = target.info().meta
    try:
        if settings.encoder is not None:
            encoder = loaded_encoder(settings.encoder, settings)
            meta.seal.check(seal_of(encoder), str(target.generation))
        is_same = wanted.profile in {None, meta.profile}
    except EncoderMismatch:
        is_same = False
    if not is_same:
        raise UsageError(
            f"{target.generation} is begun and not finished, with encoder {meta.seal.name!r} and"
            f" profile {meta.profile}: go on with `es-imgsearch reindex --encoder"
            f" {meta.seal.spec or meta.seal.name}`, or give it up with"
            " `es-imgsearch reindex --cancel`."
        )


def described_fields() -> list[Any]:
    return [describer.mapping for describer in load_describers()]
