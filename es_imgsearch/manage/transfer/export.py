"""Export documents of an index to a file, page by page.

The file is written under a temporary name and renamed when it is complete, so a file of the final
name is always whole, and a killed export starts over.  An outage is waited out: pages follow the
path and not a snapshot that expires.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.elastic.retry import Outage, persist
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import ImgSearchError, UsageError
from es_imgsearch.files.columns import Column, ColumnKind, Origin, column_values, mapped_columns
from es_imgsearch.files.formats import FileWriter, check_writable, open_writer
from es_imgsearch.manage.transfer.at_url import PartsWriter, check_url
from es_imgsearch.records import REGIONS_FIELD, is_url

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
    part_rows: int | None = None,
) -> int:
    """Write the documents that match these filters to `path`; return their number.

    At a URL it is a folder of parts, of `part_rows` rows each; see `at_url`.
    Without `fields` all fields are written, vectors and regions too; `root` and `relative_path`
    always.  Memory: one page.  Raises UsageError for a field that is not mapped, LibraryMissing,
    ImgSearchError if the file cannot be written.
    """
    if is_url(path):
        check_url(str(path))
    elif part_rows is not None:
        raise UsageError(f"{str(path)!r} is one file: only at a URL there are parts.")
    else:
        check_writable(path)
    # A file with vectors of two encoders would be useless.
    store = store.pinned()
    info = store.info()
    columns = _select_columns(info, fields)
    try:
        if is_url(path):
            with closing(
                PartsWriter(str(path), columns, _origin(info, columns), part_rows=part_rows)
            ) as parts:
                rows = _write(store, info, columns, filters, parts, on_page, part_rows)
                parts.complete()
            return rows
        unfinished = path.with_name(f"{path.name}.part")
        try:
            writer = open_writer(path, columns, _origin(info, columns), at=unfinished)
            with closing(writer):
                rows = _write(store, info, columns, filters, writer, on_page)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else error
        raise ImgSearchError(f"{str(path)!r} cannot be written: {why}.") from error
    return rows


def _write(
    store: Store,
    info: IndexInfo,
    columns: Sequence[Column],
    filters: Sequence[Mapping[str, Any]],
    writer: FileWriter,
    on_page: Callable[[int], None],
    most_rows: int | None = None,
) -> int:
    bits = [n for n, mapping in info.properties.items() if mapping.get("element_type") == "bit"]
    names = [each.name for each in columns]
    vectors = [each.name for each in columns if each.kind is ColumnKind.VECTOR or each.name in bits]
    with_regions = REGIONS_FIELD in names
    plain = [name for name in names if name not in {*vectors, REGIONS_FIELD}]
    floats = sum(each.floats for each in columns)
    size = min(most_rows or _LARGEST_PAGE, _LARGEST_PAGE, max(1, _PAGE_FLOATS // max(1, floats)))
    never, outage = threading.Event(), Outage()
    store.refresh()
    rows = 0
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
    return rows


def _origin(info: IndexInfo, columns: Sequence[Column]) -> Origin:
    meta = info.meta
    grid = meta.grid if REGIONS_FIELD in {each.name for each in columns} else None
    return Origin(meta.seal, meta.similarity, meta.profile, meta.roots, grid)


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
