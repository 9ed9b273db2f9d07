"""Files that say which pictures are right: labels of pictures, or queries and their pictures.

Labels, as CSV or as JSON lines; a picture may stand in several lines::

    path,label                      {"path": "pets/tom.jpg", "labels": ["cat", "animal"]}
    pets/tom.jpg,cat
    pets/tom.jpg,animal

Queries; `image` instead of `query` asks with a picture file, relative to the file of queries::

    query,path                      {"query": "a cat on a sofa", "relevant": ["pets/tom.jpg"]}
    a cat on a sofa,pets/tom.jpg    {"image": "asked/tom2.jpg", "relevant": ["pets/tom.jpg"]}

Captions: a folder of pictures with a text file beside each, as Tux Paint's stamps have them: the
caption in the first line, then ``de.utf8=...`` in other languages.

A line of CSV may go on: every further column is another label, or another picture.  Pictures are
named by their path below the root, with the root's name before it or not, or by image_id.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from es_imgsearch.elastic.mapping import VECTOR_FIELD
from es_imgsearch.elastic.queries import parse_vector
from es_imgsearch.elastic.store import Store
from es_imgsearch.errors import FileInvalid
from es_imgsearch.records import unit
from es_imgsearch.search.relevance import Floats

_CAPTIONED = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True, slots=True)
class Question:
    """Something to search for, words or a picture, and the pictures that are right."""

    relevant: tuple[str, ...]
    text: str | None = None
    image: Path | None = None

    @property
    def name(self) -> str:
        return self.text if self.text is not None else str(self.image)


@dataclass(frozen=True, slots=True)
class Labels:
    """A file of labels or queries.

    `pictures` maps a path to its labels; it is empty where the file holds queries, whose
    pictures are right and all others wrong.
    """

    questions: tuple[Question, ...]
    pictures: Mapping[str, tuple[str, ...]]


def read_labels(file: Path, language: str = "en") -> Labels:
    """The labels, queries or captions in a file or folder; `language` chooses among captions.

    Raises FileInvalid, with the number of the line.
    """
    if file.is_dir():
        return _captions(file, language)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise FileInvalid(f"The labels {str(file)!r} cannot be read: {reason}.") from error
    if file.suffix.lower() in {".jsonl", ".ndjson"}:
        entries = list(_from_json(text, file))
    elif file.suffix.lower() == ".csv":
        entries = list(_from_csv(text, file))
    else:
        raise FileInvalid(f"Labels are a .csv or a .jsonl file, or a folder, not {str(file)!r}.")
    if not entries:
        raise FileInvalid(f"{file.name} holds no labels and no queries.")
    return _labels(entries, file)


def questions_of(pictures: Mapping[str, Sequence[str]]) -> tuple[Question, ...]:
    """One question a label, for the pictures that have it; by label."""
    by_label: dict[str, list[str]] = {}
    for path, labels in pictures.items():
        for label in labels:
            by_label.setdefault(label, []).append(path)
    return tuple(Question(tuple(paths), label) for label, paths in sorted(by_label.items()))


@dataclass(frozen=True, slots=True)
class _Entry:
    """One line: `kind` is path, query or image, `key` that one, `values` the rest."""

    line: int
    kind: str
    key: str
    values: tuple[str, ...]


def _labels(entries: Sequence[_Entry], file: Path) -> Labels:
    first = entries[0]
    for entry in entries:
        if (entry.kind == "path") != (first.kind == "path"):
            raise FileInvalid(
                f"{file.name}, line {entry.line}: labels of pictures and queries cannot be mixed"
                " in one file."
            )
    together: dict[tuple[str, str], dict[str, None]] = {}
    for entry in entries:
        together.setdefault((entry.kind, entry.key), {}).update(dict.fromkeys(entry.values))
    if first.kind == "path":
        pictures = {key: tuple(values) for (_, key), values in together.items()}
        return Labels(questions_of(pictures), pictures)
    return Labels(
        tuple(
            Question(tuple(values), text=key)
            if kind == "query"
            else Question(tuple(values), image=file.parent / key)
            for (kind, key), values in together.items()
        ),
        {},
    )


def _from_csv(text: str, file: Path) -> Iterator[_Entry]:
    rows = csv.reader(io.StringIO(text), strict=True)
    kind = ""
    try:
        for row in rows:
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            if not kind:
                kind = cells[0].lower()
                if kind not in {"path", "query"}:
                    raise FileInvalid(
                        f"{file.name}, line {rows.line_num}: the first line names the columns,"
                        f" `path,label` or `query,path`, not {','.join(cells)[:60]!r}."
                    )
                continue
            values = tuple(filter(None, cells[1:]))
            yield _checked(_Entry(rows.line_num, kind, cells[0], values), file)
    except csv.Error as error:
        raise FileInvalid(f"{file.name}, line {rows.line_num}: {error}.") from error


def _from_json(text: str, file: Path) -> Iterator[_Entry]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise FileInvalid(f"{file.name}, line {number}: not JSON ({error}).") from error
        known = value if isinstance(value, dict) else {}
        kinds = [kind for kind in ("path", "query", "image") if kind in known]
        if len(kinds) != 1:
            raise FileInvalid(
                f"{file.name}, line {number}: a line is an object with one of `path`, `query` and"
                " `image`."
            )
        (kind,) = kinds
        names = ("labels", "label") if kind == "path" else ("relevant",)
        given: Any = next((value[name] for name in names if name in value), [])
        values = [given] if isinstance(given, str) else given
        if not isinstance(values, list) or not all(
            isinstance(each, str) for each in [value[kind], *values]
        ):
            raise FileInvalid(
                f"{file.name}, line {number}: `{kind}` is a text, `{names[0]}` a list of texts."
            )
        found = tuple(filter(None, (each.strip() for each in values)))
        yield _checked(_Entry(number, kind, value[kind].strip(), found), file)


def _checked(entry: _Entry, file: Path) -> _Entry:
    if not entry.key:
        raise FileInvalid(f"{file.name}, line {entry.line}: the {entry.kind} is empty.")
    if not entry.values:
        what = "label" if entry.kind == "path" else "right picture"
        raise FileInvalid(f"{file.name}, line {entry.line}: {entry.key!r} has no {what}.")
    return entry


def _captions(folder: Path, language: str) -> Labels:
    captions: dict[str, list[str]] = {}
    for file in sorted(folder.rglob("*")):
        beside = file.with_suffix(".txt")
        if file.suffix.lower() in _CAPTIONED and beside.is_file():
            caption = _caption(beside, language)
            if caption:
                path = file.relative_to(folder).as_posix()
                captions.setdefault(caption, []).append(path)
    if not captions:
        raise FileInvalid(
            f"No picture in {str(folder)!r} has a .txt file beside it with a caption in"
            f" {language!r}."
        )
    questions = [Question(tuple(paths), caption) for caption, paths in captions.items()]
    return Labels(tuple(questions), {})


def _caption(file: Path, language: str) -> str:
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    if language == "en":
        return lines[0].strip() if lines else ""
    texts: dict[str, Any] = dict(line.split(".utf8=", 1) for line in lines if ".utf8=" in line)
    return str(texts.get(language, "")).strip()


# Which documents the paths of a file of labels mean, and their vectors.

_PAGE = 1000


class Places:
    """Which documents the paths of a file of labels mean.

    A path may be relative to its root, stand behind the root's name or the root's folder, or be
    an image_id.  Raises FileInvalid where two documents fit, or none fits any path.
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
            raise FileInvalid(
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
                    raise FileInvalid(
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
            vectors[source["image_id"]] = unit(parse_vector(fields[VECTOR_FIELD]))
    return np.stack([vectors[each] for each in ids])


def _pages(
    store: Store, clause: Mapping[str, Any], vectors: Sequence[str] = ()
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Source (id, root and path) and vectors of every document that meets the clause."""
    exist = [{"exists": {"field": VECTOR_FIELD}}]
    fields = ("image_id", "root", "relative_path")
    for hits in store.listings.pages([clause, *exist], fields=fields, vectors=vectors, size=_PAGE):
        yield from ((hit["_source"], hit.get("fields", {})) for hit in hits)
