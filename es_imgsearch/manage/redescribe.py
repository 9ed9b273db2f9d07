"""Run describers again over stored pictures (`describe`); nothing is embedded.

Describers by vector get the stored vectors.  Describers by picture need the originals, which are
read again if their root is on this machine; a file that has changed since it was indexed is left to
`watch` or `sync`.  Documents are changed by `Rewrites.rewrite`, so a daemon may run at the same
time.
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
    VectorDescribers,
    has_failed,
    merge,
    merged,
    without_refused,
)
from es_imgsearch.describe.fitting import ERRORS_FIELD, fit_document
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
from es_imgsearch.elastic.meta import is_open_on
from es_imgsearch.elastic.requests import Request
from es_imgsearch.elastic.retry import Outage, persist
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.context import open_context
from es_imgsearch.embed.protocol import Encoder
from es_imgsearch.errors import ReadError, StoreError, StoreRejected, UsageError
from es_imgsearch.manage.upgrade import upgrade
from es_imgsearch.read.workers import ReadPlan, ReadWorkers
from es_imgsearch.records import Picture, Root, disk_path
from es_imgsearch.settings import Settings
from es_imgsearch.watch.roots import registered_root

# Pictures in progress at once, each with 150 kB of pixels that are not needed here.
_PAGE = 256
_FIELDS = ("image_id", "root", "relative_path", "content_id")


@dataclass(slots=True)
class RedescribeResult:
    """Result of `redescribe_pictures`, in numbers of pictures.

    Fields stay unchanged where the original is not on this machine (`elsewhere`), is not the
    indexed content any more (`changed`), or cannot be read now (`unreadable`).  `refused` could not
    be written; it has the reasons by image_id.
    """

    describers: tuple[str, ...]
    pictures: int = 0
    written: int = 0
    elsewhere: int = 0
    changed: int = 0
    unreadable: int = 0
    with_errors: int = 0
    refused: dict[str, str] = field(default_factory=dict)


def redescribe_pictures(
    store: Store,
    settings: Settings,
    *,
    only: Sequence[str] = (),
    encoder: Encoder | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> RedescribeResult:
    """Run describers over every stored picture and update its fields.

    `only` are names of describers, by default all that `settings` switch on; describers that share
    a field with one of them run too.  A document whose fields stay the same is not written.
    `on_progress` gets the number of pictures that are done and of all.

    Raises SettingsError for a describer that is not installed, UsageError if the index maps the
    fields of none of them, EncoderMismatch, and errors of requests.
    """
    # Describers whose fields an older index lacks would not run, and what they gave be lost.
    upgrade(store)
    # Vectors and tags have to be of one generation.
    store = store.pinned()
    context = open_context(
        store, settings, encoder, describers=only or settings.describers, alone=True
    )
    info, index_encoder = context.info, context.encoder
    names = _add_sharing(context.describers, info.properties, settings)
    if not names:
        raise UsageError(
            f"Index {store.index!r} has the fields of none of these describers: add them with"
            f" `es-imgsearch init --index {store.index}`."
        )
    result = RedescribeResult(tuple(names))
    describers = load_describers(names)
    by_vector = VectorDescribers([each for each in describers if is_by_vector(each)])
    by_vector.begin(VectorSpace(store.index, info.meta, index_encoder, partial(_send, store)))
    from_pictures = [each for each in describers if not is_by_vector(each)]
    store.refresh()
    total = store.listings.count()
    originals = _OriginalReader(info, settings, index_encoder, from_pictures, result)
    try:
        for hits in store.listings.pages([], fields=_FIELDS, vectors=(), size=_PAGE):
            on_progress(result.pictures, total)
            read = originals.read(hits, lambda n: on_progress(result.pictures + n, total))
            page = _PageUpdate(read, by_vector, describers, info.properties)
            ids: Sequence[str] = [hit["_source"]["image_id"] for hit in hits]
            while ids:
                outcome = store.rewrites.rewrite(ids, page.change)
                result.written += len(outcome.written)
                ids = [
                    each
                    for each, error in outcome.refused.items()
                    if page.drop_refused(each, error)
                ]
                left = outcome.refused.keys() - set(ids)
                result.refused |= {each: str(outcome.refused[each]) for each in left}
            result.pictures += len(hits)
            on_progress(result.pictures, max(total, result.pictures))
    finally:
        originals.close()
    store.refresh()
    result.with_errors = _count_with_errors(store, names)
    return result


def _send(store: Store, request: Request) -> Any:
    """Send a request of a describer; wait out an outage.

    No picture loses fields by an outage.
    """
    return persist(lambda: store.send(request), threading.Event(), Outage())


def _add_sharing(
    names: Sequence[str], properties: Mapping[str, Any], settings: Settings
) -> list[str]:
    """Add switched-on describers that share a field with one of these, transitively.

    Their contribution would be missing if the field were computed without them.  Describers whose
    fields the index does not map (`properties`) never contributed.
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


class _Original(NamedTuple):
    """An original that was read: its content, and its fields by describer."""

    content_id: str
    outputs: Mapping[str, Mapping[str, Any]]


class _PageUpdate:
    """Updates the documents of one page with new outputs of describers."""

    def __init__(
        self,
        originals: Mapping[str, _Original],
        by_vector: VectorDescribers,
        describers: Sequence[Describer],
        properties: Mapping[str, Any],
    ) -> None:
        """`originals` are those that could be read, by image_id."""
        self._properties = properties
        self._originals = originals
        self._by_vector = by_vector
        self._describers = describers
        # By image_id, the last output of each describer, and the rest of refused outputs.
        self._outputs: dict[str, dict[str, Mapping[str, Any]]] = {}
        self._refused: dict[str, dict[str, Mapping[str, Any]]] = {}

    def change(self, document: dict[str, Any]) -> Mapping[str, Any] | None:
        """Update the fields of a document; None if they stay the same."""
        outputs = self._outputs[document["image_id"]] = self._describe(document)
        failed = {name for name, fields in outputs.items() if has_failed(fields)}
        succeeded = [each for each in self._describers if each.name in outputs.keys() - failed]
        others = [each for each in self._describers if each not in succeeded]
        # Earlier output of a describer that fails or lacks its input is the best there is, also in
        # a field to which others contribute.
        preserved = {name for each in others for name in each.mapping} & document.keys()
        replaced = {name for each in succeeded for name in each.mapping} - preserved
        updated = {
            name: value
            for name, value in document.items()
            if name not in replaced and name != ERRORS_FIELD
        }
        stale = tuple(f"{name}: " for name in outputs)
        errors = [each for each in document.get(ERRORS_FIELD, ()) if not each.startswith(stale)]
        fresh = {name: value for name, value in merged(outputs).items() if name not in preserved}
        merge(updated, {**fresh, ERRORS_FIELD: [*errors, *fresh.get(ERRORS_FIELD, ())]})
        updated = fit_document(updated, self._properties, outputs)
        if not updated.get(ERRORS_FIELD):
            updated.pop(ERRORS_FIELD, None)
        return None if _to_json(updated) == _to_json(document) else updated

    def _describe(self, document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        """Output by describer, in the order in which a new picture is described."""
        outputs: dict[str, Mapping[str, Any]] = {}
        original = self._originals.get(document["image_id"])
        if original is not None and original.content_id == document.get("content_id"):
            outputs |= {name: fields for name, fields in original.outputs.items() if name}
        if VECTOR_FIELD in document and self._by_vector:
            outputs |= self._by_vector.describe(np.asarray(document[VECTOR_FIELD])[None])[0]
        return outputs | self._refused.get(document["image_id"], {})

    def drop_refused(self, image_id: str, error: StoreError) -> bool:
        """Drop refused fields of a picture; False if none of them can be dropped."""
        if not isinstance(error, StoreRejected):
            return False
        outputs = self._outputs.get(image_id, {})
        left = without_refused(outputs, error)
        if left is None:
            return False
        refused = {name: fields for name, fields in left.items() if fields is not outputs[name]}
        self._refused.setdefault(image_id, {}).update(refused)
        return True


def _to_json(document: Mapping[str, Any]) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_SORT_KEYS)


class _OriginalReader:
    """Reader of the original files of stored pictures.

    A file is read again if it is on this machine and unchanged.
    """

    def __init__(
        self,
        info: IndexInfo,
        settings: Settings,
        encoder: Encoder,
        describers: Sequence[Describer],
        result: RedescribeResult,
    ) -> None:
        self._result = result
        self._roots = _local_roots(info, settings.host)
        self._workers: ReadWorkers | None = None
        if describers:
            plan = ReadPlan.of(
                settings,
                # The size of a picture for describers may depend on the input of the encoder.
                encoder.preparation,
                describers=[each.name for each in describers],
                folders=[str(root.path) for root in self._roots.values()],
            )
            self._workers = ReadWorkers(plan, settings.read_workers)

    def read(
        self, hits: Sequence[Mapping[str, Any]], on_read: Callable[[int], None]
    ) -> dict[str, _Original]:
        """Read the originals of hits; return those that could be read, by image_id.

        `on_read` gets the number of those that are read.

        Raises ReadersFailed if no file can be read at all.
        """
        if self._workers is None:
            return {}
        sources: dict[str, Mapping[str, Any]] = {}
        for hit in hits:
            source = hit["_source"]
            root = self._roots.get(source["root"])
            if root is None:
                self._result.elsewhere += 1
            else:
                sources[root.absolute(disk_path(source["relative_path"]))] = source
        originals: dict[str, _Original] = {}
        for number, (path, outcome) in enumerate(self._workers.read_each(sources), 1):
            on_read(number)
            source = sources[path]
            if isinstance(outcome, ReadError):
                self._result.unreadable += 1
            elif isinstance(outcome, Picture) and outcome.content_id == source.get("content_id"):
                original = _Original(outcome.content_id, outcome.fields_by_source)
                originals[source["image_id"]] = original
            else:
                self._result.changed += 1
        return originals

    def close(self) -> None:
        if self._workers is not None:
            self._workers.close()


def _local_roots(info: IndexInfo, host: str) -> dict[str, Root]:
    """Find the roots whose folder is on this machine."""
    local = {}
    for name, entry in info.meta.roots.items():
        root = registered_root(name, info.meta)
        if root is None or not is_open_on(entry, host):
            continue
        if root.is_url or os.path.isdir(root.path):
            local[name] = root
    return local


def _count_with_errors(store: Store, names: Sequence[str]) -> int:
    """Count the pictures with a note that one of these describers failed."""
    clauses = [{"prefix": {ERRORS_FIELD: f"{name}:"}} for name in names]
    query = {"bool": {"should": clauses, "minimum_should_match": 1}}
    return store.listings.count_matching(query)
