"""Copy the originals of indexed pictures to a URL or a folder, also from a URL.

    /srv/photos/2024/a.jpg  ◀─ export --originals ─▶  s3://bucket/backup/photos/2024/a.jpg

Each keeps its path below its root's name, and takes its sidecar files with it.  What is copied is
what the index holds: the hash of the bytes read equals `content_id`, so that a `sync` of the copy
takes the vectors from the index and embeds nothing.  Nothing that is there is overwritten; what is
there already is compared and left, so an export that was interrupted goes on where it was.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, Protocol

from es_imgsearch.describe.sidecars.names import TABLE, listed
from es_imgsearch.elastic.meta import Meta, is_open_on
from es_imgsearch.elastic.retry import Outage, persist
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import UsageError
from es_imgsearch.records import Root, disk_path, is_text, is_url, open_at_once
from es_imgsearch.watch.roots import registered_root
from es_imgsearch.watch.sources.fsspec_source import SourceError, answered, file_system
from es_imgsearch.watch.sources.opened import opened_at

# At once: a request waits some 0.1 s for its answer.
_THREADS: Final = 8
_PAGE_ROWS: Final = 1000
_CHUNK_BYTES: Final = 2**20
_FIELDS: Final = ("root", "relative_path", "content_id", "size_bytes")
# An ETag that is the MD5 of an object, unless it is encrypted with a key of the user's own.
_MD5: Final = re.compile(r'"?([0-9a-f]{32})"?')


class Digests(NamedTuple):
    """Hashes of a file: the one that is its `content_id`, and the one that S3 gives."""

    size_bytes: int
    content_id: str
    md5: str

    @classmethod
    def of(cls, file: IO[bytes]) -> Digests:
        blake, md5 = hashlib.blake2b(digest_size=16), hashlib.md5(usedforsecurity=False)
        size = 0
        file.seek(0)
        while part := file.read(_CHUNK_BYTES):
            blake.update(part)
            md5.update(part)
            size += len(part)
        return cls(size, blake.hexdigest(), md5.hexdigest())


class Place(Protocol):
    """Where copies are put; each method raises OSError."""

    def holds(self, key: str, wanted: Digests) -> bool | None:
        """Return whether a key has this content; None if there is nothing."""
        ...

    def put(self, file: str, key: str) -> None:
        """Put a file there.  Raises FileExistsError if there is one."""
        ...


class UrlPlace:
    """A prefix of a bucket, or a folder of any file system of fsspec."""

    def __init__(self, url: str) -> None:
        """Raises UsageError, LibraryMissing."""
        self._fs, self._path = file_system(url)

    def holds(self, key: str, wanted: Digests) -> bool | None:
        path = self._full(key)
        try:
            info = answered(lambda: self._fs.info(path, refresh=True))
        except FileNotFoundError:
            return None
        if info.get("size") not in {None, wanted.size_bytes}:
            return False
        tag = _MD5.fullmatch(str(info.get("ETag", "")))
        return (tag is not None and tag[1] == wanted.md5) or self._digests(path) == wanted

    def _digests(self, path: str) -> Digests:
        with answered(lambda: self._fs.open(path, "rb")) as file:
            return answered(lambda: Digests.of(file))

    def put(self, file: str, key: str) -> None:
        path = self._full(key)
        if not answered(lambda: self._create(file, path)):
            raise FileExistsError

    def _create(self, file: str, path: str) -> bool:
        """Return False if there is one: of S3 the server itself refuses to replace it."""
        try:
            self._fs.put_file(file, path, mode="create")
        except FileExistsError:
            return False
        return True

    def _full(self, key: str) -> str:
        if not is_text(key):
            raise SourceError("its name is not UTF-8, as the name of an object is")
        return f"{self._path.rstrip('/')}/{key}"


class FolderPlace:
    """A local folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def holds(self, key: str, wanted: Digests) -> bool | None:
        try:
            with os.fdopen(open_at_once(self._folder / key), "rb") as file:
                return Digests.of(file) == wanted
        except FileNotFoundError:
            return None

    def put(self, file: str, key: str) -> None:
        path = self._folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, unfinished = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        try:
            with open(file, "rb") as source, os.fdopen(descriptor, "wb") as copy:
                shutil.copyfileobj(source, copy, _CHUNK_BYTES)
            shutil.copystat(file, unfinished)
            # Unlike a rename, it replaces nothing.
            os.link(unfinished, path)
        finally:
            os.unlink(unfinished)


def place_of(destination: Path) -> Place:
    """Return where copies go.  Raises UsageError, LibraryMissing."""
    if not is_url(destination):
        if destination.exists() and not destination.is_dir():
            raise UsageError(f"{str(destination)!r} is a file: give a folder, or a URL.")
        return FolderPlace(destination)
    url = str(destination)
    protocol, _, rest = url.partition("://")
    if protocol.lower() in {"file", "local"}:
        raise UsageError(f"{url!r} is on this machine: give the folder's path, without {protocol}.")
    if "?" in rest or "#" in rest or re.match(r"[^/]*:[^/]*@", rest):
        raise UsageError(
            f"Originals are put at {protocol}://BUCKET/PREFIX, without '?', '#' and a password:"
            " credentials come from the environment."
        )
    return UrlPlace(url)


@dataclass
class CopyCounts:
    """What was done; `roots` are the names of which pictures are there now."""

    copied: int = 0
    copied_bytes: int = 0
    there_already: int = 0
    sidecars: int = 0
    problems: int = 0
    roots: set[str] = field(default_factory=set)


def export_originals(
    store: Store,
    place: Place,
    host: str,
    *,
    filters: Sequence[Mapping[str, Any]] = (),
    on_problem: Callable[[str], None],
    on_page: Callable[[int], None] = lambda _number: None,
) -> CopyCounts:
    """Copy the originals of the pictures that match filters; return what was done.

    What cannot be copied is reported by `on_problem`, one at a time, and the rest goes on; an
    outage of Elasticsearch is waited out.
    """
    store = store.pinned()
    copying = _Copying(place, store.info().meta, host, on_problem)
    never, outage, done = threading.Event(), Outage(), 0
    store.refresh()
    with ThreadPoolExecutor(_THREADS) as threads:
        for hits in store.listings.pages(
            filters, fields=_FIELDS, vectors=(), size=_PAGE_ROWS,
            retry=lambda search: persist(search, never, outage),
        ):  # fmt: skip
            list(threads.map(copying.copy, [hit["_source"] for hit in hits]))
            done += len(hits)
            on_page(done)
    return copying.counts


class _Copying:
    """Copies pictures, from several threads, and counts."""

    def __init__(
        self, place: Place, meta: Meta, host: str, on_problem: Callable[[str], None]
    ) -> None:
        self.counts = CopyCounts()
        self._place, self._meta, self._host = place, meta, host
        self._on_problem = on_problem
        self._lock = threading.Lock()
        # Of pictures that share them, sidecars are copied once.
        self._sidecars: set[str] = set()
        self._elsewhere: set[str] = set()

    def copy(self, document: Mapping[str, Any]) -> None:
        """Copy a picture and its sidecars."""
        name, path = document["root"], disk_path(document["relative_path"])
        entry, root = self._meta.roots.get(name), registered_root(name, self._meta)
        if entry is None or root is None or not is_open_on(entry, self._host):
            self._note_elsewhere(name, entry)
            return
        if not self._copy(root, path, document["content_id"]):
            return
        with self._lock:
            self.counts.roots.add(name)
        folder = os.path.dirname(path)
        for each in _sidecars(root, path):
            key = os.path.join(folder, each)
            with self._lock:
                is_new = f"{name}/{key}" not in self._sidecars
                self._sidecars.add(f"{name}/{key}")
            if is_new:
                self._copy(root, key, None)

    def _copy(self, root: Root, path: str, content_id: str | None) -> bool:
        """Copy a file, a picture if it has a `content_id`; True if it is there now."""
        source, key = root.absolute(path), f"{root.name}/{path}"
        try:
            with _on_disk(source) as (file, digests):
                if content_id not in {None, digests.content_id}:
                    self._problem(source, "it is not what the index holds: index it first")
                    return False
                held = self._place.holds(key, digests)
                if held is None:
                    held = self._put(file, key, digests)
                    self._count(digests.size_bytes, is_picture=content_id is not None)
                elif held and content_id is not None:
                    with self._lock:
                        self.counts.there_already += 1
        except FileExistsError:
            held = False
        except OSError as error:
            self._problem(source, error.strerror or str(error))
            return False
        if not held:
            self._problem(source, "another file has its name there, which stays as it is")
        return held

    def _put(self, file: str, key: str, digests: Digests) -> bool:
        self._place.put(file, key)
        if not self._place.holds(key, digests):
            raise SourceError("what arrived there is not what was sent: remove it, and try again")
        return True

    def _count(self, size_bytes: int, *, is_picture: bool) -> None:
        with self._lock:
            self.counts.copied += is_picture
            self.counts.sidecars += not is_picture
            self.counts.copied_bytes += size_bytes

    def _problem(self, source: str, reason: str) -> None:
        with self._lock:
            self.counts.problems += 1
            self._on_problem(f"{source}: {reason}.")

    def _note_elsewhere(self, name: str, entry: Mapping[str, Any] | None) -> None:
        with self._lock:
            self.counts.problems += 1
            if name in self._elsewhere:
                return
            self._elsewhere.add(name)
            where = f"{entry['path']} on host {entry['host']!r}" if entry else "no known folder"
            self._on_problem(f"{name}: its originals are at {where}: run this there.")


def _sidecars(root: Root, path: str) -> list[str]:
    """Name the sidecars of a picture, and the table of its folder."""
    if root.is_url:
        return []
    folder, name = os.path.split(root.absolute(path))
    found = [each.name for each in listed(folder)[0].sidecars_of(name)]
    return [*found, TABLE] if os.path.isfile(os.path.join(folder, TABLE)) else found


@contextmanager
def _on_disk(source: str) -> Iterator[tuple[str, Digests]]:
    """Yield the path of a file on this machine with its content, and its hashes."""
    if not is_url(source):
        with os.fdopen(open_at_once(source), "rb") as file:
            digests = Digests.of(file)
        yield source, digests
        return
    with opened_at(source) as (content, _), tempfile.NamedTemporaryFile() as copy:
        digests = Digests.of(content)
        content.seek(0)
        shutil.copyfileobj(content, copy, _CHUNK_BYTES)
        copy.flush()
        yield copy.name, digests
