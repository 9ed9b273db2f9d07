"""Bodies for indices: common fields and a vector profile, composed; `_meta`, read and written.

Pure functions: nothing here talks to Elasticsearch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from es_imgsearch.codes import CODE_FIELD, CodesEntry, code_mapping
from es_imgsearch.errors import EncoderMismatch, IndexConflict, ProfileUnknown, UsageError
from es_imgsearch.generations import Builder, Carried, first_generation
from es_imgsearch.reduction import Reduction, ReductionEntry
from es_imgsearch.regions import REGION_VECTOR, REGIONS_FIELD, Grid
from es_imgsearch.relevance import Curve, curves_from_body
from es_imgsearch.resources import folder, load_json
from es_imgsearch.tuned import Tuning

SCHEMA_VERSION = 1
_CREATED_BY = "es_imgsearch"
VECTOR_FIELD = "image_embedding"
SIMILARITIES = ("cosine", "dot_product", "l2_norm")
DEFAULT_PROFILE = "balanced"
DEFAULT_SIMILARITY = "cosine"

# Fewer dims than this and Elasticsearch refuses 1-bit quantisation.
_BINARY_MIN_DIMS = 64
_NOT_PROFILES = {"background", "codes", "common", "failures", "reduction", "searches", "tags"}
_REDUCED = "reduced"
_SEALED = ("dims", "revision", "fingerprint")


@dataclass(frozen=True, slots=True)
class Seal:
    """The encoder an index belongs to."""

    name: str
    revision: str
    dims: int
    fingerprint: str
    supports_text: bool = True

    def fits(self, other: Seal) -> bool:
        """Whether vectors of `other` may live beside ours.

        The name is only how the encoder is found: the same weights in another folder are
        the same encoder.
        """
        return all(getattr(self, part) == getattr(other, part) for part in _SEALED)

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
    """`_meta` of an index, typed; `relevance` holds a curve a kind of query once calibrated.

    `reduction` is that of the profile `reduced`, whose vectors are not the encoder's own.  `grid`
    says of which tiles vectors are kept as well, None where of none; `codes` which binary codes.
    `carried` is there where `reindex` brought the pictures, `builder` while a process does, see
    `generations`.
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
    carried: Carried | None = None
    builder: Builder | None = None

    def to_body(self) -> dict[str, Any]:
        curves = {kind: asdict(curve) for kind, curve in self.relevance.items()}
        return {
            "created_by": _CREATED_BY,
            "schema_version": self.schema_version,
            "encoder": asdict(self.seal),
            "profile": self.profile,
            "similarity": self.similarity,
            "tuning": self.tuning.to_body(),
            "roots": {name: dict(root) for name, root in self.roots.items()},
            **({"relevance": curves} if curves else {}),
            **({"reduction": self.reduction.to_body()} if self.reduction else {}),
            **({"regions": self.grid.to_body()} if self.grid else {}),
            **({"codes": self.codes.to_body()} if self.codes else {}),
            **({"carried": self.carried.to_body()} if self.carried else {}),
            **({"builder": self.builder.to_body()} if self.builder else {}),
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
                tuning=Tuning.from_body(body["tuning"]),
                roots=body.get("roots", {}),
                schema_version=version,
                relevance=curves_from_body(body.get("relevance", {})),
                reduction=ReductionEntry.from_body(body.get("reduction")),
                grid=Grid.from_body(body.get("regions")),
                codes=CodesEntry.from_body(body.get("codes")),
                carried=Carried.from_body(body.get("carried")),
                builder=Builder.from_body(body.get("builder")),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise IndexConflict(
                f"The _meta of index {index!r} is damaged ({error}): make another --index."
            ) from error

    @property
    def stored_dims(self) -> int:
        """How long the stored vectors are."""
        return self.reduction.dims_kept if self.reduction else self.seal.dims

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


def new_meta(
    seal: Seal,
    profile: str,
    similarity: str,
    reduction: Reduction | None = None,
    grid: Grid | None = None,
) -> Meta:
    """What `init` seals into a new index; the starting point of `tune` is the profile's.

    The profile `reduced`, and no other, needs the reduction that was fitted for it.
    """
    if grid is not None and profile == _REDUCED:
        raise UsageError(
            "Profile 'reduced' keeps its vectors small and no regions: leave --regions out, or use"
            " another --profile."
        )
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
    return Meta(
        seal=seal,
        profile=profile,
        similarity=similarity,
        tuning=Tuning(**tuning),
        reduction=_reduction_entry(profile, similarity, reduction),
        grid=grid,
    )


def with_learned(target: Meta, source: Meta) -> Meta:
    """The target with what was learned of the vectors of the source, if it has the same ones.

    The same vectors have the same cosines and codes; what the source lacks, the target keeps.
    """
    if not source.seal.fits(target.seal) or source.reduction or target.reduction:
        return target
    return replace(
        target,
        relevance=source.relevance or target.relevance,
        codes=source.codes or target.codes,
    )


def check_reducible(profile: str, similarity: str, *, has_sample: bool) -> None:
    """Raise UsageError unless a profile, a similarity and a sample (or none) go together."""
    if profile != _REDUCED:
        if has_sample:
            raise UsageError(
                f"Profile {profile!r} keeps every dim and takes no sample: leave --sample and"
                " --dims-kept out, or use --profile reduced."
            )
        return
    if similarity != DEFAULT_SIMILARITY:
        raise UsageError(
            f"Profile 'reduced' compares by cosine only, not by {similarity}: leave --similarity"
            " out."
        )
    if not has_sample:
        raise UsageError(
            "Profile 'reduced' is fitted on vectors of your own: give `init --profile reduced"
            " --sample FROM`, FROM being another index of the same encoder, or a file that"
            " `es-imgsearch export` wrote."
        )


def _reduction_entry(
    profile: str, similarity: str, reduction: Reduction | None
) -> ReductionEntry | None:
    check_reducible(profile, similarity, has_sample=reduction is not None)
    if reduction is None:
        return None
    return ReductionEntry(
        hash=reduction.hash,
        dims_kept=reduction.dims_kept,
        variance_kept=reduction.variance_kept,
        oversample=load_profile(profile)["_meta"]["reduction"]["oversample"],
    )


def index_body(meta: Meta, described: Iterable[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Body that creates the pictures' index: settings, strict mappings and `_meta`.

    `described` are the mappings of fields that describers bring.
    """
    body: dict[str, Any] = load_json("mappings", "common.json")
    properties = body["mappings"]["properties"]
    vector = load_profile(meta.profile)["properties"][VECTOR_FIELD]
    vector |= {"dims": meta.stored_dims, "similarity": meta.similarity}
    properties[VECTOR_FIELD] = vector
    if meta.grid is not None:
        properties[REGIONS_FIELD] = {
            "type": "nested",
            "properties": {
                # Only ever read back from `_source`, in its order.
                "box": {"type": "integer", "index": False, "doc_values": False},
                "embedding": dict(vector),
            },
        }
        body["mappings"]["_source"]["excludes"].append(REGION_VECTOR)
    if meta.codes is not None:
        properties[CODE_FIELD] = code_mapping(meta.codes.bits)
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


def loading_body(body: Mapping[str, Any]) -> dict[str, Any]:
    """The same index for a load of many vectors: no graphs, no refreshes, no copies.

    Building the graphs once, when the segments are merged, takes 55 s for 100,000 vectors of
    512 dims where growing them takes 115 s.  `flat` may become any other type, never the reverse
    (elasticsearch #106591).
    """
    properties = {
        name: {**each, "index_options": {"type": "flat"}} if "index_options" in each else each
        for name, each in body["mappings"]["properties"].items()
    }
    settings = {
        **body["settings"],
        "refresh_interval": "-1",
        "auto_expand_replicas": False,
        "number_of_replicas": 0,
    }
    return {"settings": settings, "mappings": {**body["mappings"], "properties": properties}}


def background_body(seal: Seal) -> dict[str, Any]:
    """Body of the index of the sample for `relevance`; its `_meta` says of which encoder."""
    body: dict[str, Any] = load_json("mappings", "background.json")
    body["mappings"]["properties"][VECTOR_FIELD]["dims"] = seal.dims
    body["mappings"]["_meta"] = {
        "created_by": _CREATED_BY,
        "schema_version": SCHEMA_VERSION,
        "encoder": asdict(seal),
    }
    return body


def failures_body() -> dict[str, Any]:
    return _body_beside("failures")


def template_body(
    alias: str, body: Mapping[str, Any], generation: str | None = None
) -> dict[str, Any]:
    """Index template that keeps a stray write from making an index with guessed mappings.

    It names the alias and the `generation` behind it, the first if none is given; it has no
    wildcard, since two patterns that overlap are refused.
    """
    return {
        "index_patterns": [alias, generation or first_generation(alias)],
        "priority": 200,
        "template": dict(body),
        "_meta": {"created_by": _CREATED_BY},
    }


def searches_body() -> dict[str, Any]:
    """Body of the index that searches are noted in."""
    return _body_beside("searches")


def searches_alias(index: str) -> str:
    return f"{index}-searches"


def reduction_body() -> dict[str, Any]:
    """Body of the index that holds the matrix of the profile `reduced`."""
    return _body_beside("reduction")


def reduction_alias(index: str) -> str:
    return f"{index}-reduction"


def codes_body() -> dict[str, Any]:
    """Body of the index that holds the coders of binary codes."""
    return _body_beside("codes")


def codes_alias(index: str) -> str:
    return f"{index}-codes"


def tags_body() -> dict[str, Any]:
    """Body of the index that holds a vocabulary and a trained head."""
    return _body_beside("tags")


def tags_alias(index: str) -> str:
    return f"{index}-tags"


def background_alias(index: str) -> str:
    return f"{index}-background"


def _body_beside(name: str) -> dict[str, Any]:
    body: dict[str, Any] = load_json("mappings", f"{name}.json")
    body["mappings"]["_meta"] = {"created_by": _CREATED_BY, "schema_version": SCHEMA_VERSION}
    return body
