"""Resolve `[NAME=]URL` of a command line to a root."""

from __future__ import annotations

import re

from es_imgsearch.errors import RootError
from es_imgsearch.records import Root, path_of, stored_path
from es_imgsearch.watch.sources.registry import source_of

# user:password@host; a container of Azure, container@account, has no colon.
_PASSWORD = re.compile(r"[^/]*:[^/]*@")


def url_root(text: str, name: str | None, url: str, *, is_checked: bool) -> Root:
    """Return the root of a URL; look whether it can be listed unless `is_checked`.

    Raises RootError, or LibraryMissing for a package that has to be installed.
    """
    protocol, _, rest = url.partition("://")
    if _PASSWORD.match(rest):
        # Not repeated: it would be in logs, and in the index.
        raise RootError(
            f"A URL of {protocol!r} with a password in it would be stored: give credentials in the"
            " environment or in fsspec's configuration."
        )
    if "?" in rest or "#" in rest or "::" in url:
        raise RootError(
            f"The URL of a root is PROTOCOL://BUCKET/PREFIX, without '?', '#' and '::': {protocol}"
            "://…"
        )
    parts = rest.rstrip("/").split("/")
    if protocol.lower() in {"file", "local"}:
        raise RootError(f"{url!r} is on this machine: give the folder's path, without {protocol}.")
    if protocol.lower() == "memory":
        raise RootError(
            f"{url!r} is in the memory of one process, and pictures are read by others: give a"
            " folder, or a URL that all reach."
        )
    if {"", ".", ".."} & set(parts):
        raise RootError(f"{url!r} names no bucket or server: write {protocol}://BUCKET/PREFIX.")
    path = path_of(f"{protocol.lower()}://{'/'.join(parts)}")
    name = stored_path(parts[-1]) if name is None else name
    if not name or "/" in name or name != name.strip() or not name.isprintable():
        raise RootError(f"{text!r} gives no usable name for the URL: write NAME=URL.")
    source = source_of(str(path))
    if not is_checked:
        try:
            source.check()
        except OSError as error:
            raise RootError(
                f"{path} cannot be listed ({error.strerror}): check the name, the network and the"
                " credentials in the environment. What the index holds of it stays."
            ) from None
    return Root(name, path)


def is_there(url: str) -> bool:
    """Return False if there surely is no such bucket, True if that is unknown."""
    try:
        source_of(url).check()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True
