"""SMILE read back by a decoder written from the specification; the server's own is in e2e."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from es_imgsearch.write import smile


class Decoder:
    """Reads what the specification allows and we write; anything else is an AssertionError."""

    def __init__(self, data: bytes) -> None:
        assert data[:4] == b":)\n\x00"
        self.data, self.at = data, 4

    def take(self, length: int) -> bytes:
        taken = self.data[self.at : self.at + length]
        assert len(taken) == length
        self.at += length
        return taken

    def until_fc(self) -> bytes:
        end = self.data.index(0xFC, self.at)
        taken = self.take(end - self.at)
        self.at += 1
        return taken

    def bits(self, length: int) -> int:
        number = 0
        for each in self.take(length):
            assert each < 0x80
            number = number << 7 | each
        return number

    def zigzag(self) -> int:
        number = 0
        while not (each := self.take(1)[0]) & 0x80:
            number = number << 7 | each
        number = number << 6 | each & 0x3F
        return number >> 1 ^ -(number & 1)

    def value(self) -> Any:
        (token,) = self.take(1)
        if token in (0x20, 0x21, 0x22, 0x23):
            return ("", None, False, True)[token - 0x20]
        if token in (0x24, 0x25):
            return self.zigzag()
        if token == 0x28:
            return struct.unpack(">f", self.bits(5).to_bytes(4, "big"))[0]
        if token == 0x29:
            return struct.unpack(">d", self.bits(10).to_bytes(8, "big"))[0]
        if 0x40 <= token < 0x80:
            return self.take(token - 0x3F).decode("ascii")
        if 0x80 <= token < 0xC0:
            return self.take(token - 0x7E).decode()
        if token in (0xE0, 0xE4):
            return self.until_fc().decode("ascii" if token == 0xE0 else "utf-8")
        if token == 0xF8:
            return list(self.items(0xF9))
        assert token == 0xFA, hex(token)
        return dict(self.members())

    def items(self, end: int):
        while self.data[self.at] != end:
            yield self.value()
        self.at += 1

    def members(self):
        while (token := self.take(1)[0]) != 0xFB:
            if token == 0x20:
                name = ""
            elif 0x80 <= token < 0xC0:
                name = self.take(token - 0x7F).decode("ascii")
            elif 0xC0 <= token < 0xF8:
                name = self.take(token - 0xBE).decode()
            else:
                assert token == 0x34, hex(token)
                name = self.until_fc().decode()
            yield name, self.value()


def decoded(data: bytes) -> Any:
    decoder = Decoder(data)
    value = decoder.value()
    assert decoder.at == len(data)
    return value


# Surrogates cannot be UTF-8; lengths around 32, 64 and 65 bytes change the token.
texts = st.text(st.characters(exclude_categories=["Cs"])) | st.builds(
    lambda letter, count: letter * count, st.sampled_from("aé日😀"), st.integers(0, 70)
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.sampled_from([2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 63, 64, -64, -65])
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(texts, values, max_size=6))
def test_a_document_is_read_back_as_it_was(fields: dict[str, Any]):
    assert decoded(smile.document(fields)) == fields


@given(st.dictionaries(texts, values, max_size=6))
def test_the_byte_between_items_stands_in_no_document(fields: dict[str, Any]):
    assert smile.SEPARATOR not in smile.document(fields)


@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 9)),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
)
def test_vectors_are_read_back_to_the_last_bit(matrix: np.ndarray):
    encoded = smile.vectors(matrix)
    assert len(encoded) == len(matrix)
    for row, each in zip(matrix, encoded, strict=True):
        read = decoded(smile.document({"v": each}))["v"]
        assert np.array(read, np.float32).tobytes() == row.tobytes()
        assert smile.SEPARATOR not in each


def test_vectors_of_a_slice_and_of_no_rows_are_read_back():
    matrix = np.arange(24, dtype=np.float32).reshape(4, 6)[::2, 1:4]
    read = [decoded(smile.document({"v": each}))["v"] for each in smile.vectors(matrix)]
    assert read == matrix.tolist()
    assert smile.vectors(matrix[:0]) == []


@pytest.mark.parametrize(
    "value", [2**63, -(2**63) - 1, float("nan"), float("-inf"), "\ud800", b"x", {"a"}, object()]
)
def test_what_has_no_place_in_a_document_is_refused(value: Any):
    with pytest.raises(ValueError):
        smile.document({"x": [value]})
