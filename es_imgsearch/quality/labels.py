"""Read files of labels of pictures, or of queries and their relevant pictures.

Labels, as CSV or as JSON lines; a picture may have several lines::

    path,label                      {"path": "pets/tom.jpg", "labels": ["cat", "animal"]}
    pets/tom.jpg,cat
    pets/tom.jpg,animal

Queries; `image` instead of `query` is a picture file, relative to the file of queries::

    query,path                      {"query": "a cat on a sofa", "relevant": ["pets/tom.jpg"]}
    a cat on a sofa,pets/tom.jpg    {"image": "queries/tom2.jpg", "relevant": ["pets/tom.jpg"]}

Captions: a folder of pictures, each with a text file of the same name, as Tux Paint's stamps: the
caption in the first line, then ``de.utf8=...`` in other languages.

Every further column of a CSV line is another label, or another picture.  Pictures are named by
their path below the root, with or without the root's name in front, or by image_id.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from es_imgsearch.errors import FileInvalid
from es_imgsearch.records import composed

_FACET = re.compile(r"[^\W\d][\w-]*")
_CAPTIONED_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True, slots=True)
class LabelledQuery:
    """A text or a picture file to search with, and the pictures that are right.

    `label` is the label as written, where the text is only its words.
    """

    relevant: tuple[str, ...]
    text: str | None = None
    image: Path | None = None
    label: str | None = None

    @property
    def name(self) -> str:
        return self.label or (self.text if self.text is not None else str(self.image))


@dataclass(frozen=True, slots=True)
class Labels:
    """The content of a file of labels or queries.

    `pictures` maps a path to its labels; it is empty for a file of queries, of which all pictures
    that the file does not name are wrong.
    """

    queries: tuple[LabelledQuery, ...]
    pictures: Mapping[str, tuple[str, ...]]


def read_labels(file: Path, language: str = "en") -> Labels:
    """Read labels, queries or captions of a file or folder; captions in `language`.

    Raises FileInvalid, with the number of the line.
    """
    if file.is_dir():
        return _read_captions(file, language)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise FileInvalid(f"The labels {str(file)!r} cannot be read: {reason}.") from error
    if file.suffix.lower() in {".jsonl", ".ndjson"}:
        entries = list(_read_json_lines(text, file))
    elif file.suffix.lower() == ".csv":
        entries = list(_read_csv(text, file))
    else:
        raise FileInvalid(f"Labels are a .csv or a .jsonl file, or a folder, not {str(file)!r}.")
    if not entries:
        raise FileInvalid(f"{file.name} holds no labels and no queries.")
    return _labels(entries, file)


def queries_by_label(pictures: Mapping[str, Sequence[str]]) -> tuple[LabelledQuery, ...]:
    """Make a query of each label, sorted; the pictures with the label are right.

    The words of a label that names its facet, ``kind:animals``, are ``animals``.
    """
    by_label: dict[str, list[str]] = {}
    for path, labels in pictures.items():
        for label in labels:
            by_label.setdefault(label, []).append(path)
    return tuple(
        LabelledQuery(tuple(paths), words, label=None if words == label else label)
        for label, paths in sorted(by_label.items())
        for words in [label_words(label)]
    )


def label_words(label: str) -> str:
    """Return the words of a label without the facet that it names, ``kind:animals``."""
    facet, _, words = label.partition(":")
    # A time, an address and a title, "12:30", "https://…", "Star Wars: …", name no facet.
    if not _FACET.fullmatch(facet) or words.startswith("//"):
        return label
    return words.strip() or label


@dataclass(frozen=True, slots=True)
class _Entry:
    """One line: `kind` is path, query or image, `key` its value, `values` the rest."""

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
    merged: dict[tuple[str, str], dict[str, None]] = {}
    for entry in entries:
        merged.setdefault((entry.kind, entry.key), {}).update(dict.fromkeys(entry.values))
    if first.kind == "path":
        pictures = {
            key: tuple(dict.fromkeys(map(composed, values))) for (_, key), values in merged.items()
        }
        return Labels(queries_by_label(pictures), pictures)
    return Labels(
        tuple(
            LabelledQuery(tuple(values), text=composed(key))
            if kind == "query"
            else LabelledQuery(tuple(values), image=file.parent / key)
            for (kind, key), values in merged.items()
        ),
        {},
    )


def _read_csv(text: str, file: Path) -> Iterator[_Entry]:
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


def _read_json_lines(text: str, file: Path) -> Iterator[_Entry]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise FileInvalid(f"{file.name}, line {number}: not JSON ({error}).") from error
        columns = value if isinstance(value, dict) else {}
        kinds = [kind for kind in ("path", "query", "image") if kind in columns]
        if len(kinds) != 1:
            raise FileInvalid(
                f"{file.name}, line {number}: a line is an object with one of `path`, `query` and"
                " `image`."
            )
        (kind,) = kinds
        names = ("labels", "label") if kind == "path" else ("relevant",)
        cell: Any = next((value[name] for name in names if name in value), [])
        values = [cell] if isinstance(cell, str) else cell
        if not isinstance(values, list) or not all(
            isinstance(each, str) for each in [value[kind], *values]
        ):
            raise FileInvalid(
                f"{file.name}, line {number}: `{kind}` is a text, `{names[0]}` a list of texts."
            )
        stripped = tuple(filter(None, (each.strip() for each in values)))
        yield _checked(_Entry(number, kind, value[kind].strip(), stripped), file)


def _checked(entry: _Entry, file: Path) -> _Entry:
    if not entry.key:
        raise FileInvalid(f"{file.name}, line {entry.line}: the {entry.kind} is empty.")
    if not entry.values:
        missing = "label" if entry.kind == "path" else "right picture"
        raise FileInvalid(f"{file.name}, line {entry.line}: {entry.key!r} has no {missing}.")
    return entry


def _read_captions(folder: Path, language: str) -> Labels:
    captions: dict[str, list[str]] = {}
    for file in sorted(folder.rglob("*")):
        text_file = file.with_suffix(".txt")
        if file.suffix.lower() in _CAPTIONED_SUFFIXES and text_file.is_file():
            caption = _caption(text_file, language)
            if caption:
                path = file.relative_to(folder).as_posix()
                captions.setdefault(caption, []).append(path)
    if not captions:
        raise FileInvalid(
            f"No picture in {str(folder)!r} has a .txt file of the same name with a caption in"
            f" {language!r}."
        )
    queries = [LabelledQuery(tuple(paths), caption) for caption, paths in captions.items()]
    return Labels(tuple(queries), {})


def _caption(file: Path, language: str) -> str:
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    if language == "en":
        return lines[0].strip() if lines else ""
    texts: dict[str, Any] = dict(line.split(".utf8=", 1) for line in lines if ".utf8=" in line)
    return str(texts.get(language, "")).strip()
