"""Find a running `serve` of this user on this machine, by the file it writes.

`serve-<port>.json` stands in the user's runtime folder, or else cache folder, readable by nobody
else, as long as the process runs, which holds a lock on it.  The lock of a process that was killed
is gone, so its file is known to be stale without a request to whoever has its port now.  Only
127.0.0.1 and ::1 are ever taken from such a file.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from es_imgsearch import __version__
from es_imgsearch.embed.runtime.service import ServiceConnection
from es_imgsearch.errors import ImgSearchError
from es_imgsearch.search.remote.service_search import ServiceSearch, open_service
from es_imgsearch.settings import without_password

if TYPE_CHECKING:
    from es_imgsearch.settings import Settings

# Half a second.
_LOCK_TRIES: Final = 10
_LOCK_PAUSE_SECONDS: Final = 0.05

logger = logging.getLogger(__name__)

# An address that listens on all is reached on this one.
_LOOPBACK: Final = {"127.0.0.1": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::1": "[::1]",  # noqa: S104
                    "::": "[::1]"}  # fmt: skip
_NEAR: Final = re.compile(r"http://(127\.0\.0\.1|\[::1\]):[0-9]{1,5}")
_MOST_BYTES: Final = 10_000
_ANSWERS_WITHIN_SECONDS: Final = 0.2


def runtime_folder() -> Path:
    """Return the folder of announcements, which need not exist."""
    given = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    if os.path.isdir(given) and os.access(given, os.W_OK):
        return Path(given, "es-imgsearch")
    import platformdirs

    return platformdirs.user_cache_path("es-imgsearch", appauthor=False)


@contextmanager
def announced(settings: Settings, address: str, port: int, *, needs_token: bool) -> Iterator[None]:
    """Announce a service for as long as the context lasts.

    One that this machine does not reach under 127.0.0.1 or ::1 is not announced, and neither is
    one where the folder cannot be written.
    """
    host = _LOOPBACK.get(address)
    if host is None:
        yield
        return
    path = runtime_folder() / f"serve-{port}.json"
    salt = secrets.token_hex(16)
    content = {
        "salt": salt,
        "access": _digest_of_access(settings, salt),
        "pid": os.getpid(),
        "url": f"http://{host}:{port}",
        "needs_token": needs_token,
        **_what_hits_depend_on(settings),
    }
    try:
        descriptor = _locked(path)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(content, indent=1).encode(), 0)
    except OSError as error:
        logger.debug("Searches of the command line do not find this service: %s", error)
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _locked(path: Path) -> int:
    """Open an own file and lock it.  Raises OSError, also if another process has it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor)
        os.fchmod(descriptor, 0o600)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _lock(descriptor: int) -> None:
    """Take the lock; a command that looks if somebody holds it has it for a moment."""
    for _ in range(_LOCK_TRIES - 1):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_LOCK_PAUSE_SECONDS)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def open_running(settings: Settings) -> ServiceSearch | None:
    """Open a running service of this machine; None if none answers at once."""
    url = find_running(settings)
    if url is None:
        return None
    try:
        # A process that is stopped, or too busy, is not waited for.
        with closing(ServiceConnection(url, timeout_seconds=_ANSWERS_WITHIN_SECONDS)) as probe:
            probe.get("/healthz")
    except ImgSearchError as error:
        logger.debug("%s", error)
        return None
    return open_service(url, settings)


def find_running(settings: Settings) -> str | None:
    """Return the address of a running service that finds the same hits, or None.

    One that needs a token is left out unless the settings have one.
    """
    wanted = _what_hits_depend_on(settings)
    with suppress(OSError):
        for path in sorted(runtime_folder().glob("serve-*.json")):
            found = _read(path)
            is_open = settings.service_token is not None or not found.get("needs_token", True)
            url = found.get("url")
            is_near = isinstance(url, str) and _NEAR.fullmatch(url)
            access = _digest_of_access(settings, str(found.get("salt")))
            is_same = found.get("access") == access
            if (
                is_near
                and is_open
                and is_same
                and all(found.get(name) == wanted[name] for name in wanted)
            ):
                return str(url)
    return None


def _read(path: Path) -> Mapping[str, Any]:
    """Read the file of a running process of this user; {} for any other."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return {}
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        is_own = status.st_uid == os.geteuid() and not status.st_mode & 0o077
        if not is_own or not stat.S_ISREG(status.st_mode):
            return {}
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            # Nobody holds it: its process ended without removing it.
            return {}
        try:
            found = json.loads(file.read(_MOST_BYTES))
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


def _what_hits_depend_on(settings: Settings) -> dict[str, Any]:
    """Return what has to be equal here and there for hits to be the same."""
    return {
        "version": __version__,
        "index": settings.index,
        "es_url": without_password(settings.es_url) if "@" in settings.es_url else settings.es_url,
        "host": settings.host,
        "encoder": settings.encoder,
        "originals": None if settings.originals is None else os.fspath(settings.originals),
        "log_searches": settings.log_searches,
    }


def _digest_of_access(settings: Settings, salt: str) -> str:
    """Return a hash of the key and the address: others may see other pictures."""
    key = settings.es_api_key and settings.es_api_key.get_secret_value()
    access = json.dumps([salt, settings.es_url, key])
    return hashlib.sha256(access.encode("utf-8", "surrogatepass")).hexdigest()
