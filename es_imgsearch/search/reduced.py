"""Search an index of profile `reduced` by bytes; rerank by whole vectors.

    whole query ──reduce──▶ bytes ──Elasticsearch──▶ candidates ──originals──▶ hits

The scores of bytes are estimates of the cosine.  A candidate whose original (its whole vector) is
available gets the exact cosine; the others keep their estimates, and all are ordered by score.
The estimates are .02 too high on average (see `Reduction.estimate_cosines`), so a picture without
an original may rank a little too high among pictures that are nearly as good.

Originals are read from an HDF5 file, float16 or float32, as `es-imgsearch export` writes it.  Its
vectors are not compressed, so they are mapped into memory, and a search reads only the rows of its
candidates: 50 rows of 512 dims take 0.6 ms once the file is in the page cache; opening a file of
200,000 rows takes 0.5 s.  Rows are found by `content_id`: a picture that was moved keeps its
original, one whose content changed has none.  Rows without it (vectors made elsewhere) are found
by `image_id`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.meta import Meta, Seal
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.reduction import Reduction
from es_imgsearch.errors import FileInvalid, UsageError
from es_imgsearch.files.columns import Origin
from es_imgsearch.files.formats import FileReader, open_reader
from es_imgsearch.files.hdf5 import vector_row_reader
from es_imgsearch.records import disk_path, image_id, stored_path, unit
from es_imgsearch.settings import Settings

Vector: TypeAlias = npt.NDArray[np.float32]
Raw: TypeAlias = Mapping[str, Any]
# Keys -> unit vectors by the position of their key; keys without an original are left out.
OriginalsLookup: TypeAlias = Callable[[Sequence[str]], Mapping[int, Vector]]


class Reranking(NamedTuple):
    """How the hits of one search by bytes are rescored.

    `depth` returns the number of candidates for a number of hits; `rerank` rescores candidates
    and returns them best first.
    """

    depth: Callable[[int], int]
    rerank: Callable[[Sequence[Raw]], list[Raw]]


@dataclass(frozen=True, slots=True)
class ReducedVectors:
    """The reduction of one index and, if this host has them, its originals.

    Without `originals`, candidates keep the scores of their bytes.
    """

    reduction: Reduction
    oversample: float
    originals: OriginalsLookup | None = None

    def reduce_query(self, vector: Vector) -> Vector:
        """Reduce a whole vector as the index stores it: integers, shape (dims_kept,)."""
        reduced: Vector = self.reduction.reduce(vector[None])[0].astype(np.float32)
        return reduced

    def restore(self, stored: Vector, key: str) -> tuple[Vector, bool]:
        """Return a stored picture's unit vector; False if expanded, not looked up."""
        if self.originals is not None and (originals := self.originals([key])):
            return originals[0], True
        return self.reduction.expand(stored[None])[0], False

    def reranking(self, query: Vector, *, is_whole: bool) -> Reranking:
        """Build the reranking of a search; without originals if the query is not whole.

        An expanded vector lacks just the dims in which originals differ: reranking by originals
        found .64 of the true first ten, the bytes alone .81.
        """
        compare = is_whole and self.originals is not None
        factor = self.oversample if compare else 1.0
        return Reranking(
            depth=lambda count: math.ceil(count * factor),
            rerank=partial(self.rerank, query=query, compare=compare),
        )

    def rerank(self, hits: Sequence[Raw], query: Vector, *, compare: bool) -> list[Raw]:
        """Rescore hits, best first; `query` is a whole unit vector.

        With `compare`, by their originals; otherwise scores become estimates and the order stays.
        """
        if not hits:
            return []
        byte_cosines = 2.0 * np.array([hit["_score"] for hit in hits]) - 1.0
        cosines = self.reduction.estimate_cosines(byte_cosines, query)
        if compare and self.originals is not None:
            keys = [original_key(hit["_id"], hit.get("_source", {})) for hit in hits]
            for position, vector in self.originals(keys).items():
                cosines[position] = np.clip(float(vector @ query), -1.0, 1.0)
        order = np.argsort(-cosines, kind="stable")
        return [{**hits[n], "_score": (1.0 + float(cosines[n])) / 2.0} for n in order]


def original_key(image_id: str, fields: Mapping[str, Any]) -> str:
    """Return the key of a picture's original: its content, which a path may change."""
    return str(fields.get("content_id") or image_id)


# Originals: whole vectors in a file.

_HDF5 = {".h5", ".hdf5"}
_BATCH = 20_000
_KEY_COLUMNS = ("content_id", "image_id", "root", "relative_path")


class Originals:
    """Look up rows of one file by key; safe to share between threads.

    Opening raises UsageError for a file that is not HDF5 or has other vectors, FileInvalid,
    LibraryMissing, EncoderMismatch.
    """

    def __init__(self, path: Path, seal: Seal, index: str) -> None:
        if path.suffix.lower() not in _HDF5:
            raise UsageError(
                f"{str(path)!r} cannot hold originals, since its rows cannot be read one by one:"
                " write an .h5 file with `es-imgsearch export FILE.h5`."
            )
        reader = open_reader(path)
        try:
            if reader.origin is not None:
                seal.check(reader.origin.seal, index)
            dims = reader.dims.get(VECTOR_FIELD)
            if dims != seal.dims:
                content = "no whole vectors" if dims is None else f"vectors of {dims} dims"
                raise UsageError(
                    f"{str(path)!r} has {content}; originals of index {index!r} have {seal.dims}"
                    " dims."
                )
            keys = _keys(reader)
        finally:
            reader.close()
        self.path = path
        self._rows = vector_row_reader(path, VECTOR_FIELD)
        # Sorted fixed-width bytes take 40 bytes a picture, a dictionary 150.
        order = np.argsort(keys, kind="stable")
        self._keys, self._row_of = keys[order], order.astype(np.int64)

    def __len__(self) -> int:
        return int((self._keys != b"").sum())

    def __call__(self, keys: Sequence[str]) -> Mapping[int, Vector]:
        """Return unit vectors of shape (dims,) by the position of their key in `keys`."""
        if not keys or not len(self._keys):
            return {}
        encoded = np.array([key.encode() for key in keys], dtype=np.bytes_)
        at = np.searchsorted(self._keys, encoded)
        at[at == len(self._keys)] = 0
        positions = np.flatnonzero((self._keys[at] == encoded) & (encoded != b""))
        if not len(positions):
            return {}
        rows = self._rows(self._row_of[at[positions]])
        lengths = np.linalg.norm(rows, axis=1)
        usable = np.isfinite(lengths) & (lengths > 0)
        return dict(zip(positions[usable].tolist(), unit(rows[usable]), strict=True))


def open_originals(meta: Meta, settings: Settings, index: str) -> OriginalsLookup | None:
    """Open the originals of an index: the settings' file, else the one in `_meta`.

    None for an index of whole vectors, and if the noted file is on another host or missing: scores
    are approximate then.  Raises UsageError if the file of the settings is missing.
    """
    if meta.reduction is None:
        return None
    if settings.originals is not None:
        if not settings.originals.is_file():
            raise UsageError(f"There is no file {str(settings.originals)!r} with originals.")
        return _open_lazily(settings.originals, meta.seal, index)
    entry = meta.reduction.originals
    if entry is None or entry.get("host") != settings.host:
        return None
    path = Path(disk_path(entry["path"]))
    return _open_lazily(path, meta.seal, index) if path.is_file() else None


def _open_lazily(path: Path, seal: Seal, index: str) -> OriginalsLookup:
    """Return a lookup that opens the file with the first search that needs it."""
    originals = lru_cache(maxsize=1)(partial(Originals, path, seal, index))
    return lambda keys: originals()(keys)


def register_originals(store: Store, settings: Settings, path: Path) -> None:
    """Check a file of originals and note its path in `_meta` of the reduced index.

    Raises UsageError for an index of whole vectors, and the errors of `Originals`.
    """
    meta = store.info().meta
    if meta.reduction is None:
        raise UsageError(
            f"Index {store.index!r} has profile {meta.profile}, which stores whole vectors:"
            " leave --originals out."
        )
    Originals(path, meta.seal, store.index)
    stored = stored_path(str(path.absolute()))

    def add_originals(meta: Meta) -> Meta:
        if meta.reduction is None:
            return meta
        return replace(meta, reduction=meta.reduction.with_originals(stored, settings.host))

    store.generations.update_meta(add_originals)


def register_imported_originals(store: Store, settings: Settings, path: Path) -> str | None:
    """Register an imported file as originals if an index lacks them; return a remark.

    None for an index of whole vectors, or one that has originals already.
    """
    reduction = store.info().meta.reduction
    if reduction is None or reduction.originals is not None:
        return None
    try:
        register_originals(store, settings, path)
    except UsageError as error:
        return (
            f"The scores of hits are estimates, since the file cannot serve as originals. {error}"
        )
    return f"Keep {path}: its vectors put the hits of {store.index!r} in order."


def _keys(reader: FileReader) -> npt.NDArray[np.bytes_]:
    """Build a key for every row; empty for a row without one."""
    origin: Origin | None = reader.origin
    names = [each for each in _KEY_COLUMNS if each in reader.names]
    if not {"content_id", "image_id", "relative_path"} & set(names):
        raise FileInvalid(
            "The file of originals has neither content_id nor image_id nor relative_path, so its"
            " rows cannot be assigned to pictures: export it with one of these columns."
        )
    keys: list[bytes] = []
    for batch in reader.batches(names, _BATCH):
        none = [None] * len(batch[names[0]])
        columns = [batch.get(name, none) for name in _KEY_COLUMNS]
        rows = zip(*columns, strict=True)
        keys += [_key(row, paths_are_stored=origin is not None) for row in rows]
    return np.array(keys, dtype=np.bytes_)


def _key(row: Sequence[Any], *, paths_are_stored: bool) -> bytes:
    content, image, root, path = row
    if content or image:
        return str(content or image).encode()
    if not root or not path:
        return b""
    stored = path if paths_are_stored else stored_path(path)
    return image_id(root, disk_path(stored)).encode()
