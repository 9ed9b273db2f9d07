"""Find encoders by name, as `--encoder` takes it.

Encoders are entry points of the group `es_imgsearch.encoders`; this package registers its own in
the same way.  An entry point is a factory::

    def create(argument: str, *, models_dir: Path | None, device: str) -> Encoder: ...

`argument` is the part behind the colon in ``NAME:ARGUMENT`` (empty without one), `models_dir`
a folder of model folders (None: the factory's own default), `device` ``auto`` or a torch device
such as ``cpu`` or ``cuda:1``.  A factory loads no weights.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from inspect import getattr_static
from pathlib import Path
from typing import TYPE_CHECKING, Final

from es_imgsearch.embed.protocol import Encoder
from es_imgsearch.errors import EncoderUnknown, ImgSearchError, ModelUnavailable, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping


GROUP: Final = "es_imgsearch.encoders"

# The encoder for folders and for models of the hub, which are no registered names.
_MODELS: Final = "sentence-transformers"

# Looked up with `getattr_static`: until Python 3.12 isinstance() with a protocol evaluates every
# property, and `dims` may have to load a model.
_MEMBERS: Final = [name for name in vars(Encoder) if not name.startswith("_")]


def encoder_names() -> list[str]:
    """Return the names of the registered encoders, sorted."""
    return sorted(_registered())


def load_encoder(spec: str, *, models_dir: Path | None = None, device: str = "auto") -> Encoder:
    """Return the encoder named `spec`; its weights load with the first `embed_` call.

    `spec`
        ``NAME`` or ``NAME:ARGUMENT`` of a registered encoder; or an existing folder, or
        anything with a slash (``ORGANISATION/MODEL``), for a sentence-transformers model; that
        plug-in also takes a pair, ``PICTURES+TEXT`` (`model_lookup.split_pair`).

    Raises EncoderUnknown if there is no such encoder or its plug-in is broken,
    ModelUnavailable if its weights or libraries are missing.
    """
    if not isinstance(spec, str):
        raise EncoderUnknown(f"An encoder is named by a string, not a {type(spec).__name__}.")
    registered = _registered()
    name, _, argument = spec.partition(":")
    if name not in registered:
        if not ("/" in spec or (spec and Path(spec).is_dir())):
            raise EncoderUnknown(
                f"No encoder is called {spec!r}; there are {', '.join(sorted(registered))}, "
                f"a model folder, or a model of the hub (ORGANISATION/MODEL)."
                f"{did_you_mean(spec, registered)}"
            )
        if _MODELS not in registered:
            raise EncoderUnknown(f"{spec!r} needs the encoder plug-in {_MODELS!r}; reinstall.")
        name, argument = _MODELS, spec
    return _create(registered[name], argument, models_dir, device)


def is_encoder(given: object) -> bool:
    """Return True if the object has all members of `Encoder`; load no model."""
    return all(getattr_static(given, member, None) is not None for member in _MEMBERS)


def spec_of(encoder: Encoder) -> str:
    """Return the name by which `load_encoder` finds this encoder on this machine."""
    return getattr(encoder, "spec", None) or encoder.name


def _registered() -> Mapping[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _create(point: EntryPoint, argument: str, models_dir: Path | None, device: str) -> Encoder:
    package = point.dist.name if point.dist else point.module
    try:
        factory = point.load()
    except ImportError as error:
        raise ModelUnavailable(
            f"Encoder {point.name!r} of the package {package} cannot be imported: {error}."
        ) from error
    except Exception as error:
        raise EncoderUnknown(
            f"Encoder {point.name!r} of the package {package} is broken: "
            f"{type(error).__name__}: {error}."
        ) from error
    try:
        encoder = factory(argument, models_dir=models_dir, device=device)
    except ImgSearchError:
        raise
    except Exception as error:
        raise EncoderUnknown(
            f"Encoder {point.name!r} of the package {package} could not be made from "
            f"{argument!r}: {type(error).__name__}: {error}."
        ) from error
    if not is_encoder(encoder):
        raise EncoderUnknown(
            f"Encoder {point.name!r} of the package {package} is not an Encoder: its factory "
            f"returned a {type(encoder).__name__}."
        )
    made: Encoder = encoder
    return made
