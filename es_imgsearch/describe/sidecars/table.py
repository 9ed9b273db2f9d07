"""Read `metadata.csv`: a row for each picture of its folder and those below.

The column `file_name` names the picture, relative to the table, as in the datasets library of
Hugging Face.  Spreadsheets separate columns by commas, semicolons or tabs, and write UTF-8, UTF-16
or Windows-1252.
"""

from __future__ import annotations

import csv
import io
import itertools
import os
import posixpath
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from es_imgsearch.describe.sidecars.files import (
    STATED_NAMES,
    Statement,
    opened,
    statement_of,
    too_large,
)
from es_imgsearch.describe.sidecars.names import TABLE
from es_imgsearch.describe.texts import decoded_text
from es_imgsearch.records import composed

FILE_COLUMN: Final = "file_name"

# 300,000 rows of 200 characters.
_MOST_TABLE_BYTES = 64 * 1024 * 1024
# Enough for the names of a table's columns.
_HEAD_BYTES = 64 * 1024
_DELIMITERS = ",;\t|"
_SPELLINGS = (TABLE, TABLE.upper())
# A quote without its partner costs its row; of more than these the rest is read as it is.
_MOST_BROKEN_ROWS = 100
_LISTS = ("creator", "keywords")
_KNOWN: Final = {FILE_COLUMN, *STATED_NAMES}


def read_rows(folder: str, name: str, tops: Collection[str] = ()) -> Iterator[Statement]:
    """Read the rows of a picture, of tables above its folder first.

    Tables are looked for up to the folder of `tops` that the picture lies in, if any.  Yields a
    note for a table that cannot be understood.  Raises OSError.
    """
    for above, relative in _places(folder, name, tops):
        for spelling in _SPELLINGS:
            path = os.path.join(above, spelling)
            table = _table_now(path)
            if table is None or table is _OF_SOMETHING_ELSE:
                continue
            if table.error is not None:
                yield Statement(notes=[table.error])
            elif (row := table.rows.get(row_key(relative))) is not None:
                yield _statement(table.columns, row)


def row_key(file_name: str) -> str:
    """Return the form in which names of a table and of pictures are compared."""
    plain = composed(file_name.strip().replace("\\", "/"))
    return posixpath.normpath(plain) if plain else ""


def named_pictures(folder: str) -> Collection[str] | None:
    """Return the pictures that a folder's tables name, as of `row_key`.

    None for a table of something else, without the column `file_name`.  Raises OSError.
    """
    tables = [_table_now(os.path.join(folder, spelling)) for spelling in _SPELLINGS]
    if any(table is _OF_SOMETHING_ELSE for table in tables):
        return None
    return {key for table in tables if table is not None for key in table.rows}


def _places(folder: str, name: str, tops: Collection[str]) -> list[tuple[str, str]]:
    """Return folders that may have a table, top down, with the path from there."""
    top = next(
        (each for each in tops if folder == each or folder.startswith(each.rstrip("/") + "/")), None
    )
    places = [(folder, name)]
    while top is not None and len(folder) > len(top.rstrip("/") or "/"):
        folder, own = os.path.split(folder)
        name = f"{own}/{name}"
        places.append((folder, name))
    return places[::-1]


def _statement(columns: list[str], row: list[str]) -> Statement:
    cells = {
        column: cell.strip()
        for column, cell in zip(columns, row, strict=False)
        if column and column != FILE_COLUMN
    }
    found: dict[str, Any] = {column: cell for column, cell in cells.items() if cell}
    for column in _LISTS:
        if column in found:
            found[column] = [each.strip() for each in cells[column].split(";")]
    return statement_of(found)


@dataclass(frozen=True, slots=True)
class _Table:
    """Columns, and rows by `row_key`; or the error that made it unreadable."""

    columns: list[str] = field(default_factory=list)
    rows: dict[str, list[str]] = field(default_factory=dict)
    error: str | None = None


_OF_SOMETHING_ELSE = _Table(error="no table of pictures")


def _table_now(path: str) -> _Table | None:
    """Return the table in its present state; None if it is missing."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _table(path, status.st_mtime_ns, status.st_size, status.st_ino)


# One folder's pictures come one after the other, and every worker reads some of them.
@lru_cache(maxsize=4)
def _table(path: str, mtime_ns: int, size_bytes: int, inode: int) -> _Table | None:
    """Read the table in this state once, even if it is unreadable."""
    _ = mtime_ns, inode
    with opened(path) as file:
        if file is None:
            return None
        head = file.read(_HEAD_BYTES)
        if _delimiter(decoded_text(head)) is None:
            return _OF_SOMETHING_ELSE
        if size_bytes > _MOST_TABLE_BYTES:
            return _Table(error=too_large(_MOST_TABLE_BYTES))
        text = decoded_text(head + file.read())
    delimiter = _delimiter(text)
    if delimiter is None:
        return _OF_SOMETHING_ELSE
    # The module's own limit is 128 kB; longer values are cut later.
    csv.field_size_limit(_MOST_TABLE_BYTES)
    columns = _columns(text, delimiter)
    at = columns.index(FILE_COLUMN)
    folder = row_key(os.path.dirname(os.path.abspath(path))).rstrip("/") + "/"
    named = (
        (row_key(row[at]).removeprefix(folder), row)
        for row in _rows(text, delimiter, at)
        if len(row) > at
    )
    return _Table(columns, {key: row for key, row in named if key})


def _columns(text: str, delimiter: str) -> list[str]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    columns = [column.strip() for column in next(reader, [])]
    # People write Title and RATING; a column of the very name counts before those.
    for at, column in enumerate(columns):
        known = column.lower()
        if known in _KNOWN and known not in columns:
            columns[at] = known
    return columns


def _delimiter(text: str) -> str | None:
    """Return what separates the columns; None without the column `file_name`."""
    for delimiter in _DELIMITERS:
        try:
            columns = _columns(text, delimiter)
        except csv.Error:
            continue
        if FILE_COLUMN in columns:
            return delimiter
    return None


def _rows(text: str, delimiter: str, name_at: int) -> Iterator[list[str]]:
    """Yield the rows, the head too; one whose quotes do not fit costs no other."""
    lines = io.StringIO(text, newline="").readlines()
    at = 0
    for is_strict in itertools.chain(itertools.repeat(True, _MOST_BROKEN_ROWS), (False,)):
        rest = itertools.islice(lines, at, None)
        reader = csv.reader(rest, delimiter=delimiter, strict=is_strict)
        read = 0
        try:
            for row in reader:
                if is_strict and len(row) > name_at and "\n" in row[name_at]:
                    raise csv.Error("a name of several lines")
                yield row
                read = reader.line_num
        except csv.Error:
            broken = lines[at + read]
            yield next(csv.reader([broken], delimiter=delimiter), [])
            at += read + 1
            continue
        return
