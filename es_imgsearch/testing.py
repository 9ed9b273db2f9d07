"""Support tests, also of plug-ins.

It has an encoder without a model and a store without a server.  `FakeEncoder` embeds colours, so
that search results can be computed by hand; `MemoryStore` stores documents in a dictionary and can
be made to fail.  The tests in `tests/contract` run on `MemoryStore` and on a real Elasticsearch;
`remove_index` deletes their indices there.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import ImageColor

from es_imgsearch.elastic.documents import VersionedSource, Write
from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.elastic.listings import IndexedFile
from es_imgsearch.elastic.mapping import VECTOR_FIELD, Companion, index_body
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.naming import failures_alias, first_generation
from es_imgsearch.elastic.requests import Request
from es_imgsearch.elastic.state import Document, Version, VersionedDocument
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.protocol import Pixels, Vectors
from es_imgsearch.errors import IndexMissing, StoreError, StoreRejected, TextUnsupported
from es_imgsearch.read.preparation import Preparation, fingerprint
from es_imgsearch.records import REGIONS_FIELD, Embedded, FileState, Partition, Region, unit

_GRID = 4


def remove_index(store: Store, *companions: str) -> None:
    """Delete an index, its templates and these companions; what is absent is no error."""
    client = store.connection.client.options(ignore_status=404)
    own = (store.index, failures_alias(store.index), Companion.STATE.alias(store.index))
    for alias in (*own, *companions):
        for generation in client.indices.get(index=f"{alias}-0*", filter_path="*.aliases"):
            client.indices.delete(index=generation)
        client.indices.delete_index_template(name=alias)


def _nothing(_pixels: Pixels) -> None:
    """Do nothing; unlike a lambda, it can be pickled with its encoder."""


class FakeEncoder:
    """An encoder of colours: of the 4 x 4 grid of a picture, or named by a text.

    A picture becomes the mean colours of the grid, a text the colour of that name.  `batches` lists
    how many pictures each call embedded; `before_batch` is called with the pixels first and may
    raise.
    """

    name = "fake"
    dims = _GRID * _GRID * 3
    similarity = "cosine"

    def __init__(self, *, revision: str = "1", supports_text: bool = True) -> None:
        self.revision = revision
        self.supports_text = supports_text
        self.preparation = Preparation(width=32, height=32, mode="squash")
        self.batches: list[int] = []
        self.before_batch: Callable[[Pixels], None] = _nothing

    @property
    def fingerprint(self) -> str:
        return fingerprint({"preparation": self.preparation, "grid": _GRID})

    @property
    def pictures_embedded(self) -> int:
        return sum(self.batches)

    def embed_images(self, pictures: Pixels) -> Vectors:
        self.before_batch(pictures)
        self.batches.append(len(pictures))
        return self._vectors(pictures)

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Embed pictures of one named colour each; an unknown name is grey."""
        if not self.supports_text:
            raise TextUnsupported(f"Encoder {self.name!r} knows pictures only.")
        pictures = np.zeros((len(texts), 32, 32, 3), np.uint8)
        for picture, text in zip(pictures, texts, strict=True):
            try:
                picture[:] = ImageColor.getrgb(text)[:3]
            except ValueError:
                picture[:] = 128
        return self._vectors(pictures)

    def _vectors(self, pictures: Pixels) -> Vectors:
        count, height, width, _ = pictures.shape
        if not count:
            return np.zeros((0, self.dims), np.float32)
        cells = pictures.reshape(count, _GRID, height // _GRID, _GRID, width // _GRID, 3)
        # Mid-grey at the origin would have no direction, so it is moved a little.
        vectors = (cells.mean(axis=(2, 4)) - 126.7).reshape(count, self.dims)
        return unit(vectors)


class MemoryState:
    """The state documents of a `MemoryStore`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._documents: dict[str, VersionedDocument] = {}

    def read(self, name: str) -> VersionedDocument | None:
        return self._documents.get(name)

    def version(self, name: str) -> Version | None:
        return read.version if (read := self._documents.get(name)) else None

    def update(
        self, name: str, change: Callable[[Document | None], Document | None]
    ) -> Document | None:
        with self._lock:
            before = read.document if (read := self._documents.get(name)) else None
            if (after := change(before)) is not None:
                self._documents[name] = VersionedDocument(after, {"if_seq_no": repr(after)})
            return after or before


class MemoryStore:
    """The write side of a `Store`, in memory; one object is all of its parts.

    Listings and look-ups see writes only after `refresh`, as on the server.
    `fail_next` holds errors that the next requests raise; `reject` may give a reason to refuse one.
    """

    def __init__(self, index: str = "images") -> None:
        self.index = index
        self.generation = None
        self.connection = self.documents = self.listings = self.generations = self
        self.state = MemoryState()
        self.fail_next: list[StoreError] = []
        self.reject: Callable[[Mapping[str, Any]], str | None] = lambda _document: None
        self.bulks: list[list[Write]] = []
        self._meta: Meta | None = None
        self._properties: Mapping[str, Any] = {}
        self._lock = threading.RLock()
        self._documents: dict[str, dict[str, Any]] = {}
        self._failures: dict[str, dict[str, Any]] = {}
        self._seen: tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]] = ({}, {})

    def create(self, meta: Meta, described: Iterable[Mapping[str, Any]] = ()) -> None:
        if self._meta is None:
            self._meta = meta
            self._properties = index_body(meta, described)["mappings"]["properties"]

    def info(self) -> IndexInfo:
        self._request()
        if self._meta is None:
            raise IndexMissing(f"There is no index {self.index!r}.")
        return IndexInfo(first_generation(self.index), self._meta, self._properties)

    def update_meta(self, change: Callable[[Meta], Meta]) -> Meta:
        with self._lock:
            self._meta = change(self.info().meta)
            return self._meta

    def send(self, request: Request) -> Any:
        """Refuse requests of plug-ins: there is no server that could answer."""
        raise StoreRejected(f"{request.method} {request.path} needs a real Elasticsearch.")

    def refresh(self) -> None:
        self._request()
        with self._lock:
            self._seen = (dict(self._documents), dict(self._failures))

    def write(self, writes: Sequence[Write], *, refresh: bool = False) -> dict[str, Any]:
        self._request()
        with self._lock:
            self.bulks.append(list(writes))
            outcome = {write.image_id: self._write(write) for write in writes}
            if refresh:
                self._seen = (dict(self._documents), dict(self._failures))
            return outcome

    def _write(self, write: Write) -> StoreError | None:
        image_id = write.image_id
        if write.document is not None:
            if (reason := self.reject(write.document)) is not None:
                return StoreRejected(reason)
            self._documents[image_id] = dict(write.document)
            self._failures.pop(image_id, None)
        elif write.failure is not None:
            attempts = self._failures.get(image_id, {}).get("attempts", 0) + 1
            self._failures[image_id] = {**write.failure, "attempts": attempts}
            self._documents.pop(image_id, None)
        else:
            self._documents.pop(image_id, None)
            self._failures.pop(image_id, None)
        return None

    def is_writable(self, _image_id: str) -> bool:
        return not self.fail_next

    def write_each(self, writes: Sequence[Write]) -> list[StoreError | None]:
        results = self.write(writes)
        return [results[each.image_id] for each in writes]

    def delete(
        self,
        image_ids: Iterable[str],
        deleted: Callable[[Sequence[str]], None] = lambda _ids: None,
    ) -> None:
        ids = list(image_ids)
        results = self.write([Write(each) for each in ids])
        deleted([each for each in ids if results[each] is None])
        for error in results.values():
            if error is not None:
                raise error

    def states(self, image_ids: Sequence[str]) -> dict[str, FileState]:
        found = self.stored_fields(image_ids, FileState._fields)
        return {each: FileState.stored(fields) for each, fields in found.items()}

    def attempts(self, image_ids: Sequence[str]) -> dict[str, int]:
        self._request()
        with self._lock:
            known = self._failures
            return {each: known[each]["attempts"] for each in image_ids if each in known}

    def embedded_by_content(
        self,
        content_ids: Sequence[str],
        fields: Sequence[str] = (),
        *,
        with_regions: bool = False,
    ) -> dict[str, Embedded]:
        self._request()
        wanted = set(content_ids)
        return {
            document["content_id"]: Embedded(
                document[VECTOR_FIELD],
                {name: value for name, value in document.items() if name in fields},
                [
                    Region(tuple(each["box"]), each["embedding"])
                    for each in (document.get(REGIONS_FIELD, ()) if with_regions else ())
                ],
            )
            for document in self._seen[0].values()
            if document["content_id"] in wanted
        }

    def content_ids(self, image_ids: Sequence[str]) -> dict[str, str]:
        found = self.stored_fields(image_ids, ["content_id"])
        return {each: fields["content_id"] for each, fields in found.items()}

    def stored_fields(
        self, image_ids: Sequence[str], fields: Sequence[str]
    ) -> dict[str, Mapping[str, Any]]:
        self._request()
        with self._lock:
            known = self._documents
            return {
                each: {name: known[each][name] for name in fields if name in known[each]}
                for each in image_ids
                if each in known
            }

    def sources(self, image_ids: Sequence[str]) -> dict[str, VersionedSource]:
        self._request()
        with self._lock:
            known = self._documents
            return {
                each: VersionedSource(self.get(each), None) for each in image_ids if each in known
            }

    def sources_by_content(self, content_ids: Sequence[str]) -> Sequence[Mapping[str, Any]]:
        ids = [image_id for _, image_id in self.ids_by_content(content_ids)]
        return [each.source for each in self.sources(ids).values()]

    def having(
        self, root_name: str, field: str, *, prefix: str = "", folder: str = ""
    ) -> Iterator[str]:
        self._request()
        for document in self._of_root(self._seen[0], root_name, folder, None):
            value = document.get(field, [])
            values = value if isinstance(value, list) else [value]
            if any(str(each).startswith(prefix) for each in values):
                yield document["relative_path"]

    def ids_by_content(self, content_ids: Sequence[str]) -> Iterator[tuple[str, str]]:
        self._request()
        wanted = set(content_ids)
        for image_id, document in self._seen[0].items():
            if document["content_id"] in wanted:
                yield document["content_id"], image_id

    def count(
        self, name: str | None = None, within: Partition | None = None, *, failures: bool = False
    ) -> int:
        self._request()
        return len(self._of_root(self._seen[failures], name, "", within))

    def counts_by_root(self, *, failures: bool = False) -> dict[str, int]:
        self._request()
        return dict(Counter(each["root"] for each in self._seen[failures].values()))

    def stored(
        self,
        name: str,
        folder: str = "",
        within: Partition | None = None,
        *,
        failures: bool = False,
    ) -> Iterator[IndexedFile]:
        self._request()
        for each in self._of_root(self._seen[failures], name, folder, within):
            yield IndexedFile(each["relative_path"], FileState.stored(each), each.get("ctime_ns"))

    def failed(
        self, name: str, folder: str = "", within: Partition | None = None
    ) -> Iterator[Mapping[str, Any]]:
        self._request()
        yield from self._of_root(self._seen[True], name, folder, within)

    def _of_root(
        self, documents: Mapping[str, Any], name: str | None, folder: str, within: Partition | None
    ) -> list[Mapping[str, Any]]:
        found = [
            each
            for image_id, each in documents.items()
            if name in {None, each["root"]}
            and (not folder or each["relative_path"].startswith(f"{folder}/"))
            and (within is None or within.holds(image_id))
        ]
        return sorted(found, key=lambda each: str(each["relative_path"]))

    def get(self, image_id: str) -> Mapping[str, Any]:
        """Return the stored fields without the vectors, as the server does."""
        self._request()
        document = self._documents[image_id]
        left_out = {VECTOR_FIELD, "colour_embedding"}
        source = {name: value for name, value in document.items() if name not in left_out}
        if REGIONS_FIELD in source:
            source[REGIONS_FIELD] = [{"box": each["box"]} for each in source[REGIONS_FIELD]]
        return source

    def failure(self, image_id: str) -> Mapping[str, Any]:
        return self._failures[image_id]

    def _request(self) -> None:
        if self.fail_next:
            raise self.fail_next.pop(0)
