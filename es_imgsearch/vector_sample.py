"""A sample of whole vectors, to fit a reduction on: from another index of ours, or from a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from es_imgsearch.errors import ExchangeFileInvalid, UsageError
from es_imgsearch.exchange.files import FILE_SUFFIXES, open_reader
from es_imgsearch.mapping import VECTOR_FIELD, Seal
from es_imgsearch.queries import vector_of
from es_imgsearch.reduction import SAMPLE_SIZE
from es_imgsearch.store import Store

_PAGE = 1_000
_FILE_BATCH = 2_000


@dataclass(frozen=True, slots=True)
class VectorSample:
    """Vectors of shape (n, dims), at random; `seal` is None where a file does not say whose."""

    vectors: npt.NDArray[np.float32]
    seal: Seal | None


def sample_of(origin: str, store: Store) -> VectorSample:
    """The sample from a file, known by its suffix, or from the index of that name.

    `store` says where Elasticsearch is.  Raises UsageError where there are no whole vectors,
    IndexMissing, ExchangeFileInvalid.
    """
    path = Path(origin)
    if path.suffix.lower() in FILE_SUFFIXES:
        return _of_file(path)
    return _of_index(Store(store.client, origin))


def _of_index(store: Store) -> VectorSample:
    meta = store.info().meta
    if meta.reduction is not None:
        raise UsageError(
            f"Index {store.index!r} has reduced vectors itself: give --sample an index that has"
            " whole ones, or the file they were exported to."
        )
    rows: list[npt.NDArray[np.float32]] = []
    after = None
    while len(rows) < SAMPLE_SIZE:
        body = {
            "query": {
                "function_score": {
                    "query": {"exists": {"field": VECTOR_FIELD}},
                    "random_score": {"seed": 1, "field": "_seq_no"},
                    "boost_mode": "replace",
                }
            },
            "size": _PAGE,
            "sort": [{"_score": "desc"}, {"image_id": "asc"}],
            "_source": False,
            "docvalue_fields": [VECTOR_FIELD],
            "track_total_hits": False,
            **({} if after is None else {"search_after": after}),
        }
        answer = store.request(
            "POST",
            f"/{store.index}/_search",
            body,
            params={
                "filter_path": "hits.hits.fields,hits.hits.sort",
                "allow_partial_search_results": "false",
            },
        )
        hits = answer.get("hits", {}).get("hits", [])
        rows += [vector_of(hit["fields"][VECTOR_FIELD]) for hit in hits]
        if len(hits) < _PAGE:
            break
        after = hits[-1]["sort"]
    return VectorSample(_stacked(rows, meta.seal.dims), meta.seal)


def _of_file(path: Path) -> VectorSample:
    """Rows spread evenly over the file: pictures that lie together look alike."""
    reader = open_reader(path)
    try:
        if VECTOR_FIELD not in reader.names:
            raise ExchangeFileInvalid(
                f"{str(path)!r} has no column {VECTOR_FIELD!r} to take a sample of."
            )
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
        raise ExchangeFileInvalid(f"The vectors in {str(path)!r} have different lengths.")
    if seal is not None and rows and dims != seal.dims:
        raise UsageError(
            f"{str(path)!r} holds vectors of {dims} dims, its encoder {seal.name!r} has"
            f" {seal.dims}: they are reduced already. Give --sample whole ones."
        )
    return VectorSample(_stacked(rows, dims), seal)


def _stacked(rows: list[npt.NDArray[np.float32]], dims: int) -> npt.NDArray[np.float32]:
    found = np.stack(rows) if rows else np.zeros((0, dims), np.float32)
    usable = np.isfinite(found).all(axis=1) & found.any(axis=1)
    sample: npt.NDArray[np.float32] = found[usable]
    return sample
