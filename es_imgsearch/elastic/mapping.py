"""Bodies of indices and templates: mappings, settings and `_meta`.

    mappings/common.json ─┐
    a vector profile ─────┼─▶ index_body ──▶ images-000001
    describers' fields ───┘
    mappings/NAME.json ─────▶ Companion ───▶ images-state, images-codes, ...

Pure functions, without requests.  The JSON files ship with the package; a new stored field is a
line in mappings/common.json at the top of the checkout.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import StrEnum
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from es_imgsearch.elastic.meta import CREATED_BY, SCHEMA_VERSION, Meta, Seal
from es_imgsearch.elastic.meta_entries import (
    CODE_FIELD,
    ReductionEntry,
    ShardLayout,
    Tuning,
    code_mapping,
)
from es_imgsearch.elastic.naming import first_generation
from es_imgsearch.errors import IndexConflict, UsageError, did_you_mean
from es_imgsearch.records import REGION_VECTOR, REGIONS_FIELD, Grid

VECTOR_FIELD = "image_embedding"
SIMILARITIES = ("cosine", "dot_product", "l2_norm")
DEFAULT_PROFILE = "balanced"
DEFAULT_SIMILARITY = "cosine"

# Fewer dims than this and Elasticsearch refuses 1-bit quantisation.
_BINARY_MIN_DIMS = 64
_REDUCED = "reduced"


class Companion(StrEnum):
    """Indices next to the index of pictures, each behind the alias `<index>-<value>`."""

    BACKGROUND = "background"  # sample of vectors that relevance is calibrated against
    CODES = "codes"  # coders of binary codes
    REDUCTION = "reduction"  # matrix of the profile `reduced`
    SEARCHES = "searches"  # log of searches
    STATE = "state"  # documents that processes share, see `elastic.state`
    TAGS = "tags"  # vocabulary and trained head

    def alias(self, index: str) -> str:
        """Name of the alias for an index of pictures."""
        return f"{index}-{self}"

    def body(self, seal: Seal | None = None) -> dict[str, Any]:
        """Body of the index.

        `seal` is the encoder whose vectors it holds, if it holds any.
        """
        body = _with_meta(self)
        if seal is not None:
            body["mappings"]["properties"][VECTOR_FIELD]["dims"] = seal.dims
            body["mappings"]["_meta"]["encoder"] = seal.to_body()
        return body


def profile_names() -> tuple[str, ...]:
    """List the vector profiles, sorted."""
    files = (entry.name for entry in folder("mappings").iterdir())
    names = {name.removesuffix(".json") for name in files if name.endswith(".json")}
    return tuple(sorted(names - {*Companion, "common", "failures"}))


def load_profile(name: str) -> dict[str, Any]:
    """Load a vector profile.  Raises UsageError for an unknown name."""
    if name not in profile_names():
        raise UsageError(
            f"There is no profile {name!r}; choose one of {', '.join(profile_names())}."
            f"{did_you_mean(name, profile_names())}"
        )
    body: dict[str, Any] = load_json("mappings", f"{name}.json")
    return body


def new_meta(
    seal: Seal,
    profile: str,
    similarity: str,
    reduction: ReductionEntry | None = None,
    grid: Grid | None = None,
) -> Meta:
    """Compose the `_meta` of a new index, with the profile's tuning.

    The profile `reduced`, and no other, needs the entry of its fitted reduction, which gets the
    profile's `oversample`.  Raises UsageError for parts that do not go together.
    """
    if grid is not None and profile == _REDUCED:
        raise UsageError(
            "Profile 'reduced' stores no regions: leave --regions out, or use another --profile."
        )
    if similarity not in SIMILARITIES:
        raise UsageError(
            f"There is no similarity {similarity!r}; choose one of {', '.join(SIMILARITIES)}."
            f"{did_you_mean(similarity, SIMILARITIES)}"
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


def check_reducible(profile: str, similarity: str, *, has_sample: bool) -> None:
    """Raise UsageError unless profile, similarity and sample go together.

    There may be no sample.
    """
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
    profile: str, similarity: str, reduction: ReductionEntry | None
) -> ReductionEntry | None:
    check_reducible(profile, similarity, has_sample=reduction is not None)
    if reduction is None:
        return None
    oversample = load_profile(profile)["_meta"]["reduction"]["oversample"]
    return replace(reduction, oversample=oversample)


def index_body(
    meta: Meta,
    describer_fields: Iterable[Mapping[str, Any]] = (),
    layout: ShardLayout | None = None,
) -> dict[str, Any]:
    """Body of an index of pictures: settings, strict mappings and `_meta`.

    `describer_fields` are the mappings that describers add.  Raises IndexConflict where two map
    one field differently.
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
    for fields in describer_fields:
        for name, mapping in fields.items():
            if properties.get(name, mapping) != mapping:
                raise IndexConflict(
                    f"A describer maps the field {name!r} differently from another describer or"
                    " from mappings/: one of them has to give its field another name."
                )
            properties[name] = mapping
    body["mappings"]["_meta"] = meta.to_body()
    body["settings"] |= (layout or ShardLayout()).to_settings()
    return body


_STEMS = "stems"  # the sub-field, and its analyser
_WORDS = ("words", "file_name")  # the analysers of words, of this version and of earlier ones


def with_analysers_of(
    properties: Mapping[str, Mapping[str, Any]], fields: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Let fields analyse words as the image names of an index with these properties.

    An index keeps its analysers until `reindex`, and refuses a field with another one.  One of an
    earlier version has no stems.
    """
    names = properties.get("image_name", {})
    stems = names.get("fields", {}).keys() & {_STEMS}
    own = {key: names[key] for key in ("analyzer", "search_analyzer") if key in names}
    mapped: dict[str, Any] = {}
    for name, each in fields.items():
        mapped[name] = dict(each)
        if each.get("analyzer") in _WORDS:
            mapped[name] = {key: each[key] for key in each if not key.endswith("analyzer")} | own
        if "fields" in each:
            known = {
                key: sub
                for key, sub in each["fields"].items()
                if stems or sub.get("analyzer") != _STEMS
            }
            mapped[name]["fields"] = with_analysers_of(properties, known)
    return mapped


def has_present_analysers(analysis: Mapping[str, Any]) -> bool:
    """Check that the settings `analysis` of an index are those of this version."""
    present = load_json("mappings", "common.json")["settings"]["analysis"]
    return bool(_as_stored(present) == analysis)


def _as_stored(setting: Any) -> Any:
    """Settings as the server gives them back: every value is a string."""
    if isinstance(setting, dict):
        return {name: _as_stored(each) for name, each in setting.items()}
    if isinstance(setting, list):
        return [_as_stored(each) for each in setting]
    return str(setting).lower() if isinstance(setting, bool) else str(setting)


def loading_body(body: Mapping[str, Any]) -> dict[str, Any]:
    """Change the body of an index for a bulk load: no graphs, refreshes or replicas.

    Building the graphs once, when the segments are merged, takes 55 s for 100,000 vectors of
    512 dims where growing them takes 115 s.  `flat` may become any other type, never the reverse
    (elasticsearch #106591).
    """
    properties = _without_graphs(body["mappings"]["properties"])
    settings = {
        **body["settings"],
        "refresh_interval": "-1",
        "auto_expand_replicas": False,
        "number_of_replicas": 0,
    }
    return {"settings": settings, "mappings": {**body["mappings"], "properties": properties}}


def _without_graphs(properties: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, each in properties.items():
        flat[name] = dict(each)
        if "index_options" in each:
            flat[name]["index_options"] = {"type": "flat"}
        if "properties" in each:
            flat[name]["properties"] = _without_graphs(each["properties"])
    return flat


def failures_body() -> dict[str, Any]:
    """Body of an index of failures; each generation of pictures has one."""
    return _with_meta("failures")


def _with_meta(name: str) -> dict[str, Any]:
    body: dict[str, Any] = load_json("mappings", f"{name}.json")
    body["mappings"]["_meta"] = {"created_by": CREATED_BY, "schema_version": SCHEMA_VERSION}
    return body


def template_body(
    alias: str, body: Mapping[str, Any], generation: str | None = None
) -> dict[str, Any]:
    """Body of the index template that keeps a stray write from guessing mappings.

    It matches the alias and the `generation` behind it, by default the first of a companion, and
    has no wildcard: the server refuses patterns that overlap.
    """
    return {
        "index_patterns": [alias, generation or first_generation(alias)],
        "priority": 200,
        "template": dict(body),
        "_meta": {"created_by": CREATED_BY},
    }


# In the wheel both folders lie inside the package, in a checkout next to it, where people look for
# them.
_FOLDERS = {"mappings": "mappings", "kibana": "kibana_objects"}


def folder(name: str) -> Traversable:
    """Locate the folder `mappings` or `kibana` of this installation."""
    packaged = resources.files("es_imgsearch") / _FOLDERS[name]
    if packaged.is_dir():
        return packaged
    return Path(__file__).resolve().parents[2] / name


@cache
def _text(folder_name: str, file_name: str) -> str:
    return (folder(folder_name) / file_name).read_text(encoding="utf-8")


def load_json(folder_name: str, file_name: str) -> Any:
    """Parse a file that ships with the package; callers may change the result."""
    return json.loads(_text(folder_name, file_name))
