"""Vocabularies and labels are the same words, composed or not."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from es_imgsearch.quality.labels import read_labels
from es_imgsearch.tags.vocabulary import read_vocabulary

WORDS = ["Żółw", "Йод", "한국", "ガラス", "Nguyễn", "शेर"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_words_of_files_are_composed(tmp_path: Path, form: str):
    typed = [unicodedata.normalize(form, each) for each in WORDS]
    words = [unicodedata.normalize("NFC", each) for each in WORDS]
    file = tmp_path / "v.toml"
    file.write_text(f"[things]\nlabels = {typed!r}\n", encoding="utf-8")
    assert list(read_vocabulary(file).labels) == words
    labels, path = tmp_path / "l.csv", unicodedata.normalize("NFD", "é.jpg")
    labels.write_text("path,label\n" + "".join(f"{path},{each}\n" for each in typed), "utf-8")
    assert dict(read_labels(labels).pictures) == {path: tuple(words)}
    labels.write_text("query,path\n" + "".join(f"{each},{path}\n" for each in typed), "utf-8")
    assert [each.text for each in read_labels(labels).queries] == words
