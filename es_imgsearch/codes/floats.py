"""Encode arrays of floats as indices store them, and as hashes are made of them."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def float_bytes(array: npt.NDArray[np.float32]) -> bytes:
    """Return an array as it is stored and hashed: float32, little-endian, row by row."""
    return np.ascontiguousarray(array, dtype="<f4").tobytes()


def floats_to_base64(array: npt.NDArray[np.float32]) -> str:
    """Encode `float_bytes` of an array in base64."""
    return base64.b64encode(float_bytes(array)).decode()


def floats_from_base64(text: str, shape: Sequence[int]) -> npt.NDArray[np.float32]:
    """Decode an array of this shape.  Raises ValueError if the text is not one."""
    raw = base64.b64decode(text, validate=True)
    return np.frombuffer(raw, "<f4").reshape(shape).astype(np.float32)
