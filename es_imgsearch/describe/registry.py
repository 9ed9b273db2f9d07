"""Find and choose describers: plug-ins that add fields to a document.

A describer is found through the entry-point group `es_imgsearch.describers` and declares its fields
with their mapping.  There are two kinds, distinguished by the attribute `source`:

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
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias, TypeGuard, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from es_imgsearch.errors import SettingsError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    from es_imgsearch.elastic.meta import Meta


logger = logging.getLogger(__name__)

GROUP = "es_imgsearch.describers"

# Mapping of a field of words that people search for, with the analysers of mappings/common.json:
# without regard to case, accents, width and normal form.
WORDS: Final[Mapping[str, Any]] = {
    "type": "text",
    "analyzer": "words",
    "search_analyzer": "words_asked_for",
}
# The same words by their stems, for a sub-field `stems`, so that penguins finds penguin.
STEMS: Final[Mapping[str, Any]] = {
    "type": "text",
    "analyzer": "stems",
    "search_analyzer": "stems_asked_for",
}
WORDS_AND_STEMS: Final[Mapping[str, Any]] = {**WORDS, "fields": {"stems": STEMS}}
KEYWORD_AND_WORDS: Final[Mapping[str, Any]] = {
    "type": "keyword",
    "fields": {"text": WORDS, "stems": STEMS},
}


class PictureDescriber(Protocol):
    """Plug-in that computes fields from one picture.

    Describers run in the order of their names; of two that give the same field, the later counts.
    It may also have the attributes `source` ("picture", the default), and `missing`: in words,
    what has to be installed before it can work, None if it can.  One that lacks something is left
    out unless it is enabled by name.  One with `on_request` True, because it takes far longer than
    the others, runs only if it is named, also as ``+name``, or if the index holds a field of it.

    Pictures are decoded small, at half the cost for a large JPEG.  The attribute
    ``shorter_side_pixels`` is the least shorter side that a describer needs, where the file has
    as many pixels; 0 if it reads no pixels.  If one describer lacks it, all get whole pictures.
    """

    name: str
    """Name by which the setting `describers` switches it on and off."""

    mapping: Mapping[str, Mapping[str, Any]]
    """Fields and their Elasticsearch mapping."""

    def describe(self, image: Image.Image, exif: Image.Exif, path: str) -> Mapping[str, Any]:
        """Compute the fields of an upright RGB `image`; unknown ones are absent.

        An exception costs these fields only, and is noted in `describe_errors`.  A value that its
        field cannot hold costs itself, with a note as well.
        """


def shorter_side_pixels(describers: Iterable[PictureDescriber]) -> int | None:
    """Return the shorter side that all of these need; None for whole pictures."""
    needed = [getattr(describer, "shorter_side_pixels", None) for describer in describers]
    known = [pixels for pixels in needed if pixels is not None]
    return max(known, default=0) if len(known) == len(needed) else None


class VectorDescriber(Protocol):
    """Plug-in that computes fields from the vectors of pictures.

    Copies, renamed files and `describe` use stored vectors: nothing is embedded again.  May have
    `missing`, as a PictureDescriber may.
    """

    name: str
    source: Literal["vector"]
    mapping: Mapping[str, Mapping[str, Any]]

    def begin(self, space: VectorSpace) -> None:
        """Prepare; called once before the first vectors, maybe in another thread.

        An exception is noted in `describe_errors` of every picture, which lacks these fields.
        """

    def describe_vectors(self, vectors: npt.NDArray[np.float32]) -> Sequence[Mapping[str, Any]]:
        """Return the fields of each of the n unit vectors, of shape (n, dims).

        Called from several threads, never from two at once.  An exception costs the fields of
        those pictures that raise it when they come alone.
        """


Describer: TypeAlias = PictureDescriber | VectorDescriber


class TextEncoder(Protocol):
    """Part of the index's encoder for describers: identity, vectors of texts."""

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
    """Index, encoder and requests that a vector describer may use.

    `encoder` gives vectors as the index stores them (of profile `reduced`: the short ones), and
    is the one whose `embed_texts` they may be compared with, if it `supports_text`.  `send`
    sends a request to Elasticsearch, for documents of `<index>-state`; it waits out outages.
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
    """Names of the describers of other packages."""
    installed = entry_points(group=GROUP)
    return frozenset(
        entry.name for entry in installed if not entry.value.startswith("es_imgsearch.")
    )


def load_describers(names: Sequence[str] | None = None) -> list[Describer]:
    """Load the describers of these names, or all that are installed, by name.

    Raises SettingsError for one that is not installed or cannot be loaded.
    """
    names = describer_names() if names is None else names
    installed = {entry.name: entry for entry in entry_points(group=GROUP)}
    describers: list[Describer] = []
    for name in names:
        if name not in installed:
            raise SettingsError(
                f"There is no describer {name!r}; installed are {', '.join(sorted(installed))}."
                f"{did_you_mean(name, installed)}"
            )
        try:
            describers.append(installed[name].load()())
        except Exception as error:
            raise SettingsError(
                f"The describer {name!r} ({installed[name].value}) cannot be loaded:"
                f" {type(error).__name__}: {error}."
            ) from error
        _check_mapping(describers[-1], installed[name])
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
    """Load the named (default: all usable) describers of pictures."""
    loaded = chosen_describers() if names is None else load_describers(names)
    return [cast("PictureDescriber", each) for each in loaded if not is_by_vector(each)]


def vector_describers(names: Sequence[str] | None = None) -> list[VectorDescriber]:
    """Load the named (default: all usable) describers of vectors."""
    loaded = chosen_describers() if names is None else load_describers(names)
    return [each for each in loaded if is_by_vector(each)]


def chosen_describers(selection: Iterable[str] = ()) -> list[Describer]:
    """Load the describers that the setting `describers` selects; default: all.

    ``exif``, ``colours`` select these two only; ``-layout`` all but that one, ``+text_in_image``
    also one that runs on request.  They are sorted by name: of two that give the same field, the
    later counts.

    Raises SettingsError for a name that is not installed, and for a named one that lacks something.
    """
    selection = set(selection)
    off = {name[1:] for name in selection if name.startswith("-")}
    on = sorted(name[1:] for name in selection if name.startswith("+"))
    named = sorted(name for name in selection if name[0] not in "+-")
    # Only the named ones are loaded: the others may be broken.
    chosen = load_describers(sorted({*named, *on}))
    for describer in chosen:
        if (missing := missing_of(describer)) is not None:
            raise SettingsError(f"The describer {describer.name!r} cannot work: {missing}.")
    if unknown := sorted(off - set(describer_names())):
        raise SettingsError(
            f"There is no describer {unknown[0]!r} to switch off; installed are"
            f" {', '.join(describer_names())}.{did_you_mean(unknown[0], describer_names())}"
        )
    if named:
        return [each for each in chosen if each.name not in off]
    rest = load_describers([name for name in describer_names() if name not in off])
    return [
        each
        for each in rest
        if missing_of(each) is None and (not is_on_request(each) or each.name in on)
    ]


def is_on_request(describer: Describer) -> bool:
    """Return True if it runs only where it is asked for, or was before."""
    return bool(getattr(describer, "on_request", False))


def missing_of(describer: Describer) -> str | None:
    """Return what must be installed before it can work, in words; else None."""
    missing: str | None = getattr(describer, "missing", None)
    return missing


def unmapped_fields(describer: Describer, properties: Mapping[str, Any]) -> list[str]:
    """Return the fields of a describer that an index of this mapping lacks."""
    return sorted(describer.mapping.keys() - properties.keys())


def mapped_describers(
    properties: Mapping[str, Any],
    index: str,
    selection: Iterable[str] = (),
    holds: Callable[[Iterable[str]], bool] = lambda _fields: False,
) -> list[str]:
    """Return the selected describers (see `chosen_describers`) that the index maps.

    The index refuses whole documents for one field that it does not map, so the others are
    left out, with a warning.  `holds` returns True if the index holds one of these fields.
    """
    selection = set(selection)
    if all(name[0] in "+-" for name in selection):
        for describer in load_describers():
            is_open = not {f"+{describer.name}", f"-{describer.name}"} & selection
            may_run = is_open and is_on_request(describer) and missing_of(describer) is None
            if may_run and holds(describer.mapping.keys() & properties.keys()):
                selection.add(f"+{describer.name}")
    names = []
    for describer in chosen_describers(selection):
        if lacking := unmapped_fields(describer, properties):
            logger.warning(
                "The describer %r is left out, since index %r has no field %s: add what is"
                " missing with `es-imgsearch init --index %s`.",
                describer.name, index, ", ".join(lacking), index,
            )  # fmt: skip
        else:
            names.append(describer.name)
    return names


# -- A small copy of the picture, computed once for all describers

# Hashing 4,000 x 3,000 pixels takes 12 ms so, and 78 ms without.  Two of the 64 bits of a
# photograph's hash changed when it was shrunk to 128 pixels, none at 256.
SHORTER_SIDE_PIXELS = 256

_last: tuple[weakref.ref[Image.Image], Image.Image] | None = None


def shrink(image: Image.Image) -> Image.Image:
    """Shrink by a whole factor to a shorter side of 256 to 511 pixels.

    A picture that is as small already is returned unchanged.
    """
    factor = max(1, min(image.size) // SHORTER_SIDE_PIXELS)
    return image.reduce(factor) if factor > 1 else image


def shrunken(image: Image.Image) -> Image.Image:
    """Shrink, computed once for all describers; do not change the result."""
    global _last
    if _last is not None and _last[0]() is image:
        return _last[1]
    small = shrink(image)
    if small is not image:
        # A weak reference, so that the cache does not keep the large picture.
        _last = weakref.ref(image), small
    return small
