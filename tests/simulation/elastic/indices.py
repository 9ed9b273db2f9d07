"""One index: documents with versions, what of them is searchable, settings and blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.simulation.elastic.mapping import IndexMapping, Values
from tests.simulation.elastic.refusals import Refusal, illegal_argument

_MOST_ID_BYTES = 512
_FLOODED = (
    "TOO_MANY_REQUESTS/12/disk usage exceeded flood-stage watermark, index has"
    " read-only-allow-delete block"
)
_BLOCKS = {
    "read_only": (403, "FORBIDDEN/5/index read-only (api)"),
    "write": (403, "FORBIDDEN/8/index write (api)"),
    "read_only_allow_delete": (429, _FLOODED),
}
# Settings that may change while an index is open.
_DYNAMIC = {
    *(f"index.blocks.{name}" for name in ("read_only", "write", "read_only_allow_delete")),
    *("index.refresh_interval", "index.number_of_replicas", "index.auto_expand_replicas"),
}

_ALWAYS_DYNAMIC = {"index.blocks.read_only", "index.blocks.read_only_allow_delete"}


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """One version of a document; `order` is that of Lucene without a sort."""

    document_id: str
    seq_no: int
    term: int
    version: int
    source: dict[str, Any]
    values: Values


class SimulatedIndex:
    """An index of one shard."""

    def __init__(
        self, name: str, uuid: str, mapping: IndexMapping, settings: Mapping[str, str]
    ) -> None:
        self.name, self.uuid, self.mapping = name, uuid, mapping
        self.settings = dict(settings)
        self.aliases: dict[str, dict[str, Any]] = {}
        self.is_closed = False
        self._is_block_verified = False
        # What was acknowledged, and what searches see.
        self.documents: dict[str, StoredDocument] = {}
        self.searchable: dict[str, StoredDocument] = {}
        self._versions: dict[str, int] = {}
        self._unrefreshed: set[str] = set()
        self.max_seq_no = -1
        # It rises when the shard begins anew, which here is when the index is closed and opened.
        self.term = 1

    # -- documents ---------------------------------------------------------------------------

    def write(
        self,
        document_id: str,
        source: Mapping[str, Any],
        *,
        must_be_new: bool = False,
        if_seq_no: tuple[int, int] | None = None,
    ) -> tuple[StoredDocument, bool]:
        """Store a document; return it and whether it is a new one.  Raises Refusal."""
        self.check_writable()
        if len(document_id.encode()) > _MOST_ID_BYTES:
            raise illegal_argument(
                f"id [{document_id}] is too long, must be no longer than {_MOST_ID_BYTES} bytes"
                f" but was: {len(document_id.encode())}"
            )
        parsed = self.mapping.parse(document_id, source)
        before = self._check_version(document_id, must_be_new, if_seq_no)
        version = self._number(document_id)
        stored = StoredDocument(document_id, self.max_seq_no, self.term, version, *parsed)
        self.documents[document_id] = stored
        return stored, before is None

    def delete(
        self, document_id: str, if_seq_no: tuple[int, int] | None = None
    ) -> tuple[int, int, bool]:
        """Delete a document; return version, number and whether there was one."""
        self.check_writable()
        self._check_version(document_id, False, if_seq_no)
        version = self._number(document_id)
        return version, self.max_seq_no, self.documents.pop(document_id, None) is not None

    def _number(self, document_id: str) -> int:
        """Count a write; return the version that it makes."""
        self.max_seq_no += 1
        self._unrefreshed.add(document_id)
        version = self._versions.get(document_id, 0) + 1
        self._versions[document_id] = version
        return version

    def _check_version(
        self, document_id: str, must_be_new: bool, if_seq_no: tuple[int, int] | None
    ) -> StoredDocument | None:
        before = self.documents.get(document_id)
        if must_be_new and before is not None:
            raise self._conflict(
                f"[{document_id}]: version conflict, document already exists (current version"
                f" [{before.version}])"
            )
        if if_seq_no is not None:
            seq_no, term = if_seq_no
            reason = (
                f"[{document_id}]: version conflict, required seqNo [{seq_no}], primary term"
                f" [{term}]. "
            )
            if before is None:
                raise self._conflict(f"{reason}but no document was found")
            if if_seq_no != (before.seq_no, before.term):
                raise self._conflict(
                    f"{reason}current document has seqNo [{before.seq_no}] and primary term"
                    f" [{before.term}]"
                )
        return before

    def _conflict(self, reason: str) -> Refusal:
        return Refusal(
            409,
            "version_conflict_engine_exception",
            reason,
            index_uuid=self.uuid,
            shard="0",
            index=self.name,
        )

    def refresh(self) -> None:
        """Make everything that was acknowledged searchable."""
        for document_id in self._unrefreshed:
            # Taken out first: a rewritten document comes last again.
            self.searchable.pop(document_id, None)
        for document_id in sorted(self._unrefreshed, key=self._written_at):
            if (stored := self.documents.get(document_id)) is not None:
                self.searchable[document_id] = stored
        self._unrefreshed.clear()

    def _written_at(self, document_id: str) -> int:
        stored = self.documents.get(document_id)
        return -1 if stored is None else stored.seq_no

    # -- settings and blocks -----------------------------------------------------------------

    def set_closed(self, closed: bool) -> None:
        """Close or open the index; what was written is searchable afterwards."""
        if closed != self.is_closed:
            self.refresh()
            self.term += 1
            self.is_closed = closed

    def block_writes(self) -> bool:
        """Block writes; False if a request for it did so before and the block is still there."""
        had_block = self._is_block_verified and bool(self._blocks("write"))
        self.settings["index.blocks.write"] = "true"
        self._is_block_verified = True
        return not had_block

    def check_open(self) -> None:
        """Raise Refusal for a closed index."""
        if self.is_closed:
            raise Refusal(
                400, "index_closed_exception", "closed", index_uuid=self.uuid, index=self.name
            )

    def check_writable(self) -> None:
        """Raise Refusal if documents must not be written."""
        self.check_open()
        if blocks := self._blocks("read_only", "write", "read_only_allow_delete"):
            raise self._blocked(blocks)

    def check_changeable(self) -> None:
        """Raise Refusal if the index itself must not be changed or deleted."""
        if blocks := self._blocks("read_only"):
            raise self._blocked(blocks)

    def _blocks(self, *names: str) -> list[str]:
        settings = self.settings
        return [each for each in names if settings.get(f"index.blocks.{each}") == "true"]

    def _blocked(self, blocks: list[str]) -> Refusal:
        status = max(_BLOCKS[each][0] for each in blocks) if len(blocks) == 1 else 403
        words = ", ".join(_BLOCKS[each][1] for each in blocks)
        return Refusal(
            status,
            "cluster_block_exception",
            f"index [{self.name}] blocked by: [{words}];",
        )

    def change_settings(self, settings: Mapping[str, Any]) -> None:
        """Change settings; None takes one away.  Raises Refusal."""
        if fixed := sorted(settings.keys() - _DYNAMIC):
            raise NotImplementedError(f"a change of the settings {fixed}")
        # Only one of these alone may be changed under a block.
        if len(settings) > 1 or not settings.keys() <= _ALWAYS_DYNAMIC:
            self.check_changeable()
        for name, value in settings.items():
            if value is None:
                self.settings.pop(name, None)
                self._is_block_verified &= name != "index.blocks.write"
            else:
                self.settings[name] = value

    # -- answers -----------------------------------------------------------------------------

    def described(self) -> dict[str, Any]:
        """Aliases, mappings and settings, as `GET /index` shows them."""
        return {
            "aliases": self.aliases,
            "mappings": self.mapping.body,
            "settings": nested_settings(
                {**self.settings, "index.uuid": self.uuid, "index.provided_name": self.name}
            ),
        }


def flat_settings(body: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their full name (`index.refresh_interval`), values as strings or None."""
    flat = dict(_flattened(body, ""))
    return {name if name.startswith("index.") else f"index.{name}": flat[name] for name in flat}


def _flattened(body: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for name, value in body.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{path}{name}.")
        elif isinstance(value, list):
            yield path + name, [str(each) for each in value]
        elif isinstance(value, bool):
            yield path + name, "true" if value else "false"
        else:
            yield path + name, None if value is None else str(value)


def nested_settings(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The opposite of `flat_settings`."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *outer, last = name.split(".")
        inner = nested
        for each in outer:
            inner = inner.setdefault(each, {})
        inner[last] = value
    return nested
