"""Queue files that left no document: to settle once more, or to be deleted."""

from __future__ import annotations

from collections.abc import Mapping

from es_imgsearch.read.file import Skipped
from es_imgsearch.records import Change
from es_imgsearch.watch.settle import Settlers
from es_imgsearch.watch.watcher import Hint, HintKind
from es_imgsearch.write.pending_deletions import PendingDeletions


class LeftoverQueue:
    """Sort the paths that the pipeline emits."""

    def __init__(self, settler: Settlers, pending: Mapping[str, PendingDeletions]) -> None:
        self._settler = settler
        self._pending = pending

    def put(self, change: Change, reason: Skipped) -> None:
        """Take a file from the pipeline, or a path from a comparison."""
        if reason is Skipped.CHANGING:
            hint = Hint(change.root, change.relative_path, HintKind.TOUCHED)
            self._settler.offer(hint, change.detected_at)
        else:
            self._pending[change.root.name].add(change.relative_path)
