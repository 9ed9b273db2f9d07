"""Load the encoder that an index is sealed to, and refuse any other."""

from __future__ import annotations

import logging
import operator

from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.elastic.meta import Seal
from es_imgsearch.embed.protocol import Encoder
from es_imgsearch.embed.registry import load_encoder, spec_of
from es_imgsearch.embed.runtime.select import run_for_queries
from es_imgsearch.embed.runtime.service import ServiceConnection
from es_imgsearch.embed.runtime.service_encoder import ServiceEncoder
from es_imgsearch.errors import EncoderMismatch, EncoderUnknown, ImgSearchError, ModelUnavailable
from es_imgsearch.settings import Settings

logger = logging.getLogger(__name__)

# The limit of a dense_vector in Elasticsearch 8.19.
_MAX_DIMS = 4096


def seal_of(encoder: Encoder) -> Seal:
    """Describe an encoder.

    Raises EncoderUnknown if Elasticsearch cannot hold its vectors.
    """
    dims: object = encoder.dims
    try:
        is_possible = 1 <= operator.index(dims) <= _MAX_DIMS  # type: ignore[arg-type]
    except TypeError:
        is_possible = False
    if not is_possible:
        raise EncoderUnknown(
            f"Encoder {encoder.name!r} makes vectors of {dims!r} dims; Elasticsearch takes 1 to"
            f" {_MAX_DIMS}."
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
    """Return the index's encoder, checked and ready for queries.

    The revision, dims and fingerprint are checked.  It is `given`, or that of a service
    (`encoder_url`), or the encoder of the settings,
    or else looked for where it was when the index was made, and then by its name: models are in
    different places on different machines.

    Raises EncoderMismatch, or ModelUnavailable if its weights are not here.
    """
    seal = info.meta.seal
    if given is None and settings.encoder_url is not None:
        given = service_encoder(settings.encoder_url, settings)
    if given is not None:
        seal.check(seal_of(given), index)
        return given
    encoder = _load_sealed(seal, index, settings)
    run_for_queries(encoder, settings)
    return encoder


def service_encoder(url: str, settings: Settings) -> ServiceEncoder:
    """Return the encoder of a running `serve`, which embeds there."""
    token = None if (given := settings.service_token) is None else given.get_secret_value()
    timeout = settings.request_timeout_seconds
    return ServiceEncoder(ServiceConnection(url, token, timeout_seconds=timeout))


def load_sealed_or_replaced(seal: Seal, index: str, settings: Settings) -> Encoder:
    """Return the index's encoder, or else the model that has replaced it in its place."""
    try:
        return _load_sealed(seal, index, settings)
    except EncoderMismatch as error:
        logger.debug("Another model has the encoder's path or name: %s", error)
    if seal.spec is not None:
        try:
            return load_with_settings(seal.spec, settings)
        except ImgSearchError as error:
            logger.debug("The model is no longer at %s: %s", seal.spec, error)
    return load_with_settings(seal.name, settings)


def _load_sealed(seal: Seal, index: str, settings: Settings) -> Encoder:
    mismatch: EncoderMismatch | None = None
    if settings.encoder is None and seal.spec is not None:
        try:
            return _load_checked(seal.spec, seal, index, settings)
        except EncoderMismatch as error:
            mismatch = error
        except ImgSearchError as error:
            logger.debug("The model is no longer at %s: %s", seal.spec, error)
    name = settings.encoder or seal.name
    try:
        return _load_checked(name, seal, index, settings)
    except (ModelUnavailable, EncoderUnknown) as error:
        if mismatch is not None:
            raise mismatch from error
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


def load_with_settings(spec: str, settings: Settings) -> Encoder:
    """Call `load_encoder` with the folder of models and the device of the settings."""
    return load_encoder(spec, models_dir=settings.models_dir, device=settings.device)


def _load_checked(spec: str, seal: Seal, index: str, settings: Settings) -> Encoder:
    encoder = load_with_settings(spec, settings)
    seal.check(seal_of(encoder), index)
    return encoder
