"""Log what a daemon does: a line a batch, in a long run ever more rarely.

failures       at once, summed if there are many, with the command that lists them
progress       stored, moved, removed, failed and waiting files
comparisons    those that find something to do
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from es_imgsearch.errors import counted
from es_imgsearch.pipeline.indexer import Indexer
from es_imgsearch.pipeline.jobs import RootComparison
from es_imgsearch.records import Root
from es_imgsearch.write.activity import SINGLE_FAILURES, Tally

logger = logging.getLogger(__name__)

FIRST_WAIT_SECONDS = 2.0
LONGEST_WAIT_SECONDS = 60.0

# So long a comparison waits for its new files to be read before it is logged.
READING_SECONDS = 5.0


class Pacing:
    """Let lines pass, ever more rarely while they come one after the other.

    The wait between two doubles with each, up to a minute; two minutes of silence end that.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_at: float | None = None
        self._wait_seconds = FIRST_WAIT_SECONDS

    def is_due(self) -> bool:
        """Return True if the next line may pass."""
        return self._last_at is None or self._clock() - self._last_at >= self._wait_seconds

    def note(self) -> None:
        """Note that a line passed."""
        now = self._clock()
        if self._last_at is not None and now - self._last_at < 2 * LONGEST_WAIT_SECONDS:
            self._wait_seconds = min(2 * self._wait_seconds, LONGEST_WAIT_SECONDS)
        else:
            self._wait_seconds = FIRST_WAIT_SECONDS
        self._last_at = now


class DaemonLog:
    """Log the work of an indexer; one thread calls `tick`, about once a second."""

    def __init__(
        self, indexer: Indexer, index: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._indexer = indexer
        self._clock = clock
        self._index = index
        self._pacing, self._failure_pacing = Pacing(clock), Pacing(clock)
        self._news = Tally()
        self._news_since: float | None = None
        self._failures = Tally()
        # Comparisons in progress that were logged, by the root's name.
        self._comparing: dict[str, RootComparison] = {}
        # Comparisons that ended and are not logged yet, and when.
        self._compared: list[tuple[Root, RootComparison, float]] = []
        self._lock = threading.Lock()

    def tick(self) -> None:
        """Log what is due."""
        self._take()
        if self._failures.new_failures and self._failure_pacing.is_due():
            self._log_failures()
            self._failure_pacing.note()
        self._log_ended_comparisons()
        self._log_comparisons()
        if not (self._news.stored or self._news.moved or self._news.deleted):
            self._news_since = None
            return
        waiting, now = self._indexer.waiting, self._clock()
        self._news_since = now if self._news_since is None else self._news_since
        # A line a batch: at its end, or once it lasts.
        is_worth_a_line = not waiting or now - self._news_since >= FIRST_WAIT_SECONDS
        if is_worth_a_line and self._pacing.is_due():
            self._log_progress(waiting)
            self._pacing.note()

    def close(self) -> None:
        """Log comparisons and failures that were not logged yet."""
        self._log_ended_comparisons(at_once=True)
        self._take()
        if self._failures.new_failures:
            self._log_failures()

    def compared(self, root: Root, comparison: RootComparison) -> None:
        """Log the end of a comparison; one without differences only for `-v`.

        New files may be no pictures, so it waits a moment until they are read.
        """
        if comparison.new:
            with self._lock:
                self._compared.append((root, comparison, self._clock()))
        else:
            self._log_compared(root, comparison)

    def _log_ended_comparisons(self, *, at_once: bool = False) -> None:
        is_idle, now = at_once or not self._indexer.waiting, self._clock()
        with self._lock:
            due = [each for each in self._compared if is_idle or now - each[2] >= READING_SECONDS]
            self._compared = [each for each in self._compared if each not in due]
        for root, comparison, _ in due:
            self._log_compared(root, comparison)

    def _log_compared(self, root: Root, comparison: RootComparison) -> None:
        has_changed = comparison.new or comparison.changed or comparison.lost
        logger.log(
            logging.INFO if has_changed else logging.DEBUG,
            "Compared %r with the index in %.1f s: %s new, %s changed, %s gone.",
            root.name, comparison.seconds,
            f"{comparison.new:,}", f"{comparison.changed:,}", f"{comparison.lost:,}",
        )  # fmt: skip

    def _take(self) -> None:
        taken = self._indexer.pipeline.activity.take()
        self._news.add(taken)
        self._failures.add(taken)

    def _log_failures(self) -> None:
        failures, self._failures = self._failures, Tally()
        number, command = failures.new_failures, f"es-imgsearch failures --index {self._index}"
        if number <= SINGLE_FAILURES:
            for path, message in failures.first_failures:
                logger.warning(
                    "Cannot be indexed: %s: %s `%s` lists such files.", path, message, command
                )
            return
        path, message = failures.first_failures[0]
        logger.warning(
            "%s cannot be indexed, such as %s: %s `%s` lists them.",
            counted(number, "file"), path, message, command,
        )  # fmt: skip

    def _log_progress(self, waiting: int) -> None:
        news, self._news = self._news, Tally()
        outcomes = ("stored", "moved", "deleted", "failed")
        parts = [(each, number) for each in outcomes if (number := getattr(news, each))]
        words: list[str] = []
        for outcome, number in parts:
            verb = "removed" if outcome == "deleted" else outcome
            which = f"{number:,}" if words else counted(number, "picture")
            words.append(f"{verb} {which}{' from the index' * (outcome == 'deleted')}")
        words[0] = words[0].capitalize()
        logger.info("%s%s.", ", ".join(words), self._waiting_in_words(waiting))

    def _waiting_in_words(self, waiting: int) -> str:
        if any(each.ended_at is None for each in self._indexer.comparing.copy().values()):
            return f"; at least {counted(waiting, 'file')} waiting, the comparison goes on"
        return f"; {counted(waiting, 'file')} waiting" if waiting else ""

    def _log_comparisons(self) -> None:
        """Log comparisons that take longer than a tick and have found something to do."""
        for name, each in self._indexer.comparing.copy().items():
            is_news = each.ended_at is None and self._comparing.get(name) is not each
            if is_news and (each.new or each.changed or each.lost):
                self._comparing[name] = each
                logger.info("Comparing %r with the index, which differs from it.", name)
