"""Codes of stored pictures, brought up to date with the coder of the index."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy.typing as npt

from es_imgsearch.codes.coder import Coder
from es_imgsearch.codes.storage import load_coder
from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.meta import Meta
from es_imgsearch.elastic.meta_entries import CODE_FIELD
from es_imgsearch.elastic.queries import parse_vector
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import UsageError

_PAGE = 1_000

# What was made this long before a coder was taken into use may have been stored after all the
# others were looked at: it waited for Elasticsearch.
_SLACK = timedelta(minutes=10)


def apply_codes(
    store: Store, *, on_page: Callable[[int, int], None] = lambda _seen, _changed: None
) -> int:
    """Give every stored picture the code that the index's coder makes of its vector.

    Only documents whose code is missing or another one are written, so a run that was interrupted
    is completed by the next.  `on_page` gets how many were seen and how many changed so far; the
    latter is returned.

    Raises UsageError for an index without codes, GenerationSwitched where the index becomes
    another generation meanwhile, and errors of the store.
    """
    # A new generation may come behind the alias, of another encoder.
    store = store.pinned()
    with store.switching.while_serving("codes apply"):
        coder = load_coder(store, store.info().meta)
        if coder is None:
            raise UsageError(
                f"Index {store.index!r} has no codes: make them with `es-imgsearch codes train`."
            )
        return _recode(store, coder, on_page=on_page)


def _recode(
    store: Store,
    coder: Coder,
    *among: Mapping[str, Any],
    on_page: Callable[[int, int], None] = lambda _seen, _changed: None,
) -> int:
    filters = [{"exists": {"field": VECTOR_FIELD}}, *among]

    def recoded(document: Mapping[str, Any]) -> dict[str, Any]:
        return {**document, CODE_FIELD: coder.code(document[VECTOR_FIELD])}

    store.refresh()
    seen = changed = 0
    for hits in store.listings.pages(
        filters, fields=("image_id", CODE_FIELD), vectors=[VECTOR_FIELD], size=_PAGE
    ):
        if stale := _stale(hits, coder):
            rewritten = store.rewrites.rewrite(stale, recoded)
            changed += len(rewritten.written)
            for error in rewritten.refused.values():
                raise error
        seen += len(hits)
        on_page(seen, changed)
    store.refresh()
    return changed


class CodeStep:
    """The step after embedding of an index with codes: gives each vector its code.

    Without a coder it gives nothing, until `refresh` finds one.
    """

    def __init__(self, store: Store, coder: Coder | None) -> None:
        """`coder` is the one of the index now, `store` where the process writes."""
        self.coder = coder
        self._store = store
        self._has_old_codes = False

    @classmethod
    def of(cls, store: Store, meta: Meta) -> CodeStep:
        """With the coder that `_meta` names.  Raises as `load_coder`."""
        return cls(store, load_coder(store, meta))

    def fields(self, vector: npt.ArrayLike) -> dict[str, Any]:
        """The fields that the document gets in addition to its vector."""
        coder = self.coder
        return {} if coder is None else {CODE_FIELD: coder.code(vector)}

    def complete(self) -> int:
        """Code the stored pictures that have no code; returns how many those were."""
        if self.coder is None:
            return 0
        missing = {"bool": {"must_not": [{"exists": {"field": CODE_FIELD}}]}}
        return _recode(self._store, self.coder, missing)

    def refresh(self) -> None:
        """Take up the coder that the index has now, in a process that writes for long.

        The call after one that found another coder recodes what was written with the one before:
        by then nothing of that is on its way.  Whether another generation serves by now is for
        the process to find out.
        """
        meta = self._store.info().meta
        now = load_coder(self._store, meta) if self._has_old_codes else None
        if meta.codes is not None and now is not None:
            since = datetime.fromisoformat(meta.codes.trained_at) - _SLACK
            _recode(self._store, now, {"range": {"indexed_at": {"gte": since.isoformat()}}})
            self._has_old_codes = False
        wanted = None if meta.codes is None else meta.codes.hash
        if wanted != (None if self.coder is None else self.coder.hash):
            self.coder = load_coder(self._store, meta)
            self._has_old_codes = True


def _stale(hits: Sequence[Mapping[str, Any]], coder: Coder) -> list[str]:
    """Ids of the pictures whose code the coder would make differently of their vector."""
    codes = coder.codes([parse_vector(hit["fields"][VECTOR_FIELD]) for hit in hits])
    return [
        hit["_source"]["image_id"]
        for hit, code in zip(hits, codes, strict=True)
        if hit["_source"].get(CODE_FIELD) != code
    ]
