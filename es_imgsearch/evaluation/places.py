"""Which documents the paths of a file of labels mean, and their vectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from es_imgsearch.errors import LabelsInvalid
from es_imgsearch.mapping import VECTOR_FIELD
from es_imgsearch.queries import unit_vector_of
from es_imgsearch.relevance import Floats
from es_imgsearch.store import Store

_PAGE = 1000


class Places:
    """Which documents the paths of a file of labels mean.

    A path may be relative to its root, stand behind the root's name or the root's folder, or be
    an image_id.  Raises LabelsInvalid where two documents fit, or none fits any path.
    """

    def __init__(self, store: Store, paths: Iterable[str]) -> None:
        self._roots = store.info().meta.roots
        wanted = list(dict.fromkeys(paths))
        self.id_of: dict[str, str] = {}
        for start in range(0, len(wanted), _PAGE):
            chunk = wanted[start : start + _PAGE]
            found = self._documents(store, chunk)
            self.id_of.update({path: found[path] for path in chunk if path in found})
        self.missing = tuple(path for path in wanted if path not in self.id_of)
        if not self.id_of:
            raise LabelsInvalid(
                f"Index {store.index!r} holds none of the {len(wanted)} pictures named,"
                f" such as {wanted[0]!r}: paths are those below the watched folder."
            )

    def ids(self, paths: Iterable[str]) -> list[str]:
        """Ids of those of these paths that the index holds."""
        return [self.id_of[path] for path in paths if path in self.id_of]

    def _documents(self, store: Store, paths: Sequence[str]) -> dict[str, str]:
        below = {path for each in paths for path in self._below(each)}
        clauses = [{"terms": {"relative_path": sorted(below)}}, {"terms": {"image_id": [*paths]}}]
        found: dict[str, str] = {}
        asked = set(paths)
        for source, _ in _pages(store, {"bool": {"should": clauses, "minimum_should_match": 1}}):
            for path in self._names(source):
                known = found.setdefault(path, source["image_id"])
                if known != source["image_id"] and path in asked:
                    raise LabelsInvalid(
                        f"{path!r} is in more than one root: write the root's name before it."
                    )
        return found

    def _below(self, path: str) -> Iterator[str]:
        yield path.removeprefix("./")
        # What was imported may be of a root that nobody registered.
        yield path.partition("/")[2]
        for root in self._roots.values():
            if path.startswith(f"{root['path']}/"):
                yield path[len(root["path"]) + 1 :]

    def _names(self, source: Mapping[str, Any]) -> Iterator[str]:
        path, root = source["relative_path"], source["root"]
        yield from (source["image_id"], path, f"./{path}", f"{root}/{path}")
        if root in self._roots:
            yield f"{self._roots[root]['path']}/{path}"


def vectors_of(store: Store, ids: Sequence[str]) -> Floats:
    """Stored vectors of these pictures, of shape (n, dims), unit length."""
    vectors: dict[str, Floats] = {}
    for start in range(0, len(ids), _PAGE):
        clause = {"terms": {"image_id": list(ids[start : start + _PAGE])}}
        for source, fields in _pages(store, clause, [VECTOR_FIELD]):
            vectors[source["image_id"]] = unit_vector_of(fields[VECTOR_FIELD])
    return np.stack([vectors[each] for each in ids])


def _pages(
    store: Store, clause: Mapping[str, Any], vectors: Sequence[str] = ()
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Source (id, root and path) and vectors of every document that meets the clause."""
    exist = [{"exists": {"field": VECTOR_FIELD}}]
    after = None
    while True:
        hits = store.page(
            [clause, *exist],
            fields=("image_id", "root", "relative_path"),
            vectors=vectors,
            size=_PAGE,
            after=after,
        )
        yield from ((hit["_source"], hit.get("fields", {})) for hit in hits)
        if len(hits) < _PAGE:
            return
        after = hits[-1]["sort"]
