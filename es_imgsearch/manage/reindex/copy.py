"""From one generation into another: every field as it is, every vector as the other needs it.

    changed since the checkpoint ─┐            ┌─ same encoder: the stored vector ──────┐
    lacking in the target ────────┴─▶ fields ──┼─ content is there: the target's vector ┼─▶ target
                                               └─ original ──read──▶ embed ─────────────┘

A pass may be repeated at any time and does only what is left.  The two indices themselves show
what was done, so one that was killed is simply run again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from es_imgsearch.codes.apply import CodeStep
from es_imgsearch.elastic.bulk import BulkWriter
from es_imgsearch.elastic.documents import Write
from es_imgsearch.elastic.mapping import VECTOR_FIELD
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
from es_imgsearch.watch.reconcile import Kind, Seen, differences
from es_imgsearch.watch.roots import registered_root
from es_imgsearch.write.documents import failure_document, vector_fields

logger = logging.getLogger(__name__)

# Why else a picture of the source is not in the target, see `carried_vectors`.
FAILED = "cannot be read or embedded"
NO_VECTOR = "has no vector"

_WRITE_BATCH = 200

_MADE_BY_THE_ENCODER = {VECTOR_FIELD, REGIONS_FIELD, CODE_FIELD}


@dataclass(slots=True)
class CopyPass:
    """What one pass did: how many documents it wrote, and how many it removed.

    `lacking` has the pictures of the source that the target lacks now, by image_id: their root,
    and why.
    """

    carried: int = 0
    removed: int = 0
    lacking: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def changes(self) -> int:
        return self.carried + self.removed

    @property
    def lacking_by_reason(self) -> Counter[tuple[str, str]]:
        """How many, by root and reason."""
        return Counter(self.lacking.values())


def can_copy_vectors(source: Meta, target: Meta) -> bool:
    """Whether vectors of the source are what the target is made of: same encoder, whole, tiled."""
    return (
        source.seal.fits(target.seal)
        and source.reduction is None
        and target.grid in {None, source.grid}
    )


class GenerationCopier:
    """Brings `target` up to date with `source`; both are held to their generation."""

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
        """`encoder` gives vectors as the target stores them; None where those of the source do.

        `reduction` is that of the target, by which the vectors of the source are cut then.
        `on_progress` hears how many of how many pictures the target has.  `codes` adds
        codes to pictures; each pass looks for its coder.
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
        # What failed in this run is not read again in each of its passes.
        self._failed: dict[str, FileState] = {}
        # Pictures of the target that are failures of the source, in the same state.
        self._only_there: set[str] = set()
        self._writes: list[Write] = []
        self._writer = BulkWriter(
            target.documents.write_each, outage=Outage(), stopping=threading.Event()
        )
        # What took long to embed is kept at once, or a kill would lose it.
        self._bulk_size = _WRITE_BATCH
        if encoder is not None:
            self._bulk_size = batch_size(encoder, settings.batch_size)
        self._done = CopyPass()
        self._there = self._total = 0

    @property
    def pictures_embedded(self) -> int:
        """How many pictures went through the encoder so far."""
        return 0 if self._vectors is None else self._vectors.pictures

    def close(self) -> None:
        """End the reading processes."""
        if self._vectors is not None:
            self._vectors.close()

    def run_pass(self) -> CopyPass:
        """Carry what differs, once.  After a `transient` error of the store, call it again."""
        # Before it is looked what was learned: what is recoded after that is newer than this.
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
            # What is written from here on is newer than this, whenever the first pass ends.
            self._note(until)
        self._target.refresh()
        self._total, self._there = self._source.listings.count(), self._target.listings.count()
        self._carry_failures()
        if since is not None:
            self._carry(self._changed(since))
            self._target.refresh()
        self._carry(self._lacking())
        if since is not None:
            self._note(until)
        self._target.refresh()
        return self._done

    # -- what is to be carried ---------------------------------------------------------------

    def _changed(self, since: Mapping[str, int]) -> Iterator[Mapping[str, Any]]:
        """Whole documents, as hits, that are newer than the checkpoint."""
        size = documents_at_once(self._from.properties, self._from.source_excludes)
        for hits in self._source.rewrites.changed_since(since, self._from.source_excludes, size):
            yield from hits

    def _lacking(self) -> Iterator[Mapping[str, Any]]:
        """Whole documents, as hits, that the target has not or in another state."""
        source_excludes = self._from.source_excludes
        size = documents_at_once(self._from.properties, source_excludes)
        lacking = self._lacking_ids()
        while ids := list(islice(lacking, size)):
            yield from self._source.rewrites.whole(ids, source_excludes)

    def _lacking_ids(self) -> Iterator[str]:
        """Ids that the target lacks, or has in another state; what only it has is removed."""
        names = (
            self._source.listings.counts_by_root().keys()
            | self._target.listings.counts_by_root().keys()
        )
        for name in sorted(names):
            stored = (Seen(*each) for each in self._source.listings.stored(name))
            lost: list[str] = []
            for each in differences(stored, self._target.listings.stored(name), ()):
                found = image_id(name, each.relative_path)
                if each.kind is not Kind.LOST:
                    yield found
                elif found not in self._only_there:
                    lost.append(found)
            self._target.documents.delete(lost)
            self._done.removed += len(lost)

    # -- carrying ----------------------------------------------------------------------------

    def _carry(self, hits: Iterator[Mapping[str, Any]]) -> None:
        while page := list(islice(hits, _WRITE_BATCH)):
            documents = []
            for hit in page:
                try:
                    documents.append(whole_document(hit))
                except StoreRejected:
                    self._lacks(hit["_source"], FAILED)
            if self._vectors is None:
                for document in documents:
                    self._copy(document)
            else:
                for document, outcome in self._vectors.of(self._readable(documents)):
                    self._embedded(document, outcome)
        if self._vectors is not None:
            for document, outcome in self._vectors.rest():
                self._embedded(document, outcome)
        self._flush()

    def _readable(self, documents: Sequence[Document]) -> Iterator[Document]:
        for document in documents:
            if self._failed.get(document["image_id"]) == FileState.stored(document):
                self._lacks(document, FAILED)
            else:
                yield document

    def _copy(self, document: Document) -> None:
        """The same encoder: its vectors as the target stores them."""
        if VECTOR_FIELD not in document:
            self._lacks(document, NO_VECTOR)
            return
        if self._reduction is not None:
            document[VECTOR_FIELD] = self._reduction.reduce(document[VECTOR_FIELD][None])[0]
        if self._to.meta.grid is None:
            document.pop(REGIONS_FIELD, None)
        document.pop(CODE_FIELD, None)
        self._write_picture(document)

    def _embedded(self, document: Document, outcome: EmbedOutcome) -> None:
        if isinstance(outcome, Embedded):
            left = {*_MADE_BY_THE_ENCODER, "embed_ms"}
            kept = {name: value for name, value in document.items() if name not in left}
            self._write_picture({**kept, **outcome.fields, **vector_fields(outcome)})
            return
        if isinstance(outcome, ReadError):
            self._fail(document, outcome)
            return
        self._lacks(document, outcome)

    def _fail(self, document: Document, error: ReadError) -> None:
        root = registered_root(document["root"], self._from.meta)
        if root is not None:
            change = Change(root, disk_path(document["relative_path"]), time.time())
            failure = failure_document(change, error, FileState.stored(document))
            self._write(Write(document["image_id"], failure=failure), counts=False)
        else:
            self._failed[document["image_id"]] = FileState.stored(document)
        self._lacks(document, FAILED)

    def _lacks(self, document: Mapping[str, Any], reason: str) -> None:
        self._done.lacking[document["image_id"]] = document["root"], reason

    # -- writing -----------------------------------------------------------------------------

    def _write_picture(self, document: Document) -> None:
        document |= self.codes.fields(document[VECTOR_FIELD])
        self._write(Write(document["image_id"], document=document))

    def _write(self, write: Write, *, counts: bool = True) -> None:
        self._writes.append(write)
        self._done.carried += counts
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
                self._done.carried -= 1
                self._fail(dict(write.document), ReadError("rejected", str(error)))
        self._on_progress(min(self._total, self._there + self._done.carried), self._total)

    def _carry_failures(self) -> None:
        """Have the target's failures be those of the source, and those that are its own."""
        ours = {each["image_id"]: each for each in self._source.listings.failures()}
        # What only the encoder of the source refused is a picture in the target all the same.
        states = self._target.documents.states(list(ours)) if ours else {}
        self._only_there = {
            each for each, state in states.items() if state == FileState.stored(ours[each])
        }
        ours = {found: each for found, each in ours.items() if found not in self._only_there}
        theirs = {each["image_id"]: each for each in self._target.listings.failures()}
        self._target.documents.write_failures(
            [each for found, each in ours.items() if theirs.get(found) != each]
        )
        others = sorted(theirs.keys() - ours.keys())
        # A picture of the source that could not be embedded for the target stays its failure.
        there = self._source.documents.existing(others) if others else set()
        self._target.documents.delete(each for each in others if each not in there)

    def _map_fields(self) -> None:
        """Fields that the source was given since the target was made."""
        known = self._to.properties
        self._target.generations.map_fields(
            {
                name: mapping
                for name, mapping in self._from.properties.items()
                if name not in known and name not in _MADE_BY_THE_ENCODER
            }
        )

    def _learn(self) -> None:
        """Take over what was learned of the source's vectors since, and load the coder."""
        source, mapped = self._from.meta, self._to.properties.get(CODE_FIELD)
        if source.codes and mapped and mapped["dims"] != source.codes.bits:
            # Its own codes are as good.
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
            # They could be trained anew only in the generation that serves.
            logger.warning("%s Pictures are carried without codes.", error)
            self.codes = CodeStep(self._target, None)

    def _note(self, until: Mapping[str, int]) -> None:
        checkpoint = CopyCheckpoint(str(self._source.generation), until)
        self._target.generations.update_meta(lambda meta: replace(meta, copy_checkpoint=checkpoint))
