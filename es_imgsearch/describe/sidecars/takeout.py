"""Sidecars of Google Takeout: their names, and what they say.

The name is that of the picture with `.supplemental-metadata` (since 2024), cut to 46 characters.  A
number that tells files of one name apart stands in front of the picture's suffix and behind the
name of the sidecar, and an edited picture has the sidecar of its original.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from es_imgsearch.describe.dates import Taken, from_timestamp
from es_imgsearch.describe.places import Place, place_of_pair
from es_imgsearch.describe.texts import name_key
from es_imgsearch.records import composed

_SUPPLEMENT: Final = ".supplemental-metadata"
_MOST_CHARACTERS = 46
# A number, and letters that are two for the one program and one for the other, shift the cut.
_SHORTEST_CUT = 42
# Without capitals some letters are two, such as ß.
_LONGEST_KEY = _MOST_CHARACTERS + 8
_WHOLE, _BEGINNING, _STEM = "whole", "beginning", "stem"
_NUMBER = re.compile(r"(?P<name>.+)\((?P<number>[0-9]{1,4})\)")
_MARKS = (
    "|edited|effects|bearbeitet|modifié|editado|edytowane|bewerkt|modificato|redigeret|redigert"
    "|redigerad|muokattu|upraveno|düzenlendi|изменено|編集済み|已修改|已編輯|수정됨"
)
_EDITED = re.compile(rf"-({_MARKS[1:]})$")


class TakeoutKey(NamedTuple):
    """What the names of a picture and of its sidecar have in common.

    `name` is in the form of `name_key`: a picture's name (`_WHOLE`), the beginning that a sidecar
    has of it (`_BEGINNING`), or its stem, which was cut shorter than the sidecar's name (`_STEM`).
    """

    name: str
    number: str
    kind: str

    @property
    def is_certain(self) -> bool:
        return self.kind != _STEM


def cut_name(base: str) -> Iterator[TakeoutKey]:
    """Yield what a sidecar's name, without `.json`, shares with its pictures."""
    base, number = composed(base), ""
    if found := _NUMBER.fullmatch(base):
        base, number = found["name"], found["number"]
    key = base.casefold()
    name, dot, rest = key.rpartition(".")
    is_whole = dot and _SUPPLEMENT.startswith(f".{rest}") and name
    yield TakeoutKey(name if is_whole else key, number, _WHOLE)
    if _SHORTEST_CUT <= len(base) <= _MOST_CHARACTERS:
        yield TakeoutKey(key, number, _BEGINNING)
        for length in range(_SHORTEST_CUT, len(key) + 1):
            yield TakeoutKey(key[:length], number, _STEM)


def original_name(name: str) -> Iterator[TakeoutKey]:
    """Yield what a picture's name, as of `name_key`, shares with its sidecars."""
    stem, dot, suffix = name.rpartition(".")
    if not dot:
        return
    for each in _unedited(stem):
        yield from _cut(each, suffix, "")
        if found := _NUMBER.fullmatch(each):
            for plain in _unedited(found["name"]):
                yield from _cut(plain, suffix, found["number"])


def written_names(picture: str) -> Iterator[str]:
    """Yield how Google most likely names a picture's sidecar, without `.json`."""
    stem, dot, suffix = picture.rpartition(".")
    if not dot:
        return
    for each in _unedited(stem):
        number = ""
        if found := _NUMBER.fullmatch(each):
            each, number = found["name"], f"({found['number']})"
        for name in (f"{each}.{suffix}{_SUPPLEMENT}", f"{each}.{suffix}"):
            yield name[:_MOST_CHARACTERS] + number


def _unedited(stem: str) -> Iterator[str]:
    yield stem
    if (original := _EDITED.sub("", stem)) != stem:
        yield original


def _cut(stem: str, suffix: str, number: str) -> Iterator[TakeoutKey]:
    name = f"{stem}.{suffix}"
    yield TakeoutKey(name, number, _WHOLE)
    written = name + _SUPPLEMENT
    for length in range(_SHORTEST_CUT, min(len(written), _LONGEST_KEY) + 1):
        yield TakeoutKey(written[:length], number, _BEGINNING)
    if _SHORTEST_CUT <= len(stem) <= _LONGEST_KEY:
        yield TakeoutKey(stem, number, _STEM)
        # Of an edited picture the mark may be cut, too.
        original, dash, mark = stem.rpartition("-")
        if dash and len(original) >= _SHORTEST_CUT and f"|{mark}" in _MARKS:
            yield TakeoutKey(original, number, _STEM)


def is_takeout(found: Mapping[str, Any]) -> bool:
    """Return True for what Takeout says of a picture."""
    taken = found.get("photoTakenTime")
    return isinstance(taken, Mapping) and "timestamp" in taken


def may_be_of(found: Mapping[str, Any], picture: str) -> bool:
    """Return False if the title, the picture's first name, is that of another picture."""
    title = found.get("title")
    if not isinstance(title, str) or not title:
        return True
    names = {_plain(name) for name, *_ in original_name(name_key(picture))}
    return _plain(title) in names


def _plain(name: str) -> str:
    # Google replaces what file systems refuse.
    return re.sub(r"\W", "_", name_key(name))[:_SHORTEST_CUT]


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
