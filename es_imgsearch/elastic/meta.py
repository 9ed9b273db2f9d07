"""`_meta` of an index, typed: its encoder, and parameters learned of its vectors.

Elasticsearch stores it in the mapping; nothing here sends a request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from es_imgsearch.elastic.meta_entries import (
    CodesEntry,
    CopyCheckpoint,
    Curve,
    ReductionEntry,
    Tuning,
    curves_from_body,
)
from es_imgsearch.errors import EncoderMismatch, IndexConflict
from es_imgsearch.records import Grid

# 1 kept pauses, daemons and the process of a reindex in `_meta`, see `upgrade`.
SCHEMA_VERSION = 2
CREATED_BY = "es_imgsearch"
# Ends of the names of the indices next to one of pictures, see `mapping.Companion`.
_COMPANIONS = ("background", "codes", "failures", "reduction", "searches", "state", "tags")
_SEALED = ("dims", "revision", "fingerprint")


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


@dataclass(frozen=True, slots=True)
class Meta:
    """Typed `_meta` of an index.

    `relevance` has a curve for each kind of query once calibrated.  `reduction` is set in the
    profile `reduced` only.  `grid` defines the tiles whose vectors are stored too, None for no
    tiles; `codes` the binary codes.  `copy_checkpoint` is set in an index that `reindex` fills,
    `builder` in schema 1 only, see `upgrade`.
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

    def to_body(self) -> dict[str, Any]:
        curves = {kind: asdict(curve) for kind, curve in self.relevance.items()}
        return {
            "created_by": CREATED_BY,
            "schema_version": self.schema_version,
            "encoder": self.seal.to_body(),
            "profile": self.profile,
            "similarity": self.similarity,
            "tuning": self.tuning.to_body(),
            "roots": {name: dict(root) for name, root in self.roots.items()},
            **({"relevance": curves} if curves else {}),
            **({"reduction": self.reduction.to_body()} if self.reduction else {}),
            **({"regions": self.grid.to_body()} if self.grid else {}),
            **({"codes": self.codes.to_body()} if self.codes else {}),
            **({"carried": self.copy_checkpoint.to_body()} if self.copy_checkpoint else {}),
            **({"builder": dict(self.builder)} if self.builder else {}),
        }

    @classmethod
    def from_body(cls, body: Mapping[str, Any], index: str) -> Meta:
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
        codes=source.codes or target.codes,
    )
