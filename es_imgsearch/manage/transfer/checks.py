"""Check vectors and boxes of a file before they are sent."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from es_imgsearch.files.columns import BOX, RegionValues
from es_imgsearch.records import MAX_REGIONS, REGION_VECTOR, REGIONS_FIELD

# Elasticsearch's own tolerance for dot_product: |length² - 1| (DenseVectorFieldMapper.EPS).
_UNIT_TOLERANCE = 1e-3

# A matrix, or a list of values that may be its rows.
Rows: TypeAlias = npt.NDArray[Any] | list[Any]

# The field holds ints of 32 bits.
_LARGEST_PIXEL = 2**31 - 1


def checked_vectors(
    name: str, values: Rows, dims: int, similarity: str, reasons: dict[int, str]
) -> npt.NDArray[np.float32]:
    """Convert vectors to shape (n, dims); a missing one is a row of NaN.

    Adds to `reasons`, by position, why a vector cannot be stored.
    """
    matrix: npt.NDArray[np.float32] = _matrix(name, values, dims, np.float32, reasons)
    lengths = np.einsum("nd,nd->n", matrix, matrix, dtype=np.float64)
    for n in np.flatnonzero(~np.isfinite(lengths) & ~_missing(matrix)):
        reasons.setdefault(int(n), f"its {name} holds a number that is not finite")
    for n in np.flatnonzero(lengths == 0):
        reasons.setdefault(int(n), f"its {name} is zero, which has no direction")
    # Queries have unit length: among longer vectors l2_norm would prefer the short ones.
    if similarity != "cosine":
        for n in np.flatnonzero(np.abs(lengths - 1) > _UNIT_TOLERANCE):
            reasons.setdefault(
                int(n),
                f"its {name} is {lengths[n] ** 0.5:.4g} long and has to be 1 for {similarity}",
            )
    return matrix


def checked_regions(
    values: RegionValues, dims: int, similarity: str, reasons: dict[int, str]
) -> RegionValues:
    """Convert regions: boxes to int32 of shape (regions, 4), vectors to float32.

    Adds to `reasons`, by row, why one of its regions cannot be stored.
    """
    by_region: dict[int, str] = {}
    vectors = checked_vectors(REGION_VECTOR, values.vectors, dims, similarity, by_region)
    for n in np.flatnonzero(_missing(vectors)):
        by_region.setdefault(int(n), f"one of its {REGIONS_FIELD} has no vector")
    boxes = _boxes(values.boxes, by_region)
    rows = np.repeat(np.arange(len(values)), values.counts)
    for region, reason in sorted(by_region.items()):
        reasons.setdefault(int(rows[region]), reason)
    for n in np.flatnonzero(values.counts > MAX_REGIONS):
        reasons.setdefault(
            int(n), f"it has {values.counts[n]} {REGIONS_FIELD}, {MAX_REGIONS} are the most"
        )
    return RegionValues(values.offsets, boxes, vectors)


def _missing(matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Mask of the rows without a vector."""
    return np.asarray(np.isnan(matrix).all(axis=1))


def _matrix(
    name: str, values: Rows, dims: int, dtype: type[np.floating], reasons: dict[int, str]
) -> npt.NDArray[Any]:
    if isinstance(values, np.ndarray) and values.shape[1] == dims:
        return values.astype(dtype, copy=False)
    matrix = np.full((len(values), dims), np.nan, dtype)
    for n, each in enumerate(values):
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


def _boxes(values: Rows, reasons: dict[int, str]) -> npt.NDArray[np.int32]:
    boxes = _matrix(f"{REGIONS_FIELD}.{BOX}", values, 4, np.float64, reasons)
    # A missing box is NaN, for which every comparison is False.
    is_pixel = (boxes >= 0) & (boxes <= _LARGEST_PIXEL) & (boxes == np.floor(boxes))
    is_box = is_pixel.all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
    for n in np.flatnonzero(~is_box):
        reasons.setdefault(
            int(n), f"the box of one of its {REGIONS_FIELD} is not x, y, width, height in pixels"
        )
    return np.where(is_box[:, None], boxes, 0).astype(np.int32)
