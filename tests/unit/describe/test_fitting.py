"""What is left of odd values, and the notes on the rest; the server's part is in tests/contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from es_imgsearch.describe import plain_values
from es_imgsearch.describe.fields import has_failed, is_refusal, with_composed_texts
from es_imgsearch.describe.fitting import fit, fit_document, notes
from es_imgsearch.elastic.mapping import VECTOR_FIELD, failures_body, load_json
from es_imgsearch.errors import ReadError
from es_imgsearch.records import Change, Embedded, FileSignature, FileState, Picture, Root
from es_imgsearch.write.documents import failure_document, least_failure, picture_document
from tests.support.odd_values import LONG_TEXTS, ODD, PLAIN, odd_value

PROPERTIES: dict[str, Any] = load_json("mappings", "common.json")["mappings"]["properties"]
ROOT = Root("r", Path("/r"))


@pytest.mark.parametrize(
    ("name", "value", "left", "reason"),
    [
        ("iso", 2**31, None, "2147483648 is out of the range of integer"),
        ("iso", 2**70, None, "an integer of 71 bits is too large"),
        ("rating", 300, None, "300 is out of the range of byte"),
        ("rating", [5, 300, "x", 4], [5, 4], "300 is out of the range of byte"),
        ("width", float("nan"), None, "nan is not finite"),
        ("exposure_seconds", 1e39, None, "1e+39 is out of the range of float"),
        ("exposure_seconds", "fast", None, "'fast' is no number"),
        ("taken_at", "30828-09-14", None, "'30828-09-14' is no date"),
        ("taken_at", "2024-02-30", None, "'2024-02-30' is no date"),
        ("location", {"lat": 91, "lon": 0}, None, "91 is not in the range of -90 to 90 degrees"),
        ("location", {"lat": float("nan"), "lon": 0}, None, "lat: nan is not finite"),
        ("monochrome", "yes", None, "'yes' is neither true nor false"),
        ("camera", "c" * 40_000, "c" * 32_766, "the end of a text of 40000 bytes"),
        ("camera", {"make": "x"}, None, "an object is no text"),
        ("camera", b"x", None, "a bytes is no JSON"),
        ("attributes", "x", None, "'x' is no object"),
        ("attributes", {"a\0": 1, "b": 2}, {"b": 2}, "the name 'a\\x00'"),
        (
            "attributes",
            {"a": "v" * 40_000},
            {"a": "v" * 32_764},
            "the end of a text of 40000 bytes",
        ),
        ("colour_embedding", np.zeros(108), None, "a vector of this length cannot be compared"),
        (
            "colour_embedding",
            np.full(108, 1e30),
            None,
            "a vector of this length cannot be compared",
        ),
        ("colour_embedding", [1.0], None, "a vector of 1 numbers instead of 108"),
        ("perceptual_hash", "xyz", None, "'xyz' is not hexadecimal"),
        ("perceptual_hash", [200] * 8, None, "the bytes of a vector are whole numbers"),
        ("colour", "red", None, "the index does not map it"),
    ],
)
def test_what_cannot_be_stored_is_left_out_and_named(name: str, value: Any, left: Any, reason: str):
    fitted, left_out = fit({name: value, "title": "stays"}, PROPERTIES)
    assert fitted.pop("title") == "stays"
    assert fitted == ({} if left is None else {name: left})
    assert left_out[name][0].startswith(reason)
    note = notes(left_out, "exif")[0]
    assert note.startswith(f"exif: left out: {name}: {reason}")
    # The same would be left out again, and the describer has done its work.
    assert is_refusal(note)
    assert not has_failed({"describe_errors": [note]})


def test_texts_that_are_not_utf_8_are_escaped():
    fitted, left_out = fit({"title": "caf\udce9", "attributes": {"\ud800": ["\udfff"]}}, PROPERTIES)
    assert fitted == {"title": r"caf\udce9", "attributes": {r"\ud800": [r"\udfff"]}}
    assert not left_out


def test_long_texts_without_spaces_stay_whole():
    fields = {"description": "漢" * 50_000, "caption": "a" * 50_000, "text_in_image": "語" * 9_000}
    assert fit(fields, PROPERTIES) == (fields, {})


def test_a_document_that_is_too_large_loses_its_largest_fields():
    texts = {"title": ["a " * 450_000] * 5, "caption": ["b " * 450_000] * 5}
    fitted, left_out = fit({**texts, "camera": "c"}, PROPERTIES)
    assert fitted.keys() == {"caption", "camera"}
    assert left_out == {"title": ["its document is too large"]}


def test_many_notes_are_a_few():
    left_out = {"tags": [f"{n} is no text" for n in range(1000)]}
    found = notes(left_out, "mood")
    assert len(found) == 11
    assert found[-1] == "mood: left out: 990 more values"


def test_notes_name_who_gave_the_value():
    by_source = {"": {"width": 2**40}, "exif": {"iso": 2**40}, "mood": {"iso": -(2**40)}}
    document = {"width": 2**40, "iso": -(2**40), VECTOR_FIELD: np.ones(3), "describe_errors": ["x"]}
    fitted = fit_document(document, {**PROPERTIES, VECTOR_FIELD: {}}, by_source)
    assert [each.partition(": left out: ")[0] for each in fitted["describe_errors"]] == [
        "x", "file", "mood",
    ]  # fmt: skip
    assert VECTOR_FIELD in fitted


@pytest.mark.parametrize("name", ["location", "monochrome", "width", "taken_at", "colour_shares"])
def test_an_array_within_a_value_is_left_out(name: str):
    fitted, left_out = fit({name: [True, np.zeros(3, np.float32)]}, PROPERTIES)
    orjson.dumps(fitted)
    assert left_out[name]


NUMBERS = st.integers() | st.sampled_from([0, -1, 2**63, -(2**63) - 1, 2**200, -(2**200)])


@given(data=st.data(), size=NUMBERS, mtime=NUMBERS, ctime=NUMBERS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_picture_has_a_document(data: st.DataObject, size: int, mtime: int, ctime: int):
    names = data.draw(st.lists(st.sampled_from(sorted(PROPERTIES)), max_size=4, unique=True))
    fields = {name: data.draw(odd_value(PROPERTIES[name])) for name in names}
    path = (
        data.draw(st.binary(min_size=1, max_size=300))
        .replace(b"\0", b"")
        .decode(errors="surrogateescape")
        or "x"
    )
    state = FileState(size, mtime)
    picture = Picture("c", FileSignature(state, 1, ctime), np.zeros((1, 1, 3), np.uint8), fields)
    change = Change(ROOT, path, 0.0)
    vector = np.ones(512, np.float32)
    document = picture_document(change, picture, Embedded(vector, fields), 1.0)
    failure = failure_document(change, ReadError("corrupt", path * 50), state)
    for each in (document, failure, least_failure(failure, "\ud800" * 5000)):
        orjson.dumps(each, option=orjson.OPT_SERIALIZE_NUMPY)
        for name in ("size_bytes", "mtime_ns"):
            assert -(2**63) <= each[name] < 2**63
    assert document["root"] == failure["root"] == "r"
    properties = failures_body()["mappings"]["properties"]
    assert fit(failure, properties).left_out == {}


@pytest.mark.parametrize("value", [*PLAIN, *ODD, *LONG_TEXTS], ids=lambda _: "")
def test_no_value_raises_and_what_is_left_stays(value: Any):
    for name, mapping in PROPERTIES.items():
        once = fit({name: value}, {name: mapping}).fields
        again, left_out = fit(once, {name: mapping})
        assert left_out == {}
        dumped = [orjson.dumps(each, option=orjson.OPT_SERIALIZE_NUMPY) for each in (once, again)]
        assert dumped[0] == dumped[1]


def test_plain_values_are_converted_without_asking_other_classes(monkeypatch: pytest.MonkeyPatch):
    """Each value of a document was held against dataclasses, enums and NumPy's classes first."""

    def asked(value: object) -> bool:
        raise AssertionError(f"{value!r} may be a dataclass")

    monkeypatch.setattr(plain_values.dataclasses, "is_dataclass", asked)
    fields = {"a": "b", "c": [1, 2.5, None, True], "d": {"e": ("f", "\udce9")}, "g": np.ones(3)}
    fitted, left_out = fit(fields)
    assert not left_out
    assert fitted["c"] == [1, 2.5, None, True]
    assert fitted["d"] == {"e": ["f", "\\udce9"]}


def test_a_name_that_is_a_tuple_is_left_out():
    """It ended the reading: composed, it was a list, which is no key."""
    fields = with_composed_texts({"attributes": {("e\u0301",): 1, "e\u0301": "e\u0301"}})
    fitted, left_out = fit(fields)
    assert fitted == {"attributes": {"é": "é"}}
    assert "which is no text" in left_out["attributes"][0]
