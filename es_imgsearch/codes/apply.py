"""Compute the codes of stored and of new pictures with the coder of the index."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from es_imgsearch.codes.coder import Coder
from es_imgsearch.codes.storage import load_coder
from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.meta_entries import CODE_FIELD, CodesEntry
from es_imgsearch.elastic.queries import parse_vector
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import UsageError

_PAGE = 1_000


def apply_codes(
    store: Store, *, on_page: Callable[[int, int], None] = lambda _checked, _changed: None
) -> int:
    """Compute the code of every stored picture; return how many changed.

    The coder is the index's.  Only documents whose code is missing or outdated are written, so the
    next run completes one that was interrupted.  `on_page` gets the numbers of pictures checked and
    changed so far.

    Raises UsageError for an index without codes, GenerationSwitched if the alias moves to another
    generation meanwhile, and errors of the store.
    """
    # The alias may move to a new generation, of another encoder.
    store = store.pinned()
    with store.switching.while_serving("codes apply"):
        coder = load_coder(store, store.info().meta)
        if coder is None:
            raise UsageError(
                f"Index {store.index!r} has no codes: make them with `es-imgsearch codes train"
                f" --index {store.index}`."
            )
        return _recode(store, coder, on_page=on_page)


def _recode(
    store: Store,
    coder: Coder,
    *among: Mapping[str, Any],
    on_page: Callable[[int, int], None] = lambda _checked, _changed: None,
) -> int:
    filters = [{"exists": {"field": VECTOR_FIELD}}, *among]

    def recoded(document: Mapping[str, Any]) -> dict[str, Any]:
        return {**document, CODE_FIELD: coder.code(document[VECTOR_FIELD])}

    store.refresh()
    checked = changed = 0
    for hits in store.listings.pages(
        filters, fields=("image_id", CODE_FIELD), vectors=[VECTOR_FIELD], size=_PAGE
    ):
        if stale := _stale(hits, coder):
            rewritten = store.rewrites.rewrite(stale, recoded)
            changed += len(rewritten.written)
            for error in rewritten.refused.values():
                raise error
        checked += len(hits)
        on_page(checked, changed)
    store.refresh()
    return changed


class CodeStep:
    """The step after embedding of an index with codes: compute each vector's code.

    Without a coder it adds no field, until `refresh` finds one.
    """

    def __init__(self, store: Store, coder: Coder | None) -> None:
        """`coder` is the one of the index now, `store` where the process writes."""
        self.coder = coder
        self._store = store
        self._has_old_codes = False

    @classmethod
    def of(cls, store: Store, meta: Meta) -> CodeStep:
        """Load the coder that `_meta` names.  Raises as `load_coder`."""
        return cls(store, load_coder(store, meta))

    def fields(self, vector: npt.ArrayLike) -> dict[str, Any]:
        """Return the field of a vector's code, of shape (dims,); none without a coder."""
        coder = self.coder
        return {} if coder is None else {CODE_FIELD: coder.code(vector)}

    def complete(self) -> int:
        """Code the stored pictures that have no code; return how many those were."""
        if self.coder is None:
            return 0
        missing = {"bool": {"must_not": [{"exists": {"field": CODE_FIELD}}]}}
        return _recode(self._store, self.coder, missing)

    def refresh(self) -> None:
        """Load the coder that the index has now, in a long-running process.

        The call after one that found another coder recodes what was written with the old one: by
        then no document with an old code is in flight.  The caller watches for another generation.
        """
        meta = self._store.info().meta
        current = load_coder(self._store, meta) if self._has_old_codes else None
        if meta.codes is not None and current is not None:
            _recode(self._store, current, *_written_since(meta.codes))
            self._has_old_codes = False
        current_hash = None if meta.codes is None else meta.codes.hash
        if current_hash != (None if self.coder is None else self.coder.hash):
            self.coder = load_coder(self._store, meta)
            self._has_old_codes = True


def _written_since(entry: CodesEntry) -> list[dict[str, Any]]:
    """Select documents written since this coder came into use.

    They may have codes of the one before.  By sequence numbers: clocks of machines differ, and a
    document may have waited for Elasticsearch.  Those of shards differ, so the lowest counts; a few
    more are compared.
    """
    return [{"range": {"_seq_no": {"gt": min(entry.until.values())}}}] if entry.until else []


def _stale(hits: Sequence[Mapping[str, Any]], coder: Coder) -> list[str]:
    """Return the ids of the pictures whose stored code is not the coder's."""
    codes = coder.codes([parse_vector(hit["fields"][VECTOR_FIELD]) for hit in hits])
    return [
        hit["_source"]["image_id"]
        for hit, code in zip(hits, codes, strict=True)
        if hit["_source"].get(CODE_FIELD) != code
    ]
