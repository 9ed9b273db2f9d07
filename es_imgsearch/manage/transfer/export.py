"""Export documents of an index to a file, page by page.

The file is written under a temporary name and renamed when it is complete, so a file of the final
name is always whole, and a killed export starts over.  An outage is waited out: pages follow the
path and not a snapshot that expires.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.elastic.retry import Outage, persist
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import ImgSearchError, UsageError
from es_imgsearch.files.columns import Column, ColumnKind, Origin, column_values, mapped_columns
from es_imgsearch.files.formats import check_writable, open_writer
from es_imgsearch.records import REGIONS_FIELD

# Together they identify a row.
_ALWAYS = ("root", "relative_path")

# Floats a page: 2,048 rows of 512 dims, about 13 MB of JSON and 40 MB of Python lists; fewer rows
# where each has vectors of its regions, too.
_PAGE_FLOATS = 2**20
_LARGEST_PAGE = 10_000


def export_pictures(
    store: Store,
    path: Path,
    *,
    fields: Sequence[str] = (),
    filters: Sequence[Mapping[str, Any]] = (),
    on_page: Callable[[int], None] = lambda _rows: None,
) -> int:
    """Write the documents that match these filters to `path`; return their number.

    Without `fields` all fields are written, vectors and regions too; `root` and `relative_path`
    always.  Memory: one page.  Raises UsageError for a field that is not mapped, LibraryMissing,
    ImgSearchError if the file cannot be written.
    """
    check_writable(path)
    # A file with vectors of two encoders would be useless.
    store = store.pinned()
    info = store.info()
    columns = _select_columns(info, fields)
    partial = path.with_name(f"{path.name}.part")
    try:
        rows = _write(store, info, columns, filters, path, partial, on_page)
        partial.replace(path)
    except OSError as error:
        raise ImgSearchError(f"{str(path)!r} cannot be written ({error}).") from error
    finally:
        partial.unlink(missing_ok=True)
    return rows


def _write(
    store: Store,
    info: IndexInfo,
    columns: Sequence[Column],
    filters: Sequence[Mapping[str, Any]],
    path: Path,
    partial: Path,
    on_page: Callable[[int], None],
) -> int:
    bits = [n for n, mapping in info.properties.items() if mapping.get("element_type") == "bit"]
    names = [each.name for each in columns]
    vectors = [each.name for each in columns if each.kind is ColumnKind.VECTOR or each.name in bits]
    with_regions = REGIONS_FIELD in names
    plain = [name for name in names if name not in {*vectors, REGIONS_FIELD}]
    floats = sum(each.floats for each in columns)
    size = min(_LARGEST_PAGE, max(1, _PAGE_FLOATS // max(1, floats)))
    meta = info.meta
    grid = meta.grid if with_regions else None
    origin = Origin(meta.seal, meta.similarity, meta.profile, meta.roots, grid)
    never, outage = threading.Event(), Outage()
    store.refresh()
    writer = open_writer(path, columns, origin, at=partial)
    rows = 0
    try:
        for hits in store.listings.pages(
            filters,
            fields=plain,
            vectors=vectors,
            size=size,
            with_regions=with_regions,
            retry=lambda search: persist(search, never, outage),
        ):
            writer.write(column_values(columns, hits, bits))
            rows += len(hits)
            on_page(rows)
    finally:
        writer.close()
    return rows


def _select_columns(info: IndexInfo, fields: Sequence[str]) -> list[Column]:
    columns = mapped_columns(info.properties, info.meta.grid)
    if not fields:
        return columns
    if unknown := sorted(set(fields) - info.properties.keys()):
        raise UsageError(
            f"The index has no field {', '.join(unknown)}; it has"
            f" {', '.join(sorted(info.properties))}."
        )
    return [each for each in columns if each.name in fields or each.name in _ALWAYS]
