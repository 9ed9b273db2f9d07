"""Copy one generation into another.

Fields are copied unchanged, vectors as the target stores them.

    changed since the checkpoint ─┐            ┌─ same encoder: the stored vector ────────┐
    missing in the target ────────┴─▶ fields ──┼─ same content in the target: its vector ─┼─▶ target
                                               └─ original ──read──▶ embed ───────────────┘

A pass may be repeated at any time and does only what is left: the two indices show what was done,
so an interrupted run is simply started again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from es_imgsearch.codes.apply import CodeStep
from es_imgsearch.describe.fields import with_composed_texts
from es_imgsearch.describe.fitting import fit_document
from es_imgsearch.elastic.bulk import BulkWriter
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import VECTOR_FIELD, with_analysers_of
from es_imgsearch.elastic.meta import Meta, with_learned
from es_imgsearch.elastic.meta_entries import CODE_FIELD, CopyCheckpoint, code_mapping
from es_imgsearch.elastic.retry import Outage
from es_imgsearch.elastic.rewrites import check_readable, documents_at_once, whole_document
from es_imgsearch.elastic.store import Store
from es_imgsearch.embed.protocol import Encoder
from es_imgsearch.embed.reduction import Reduction
from es_imgsearch.embed.runtime.network import batch_size
from es_imgsearch.errors import IndexConflict, ReadError, StoreRejected
from es_imgsearch.manage.reindex.re_embed import Document, EmbedOutcome, ReEmbedder
from es_imgsearch.records import REGIONS_FIELD, Change, Embedded, FileState, disk_path, image_id
from es_imgsearch.settings import Settings
from es_imgsearch.watch.places import FileOnDisk
from es_imgsearch.watch.reconcile import DifferenceKind, differences
from es_imgsearch.watch.roots import registered_root
from es_imgsearch.write.documents import failure_document, vector_fields

logger = logging.getLogger(__name__)

# Further reasons why a picture of the source is not in the target, see `re_embed`.
FAILED = "cannot be read or embedded"
NO_VECTOR = "has no vector"

_WRITE_BATCH = 200

_VECTOR_FIELDS = {VECTOR_FIELD, REGIONS_FIELD, CODE_FIELD}


@dataclass(slots=True)
class CopyPass:
    """Result of one pass: numbers of copied and of removed documents.

    `missing` has root and reason, by image_id, of the pictures of the source that the target lacks.
    """

    copied: int = 0
    removed: int = 0
    missing: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def changes(self) -> int:
        """Number of documents that were written or removed."""
        return self.copied + self.removed


def can_copy_vectors(source: Meta, target: Meta) -> bool:
    """Check that the target needs no vectors but those of the source."""
    return (
        source.seal.fits(target.seal)
        and source.reduction is None
        and target.grid in {None, source.grid}
    )


class GenerationCopier:
    """Brings `target` up to date with `source`; both are held to a generation."""

    def __init__(
        self,
        source: Store,
        target: Store,
        settings: Settings,
        *,
        encoder: Encoder | None,
        reduction: Reduction | None = None,
        on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        """`encoder` embeds for the target; None if it can copy the vectors of the source.

        `reduction` is that of the target and applies to copied vectors.  `on_progress` gets the
        number of pictures in the target and of all.  `codes` adds binary codes to pictures; each
        pass loads its coder again.
        """
        self._source, self._target, self._settings = source, target, settings
        self._from, self._to = source.info(), target.info()
        check_readable(self._from.properties, self._from.source_excludes, source.index)
        self._reduction = reduction
        self.codes = CodeStep(target, None)
        self._on_progress = on_progress
        self._vectors: ReEmbedder | None = None
        if encoder is not None:
            self._vectors = ReEmbedder(target, self._to.meta, encoder, settings)
        # Files that failed in this run are not read again in each of its passes.
        self._failed: dict[str, FileState] = {}
        # Pictures of the target that are failures of the source, in the same state.
        self._only_there: set[str] = set()
        self._writes: list[Write] = []
        self._writer = BulkWriter(
            target.documents.write_each,
            is_writable=lambda write: target.documents.is_writable(write.image_id),
            outage=Outage(),
            stopping=threading.Event(),
        )
        # Embedded pictures are written batch by batch, so that a kill loses few.
        self._bulk_size = _WRITE_BATCH
        if encoder is not None:
            self._bulk_size = batch_size(encoder, settings.batch_size)
        self._done = CopyPass()
        self._there = self._total = 0

    @property
    def pictures_embedded(self) -> int:
        """Number of pictures that went through the encoder so far."""
        return 0 if self._vectors is None else self._vectors.pictures

    def close(self) -> None:
        """End the reading processes."""
        if self._vectors is not None:
            self._vectors.close()

    def run_pass(self) -> CopyPass:
        """Copy differing documents, once.

        After a `transient` error of the store, call it again.
        """
        # Read before curves and coder are: documents recoded after that are newer than this.
        until = self._source.rewrites.checkpoints()
        self._from, self._to = self._source.info(), self._target.info()
        if self._vectors is not None:
            self._vectors.begin(self._from.meta)
        self._map_fields()
        self._learn()
        self._done, self._writes = CopyPass(), []
        copied = self._to.meta.copy_checkpoint
        since = copied.until if copied and copied.source == self._source.generation else None
        if since is None:
            # Later writes are newer than this, whenever the first pass ends.
            self._store_checkpoint(until)
        self._target.refresh()
        self._total, self._there = self._source.listings.count(), self._target.listings.count()
        self._copy_failures()
        if since is not None:
            self._copy_all(self._changed(since))
            self._target.refresh()
        self._copy_all(self._missing())
        if since is not None:
            self._store_checkpoint(until)
        self._target.refresh()
        return self._done

    # -- documents to copy -------------------------------------------------------------------

    def _changed(self, since: Mapping[str, int]) -> Iterator[Mapping[str, Any]]:
        """Read whole documents, as hits, that are newer than the checkpoint."""
        size = documents_at_once(self._from.properties, self._from.source_excludes)
        for hits in self._source.rewrites.changed_since(since, self._from.source_excludes, size):
            yield from hits

    def _missing(self) -> Iterator[Mapping[str, Any]]:
        """Read whole documents, as hits, that the target lacks or has in another state."""
        source_excludes = self._from.source_excludes
        size = documents_at_once(self._from.properties, source_excludes)
        missing = self._missing_ids()
        while ids := list(islice(missing, size)):
            yield from self._source.rewrites.whole(ids, source_excludes)

    def _missing_ids(self) -> Iterator[str]:
        """Yield ids that the target lacks or has in another state.

        Ids that only the target has are removed from it.
        """
        names = (
            self._source.listings.counts_by_root().keys()
            | self._target.listings.counts_by_root().keys()
        )
        for name in sorted(names):
            stored = (FileOnDisk(*each[:2]) for each in self._source.listings.stored(name))
            lost: list[str] = []
            for each in differences(stored, self._target.listings.stored(name), ()):
                identity = image_id(name, each.relative_path)
                if each.kind is not DifferenceKind.LOST:
                    yield identity
                elif identity not in self._only_there:
                    lost.append(identity)
            self._target.documents.delete(lost)
            self._done.removed += len(lost)

    # -- copying -----------------------------------------------------------------------------

    def _copy_all(self, hits: Iterator[Mapping[str, Any]]) -> None:
        while page := list(islice(hits, _WRITE_BATCH)):
            documents = []
            for hit in page:
                try:
                    documents.append(with_composed_texts(whole_document(hit)))
                except StoreRejected:
                    self._note_missing(hit["_source"], FAILED)
            if self._vectors is None:
                for document in documents:
                    self._copy(document)
            else:
                for document, outcome in self._vectors.embed(self._readable(documents)):
                    self._write_embedded(document, outcome)
        if self._vectors is not None:
            for document, outcome in self._vectors.finish():
                self._write_embedded(document, outcome)
        self._flush()

    def _readable(self, documents: Sequence[Document]) -> Iterator[Document]:
        for document in documents:
            if self._failed.get(document["image_id"]) == FileState.stored(document):
                self._note_missing(document, FAILED)
            else:
                yield document

    def _copy(self, document: Document) -> None:
        """Write a document with the vectors of the source, as the target stores them."""
        if VECTOR_FIELD not in document:
            self._note_missing(document, NO_VECTOR)
            return
        if self._reduction is not None:
            document[VECTOR_FIELD] = self._reduction.reduce(document[VECTOR_FIELD][None])[0]
        if self._to.meta.grid is None:
            document.pop(REGIONS_FIELD, None)
        document.pop(CODE_FIELD, None)
        self._write_picture(document)

    def _write_embedded(self, document: Document, outcome: EmbedOutcome) -> None:
        if isinstance(outcome, Embedded):
            replaced = {*_VECTOR_FIELDS, "embed_ms"}
            copied = {name: value for name, value in document.items() if name not in replaced}
            document = {**copied, **with_composed_texts(outcome.fields), **vector_fields(outcome)}
            given = {"encoder": outcome.fields}
            self._write_picture(fit_document(document, self._to.properties, given))
        elif isinstance(outcome, ReadError):
            self._fail(document, outcome)
        else:
            self._note_missing(document, outcome)

    def _fail(self, document: Document, error: ReadError) -> None:
        root = registered_root(document["root"], self._from.meta)
        if root is not None:
            change = Change(root, disk_path(document["relative_path"]), time.time())
            failure = failure_document(change, error, FileState.stored(document))
            self._write(Write(document["image_id"], failure=failure), counts=False)
        else:
            self._failed[document["image_id"]] = FileState.stored(document)
        self._note_missing(document, FAILED)

    def _note_missing(self, document: Mapping[str, Any], reason: str) -> None:
        self._done.missing[document["image_id"]] = document["root"], reason

    # -- writing -----------------------------------------------------------------------------

    def _write_picture(self, document: Document) -> None:
        document |= self.codes.fields(document[VECTOR_FIELD])
        self._write(Write(document["image_id"], document=document))

    def _write(self, write: Write, *, counts: bool = True) -> None:
        self._writes.append(write)
        self._done.copied += counts
        if len(self._writes) >= self._bulk_size:
            self._flush()

    def _flush(self) -> None:
        while self._writes:
            writes, self._writes = self._writes, []
            for write, error in self._writer.write(writes):
                if error is None:
                    if write.failure is not None:
                        self._failed[write.image_id] = FileState.stored(write.failure)
                    continue
                if write.document is None:
                    raise error
                self._done.copied -= 1
                self._fail(dict(write.document), ReadError("rejected", str(error)))
        self._on_progress(min(self._total, self._there + self._done.copied), self._total)

    def _copy_failures(self) -> None:
        """Copy the failures of the source; keep those that only the target has."""
        ours = {each["image_id"]: each for each in self._source.listings.failures()}
        # A picture that only the encoder of the source refused stays a picture in the target.
        states = self._target.documents.states(list(ours)) if ours else {}
        self._only_there = {
            each for each, state in states.items() if state == FileState.stored(ours[each])
        }
        ours = {key: each for key, each in ours.items() if key not in self._only_there}
        theirs = {each["image_id"]: each for each in self._target.listings.failures()}
        self._target.documents.write_failures(
            [each for key, each in ours.items() if theirs.get(key) != each]
        )
        others = sorted(theirs.keys() - ours.keys())
        # A picture of the source that could not be embedded for the target stays its failure.
        pictures = self._source.documents.existing(others) if others else set()
        self._target.documents.delete(each for each in others if each not in pictures)

    def _map_fields(self) -> None:
        """Map the fields that the source got since the target was created."""
        known = self._to.properties
        missing = {
            name: mapping
            for name, mapping in self._from.properties.items()
            if name not in known and name not in _VECTOR_FIELDS
        }
        self._target.generations.map_fields(with_analysers_of(known, missing))

    def _learn(self) -> None:
        """Copy curves and codes that the source got since, and load the coder."""
        source, mapped = self._from.meta, self._to.properties.get(CODE_FIELD)
        if source.codes and mapped and mapped["dims"] != source.codes.bits:
            # Codes of another length: the target keeps its own.
            source = replace(source, codes=None)
        learned = with_learned(self._to.meta, source)
        if learned != self._to.meta:
            if learned.codes and not mapped:
                self._target.generations.map_fields({CODE_FIELD: code_mapping(learned.codes.bits)})
            self._target.generations.update_meta(lambda meta: with_learned(meta, source))
            self._to = self._target.info()
        try:
            self.codes = CodeStep.of(self._target, self._to.meta)
        except IndexConflict as error:
            # Codes can be trained only in the generation that serves.
            logger.warning("%s Pictures are copied without codes.", error)
            self.codes = CodeStep(self._target, None)

    def _store_checkpoint(self, until: Mapping[str, int]) -> None:
        checkpoint = CopyCheckpoint(str(self._source.generation), until)
        self._target.generations.update_meta(lambda meta: replace(meta, copy_checkpoint=checkpoint))
