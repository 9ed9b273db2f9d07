"""Log what cannot be compared with the index, each place once."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Sequence

from es_imgsearch.records import Root, disk_path
from es_imgsearch.watch.commands import permitting_command
from es_imgsearch.watch.places import Unknown, UnknownKind

logger = logging.getLogger(__name__)


class UnknownPlaces:
    """The unknown places of one process, as the last comparisons found them."""

    def __init__(self, index: str, options: Sequence[str] = ()) -> None:
        """`options` are those of `walk_options`."""
        self._index = index
        self._options = options
        self._logged: defaultdict[str, set[str]] = defaultdict(set)

    def collector(self, root: Root) -> tuple[list[Unknown], Callable[[Unknown], None]]:
        """Return a list, and a function that logs a place and appends it."""
        found: list[Unknown] = []

        def report(unknown: Unknown) -> None:
            found.append(unknown)
            if not (unknown.stored_path or root.is_url or os.path.exists(root.path)):
                return  # the root itself, which who watches it reports
            if unknown.stored_path not in self._logged[root.name]:
                logger.warning("%s", self._message(root, unknown))
                self._logged[root.name].add(unknown.stored_path)

        return found, report

    def keep(self, root: Root, found: list[Unknown]) -> None:
        """Forget the places of a root but those that its whole comparison found."""
        self._logged[root.name] = {each.stored_path for each in found}

    def _message(self, root: Root, unknown: Unknown) -> str:
        path = root.absolute(disk_path(unknown.stored_path))
        if unknown.kind is UnknownKind.UNMOUNTED:
            return (
                f"Another file system was mounted at {path} and is not mounted any more: its"
                " documents stay in the index. Mount it again; if it is gone for good, run"
                f" `{permitting_command(root, self._index, self._options)}`."
            )
        if unknown.kind in {UnknownKind.DANGLING, UnknownKind.DANGLING_FOLDER}:
            stays = "its document stays"
            if unknown.kind is UnknownKind.DANGLING_FOLDER:
                stays = "the documents below it stay"
            return (
                f"{path} is a link to nothing: {stays} in the index. Bring its target back, or"
                " remove the link."
            )
        return f"{path} cannot be read ({unknown.reason}): its pictures stay in the index."
