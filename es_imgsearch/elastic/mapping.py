"""Bodies for indices: common fields and a vector profile, composed, with the index's `_meta`.

Pure functions: nothing here talks to Elasticsearch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from es_imgsearch.elastic.meta import CREATED_BY, SCHEMA_VERSION, Meta, Seal
from es_imgsearch.elastic.meta_entries import CODE_FIELD, ReductionEntry, Tuning, code_mapping
from es_imgsearch.elastic.naming import first_generation
from es_imgsearch.errors import IndexConflict, UsageError
from es_imgsearch.records import REGION_VECTOR, REGIONS_FIELD, Grid


def left_out_of_source(mappings: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the fields that documents of this mapping have and `_source` does not."""
    return tuple(mappings.get("_source", {}).get("excludes", ()))


VECTOR_FIELD = "image_embedding"
SIMILARITIES = ("cosine", "dot_product", "l2_norm")
DEFAULT_PROFILE = "balanced"
DEFAULT_SIMILARITY = "cosine"

# Fewer dims than this and Elasticsearch refuses 1-bit quantisation.
_BINARY_MIN_DIMS = 64
_COMPANIONS = {"background", "codes", "failures", "reduction", "searches", "state", "tags"}
_REDUCED = "reduced"


def profile_names() -> tuple[str, ...]:
    files = (entry.name for entry in folder("mappings").iterdir())
    names = {name.removesuffix(".json") for name in files if name.endswith(".json")}
    return tuple(sorted(names - _COMPANIONS - {"common"}))


def load_profile(name: str) -> dict[str, Any]:
    if name not in profile_names():
        raise UsageError(
            f"There is no profile {name!r}; choose one of {', '.join(profile_names())}."
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
    """What `init` seals into a new index; the starting point of `tune` is the profile's.

    The profile `reduced`, and no other, needs the entry of the reduction that was fitted for it;
    its `oversample` becomes the profile's.
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
    profile: str, similarity: str, reduction: ReductionEntry | None
) -> ReductionEntry | None:
    check_reducible(profile, similarity, has_sample=reduction is not None)
    if reduction is None:
        return None
    oversample = load_profile(profile)["_meta"]["reduction"]["oversample"]
    return replace(reduction, oversample=oversample)


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
    properties = _without_graphs(body["mappings"]["properties"])
    settings = {
        **body["settings"],
        "refresh_interval": "-1",
        "auto_expand_replicas": False,
        "number_of_replicas": 0,
    }
    return {"settings": settings, "mappings": {**body["mappings"], "properties": properties}}


def _without_graphs(properties: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, each in properties.items():
        made[name] = dict(each)
        if "index_options" in each:
            made[name]["index_options"] = {"type": "flat"}
        if "properties" in each:
            made[name]["properties"] = _without_graphs(each["properties"])
    return made


def background_body(seal: Seal) -> dict[str, Any]:
    """Body of the index of the sample for `relevance`; its `_meta` says of which encoder."""
    body: dict[str, Any] = load_json("mappings", "background.json")
    body["mappings"]["properties"][VECTOR_FIELD]["dims"] = seal.dims
    body["mappings"]["_meta"] = {
        "created_by": CREATED_BY,
        "schema_version": SCHEMA_VERSION,
        "encoder": seal.to_body(),
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
        "_meta": {"created_by": CREATED_BY},
    }


def searches_body() -> dict[str, Any]:
    """Body of the index that searches are noted in."""
    return _body_beside("searches")


def searches_alias(index: str) -> str:
    return f"{index}-searches"


def state_body() -> dict[str, Any]:
    """Body of the index that holds what processes share, see `store.state`."""
    return _body_beside("state")


def state_alias(index: str) -> str:
    return f"{index}-state"


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
    """Body of the index that holds a vocabulary and a trained classifier."""
    return _body_beside("tags")


def tags_alias(index: str) -> str:
    return f"{index}-tags"


def background_alias(index: str) -> str:
    return f"{index}-background"


def _body_beside(name: str) -> dict[str, Any]:
    body: dict[str, Any] = load_json("mappings", f"{name}.json")
    body["mappings"]["_meta"] = {"created_by": CREATED_BY, "schema_version": SCHEMA_VERSION}
    return body


# The JSON that ships with the package: mappings and Kibana objects.

# In the wheel both folders lie inside the package; in a checkout they stand beside it, where
# people look for them.
_FOLDERS = {"mappings": "mappings", "kibana": "kibana_objects"}


def folder(name: str) -> Traversable:
    """The folder `mappings` or `kibana`, wherever this installation keeps it."""
    packaged = resources.files("es_imgsearch") / _FOLDERS[name]
    if packaged.is_dir():
        return packaged
    return Path(__file__).resolve().parents[2] / name


@cache
def _text(folder_name: str, file_name: str) -> str:
    return (folder(folder_name) / file_name).read_text(encoding="utf-8")


def load_json(folder_name: str, file_name: str) -> Any:
    """A fresh copy of the parsed file; callers may change it."""
    return json.loads(_text(folder_name, file_name))
