"""Find the documents that paths of a file of labels name, and load their vectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.queries import parse_vector
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import FileInvalid
from es_imgsearch.records import composed, unit
from es_imgsearch.search.filtering.values import decomposed
from es_imgsearch.search.relevance import Floats

_PAGE = 1000


class LabelledPictures:
    """The ids of the pictures of a file of labels, by path, and the missing paths.

    A path may be relative to its root, start with the root's name or the root's folder, or be an
    image_id; composed or decomposed letters make no difference.  Raises FileInvalid if a path fits
    two documents, or no path fits any.
    """

    def __init__(self, store: Store, paths: Iterable[str]) -> None:
        self._roots = store.info().meta.roots
        distinct = list(dict.fromkeys(paths))
        self.id_of: dict[str, str] = {}
        for start in range(0, len(distinct), _PAGE):
            chunk = distinct[start : start + _PAGE]
            ids = self._find_documents(store, chunk)
            self.id_of.update({path: ids[path] for path in chunk if path in ids})
        self.missing = tuple(path for path in distinct if path not in self.id_of)
        if not self.id_of:
            raise FileInvalid(
                f"Index {store.index!r} holds none of the {len(distinct)} pictures of the file,"
                f" such as {distinct[0]!r}: write paths relative to the watched folder."
            )

    def ids(self, paths: Iterable[str]) -> list[str]:
        """Return the ids of those paths that the index holds."""
        return [self.id_of[path] for path in paths if path in self.id_of]

    def _find_documents(self, store: Store, paths: Sequence[str]) -> dict[str, str]:
        typed = {path for each in paths for path in self._relative_paths(each)}
        relative = {form for each in typed for form in (each, composed(each), decomposed(each))}
        clauses = [
            {"terms": {"relative_path": sorted(relative)}},
            {"terms": {"image_id": [*paths]}},
        ]
        ids: dict[str, str] = {}
        composed_ids: dict[str, str] = {}
        requested = set(paths)
        for source, _ in _pages(store, {"bool": {"should": clauses, "minimum_should_match": 1}}):
            for path in self._names(source):
                composed_ids.setdefault(composed(path), source["image_id"])
                first = ids.setdefault(path, source["image_id"])
                if first != source["image_id"] and path in requested:
                    raise FileInvalid(
                        f"{path!r} is in more than one root: write the root's name before it."
                    )
        same = {path: composed_ids.get(composed(path)) for path in requested - ids.keys()}
        return ids | {path: found for path, found in same.items() if found is not None}

    def _relative_paths(self, path: str) -> Iterator[str]:
        yield path.removeprefix("./")
        # Imported pictures may be of a root that is not registered.
        yield path.partition("/")[2]
        for root in self._roots.values():
            if path.startswith(f"{root['path']}/"):
                yield path[len(root["path"]) + 1 :]

    def _names(self, source: Mapping[str, Any]) -> Iterator[str]:
        path, root = source["relative_path"], source["root"]
        yield from (source["image_id"], path, f"./{path}", f"{root}/{path}")
        if root in self._roots:
            yield f"{self._roots[root]['path']}/{path}"


def load_unit_vectors(store: Store, ids: Sequence[str]) -> Floats:
    """Load stored vectors of pictures, of shape (n, dims), scaled to unit length."""
    vectors: dict[str, Floats] = {}
    for start in range(0, len(ids), _PAGE):
        clause = {"terms": {"image_id": list(ids[start : start + _PAGE])}}
        for source, fields in _pages(store, clause, [VECTOR_FIELD]):
            vectors[source["image_id"]] = unit(parse_vector(fields[VECTOR_FIELD]))
    return np.stack([vectors[each] for each in ids])


def _pages(
    store: Store, clause: Mapping[str, Any], vectors: Sequence[str] = ()
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Yield source (id, root, path) and vectors of every matching document."""
    exist = [{"exists": {"field": VECTOR_FIELD}}]
    fields = ("image_id", "root", "relative_path")
    for hits in store.listings.pages([clause, *exist], fields=fields, vectors=vectors, size=_PAGE):
        yield from ((hit["_source"], hit.get("fields", {})) for hit in hits)
