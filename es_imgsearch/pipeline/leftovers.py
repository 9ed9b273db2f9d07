"""Queue files that left no document: to settle, be deleted, or be tried again."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping

from es_imgsearch.errors import ReadError
from es_imgsearch.pipeline.jobs import Kept, RootComparison
from es_imgsearch.pipeline.queues import UnseenFiles
from es_imgsearch.read.file import Skipped
from es_imgsearch.records import Change
from es_imgsearch.watch.settle import Settlers
from es_imgsearch.watch.watcher import Hint, HintKind
from es_imgsearch.write.pending_deletions import PendingDeletions

logger = logging.getLogger(__name__)

# Of a root whose files cannot be read, so many are logged.
_LOGGED_FILES = 10


class LeftoverQueue:
    """Sort the paths that the pipeline emits; log files that cannot be read for now."""

    def __init__(
        self,
        settler: Settlers,
        pending: Mapping[str, PendingDeletions],
        comparing: Mapping[str, RootComparison],
    ) -> None:
        """`comparing` has the last comparison of each root, to count what is no picture."""
        self._settler = settler
        self._comparing = comparing
        self._pending = pending
        # Files that events showed and that could not be examined.
        self.unseen = UnseenFiles()
        self._logged: Counter[str] = Counter()

    def put(self, change: Change, reason: Skipped | Kept) -> None:
        """Take a file from the pipeline."""
        if isinstance(reason, Kept) and reason.is_unknown:
            self._log(change, reason.error)
        elif reason is Skipped.CHANGING:
            hint = Hint(change.root, change.relative_path, HintKind.TOUCHED)
            self._settler.offer(hint, time.monotonic())
        elif reason is Skipped.UNSEEN:
            self.unseen.put(change)
        else:
            counts = self._comparing.get(change.root.name)
            if reason is Skipped.NOT_A_PICTURE and counts is not None:
                counts.count_no_picture(change.relative_path)
            self._pending[change.root.name].add(change.relative_path)

    def _log(self, change: Change, error: ReadError) -> None:
        self._logged[change.root.name] += 1
        if (number := self._logged[change.root.name]) > _LOGGED_FILES:
            return
        logger.warning(
            "%s cannot be read (%s): its picture stays in the index, and it is tried again.%s",
            change.root.absolute(change.relative_path),
            error.message.rstrip("."),
            " Further files of this kind are only counted." if number == _LOGGED_FILES else "",
        )
