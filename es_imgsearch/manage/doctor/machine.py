"""Checks of this machine: what the kernel allows a daemon to watch."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from es_imgsearch.errors import counted
from es_imgsearch.manage.doctor.setup import Finding, SetUp

# Folders that hold no picture are watched, too; a home has two or three times as many.
_SPARE = 2


def watches(setup: SetUp) -> Iterator[Finding]:
    """Yield a finding if the kernel may not watch all folders of this host's roots."""
    if not sys.platform.startswith("linux"):
        return
    names = [
        name
        for name, entry in setup.info.meta.roots.items()
        if entry["host"] == setup.settings.host
    ]
    if not names:
        return
    folders = _folders(setup, names)
    allowed = int((setup.proc / "fs/inotify/max_user_watches").read_text("ascii"))
    if _SPARE * folders > allowed:
        yield Finding(
            "watches",
            f"The pictures of this host lie in {counted(folders, 'folder')}, and the kernel watches"
            f" at most {allowed:,}, those without pictures counted; `watch` looks at what is beyond"
            " only now and then. To allow more, until the next start of the machine:",
            f"sudo sysctl fs.inotify.max_user_watches={max(4 * folders, 524_288)}",
        )


def _folders(setup: SetUp, roots: list[str]) -> int:
    """Count the folders of these roots, within 1 % or so."""
    body = {
        "size": 0,
        "query": {"terms": {"root": roots}},
        "aggs": {"folders": {"cardinality": {"field": "folder"}}},
    }
    answer = setup.store.connection.request("POST", f"/{setup.index}/_search", body)
    return int(answer["aggregations"]["folders"]["value"])
