"""Searching an index of the profile `reduced`: from whole vectors to its bytes, and back.

    whole query ──reduce──▶ bytes ──Elasticsearch──▶ candidates ──originals──▶ hits

The scores of bytes are estimates of the cosine.  Where a candidate's original is at hand, its
score is the exact cosine; the others keep their estimates, and all are ordered by them.  The
estimates are .02 too high on average (see `Reduction.estimated`), so a picture without an original
may stand some places too high among pictures nearly as good.
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


class Refinement(NamedTuple):
    """What is done to the answer of a search by bytes.

    `depth` says how many candidates so many hits are chosen from; `refine` gives candidates their
    better scores, best first.
    """

    depth: Callable[[int], int]
    refine: Callable[[Sequence[Raw]], list[Raw]]


@dataclass(frozen=True, slots=True)
class ReducedVectors:
    """What a client needs to search one reduced index.

    `originals` is None where this machine has none; then nothing is compared again.
    """

    reduction: Reduction
    oversample: float
    originals: Lookup | None = None

    def asked_for(self, vector: Vector) -> Vector:
        """A whole vector as the index stores it, of shape (dims_kept,), in whole numbers."""
        found: Vector = self.reduction.reduce(vector[None])[0].astype(np.float32)
        return found

    def whole(self, stored: Vector, key: str) -> tuple[Vector, bool]:
        """The unit vector of a stored picture; False where it was expanded, not looked up."""
        if self.originals is not None and (found := self.originals([key])):
            return found[0], True
        return self.reduction.expand(stored[None])[0], False

    def refinement(self, query: Vector, *, is_whole: bool) -> Refinement:
        """For the search with this whole unit vector; an expanded one is compared with nothing.

        What an expanded vector lacks are the very dims in which originals differ: by them .64 of
        the true ten came first, by the bytes alone .81.
        """
        compare = is_whole and self.originals is not None
        factor = self.oversample if compare else 1.0
        return Refinement(
            depth=lambda wanted: math.ceil(wanted * factor),
            refine=partial(self.refined, query=query, compare=compare),
        )

    def refined(self, hits: Sequence[Raw], query: Vector, *, compare: bool) -> list[Raw]:
        """The hits with better scores, best first; `query` is a whole unit vector.

        `compare` with originals; without, the order stays and the scores become estimates.
        """
        if not hits:
            return []
        of_bytes = 2.0 * np.array([hit["_score"] for hit in hits]) - 1.0
        cosines = self.reduction.estimated(of_bytes, query)
        if compare and self.originals is not None:
            keys = [key_of(hit["_id"], hit.get("_source", {})) for hit in hits]
            for place, vector in self.originals(keys).items():
                cosines[place] = np.clip(float(vector @ query), -1.0, 1.0)
        order = np.argsort(-cosines, kind="stable")
        return [{**hits[n], "_score": (1.0 + float(cosines[n])) / 2.0} for n in order]


def key_of(image_id: str, fields: Mapping[str, Any]) -> str:
    """By what the original of a stored picture is found; its path may have got another content."""
    return str(fields.get("content_id") or image_id)


# Whole vectors in an export file, by which the hits of a reduced index are put in order again.
#
# An HDF5 file, float16 or float32, as `es-imgsearch export` writes it.  Its vectors are not
# compressed, so they are mapped into memory and a search touches only the rows of its candidates:
# 50 of 512 dims take 0.6 ms once the file is in the page cache; opening one of 200,000 takes 0.5
# s.
#
# Rows are found by `content_id`: a picture that was moved keeps its original, one whose content
# changed has none.  Rows without it, vectors made elsewhere, are found by `image_id`.

Floats = npt.NDArray[np.float32]
# Keys in; unit vectors by their place among the keys out, as far as there are originals.
Lookup: TypeAlias = Callable[[Sequence[str]], Mapping[int, Floats]]

_HDF5 = {".h5", ".hdf5"}
_BATCH = 20_000
_KEY_COLUMNS = ("content_id", "image_id", "root", "relative_path")


class Originals:
    """The rows of one file by their keys; safe to share between threads.

    Raises UsageError for a file of another kind or of other vectors, FileInvalid,
    LibraryMissing, EncoderMismatch.
    """

    def __init__(self, path: Path, seal: Seal, index: str) -> None:
        if path.suffix.lower() not in _HDF5:
            raise UsageError(
                f"Originals are read row by row, which {path.suffix or 'such a file'} does not"
                f" allow: write {str(path)!r} as .h5 with `es-imgsearch export FILE.h5`."
            )
        reader = open_reader(path)
        try:
            if reader.origin is not None:
                seal.check(reader.origin.seal, index)
            dims = reader.dims.get(VECTOR_FIELD)
            if dims != seal.dims:
                what = "no whole vectors" if dims is None else f"vectors of {dims} dims"
                raise UsageError(
                    f"{str(path)!r} has {what}; originals of index {index!r} have {seal.dims} dims."
                )
            keys = _keys(reader)
        finally:
            reader.close()
        self.path = path
        self._rows = vector_row_reader(path, VECTOR_FIELD)
        # Fixed-width bytes, sorted, take 40 bytes a picture; a dictionary takes 150.
        order = np.argsort(keys, kind="stable")
        self._keys, self._row_of = keys[order], order.astype(np.int64)

    def __len__(self) -> int:
        return int((self._keys != b"").sum())

    def __call__(self, keys: Sequence[str]) -> Mapping[int, Floats]:
        """Unit vectors of shape (dims,), float32, by their place in `keys`; the others lack one."""
        if not keys or not len(self._keys):
            return {}
        wanted = np.array([key.encode() for key in keys], dtype=np.bytes_)
        at = np.searchsorted(self._keys, wanted)
        at[at == len(self._keys)] = 0
        is_found = (self._keys[at] == wanted) & (wanted != b"")
        places = np.flatnonzero(is_found)
        if not len(places):
            return {}
        rows = self._rows(self._row_of[at[places]])
        lengths = np.linalg.norm(rows, axis=1)
        usable = np.isfinite(lengths) & (lengths > 0)
        return dict(zip(places[usable].tolist(), unit(rows[usable]), strict=True))


def originals_of(meta: Meta, settings: Settings, index: str) -> Lookup | None:
    """Where this machine has originals of the index: as set, else as `_meta` remembers.

    None for an index of whole vectors, and where the remembered file is of another host or gone:
    scores are approximate then.  Raises UsageError for a file that is set and not there.
    """
    if meta.reduction is None:
        return None
    if settings.originals is not None:
        if not settings.originals.is_file():
            raise UsageError(f"There is no file {str(settings.originals)!r} with originals.")
        return _opened_later(settings.originals, meta.seal, index)
    entry = meta.reduction.originals
    if entry is None or entry.get("host") != settings.host:
        return None
    path = Path(disk_path(entry["path"]))
    return _opened_later(path, meta.seal, index) if path.is_file() else None


def _opened_later(path: Path, seal: Seal, index: str) -> Lookup:
    """The originals in a file, opened by the first search that needs them."""
    opened = lru_cache(maxsize=1)(partial(Originals, path, seal, index))
    return lambda keys: opened()(keys)


def remember_originals(store: Store, settings: Settings, path: Path) -> None:
    """Note in `_meta` where originals of a reduced index lie, once they prove to be its own.

    Raises UsageError for an index that has whole vectors.
    """
    meta = store.info().meta
    if meta.reduction is None:
        raise UsageError(
            f"Index {store.index!r} has profile {meta.profile}, which keeps whole vectors itself:"
            " leave --originals out."
        )
    Originals(path, meta.seal, store.index)
    where = stored_path(str(path.absolute()))

    def remembered(meta: Meta) -> Meta:
        if meta.reduction is None:
            return meta
        return replace(meta, reduction=meta.reduction.with_originals(where, settings.host))

    store.generations.update_meta(remembered)


def remember_imported(store: Store, settings: Settings, path: Path) -> str | None:
    """Remember the file of an import as originals where that helps; what was done, in a sentence.

    None for an index of whole vectors, or one that has originals already.
    """
    reduction = store.info().meta.reduction
    if reduction is None or reduction.originals is not None:
        return None
    try:
        remember_originals(store, settings, path)
    except UsageError as error:
        return f"Hits keep the scores of their bytes, which are rough. {error}"
    return f"{path} stays needed: its vectors put the hits of {store.index!r} in order."


def _keys(reader: FileReader) -> npt.NDArray[np.bytes_]:
    """A key for every row, empty where there is none."""
    origin: Origin | None = reader.origin
    names = [each for each in _KEY_COLUMNS if each in reader.names]
    if not {"content_id", "image_id", "relative_path"} & set(names):
        raise FileInvalid(
            "The file of originals has neither content_id nor image_id nor relative_path, so its"
            " rows cannot be told from each other."
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
