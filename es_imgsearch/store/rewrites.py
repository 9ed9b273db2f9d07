"""The one way to change a stored document: whole, with its vectors, and only if nobody else did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from es_imgsearch.errors import StoreBusy, StoreError, StoreRejected
from es_imgsearch.rewriting import (
    WHOLE_HIT,
    DocumentChange,
    Rewritten,
    changed_document,
    check_readable,
    documents_at_once,
    whole_document,
    whole_documents_body,
)
from es_imgsearch.store.documents import Documents, action_line, json_line
from es_imgsearch.store.generations import Generations
from es_imgsearch.talk import NDJSON

# Somebody who writes the same document again and again: a file that changes all the time.
_CONFLICT_TRIES = 5
_CONFLICT = 409


class Rewrites(Generations, Documents):
    """What may be done with documents as a whole."""

    def rewrite(self, image_ids: Sequence[str], change: DocumentChange) -> Rewritten:
        """Give each of these documents to `change` and write what it returns in its place.

        `change` gets everything that is stored: the fields, and vectors as float32 of shape
        (dims,), bit for bit, those of `regions` too; perceptual_hash as hexadecimal digits.  It
        returns the whole document, or None to leave it alone, and may be called again for the
        same one: a document that somebody else wrote meanwhile is read and changed anew.

        All of it happens in the generation that the alias points to when this begins.  What was
        refused for a `transient` reason may be tried again.  Raises IndexConflict where a field
        could not be carried over, ValueError for a change that loses the vector, and what a
        request raises.
        """
        store = self.pinned()
        info = store.info()
        check_readable(info.properties, info.left_out, self.index)
        size = documents_at_once(info.properties, info.left_out)
        done = Rewritten([], [], [], {})
        ids = list(dict.fromkeys(image_ids))
        for start in range(0, len(ids), size):
            open_ids: Sequence[str] = ids[start : start + size]
            for _ in range(_CONFLICT_TRIES):
                open_ids = store._rewrite_once(open_ids, change, info.left_out, done)
                if not open_ids:
                    break
            for image_id in open_ids:
                done.refused[image_id] = StoreBusy(
                    f"The document {image_id!r} is being rewritten by others."
                )
        return done

    def _rewrite_once(
        self,
        image_ids: Sequence[str],
        change: DocumentChange,
        left_out: Sequence[str],
        done: Rewritten,
    ) -> Sequence[str]:
        """Those that somebody else wrote between reading and writing; `done` has all others."""
        # A search does not see what was written in the last second, and a change that leaves
        # such a document alone would never hear of it.
        self.refresh()
        body = whole_documents_body([{"ids": {"values": list(image_ids)}}], left_out)
        hits = {hit["_id"]: hit for hit in self.whole_hits({**body, "size": len(image_ids)})}
        done.missing.extend(each for each in image_ids if each not in hits)
        changed: dict[str, Mapping[str, Any]] = {}
        for image_id, hit in hits.items():
            try:
                document = changed_document(whole_document(hit), change)
            except StoreRejected as unreadable:
                done.refused[image_id] = unreadable
                continue
            if document is None:
                done.unchanged.append(image_id)
            else:
                changed[image_id] = document
        again: list[str] = []
        for image_id, error in self._written_if_same(hits, changed):
            if error is None:
                done.written.append(image_id)
            elif isinstance(error, _Conflict):
                again.append(image_id)
            else:
                done.refused[image_id] = error
        return again

    def whole_hits(
        self, body: Mapping[str, Any], *, preference: str | None = None
    ) -> Sequence[Mapping[str, Any]]:
        """Hits of a search of `whole_documents_body`, never of a part of what was asked."""
        answer = self.request(
            "POST",
            f"/{self.pictures}/_search",
            dict(body),
            params={
                "filter_path": WHOLE_HIT,
                "allow_partial_search_results": "false",
                **({"preference": preference} if preference else {}),
            },
        )
        hits: Sequence[Mapping[str, Any]] = answer.get("hits", {}).get("hits", ())
        return hits

    def _written_if_same(
        self, hits: Mapping[str, Mapping[str, Any]], changed: Mapping[str, Mapping[str, Any]]
    ) -> Iterator[tuple[str, StoreError | None]]:
        """Write what was made of these hits, each only where it is still what it was made of."""
        if not changed:
            return
        lines = []
        for image_id, document in changed.items():
            hit = hits[image_id]
            only_if = {"if_seq_no": hit["_seq_no"], "if_primary_term": hit["_primary_term"]}
            lines += [
                action_line("index", self.pictures, image_id, **only_if),
                json_line(document),
            ]
        body = b"".join(lines)
        for result, error in self._bulk(body, NDJSON["content-type"], "_id,status,error"):
            is_conflict = error is not None and result["status"] == _CONFLICT
            yield result["_id"], _Conflict(str(error)) if is_conflict else error


class _Conflict(StoreError):
    """Somebody else wrote or deleted the document since it was read."""
