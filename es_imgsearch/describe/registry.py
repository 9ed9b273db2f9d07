"""Describers: plug-ins that add fields to a picture's document.

A describer is found through the entry-point group `es_imgsearch.describers` and names its fields
and their mapping beside its code.  There are two kinds, told apart by the attribute `source`:

    "picture"  gets the decoded picture, in the reading workers; must not import torch
    "vector"   gets the picture's vector, once there is one, where the encoder runs

A describer is switched on and off by its name, in the setting `describers`.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeGuard, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from es_imgsearch.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from es_imgsearch.elastic.meta import Meta


logger = logging.getLogger(__name__)

GROUP = "es_imgsearch.describers"


class PictureDescriber(Protocol):
    """One noun's worth of fields, from one picture.

    Describers run in the order of their names; of two that give the same field, the later counts.
    It may also have the attributes `source` ("picture", which is what it is without), and
    `missing`: in words, what has to be installed before it can work, None if it can.  One that
    lacks something is left out unless it is asked for by name.

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

        An exception costs these fields only, and is noted in `describe_errors`; so does a value
        that Elasticsearch refuses.
        """


def shorter_side_pixels(describers: Iterable[PictureDescriber]) -> int | None:
    """What the shorter side of a picture has to have for all of these; None: it is to be whole."""
    wanted = [getattr(describer, "shorter_side_pixels", None) for describer in describers]
    known = [pixels for pixels in wanted if pixels is not None]
    return max(known, default=0) if len(known) == len(wanted) else None


class VectorDescriber(Protocol):
    """One noun's worth of fields, from the vectors of pictures.

    What the encoder saw before costs nothing again: copies, renamed files and `describe` come here
    with stored vectors.  May have `missing`, as a PictureDescriber may.
    """

    name: str
    source: Literal["vector"]
    mapping: Mapping[str, Mapping[str, Any]]

    def begin(self, space: VectorSpace) -> None:
        """Called once, before the first vectors come, perhaps in another thread than those.

        An exception is noted in `describe_errors` of every picture, which lacks these fields.
        """

    def describe_vectors(self, vectors: npt.NDArray[np.float32]) -> Sequence[Mapping[str, Any]]:
        """Of each of the n vectors, of shape (n, dims) and unit length, the fields it gives.

        Called from several threads, never from two at once.  An exception costs the fields of
        those pictures that raise it when they come alone.
        """


Describer: TypeAlias = PictureDescriber | VectorDescriber


class TextEncoder(Protocol):
    """What a describer may use of the index's encoder: its identity, and vectors of texts."""

    @property
    def name(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def dims(self) -> int: ...
    @property
    def supports_text(self) -> bool: ...
    def embed_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]: ...


@dataclass(frozen=True, slots=True)
class VectorSpace:
    """Where the vectors come from, and whom a describer may ask.

    `encoder` gives vectors as the index stores them (of profile `reduced`: the short ones), and
    is the one whose `embed_texts` they may be compared with, if it `supports_text`.  `send`
    carries out a request to Elasticsearch, for what is kept beside the index; it waits while there
    is no answer.
    """

    index: str
    meta: Meta
    encoder: TextEncoder
    send: Callable[[Any], Any]


def is_by_vector(describer: Describer) -> TypeGuard[VectorDescriber]:
    return getattr(describer, "source", "picture") == "vector"


@cache
def describer_names() -> tuple[str, ...]:
    return tuple(sorted(entry.name for entry in entry_points(group=GROUP)))


@cache
def foreign_describers() -> frozenset[str]:
    """Names of the describers that other packages bring."""
    found = entry_points(group=GROUP)
    return frozenset(entry.name for entry in found if not entry.value.startswith("es_imgsearch."))


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
        _check_mapping(describers[-1], found[name])
    return describers


def describer_mappings() -> list[Mapping[str, Any]]:
    """Mappings of the fields of all installed describers."""
    return [each.mapping for each in load_describers()]


def _check_mapping(describer: Any, entry: EntryPoint) -> None:
    mapping = getattr(describer, "mapping", None)
    if not (
        isinstance(mapping, Mapping)
        and all(isinstance(field, str) for field in mapping)
        and all(isinstance(each, Mapping) for each in mapping.values())
    ):
        raise SettingsError(
            f"The describer {entry.name!r} ({entry.value}) is broken: its `mapping` has to be a"
            " dict of its fields, each with the dict that Elasticsearch is to map it by."
        )


def picture_describers(names: Sequence[str] | None = None) -> list[PictureDescriber]:
    """Those of these names, or of all that can work, that run in the reading workers."""
    loaded = chosen_describers() if names is None else load_describers(names)
    return [cast("PictureDescriber", each) for each in loaded if not is_by_vector(each)]


def vector_describers(names: Sequence[str] | None = None) -> list[VectorDescriber]:
    """Those of these names, or of all that can work, that run where the encoder does."""
    loaded = chosen_describers() if names is None else load_describers(names)
    return [each for each in loaded if is_by_vector(each)]


def chosen_describers(asked: Iterable[str] = ()) -> list[Describer]:
    """The describers that a setting asks for: all, only those named, or all but those with a dash.

    ``exif``, ``colours`` are these two alone; ``-layout`` is every one but that.  They come in the
    order of their names: of two that give the same field, the later counts.

    Raises SettingsError for a name that is not installed, and for one asked for that lacks
    something.
    """
    asked = set(asked)
    off = {name[1:] for name in asked if name.startswith("-")}
    named = sorted(name for name in asked if not name.startswith("-"))
    # (Those that are not asked for may be broken.)
    chosen = load_describers(named)
    for describer in chosen:
        if (missing := missing_of(describer)) is not None:
            raise SettingsError(f"The describer {describer.name!r} cannot work: {missing}.")
    if unknown := sorted(off - set(describer_names())):
        raise SettingsError(
            f"There is no describer {unknown[0]!r} to switch off; installed are"
            f" {', '.join(describer_names())}."
        )
    if named:
        return [each for each in chosen if each.name not in off]
    rest = load_describers([name for name in describer_names() if name not in off])
    return [each for each in rest if missing_of(each) is None]


def missing_of(describer: Describer) -> str | None:
    """What has to be installed before it can work, in words; None if it can."""
    missing: str | None = getattr(describer, "missing", None)
    return missing


def unmapped_fields(describer: Describer, properties: Mapping[str, Any]) -> list[str]:
    """Fields of a describer that an index of this mapping lacks."""
    return sorted(describer.mapping.keys() - properties.keys())


def mapped_describers(
    properties: Mapping[str, Any], index: str, asked: Iterable[str] = ()
) -> list[str]:
    """Names of the describers asked for (see `chosen_describers`) whose fields the index maps.

    The index refuses whole documents for one field that it does not map, so the others are
    left out, with a warning.
    """
    names = []
    for describer in chosen_describers(asked):
        if lacking := unmapped_fields(describer, properties):
            logger.warning(
                "The describer %r is left out, since index %r has no field %s: add what is"
                " missing with `es-imgsearch init --index %s`.",
                describer.name, index, ", ".join(lacking), index,
            )  # fmt: skip
        else:
            names.append(describer.name)
    return names


# A picture as small as describers need it, made once for all of them.

# Hashing 4,000 x 3,000 pixels takes 12 ms so, and 78 ms without.  Two of the 64 bits of a
# photograph's hash changed when it was shrunk to 128 pixels, none at 256.
SHORTER_SIDE_PIXELS = 256

_last: tuple[weakref.ref[Image.Image], Image.Image] | None = None


def shrink(image: Image.Image) -> Image.Image:
    """The picture, shrunk by a whole factor to a shorter side of 256 to 511 pixels.

    One that is as small already comes back as it is.
    """
    factor = max(1, min(image.size) // SHORTER_SIDE_PIXELS)
    return image.reduce(factor) if factor > 1 else image


def shrunken(image: Image.Image) -> Image.Image:
    """`shrink` for describers, which all get the same picture: it is not to be changed."""
    global _last
    if _last is not None and _last[0]() is image:
        return _last[1]
    small = shrink(image)
    if small is not image:
        # (A picture that kept itself alive would never be let go.)
        _last = weakref.ref(image), small
    return small
