"""Switch refresh off for a large load, and on again whatever ends it.

    refresh_off ──▶ lease `load:refresh` with the interval of before ──▶ refresh_interval -1
         │  every 30 s, or 1,000 pictures: a refresh, so that searches see what was stored
         ▼
    the end, an error, Ctrl-C or SIGTERM ──▶ the interval of before ──▶ the lease is released
    SIGKILL ──▶ the lease stays and expires ──▶ the next writer of the index restores the interval

By itself Elasticsearch makes a segment every second, which merges write again and again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from es_imgsearch.elastic.leases import Lease, holder, is_at_work
from es_imgsearch.elastic.state import REFRESH_OFF, Document
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import (
    AlreadyRunning,
    ImageMissing,
    ImgSearchError,
    IndexMissing,
    StoreDenied,
)
from es_imgsearch.settings import Settings

logger = logging.getLogger(__name__)

OFF: Final = "-1"
# How late searches see what was stored.
REFRESH_SECONDS: Final = 30.0
# Vectors that no search sees yet are cached, 4,096 of them, so that copies are not embedded again.
_REFRESH_PICTURES: Final = 1000
_POLL_SECONDS: Final = 1.0
_RELEASE_SECONDS: Final = 5.0
# Shorter loads need not be explained.
_NOTE_SECONDS: Final = 5.0


def _nothing() -> int:
    return 0


@contextmanager
def refresh_off(
    store: Store,
    settings: Settings,
    note: Callable[[str], None],
    *,
    stored: Callable[[], int] = _nothing,
) -> Iterator[None]:
    """Switch refresh off; `stored` returns the number of pictures stored so far.

    It stays as it is where another process has switched it off, somebody set it so, or the key may
    not change settings (the role `watch` may not).
    """
    pinned = store.pinned()
    begun = _begin(pinned, settings)
    if begun is None:
        yield
        return
    ending = threading.Event()
    refresher = threading.Thread(
        target=_refresh_now_and_then, args=(pinned, stored, note, ending), name="refresh"
    )
    refresher.daemon = True
    refresher.start()
    try:
        yield
    finally:
        ending.set()
        _end(pinned, *begun)


def restore_refresh(store: Store) -> bool:
    """Switch refresh on again if a process that switched it off was killed."""
    found = store.state.read(REFRESH_OFF)
    if found is None or is_at_work(found.document):
        return False
    body = found.document["body"]
    try:
        _put_interval(store.at(body["generation"]), body["refresh_interval"])
    except (IndexMissing, ImageMissing):
        pass  # The generation was deleted meanwhile.
    except StoreDenied as error:
        logger.warning("%s %s", off_words(store.index), error)
        return False
    store.state.delete(REFRESH_OFF, found.version)
    logger.warning(
        "%s ended without switching refresh on again, which is done now: pictures that it stored"
        " can be searched.",
        holder(found.document),
    )
    return True


def left_off(store: Store) -> bool:
    """Check whether refresh is off since a process was killed."""
    found = store.state.read_many([REFRESH_OFF]).get(REFRESH_OFF)
    return found is not None and not is_at_work(found)


def off_words(index: str) -> str:
    """Say that a load was killed, and what ends its trace."""
    return (
        "A load was killed and left refresh off, so new pictures are not found: `es-imgsearch init"
        f" --index {index}` switches it on again."
    )


def _begin(store: Store, settings: Settings) -> tuple[Lease, str | None] | None:
    """Claim the index and switch refresh off; None where it stays as it is.

    Returns the claim and the interval of before.
    """
    restore_refresh(store)
    before = _interval(store)
    if before == OFF or store.state.read(REFRESH_OFF) is not None:
        return None
    body: Document = {"generation": store.generation, "refresh_interval": before}
    lease = Lease(
        store.state,
        {REFRESH_OFF: {"kind": "load"}},
        settings.host,
        f"loading pictures into index {store.index!r}",
        lease_seconds=settings.lease_seconds,
        body=lambda: body,
    )
    try:
        lease.acquire(threading.Event())
    except AlreadyRunning:
        return None
    try:
        _put_interval(store, OFF)
    except StoreDenied as error:
        logger.debug("Refresh stays on during this load: %s", error)
        _release(lease)
        return None
    except BaseException:
        # The request may have been carried out.
        _end(store, lease, before)
        raise
    return lease, before


def _end(store: Store, lease: Lease, before: str | None) -> None:
    """Restore the interval, unless somebody set another one meanwhile."""
    try:
        if _interval(store) == OFF:
            _put_interval(store, before)
    except (IndexMissing, ImageMissing):
        pass  # The index was deleted.
    except ImgSearchError as error:
        lease.leave()
        logger.warning("%s %s", error, off_words(store.index))
        return
    _release(lease)


def _release(lease: Lease) -> None:
    lease.release()
    lease.join(_RELEASE_SECONDS)


def _interval(store: Store) -> str | None:
    """Read the interval that is set; None where it is Elasticsearch's own."""
    path = f"/{store.connection.pictures}/_settings/index.refresh_interval"
    answer: Mapping[str, Any] = store.connection.request("GET", path)
    # Without a value the index is left out.
    return next((each["settings"]["index"]["refresh_interval"] for each in answer.values()), None)


def _put_interval(store: Store, interval: str | None) -> None:
    body: Mapping[str, Any] = {"index": {"refresh_interval": interval}}
    store.connection.request("PUT", f"/{store.connection.pictures}/_settings", body)


def _refresh_now_and_then(
    store: Store, stored: Callable[[], int], note: Callable[[str], None], ending: threading.Event
) -> None:
    began = refreshed = time.monotonic()
    seen, is_noted = 0, False
    while not ending.wait(_POLL_SECONDS):
        now = time.monotonic()
        if not is_noted and now - began >= _NOTE_SECONDS:
            is_noted = True
            note(f"Until this has ended, searches see new pictures every {REFRESH_SECONDS:.0f} s.")
        if now - refreshed < REFRESH_SECONDS and stored() - seen < _REFRESH_PICTURES:
            continue
        refreshed, seen = now, stored()
        try:
            store.refresh()
        except ImgSearchError as error:
            logger.debug("Not refreshed: %s", error)
