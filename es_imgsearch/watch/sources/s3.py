"""The source of S3 and of what speaks its protocol, by s3fs.

Credentials and the endpoint are those of the environment or of fsspec's configuration; none are
stored.  Listings are those of the server, sorted by the UTF-8 bytes of the keys, 1,000 a request;
ranges of keys are listed at once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import IO, Any, Final

from es_imgsearch.errors import RootError
from es_imgsearch.records import FileState
from es_imgsearch.watch.sources.fsspec_source import (
    MEMORY_BYTES,
    FsspecSource,
    SourceError,
    answered,
    state_of,
)
from es_imgsearch.watch.sources.protocol import OpenedFile, SourceFile, status_of
from es_imgsearch.watch.sources.ranges import AHEAD_FILES, in_order

# The most that S3 gives for a request.
PAGE_KEYS: Final = 1000
# How a first listing is divided: prefixes looked into, ranges, letters looked at.
_MOST_LEVELS: Final = 8
_MOST_RANGES: Final = 64
_MOST_LETTERS: Final = 16


class S3Source(FsspecSource):
    """The objects below a prefix of a bucket."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._bucket, _, self._prefix = self.path.partition("/")
        if not self._bucket:
            raise RootError(f"{url!r} names no bucket: write s3://BUCKET/PREFIX.")
        self._start = f"{self._prefix}/" if self._prefix else ""
        self.page_keys = PAGE_KEYS
        self.range_files = AHEAD_FILES
        # By prefix, keys that divide the last whole listing into parts of equal size.
        self._bounds: dict[str, list[str]] = {}

    def files(self, folder: str = "") -> Iterator[SourceFile]:
        start = "/".join(filter(None, (self._prefix, folder)))
        prefix = f"{start}/" if start else ""
        bounds: list[str] = []
        for number, each in enumerate(self._split_listing(prefix), 1):
            if number % self.range_files == 0:
                bounds.append(f"{self._start}{each.key}")
            yield each
        self._bounds[prefix] = bounds

    def _split_listing(self, prefix: str) -> Iterator[SourceFile]:
        """List ranges of keys at once: as the last listing divided them, or by prefixes."""
        after, bounds = "", self._bounds.get(prefix)
        if not bounds:
            page = self._page(Prefix=prefix)
            yield from self._files_of(page)
            if not page.get("IsTruncated"):
                return
            after = str(page["Contents"][-1]["Key"])
            bounds = self._divided(prefix, after)
        ranges = pairwise([after, *bounds, ""])
        yield from in_order(partial(self.between, prefix, *each) for each in ranges)

    def between(self, prefix: str, after: str = "", until: str = "") -> Iterator[SourceFile]:
        """Yield the objects of a prefix, after one key and up to another."""
        token: dict[str, str] = {"StartAfter": after} if after else {}
        while True:
            page = self._page(Prefix=prefix, **token)
            keys = page.get("Contents", ())
            if until and keys and str(keys[-1]["Key"]) > until:
                yield from self._files_of(page, until)
                return
            yield from self._files_of(page)
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _files_of(self, page: Mapping[str, Any], until: str = "") -> Iterator[SourceFile]:
        for each in page.get("Contents", ()):
            key = str(each["Key"])
            if until and key > until:
                return
            if not key.endswith("/"):  # what consoles make for an empty folder
                state = state_of({**each, "size": each["Size"]})
                yield SourceFile(key[len(self._start) :], state)

    def _divided(self, prefix: str, after: str) -> list[str]:
        """Divide the keys after one: by prefixes that differ, or by their letters."""
        for _ in range(_MOST_LEVELS):
            page = self._page(Prefix=prefix, Delimiter="/", StartAfter=after)
            below = [str(each["Prefix"]) for each in page.get("CommonPrefixes", ())]
            below = [each for each in below if each > after]
            if len(below) > 1:
                return below[:: -(-len(below) // _MOST_RANGES)]
            if page.get("Contents") or not below:
                break
            prefix = below[0]
        for _ in range(_MOST_LETTERS):
            letters = self._next_letters(prefix, after)
            if len(letters) != 1:
                return [prefix + each for each in letters[1:]]
            prefix += letters[0]
        return []

    def _next_letters(self, prefix: str, after: str) -> list[str]:
        """Find the letters that follow a prefix in the keys after one, a request each."""
        letters: list[str] = []
        while len(letters) < _MOST_RANGES:
            page = self._page(Prefix=prefix, StartAfter=after, MaxKeys=1)
            if not (keys := page.get("Contents")):
                break
            if letter := str(keys[0]["Key"])[len(prefix) :][:1]:
                letters.append(letter)
            after = f"{prefix}{letter}\U0010ffff" if letter else prefix
        return letters

    def _page(self, **arguments: Any) -> dict[str, Any]:
        wanted = {"MaxKeys": self.page_keys, **arguments}
        page: dict[str, Any] = answered(
            lambda: self._call("list_objects_v2", Bucket=self._bucket, **wanted)
        )
        return page

    def check(self) -> int:
        self._page(Prefix=self._start, MaxKeys=1)
        return 0

    @contextmanager
    def open(self, key: str, *, only_bytes: int = 0) -> Iterator[OpenedFile]:
        # One request gives bytes and state, so that both are of the same version.
        from fsspec.asyn import sync

        with tempfile.SpooledTemporaryFile(MEMORY_BYTES) as content:
            state = answered(lambda: sync(self.fs.loop, self._get, key, only_bytes, content))
            content.seek(0)
            yield OpenedFile(content, status_of(state))

    async def _get(self, key: str, only_bytes: int, content: IO[bytes]) -> FileState:
        from s3fs.errors import translate_boto_error

        _, _, object_key = self._path(key).partition("/")
        first = {"Range": f"bytes=0-{only_bytes - 1}"} if only_bytes else {}
        try:
            answer = await self.fs._call_s3(
                "get_object", Bucket=self._bucket, Key=object_key, **first
            )
        except Exception as error:
            raise translate_boto_error(error) from error
        size = int(answer["ContentLength"])
        whole = str(answer.get("ContentRange", "")).rpartition("/")[2]
        received = 0
        async with answer["Body"] as body:
            while part := await body.read(2**20):
                content.write(part)
                received += len(part)
        if received != size:
            raise SourceError(f"{received} of {size} bytes arrived")
        return state_of({**answer, "size": int(whole) if whole.isdigit() else size})

    def _call(self, method: str, **arguments: Any) -> Any:
        from s3fs.errors import translate_boto_error

        try:
            return self.fs.call_s3(method, **arguments)
        except Exception as error:
            raise translate_boto_error(error) from error
