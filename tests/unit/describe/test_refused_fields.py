"""Which describer's fields are left out of a document that Elasticsearch refuses."""

from __future__ import annotations

from typing import Any

import pytest

from es_imgsearch.describe import fields as refusal
from es_imgsearch.describe.fields import ERRORS_FIELD, is_refusal, merged, without_refused
from es_imgsearch.describe.sidecar import SIDECAR_ID
from es_imgsearch.errors import StoreRejected

TOLD: dict[str, dict[str, Any]] = {
    "": {"width": 3},
    "iptc": {"title": "of the file"},
    "mood": {"mood": "bright", "shades": {"a": 1}},
    "zeal": {"title": {"of": "somebody"}, "width": 4},
}


@pytest.fixture(autouse=True)
def _foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal, "foreign_describers", lambda: frozenset({"mood", "zeal"}))


@pytest.mark.parametrize(
    ("reason", "names"),
    [
        ("[1:80] failed to parse field [mood] of type [integer] in document with id '4f'", "mood"),
        (
            "mapping set to strict, dynamic introduction of [b] within [shades] is not allowed",
            "mood",
        ),
        ('Document contains at least one immense term in field="shades.a" (whose', "mood"),
        # Types are no fields.
        ("failed to parse field [mood] of type [title] in document with id '4f'", "mood"),
        ("object mapping for [mood] tried to parse field [null] as object", "mood"),
        # The value was that of the later one.
        ("failed to parse field [title] of type [text] in document with id '4f'", "zeal"),
        ("failed to parse field [mood] of type [x]. Preview of field's value: '[title]'", "mood"),
    ],
)
def test_the_describer_is_found_whose_field_is_named(reason: str, names: str):
    error = StoreRejected(f"Elasticsearch rejected the document ({reason}).")
    left = without_refused(TOLD, error)
    assert left is not None
    assert [name for name in left if left[name] is not TOLD[name]] == [names]
    (note,) = left[names][ERRORS_FIELD]
    assert note.startswith(f"{names}: StoreRejected: Elasticsearch rejected the document")


def test_what_was_under_a_refused_field_comes_back():
    left = without_refused(TOLD, StoreRejected("failed to parse field [title]"))
    assert left is not None
    fields = merged(left)
    assert (fields["title"], fields["width"], fields["mood"]) == ("of the file", 3, "bright")


def test_where_nobody_is_named_all_from_other_packages_are_left_out():
    left = without_refused(TOLD, StoreRejected("HTTP 413"))
    assert left is not None
    assert merged(left).keys() == {"width", "title", ERRORS_FIELD}
    # Nothing is left that could be: the picture itself is refused.
    assert without_refused(left, StoreRejected("HTTP 413")) is None


def test_what_the_file_itself_tells_is_not_left_out():
    assert without_refused({"": {"width": 3}}, StoreRejected("failed to parse [width]")) is None


def test_what_a_refused_sidecar_said_is_known_by_its_hash():
    told = {"sidecar": {"title": "a", SIDECAR_ID: "4f"}}
    left = without_refused(told, StoreRejected("failed to parse field [title] of type [date]"))
    assert left is not None
    assert left["sidecar"][SIDECAR_ID] == "4f"
    (note,) = left["sidecar"][ERRORS_FIELD]
    assert is_refusal(note)
    assert is_refusal("sidecar: StoreTooLarge: of an earlier version")
    assert not is_refusal("sidecar: ValueError: a.json is no JSON: StoreRejected")
