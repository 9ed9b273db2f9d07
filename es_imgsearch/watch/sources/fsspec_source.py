"""The source of any URL that fsspec opens: gs, az, http, sftp and others."""

from __future__ import annotations

import errno
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import IO, Any, Final, TypeVar

from es_imgsearch.errors import LibraryMissing, RootError
from es_imgsearch.records import FileState, stored_path
from es_imgsearch.watch.sources.protocol import OpenedFile, SourceFile, change_ns, status_of

T = TypeVar("T")

# A process holds a file up to this size in memory, a larger one on the disk, as it reads both.
MEMORY_BYTES: Final = 64 * 2**20
_CHUNK_BYTES: Final = 4 * 2**20

# What file systems of fsspec call the tag of a version, and the time of its modification.
_TAGS: Final = ("ETag", "etag", "md5Hash", "content_md5", "content-md5", "md5", "crc32c", "sha")
_TIMES: Final = (
    "LastModified", "last_modified", "Last-Modified", "mtime", "updated", "modified", "modify",
    "created",
)  # fmt: skip


# In an address: user:password@, and all from the question mark on.
_USER: Final = re.compile(r"//[^/\s\"']*@")
_QUERY: Final = re.compile(r"(\w://[^\s\"'?]*)\?[^\s\"']*")


class SourceError(OSError):
    """A source that did not answer as it should; the message names no secret."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.EIO, message)

    def __str__(self) -> str:
        return str(self.strerror)


class FsspecSource:
    """The files below a URL.

    Listings and file systems are not cached: a daemon would see neither new nor removed files.
    """

    def __init__(self, url: str) -> None:
        """Raises RootError for an unknown protocol, LibraryMissing for a missing package."""
        self.url = url.rstrip("/") if url.partition("://")[2].strip("/") else url
        self.path = str(file_system_class(self.url)._strip_protocol(self.url))
        self._shared: Any = None
        self._own = threading.local()

    @property
    def fs(self) -> Any:
        """The file system; one that is a connection, as of FTP, is made for each thread."""
        made = self._shared or getattr(self._own, "fs", None)
        if made is None:
            made = answered(lambda: file_system(self.url)[0])
            if made.async_impl:
                self._shared = made
            else:
                self._own.fs = made
        return made

    def _ask(self, call: Callable[[], T]) -> T:
        """Call the file system; the next call connects anew if this one fails."""
        try:
            return answered(call)
        except FileNotFoundError:
            raise
        except OSError:
            self._own.fs = None
            raise

    def files(self, folder: str = "") -> Iterator[SourceFile]:
        # A stack of iterators, one a level: memory is the names of one folder for each.
        stack = [iter(self._listed(folder))]
        while stack:
            entry = next(stack[-1], None)
            if entry is None:
                stack.pop()
                continue
            sort_key, key, info = entry
            if sort_key.endswith("/"):
                try:
                    stack.append(iter(self._listed(key)))
                except FileNotFoundError:
                    continue  # gone since it was listed
            else:
                if info.get("size") is None:  # of a page of links
                    info = self._info(key)
                yield SourceFile(key, state_of(info))

    def _listed(self, folder: str) -> list[tuple[str, str, Mapping[str, Any]]]:
        """List (sort key, key, info) of a folder, sorted; `/` ends that of a folder."""
        path = self._path(folder)
        infos = self._ask(lambda: self.fs.ls(path, detail=True, refresh=True))
        found = []
        for info in infos:
            name = str(info["name"]).rstrip("/").rpartition("/")[2]
            if str(info["name"]).strip("/") == path.strip("/"):
                continue  # the folder's own marker, or a file in its place
            is_folder = info.get("type") == "directory"
            key = f"{folder}/{name}" if folder else name
            found.append((f"{stored_path(name)}{'/' * is_folder}", key, info))
        return sorted(found, key=lambda entry: entry[0])

    def _info(self, key: str) -> Mapping[str, Any]:
        info: Mapping[str, Any] = self._ask(lambda: self.fs.info(self._path(key)))
        return info

    def status(self, key: str) -> os.stat_result:
        info = self._info(key)
        if info.get("type") == "directory":
            raise FileNotFoundError(errno.ENOENT, "it is a folder")
        return status_of(state_of(info))

    @contextmanager
    def open(self, key: str, *, only_bytes: int = 0) -> Iterator[OpenedFile]:
        status = self.status(key)
        with tempfile.SpooledTemporaryFile(MEMORY_BYTES) as content:
            self._ask(lambda: self._fetch(key, only_bytes or status.st_size, content))
            content.seek(0)
            yield OpenedFile(content, status)

    def _fetch(self, key: str, most_bytes: int, content: IO[bytes]) -> None:
        with self.fs.open(self._path(key), "rb", cache_type="readahead") as file:
            while most_bytes > 0 and (part := file.read(min(_CHUNK_BYTES, most_bytes))):
                content.write(part)
                most_bytes -= len(part)

    def check(self) -> int:
        self._listed("")
        return 0

    def _path(self, key: str) -> str:
        return f"{self.path.rstrip('/')}/{key}" if key else self.path


def file_system_class(url: str) -> Any:
    """Return fsspec's class for a URL; makes no request.

    Raises RootError or LibraryMissing.
    """
    protocol = url.partition("://")[0]
    try:
        from fsspec.registry import get_filesystem_class, known_implementations
    except ImportError as error:
        raise LibraryMissing(
            f"{protocol}:// needs fsspec: pip install 'es-imgsearch[s3]'."
        ) from error
    try:
        return get_filesystem_class(protocol)
    except ImportError as error:
        advice = known_implementations.get(protocol, {}).get("err", str(error)).rstrip(".")
        if protocol in {"s3", "s3a"}:
            advice = "pip install 'es-imgsearch[s3]'"
        raise LibraryMissing(f"{protocol}:// needs another package: {advice}.") from error
    except ValueError as error:
        raise RootError(f"fsspec opens no URL of the protocol {protocol!r}: {error}.") from error


def file_system(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path in it.

    Some connect.  Raises RootError or LibraryMissing, and what connecting raises.
    """
    file_system_class(url)
    from fsspec.core import url_to_fs

    fs, path = url_to_fs(url, use_listings_cache=False, skip_instance_cache=True)
    return fs, str(path)


def answered(call: Callable[[], T]) -> T:
    """Call a file system; what it raises becomes an OSError that names no secret."""
    try:
        return call()
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(errno.ENOENT, "there is no such file, folder or bucket") from None
    except PermissionError:
        raise PermissionError(errno.EACCES, "the credentials do not permit it") from None
    except OSError as error:
        raise SourceError(_without_secrets(error.strerror or _words_of(error))) from None
    except Exception as error:  # noqa: BLE001 - libraries of protocols raise errors of their own
        raise SourceError(_without_secrets(_words_of(error))) from None


def _words_of(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _without_secrets(words: str) -> str:
    """Leave out passwords and signatures of addresses that libraries name."""
    return _QUERY.sub(r"\1", _USER.sub("//", words)).split("\n")[0][:300].rstrip(".")


def state_of(info: Mapping[str, Any]) -> FileState:
    """Return size and modification time of a file, with its tag in the nanoseconds."""
    tag = next((str(info[name]).strip('"') for name in _TAGS if info.get(name)), "")
    seconds = next((_seconds(info[name]) for name in _TIMES if info.get(name)), 0.0)
    if not tag and seconds % 1:
        tag = repr(seconds)
    return FileState(int(info.get("size") or 0), change_ns(seconds, tag))


def _of_ftp(time: str) -> datetime:
    """Parse a time of FTP (RFC 3659), in UTC.  Raises ValueError."""
    whole, _, fraction = time.partition(".")
    moment = datetime.strptime(whole, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    return moment + timedelta(seconds=float(f"0.{fraction or 0}"))


def _seconds(time: object) -> float:
    if isinstance(time, datetime):
        return time.timestamp()
    if isinstance(time, int | float):
        return float(time)
    for parse in (_of_ftp, datetime.fromisoformat, parsedate_to_datetime):
        with suppress(ValueError):
            return parse(str(time)).timestamp()
    return 0.0
