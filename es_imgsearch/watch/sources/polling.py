"""Stand in for the watcher of a root that has no events and is listed instead."""

from __future__ import annotations

from es_imgsearch.records import Root


class Unwatched:
    """A watcher without events; the daemon lists the root every `poll_seconds`."""

    def start(self) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""

    def rearm(self, _root: Root) -> bool:
        """Do nothing; True, since nothing is left unwatched."""
        return True

    def refused(self, _root: Root) -> frozenset[str]:
        """Return the folders that cannot be watched: none."""
        return frozenset()
