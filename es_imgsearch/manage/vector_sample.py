"""Sample of whole vectors, from an index or a file, to fit a reduction on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.meta import Seal
from es_imgsearch.elastic.queries import parse_vector
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.reduction import SAMPLE_SIZE
from es_imgsearch.errors import FileInvalid, UsageError
from es_imgsearch.files.formats import FILE_SUFFIXES, open_reader

_FILE_BATCH = 2_000


@dataclass(frozen=True, slots=True)
class VectorSample:
    """Random vectors of shape (n, dims).

    `seal` is None if a file does not name the encoder.
    """

    vectors: npt.NDArray[np.float32]
    seal: Seal | None


def load_sample(origin: str, store: Store) -> VectorSample:
    """Draw a sample from a file or from the index of that name.

    A file is recognised by its suffix.  The index is in the Elasticsearch of `store`.  Raises
    UsageError for reduced vectors, IndexMissing, FileInvalid.
    """
    path = Path(origin)
    if path.suffix.lower() in FILE_SUFFIXES:
        return _sample_file(path)
    return _sample_index(Store(store.connection.client, origin))


def _sample_index(store: Store) -> VectorSample:
    meta = store.info().meta
    if meta.reduction is not None:
        raise UsageError(
            f"Index {store.index!r} stores reduced vectors: give --sample an index with whole"
            " vectors, or the file they were exported to."
        )
    hits = store.searches.sample(SAMPLE_SIZE, seed=1)
    rows = [parse_vector(hit["fields"][VECTOR_FIELD]) for hit in hits]
    return VectorSample(_stacked(rows, meta.seal.dims), meta.seal)


def _sample_file(path: Path) -> VectorSample:
    """Take rows evenly from the whole file, since neighbouring pictures look alike."""
    reader = open_reader(path)
    try:
        if VECTOR_FIELD not in reader.names:
            raise FileInvalid(f"{str(path)!r} has no column {VECTOR_FIELD!r} to sample from.")
        seal = None if reader.origin is None else reader.origin.seal
        step = max(1, reader.rows // SAMPLE_SIZE)
        rows: list[npt.NDArray[np.float32]] = []
        first = 0
        for batch in reader.batches([VECTOR_FIELD], _FILE_BATCH):
            values = batch[VECTOR_FIELD]
            rows += [
                np.asarray(values[n], np.float32)
                for n in range(-first % step, len(values), step)
                if values[n] is not None
            ]
            first += len(values)
    finally:
        reader.close()
    dims = len(rows[0]) if rows else 0
    if any(len(row) != dims for row in rows):
        raise FileInvalid(f"The vectors in {str(path)!r} have different lengths.")
    if seal is not None and rows and dims != seal.dims:
        raise UsageError(
            f"{str(path)!r} holds vectors of {dims} dims, its encoder {seal.name!r} has"
            f" {seal.dims}: they are reduced already. Give --sample whole vectors."
        )
    return VectorSample(_stacked(rows, dims), seal)


def _stacked(rows: list[npt.NDArray[np.float32]], dims: int) -> npt.NDArray[np.float32]:
    stacked = np.stack(rows) if rows else np.zeros((0, dims), np.float32)
    usable: npt.NDArray[np.float32] = stacked[
        np.isfinite(stacked).all(axis=1) & stacked.any(axis=1)
    ]
    return usable
