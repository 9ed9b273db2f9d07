"""Check that regions of a file fit the regions of an index."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.errors import FileInvalid, IndexConflict, UsageError
from es_imgsearch.files.formats import FileReader
from es_imgsearch.records import DEFAULT_GRID, REGIONS_FIELD


def check_region_columns(
    path: Path,
    reader: FileReader,
    names: Mapping[str, str],
    info: IndexInfo,
    index: str,
    *,
    as_attributes: bool,
) -> None:
    """Raise unless the field `regions`, and no other, gets the regions of the file.

    `names` maps columns to fields; `as_attributes`: unknown columns become attributes.

    Raises FileInvalid for a column with other values, UsageError for regions in another field,
    IndexConflict for regions of another grid.
    """
    is_mapped = REGIONS_FIELD in info.properties
    for name, target in names.items():
        has_regions = name in reader.regions
        if target == REGIONS_FIELD and is_mapped and not has_regions:
            raise FileInvalid(
                f"Column {name} of {str(path)!r} holds no regions: those are lists of a box (x, y,"
                " width, height) and an embedding. Give it another name with --rename."
            )
        if has_regions and target != REGIONS_FIELD and (as_attributes or target in info.properties):
            raise UsageError(
                f"Column {name} of {str(path)!r} holds regions, which only one field stores:"
                f" add --rename {name}={REGIONS_FIELD}."
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
    """Remove columns with regions from `names` if the index stores no regions.

    `note` reports that, and also an index whose regions the file lacks.
    """
    if REGIONS_FIELD in info.properties:
        if REGIONS_FIELD not in names.values():
            note(
                f"{str(path)!r} has no regions, but index {index!r} stores them: of these pictures"
                " only the whole is compared with a crop."
            )
        return dict(names)
    left_out = {
        name for name, target in names.items() if target == REGIONS_FIELD and name in reader.regions
    }
    if left_out:
        grid = None if reader.origin is None else reader.origin.grid
        # An import creates an index like the exported one, with regions if the file names the grid.
        by_import = "the import or by " if grid else ""
        note(
            f"Index {index!r} stores no regions: those of {str(path)!r} are left out, and a crop"
            " finds its original less often. To keep them, import into an --index that is made by"
            f" {by_import}`es-imgsearch init --regions {grid or DEFAULT_GRID}`."
        )
    return {name: target for name, target in names.items() if name not in left_out}
