"""`describe`: described fields of stored pictures made anew; nothing is embedded, no vector lost.

Fields that come from vectors are made of the stored ones.  Fields that come from pictures need the
originals, which are read again where their root is on this machine; a file that has changed since
it was indexed is left to `watch` or `sync`.  Documents are changed through `Rewrites.rewrite`, so a
daemon may run at the same time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import orjson

from es_imgsearch.describe.fields import (
    ERRORS_FIELD,
    VectorDescribers,
    merge,
    merged,
    without_refused,
)
from es_imgsearch.describe.registry import (
    Describer,
    VectorSpace,
    chosen_describers,
    is_by_vector,
    load_describers,
    unmapped_fields,
)
from es_imgsearch.elastic.generations import IndexInfo
from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.requests import Request
from es_imgsearch.elastic.retry import Outage, persist
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.context import open_context
from es_imgsearch.embed.protocol import Encoder
from es_imgsearch.errors import ReadError, StoreError, StoreRejected, UsageError
from es_imgsearch.read.workers import ReadPlan, ReadWorkers
from es_imgsearch.records import Picture, Root, disk_path
from es_imgsearch.settings import Settings
from es_imgsearch.watch.roots import registered_root

# Pictures on their way at once, each with 150 kB of pixels that are not needed here.
_PAGE = 256
_FIELDS = ("image_id", "root", "relative_path", "content_id")


@dataclass(slots=True)
class Refreshed:
    """What `refresh_described` did, in pictures.

    `elsewhere` have no original on this machine, `changed` one that is no longer what was indexed,
    and `unreadable` one that cannot be read now: the fields of their pictures stayed as they were.
    `refused` could not be written, by image_id, for the reason that stands there.
    """

    describers: tuple[str, ...]
    pictures: int = 0
    written: int = 0
    elsewhere: int = 0
    changed: int = 0
    unreadable: int = 0
    with_errors: int = 0
    refused: dict[str, str] = field(default_factory=dict)


def refresh_described(
    store: Store,
    settings: Settings,
    *,
    only: Sequence[str] = (),
    encoder: Encoder | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> Refreshed:
    """Let describers look at every stored picture again, and store what they say now.

    `only` are the names of those that shall, by default all that `settings` switch on; those that
    share a field with one of them look as well.  A document whose fields stay the same is not
    written.  `on_progress` gets how many pictures of how many are done.

    Raises SettingsError for a describer that is not installed, UsageError where the index maps
    the fields of none of them, EncoderMismatch, and what a request raises.
    """
    # Its vectors and its tags are those of one generation.
    store = store.pinned()
    context = open_context(
        store, settings, encoder, describers=only or settings.describers, alone=True
    )
    info, writing = context.info, context.encoder
    names = _with_sharing(context.describers, info.properties, settings)
    if not names:
        raise UsageError(
            f"Index {store.index!r} has the fields of none of these describers: add them with"
            f" `es-imgsearch init --index {store.index}`."
        )
    done = Refreshed(tuple(names))
    describers = load_describers(names)
    by_vector = VectorDescribers([each for each in describers if is_by_vector(each)])
    by_vector.begin(VectorSpace(store.index, info.meta, writing, partial(_send, store)))
    from_pictures = [each for each in describers if not is_by_vector(each)]
    store.refresh()
    total = store.listings.count()
    originals = _Originals(info, settings, writing, from_pictures, done)
    try:
        for hits in store.listings.pages([], fields=_FIELDS, vectors=(), size=_PAGE):
            page = _Page(originals.read(hits), by_vector, describers)
            ids: Sequence[str] = [hit["_source"]["image_id"] for hit in hits]
            while ids:
                outcome = store.rewrites.rewrite(ids, page.changed)
                done.written += len(outcome.written)
                ids = [each for each, error in outcome.refused.items() if page.mend(each, error)]
                left = outcome.refused.keys() - set(ids)
                done.refused |= {each: str(outcome.refused[each]) for each in left}
            done.pictures += len(hits)
            on_progress(done.pictures, max(total, done.pictures))
    finally:
        originals.close()
    store.refresh()
    done.with_errors = _with_errors(store, names)
    return done


def _send(store: Store, request: Request) -> Any:
    """Whatever describers ask for waits out an outage: it must not cost pictures their fields."""
    return persist(lambda: store.send(request), threading.Event(), Outage())


def _with_sharing(
    names: Sequence[str], properties: Mapping[str, Any], settings: Settings
) -> list[str]:
    """With every describer switched on that maps a field of one of these, and so on.

    What one gave alone would be missing if the field were made without it.  Those whose fields the
    index does not map (`properties`) never gave anything.
    """
    chosen = {each.name: each for each in load_describers(names)}
    others = {
        each.name: each
        for each in chosen_describers(settings.describers)
        if not unmapped_fields(each, properties)
    }
    while True:
        fields = {name for each in chosen.values() for name in each.mapping}
        sharing = {
            name: each
            for name, each in others.items()
            if name not in chosen and fields & each.mapping.keys()
        }
        if not sharing:
            return sorted(chosen)
        chosen |= sharing


class _Read(NamedTuple):
    """An original that was read: its content, and its fields by describer."""

    content_id: str
    described: Mapping[str, Mapping[str, Any]]


class _Page:
    """Stored pictures of one page, and what describers say of them now."""

    def __init__(
        self,
        read: Mapping[str, _Read],
        by_vector: VectorDescribers,
        describers: Sequence[Describer],
    ) -> None:
        """`read` are the originals that could be, by image_id."""
        self._read = read
        self._by_vector = by_vector
        self._describers = describers
        # By image_id, what each describer gave last, and what was left of refused fields.
        self._told: dict[str, dict[str, Mapping[str, Any]]] = {}
        self._refused: dict[str, dict[str, Mapping[str, Any]]] = {}

    def changed(self, document: dict[str, Any]) -> Mapping[str, Any] | None:
        """The document with what describers say now; None where that is what it says already."""
        told = self._told[document["image_id"]] = self._now(document)
        notes = {name for name, fields in told.items() if ERRORS_FIELD in fields}
        spoke = [each for each in self._describers if each.name in told.keys() - notes]
        silent = [each for each in self._describers if each not in spoke]
        # What one that fails, or could not look, said before is still the best there is, also of a
        # field to which others contribute.
        shielded = {name for each in silent for name in each.mapping} & document.keys()
        replaced = {name for each in spoke for name in each.mapping} - shielded
        kept = {
            name: value
            for name, value in document.items()
            if name not in replaced and name != ERRORS_FIELD
        }
        stale = tuple(f"{name}: " for name in told)
        errors = [each for each in document.get(ERRORS_FIELD, ()) if not each.startswith(stale)]
        fresh = {name: value for name, value in merged(told).items() if name not in shielded}
        merge(kept, {**fresh, ERRORS_FIELD: [*errors, *fresh.get(ERRORS_FIELD, ())]})
        if not kept.get(ERRORS_FIELD):
            kept.pop(ERRORS_FIELD, None)
        return None if _as_written(kept) == _as_written(document) else kept

    def _now(self, document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        """By describer, in the order in which a new picture is described."""
        told: dict[str, Mapping[str, Any]] = {}
        original = self._read.get(document["image_id"])
        if original is not None and original.content_id == document.get("content_id"):
            told |= {name: fields for name, fields in original.described.items() if name}
        if VECTOR_FIELD in document and self._by_vector:
            told |= self._by_vector.describe(np.asarray(document[VECTOR_FIELD])[None])[0]
        return told | self._refused.get(document["image_id"], {})

    def mend(self, image_id: str, error: StoreError) -> bool:
        """Leave out what was refused of a picture's fields; False where it gets no better."""
        if not isinstance(error, StoreRejected):
            return False
        told = self._told.get(image_id, {})
        left = without_refused(told, error)
        if left is None:
            return False
        refused = {name: fields for name, fields in left.items() if fields is not told[name]}
        self._refused.setdefault(image_id, {}).update(refused)
        return True


def _as_written(document: Mapping[str, Any]) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_SORT_KEYS)


class _Originals:
    """Reads the files of stored pictures again, as far as they are here and the same."""

    def __init__(
        self,
        info: IndexInfo,
        settings: Settings,
        encoder: Encoder,
        describers: Sequence[Describer],
        done: Refreshed,
    ) -> None:
        self._done = done
        self._roots = _roots_here(info, settings.host)
        self._workers: ReadWorkers | None = None
        if describers:
            plan = ReadPlan.of(
                settings,
                # What describers see may depend on how large the encoder wants a picture.
                encoder.preparation,
                describers=[each.name for each in describers],
            )
            self._workers = ReadWorkers(plan, settings.read_workers)

    def read(self, hits: Sequence[Mapping[str, Any]]) -> dict[str, _Read]:
        """Originals that could be read, by image_id.

        Raises ReadersFailed where no file can be read at all.
        """
        if self._workers is None:
            return {}
        sources: dict[str, Mapping[str, Any]] = {}
        for hit in hits:
            source = hit["_source"]
            root = self._roots.get(source["root"])
            if root is None:
                self._done.elsewhere += 1
            else:
                sources[root.absolute(disk_path(source["relative_path"]))] = source
        found: dict[str, _Read] = {}
        for path, outcome in self._workers.read_each(sources):
            source = sources[path]
            if isinstance(outcome, ReadError):
                self._done.unreadable += 1
            elif isinstance(outcome, Picture) and outcome.content_id == source.get("content_id"):
                found[source["image_id"]] = _Read(outcome.content_id, outcome.described)
            else:
                self._done.changed += 1
        return found

    def close(self) -> None:
        if self._workers is not None:
            self._workers.close()


def _roots_here(info: IndexInfo, host: str) -> dict[str, Root]:
    """Roots whose folder this machine can see."""
    found = {}
    for name, entry in info.meta.roots.items():
        root = registered_root(name, info.meta)
        if root is not None and entry["host"] == host and os.path.isdir(root.path):
            found[name] = root
    return found


def _with_errors(store: Store, names: Sequence[str]) -> int:
    """How many pictures have a note that one of these describers failed."""
    clauses = [{"prefix": {ERRORS_FIELD: f"{name}:"}} for name in names]
    query = {"bool": {"should": clauses, "minimum_should_match": 1}}
    return store.listings.count_matching(query)
