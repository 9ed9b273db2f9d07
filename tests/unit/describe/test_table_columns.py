"""Columns of `metadata.csv` in any capitals, and pictures named by whole paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from es_imgsearch.describe.sidecar import SIDECAR_ID, sidecar_fields
from es_imgsearch.describe.sidecars.table import named_pictures


def said(picture: Path, *tops: Path) -> dict[str, Any]:
    fields = sidecar_fields(str(picture), tops=[str(top) for top in tops])
    fields.pop(SIDECAR_ID, None)
    return fields


@pytest.mark.parametrize("change", [str.upper, str.title, str.capitalize, str.lower])
def test_known_columns_are_met_in_any_capitals(tmp_path: Path, change: Any):
    names = ["file_name", "title", "rating", "taken_at", "creator", "keywords", "product_id"]
    names += ["source_url", "latitude", "longitude", "description"]
    columns = ",".join(map(change, names))
    row = "a.jpg,T,4,2018-05-18 07:08:09,Ada; Bob,red;blue,P-1,https://a.example,48.2,16.37,D"
    (tmp_path / "metadata.csv").write_text(f"{columns},Shelf\n{row},3\n")
    fields = said(tmp_path / "a.jpg")
    assert fields["attributes"].pop("Shelf") == "3"
    assert not {each.lower() for each in fields["attributes"]} & {"title", "rating", "keywords"}
    fields.pop("attributes")
    assert fields == {
        "title": "T", "rating": 4, "creator": ["Ada", "Bob"], "keywords": ["red", "blue"],
        "product_id": "P-1", "source_url": "https://a.example", "description": "D",
        "location": {"lat": 48.2, "lon": 16.37}, "taken_at": "2018-05-18T07:08:09",
        "taken_local": "2018-05-18T07:08:09", "taken_from": "sidecar",
    }  # fmt: skip


def test_of_two_spellings_the_one_as_documented_counts(tmp_path: Path):
    (tmp_path / "metadata.csv").write_text("Title,file_name,title,TITLE\none,a.jpg,two,three\n")
    assert said(tmp_path / "a.jpg")["title"] == "two"


def test_a_whole_path_names_the_picture(tmp_path: Path):
    below = tmp_path / "train"
    below.mkdir()
    (tmp_path / "metadata.csv").write_text(
        f"File_Name,title\n{tmp_path}/a.jpg,A\n{below}/b.jpg,B\n/elsewhere/c.jpg,C\n"
        f"{tmp_path}//train/../d.jpg,D\n{tmp_path}2/e.jpg,E\n"
    )
    assert said(tmp_path / "a.jpg") == {"title": "A"}
    assert said(below / "b.jpg", tmp_path) == {"title": "B"}
    assert said(tmp_path / "c.jpg") == {}
    assert said(tmp_path / "d.jpg") == {"title": "D"}
    assert said(tmp_path / "e.jpg") == {}
    assert {"a.jpg", "train/b.jpg", "d.jpg"} <= set(named_pictures(str(tmp_path)) or ())
