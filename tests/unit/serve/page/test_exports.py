"""Cells of a table that spreadsheets show and never run."""

from __future__ import annotations

from typing import Any

import pytest

from es_imgsearch.serve.page.exports import cell


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "=HYPERLINK(\"http://evil\")",
     "＝1", "＠x", "-cmd|' /C calc'!A0"],
)  # fmt: skip
def test_what_would_be_a_formula_gets_an_apostrophe(text: str):
    assert cell(text) == f"'{text}"
    assert cell([text, "b"]).startswith("'")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-0.25, "-0.25"), (7, "7"), (None, ""), (True, "true"), ("", ""), ("a=b", "a=b"),
        (["frog", "green"], "frog; green"), ([1, 2.5], "1; 2.5"), ({"a": 1}, '{"a": 1}'),
        ([{"b": "ü"}], '[{"b": "ü"}]'), ("<script>", "<script>"), ([], ""),
    ],
)  # fmt: skip
def test_other_values_stay_as_they_are(value: Any, text: str):
    assert cell(value) == text
