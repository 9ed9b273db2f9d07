"""What is known of an index, typed: its seal, its roots, and what was learned.

    `_meta` of the mapping        the seal: what never changes of a generation
    roots:INDEX_ID                folders by name, one document for all generations of an index
    learned:GENERATION_ID         tuning, curves, codes and so on of one generation's vectors

A mapping has no compare-and-set, so of two processes that change `_meta` one would undo the other's
change: everything that changes is a document of `<index>-state` (see `state`).  Nothing here sends
a request.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self, TypeAlias

from es_imgsearch.elastic.meta_entries import (
    CodesEntry,
    CopyCheckpoint,
    Curve,
    ReductionEntry,
    ShardLayout,
    Tuning,
    curves_from_body,
)
from es_imgsearch.errors import EncoderMismatch, IndexConflict
from es_imgsearch.records import Grid, disk_path, is_url, path_of

# 1 kept everything in `_meta`, 2 roots and what was learned, 3 had no `taken_local`: see `upgrade`.
SCHEMA_VERSION = 4
FIRST_WITH_DOCUMENTS = 3
CREATED_BY = "es_imgsearch"
# Ends of the names of the indices next to one of pictures, see `mapping.Companion`.
_COMPANIONS = ("background", "codes", "failures", "reduction", "searches", "state", "tags")
_SEALED = ("dims", "revision", "fingerprint")


# The host of a root whose pictures are on no machine: a folder of that name cannot be watched.
IMPORTED_HOST = "(imported)"


def is_open_on(entry: Mapping[str, Any], host: str) -> bool:
    """Return True if a root's files can be opened on a host: its own, or at a URL."""
    return entry["host"] == host or (entry["host"] != IMPORTED_HOST and is_url(entry["path"]))


@dataclass(frozen=True, slots=True)
class Seal:
    """The encoder that an index is sealed to.

    `spec` is the absolute path it was loaded from when the index was made; None if every machine
    looks for encoders there.
    """

    name: str
    revision: str
    dims: int
    fingerprint: str
    supports_text: bool = True
    spec: str | None = None

    def fits(self, other: Seal) -> bool:
        """Check that vectors of both encoders are comparable.

        `name` and `spec` do not count: the same weights in another folder are the same encoder.
        """
        return all(getattr(self, part) == getattr(other, part) for part in _SEALED)

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Seal:
        """Parse a seal; entries of later versions are ignored."""
        if not isinstance(body, Mapping):
            raise TypeError(f"not {body!r}")
        names = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in body.items() if name in names})

    def to_body(self) -> dict[str, Any]:
        body = asdict(self)
        if self.spec is None:
            del body["spec"]
        return body

    def check(self, other: Seal, index: str) -> None:
        """Raise EncoderMismatch unless `other` fits."""
        for part in _SEALED:
            mine, theirs = getattr(self, part), getattr(other, part)
            if mine != theirs:
                raise EncoderMismatch(
                    f"Index {index!r} is sealed to encoder {self.name!r}; {other.name!r} differs"
                    f" in {part} ({theirs} instead of {mine}), so their vectors cannot be"
                    " compared. Use that encoder, or another --index."
                )


Body: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Meta:
    """What is known of a generation: `_meta` and the documents that belong to it.

    `index_id` is the same in all generations of an index, `generation_id` in none; both are new if
    an index is deleted and made again.  `relevance` has a curve for each kind of query once
    calibrated.  `reduction` is set in the profile `reduced` only.  `grid` defines the tiles whose
    vectors are stored too, None for no tiles; `codes` the binary codes.  `copy_checkpoint` is set
    in an index that `reindex` fills, `builder` in schema 1 only, see `upgrade`.
    """

    seal: Seal
    profile: str
    similarity: str
    tuning: Tuning
    roots: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION
    relevance: Mapping[str, Curve] = field(default_factory=dict)
    reduction: ReductionEntry | None = None
    grid: Grid | None = None
    codes: CodesEntry | None = None
    copy_checkpoint: CopyCheckpoint | None = None
    builder: Mapping[str, Any] | None = None
    index_id: str = ""
    generation_id: str = ""

    def to_body(self) -> dict[str, Any]:
        """`_meta` of the mapping.

        It holds the tuning of the profile, for clients that may not read the documents.
        """
        reduction = self.reduction and replace(self.reduction, originals=None)
        return {
            "created_by": CREATED_BY,
            "schema_version": self.schema_version,
            **({"index_id": self.index_id} if self.index_id else {}),
            **({"generation_id": self.generation_id} if self.generation_id else {}),
            "encoder": self.seal.to_body(),
            "profile": self.profile,
            "similarity": self.similarity,
            "tuning": self.tuning.to_body(),
            **({"reduction": reduction.to_body()} if reduction else {}),
            **({"regions": self.grid.to_body()} if self.grid else {}),
        }

    @classmethod
    def from_body(cls, body: Mapping[str, Any], index: str, uuid: str = "") -> Meta:
        """Parse `_meta`; `uuid` is the id of an index that has none in it.

        Schemas 1 and 2 have everything in it; later ones need `with_documents`.
        """
        version = body.get("schema_version")
        if body.get("created_by") != CREATED_BY or not isinstance(version, int):
            raise IndexConflict(
                f"Index {index!r} was not made by es_imgsearch: choose another --index."
            )
        # Checked first: entries of a newer schema must not look like a damaged index.
        if version > SCHEMA_VERSION:
            raise IndexConflict(
                f"Index {index!r} has schema {version}, newer than this program's"
                f" {SCHEMA_VERSION}: update es_imgsearch."
            )
        if "profile" not in body and (owner := _owner(index)) is not None:
            raise IndexConflict(
                f"{index!r} holds no pictures, but what belongs to the index {owner!r}: choose that"
                f" index, --index {owner}."
            )
        try:
            return cls(
                seal=Seal.from_body(body["encoder"]),
                profile=body["profile"],
                similarity=body["similarity"],
                tuning=Tuning.from_body(body["tuning"]),
                roots=body.get("roots", {}),
                schema_version=version,
                relevance=curves_from_body(body.get("relevance", {})),
                reduction=ReductionEntry.from_body(body.get("reduction")),
                grid=Grid.from_body(body.get("regions")),
                codes=CodesEntry.from_body(body.get("codes")),
                copy_checkpoint=CopyCheckpoint.from_body(body.get("carried")),
                builder=body.get("builder"),
                index_id=body.get("index_id", uuid),
                generation_id=body.get("generation_id", uuid),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise IndexConflict(
                f"The _meta of index {index!r} is damaged ({error}): make another --index."
            ) from error

    @property
    def stored_dims(self) -> int:
        """Number of dims of the stored vectors."""
        return self.reduction.dims_kept if self.reduction else self.seal.dims

    def with_root(self, name: str, root: Mapping[str, Any]) -> Meta:
        return replace(self, roots={**self.roots, name: root})

    # -- documents -----------------------------------------------------------------------------

    def path_on(self, host: str, root: str, relative_path: str) -> Path | None:
        """Return the path or URL of a stored file; None if its root is on another host."""
        entry, below = self.roots.get(root), disk_path(relative_path)
        # This program stores no path that leads out of its root; who may write to an index must
        # not name another file.
        if entry is None or ".." in below.split("/"):
            return None
        path = path_of(disk_path(entry["path"]))
        return path / below.lstrip("/") if is_open_on(entry, host) else None

    @property
    def roots_document(self) -> str:
        """Id of the document of the roots."""
        return f"roots:{self.index_id}"

    @property
    def learned_document(self) -> str:
        """Id of the document of what was learned of this generation."""
        return f"learned:{self.generation_id}"

    @property
    def document_ids(self) -> tuple[str, ...]:
        """Ids of the documents to read; none in a schema that has everything in `_meta`."""
        if self.schema_version < FIRST_WITH_DOCUMENTS:
            return ()
        return self.roots_document, self.learned_document

    def to_documents(self) -> dict[str, Body]:
        """Documents of the roots and of what was learned, by id."""
        curves = {kind: asdict(curve) for kind, curve in self.relevance.items()}
        # A list: names of roots may hold dots, which are paths in names of fields.
        roots = [{"name": name, **root} for name, root in sorted(self.roots.items())]
        learned = {
            "tuning": self.tuning.to_body(),
            "spec": self.seal.spec,
            "relevance": curves or None,
            "originals": self.reduction and self.reduction.originals,
            "codes": self.codes and self.codes.to_body(),
            "carried": self.copy_checkpoint and self.copy_checkpoint.to_body(),
        }
        stored = {name: value for name, value in learned.items() if value is not None}
        return {
            self.roots_document: {"kind": "roots", "body": {"roots": roots}},
            self.learned_document: {"kind": "learned", "body": stored},
        }

    def with_documents(self, documents: Mapping[str, Body]) -> Self:
        """Add the existing ones of the documents of `document_ids`, by id."""
        try:
            return self._with_documents(documents)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise IndexConflict(
                f"A document of {' and '.join(documents)} is damaged ({error!r}): restore the index"
                " of state documents from a snapshot, or delete that document."
            ) from error

    def _with_documents(self, documents: Mapping[str, Body]) -> Self:
        meta = self
        if (document := documents.get(self.roots_document)) is not None:
            listed = [dict(each) for each in document["body"]["roots"]]
            meta = replace(meta, roots={each.pop("name"): each for each in listed})
        if (document := documents.get(self.learned_document)) is not None:
            body = document["body"]
            reduction, originals = meta.reduction, body.get("originals")
            if reduction is not None and originals is not None:
                reduction = replace(reduction, originals=originals)
            meta = replace(
                meta,
                seal=replace(meta.seal, spec=body.get("spec")),
                tuning=Tuning.from_body(body["tuning"]),
                relevance=curves_from_body(body.get("relevance", {})),
                reduction=reduction,
                codes=CodesEntry.from_body(body.get("codes")),
                copy_checkpoint=CopyCheckpoint.from_body(body.get("carried")),
            )
        return meta


def _owner(index: str) -> str | None:
    """Return the index that a companion index belongs to; None for any other."""
    name, _, end = index.rpartition("-")
    return name if name and end in _COMPANIONS else None


def with_learned(target: Meta, source: Meta) -> Meta:
    """Add curves and codes of `source` to `target`, if both store the same vectors.

    Entries that the source lacks stay unchanged.
    """
    if not source.seal.fits(target.seal) or source.reduction or target.reduction:
        return target
    return replace(
        target,
        relevance=source.relevance or target.relevance,
        codes=source.codes.elsewhere() if source.codes else target.codes,
    )


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """The concrete index behind the alias.

    `is_loading`: a bulk load into it has not ended yet.  `source_excludes` are the fields that its
    documents have outside of `_source`.
    """

    name: str
    meta: Meta
    properties: Mapping[str, Mapping[str, Any]]
    is_loading: bool = False
    source_excludes: Sequence[str] = ()
    aliases: Collection[str] = ()
    analysis: Mapping[str, Any] = field(default_factory=dict)
    layout: ShardLayout = field(default_factory=ShardLayout)
    blocks: Collection[str] = ()

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any], alias: str) -> IndexInfo:
        """Parse the answer to `info_request`.

        Raises IndexConflict if the name is not an alias of ours.
        """
        if alias in answer:
            raise IndexConflict(
                f"{alias!r} is an index, not an alias made by `es-imgsearch init`:"
                " choose another --index, or remove it."
            )
        if len(answer) != 1:
            raise IndexConflict(
                f"Alias {alias!r} points to {len(answer)} indices ({', '.join(answer)});"
                " it must point to one."
            )
        ((name, body),) = answer.items()
        mappings, settings = body["mappings"], body["settings"]["index"]
        return cls(
            name=name,
            meta=Meta.from_body(mappings.get("_meta", {}), alias, settings.get("uuid", "")),
            properties=mappings["properties"],
            is_loading=settings.get("refresh_interval") == "-1",
            source_excludes=tuple(mappings.get("_source", {}).get("excludes", ())),
            aliases=tuple(body.get("aliases", ())),
            analysis=settings.get("analysis", {}),
            layout=ShardLayout.from_settings(settings),
            blocks=[name for name, on in settings.get("blocks", {}).items() if on == "true"],
        )

    def with_documents(self, documents: Mapping[str, Mapping[str, Any]]) -> IndexInfo:
        """Add documents of `meta.document_ids`, by id."""
        return replace(self, meta=self.meta.with_documents(documents))
