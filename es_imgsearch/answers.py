"""What answers of Elasticsearch hold, where that takes more than a look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from es_imgsearch.connection import search_error
from es_imgsearch.errors import GenerationSwitched
from es_imgsearch.queries import vector_of


def hits_in(answer: Mapping[str, Any], generation: str) -> Sequence[Mapping[str, Any]]:
    """The hits of a search through the alias, which have to be of this generation.

    Raises GenerationSwitched.
    """
    hits: Sequence[Mapping[str, Any]] = answer.get("hits", {}).get("hits", ())
    for hit in hits:
        if hit["_index"] != generation:
            raise GenerationSwitched(
                f"The index is {hit['_index']} now and was {generation}: begin again."
            )
    return hits


def vectors_of(answer: Mapping[str, Any]) -> dict[str, dict[str, npt.NDArray[np.float32]]]:
    """Of every hit of `queries.stored_vectors_body` its vectors by field."""
    hits = answer.get("hits", {}).get("hits", ())
    return {
        hit["_id"]: {name: vector_of(value) for name, value in hit.get("fields", {}).items()}
        for hit in hits
    }


def answers_of(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The answers to the searches of one `_msearch`.

    Raises the error of the first that failed, since the request as a whole succeeds all the
    same.
    """
    answers: list[Mapping[str, Any]] = answer["responses"]
    for each in answers:
        if "error" in each:
            raise search_error(each)
    return answers
