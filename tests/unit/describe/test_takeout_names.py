"""Sidecars of Google Takeout beside pictures whose names are decomposed, or not."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Literal

import orjson
import pytest

from es_imgsearch.describe.sidecar import sidecar_fields

FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")


@pytest.mark.parametrize("of_title", FORMS)
@pytest.mark.parametrize("of_sidecar", FORMS)
@pytest.mark.parametrize("of_picture", FORMS)
@pytest.mark.parametrize(
    ("picture", "sidecar", "title"),
    [
        ("é.jpg", "é.jpg.json", "é.jpg"),
        ("Ñandú Ärger.JPG", "Ñandú Ärger.JPG.supplemental-metadata.json", "Ñandú Ärger.jpg"),
        ("ted-modifié.jpg", "ted.jpg.json", "ted.jpg"),
        ("été-modifié(2).jpg", "été.jpg(2).json", "été.jpg"),
        ("kız-düzenlendi.jpg", "kız.jpg.supplemental-meta.json", "kız.jpg"),
        ("서울 한강.jpg", "서울 한강.jpg.json", "서울 한강.jpg"),
        ("ガラス.jpg", "ガラス.jpg.json", "ガラス.jpg"),
        ("Й_Ё.jpg", "Й_Ё.jpg.json", "Й&Ё.jpg"),
        ("İzmir ǰ.jpg", "İzmir ǰ.jpg.json", "İzmir ǰ.jpg"),
        ("हिन्दी क़लम.jpg", "हिन्दी क़लम.jpg.json", "हिन्दी क़लम.jpg"),
    ],
)
def test_the_unicode_form_of_names_and_titles_does_not_count(
    tmp_path: Path, picture: str, sidecar: str, title: str,
    of_picture: Literal["NFC", "NFD"], of_sidecar: Literal["NFC", "NFD"],
    of_title: Literal["NFC", "NFD"],
):  # fmt: skip
    told = {
        "title": unicodedata.normalize(of_title, title),
        "photoTakenTime": {"timestamp": "1526623689"},
    }
    (tmp_path / unicodedata.normalize(of_sidecar, sidecar)).write_bytes(orjson.dumps(told))
    fields = sidecar_fields(str(tmp_path / unicodedata.normalize(of_picture, picture)))
    assert fields.get("taken_from") == "takeout"


def test_a_title_with_another_accent_is_that_of_another_picture(tmp_path: Path):
    told = {"title": "è.jpg", "photoTakenTime": {"timestamp": "1526623689"}}
    (tmp_path / "é.jpg.json").write_bytes(orjson.dumps(told))
    assert sidecar_fields(str(tmp_path / "é.jpg")) == {}
