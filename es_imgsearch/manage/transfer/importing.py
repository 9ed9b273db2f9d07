"""From a file into an index: checked row by row, sent in bulks, safe to be run again.

Ids follow from root and path, so a row that is imported twice is one document.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.meta_entries import CODE_FIELD
from es_imgsearch.elastic.retry import Outage, persist
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.context import open_post_embed
from es_imgsearch.embed.reduction import load_reduction
from es_imgsearch.errors import (
    EncoderMismatch,
    FileInvalid,
    GenerationSwitched,
    IndexConflict,
    IndexMissing,
    RowInvalid,
    UsageError,
)
from es_imgsearch.files.columns import REST_COLUMN
from es_imgsearch.files.formats import FileReader, open_reader
from es_imgsearch.manage.transfer import bulk_load as loading
from es_imgsearch.manage.transfer.bulk_load import Item, Sender, ndjson_items, smile_items
from es_imgsearch.manage.transfer.checks import check_region_columns, without_regions
from es_imgsearch.manage.transfer.rows import STATE_FIELDS, BadRow, Row, RowPlan
from es_imgsearch.records import stored_path
from es_imgsearch.settings import Settings
from es_imgsearch.watch.roots import claim_root

T = TypeVar("T")

# About 1,000 rows of 512 dims in SMILE, where larger bulks were no faster.
_BULK_BYTES = 3_500_000
_FLOAT_BYTES = 6
_FIELDS_BYTES = 500
_LARGEST_BULK = 2000

# Worked out from root and path, or from the vector; and what pandas adds for an index without a
# name.
_NEVER_READ = {"image_id", CODE_FIELD, "__index_level_0__"}


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How a file is taken in.

    `names` maps columns to the fields they stand for.  `unknown_columns`: what happens to those
    that are no fields.  `skip_bad_rows`: else the first one ends the import.  `only_new` leaves
    alone what the index has already, whatever is in it.  `profile` is that of an index made here.
    """

    root: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    unknown_columns: str = "error"
    skip_bad_rows: bool = False
    only_new: bool = False
    as_ndjson: bool = False
    profile: str | None = None


@dataclass(slots=True)
class Imported:
    """What became of the rows."""

    stored: int = 0
    bad: int = 0
    there_already: int = 0


def _ignore(*_: object) -> None:
    pass


def import_pictures(
    store: Store,
    settings: Settings,
    path: Path,
    options: ImportOptions,
    *,
    on_bad_row: Callable[[BadRow], None] = _ignore,
    on_progress: Callable[[Imported, int], None] = _ignore,
    note: Callable[[str], None] = _ignore,
) -> Imported:
    """Store every good row of the file; the index is made where there is none.

    `on_progress` hears what became of how many of the file's rows, `note` of what a person
    should know.

    Raises FileInvalid, EncoderMismatch, RootError and other UsageErrors where the file
    as a whole does not fit, RowInvalid at the first bad row unless those are skipped.  What was
    stored by then stays, and the same import run again completes it.
    """
    reader = open_reader(path)
    try:
        names = _names(path, reader, options)
        info = _opened(store, settings, reader, names, options, note)
        # The vectors fit this generation, and perhaps not the one that is switched to meanwhile.
        store = store.pinned()
        if store.generation != info.name:
            raise GenerationSwitched(
                f"Index {store.index!r} was switched to {store.generation}: import again."
            )
        as_attributes = options.unknown_columns == "attributes"
        check_region_columns(path, reader, names, info, store.index, as_attributes=as_attributes)
        names = without_regions(path, reader, names, info, store.index, note)
        plan = _plan(path, reader, names, store, info, options)
        rows = _Import(store, path, reader, plan, info, options)
        rows.on_bad_row, rows.on_progress, rows.note = on_bad_row, on_progress, note
        return rows.run()
    finally:
        reader.close()


class _Import:
    """One run over the rows, once the file as a whole is known to fit."""

    def __init__(
        self,
        store: Store,
        path: Path,
        reader: FileReader,
        plan: RowPlan,
        info: IndexInfo,
        options: ImportOptions,
    ) -> None:
        self._store, self._path, self._reader = store, path, reader
        self._plan, self._info, self._options = plan, info, options
        self._encode = ndjson_items if options.as_ndjson else smile_items
        # A root, and whether its folder is compared with the index.
        self._roots: dict[str, bool] = {}
        self._may_have_failures = False
        self._resent: list[Item] = []
        self._done = Imported()
        self.on_bad_row: Callable[[BadRow], None] = _ignore
        self.on_progress: Callable[[Imported, int], None] = _ignore
        self.note: Callable[[str], None] = _ignore

    def run(self) -> Imported:
        self._store.refresh()
        self._may_have_failures = self._store.listings.count(failures=True) > 0
        sender = Sender(self._store, self._note_sent, as_ndjson=self._options.as_ndjson)
        first = 1
        try:
            for values in self._reader.batches(list(self._plan.names), self._bulk_rows()):
                rows, bad = self._plan.rows(values, first)
                first += len(rows) + len(bad)
                items, unfit = self._items(rows)
                if items:
                    sender.send(items)
                if bad or unfit:
                    # What is good is stored first: a bad row costs nothing but itself.
                    sender.finish()
                    self._refuse(sorted([*bad, *unfit], key=lambda each: each.number))
            sender.finish()
            if self._info.is_loading:
                loading.finish(self._store, self._info, lambda: self._resend(sender), self.note)
        finally:
            sender.close()
        self._store.refresh()
        return self._done

    def _items(self, rows: Sequence[Row]) -> tuple[list[Item], list[BadRow]]:
        """What of these rows is to be sent, and which of them cannot be."""
        for root in {row.root for row in rows} - self._roots.keys():
            origin = self._reader.origin
            entry = None if origin is None else origin.roots.get(root)
            file = stored_path(os.path.abspath(self._path))
            self._roots[root] = claim_root(self._store, root, entry, file)
        bad: list[BadRow] = []
        good: list[Row] = []
        for row in rows:
            lacking = [name for name in STATE_FIELDS if name not in row.fields]
            if lacking and self._roots[row.root]:
                bad.append(BadRow(row.number, f"a watched root needs its {', '.join(lacking)}"))
            else:
                good.append(row)
        failed = (
            self._asked(self._store.documents.attempts, good) if self._may_have_failures else {}
        )
        new = good
        if self._options.only_new:
            known = self._asked(self._store.documents.existing, good)
            new = [row for row in good if row.image_id not in known]
            self._done.there_already += len(good) - len(new)
        index, failures = self._store.connection.pictures, self._store.connection.failures
        try:
            items = self._encode(new, index, failures, failed)
        except ValueError:
            items = []
            for row in new:
                try:
                    items += self._encode([row], index, failures, failed)
                except ValueError as error:
                    bad.append(BadRow(row.number, str(error)))
        if self._info.is_loading and not self._resent:
            # One of these is sent again at the end, unless it is refused.
            self._resent = items
            if not items and not new and good:
                self._resent = self._encode(good[:1], index, failures, failed)
        return items, bad

    def _asked(self, ask: Callable[[Sequence[str]], T], rows: Sequence[Row]) -> T:
        ids = [row.image_id for row in rows]
        return persist(lambda: ask(ids), threading.Event(), Outage())

    def _resend(self, sender: Sender) -> None:
        if not self._resent:
            return
        stored = self._done.stored
        sender.send(self._resent[:1])
        sender.finish()
        self._done.stored = stored

    def _note_sent(self, stored: int, refused: Sequence[BadRow]) -> None:
        self._done.stored += stored
        self._refuse(refused)
        self.on_progress(self._done, self._reader.rows)

    def _refuse(self, bad: Sequence[BadRow]) -> None:
        for each in bad:
            if not self._options.skip_bad_rows:
                raise RowInvalid(
                    f"Row {each.number} of {str(self._path)!r} cannot be stored: {each.reason}."
                    " Mend it and import again, or add --on-error skip; what was stored before"
                    " stays."
                )
            self._done.bad += 1
            self._resent = [item for item in self._resent if item.number != each.number]
            self.on_bad_row(each)

    def _bulk_rows(self) -> int:
        columns = [self._plan.columns.get(target) for target in self._plan.names.values()]
        floats = sum(each.floats for each in columns if each is not None)
        return min(_LARGEST_BULK, max(1, _BULK_BYTES // (_FLOAT_BYTES * floats + _FIELDS_BYTES)))


def _names(path: Path, reader: FileReader, options: ImportOptions) -> dict[str, str]:
    """The fields that the file's columns stand for.  Raises FileInvalid, UsageError."""
    if unknown := sorted(options.names.keys() - set(reader.names)):
        raise UsageError(
            f"{str(path)!r} has no column {', '.join(unknown)}; it has {', '.join(reader.names)}."
        )
    names = {each: options.names.get(each, each) for each in reader.names}
    targets = [target for target in names.values() if target not in _NEVER_READ]
    if len(set(targets)) < len(targets):
        twice = sorted({each for each in targets if targets.count(each) > 1})
        raise UsageError(f"Two columns stand for {', '.join(twice)}: rename one of them only.")
    for wanted, instead in ((VECTOR_FIELD, None), ("relative_path", "image_name")):
        if wanted not in targets and instead not in targets:
            raise FileInvalid(
                f"{str(path)!r} has no column {wanted}; it has {', '.join(reader.names)}. Say which"
                f" one it is with --rename COLUMN={wanted}."
            )
    if "root" not in targets and options.root is None:
        raise UsageError(
            f"{str(path)!r} has no column root: give the pictures a common name with --root NAME."
        )
    return {name: target for name, target in names.items() if target not in _NEVER_READ}


def _opened(
    store: Store,
    settings: Settings,
    reader: FileReader,
    names: Mapping[str, str],
    options: ImportOptions,
    note: Callable[[str], None],
) -> IndexInfo:
    """The index, found or made, that these vectors may live in."""
    (column,) = (name for name, target in names.items() if target == VECTOR_FIELD)
    dims = reader.dims.get(column)
    try:
        info = store.info()
    except IndexMissing:
        info = loading.make_index(store, settings, reader.origin, options.profile, dims)
        note(f"Made index {store.index!r}, which is searched when the import has ended.")
        return info
    loading.check_seal(info, settings, reader.origin, dims)
    if options.profile not in {None, info.meta.profile}:
        raise IndexConflict(
            f"Index {store.index!r} exists with profile {info.meta.profile}, not"
            f" {options.profile}: leave --profile out, or use another --index."
        )
    if reader.origin is None and settings.encoder is None:
        note(
            "The file does not say which encoder made its vectors; they are taken for those of"
            f" {info.meta.seal.name!r}, to which the index is sealed."
        )
    if info.is_loading:
        note(f"An import into {store.index!r} was interrupted; this one ends it.")
    return info


def _plan(
    path: Path,
    reader: FileReader,
    names: Mapping[str, str],
    store: Store,
    info: IndexInfo,
    options: ImportOptions,
) -> RowPlan:
    """Raises UsageError for columns that are no fields, unless they have a place."""
    known = info.properties.keys() | {REST_COLUMN}
    strange = {name for name, target in names.items() if target not in known}
    if strange and options.unknown_columns == "error":
        raise UsageError(
            f"{str(path)!r} has columns that are no fields of index: {', '.join(sorted(strange))}."
            " Rename them with --rename COLUMN=FIELD, or say with --unknown-columns whether they"
            " go into attributes or are ignored."
        )
    kept = {
        name: target
        for name, target in names.items()
        if name not in strange or options.unknown_columns == "attributes"
    }
    plan = RowPlan(
        properties=info.properties,
        names=kept,
        root=options.root,
        as_attributes=frozenset(strange & kept.keys()),
        paths_are_stored=reader.origin is not None,
        reduction=load_reduction(store, info.meta),
        vector_fields=open_post_embed(store, info.meta).fields,
        grid=info.meta.grid,
    )
    for name, dims in reader.dims.items():
        column = plan.columns.get(kept.get(name, ""))
        if column is not None and column.dims not in {0, dims}:
            raise EncoderMismatch(
                f"Column {name} of {str(path)!r} has vectors of {dims} dims, the field"
                f" {column.name} of the index has {column.dims}."
            )
    return plan
