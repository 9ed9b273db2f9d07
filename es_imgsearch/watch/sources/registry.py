"""Find the source of a path or URL: an entry point of `es_imgsearch.sources`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from es_imgsearch.errors import ImgSearchError, RootError, shown_value
from es_imgsearch.records import is_url
from es_imgsearch.watch.sources.folder import FolderSource
from es_imgsearch.watch.sources.protocol import Source

GROUP: Final = "es_imgsearch.sources"
# The entry point of all URLs whose protocol has none.
_ANY_URL: Final = "fsspec"


@lru_cache(maxsize=64)
def source_of(place: str) -> Source:
    """Return the source of a folder or URL; it makes no request.

    Raises RootError if its protocol is unknown, or LibraryMissing naming the package to install.
    """
    if not is_url(place):
        return FolderSource(place)
    points = _registered()
    protocol = place.partition("://")[0].lower()
    point = points.get(protocol) or points.get(_ANY_URL)
    if point is None:
        raise RootError(
            f"No source opens {protocol!r}: the entry points of {GROUP!r} are missing, so this"
            " package has to be installed once more."
        )
    try:
        source: Source = point.load()(place)
    except ImgSearchError:
        raise
    except Exception as error:
        raise RootError(
            f"The source {point.name!r} of the package {_package(point)} cannot open {place}:"
            f" {type(error).__name__}: {shown_value(str(error))}."
        ) from error
    return source


def split_url(url: str) -> tuple[str, str]:
    """Split the URL of a file into that of its bucket or server, and the key in that."""
    protocol, _, rest = url.partition("://")
    authority, _, key = rest.partition("/")
    return f"{protocol}://{authority}", key


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.module


def _registered() -> Mapping[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
