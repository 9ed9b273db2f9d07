"""Vectors and boxes of a file, looked at before the server sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.errors import FileInvalid, IndexConflict, UsageError
from es_imgsearch.files.columns import BOX, RegionValues
from es_imgsearch.files.formats import FileReader
from es_imgsearch.records import DEFAULT_GRID, MOST_REGIONS, REGION_VECTOR, REGIONS_FIELD

# Elasticsearch's own tolerance for dot_product: |length² - 1| (DenseVectorFieldMapper.EPS).
_UNIT_TOLERANCE = 1e-3

# A matrix, or a list of what may be rows of one.
Rows: TypeAlias = npt.NDArray[Any] | list[Any]

# The field holds ints of 32 bits.
_LARGEST_PIXEL = 2**31 - 1


def checked_vectors(
    name: str, given: Rows, dims: int, similarity: str, reasons: dict[int, str]
) -> npt.NDArray[np.float32]:
    """Shape (n, dims); rows of NaN where there is none.

    `reasons` gets, by its place, why a vector cannot be stored.
    """
    matrix: npt.NDArray[np.float32] = _matrix(name, given, dims, np.float32, reasons)
    lengths = np.einsum("nd,nd->n", matrix, matrix, dtype=np.float64)
    for n in np.flatnonzero(~np.isfinite(lengths) & ~_missing(matrix)):
        reasons.setdefault(int(n), f"its {name} holds a number that is not finite")
    for n in np.flatnonzero(lengths == 0):
        reasons.setdefault(int(n), f"its {name} is zero, which has no direction")
    # Queries are of unit length: beside longer vectors l2_norm would find the short ones.
    if similarity != "cosine":
        for n in np.flatnonzero(np.abs(lengths - 1) > _UNIT_TOLERANCE):
            reasons.setdefault(
                int(n),
                f"its {name} is {lengths[n] ** 0.5:.4g} long and has to be 1 for {similarity}",
            )
    return matrix


def checked_regions(
    given: RegionValues, dims: int, similarity: str, reasons: dict[int, str]
) -> RegionValues:
    """The same regions with boxes as int32 of shape (regions, 4) and vectors as float32.

    `reasons` gets, by its row, why one of a row's regions cannot be stored.
    """
    by_region: dict[int, str] = {}
    vectors = checked_vectors(REGION_VECTOR, given.vectors, dims, similarity, by_region)
    for n in np.flatnonzero(_missing(vectors)):
        by_region.setdefault(int(n), f"one of its {REGIONS_FIELD} has no vector")
    boxes = _boxes(given.boxes, by_region)
    rows = np.repeat(np.arange(len(given)), given.counts)
    for region, reason in sorted(by_region.items()):
        reasons.setdefault(int(rows[region]), reason)
    for n in np.flatnonzero(given.counts > MOST_REGIONS):
        reasons.setdefault(
            int(n), f"it has {given.counts[n]} {REGIONS_FIELD}, {MOST_REGIONS} are the most"
        )
    return RegionValues(given.offsets, boxes, vectors)


def _missing(matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Which rows have no vector."""
    return np.asarray(np.isnan(matrix).all(axis=1))


def _matrix(
    name: str, given: Rows, dims: int, dtype: type[np.floating], reasons: dict[int, str]
) -> npt.NDArray[Any]:
    if isinstance(given, np.ndarray) and given.shape[1] == dims:
        return given.astype(dtype, copy=False)
    matrix = np.full((len(given), dims), np.nan, dtype)
    for n, each in enumerate(given):
        if each is None:
            continue
        try:
            vector = np.asarray(each, dtype=dtype)
        except (TypeError, ValueError):
            reasons.setdefault(n, f"its {name} is no list of numbers")
            continue
        if vector.shape == (dims,):
            matrix[n] = vector
        elif not np.isnan(vector).all():
            reasons.setdefault(n, f"its {name} has {vector.size} dims instead of {dims}")
    return matrix


def _boxes(given: Rows, reasons: dict[int, str]) -> npt.NDArray[np.int32]:
    boxes = _matrix(f"{REGIONS_FIELD}.{BOX}", given, 4, np.float64, reasons)
    # What is missing is NaN, of which nothing is true.
    is_pixel = (boxes >= 0) & (boxes <= _LARGEST_PIXEL) & (boxes == np.floor(boxes))
    is_box = is_pixel.all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
    for n in np.flatnonzero(~is_box):
        reasons.setdefault(
            int(n), f"the box of one of its {REGIONS_FIELD} is not x, y, width, height in pixels"
        )
    return np.where(is_box[:, None], boxes, 0).astype(np.int32)


# Regions of a file and those of an index: whether the one has a place for the other.


def check_region_columns(
    path: Path,
    reader: FileReader,
    names: Mapping[str, str],
    info: IndexInfo,
    index: str,
    *,
    as_attributes: bool,
) -> None:
    """Raise unless regions, and nothing else, are to stand in the field `regions`.

    `names` maps columns to fields; `as_attributes`: those that are no fields become attributes.

    Raises FileInvalid for a column that holds something else, UsageError for regions under
    another name, IndexConflict for those of another grid.
    """
    is_kept = REGIONS_FIELD in info.properties
    for name, target in names.items():
        has_regions = name in reader.regions
        if target == REGIONS_FIELD and is_kept and not has_regions:
            raise FileInvalid(
                f"Column {name} of {str(path)!r} holds no regions: those are lists of a box (x, y,"
                " width, height) and an embedding. Give it another name with --rename."
            )
        if has_regions and target != REGIONS_FIELD and (as_attributes or target in info.properties):
            raise UsageError(
                f"Column {name} of {str(path)!r} holds regions, which have a place in one field"
                f" only: add --rename {name}={REGIONS_FIELD}."
            )
    grid = None if reader.origin is None else reader.origin.grid
    mine = info.meta.grid
    if REGIONS_FIELD in names.values() and grid and mine and grid != mine:
        raise IndexConflict(
            f"The pictures of {str(path)!r} have regions {grid}, those of index"
            f" {index!r} have {mine}: import into another --index."
        )


def without_regions(
    path: Path,
    reader: FileReader,
    names: Mapping[str, str],
    info: IndexInfo,
    index: str,
    note: Callable[[str], None],
) -> dict[str, str]:
    """The columns of `names` without regions that the index has no place for.

    `note` hears of them, and of an index whose regions the file lacks.
    """
    if REGIONS_FIELD in info.properties:
        if REGIONS_FIELD not in names.values():
            note(
                f"{str(path)!r} has no regions, those of index {index!r} have: of these pictures"
                " only the whole is compared with a crop."
            )
        return dict(names)
    left_out = {
        name for name, target in names.items() if target == REGIONS_FIELD and name in reader.regions
    }
    if left_out:
        grid = None if reader.origin is None else reader.origin.grid
        # The import makes an index like the file's, and of regions where it knows the grid.
        by_import = "the import or by " if grid else ""
        note(
            f"Index {index!r} keeps no regions: those of {str(path)!r} are left out, and a crop"
            " finds its original less often. To keep them, import into an --index that is made by"
            f" {by_import}`es-imgsearch init --regions {grid or DEFAULT_GRID}`."
        )
    return {name: target for name, target in names.items() if name not in left_out}
