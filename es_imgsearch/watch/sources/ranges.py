"""List ranges of keys at once, and yield their files in the order of the ranges."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from es_imgsearch.watch.sources.protocol import SourceFile

Listing = Callable[[], Iterator[SourceFile]]

# Ranges listed at once.  A request of 1,000 keys takes some 0.3 s, nearly all of it waiting.
_THREADS: Final = 8
# A range is listed ahead by so many files: 8 x 8,000 files of 300 bytes take 20 MB.
_PAGE_FILES: Final = 1000
_PAGES: Final = 8
AHEAD_FILES: Final = _PAGE_FILES * _PAGES
_LOOK_SECONDS: Final = 0.1


def in_order(listings: Iterable[Listing], *, threads: int = _THREADS) -> Iterator[SourceFile]:
    """Yield the files of all listings, one listing after the other.

    The next ones are listed meanwhile, each up to `AHEAD_FILES` files.  Raises what a listing
    raises, after the files before it.
    """
    stop = threading.Event()
    ahead: deque[_Ahead] = deque()
    rest = iter(listings)
    try:
        while True:
            while len(ahead) < threads and (listing := next(rest, None)) is not None:
                ahead.append(_Ahead(listing, stop))
            if not ahead:
                return
            yield from ahead[0].files()
            ahead.popleft()
    finally:
        stop.set()


class _Ahead:
    """A listing that a thread of its own runs, as far ahead as its queue holds."""

    def __init__(self, listing: Listing, stop: threading.Event) -> None:
        self._listing = listing
        self._stop = stop
        self._pages: queue.Queue[list[SourceFile] | BaseException | None] = queue.Queue(_PAGES)
        threading.Thread(target=self._run, name="listing", daemon=True).start()

    def files(self) -> Iterator[SourceFile]:
        while (page := self._pages.get()) is not None:
            if isinstance(page, BaseException):
                raise page
            yield from page

    def _run(self) -> None:
        page: list[SourceFile] = []
        try:
            for each in self._listing():
                page.append(each)
                if len(page) == _PAGE_FILES:
                    if not self._put(page):
                        return
                    page = []
        except BaseException as error:  # noqa: BLE001 - raised by `files`
            self._put(page)
            self._put(error)
        else:
            self._put(page)
            self._put(None)

    def _put(self, page: list[SourceFile] | BaseException | None) -> bool:
        while not self._stop.is_set():
            try:
                self._pages.put(page, timeout=_LOOK_SECONDS)
            except queue.Full:
                continue
            return True
        return False
