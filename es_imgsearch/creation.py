"""Making an index, or finding that it is there as asked."""

from __future__ import annotations

from es_imgsearch.describe import load_describers
from es_imgsearch.embed import load_encoder
from es_imgsearch.errors import IndexConflict, IndexMissing, StoreRejected
from es_imgsearch.mapping import (
    DEFAULT_PROFILE,
    DEFAULT_SIMILARITY,
    Meta,
    load_profile,
    new_meta,
)
from es_imgsearch.sealing import seal_of, sealed_encoder
from es_imgsearch.settings import Settings
from es_imgsearch.store import Store

DEFAULT_ENCODER = "clip"
_OLDEST_VERSION = (8, 18)


def create_index(
    store: Store, settings: Settings, *, profile: str | None = None, similarity: str | None = None
) -> str:
    """Make the index behind the alias, or check the one that is there; says which, in a sentence.

    Fields that the index lacks, since a describer or a version of this program brought them
    later, are added to its mapping.

    Raises IndexConflict where an existing index has another profile or similarity than asked
    for, EncoderMismatch where it belongs to another encoder.
    """
    if profile is not None:
        load_profile(profile)
    _check_version(store)
    try:
        info = store.info()
    except IndexMissing:
        encoder = load_encoder(
            settings.encoder or DEFAULT_ENCODER,
            models_dir=settings.models_dir,
            device=settings.device,
        )
        meta = new_meta(
            seal_of(encoder), profile or DEFAULT_PROFILE, similarity or DEFAULT_SIMILARITY
        )
        store.create(meta, [describer.mapping for describer in load_describers()])
        return (
            f"Made index {store.index!r}: encoder {meta.seal.name}, {meta.seal.dims} dims,"
            f" profile {meta.profile}, {meta.similarity}."
        )
    if settings.encoder is not None:
        sealed_encoder(info, store.index, settings)
    _check_as_asked(store.index, info.meta, profile, similarity)
    added = store.add_fields(info, [describer.mapping for describer in load_describers()])
    plural = "s" * (len(added) != 1)
    return (
        f"Index {store.index!r} is there already: encoder {info.meta.seal.name}, profile"
        f" {info.meta.profile}, {info.meta.similarity}"
        + (f"; added the field{plural} {', '.join(added)}." if added else ".")
    )


def _check_as_asked(index: str, meta: Meta, profile: str | None, similarity: str | None) -> None:
    for what, asked, has in (
        ("profile", profile, meta.profile),
        ("similarity", similarity, meta.similarity),
    ):
        if asked is not None and asked != has:
            raise IndexConflict(
                f"Index {index!r} exists with {what} {has}, not {asked}: leave --{what} out, or"
                " make another --index."
            )


def _check_version(store: Store) -> None:
    version = store.version()
    try:
        major, minor = (int(part) for part in version.split(".")[:2])
    except ValueError:
        raise StoreRejected(
            f"Elasticsearch has a version that is unknown here: {version}."
        ) from None
    # rescore_vector came with 8.18; a 9.x server speaks to clients of its own major.
    if major != _OLDEST_VERSION[0] or (major, minor) < _OLDEST_VERSION:
        raise StoreRejected(
            f"Elasticsearch {version} is not supported: 8.{_OLDEST_VERSION[1]} or a later 8 is."
        )
