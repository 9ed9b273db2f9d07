"""Runs the describers that work on vectors, each held to what it promised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from es_imgsearch.backoff import Stopped
from es_imgsearch.describe import VectorDescriber, VectorSpace
from es_imgsearch.described import check_mapped, checked, failed
from es_imgsearch.errors import GenerationSwitched

Vectors = npt.NDArray[np.float32]

# Not the describer's doing: its requests wait out an outage until the process has to end.
_ENDS = (Stopped, GenerationSwitched)


class VectorDescribers:
    """Several describers as one: whatever one of them does costs its own fields only."""

    def __init__(self, describers: Sequence[VectorDescriber]) -> None:
        self._describers = describers
        # Of those that could not begin, what is noted in every picture.
        self._not_begun: dict[str, Mapping[str, Any]] = {}

    def __bool__(self) -> bool:
        return bool(self._describers)

    def begin(self, space: VectorSpace) -> None:
        """Let each get ready; call it before `told`."""
        for describer in self._describers:
            try:
                describer.begin(space)
            except _ENDS:
                raise
            except Exception as error:  # noqa: BLE001 - a plug-in's failure costs its fields only
                self._not_begun[describer.name] = failed(describer.name, error)

    def told(self, vectors: Vectors) -> list[dict[str, Mapping[str, Any]]]:
        """Of each of the n vectors, of shape (n, dims) and any length, each describer's fields.

        What went wrong stands in `describe_errors`.
        """
        found: list[dict[str, Mapping[str, Any]]] = [{} for _ in vectors]
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit_vectors = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32, copy=False)
        for describer in self._describers:
            note = self._not_begun.get(describer.name)
            given = _given(describer, unit_vectors) if note is None else [note] * len(vectors)
            for each, fields in zip(found, given, strict=True):
                each[describer.name] = fields
        return found


def _given(describer: VectorDescriber, vectors: Vectors) -> list[Mapping[str, Any]]:
    try:
        given = [checked(fields) for fields in describer.describe_vectors(vectors)]
        if len(given) != len(vectors):
            raise ValueError(f"it described {len(given)} of {len(vectors)} vectors")
        for fields in given:
            check_mapped(fields, describer.mapping)
    except _ENDS:
        raise
    except Exception as error:  # noqa: BLE001 - a plug-in's failure costs its fields only
        if len(vectors) == 1:
            return [failed(describer.name, error)]
        return [each for row in vectors for each in _given(describer, row[None])]
    return list(given)
