"""Import a file into an index: check row by row, send in bulks; safe to repeat.

Ids derive from root and path, so a row that is imported twice is one document.
"""

from __future__ import annotations

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
from es_imgsearch.files.formats import FileReader
from es_imgsearch.manage.production.refreshing import refresh_off
from es_imgsearch.manage.transfer import bulk_load as loading
from es_imgsearch.manage.transfer.at_url import open_anywhere, stored_file
from es_imgsearch.manage.transfer.bulk_sender import (
    BulkItem,
    BulkSender,
    encode_ndjson,
    encode_smile,
)
from es_imgsearch.manage.transfer.region_columns import check_region_columns, without_regions
from es_imgsearch.manage.transfer.rows import STATE_FIELDS, BadRow, Row, RowPlan
from es_imgsearch.settings import Settings
from es_imgsearch.watch.roots import claim_root

T = TypeVar("T")

# About 1,000 rows of 512 dims in SMILE; larger bulks were no faster.
_BULK_BYTES = 3_500_000
_FLOAT_BYTES = 6
_FIELDS_BYTES = 500
_LARGEST_BULK = 2000

# Computed from root and path or from the vector, and the column that pandas adds for an unnamed
# index.
_IGNORED_COLUMNS = {"image_id", CODE_FIELD, "__index_level_0__"}


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """Options of an import.

    `names` maps columns to fields.  `unknown_columns`: error, attributes or ignore.
    `skip_bad_rows`: otherwise the first one ends the import.  `only_new` skips pictures that the
    index has, whatever their content.  `profile` is for an index that the import creates.
    """

    root: str | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    unknown_columns: str = "error"
    skip_bad_rows: bool = False
    only_new: bool = False
    as_ndjson: bool = False
    profile: str | None = None


@dataclass(slots=True)
class ImportResult:
    """Numbers of rows by outcome."""

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
    on_progress: Callable[[ImportResult, int], None] = _ignore,
    note: Callable[[str], None] = _ignore,
) -> ImportResult:
    """Store every valid row of the file; create the index if there is none.

    `on_progress` gets the result so far and the number of rows in the file, `note` messages for the
    user.

    Raises FileInvalid, EncoderMismatch, RootError and other UsageErrors if the file as a whole does
    not fit, RowInvalid at the first bad row unless those are skipped.  Rows stored by then stay,
    and the same import, repeated, completes it.
    """
    reader = open_anywhere(path)
    try:
        names = _map_columns(path, reader, options)
        info = _open_index(store, settings, reader, names, options, note)
        # The vectors fit this generation, perhaps not one that is switched to meanwhile.
        store = store.pinned()
        if store.generation != info.name:
            raise GenerationSwitched(
                f"Index {store.index!r} was switched to {store.generation}: import again."
            )
        as_attributes = options.unknown_columns == "attributes"
        check_region_columns(path, reader, names, info, store.index, as_attributes=as_attributes)
        names = without_regions(path, reader, names, info, store.index, note)
        plan = _plan_rows(path, reader, names, store, info, options)
        run = _Import(store, path, reader, plan, info, options, on_bad_row, on_progress, note)
        with refresh_off(store, settings, note):
            return run.run()
    finally:
        reader.close()


class _Import:
    """One run over the rows of a file that fits as a whole."""

    def __init__(
        self,
        store: Store,
        path: Path,
        reader: FileReader,
        plan: RowPlan,
        info: IndexInfo,
        options: ImportOptions,
        on_bad_row: Callable[[BadRow], None],
        on_progress: Callable[[ImportResult, int], None],
        note: Callable[[str], None],
    ) -> None:
        self._store, self._path, self._reader = store, path, reader
        self._plan, self._info, self._options = plan, info, options
        self._encode = encode_ndjson if options.as_ndjson else encode_smile
        # By root: is its folder compared with the index?
        self._roots: dict[str, bool] = {}
        self._may_have_failures = False
        self._resent: list[BulkItem] = []
        self._done = ImportResult()
        self._on_bad_row, self._on_progress, self._note = on_bad_row, on_progress, note

    def run(self) -> ImportResult:
        self._store.refresh()
        self._may_have_failures = self._store.listings.count(failures=True) > 0
        sender = BulkSender(self._store, self._count_sent, as_ndjson=self._options.as_ndjson)
        first = 1
        try:
            for values in self._reader.batches(list(self._plan.names), self._bulk_rows()):
                rows, bad = self._plan.rows(values, first)
                first += len(rows) + len(bad)
                items, unfit = self._items(rows)
                if items:
                    sender.send(items)
                if bad or unfit:
                    # Valid rows are stored first: a bad row costs nothing but itself.
                    sender.finish()
                    self._refuse(sorted([*bad, *unfit], key=lambda each: each.number))
            sender.finish()
            if self._info.is_loading:
                loading.finish(self._store, self._info, lambda: self._resend(sender), self._note)
        finally:
            sender.close()
        self._store.refresh()
        return self._done

    def _items(self, rows: Sequence[Row]) -> tuple[list[BulkItem], list[BadRow]]:
        """Encode rows; return the items to send, and the rows that cannot be stored."""
        for root in {row.root for row in rows} - self._roots.keys():
            origin = self._reader.origin
            entry = None if origin is None else origin.roots.get(root)
            self._roots[root] = claim_root(self._store, root, entry, stored_file(self._path))
        bad: list[BadRow] = []
        good: list[Row] = []
        for row in rows:
            missing = [name for name in STATE_FIELDS if name not in row.fields]
            if missing and self._roots[row.root]:
                bad.append(BadRow(row.number, f"a watched root needs its {', '.join(missing)}"))
            else:
                good.append(row)
        failed = (
            self._look_up(self._store.documents.attempts, good) if self._may_have_failures else {}
        )
        new = good
        if self._options.only_new:
            known = self._look_up(self._store.documents.existing, good)
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

    def _look_up(self, read: Callable[[Sequence[str]], T], rows: Sequence[Row]) -> T:
        ids = [row.image_id for row in rows]
        return persist(lambda: read(ids), threading.Event(), Outage())

    def _resend(self, sender: BulkSender) -> None:
        if not self._resent:
            return
        stored = self._done.stored
        sender.send(self._resent[:1])
        sender.finish()
        self._done.stored = stored

    def _count_sent(self, stored: int, refused: Sequence[BadRow]) -> None:
        self._done.stored += stored
        self._refuse(refused)
        self._on_progress(self._done, self._reader.rows)

    def _refuse(self, bad: Sequence[BadRow]) -> None:
        for each in bad:
            if not self._options.skip_bad_rows:
                raise RowInvalid(
                    f"Row {each.number} of {str(self._path)!r} cannot be stored: {each.reason}."
                    " Correct it and import again, or add --on-error skip; rows stored before"
                    " stay."
                )
            self._done.bad += 1
            self._resent = [item for item in self._resent if item.number != each.number]
            self._on_bad_row(each)

    def _bulk_rows(self) -> int:
        columns = [self._plan.columns.get(target) for target in self._plan.names.values()]
        floats = sum(each.floats for each in columns if each is not None)
        return min(_LARGEST_BULK, max(1, _BULK_BYTES // (_FLOAT_BYTES * floats + _FIELDS_BYTES)))


def _map_columns(path: Path, reader: FileReader, options: ImportOptions) -> dict[str, str]:
    """Map the columns of the file to fields.  Raises FileInvalid, UsageError."""
    if unknown := sorted(options.names.keys() - set(reader.names)):
        raise UsageError(
            f"{str(path)!r} has no column {', '.join(unknown)}; it has {', '.join(reader.names)}."
        )
    names = {each: options.names.get(each, each) for each in reader.names}
    targets = [target for target in names.values() if target not in _IGNORED_COLUMNS]
    if len(set(targets)) < len(targets):
        twice = sorted({each for each in targets if targets.count(each) > 1})
        raise UsageError(f"Two columns stand for {', '.join(twice)}: rename one of them only.")
    for required, instead in ((VECTOR_FIELD, None), ("relative_path", "image_name")):
        if required not in targets and instead not in targets:
            raise FileInvalid(
                f"{str(path)!r} has no column {required}; it has {', '.join(reader.names)}. Name"
                f" the one that holds it with --rename COLUMN={required}."
            )
    if "root" not in targets and options.root is None:
        raise UsageError(
            f"{str(path)!r} has no column root: give the pictures a common name with --root NAME."
        )
    return {name: target for name, target in names.items() if target not in _IGNORED_COLUMNS}


def _open_index(
    store: Store,
    settings: Settings,
    reader: FileReader,
    names: Mapping[str, str],
    options: ImportOptions,
    note: Callable[[str], None],
) -> IndexInfo:
    """Open or create the index for these vectors."""
    (column,) = (name for name, target in names.items() if target == VECTOR_FIELD)
    dims = reader.dims.get(column)
    try:
        info = loading.open_upgraded(store)
    except IndexMissing:
        info = loading.create_loading_index(store, settings, reader, options.profile, dims)
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
            "The file does not say which encoder made its vectors; they are taken as vectors of"
            f" {info.meta.seal.name!r}, to which the index is sealed."
        )
    if info.is_loading:
        note(f"An import into {store.index!r} was interrupted; this one ends it.")
    return info


def _plan_rows(
    path: Path,
    reader: FileReader,
    names: Mapping[str, str],
    store: Store,
    info: IndexInfo,
    options: ImportOptions,
) -> RowPlan:
    """Plan the conversion of rows.  Raises UsageError for unknown columns."""
    known = info.properties.keys() | {REST_COLUMN}
    unknown_names = {name for name, target in names.items() if target not in known}
    if unknown_names and options.unknown_columns == "error":
        raise UsageError(
            f"{str(path)!r} has columns that are no fields of the index:"
            f" {', '.join(sorted(unknown_names))}. Rename them with --rename COLUMN=FIELD, or"
            " choose with --unknown-columns whether they go into attributes or are ignored."
        )
    used = {
        name: target
        for name, target in names.items()
        if name not in unknown_names or options.unknown_columns == "attributes"
    }
    plan = RowPlan(
        properties=info.properties,
        names=used,
        root=options.root,
        as_attributes=frozenset(unknown_names & used.keys()),
        paths_are_stored=reader.origin is not None,
        reduction=load_reduction(store, info.meta),
        vector_fields=open_post_embed(store, info.meta).fields,
        grid=info.meta.grid,
    )
    for name, dims in reader.dims.items():
        column = plan.columns.get(used.get(name, ""))
        if column is not None and column.dims not in {0, dims}:
            raise EncoderMismatch(
                f"Column {name} of {str(path)!r} has vectors of {dims} dims, the field"
                f" {column.name} of the index has {column.dims}."
            )
    return plan
