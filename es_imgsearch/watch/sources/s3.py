"""The source of S3 and of what speaks its protocol, by s3fs.

Credentials and the endpoint are those of the environment or of fsspec's configuration; none are
stored.  Listings are those of the server, sorted by the UTF-8 bytes of the keys, 1,000 a request.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

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


class S3Source(FsspecSource):
    """The objects below a prefix of a bucket."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._bucket, _, self._prefix = self.path.partition("/")
        if not self._bucket:
            raise RootError(f"{url!r} names no bucket: write s3://BUCKET/PREFIX.")

    def files(self, folder: str = "") -> Iterator[SourceFile]:
        start = "/".join(filter(None, (self._prefix, folder)))
        yield from self.between(f"{start}/" if start else "")

    def between(self, prefix: str, after: str = "", until: str = "") -> Iterator[SourceFile]:
        """Yield the objects of a prefix, after one key and before another."""
        skipped = len(self._prefix) + 1 if self._prefix else 0
        token: dict[str, str] = {"StartAfter": after} if after else {}
        while True:
            page = self._page(Prefix=prefix, **token)
            for each in page.get("Contents", ()):
                key = str(each["Key"])
                if until and key >= until:
                    return
                if not key.endswith("/"):  # what consoles make for an empty folder
                    size = {"size": each["Size"]}
                    yield SourceFile(key[skipped:], state_of({**each, **size}))
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _page(self, **arguments: Any) -> dict[str, Any]:
        page: dict[str, Any] = answered(
            lambda: self._call("list_objects_v2", Bucket=self._bucket, **arguments)
        )
        return page

    def check(self) -> int:
        prefix = f"{self._prefix}/" if self._prefix else ""
        self._page(Prefix=prefix, MaxKeys=1)
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
