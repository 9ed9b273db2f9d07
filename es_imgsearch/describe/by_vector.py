"""Runs the describers that work on vectors, each held to what it promised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from es_imgsearch.decoding import utf8
from es_imgsearch.describe import VectorDescriber, VectorSpace

Vectors = npt.NDArray[np.float32]

ERRORS_FIELD = "describe_errors"
_ERROR_LENGTH = 500


class VectorDescribers:
    """Several describers as one: whatever one of them does costs its own fields only."""

    def __init__(self, describers: Sequence[VectorDescriber]) -> None:
        self._describers = describers
        self._not_begun: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._describers)

    def begin(self, space: VectorSpace) -> None:
        """Let each get ready; call it before `fields`, in the same thread."""
        for describer in self._describers:
            try:
                describer.begin(space)
            except Exception as error:  # noqa: BLE001 - a plug-in's failure costs its fields only
                self._not_begun[describer.name] = error_words(describer.name, error)

    def fields(self, vectors: Vectors) -> list[dict[str, Any]]:
        """Of each of the n vectors, of shape (n, dims) and any length, its fields.

        What went wrong stands in `describe_errors`.
        """
        found: list[dict[str, Any]] = [{} for _ in vectors]
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit_vectors = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32, copy=False)
        for describer in self._describers:
            if (words := self._not_begun.get(describer.name)) is not None:
                given: Sequence[Mapping[str, Any]] = [{ERRORS_FIELD: [words]}] * len(vectors)
            else:
                given = _given(describer, unit_vectors)
            for fields, more in zip(found, given, strict=True):
                merge_fields(fields, more)
        return found


def merge_fields(fields: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add fields to those of a picture; notes of what went wrong are kept beside each other."""
    errors = [*fields.get(ERRORS_FIELD, ()), *more.get(ERRORS_FIELD, ())]
    fields.update(more)
    if errors:
        fields[ERRORS_FIELD] = errors


def error_words(name: str, error: Exception) -> str:
    """What `describe_errors` says of a describer that failed."""
    return utf8(f"{name}: {type(error).__name__}: {error}"[:_ERROR_LENGTH])


def _given(describer: VectorDescriber, vectors: Vectors) -> list[Mapping[str, Any]]:
    try:
        given = [dict(fields) for fields in describer.describe_vectors(vectors)]
        if len(given) != len(vectors):
            raise ValueError(f"it described {len(given)} of {len(vectors)} vectors")
        for fields in given:
            check_mapped(fields, describer.mapping)
            orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY)
    except Exception as error:  # noqa: BLE001 - a plug-in's failure costs its fields only
        if len(vectors) == 1:
            return [{ERRORS_FIELD: [error_words(describer.name, error)]}]
        return [each for row in vectors for each in _given(describer, row[None])]
    return given


def check_mapped(fields: Mapping[str, Any], mapping: Mapping[str, Any]) -> None:
    """Raise ValueError for fields that a describer did not map.

    Elasticsearch would refuse the whole document.
    """
    if unmapped := sorted(fields.keys() - mapping.keys()):
        raise ValueError(f"it gave fields that it did not map: {', '.join(unmapped)}")
