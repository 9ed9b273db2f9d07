"""Sidecars of Google Takeout: their names, and what they say.

The name is that of the picture with `.supplemental-metadata` (since 2024), cut to 46 characters.  A
number that tells files of one name apart stands in front of the picture's suffix and behind the
name of the sidecar, and an edited picture has the sidecar of its original.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from es_imgsearch.describe.dates import Taken, from_timestamp
from es_imgsearch.describe.places import Place, place_of_pair
from es_imgsearch.describe.texts import name_key

_SUPPLEMENT: Final = ".supplemental-metadata"
_MOST_CHARACTERS = 46
# A number, and letters that are two for the one program and one for the other, shift the cut.
_SHORTEST_CUT = 42
_NUMBER = re.compile(r"(?P<name>.+)\((?P<number>[0-9]{1,4})\)")
_EDITED = re.compile(
    r"-(edited|effects|bearbeitet|modifié|editado|edytowane|bewerkt|modificato|redigeret|redigert"
    r"|redigerad|muokattu|upraveno|düzenlendi|изменено|編集済み|已修改|已編輯|수정됨)$"
)


def cut_name(base: str) -> Iterator[tuple[str, str]]:
    """Yield the name and number of the picture, of a sidecar's name without `.json`.

    The name is whole, or its first characters; `base` is in the form of `name_key`.
    """
    number = ""
    if found := _NUMBER.fullmatch(base):
        base, number = found["name"], found["number"]
    name, dot, rest = base.rpartition(".")
    if dot and _SUPPLEMENT.startswith(f".{rest}") and name:
        yield name, number
    else:
        yield base, number
    if len(base) >= _SHORTEST_CUT:
        yield base[:_SHORTEST_CUT], number


def original_name(name: str) -> Iterator[tuple[str, str]]:
    """Yield what `cut_name` may say of the sidecars of a picture of this name."""
    stem, dot, suffix = name.rpartition(".")
    if not dot:
        return
    for each in dict.fromkeys((stem, _EDITED.sub("", stem))):
        yield from _cut(f"{each}.{suffix}", "")
        if found := _NUMBER.fullmatch(each):
            for plain in dict.fromkeys((found["name"], _EDITED.sub("", found["name"]))):
                yield from _cut(f"{plain}.{suffix}", found["number"])


def _cut(name: str, number: str) -> Iterator[tuple[str, str]]:
    yield name, number
    if len(name + _SUPPLEMENT) >= _MOST_CHARACTERS:
        yield (name + _SUPPLEMENT)[:_SHORTEST_CUT], number


def is_takeout(found: Mapping[str, Any]) -> bool:
    """Return True for what Takeout says of a picture."""
    taken = found.get("photoTakenTime")
    return isinstance(taken, Mapping) and "timestamp" in taken


def may_be_of(found: Mapping[str, Any], picture: str) -> bool:
    """Return False if the title, the picture's first name, is that of another picture."""
    title = found.get("title")
    if not isinstance(title, str) or not title:
        return True
    names = [name for name, _ in original_name(name_key(picture))]
    return any(_plain(title)[:_SHORTEST_CUT] == _plain(name)[:_SHORTEST_CUT] for name in names)


def _plain(name: str) -> str:
    # Google replaces what file systems refuse.
    return re.sub(r"\W", "_", name_key(name))


def taken_of(found: Mapping[str, Any], notes: list[str]) -> Taken | None:
    """Return when the picture was taken, in UTC; appends to `notes` if unreadable."""
    timestamp = found["photoTakenTime"]["timestamp"]
    try:
        return replace(from_timestamp(timestamp), source="takeout")
    except ValueError as error:
        notes.append(f"photoTakenTime {error}")
        return None


def place_of(found: Mapping[str, Any], notes: list[str]) -> Place | None:
    """Return where the picture was taken; appends to `notes` if unreadable.

    0, 0 is nowhere.
    """
    for name in ("geoData", "geoDataExif"):
        data = found.get(name)
        if isinstance(data, Mapping):
            reasons: list[str] = []
            where = place_of_pair(data.get("latitude"), data.get("longitude"), reasons.append)
            notes += (f"{name} {reason}" for reason in reasons)
            if where is not None:
                return where
    return None
