"""Bodies for indices: common fields and a vector profile, composed; `_meta`, read and written.

Pure functions: nothing here talks to Elasticsearch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from es_imgsearch.errors import EncoderMismatch, IndexConflict, ProfileUnknown, UsageError
from es_imgsearch.resources import folder, load_json

SCHEMA_VERSION = 1
_CREATED_BY = "es_imgsearch"
VECTOR_FIELD = "image_embedding"
SIMILARITIES = ("cosine", "dot_product", "l2_norm")
DEFAULT_PROFILE = "balanced"
DEFAULT_SIMILARITY = "cosine"

# Fewer dims than this and Elasticsearch refuses 1-bit quantisation.
_BINARY_MIN_DIMS = 64
_NOT_PROFILES = {"common", "failures"}


@dataclass(frozen=True, slots=True)
class Seal:
    """The encoder an index belongs to."""

    name: str
    revision: str
    dims: int
    fingerprint: str
    supports_text: bool = True

    def check(self, other: Seal, index: str) -> None:
        """Raise EncoderMismatch unless vectors of `other` may live beside ours.

        The name is only how the encoder is found: the same weights in another folder are
        the same encoder.
        """
        for part in ("dims", "revision", "fingerprint"):
            mine, theirs = getattr(self, part), getattr(other, part)
            if mine != theirs:
                raise EncoderMismatch(
                    f"Index {index!r} is sealed to encoder {self.name!r}; {other.name!r} differs"
                    f" in {part} ({theirs} instead of {mine}), so their vectors cannot be"
                    " compared. Use that encoder, or another --index."
                )


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a kNN search of this index is run.

    `num_candidates` per shard; `oversample` times k candidates are compared again with the
    full vectors, None where they were never quantised.
    """

    num_candidates: int = 50
    oversample: float | None = None


@dataclass(frozen=True, slots=True)
class Meta:
    """`_meta` of an index, typed."""

    seal: Seal
    profile: str
    similarity: str
    tuning: Tuning
    roots: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def to_body(self) -> dict[str, Any]:
        return {
            "created_by": _CREATED_BY,
            "schema_version": self.schema_version,
            "encoder": asdict(self.seal),
            "profile": self.profile,
            "similarity": self.similarity,
            "tuning": asdict(self.tuning),
            "roots": {name: dict(root) for name, root in self.roots.items()},
        }

    @classmethod
    def from_body(cls, body: Mapping[str, Any], index: str) -> Meta:
        version = body.get("schema_version")
        if body.get("created_by") != _CREATED_BY or not isinstance(version, int):
            raise IndexConflict(
                f"Index {index!r} was not made by es_imgsearch: choose another --index."
            )
        # Looked at first: what a newer schema adds must not look like a foreign index.
        if version > SCHEMA_VERSION:
            raise IndexConflict(
                f"Index {index!r} has schema {version}, newer than this program's"
                f" {SCHEMA_VERSION}: update es_imgsearch."
            )
        if body.keys() == {"created_by", "schema_version"}:
            raise IndexConflict(
                f"{index!r} is the index of failures beside an index of pictures: choose that one,"
                f" --index {index.removesuffix('-failures')}."
            )
        try:
            return cls(
                seal=Seal(**body["encoder"]),
                profile=body["profile"],
                similarity=body["similarity"],
                tuning=Tuning(**body["tuning"]),
                roots=body.get("roots", {}),
                schema_version=version,
            )
        except (KeyError, TypeError) as error:
            raise IndexConflict(
                f"The _meta of index {index!r} is damaged ({error}): make another --index."
            ) from error

    def with_root(self, name: str, root: Mapping[str, Any]) -> Meta:
        return replace(self, roots={**self.roots, name: root})


def profile_names() -> tuple[str, ...]:
    files = (entry.name for entry in folder("mappings").iterdir())
    names = {name.removesuffix(".json") for name in files if name.endswith(".json")}
    return tuple(sorted(names - _NOT_PROFILES))


def load_profile(name: str) -> dict[str, Any]:
    if name not in profile_names():
        raise ProfileUnknown(
            f"There is no profile {name!r}; choose one of {', '.join(profile_names())}."
        )
    body: dict[str, Any] = load_json("mappings", f"{name}.json")
    return body


def new_meta(seal: Seal, profile: str, similarity: str) -> Meta:
    """What `init` seals into a new index; the starting point of `tune` is the profile's."""
    if similarity not in SIMILARITIES:
        raise UsageError(
            f"There is no similarity {similarity!r}; choose one of {', '.join(SIMILARITIES)}."
        )
    tuning = load_profile(profile)["_meta"]["tuning"]
    if profile == "binary" and seal.dims < _BINARY_MIN_DIMS:
        raise UsageError(
            f"Profile 'binary' needs vectors of at least {_BINARY_MIN_DIMS} dims, encoder"
            f" {seal.name!r} has {seal.dims}: use --profile compact."
        )
    if profile == "compact" and seal.dims % 2:
        raise UsageError(
            f"Profile 'compact' needs an even number of dims, encoder {seal.name!r} has"
            f" {seal.dims}: use --profile balanced."
        )
    return Meta(seal=seal, profile=profile, similarity=similarity, tuning=Tuning(**tuning))


def index_body(meta: Meta, described: Iterable[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Body that creates the pictures' index: settings, strict mappings and `_meta`.

    `described` are the mappings of fields that describers bring.
    """
    body: dict[str, Any] = load_json("mappings", "common.json")
    properties = body["mappings"]["properties"]
    vector = load_profile(meta.profile)["properties"][VECTOR_FIELD]
    vector |= {"dims": meta.seal.dims, "similarity": meta.similarity}
    properties[VECTOR_FIELD] = vector
    for fields in described:
        for name, mapping in fields.items():
            if properties.get(name, mapping) != mapping:
                raise IndexConflict(
                    f"A describer maps the field {name!r} differently from another describer or"
                    " from mappings/: one of them has to give its field another name."
                )
            properties[name] = mapping
    body["mappings"]["_meta"] = meta.to_body()
    return body


def failures_body() -> dict[str, Any]:
    body: dict[str, Any] = load_json("mappings", "failures.json")
    body["mappings"]["_meta"] = {"created_by": _CREATED_BY, "schema_version": SCHEMA_VERSION}
    return body


def template_body(alias: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Index template that keeps a stray write from making an index with guessed mappings.

    It names indices and has no wildcard: two patterns that overlap are refused.
    """
    return {
        "index_patterns": [alias, first_generation(alias)],
        "priority": 200,
        "template": dict(body),
        "_meta": {"created_by": _CREATED_BY},
    }


def failures_alias(index: str) -> str:
    return f"{index}-failures"


def first_generation(alias: str) -> str:
    return f"{alias}-000001"
