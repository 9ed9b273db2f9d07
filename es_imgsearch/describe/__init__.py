"""Describers: plug-ins that add fields to a picture's document.

A describer is found through the entry-point group `es_imgsearch.describers`, runs in the
reading workers, and names its fields and their mapping beside its code.  It must not import
torch.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Protocol

from PIL import Image

from es_imgsearch.errors import SettingsError

logger = logging.getLogger(__name__)

GROUP = "es_imgsearch.describers"


class Describer(Protocol):
    """One noun's worth of fields, from one picture.

    Pictures are decoded small, at half the cost for a large JPEG.  A describer says of how much
    it needs with the attribute ``shorter_side_pixels``: what the shorter side is to have at least,
    where the file has so many; 0 if it looks at no pixels.  One without it gets whole pictures,
    and then so does everybody.
    """

    name: str
    """What it is switched on and off by."""

    mapping: Mapping[str, Mapping[str, Any]]
    """Its fields, as Elasticsearch maps them."""

    def describe(self, image: Image.Image, exif: Image.Exif, path: str) -> Mapping[str, Any]:
        """The fields that can be told of an upright RGB `image`; those that cannot are absent.

        An exception costs these fields only, and is noted in `describe_errors`.
        """


def shorter_side_pixels(describers: Iterable[Describer]) -> int | None:
    """What the shorter side of a picture has to have for all of these; None: it is to be whole."""
    wanted = [getattr(describer, "shorter_side_pixels", None) for describer in describers]
    known = [pixels for pixels in wanted if pixels is not None]
    return max(known, default=0) if len(known) == len(wanted) else None


@cache
def describer_names() -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in entry_points(group=GROUP)))


def load_describers(names: Sequence[str] | None = None) -> list[Describer]:
    """The describers of these names, or all that are installed, in the order of their names."""
    wanted = describer_names() if names is None else names
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    describers: list[Describer] = []
    for name in wanted:
        if name not in found:
            raise SettingsError(
                f"There is no describer {name!r}; installed are {', '.join(sorted(found))}."
            )
        try:
            describers.append(found[name].load()())
        except Exception as error:
            raise SettingsError(
                f"The describer {name!r} ({found[name].value}) cannot be loaded:"
                f" {type(error).__name__}: {error}."
            ) from error
    return describers


def mapped_describers(properties: Mapping[str, Any], index: str) -> list[str]:
    """Names of the installed describers all of whose fields the index maps.

    The index refuses whole documents for one field that it does not map, so the others are
    left out, with a warning.
    """
    names = []
    for name in describer_names():
        (describer,) = load_describers([name])
        if lacking := sorted(describer.mapping.keys() - properties.keys()):
            logger.warning(
                "The describer %r is left out, since index %r has no field %s: add what is"
                " missing with `es-imgsearch init --index %s`.",
                name, index, ", ".join(lacking), index,
            )  # fmt: skip
        else:
            names.append(name)
    return names
