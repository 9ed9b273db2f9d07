"""The encoder an index is sealed to, and nobody else."""

from __future__ import annotations

import logging
import operator

from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.elastic.meta import Seal
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.protocol import Encoder
from es_imgsearch.embed.reduction import ReducedEncoder, load_reduction
from es_imgsearch.embed.registry import load_encoder, spec_of
from es_imgsearch.embed.runtime.select import run_for_pictures, run_for_queries
from es_imgsearch.errors import EncoderMismatch, EncoderUnknown, ImgSearchError, ModelUnavailable
from es_imgsearch.settings import Settings

logger = logging.getLogger(__name__)

# What a dense_vector of Elasticsearch 8.19 may hold.
_MOST_DIMS = 4096


def seal_of(encoder: Encoder) -> Seal:
    """Raises EncoderUnknown for an encoder whose vectors Elasticsearch cannot hold."""
    dims: object = encoder.dims
    try:
        is_possible = 1 <= operator.index(dims) <= _MOST_DIMS  # type: ignore[arg-type]
    except TypeError:
        is_possible = False
    if not is_possible:
        raise EncoderUnknown(
            f"Encoder {encoder.name!r} makes vectors of {dims!r} dims; Elasticsearch takes 1 to"
            f" {_MOST_DIMS}."
        )
    spec = spec_of(encoder)
    return Seal(
        name=encoder.name,
        spec=None if spec == encoder.name else spec,
        revision=encoder.revision,
        dims=int(encoder.dims),
        fingerprint=encoder.fingerprint,
        supports_text=encoder.supports_text,
    )


def sealed_encoder(
    info: IndexInfo, index: str, settings: Settings, given: Encoder | None = None
) -> Encoder:
    """The index's encoder, proven to be it by revision, dims and fingerprint; ready for queries.

    It is `given`, or that of the settings, or else looked for where it was when the index was made,
    and then by its name: models live in different places on different machines.

    Raises EncoderMismatch, or ModelUnavailable where its weights are not here.
    """
    seal = info.meta.seal
    if given is not None:
        seal.check(seal_of(given), index)
        return given
    encoder = _found(seal, index, settings)
    run_for_queries(encoder, settings)
    return encoder


def present_encoder(seal: Seal, index: str, settings: Settings) -> Encoder:
    """The index's encoder, or if there is only another model in its place by now, that."""
    try:
        return _found(seal, index, settings)
    except EncoderMismatch as error:
        logger.debug("Another model has the place or the name of the encoder: %s", error)
    if seal.spec is not None:
        try:
            return loaded_encoder(seal.spec, settings)
        except ImgSearchError as error:
            logger.debug("Nothing is at %s any more: %s", seal.spec, error)
    return loaded_encoder(seal.name, settings)


def _found(seal: Seal, index: str, settings: Settings) -> Encoder:
    differs: EncoderMismatch | None = None
    if settings.encoder is None and seal.spec is not None:
        try:
            return _checked(seal.spec, seal, index, settings)
        except EncoderMismatch as error:
            differs = error
        except ImgSearchError as error:
            logger.debug("Nothing is at %s any more: %s", seal.spec, error)
    name = settings.encoder or seal.name
    try:
        return _checked(name, seal, index, settings)
    except (ModelUnavailable, EncoderUnknown) as error:
        if differs is not None:
            raise differs from error
        if isinstance(error, EncoderUnknown):
            raise
        if name == seal.name:
            raise ModelUnavailable(
                f"{error} Index {index!r} is sealed to {name!r}: where that model is here, say with"
                " ES_IMGSEARCH_ENCODER, or as `encoder` in es-imgsearch.toml."
            ) from error
        raise EncoderMismatch(
            f"Index {index!r} is sealed to encoder {seal.name!r}, not {name!r}: leave the encoder"
            " out, or use another --index."
        ) from error


def loaded_encoder(spec: str, settings: Settings) -> Encoder:
    """`load_encoder` with the folder of models and the device of the settings."""
    return load_encoder(spec, models_dir=settings.models_dir, device=settings.device)


def _checked(spec: str, seal: Seal, index: str, settings: Settings) -> Encoder:
    encoder = loaded_encoder(spec, settings)
    seal.check(seal_of(encoder), index)
    return encoder


def writing_encoder(
    store: Store,
    info: IndexInfo,
    settings: Settings,
    given: Encoder | None = None,
    *,
    alone: bool = False,
) -> Encoder:
    """Return the index's encoder, with vectors as the index stores them, ready for pictures.

    It uses its share of the cores, as one of `workers` processes, or all of them if it embeds
    `alone`.  Raises what `sealed_encoder` and `load_reduction` do.
    """
    encoder = sealed_encoder(info, store.index, settings, given)
    if given is None:
        run_for_pictures(encoder, settings.model_copy(update={"workers": 1}) if alone else settings)
    reduction = load_reduction(store, info.meta)
    return encoder if reduction is None else ReducedEncoder(encoder, reduction)
