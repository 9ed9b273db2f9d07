"""Which sidecar files belong to which picture, by their names.

    NAME.xmp NAME.jpg.xmp NAME.json NAME.jpg.json
    NAME.jpg.supplemental-metadata.json                of Google Takeout, of NAME.jpg, and of
    NAME.jpg(1).json                                   NAME-edited.jpg; of NAME(1).jpg

Capitals and the Unicode form of a name do not count.  Google cuts what stands in front of `.json`
to 46 characters.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final, NamedTuple

from es_imgsearch.describe.sidecars.takeout import (
    TakeoutKey,
    cut_name,
    original_name,
    written_names,
)
from es_imgsearch.describe.texts import name_key

TABLE: Final = "metadata.csv"
_XMP, _JSON = ".xmp", ".json"
_SUFFIXES: Final = (_XMP, _JSON)
# As programs write them.
_WRITTEN_SUFFIXES: Final = (_XMP, _XMP.upper(), _JSON, _JSON.upper())


def is_table(name: str) -> bool:
    """Return True for the name of a table of pictures."""
    return name.lower() == TABLE


def is_sidecar(name: str) -> bool:
    """Return True if a file of this name may be the sidecar of a picture."""
    return name.lower().endswith(_SUFFIXES) or is_table(name)


class SidecarName(NamedTuple):
    """A sidecar's name; `is_takeouts` if it belongs by Google's rules only."""

    name: str
    is_takeouts: bool = False

    @property
    def is_xmp(self) -> bool:
        return self.name.lower().endswith(_XMP)


class Listing:
    """The names of a folder: pictures by sidecar, and sidecars by picture."""

    def __init__(self, names: Iterable[str]) -> None:
        self.pictures: list[str] = []
        self._by_base: dict[str, list[str]] = {}
        self._pictures_by_base: dict[str | TakeoutKey, list[str]] | None = None
        self._by_takeout: dict[TakeoutKey, list[str]] | None = None
        for name in names:
            if not is_sidecar(name):
                self.pictures.append(name)
                continue
            self._by_base.setdefault(name_key(os.path.splitext(name)[0]), []).append(name)
        # Of folders that are written to all the time, only this part is needed for each picture.
        self._exact: set[str] | None = None

    def sidecars_of(self, picture: str) -> list[SidecarName]:
        """Return the sidecars of a picture, of which the later count; tables are none."""
        found: dict[str, SidecarName] = {}
        perhaps: dict[str, SidecarName] = {}
        by_takeout = self._json_by_takeout()
        for key in original_name(name_key(picture)):
            for name in by_takeout.get(key, ()):
                names = found if key.is_certain else perhaps
                names[name] = SidecarName(name, is_takeouts=True)
        for base in (_stem(picture), picture):
            for name in sorted(self._by_base.get(name_key(base), ()), reverse=True):
                if self._is_of(name, picture):
                    found.pop(name, None)
                    found[name] = SidecarName(name)
        if all(each.is_xmp for each in found.values()):
            found = perhaps | found
        return sorted(found.values(), key=_precedence)

    def _json_by_takeout(self) -> dict[TakeoutKey, list[str]]:
        found = self._by_takeout
        if found is None:
            found = {}
            for names in self._by_base.values():
                for name in names:
                    base, suffix = os.path.splitext(name)
                    for key in cut_name(base) if suffix.lower() == _JSON else ():
                        found.setdefault(key, []).append(name)
            self._by_takeout = found
        return found

    def _is_of(self, sidecar: str, picture: str) -> bool:
        """Return False for a sidecar that has another picture's capitals."""
        base = os.path.splitext(sidecar)[0]
        if base in {picture, _stem(picture)}:
            return True
        if self._exact is None:
            self._exact = {each for name in self.pictures for each in (name, _stem(name))}
        return base not in self._exact

    def about(self, sidecar: str) -> list[str]:
        """Return the pictures that this sidecar, existing or not, belongs to."""
        if is_table(sidecar):
            return self.pictures
        by_base = self._pictures_by_base
        if by_base is None:
            by_base = self._pictures_by_base = {}
            for name in self.pictures:
                key = name_key(name)
                bases: set[str | TakeoutKey] = {key, name_key(_stem(name))}
                for base in bases | set(original_name(key)):
                    by_base.setdefault(base, []).append(name)
        base, suffix = os.path.splitext(sidecar)
        found = [name for name in by_base.get(name_key(base), ()) if self._is_of(sidecar, name)]
        if suffix.lower() == _JSON:
            for cut in cut_name(base):
                found += by_base.get(cut, ())
        return list(dict.fromkeys(found))


def _precedence(sidecar: SidecarName) -> int:
    if sidecar.is_takeouts:
        return 0
    return 1 if sidecar.is_xmp else 2


def _stem(name: str) -> str:
    return PurePath(name).stem


# -- Listing a folder once for many pictures

# A listing made within this time of a change of its folder may lack another one: file systems
# keep times of 4 ms to 2 s.
_RACY_NS = 2_000_000_000
# Some network file systems change no folder's time, so that a listing alone counts for a moment
# only, less than `settle_seconds`; then the likely names are tried, too, and after a while the
# folder is listed anew.  One that is written to all the time is listed for a quarter of the time at
# most.
_REUSED_SECONDS = 0.5
_REUSED_TIMES = 3.0
_KEPT_SECONDS = 10.0
# A worker reads pictures of several folders in turn.
_MOST_FOLDERS = 8
# Of all of them together: 100 to 200 MB.  The last listing is kept whatever it holds.
_MOST_NAMES = 1_000_000


@dataclass(frozen=True, slots=True)
class _Listed:
    mtime_ns: int
    names: int
    listing: Listing
    is_settled: bool
    ended_at: float
    took_seconds: float


# By folder, the one listed or reused last at the end.
_last: dict[str, _Listed] = {}
_lock = threading.Lock()


def listed(folder: str) -> tuple[Listing, bool]:
    """List a folder, or reuse its last listing; False if that may lack a new file.

    A folder that is missing or may not be listed is empty.  Raises OSError.
    """
    began = time.monotonic()
    try:
        mtime_ns = os.stat(folder or ".").st_mtime_ns
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return Listing(()), False
    last = _last.get(folder)
    if last is not None:
        age = began - last.ended_at
        for_a_while = _REUSED_TIMES * last.took_seconds
        is_current = last.mtime_ns == mtime_ns and last.is_settled
        if age < max(for_a_while, _KEPT_SECONDS if is_current else 0):
            _keep(folder, last)
            return last.listing, is_current and age < max(_REUSED_SECONDS, for_a_while)
    try:
        names = os.listdir(folder or ".")
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        names = []
    listing = Listing(names)
    ended_at = time.monotonic()
    took = ended_at - began
    is_settled = time.time_ns() - mtime_ns > _RACY_NS
    _keep(folder, _Listed(mtime_ns, len(names), listing, is_settled, ended_at, took))
    return listing, True


def _keep(folder: str, now: _Listed) -> None:
    with _lock:
        _last.pop(folder, None)
        _last[folder] = now
        while len(_last) > _MOST_FOLDERS or (len(_last) > 1 and _names() > _MOST_NAMES):
            del _last[next(iter(_last))]


def _names() -> int:
    return sum(each.names for each in _last.values())


def likely_names(picture: str) -> Iterator[str]:
    """Yield the names that sidecars of a picture most likely have."""
    for base in (_stem(picture), picture):
        for suffix in _WRITTEN_SUFFIXES:
            yield base + suffix


def likely_sidecars(picture: str) -> Iterator[SidecarName]:
    """Yield the sidecars that a picture most likely has, those of Google first."""
    own = dict.fromkeys(likely_names(picture))
    for name in dict.fromkeys(f"{base}{_JSON}" for base in written_names(picture)):
        if name not in own:
            yield SidecarName(name, is_takeouts=True)
    yield from map(SidecarName, own)
