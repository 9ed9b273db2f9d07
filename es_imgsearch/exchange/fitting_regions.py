"""Regions of a file and those of an index: whether the one has a place for the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from es_imgsearch.errors import ExchangeFileInvalid, IndexConflict, UsageError
from es_imgsearch.exchange.files import Reader
from es_imgsearch.regions import DEFAULT_GRID, REGIONS_FIELD
from es_imgsearch.store import IndexInfo


def check_region_columns(
    path: Path,
    reader: Reader,
    names: Mapping[str, str],
    info: IndexInfo,
    index: str,
    *,
    as_attributes: bool,
) -> None:
    """Raise unless regions, and nothing else, are to stand in the field `regions`.

    `names` maps columns to fields; `as_attributes`: those that are no fields become attributes.

    Raises ExchangeFileInvalid for a column that holds something else, UsageError for regions under
    another name, IndexConflict for those of another grid.
    """
    is_kept = REGIONS_FIELD in info.properties
    for name, target in names.items():
        has_regions = name in reader.regions
        if target == REGIONS_FIELD and is_kept and not has_regions:
            raise ExchangeFileInvalid(
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
    reader: Reader,
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
